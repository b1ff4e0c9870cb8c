"""What of a run folder can be shipped now, and in which order.

order                                 because
names, then sealed segments           no row arrives before the names it refers to
what the dead left unsealed           rows up to the last whole one; nobody writes there any more
events                                what decisions had seen tells which rows have to be there
what was fetched after the run        beside the rows that it fills
boards of the dead, and those left    behind all else of a process: where one is, its rows are complete
processes, then the manifest          they promise rows; read before the rest is listed, so that they promise no more

A process is over when it closed in order, or when its lock is free. Where the file system has no locks, only the end
of the run in the manifest tells.
"""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from rl_hooks.row import TABLES
from rl_hooks.run_folder import BACKFILL, MANIFEST, WITH_ROWS, holds_lock, read_incarnations
from rl_hooks.segments import OPEN, SEALED, worth_keeping

LEADS = ("local", "master")


@dataclass(frozen=True)
class File:
    """A file that can be shipped. `mark` changes when its content does."""

    name: str  # in the run
    path: Path
    mark: object
    content: bytes | None = None  # what it held when we looked; None: it is read when it is shipped
    is_sealed: bool = False  # never changes again
    grows: bool = False

    def read(self) -> bytes | None:
        """What to ship, None for nothing. Raises FileNotFoundError when it was sealed or deleted in the meantime."""
        if self.content is not None:
            return self.content
        if self.path.suffix == OPEN:
            return worth_keeping(self.path, TABLES[self.path.parent.name])
        return self.path.read_bytes()


@dataclass(frozen=True)
class Contents:
    """A run folder, looked at once."""

    run_id: str
    files: tuple[File, ...]  # in the order in which they have to be shipped
    writing: tuple[str, ...]  # processes that still write
    leads: frozenset[str]  # processes/<name>.json of those that lead a run; there is one in a run
    is_over: bool  # nothing will come any more


def find_runs(place: Path) -> list[Path]:
    """The folder itself when it is one of a run, else the folders of runs in it."""
    if is_run(place):
        return [place]
    return sorted(path for path in place.iterdir() if is_run(path))


def is_run(path: Path) -> bool:
    """Whether it is a run folder, or a worker's part of one."""
    try:
        return (path / "processes").is_dir()
    except PermissionError:  # a volume's lost+found
        return False


def look(folder: Path) -> Contents:
    """What can be shipped of a run now. Raises OSError when the folder cannot be read."""
    names = [path.stem for path in (folder / "processes").glob("*.json")]
    unlocked = {name for name in names if not holds_lock(folder, name)}  # asked first: then it has said if it closed
    everyone = read_incarnations(folder)
    processes = {file.path.stem: file for file in _processes(folder)}
    manifest = _small(folder, folder / MANIFEST)
    stated = _stated(manifest)
    ended = stated.get("state", "running") != "running"
    over = {who.name: who.closed or (who.name in unlocked if who.locked else ended) for who in everyone}
    dead = [who for who in everyone if over[who.name] and not who.closed]
    lead_died = any(who.role in LEADS for who in dead)
    segments = [path for table in TABLES for path in (folder / table).glob("*.*.*.*.*")]
    sealed = sorted(path for path in segments if path.suffix == SEALED)
    unsealed = sorted(path for path in segments if path.suffix == OPEN and over.get(_writer(path), False))
    left = [who for who in everyone if who.role in WITH_ROWS and (who in dead or who.left_in_flight)]
    boards = [folder / "in_flight" / f"{who.name}.board" for who in left]
    files = [
        *(_file(folder, path) for path in sorted((folder / "dictionaries").glob("*.jsonl"))),
        *(_file(folder, path, is_sealed=True) for path in sealed),
        *(_file(folder, path) for path in unsealed),
        *(_file(folder, path, grows=True) for path in sorted((folder / "events").glob("*.jsonl"))),
        *(_file(folder, path) for path in boards),
        _file(folder, folder / BACKFILL),
        *processes.values(),
        manifest,
    ]
    return Contents(
        run_id=_run_id(folder, stated),
        files=tuple(file for file in files if file is not None),
        writing=tuple(name for name, is_over in over.items() if not is_over),
        leads=frozenset(name for name in processes if name.split(".")[0] in LEADS),
        is_over=all(over.values()) and (ended or lead_died or (manifest is None and bool(over))),
    )


def _writer(segment: Path) -> str:
    return segment.name.rsplit(".", 2)[0]


def _processes(folder: Path) -> list[File]:
    files = [_small(folder, path) for path in sorted((folder / "processes").glob("*.json"))]
    return [file for file in files if file is not None]


def _small(folder: Path, path: Path) -> File | None:
    """A file that is replaced as a whole, with what it holds now; None when there is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    return File(path.relative_to(folder).as_posix(), path, sha256(content).digest(), content)


def _file(folder: Path, path: Path, is_sealed: bool = False, grows: bool = False) -> File | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    mark = (stat.st_size, stat.st_mtime_ns)
    return File(path.relative_to(folder).as_posix(), path, mark, is_sealed=is_sealed, grows=grows)


def _stated(manifest: File | None) -> dict[str, Any]:
    """What the manifest says; nothing when it is damaged, which whoever reads the run will say."""
    try:
        content = json.loads((manifest and manifest.content) or b"{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _run_id(folder: Path, stated: dict[str, Any]) -> str:
    """As the manifest says; a worker's part is in a folder of that name."""
    run_id = stated.get("run_id")
    usable = isinstance(run_id, str) and run_id == PurePosixPath(run_id).name and not run_id.startswith(".")
    return str(run_id) if usable and run_id else folder.resolve().name

"""The run folder: what a run leaves behind, written while it goes on and readable after any interruption.

    <run>/manifest.json                    the plan and everything that was decided before the first request
          processes/<incarnation>.json     who wrote: role, host, pid, clock, and its last row numbers once it closed
          <table>/<incarnation>.<n>.seg    rows of requests, sessions, decisions, observations, samples (rl_hooks.row)
          dictionaries/<incarnation>.jsonl names behind the *_ref columns, written before an id is first used
          events/<incarnation>.jsonl       phases and users, one line each
          in_flight/<incarnation>.board    what each user had in flight; matters only after a kill

An *incarnation* is one process from start to end: `<role>.<host>.<eight hex digits>`. Small files are replaced by an
atomic rename, lines are appended with one write each, rows go into maps: nothing needs a proper end. A process holds a
lock on its dictionary while it writes. The kernel takes that back however the process ends, so that others on its
machine know when nothing more will come.

Processes on other machines may each have a part of the run in a folder of their own, with the same names and without a
manifest, which is the leading process's.
"""

import json
import mmap
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rl_hooks.clock import SteadyClock
from rl_hooks.row import IN_FLIGHT, SENT_BYTES, TABLES
from rl_hooks.segments import SegmentWriter, allocate_map

MANIFEST = "manifest.json"
BACKFILL = "backfill/metrics.parquet"  # what was fetched after the run; written by an export, never by a recorder
SCHEMA_VERSION = 4  # 2: segments and faults in plans; 3: observations; 4: action spaces and what a balancer states
WITH_ROWS = ("local", "master", "worker")
"""Roles of processes that write rows; others write only events."""
FOLDERS = (*TABLES, "processes", "dictionaries", "events", "in_flight")
SEGMENT_BYTES = {"requests": 2 << 20, **dict.fromkeys(("sessions", "decisions", "observations", "samples"), 256 << 10)}


class RunFolderError(Exception):
    """A run folder that cannot be made, written or read; the message names the place and the way out."""


def create_run_folder(path: Path, manifest: Mapping[str, Any]) -> None:
    """Make the folder and its manifest. Raises RunFolderError when it exists with content or cannot be written."""
    way_out = "choose another with --run-folder"
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise RunFolderError(f"{path}: the run folder exists and is not empty; {way_out}, or remove it")
        for name in FOLDERS:
            (path / name).mkdir()
        write_json(path / MANIFEST, {"schema_version": SCHEMA_VERSION, **manifest})
    except FileExistsError as error:
        raise RunFolderError(f"{path}: a file of that name is in the way; {way_out}") from error
    except OSError as error:
        raise RunFolderError(f"{path}: the run folder cannot be written ({error.strerror}); {way_out}") from error


def create_part(path: Path) -> None:
    """Make the folder of a process's own part of a run, which may be there already. Raises RunFolderError."""
    try:
        for name in FOLDERS:
            (path / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"{path}: a part of the run cannot be written there ({error.strerror})"
        raise RunFolderError(f"{text}; choose another place with --spool") from error


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run folder. Raises RunFolderError when `path` is not one."""
    file = path / MANIFEST
    if not path.is_dir():
        raise RunFolderError(f"{path}: there is no such folder; give the folder of a run (it holds {MANIFEST})")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        wrote = {file.name.split(".")[0] for file in (path / "processes").glob("*.json")}
        part = "; it is a worker's part of one: ship it to where its master's part is (docs/shipping.md)"
        text = f"{path}: not a run folder, it has no {MANIFEST}{part if wrote == {'worker'} else ''}"
        raise RunFolderError(text) from error
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{file}: cannot be read as a manifest ({error})") from error
    if not isinstance(manifest, dict) or "schema_version" not in manifest:
        raise RunFolderError(f"{file}: not the manifest of a run, it has no schema_version")
    if manifest["schema_version"] != SCHEMA_VERSION:
        found = manifest["schema_version"]
        text = f"{file}: schema version {found}, this program reads {SCHEMA_VERSION}"
        raise RunFolderError(f"{text}; export it with the version that recorded it")
    name, started_ns = manifest.get("scenario", "unnamed"), manifest.get("started_unix_ns", 0)
    if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) and isinstance(started_ns, int)):
        raise RunFolderError(f"{file}: damaged, it says scenario {name!r}, started at {started_ns!r}")
    known = manifest.get("incarnations", {})
    if not (isinstance(known, dict) and all(isinstance(one, dict) and "requests" in one for one in known.values())):
        raise RunFolderError(f"{file}: damaged, it does not say what each of its incarnations has written")
    return manifest


def update_manifest(path: Path, **changes: Any) -> None:
    """Replace the manifest by itself with `changes`, atomically."""
    write_json(path / MANIFEST, {**read_manifest(path), **changes})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write strict JSON beside `path` and rename it into place: a reader sees the old or the new, never a part."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    beside.replace(path)


@dataclass(frozen=True)
class Writer:
    """Who writes, and its clock. A run in virtual time states one that is always the same."""

    host: str
    pid: int
    token: str  # eight hex digits that tell incarnations apart
    now_ns: Callable[[], int]  # wall-clock time, ns
    clock: Mapping[str, int] | None = None  # where its steady clock began, if it has one: wall_ns and monotonic_ns


def this_process(clock: SteadyClock | None = None) -> Writer:
    """This process with its wall clock, or with a clock that never steps."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:48] or "host"
    who = Writer(host, os.getpid(), secrets.token_hex(4), time.time_ns)
    return who if clock is None else replace(who, now_ns=clock.now_ns, clock=asdict(clock.anchor))


class EventWriter:
    """A process incarnation that writes events and no rows."""

    def __init__(self, path: Path, role: str, writer: Writer | None = None) -> None:
        who = writer or this_process()
        self.path = path
        self.incarnation = f"{role}.{who.host}.{who.token}"
        self.now_ns = who.now_ns
        self._facts: dict[str, Any] = {"role": role, "host": who.host, "pid": who.pid, "started_unix_ns": who.now_ns()}
        if who.clock is not None:
            self._facts["clock"] = dict(who.clock)
        try:
            self._open()
            self._names = _Lines(_dictionary(path, self.incarnation))
            self._facts["locked"] = self._names.lock()
            self._events = _Lines(path / "events" / f"{self.incarnation}.jsonl")
            self._write_process("running")
        except OSError as error:
            way_out = "free some space or choose another place with --run-folder"
            raise RunFolderError(f"{path}: cannot be written ({error.strerror}); {way_out}") from error

    def event(self, kind: str, **facts: Any) -> None:
        """Write one event with the time of now."""
        self._events.write({"t_ns": self.now_ns(), "kind": kind, **facts})

    def rows(self) -> dict[str, int]:
        """Rows written so far, by table."""
        return dict.fromkeys(TABLES, 0)

    def close(self) -> None:
        """Say that this incarnation ended in order, with its last row numbers."""
        self._events.close()
        self._write_process("closed")
        self._names.close()  # and with it the lock, last: who finds it free and reads no "closed" knows of a kill

    def _open(self) -> None:
        """Make what else it writes into."""

    def _write_process(self, state: str) -> None:
        last_seq = self.rows() if state == "closed" else None
        facts = {**self._facts, "state": state, "last_seq": last_seq}
        write_json(self.path / "processes" / f"{self.incarnation}.json", facts)


class RunWriter(EventWriter):
    """What one process incarnation writes into a run folder.

    Rows go through `append`; ids for the `*_ref` columns come from `ref`; `board` says what is in flight.
    """

    def __init__(self, path: Path, role: str, board_places: int, writer: Writer | None = None) -> None:
        self._refs: dict[tuple[str, str], int] = {}
        self._ref_counts: dict[str, int] = {}
        self._board_places = board_places
        super().__init__(path, role, writer)

    def _open(self) -> None:
        self.tables = {
            name: SegmentWriter(self.path / name, self.incarnation, table, SEGMENT_BYTES[name])
            for name, table in TABLES.items()
        }
        self.board = Board(self.path / "in_flight" / f"{self.incarnation}.board", self._board_places)

    def ref(self, kind: str, name: str) -> int:
        """The id of `name` among the names of its kind, from 1 on; 0 for the empty name, which means none."""
        if not name:
            return 0
        known = self._refs.get((kind, name))
        if known is not None:
            return known
        new = self._ref_counts.get(kind, 0) + 1
        self._names.write({"kind": kind, "id": new, "name": name})
        self._ref_counts[kind] = new
        self._refs[kind, name] = new
        return new

    def maintain(self) -> None:
        """Seal full segments and keep spares ready; may run in another thread. Raises OSError when the disk is full."""
        for writer in self.tables.values():
            writer.maintain()

    def rotate(self) -> None:
        """End the segments that have rows, so that they can be sealed and shipped. Raises OSError on a full disk."""
        for writer in self.tables.values():
            if writer.rows_in_current:
                writer.rotate()

    def rows(self) -> dict[str, int]:
        """Rows written so far, by table."""
        return {name: writer.rows for name, writer in self.tables.items()}

    def close(self, *, left_in_flight: bool = False) -> None:
        """Seal everything and say that this incarnation ended in order, with its last row numbers.

        `left_in_flight`: what is on the board was sent by others and goes on without us; its outcome stays unknown.
        """
        for writer in self.tables.values():
            writer.close()
        self.board.close()
        self._facts["left_in_flight"] = left_in_flight
        super().close()


class Board:
    """One fixed place per user that says which request it has in flight, in a memory-mapped file."""

    def __init__(self, path: Path, places: int) -> None:
        self.map: mmap.mmap = allocate_map(path, places * IN_FLIGHT.row_bytes)
        self._next = 0
        self._end = places * IN_FLIGHT.row_bytes

    def take(self) -> int:
        """The offset of a place nobody has. IndexError when all are taken."""
        if self._next == self._end:
            raise IndexError(f"the board has {self._end // IN_FLIGHT.row_bytes} places, and all are taken")
        self._next += IN_FLIGHT.row_bytes
        return self._next - IN_FLIGHT.row_bytes

    def used(self) -> bytes:
        """All places that were ever taken, as they are now."""
        return self.map[: self._next]

    def end(self, offset: int) -> None:
        """The request at this place has ended; what was known of it stays readable until the next begins."""
        self.map[offset + SENT_BYTES] = 0

    def close(self) -> None:
        self.map.close()


class _Lines:
    """An append-only file of JSON lines, one write call each, so that no line waits in a buffer of ours."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL, 0o644)

    def write(self, content: Mapping[str, Any]) -> None:
        line = (json.dumps(content, allow_nan=False) + "\n").encode()
        written = os.write(self._descriptor, line)
        if written != len(line):
            raise OSError(28, "No space left on device")

    def lock(self) -> bool:
        """Hold a lock on the file until it is closed; whether its file system has locks."""
        try:
            import fcntl  # not on Windows

            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (ImportError, OSError):
            return False
        return True

    def close(self) -> None:
        os.close(self._descriptor)


def holds_lock(path: Path, incarnation: str) -> bool:
    """Whether a process of this machine writes as `incarnation` now; it said that it has a lock."""
    import fcntl

    with suppress(FileNotFoundError), _dictionary(path, incarnation).open("rb") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _dictionary(path: Path, incarnation: str) -> Path:
    return path / "dictionaries" / f"{incarnation}.jsonl"


@dataclass(frozen=True)
class Incarnation:
    """One process that wrote. `last_seq` (rows by table) is known only when it closed in order."""

    name: str
    role: str
    host: str
    closed: bool
    last_seq: Mapping[str, int] | None
    damage: str | None = None  # what is wrong with what it said about itself
    left_in_flight: bool = False  # it closed in order while requests of others were in flight
    locked: bool = False  # whether it had a lock while it wrote


def read_incarnations(path: Path) -> tuple[Incarnation, ...]:
    """All incarnations of a run, in order of their names: those that said so, and those that only left rows."""
    files = {file.stem: file for file in (path / "processes").glob("*.json")}
    left_rows = {file.name.rsplit(".", 2)[0] for table in TABLES for file in (path / table).glob("*.*.*.*.*")}
    return tuple(
        _incarnation(name, files.get(name, path / "processes" / f"{name}.json"))
        for name in sorted(left_rows | set(files))
    )


def _incarnation(name: str, file: Path) -> Incarnation:
    role, host, *_ = (*name.split("."), "")
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        closed, left, locked = facts["state"] == "closed", facts.get("left_in_flight"), facts.get("locked")
        return Incarnation(
            name,
            facts["role"],
            facts["host"],
            closed,
            facts["last_seq"],
            left_in_flight=left is True,
            locked=locked is True,
        )
    except FileNotFoundError:
        return Incarnation(name, role, host, False, None, f"{file}: missing; whether it closed in order is not known")
    except (ValueError, KeyError, TypeError):
        return Incarnation(name, role, host, False, None, f"{file}: damaged; whether it closed in order is not known")

"""Runs that were shipped, as folders to read: `s3://bucket/prefix/run_id` becomes a copy of the run folder.

Every file is checked against the size and the SHA-256 that its store states. With a cache, files that are there and
right are not fetched again, and an interrupted fetch goes on where it was.
"""

import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rl_hooks.run_folder import BACKFILL, FOLDERS, MANIFEST
from rl_hooks.stores.place import S3, is_s3, open_store
from rl_hooks.stores.store import Store, StoreError

FETCHES = 8  # at the same time: small objects cost waiting more than anything else
_FILE_OF_A_RUN = re.compile(
    rf"{re.escape(MANIFEST)}|{re.escape(BACKFILL)}|({'|'.join(FOLDERS)})/[A-Za-z0-9_-][A-Za-z0-9._-]*"
)


@contextmanager
def run_folders(runs: Sequence[str], cache: Path | None) -> Iterator[list[Path]]:
    """The folders of runs: paths as they are, `s3://` as copies in `cache` or in a temporary folder.

    Raises StoreError with what cannot be fetched.
    """
    if not any(is_s3(run) for run in runs):
        yield [Path(run) for run in runs]
        return
    with tempfile.TemporaryDirectory(prefix="rl-runs-") as temporary:
        below = cache if cache is not None else Path(temporary)
        yield [_fetched(run.rstrip("/"), below) if is_s3(run) else Path(run) for run in runs]


def _fetched(place: str, below: Path) -> Path:
    """A copy of a run, in a folder that is named by where it comes from."""
    target = below / place.removeprefix(S3)
    try:
        fetch(open_store(place), target)
    except OSError as error:
        text = f"{target}: {place} cannot be written there ({error.strerror or error})"
        raise StoreError(f"{text}; free some space or choose another place with --cache") from error
    return target


def fetch(store: Store, target: Path) -> None:
    """Copy the files of the run at the root of a store. Raises StoreError, OSError when there is no room."""
    names = [name for name, _ in store.list("") if _FILE_OF_A_RUN.fullmatch(name)]
    if MANIFEST not in names:
        raise StoreError(f"{store.describe()}: no run is there ({MANIFEST} is missing); {_instead(store, names)}")
    (target / ".arriving").mkdir(parents=True, exist_ok=True)
    for folder in {Path(name).parent for name in names}:
        (target / folder).mkdir(exist_ok=True)
    with ThreadPoolExecutor(FETCHES) as pool:
        for _ in pool.map(partial(_fetch_one, store, target), names):
            pass  # raises what one of them raised


def _instead(store: Store, names: Sequence[str]) -> str:
    if names:
        return "the part of the process that led it has not arrived; ship it too"
    runs = sorted({name.split("/")[0] for name, _ in store.list("") if name.endswith(f"/{MANIFEST}")})
    return f"name one of the runs: {', '.join(runs[:5])}" if runs else "check the URL, and that the run was shipped"


def _fetch_one(store: Store, target: Path, name: str) -> None:
    file = target / name
    if file.exists():
        there = store.head(name)
        if there is not None and there.sha256 is not None and _identify(file) == (there.size, there.sha256):
            return
    beside = target / ".arriving" / name.replace("/", "%")
    with beside.open("wb") as arriving:
        stated = store.get(name, arriving)
    size, sha256 = _identify(beside)
    where = f"{store.describe()}/{name}"
    if size != stated.size:
        raise StoreError(f"{where}: {stated.size} bytes were promised and {size} came; try again")
    if stated.sha256 not in (None, sha256):
        beside.unlink()
        raise StoreError(f"{where}: the checksum differs from the one it was put there with; ship it again")
    beside.replace(file)


def _identify(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return path.stat().st_size, sha256

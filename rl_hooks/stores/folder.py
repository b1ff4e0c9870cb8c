"""A store in a folder, for example on a volume that several hosts mount.

    <root>/<name>                     an object
    <root>/.arriving/...              one on its way, by whom; renamed into its place when it is on the disk

A rename within a file system is atomic, also on NFS, so whoever reads sees an object whole or not at all.
"""

import glob
import hashlib
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rl_hooks.stores.store import StoreAwayError, Stored, StoreError

ARRIVING = ".arriving"


class FolderStore:
    """See the module. The root has to exist: a folder that is made in place of a missing mount would take the data."""

    def __init__(self, root: Path) -> None:
        self._root = root
        if not root.is_dir():
            raise StoreError(f"{root}: there is no such folder; mount the volume there, or make it with mkdir")
        if not os.access(root, os.W_OK):
            raise StoreError(f"{root}: cannot be written; give this user the right to, or choose another place")

    def describe(self) -> str:
        return str(self._root)

    def list(self, below: str) -> Iterator[tuple[str, int]]:
        with self._told():
            self._root.stat()  # an empty folder and one that is gone are different things
            for path in sorted((self._root / below).rglob("*")):
                name = path.relative_to(self._root)
                if path.is_file() and name.parts[0] != ARRIVING:
                    yield name.as_posix(), path.stat().st_size

    def head(self, name: str) -> Stored | None:
        with self._told():
            try:
                with (self._root / name).open("rb") as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                    return Stored(os.fstat(file.fileno()).st_size, sha256)
            except FileNotFoundError:
                self._root.stat()
                return None

    def put(self, name: str, content: bytes, sha256: str) -> None:
        target, whose = self._root / name, f"{name.replace('/', '%')}.{socket.gethostname()}."
        beside = self._root / ARRIVING / f"{whose}{os.getpid()}"
        with self._told():
            self._root.stat()
            beside.parent.mkdir(exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
            _sync_folder(target.parent)
            for left in beside.parent.glob(f"{glob.escape(whose)}*"):  # by one of us that was killed
                left.unlink(missing_ok=True)

    def get(self, name: str, file: BinaryIO) -> Stored:
        stored = self.head(name)
        if stored is None:
            raise StoreError(f"{self._root / name}: has vanished; ship it again")
        with self._told(), (self._root / name).open("rb") as source:
            shutil.copyfileobj(source, file)
        return stored

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever a file system refuses may pass: room, a mount, a right."""
        try:
            yield
        except OSError as error:
            raise StoreAwayError(f"{error.filename or self._root}: {error.strerror or error}") from error


def _sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk, too."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""One run folder on its way into a store, pass by pass.

Nothing is remembered but in memory: what a shipper that was killed had shipped is found at the destination, by size and
checksum. So passes can be repeated as often as one likes, and end at the same objects.
"""

import hashlib
import time
from pathlib import Path

from rl_hooks.ship.contents import Contents, File, look
from rl_hooks.stores.store import Store, StoreAwayError, Stored, StoreError

AGAIN_BYTES_PER_S = 256 << 10
"""Files that grow go whole each time: a large one less often, so that this is not exceeded on average."""


class RunShipping:
    """See the module. With `delete`, sealed segments leave the disk once they are verified at the destination."""

    def __init__(self, folder: Path, store: Store, delete: bool) -> None:
        self.folder = folder
        self.files = 0
        self.size = 0  # bytes put
        self._store = store
        self._delete = delete
        self._shipped: dict[str, object] = {}  # name -> mark of what is verified at the destination
        self._due_s: dict[str, float] = {}
        self._over_at: object = None  # how the folder was when all of it was shipped and nothing more was to come
        self._there: set[str] = set()  # names at the destination
        self._has_looked = False  # since we began, or since it came back

    @property
    def is_over(self) -> bool:
        """Whether everything is shipped and nothing more will come; also what came unexpectedly is noticed."""
        return self._over_at is not None and self._over_at == _changed_at(self.folder)

    def ship(self, everything: bool) -> None:
        """One pass; `everything`: also what could wait. Raises StoreError, OSError when the folder cannot be read."""
        before, contents = _changed_at(self.folder), look(self.folder)
        try:
            self._look_there(contents)
            for file in contents.files:
                if self._shipped.get(file.name) != file.mark and (everything or contents.is_over or self._is_due(file)):
                    self._ship(contents.run_id, file)
        except StoreAwayError:
            self._has_looked = False  # it may come back without what it had
            raise
        came_since = self._open(look(self.folder))
        self._over_at = before if contents.is_over and not came_since else None

    def left(self) -> list[str]:
        """What is not at the destination, one line each."""
        contents = look(self.folder)
        waiting = self._open(contents)
        size = sum(file.path.stat().st_size for file in waiting if file.path.exists())
        named = ", ".join(file.name for file in waiting[:3]) + (", ..." if len(waiting) > 3 else "")
        lines = [f"{self.folder}: {len(waiting)} files, {size / 1e6:.1f} MB ({named})"] if waiting else []
        return lines + [f"{self.folder}: the newest rows of {name}, which still writes" for name in contents.writing]

    def _open(self, contents: Contents) -> list[File]:
        return [file for file in contents.files if self._shipped.get(file.name) != file.mark]

    def _look_there(self, contents: Contents) -> None:
        """List the destination, and see that no other run has this one's name."""
        if self._has_looked:
            return
        there = {name for name, _ in self._store.list(contents.run_id)}
        known = {f"{contents.run_id}/processes/{name}.json" for name in contents.leads}
        folder = f"{contents.run_id}/processes/"
        others = {name for name in there if name.startswith((f"{folder}local.", f"{folder}master."))} - known
        if others and known:
            raise StoreError(
                f"{self._store.describe()}/{contents.run_id}: another run of this name is there, led by "
                f"{Path(min(others)).stem}; ship {self.folder} to another place"
            )
        self._there, self._shipped, self._has_looked = there, {}, True

    def _is_due(self, file: File) -> bool:
        return not file.grows or time.monotonic() >= self._due_s.get(file.name, 0.0)

    def _ship(self, run_id: str, file: File) -> None:
        try:
            content = file.read()
        except FileNotFoundError:  # sealed under its other name since, or deleted by another shipper
            return
        if content is not None:
            self._put(f"{run_id}/{file.name}", content)
            self._due_s[file.name] = time.monotonic() + len(content) / AGAIN_BYTES_PER_S
        self._shipped[file.name] = file.mark
        if self._delete and file.is_sealed:  # and seen to be there, by `_put`
            file.path.unlink(missing_ok=True)

    def _put(self, name: str, content: bytes) -> None:
        """Put an object and see that it is there, unless it is there already."""
        sha256 = hashlib.sha256(content).hexdigest()
        stated = Stored(len(content), sha256)
        if name in self._there and self._store.head(name) == stated:
            return
        self._store.put(name, content, sha256)
        if self._store.head(name) != stated:
            raise StoreAwayError(f"{self._store.describe()}/{name}: is not there as it was put")
        self._there.add(name)
        self.files += 1
        self.size += len(content)


def _changed_at(folder: Path) -> object:
    """Changes when the manifest is replaced, and when a process begins, ends, or says something new about itself."""
    try:
        return folder.stat().st_mtime_ns, (folder / "processes").stat().st_mtime_ns
    except FileNotFoundError:
        return None

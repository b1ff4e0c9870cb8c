"""What of a run can be downloaded: a fixed list of names, looked up below its folder and nowhere else."""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

BUNDLE = "bundle"
BUNDLE_ZIP = "bundle.zip"
FILES = {  # what a browser asks for -> where it is in the run folder
    "report_card.html": Path(BUNDLE) / "report_card.html",
    "report_card.json": Path(BUNDLE) / "report_card.json",
    "manifest.json": Path("manifest.json"),
}
CHUNK_BYTES = 1 << 18


class NothingThereError(Exception):
    """What was asked for is not there, or not to be given away; the message says what to do."""


def available(folder: Path) -> list[str]:
    """The names that can be downloaded now."""
    names = [name for name, place in FILES.items() if (folder / place).is_file()]
    return [*names, BUNDLE_ZIP] if (folder / BUNDLE / "dataset.json").is_file() else names


def find(folder: Path, name: str) -> Path:
    """The file of that name. Raises NothingThereError."""
    if name not in FILES:
        raise NothingThereError(f"there is no download of that name; there are {', '.join([*FILES, BUNDLE_ZIP])}")
    return _inside(folder, folder / FILES[name])


def bundle_files(folder: Path) -> list[tuple[str, Path]]:
    """The files of the bundle with their names in it. Raises NothingThereError."""
    bundle = folder / BUNDLE
    if not (bundle / "dataset.json").is_file():
        raise NothingThereError("the run has no bundle; export it first")
    found = sorted(path for path in bundle.rglob("*") if path.is_file() or path.is_symlink())
    return [(path.relative_to(bundle).as_posix(), _inside(folder, path)) for path in found]


def zipped(files: list[tuple[str, Path]], root: str, give_way: Callable[[], None]) -> Iterator[bytes]:
    """A zip file of `files` below a folder `root`, piece by piece: nothing is written to disk, little is in memory.

    Not compressed, since Parquet is already. `give_way()` is called after each piece.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files:
            entry = zipfile.ZipInfo.from_file(path, f"{root}/{name}")
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while chunk := source.read(CHUNK_BYTES):
                    target.write(chunk)
                    yield sink.take()
                    give_way()
    yield sink.take()


def _inside(folder: Path, path: Path) -> Path:
    """The path itself, sure to be a file below the folder once all links are followed."""
    real = path.resolve()
    if not real.is_relative_to(folder.resolve()):
        raise NothingThereError(f"{path.name}: leads out of the run folder, so it is not given away; remove the link")
    if not real.is_file():
        raise NothingThereError(f"{path.name}: is not there; export the run first")
    return real


class _Sink:
    """Where a zip file is written to; it can only go forward."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits anywhere."""

    def close(self) -> None:
        """Nothing is open."""

    def take(self) -> bytes:
        pieces, self._pieces = b"".join(self._pieces), []
        return pieces

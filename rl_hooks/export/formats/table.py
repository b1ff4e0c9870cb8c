"""The formats by name, and how one is written: into a folder of its own inside the bundle, whole or not at all.

<bundle>/formats/<name>/...           what the format is made of; train and validation apart, excluded rows in neither
<bundle>/formats/<name>/format.json   what it was made from, how observations are encoded, what was left out

The bundle's own files are not touched. What is there is never overwritten.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from rl_hooks.export.errors import ExportError
from rl_hooks.export.formats.source import Bundle, read_bundle, transitions_path
from rl_hooks.parts import not_imported, where
from rl_hooks.version import VERSION
from scenario.errors import ScenarioError
from scenario.refs import resolve

Writer = Callable[[Bundle, Path], Mapping[str, Any]]
"""Writes the format into the (empty) folder and returns what format.json shall say beside the common facts.

It has to say {"parts": {<part>: {"rows": n}}}, and where rows are missing {"left_out": {<reason>: n}, "reasons":
{<reason>: text}}; people are shown both.
"""

PARQUET = "parquet"
"""The bundle itself: always there, so there is nothing to write."""

_HERE = "rl_hooks.export.formats"
FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "npz": f"{_HERE}.flat:write_npz",
        "d4rl": f"{_HERE}.d4rl:write",
        "bandit": f"{_HERE}.bandit:write",
        "jsonl": f"{_HERE}.experiences:write",
        "rllib": f"{_HERE}.rllib:write",
        "d3rlpy": f"{_HERE}.d3rlpy_buffer:write",
        "minari": f"{_HERE}.minari_dataset:write_hdf5",
        "minari-arrow": f"{_HERE}.minari_dataset:write_arrow",
    }
)
"""Name -> module:attribute of the writer; imported only when asked for."""

NEEDS_PROPENSITIES = {"bandit": "it is made of propensities, and the balancer, which decided by itself, stated none"}
"""Formats that a bundle without propensities has not, and what people are told instead."""

FORMATS_FOLDER = "formats"
FACTS = "format.json"


def find_writers(names: str) -> dict[str, Writer]:
    """The writers that a comma-separated list names, in its order; `module:attribute` names one of your own.

    Raises ExportError for a name that does not exist, and where a library is missing.
    """
    asked = dict.fromkeys(name.strip() for name in names.split(",") if name.strip())
    return {_folder_name(name): _find(name) for name in asked if name != PARQUET}


def write_formats(path: Path, writers: Mapping[str, Writer]) -> None:
    """Write formats into the bundle at `path`; those that it cannot have are left out, see `describe_formats`.

    Raises ExportError when one is there already or one of somebody else fails, OSError on a full disk.
    """
    there = [name for name in writers if (path / FORMATS_FOLDER / name).exists()]
    if there:
        places = ", ".join(str(path / FORMATS_FOLDER / name) for name in there)
        raise ExportError(f"{places}: there already; nothing is overwritten, so remove it to have it written again")
    if not writers:
        return
    bundle = read_bundle(path)
    for name, writer in writers.items():
        if not _left_out(bundle.facts, name):
            _write(bundle, name, writer)


def describe_formats(path: Path, names: Iterable[str]) -> list[str]:
    """A line per format for people: where it is, how much is in it, what is not."""
    facts = json.loads((path / "dataset.json").read_text(encoding="utf-8"))
    return [line for name in names for line in (_left_out(facts, name) or _describe(path / FORMATS_FOLDER / name))]


def _left_out(facts: Mapping[str, Any], name: str) -> list[str]:
    """Why the bundle cannot have a format; nothing where it can."""
    if name in NEEDS_PROPENSITIES and facts.get("propensities", {}).get("are") == "none":
        return [f"{'format':<12} {name}: not written: {NEEDS_PROPENSITIES[name]}"]
    return []


def _describe(folder: Path) -> list[str]:
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    rows = ", ".join(f"{part} {entry['rows']}" for part, entry in facts["parts"].items())
    left_out = [
        f"             left out {count} {reason}: {facts['reasons'][reason]}"
        for reason, count in facts.get("left_out", {}).items()
        if count
    ]
    return [f"{'format':<12} {folder}: {rows or 'no rows'}", *left_out]


def _folder_name(name: str) -> str:
    """A format of one's own is kept under its attribute's dotted place, which is a name that files can have."""
    return name.replace(":", ".")


def _find(name: str) -> Writer:
    try:
        return cast(Writer, resolve(name, FORMATS))
    except ScenarioError as error:
        (problem,) = error.problems
        raise ExportError(f"--format {name}: {problem.text}. {problem.way_out}") from error
    except Exception as error:
        if name not in FORMATS:
            raise ExportError(str(not_imported(f"--format {name}", error))) from error
        if not isinstance(error, ModuleNotFoundError):
            raise
        way_out = "`make formats` or pip install '.[formats]' in a clone of the project brings it"
        raise ExportError(f"format {name}: {error.name} is not installed; {way_out}") from error


def _write(bundle: Bundle, name: str, writer: Writer) -> None:
    parent = bundle.path / FORMATS_FOLDER
    parent.mkdir(exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=parent))
    try:
        folder = beside / name
        folder.mkdir()
        facts = writer(bundle, folder) if name in FORMATS else _by_somebody(writer, name, bundle, folder)
        content = {**_common(bundle, name), **facts, "files": _listed(folder)}
        text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        (folder / FACTS).write_text(text, encoding="utf-8")
        folder.rename(parent / name)
    finally:
        shutil.rmtree(beside)
        if not any(parent.iterdir()):
            parent.rmdir()


def _by_somebody(writer: Writer, name: str, bundle: Bundle, folder: Path) -> Mapping[str, Any]:
    """What a writer of somebody else returns. Raises ExportError for whatever it raises, or where it does not say."""
    try:
        facts = writer(bundle, folder)
    except (ExportError, OSError):
        raise
    except Exception as error:  # somebody else's code: whatever it raises is said
        raise ExportError(f"format {name}: failed{where(error)} ({type(error).__name__}: {error})") from error
    try:
        json.dumps(facts, allow_nan=False)
        told = all(int(part["rows"]) >= 0 for part in facts["parts"].values())
    except (KeyError, TypeError, ValueError, AttributeError):
        told = False
    if not told:
        raise ExportError(f'format {name}: has to return {{"parts": {{PART: {{"rows": N}}}}}} as JSON values')
    return facts


def _common(bundle: Bundle, name: str) -> dict[str, Any]:
    made_from = {part: _sha256(bundle.path / transitions_path(part)) for part in bundle.parts}
    return {
        "format": name,
        "made_by": {"name": "locust-rl-balancer", "version": VERSION},
        "made_from_sha256": made_from,
        "actions": list(bundle.actions),
    }


def _listed(folder: Path) -> dict[str, str]:
    """Checksums by path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

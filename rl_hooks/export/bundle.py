"""Writing a bundle: everything into a folder beside the place, then one swap.

<bundle>/README.md dataset.json normalization.json episodes.parquet
         data/transitions/train-00000-of-00001.parquet  validation-00000-of-00001.parquet
         data/excluded/excluded.parquet
         data/requests/requests.parquet  data/samples/samples.parquet
         formats/<name>/...    only those that were asked for
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from rl_hooks.export import split
from rl_hooks.export.card import card
from rl_hooks.export.check import check
from rl_hooks.export.dataset import Dataset
from rl_hooks.export.errors import ExportError
from rl_hooks.export.formats import parquet
from rl_hooks.export.formats.table import Writer, write_formats
from rl_hooks.export.normalization import normalization
from rl_hooks.export.requests import request_tables
from rl_hooks.export.sample_table import sample_table
from rl_hooks.export.schema import dataset_facts

DATASET = "dataset.json"


def write_bundle(data: Dataset, out: Path, formats: Mapping[str, Writer] = MappingProxyType({})) -> None:
    """Write the bundle to `out` with these formats beside the Parquet files, replacing a bundle that is there.

    Raises ExportError when the data breaks a rule, or when `out` is something else than a bundle or cannot be written;
    what was there stays.
    """
    check(data)
    _check_place(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            fresh = beside / "new"
            _write_files(data, fresh)
            write_formats(fresh, formats)
            _swap(fresh, out, beside / "old")
        finally:
            shutil.rmtree(beside)
    except OSError as error:
        raise ExportError(
            f"{out}: the bundle cannot be written ({error.strerror or error}); free some space or choose another place "
            "with --out"
        ) from error


def _check_place(out: Path) -> None:
    if out.exists() and not (out / DATASET).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise ExportError(f"{out}: exists and is not a bundle (no {DATASET}); choose another place with --out")


def _swap(fresh: Path, out: Path, old: Path) -> None:
    """Two renames: whoever looks sees the old bundle, for a moment none, then the new one, never a part of one."""
    if not out.exists():
        fresh.rename(out)
        return
    out.rename(old)
    try:
        fresh.rename(out)
    except OSError:
        old.rename(out)
        raise


def _write_files(data: Dataset, folder: Path) -> None:
    parquet.write_parts(request_tables(data), folder / "data" / "requests" / "requests.parquet")
    for name in (split.TRAIN, split.VALIDATION):
        path = folder / "data" / "transitions" / f"{name}-00000-of-00001.parquet"
        parquet.write(parquet.transitions(data, name), path)
    parquet.write(parquet.transitions(data, split.EXCLUDED), folder / "data" / "excluded" / "excluded.parquet")
    parquet.write(sample_table(data), folder / "data" / "samples" / "samples.parquet")
    episodes = pa.Table.from_pandas(data.episodes, preserve_index=False).replace_schema_metadata(None)
    parquet.write(episodes, folder / "episodes.parquet")
    facts = dataset_facts(data)
    write_json(folder / "normalization.json", normalization(data))
    content = hashlib.sha256(json.dumps(_listed(folder)).encode()).hexdigest()
    (folder / "README.md").write_text(card(facts, content), encoding="utf-8")
    write_json(folder / DATASET, {**facts, "files": _listed(folder)})


def _listed(folder: Path) -> dict[str, dict[str, Any]]:
    """The files there are, by their path in the bundle, with checksum and size."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _identify(path) for path in files}


def write_json(path: Path, content: Any) -> None:
    """Strict JSON: what is missing is null, and NaN is an error."""
    path.write_text(json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def _identify(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}

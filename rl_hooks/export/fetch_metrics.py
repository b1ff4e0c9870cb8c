"""Fetching what a run's decisions lacked, once, after the run; see `rl_hooks.export.backfill`."""

from collections.abc import Sequence
from pathlib import Path

from rl_hooks.control import SourceError
from rl_hooks.export.backfill import FILE, moments_of, of_told, read_backfill, write_backfill
from rl_hooks.export.errors import ExportError
from rl_hooks.parts import PartError
from rl_hooks.run_reader import read_run
from rl_hooks.sources.named import make_source
from rl_hooks.sources.series import SeriesError, tell

OPTION = "--backfill"


def fetch_metrics(folders: Sequence[Path], name: str) -> list[str]:
    """Fetch the metrics of each run from the source `name`; lines that say what was done.

    A run that has them already keeps them. Raises ExportError with what is wrong.
    """
    try:
        source = make_source(OPTION, name, None)
    except PartError as error:
        raise ExportError(str(error)) from error
    history = getattr(source, "history", None)
    if history is None:
        raise ExportError(f"{OPTION} {name}: knows nothing of the past; name prometheus:URL or prometheus:FILE")
    return [_fetch(folder, source.describe(), history) for folder in folders]


def _fetch(folder: Path, described: str, history: "object") -> str:
    there = read_backfill(folder)
    if there is not None:
        if there.facts["source"] == described:
            return f"back-fill    {folder / FILE} is there already; remove it to fetch again"
        raise ExportError(
            f"{folder / FILE}: was fetched from {there.facts['source']}; remove it to fetch from {described}, or "
            f"export without {OPTION} to use it"
        )
    moments = moments_of(read_run(folder))
    if len(moments) == 0:
        raise ExportError(f"{folder}: no decisions were recorded, so there is nothing to fill")
    assert callable(history)
    try:
        reading, found = history(int(moments[0]), int(moments[-1]))
        fields = [field for field in reading.fields if not field.name.endswith("_total")]
        told = tell(fields, reading.naming, found, moments)
    except (SourceError, SeriesError) as error:
        raise ExportError(f"{OPTION} {described}: {error}") from error
    known = int((told.oldest_ns > 0).sum())
    if known == 0:
        raise ExportError(
            f"{OPTION} {described}: knows nothing of the time of {folder}; was it scraping then, and does it keep "
            "values so long?"
        )
    facts = {
        "source": described,
        "fields": {field.name: " / ".join(one.text for one in field.selectors) for field in fields},
        "from_unix_ns": int(moments[0]),
        "to_unix_ns": int(moments[-1]),
        "moments": len(moments),
        "moments_with_values": known,
    }
    try:
        path = write_backfill(folder, of_told(told, moments, facts))
    except OSError as error:
        raise ExportError(f"{folder / FILE}: cannot be written ({error.strerror or error}); free some space") from error
    return f"back-fill    {path}: {known} of {len(moments)} moments of decision have metrics"

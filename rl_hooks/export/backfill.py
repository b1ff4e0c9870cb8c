"""Metrics of a run that were fetched after it, for decisions that were made without.

    Prometheus --rl_hooks.export.fetch_metrics--> RUN/backfill/metrics.parquet --every export--> the bundle

The file lies beside the recorded facts and is none of them: it is written once, and never into a table of the recorder.
A row is what a source would have said of one instance at the moment of a decision: by the code that says it live, from
values that were known by then. So an export of the same folder gives the same bundle, also without the Prometheus.

Only values that are missing are filled. What was recorded stays, and the action's propensity with it: it is the
probability the action was drawn with, and the logging policy drew it without having seen these values.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rl_hooks.decision import SERVICE_INDEX, SERVICES
from rl_hooks.export.errors import ExportError
from rl_hooks.observation import features_of, of_metrics
from rl_hooks.row import MISSING_U8, MISSING_U64, SAMPLES
from rl_hooks.run_reader import Run
from rl_hooks.sources.series import Told

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

FILE = Path("backfill") / "metrics.parquet"  # within the run folder
GAUGES = ("cpu", "memory", "health", "queue_depth", "in_flight", "capacity")
_FACTS = b"backfill"


@dataclass(frozen=True)
class Backfill:
    """Samples of one run, one for each moment at which something was known."""

    rows: Array  # columns of SAMPLES; `instance_ref` is a position in `names`, counts are missing
    names: tuple[str, ...]  # of instances; position 0 is "" and means none
    facts: Mapping[str, Any]  # where they are from: source, fields, from_unix_ns, to_unix_ns


def moments_of(run: Run) -> Ints:
    """When each tick's decisions looked at the system, in order: nothing later may get into a sample."""
    both = [(rows["tick"], rows["t_ns"]) for rows in (run.decisions, run.observations)]
    ticks, place = np.unique(np.concatenate([tick for tick, _ in both]), return_inverse=True)
    looked = np.full(len(ticks), np.iinfo(np.int64).max)
    np.minimum.at(looked, place, np.concatenate([t_ns for _, t_ns in both]).astype(np.int64))
    return np.unique(looked)


def of_told(told: Told, moments_ns: Ints, facts: Mapping[str, Any]) -> Backfill:
    """What was told, as samples received at the moments.

    Counts are left out: nothing in an observation is made of them, and beside recorded ones they would seem to fall.
    """
    moment, place = np.nonzero(told.listed & (told.oldest_ns > 0)[:, None])
    rows = np.zeros(len(moment), SAMPLES.dtype)
    # Samples are told apart by their time; a nanosecond is added where only younger values than the oldest changed.
    step = np.arange(len(moments_ns))
    rows["t_ns"] = (np.maximum.accumulate(told.oldest_ns - step) + step)[moment]
    rows["received_ns"] = moments_ns[moment]
    rows["service"] = np.array([service for service, _ in told.instances], np.int64)[place]
    rows["instance_ref"] = place + 1
    for name in GAUGES:
        rows[name] = told.values[name][moment, place] if name in told.values else np.nan
    up = told.values["up"][moment, place] if "up" in told.values else np.full(len(moment), np.nan)
    rows["up"] = np.where(np.isnan(up), MISSING_U8, up > 0)
    rows["requests_total"] = rows["errors_total"] = MISSING_U64
    return Backfill(rows, ("", *(name for _, name in told.instances)), facts)


def fill(
    values: npt.NDArray[np.float32], more: npt.NDArray[np.float32], labels: Sequence[str]
) -> npt.NDArray[np.bool_]:
    """Put features of metrics that are missing in `values` (n, features) there from `more`; which rows it changed.

    `labels` are those of the actions, which decide what the columns of both are."""
    place = {feature.name: index for index, feature in enumerate(features_of(labels))}
    columns = [place[name] for name in of_metrics(labels)]
    here, there = values[:, columns], more[:, columns]
    lacking = np.isnan(here) & ~np.isnan(there)
    values[:, columns] = np.where(lacking, there, here)
    return np.asarray(lacking.any(axis=1))


# -- the file ---------------------------------------------------------------------------------------------------------


def write_backfill(folder: Path, data: Backfill) -> Path:
    """Write the file of a run folder, in one step. Raises OSError."""
    rows = data.rows
    table = pa.table(
        {
            "t_unix_ns": pa.array(rows["t_ns"]),
            "received_unix_ns": pa.array(rows["received_ns"]),
            "service": pa.array([SERVICES[index] for index in rows["service"].tolist()], pa.string()),
            "instance": pa.array([data.names[index] for index in rows["instance_ref"].tolist()], pa.string()),
            **{name: pa.array(rows[name]) for name in GAUGES},
            "up": pa.array(rows["up"] == 1, mask=rows["up"] == MISSING_U8),
        }
    ).replace_schema_metadata({_FACTS: json.dumps(dict(data.facts), sort_keys=True).encode()})
    path = folder / FILE
    path.parent.mkdir(exist_ok=True)
    fresh = path.with_suffix(".new")
    pq.write_table(table, fresh, compression="zstd", compression_level=1)
    fresh.replace(path)
    return path


def read_backfill(folder: Path) -> Backfill | None:
    """The file of a run folder; None where there is none. Raises ExportError for one that cannot be read."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        table = pq.read_table(path)
        facts = json.loads(table.schema.metadata[_FACTS])
        columns = {name: table.column(name).to_numpy() for name in ("t_unix_ns", "received_unix_ns", *GAUGES)}
        service, instance, up = (table.column(name).to_pylist() for name in ("service", "instance", "up"))
        names = ("", *sorted(set(instance)))
        place = {name: index for index, name in enumerate(names)}
        rows = np.zeros(len(table), np.dtype([("incarnation", "<u2"), *SAMPLES.dtype.descr]))
        rows["service"] = [SERVICE_INDEX[name] for name in service]
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        what = f"{path}: cannot be read ({type(error).__name__}: {error})"
        raise ExportError(f"{what}; remove it, and fetch it again with --backfill") from error
    rows["t_ns"], rows["received_ns"] = columns["t_unix_ns"], columns["received_unix_ns"]
    rows["instance_ref"] = [place[name] for name in instance]
    for name in GAUGES:
        rows[name] = columns[name]
    rows["up"] = [MISSING_U8 if one is None else one for one in up]
    rows["requests_total"] = rows["errors_total"] = MISSING_U64
    return Backfill(rows, names, facts)

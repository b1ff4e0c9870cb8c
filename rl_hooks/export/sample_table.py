"""The samples table of a bundle: what the metrics source said about each instance, as it said it.

Where a decision had no sample, one that was fetched after the run stands in its place and is marked.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rl_hooks.decision import SERVICES
from rl_hooks.export import align
from rl_hooks.export.columns import named
from rl_hooks.export.dataset import Dataset, RunSteps
from rl_hooks.row import MISSING_U8, MISSING_U64

Array = npt.NDArray[Any]
_GAUGES = ("cpu", "memory", "health", "queue_depth", "in_flight", "capacity")
_COUNTS = ("requests_total", "errors_total")


def sample_table(data: Dataset) -> pa.Table:
    """The samples of all runs in order of run and time; a missing gauge is NaN, a missing count or `up` null."""
    return pa.concat_tables([_of_run(part) for part in data.runs]).unify_dictionaries()


def _of_run(part: RunSteps) -> pa.Table:
    recorded = _table(part, part.run.samples, part.run.names["instance"], False)
    if part.backfill is None:
        return recorded
    rows, decisions = part.backfill.rows, part.run.decisions
    empty = np.unique(decisions["t_ns"][decisions["sample_ns"] == 0])
    place = np.minimum(decisions["t_ns"].searchsorted(rows["received_ns"]), len(decisions) - 1)
    made_for = decisions["t_ns"][place]
    fetched = _table(part, rows[np.isin(made_for, empty)], part.backfill.names, True)
    both = pa.concat_tables([recorded, fetched]).unify_dictionaries()
    return both.take(np.argsort(both["t_unix_ns"].to_numpy(), kind="stable"))


def _table(part: RunSteps, rows: Array, instances: tuple[str, ...], backfilled: bool) -> pa.Table:
    run = part.run
    rows = rows[np.lexsort((rows["service"], rows["t_ns"]))]
    return pa.table(
        {
            "run_id": named(np.zeros(len(rows), np.int64), (part.run_id,)),
            "t_unix_ns": pa.array(rows["t_ns"]),
            "received_unix_ns": pa.array(rows["received_ns"]),
            "t_s": pa.array((rows["t_ns"] - align.plan_start_ns(run)) / 1e9),
            "service": named(rows["service"], SERVICES),
            "instance": named(rows["instance_ref"], instances, rows["instance_ref"] == 0),
            **{name: pa.array(rows[name]) for name in _GAUGES},
            **{name: pa.array(rows[name], mask=rows[name] == MISSING_U64) for name in _COUNTS},
            "up": pa.array(rows["up"] == 1, mask=rows["up"] == MISSING_U8),
            "backfilled": pa.array(np.full(len(rows), backfilled)),
        }
    )

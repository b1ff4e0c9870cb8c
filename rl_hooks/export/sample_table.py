"""The samples table of a bundle: what the metrics source said about each instance, as it said it."""

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
    """The samples of all runs in order of run and time; a gauge that is missing is NaN, a count or `up` null when unknown."""
    return pa.concat_tables([_of_run(part) for part in data.runs]).unify_dictionaries()


def _of_run(part: RunSteps) -> pa.Table:
    run = part.run
    rows = run.samples[np.lexsort((run.samples["service"], run.samples["t_ns"]))]
    return pa.table(
        {
            "run_id": named(np.zeros(len(rows), np.int64), (part.run_id,)),
            "t_unix_ns": pa.array(rows["t_ns"]),
            "received_unix_ns": pa.array(rows["received_ns"]),
            "t_s": pa.array((rows["t_ns"] - align.plan_start_ns(run)) / 1e9),
            "service": named(rows["service"], SERVICES),
            "instance": named(rows["instance_ref"], run.names["instance"], rows["instance_ref"] == 0),
            **{name: pa.array(rows[name]) for name in _GAUGES},
            **{name: pa.array(rows[name], mask=rows[name] == MISSING_U64) for name in _COUNTS},
            "up": pa.array(rows["up"] == 1, mask=rows["up"] == MISSING_U8),
        }
    )

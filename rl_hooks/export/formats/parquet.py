"""The bundle's Parquet files: transitions and requests, in physical units.

Observations are one float column per feature (`obs.<name>`, `next.<name>`, and `all.<name>`: the observation with every
row of every worker known, whatever the deciding process had heard of) and not a second time as a vector: that
would double the file, and `numpy.stack` over the columns in the order of dataset.json gives the vector.
Floats are stored BYTE_STREAM_SPLIT under zstd level 1, names as dictionaries. Nothing depends on when it was written.
"""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rl_hooks.export.dataset import Dataset
from rl_hooks.export.rewards import REWARDS

Array = npt.NDArray[Any]

_BEFORE = {
    "run_id": pa.string(),
    "service": pa.string(),
    "episode_id": pa.string(),
    "step": pa.int32(),
    "decision_tick": pa.int64(),
    "t_unix_ns": pa.int64(),
    "t_s": pa.float64(),
    "dt_s": pa.float64(),
    "phase": pa.string(),
    "pattern": pa.string(),
    "intensity": pa.string(),
    "faults": pa.string(),
    "block": pa.int32(),
}
_AFTER = {
    "action": pa.int8(),
    "action_name": pa.string(),
    "propensity": pa.float32(),
    "logging_policy": pa.string(),
    "policy_version": pa.string(),
    "action_requested": pa.int8(),
    "applied_share": pa.float32(),
    "action_differs": pa.bool_(),
    "reward": pa.float32(),
    **{f"reward_{name}": pa.float32() for name in REWARDS},  # and those of the scenario's own behind them
    "reward_01": pa.float32(),
    "reward_filled": pa.bool_(),
    "terminated": pa.bool_(),
    "truncated": pa.bool_(),
    "n_requests": pa.int32(),
    "n_errors": pa.int32(),
    "n_unfinished": pa.int32(),
    "offered_rps": pa.float32(),
    "user_count": pa.float32(),
    "sample_age_s": pa.float32(),
    "metrics_backfilled": pa.bool_(),
    "warmup": pa.bool_(),
}


def transitions(data: Dataset, part: str) -> pa.Table:
    """The transitions of one part of the split, in order of run, service and time."""
    rows = data.rows(part)
    frame = data.frame[rows]
    frame = frame.assign(reward_01=frame["reward"])  # all rewards lie in [0, 1] as they are
    observation, after = data.observation[rows], data.next_observation[rows]
    columns = {name: _plain(frame[name], kind) for name, kind in _BEFORE.items()}
    columns.update(_features(data, "obs", observation))
    columns["observation_mask"] = _lists(~np.isnan(observation), pa.bool_())
    for name, kind in _AFTER.items():
        if name == "reward_01":
            own = [f"reward_{one}" for one in data.plan.scenario.rewards]
            columns.update({component: _plain(frame[component], pa.float32()) for component in own})
        columns[name] = _plain(frame[name], kind)
    probabilities = frame[[f"prob_{index}" for index in range(data.space.size)]].to_numpy(np.float32)
    columns["action_probs"] = _lists(probabilities, pa.float32())
    columns["action_mask"] = _lists(np.array(data.space.mask())[frame["service_index"]], pa.bool_())
    columns.update(_features(data, "next", after))
    columns.update(_features(data, "all", data.all_rows[rows]))
    if part == "excluded":
        columns["reason"] = _plain(frame["reason"], pa.string())
    return pa.table(columns)


def write(table: pa.Table, path: Path) -> None:
    """Write one file; the same table gives the same bytes."""
    write_parts([table], path)


def write_parts(tables: Iterable[pa.Table], path: Path) -> None:
    """Write one file from tables with the same columns, one after the other: a row group for each 65,536 rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = iter(tables)
    first = next(tables)
    floats = [field.name for field in first.schema if pa.types.is_floating(field.type)]
    names = [field.name for field in first.schema if _is_text(field.type)]
    with pq.ParquetWriter(
        path,
        first.schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=[*names, "action_probs.list.element"],
        column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
    ) as writer:
        for table in itertools.chain([first], tables):
            if table.num_rows:
                writer.write_table(table, row_group_size=1 << 16)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_dictionary(kind))


def _features(data: Dataset, prefix: str, values: Array) -> dict[str, pa.Array]:
    return {f"{prefix}.{feature.name}": pa.array(values[:, index]) for index, feature in enumerate(data.features)}


def _plain(values: Any, kind: pa.DataType) -> pa.Array:
    """Floats keep NaN for missing, as pandas and numpy readers expect."""
    return pa.array(values.to_numpy(), from_pandas=False).cast(kind)


def _lists(values: Array, kind: pa.DataType) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), kind), values.shape[1])

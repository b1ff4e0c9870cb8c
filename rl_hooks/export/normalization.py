"""How features and reward are distributed over train: what a trainer scales by. The Parquet columns stay raw."""

from typing import Any

import numpy as np

from rl_hooks.export import split
from rl_hooks.export.dataset import Dataset

CONSTANT_BELOW_STD = 1e-6


def normalization(data: Dataset) -> dict[str, Any]:
    """Mean, std, min, max, p01 and p99 in train: of a feature's known values, of the rewards that were not filled.

    Null where there is none.
    """
    rows = data.rows(split.TRAIN)
    train = data.observation[rows].astype(np.float64)
    steps = data.frame[rows]
    rewards = steps["reward"].where(~steps["reward_filled"].astype(bool)).to_numpy(np.float64)
    return {
        "fitted_on": split.TRAIN,
        "rows": int(rows.sum()),
        "features": {feature.name: _summary(train[:, index]) for index, feature in enumerate(data.features)},
        "reward": _summary(rewards),
    }


def _summary(values: Any) -> dict[str, Any]:
    known = values[~np.isnan(values)]
    share = len(known) / len(values) if len(values) else 0.0
    if len(known) == 0:
        nothing = dict.fromkeys(("mean", "std", "min", "max", "p01", "p99"))
        return {**nothing, "constant": True, "known_share": share}
    low, high = np.quantile(known, [0.01, 0.99]).tolist()
    return {
        "mean": float(known.mean()),
        "std": float(known.std()),
        "min": float(known.min()),
        "max": float(known.max()),
        "p01": low,
        "p99": high,
        "constant": bool(known.std() < CONSTANT_BELOW_STD),
        "known_share": share,
    }

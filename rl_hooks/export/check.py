"""What must hold for every data set before it is written; a breach is a fault of ours or of the recording."""

from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.export import rewards, split
from rl_hooks.export.dataset import Dataset, RunSteps, horizon_requests
from rl_hooks.export.errors import ExportError

Array = npt.NDArray[Any]
_TOLERANCE = 1e-6


def check(data: Dataset) -> None:
    """Raises ExportError with every breach at once."""
    problems = [*_rewards(data), *_propensities(data), *_episodes(data)]
    for number, part in enumerate(data.runs):
        shared = shared_requests(data, part)
        if shared:
            problems.append(f"run {number + 1}: {shared} requests are seen by both sides of the split")
    if problems:
        paths = ", ".join(str(part.run.path) for part in data.runs)
        raise ExportError("\n  ".join([f"{paths}: {len(problems)} problems, nothing was written", *problems]))


def shared_requests(data: Dataset, part: RunSteps) -> int:
    """How many requests of a run are seen by a step of train and by a step of validation."""
    mine = data.frame["run_id"].to_numpy() == part.run_id
    train, validation = (_Seen(data, mine & data.rows(side)) for side in (split.TRAIN, split.VALIDATION))
    return sum(
        int((train.sees(start_ns, gone_ns) & validation.sees(start_ns, gone_ns)).sum())
        for start_ns, gone_ns in horizon_requests(part.run, part.plan)
    )


class _Seen:
    """Which requests a step [T, T_next] of `rows` sees: sent before T_next and not gone from the windows at T."""

    def __init__(self, data: Dataset, rows: Array) -> None:
        self._begins = np.sort(data.frame["t_unix_ns"].to_numpy()[rows])
        self._ends = np.sort(data.frame["next_unix_ns"].to_numpy()[rows])

    def sees(self, start_ns: Array, gone_ns: Array) -> Array:
        begun = np.searchsorted(self._begins, gone_ns, side="right")
        over = np.searchsorted(self._ends, start_ns, side="right")
        return begun > over


def _rewards(data: Dataset) -> list[str]:
    kept = data.frame[~data.rows(split.EXCLUDED)]
    reward = kept["reward"].to_numpy()
    problems = []
    if not (np.isfinite(reward) & (reward >= -_TOLERANCE) & (reward <= 1 + _TOLERANCE)).all():
        problems.append("a reward is not a number from 0 to 1")
    weights = data.plan.scenario.reward_weights
    table = kept[[f"reward_{name}" for name in rewards.names_of(weights)]].to_numpy()
    total = rewards.weighted_sum(table, weights)
    measured = ~kept["reward_filled"].to_numpy()
    if not np.allclose(total[measured], reward[measured], rtol=0, atol=_TOLERANCE):
        problems.append("a reward is not the weighted sum of its components")
    return problems


def _propensities(data: Dataset) -> list[str]:
    kept = data.frame[~data.rows(split.EXCLUDED)]
    propensity = kept["propensity"].to_numpy()
    # A balancer that decides by itself may keep it to itself; what we draw has one.
    good = ((propensity > 0) & (propensity <= 1)) | (np.isnan(propensity) & kept["observed"].to_numpy(bool))
    if good.all():
        return []
    worst = kept.iloc[int(np.argmin(good))]
    return [f"a propensity is not in (0, 1]: {worst['service']}, tick {worst['decision_tick']}"]


def _episodes(data: Dataset) -> list[str]:
    frame, problems = data.frame, []
    episode = frame["episode_id"].to_numpy()
    inner = np.flatnonzero(episode[1:] == episode[:-1])
    if not np.array_equal(data.next_observation[inner], data.observation[inner + 1], equal_nan=True):
        problems.append("a next observation is not the observation of the following step")
    last = np.append(episode[1:] != episode[:-1], True)
    if frame["terminated"].any() or not np.array_equal(frame["truncated"].to_numpy(), last):
        problems.append("an episode does not end with exactly one truncated step")
    if frame.groupby("episode_id")["split"].nunique().gt(1).any():
        problems.append("an episode is in two parts of the split")
    return problems

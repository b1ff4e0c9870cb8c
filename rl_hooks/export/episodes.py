"""Where episodes are cut: first into time blocks that all services share, then each service's own stretches.

    phase          |----------- lunch ------------|--- afternoon ...
    block          |---- 3 ----|------ 4 ---------|------ 5 ---      shared; what the split deals out
    stretch        |-----------|----|-------------|------------      also cut at a gap and at a change of policy
    fate           xxx|--------|----|-------xx----|------------      x: excluded, see split
    episode        -0-|---1----|-2--|---3---|4|-5-|

An episode is a run of steps that follow each other, all of one stretch and one fate. Routing has no end of its own:
no episode is terminated, the last step of each is truncated and has its next observation.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


def block_of(frame: pd.DataFrame, interval_ns: int, episode_ns: int) -> Ints:
    """The time block of each step of one run, numbered from 0 in order of time.

    A phase is cut into the smallest number of equal blocks that are at most an episode long, so that there is no rest
    of a few steps. All services of one tick are in the same block.
    """
    _, first, tick = np.unique(frame["decision_tick"], return_index=True, return_inverse=True)
    t_ns = frame["t_unix_ns"].to_numpy()[first]
    phase = frame["phase"].to_numpy()[first]
    segment = np.append(0, np.cumsum(phase[1:] != phase[:-1]))
    block, blocks = np.empty(len(t_ns), np.int64), 0
    for number in range(int(segment[-1]) + 1):
        mine = segment == number
        since_ns = t_ns[mine] - t_ns[mine][0]
        parts = max(1, -(-int(since_ns[-1]) // episode_ns))
        length_ns = (int(since_ns[-1]) + interval_ns) / parts
        block[mine] = blocks + np.minimum(since_ns // length_ns, parts - 1)
        blocks += parts
    numbers: Ints = np.unique(block, return_inverse=True)[1][tick]  # a part of a phase without decisions has no number
    return numbers


def stretch_starts(frame: pd.DataFrame, interval_ns: int) -> npt.NDArray[np.bool_]:
    """True where a step does not go on where the row before it ended. Needs the column `block`."""
    changes = np.ones(len(frame), bool)
    for column in ("run_id", "service", "block", "policy_version"):
        values = frame[column].to_numpy()
        changes[1:] &= values[1:] == values[:-1]
    changes[1:] &= frame["followed"].to_numpy()[:-1]
    without = _without_telemetry(frame, interval_ns)
    changes[1:] &= without[1:] == without[:-1]
    starts: npt.NDArray[np.bool_] = ~changes
    starts[:1] = True
    return starts


def _without_telemetry(frame: pd.DataFrame, interval_ns: int) -> npt.NDArray[np.bool_]:
    """Whether the last sample is more than two intervals old; of a source that is slower, two of its own intervals."""
    gap = np.zeros(len(frame), bool)
    sample_ns = frame["sample_unix_ns"].to_numpy()
    age_ns = frame["t_unix_ns"].to_numpy() - sample_ns
    for service in range(int(frame["service_index"].max()) + 1):
        mine = frame["service_index"].to_numpy() == service
        known = np.unique(sample_ns[mine & (sample_ns > 0)])
        usual_ns = float(np.median(np.diff(known))) if len(known) > 1 else 0.0
        gap[mine] = (sample_ns[mine] == 0) | (age_ns[mine] > 2 * max(usual_ns, interval_ns))
    return gap


@dataclass(frozen=True)
class Cut:
    """Episodes of n steps."""

    episode: Ints  # (n,) number, from 0 on, in the order of the rows
    step: Ints  # (n,) 0, 1, 2 ... within the episode
    truncated: npt.NDArray[np.bool_]  # (n,) True on the last step of each


def cut(starts: npt.NDArray[np.bool_], fate: Array) -> Cut:
    """Episodes from the starts of stretches and the fate (train, validation, excluded) of each step.

    >>> cut(np.array([True, False, False, True]), np.array(["x", "train", "train", "train"])).episode.tolist()
    [0, 1, 1, 2]
    """
    begins = starts.copy()
    begins[1:] |= fate[1:] != fate[:-1]
    episode = np.cumsum(begins) - 1
    step = np.arange(len(begins)) - np.flatnonzero(begins)[episode]
    return Cut(episode, step, np.append(begins[1:], True))


def episode_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per episode of steps that have all their columns."""
    groups = frame.groupby("episode_id", sort=False, observed=True)
    firsts = groups.first()
    table = firsts[["run_id", "service", "phase", "intensity", "block", "split", "logging_policy", "policy_version"]]
    table = table.assign(
        steps=groups.size(),
        first_tick=firsts["decision_tick"],
        last_tick=groups["decision_tick"].last(),
        start_unix_ns=firsts["t_unix_ns"],
        end_unix_ns=groups["next_unix_ns"].last(),
        requests=groups["n_requests"].sum(),
        errors=groups["n_errors"].sum(),
        unfinished=groups["n_unfinished"].sum(),
        reward_mean=groups["reward"].mean(),
    )
    return table.reset_index()

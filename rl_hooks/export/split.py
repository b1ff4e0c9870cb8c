"""Which steps are for training, which for validation, and which for neither.

Whole time blocks go to one side, with all services. At a border between the sides the steps behind it are purged as
long as they could have seen anything of a request that the steps before it have seen.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rl_hooks.decision import SERVICES

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

TRAIN, VALIDATION, EXCLUDED = "train", "validation", "excluded"
SPLITS = (TRAIN, VALIDATION, EXCLUDED)
VALIDATION_SHARE = 0.2
REASONS = {
    "outside_plan": "made before the first phase or after the last one",
    "warmup": "the observation's longest window reaches back before the first decision",
    "action_differs": "the balancer applied another action than the requested one, or none that is known",
    "action_untold": "the balancer decides by itself, and no answer told which action it had applied",
    "actions_mixed": "the balancer decides by itself, and applied several actions within the interval",
    "no_propensity": "the balancer states propensities, but none for all of this interval",
    "purged": "its windows overlap with requests of the other side of the split",
    "no_reward": "no request of it ended, and no step of its service in train has a reward to take the mean of",
}
"""Why a step is excluded; a step that has several reasons is counted under the first."""
OBSERVED_REASONS = ("action_untold", "actions_mixed", "no_propensity")
"""Those of them that steps of a balancer which decides by itself state in `why_not`."""

_SALT = 0x5B117


@dataclass(frozen=True)
class RequestSpans:
    """How long the requests that were sent before some moments of a run can leave a trace."""

    moments_ns: Ints  # (n,) in order
    last_end_ns: Ints  # (n,) of the requests sent before each moment and still under way then; anything before: none
    horizon_ns: int  # how long after its end a request is in a window

    def reach_ns(self, until_ns: int) -> int:
        """Until when requests that were sent before `until_ns`, one of the moments, can be seen."""
        index = int(self.moments_ns.searchsorted(until_ns))
        if index == len(self.moments_ns) or self.moments_ns[index] != until_ns:
            raise ValueError(f"{until_ns} is not one of the moments")
        return max(until_ns, int(self.last_end_ns[index])) + self.horizon_ns


def sides(frame: pd.DataFrame, seed: int) -> Array:
    """TRAIN or VALIDATION for each step of one run, by its block.

    The number of validation blocks of a phase is its share by largest remainder, at least one where the phase has two
    and never all of them; which ones is drawn from the seed. A phase of one block trains, unless no phase has two:
    then one phase is left for validation.
    """
    phases = frame.groupby("block")["phase"].first()
    blocks = {phase: phases.index[phases == phase].to_numpy() for phase in phases.unique()}
    quota = _quota({phase: len(mine) for phase, mine in blocks.items()})
    draw = np.random.default_rng([abs(seed), _SALT])
    if len(phases) > 1 and not any(quota.values()):
        quota[str(draw.choice(sorted(quota)))] = 1
    chosen = [block for phase, mine in blocks.items() for block in draw.permutation(mine)[: quota[phase]]]
    return np.where(frame["block"].isin(chosen), VALIDATION, TRAIN).astype(object)


def _quota(counts: dict[str, int]) -> dict[str, int]:
    """Validation blocks per phase."""
    share = {phase: VALIDATION_SHARE * count for phase, count in counts.items()}
    quota = {phase: max(int(share[phase]), min(1, count - 1)) for phase, count in counts.items()}
    missing = round(sum(share.values())) - sum(quota.values())
    for phase in sorted(counts, key=lambda phase: share[phase] % 1, reverse=True):
        if missing > 0 and quota[phase] < counts[phase] - 1 and share[phase] > quota[phase]:
            quota[phase] += 1
            missing -= 1
    return quota


def purge(frame: pd.DataFrame, side: Array, usable: Array, requests: RequestSpans) -> Array:
    """True for the steps of one run that have to go, so that no request is seen by both sides.

    A step [T, T_next) sees a request through its cohort, its observation or its next observation only if the request
    was sent before T_next and was still in a window at T. So behind a border the first step that may stay is the one
    after everything that was sent before the last T_next of the other side has left the longest window.
    """
    t_ns, next_ns = frame["t_unix_ns"].to_numpy(), frame["next_unix_ns"].to_numpy()
    block = frame["block"].to_numpy()
    purged = np.zeros(len(frame), bool)
    seen_until_ns = {TRAIN: np.iinfo(np.int64).min, VALIDATION: np.iinfo(np.int64).min}
    for number in range(int(block.max()) + 1):
        mine = block == number
        here = side[mine][0]
        other = VALIDATION if here == TRAIN else TRAIN
        purged |= mine & (t_ns <= seen_until_ns[other])
        kept = mine & usable & ~purged
        if kept.any():
            seen_until_ns[here] = max(seen_until_ns[here], requests.reach_ns(int(next_ns[kept].max())))
    return purged


def reasons(frame: pd.DataFrame, purged: Array) -> Array:
    """The reason why each step is excluded, "" where it is not. `no_reward` is known only later."""
    found = np.full(len(frame), "", object)
    for name, applies in (
        ("purged", purged),
        ("action_differs", frame["action_differs"].to_numpy()),
        *((name, frame["why_not"].to_numpy() == name) for name in OBSERVED_REASONS),
        ("warmup", frame["warmup"].to_numpy()),
        ("outside_plan", frame["phase"].to_numpy() == ""),
    ):
        found[applies] = name
    return found


def fill_rewards(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, float]]:
    """Give steps without a finished request their service's mean reward over train; also returns the means.

    A service without any reward in train has no mean: its steps without a finished request are excluded.
    """
    known = frame[(frame["split"] == TRAIN) & frame["reward"].notna()]
    means = known.groupby("service")["reward"].mean().to_dict()
    filled = frame["reward"].isna()
    frame = frame.assign(
        reward_filled=filled, reward=frame["reward"].where(~filled, frame["service"].map(means).astype(float))
    )
    hopeless = frame["reward"].isna() & (frame["reason"] == "")
    frame.loc[hopeless, ["split", "reason"]] = [EXCLUDED, "no_reward"]
    return frame, {name: float(means[name]) for name in SERVICES if name in means}

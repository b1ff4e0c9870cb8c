"""A balancer that decides by itself: once per interval and service it draws an action, and its answers say so.

`python -m sandbox --decides uniform` shows what a data collection that only observes looks like. A decision comes
into force at whole multiples of the interval by the clock on the wall, so that whoever observes can keep to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from rl_hooks.decision import (
    ACTIONS,
    RESPONSE_DECISION_ID,
    RESPONSE_POLICY,
    RESPONSE_PROPENSITY,
)
from sandbox.balancer import Balancer
from sandbox.clock import Clock

UNIFORM, STICKY = "uniform", "sticky"
FORMS = f"{UNIFORM}, or {STICKY}:0.5 (keep the action before with this probability)"

_TELL_PROPENSITY, _TELL_POLICY, _TELL_ID = (
    name.lower().encode() for name in (RESPONSE_PROPENSITY, RESPONSE_POLICY, RESPONSE_DECISION_ID)
)


@dataclass(frozen=True)
class Decides:
    """By which policy, and how often."""

    policy: str  # as it is stated
    keep: float  # the probability of the action before; the rest is shared by all six
    every_s: float  # real seconds

    def distribution(self, previous: int | None) -> list[float]:
        """The probability of each action.

        >>> [round(p, 3) for p in Decides("sticky:0.4", 0.4, 2.0).distribution(0)]
        [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]
        """
        if previous is None:
            return [1 / len(ACTIONS)] * len(ACTIONS)
        share = (1 - self.keep) / len(ACTIONS)
        return [share + self.keep * (index == previous) for index in range(len(ACTIONS))]


def read_decides(text: str, every_s: float) -> Decides:
    """`uniform` or `sticky:<keep>`. ValueError for anything else."""
    name, colon, rest = text.partition(":")
    if name == UNIFORM and not colon:
        return Decides(text, 0.0, every_s)
    try:
        keep = float(rest) if name == STICKY else -1.0
    except ValueError:
        keep = -1.0
    if not 0 <= keep < 1:
        raise ValueError(f"must be {FORMS}")
    return Decides(text, keep, every_s)


class Decider:
    """Sets action and statement of each balancer, from now on until `close`. `start_unix_s` is the clock's zero."""

    def __init__(
        self, decides: Decides, balancers: Mapping[str, Balancer], clock: Clock, seed: int, start_unix_s: float
    ) -> None:
        self._decides = decides
        self._balancers = balancers
        self._clock = clock
        self._seed = seed
        self._start_unix_s = start_unix_s
        self._previous: dict[str, int] = {}
        self._decide()

    def close(self) -> None:
        self._timer.cancel()

    def _decide(self) -> None:
        every_s = self._decides.every_s
        unix_s = self._start_unix_s + self._clock.now()
        number = round(unix_s / every_s)  # a timer may fire a little early
        for service, balancer in self._balancers.items():
            probabilities = self._decides.distribution(self._previous.get(service))
            rng = Random(f"{self._seed}:{service}:decides:{number}")
            action = rng.choices(range(len(ACTIONS)), probabilities)[0]
            self._previous[service] = action
            balancer.action = ACTIONS[action]
            balancer.statement = (
                (_TELL_PROPENSITY, f"{probabilities[action]:.9g}".encode()),
                (_TELL_POLICY, self._decides.policy.encode()),
                (_TELL_ID, f"{service}/{number}".encode()),
            )
        self._timer = self._clock.call_later((number + 1) * every_s - unix_s, self._decide)

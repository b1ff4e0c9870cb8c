"""Logging policies: what probability each action has for a service, given what is known.

A policy only states the distribution. Drawing from it is done in one place (rl_hooks.control), so the recorded
propensity is the probability that was drawn with, never one that was worked out afterwards.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rl_hooks.decision import ACTION_INDEX, ACTIONS


class PolicyError(ValueError):
    """A logging policy that cannot be what it was asked to be."""


class LoggingPolicy(Protocol):
    """A policy by which the balancer is steered while a run is recorded."""

    def describe(self) -> str:
        """Name and parameters, as they are stored with every decision."""

    def probabilities(self, previous: int | None, observation: Any) -> Sequence[float]:
        """The probability of each of the six actions, summing to 1.

        `previous` is the service's action of the interval before, None at the start. `observation` is what is known
        about the service now: float32 (features,) in the order of `rl_hooks.observation.FEATURES`, NaN for what is not
        known; None where nobody observes.
        """


@dataclass(frozen=True)
class Uniform:
    """Every action with the same probability, whatever happened: the widest coverage there is."""

    def describe(self) -> str:
        return "uniform"

    def probabilities(self, previous: int | None, observation: Any = None) -> Sequence[float]:
        return (1 / len(ACTIONS),) * len(ACTIONS)


@dataclass(frozen=True)
class Sticky:
    """Keep the previous action with probability `keep`, else draw uniformly from all six.

    P(a) = keep * 1(a = previous) + (1 - keep) / 6. No action ever has probability 0 or 1, so coverage survives.

    >>> [round(p, 4) for p in Sticky(0.5).probabilities(previous=2)]
    [0.0833, 0.0833, 0.5833, 0.0833, 0.0833, 0.0833]
    """

    keep: float = 0.5

    def __post_init__(self) -> None:
        if not (math.isfinite(self.keep) and 0 <= self.keep < 1):
            raise PolicyError(f"sticky: keep is {self.keep}; it must be at least 0 and below 1, for example sticky:0.5")

    def describe(self) -> str:
        return f"sticky:{self.keep:g}"

    def probabilities(self, previous: int | None, observation: Any = None) -> Sequence[float]:
        if previous is None:
            return Uniform().probabilities(None)
        share = (1 - self.keep) / len(ACTIONS)
        return tuple(share + self.keep * (index == previous) for index in range(len(ACTIONS)))


@dataclass(frozen=True)
class Fixed:
    """Always the same action: a strategy to compare with, or to fall back to. Its data covers nothing else."""

    action: str

    def __post_init__(self) -> None:
        if self.action not in ACTION_INDEX:
            raise PolicyError(f"fixed: there is no action {self.action!r}; there are {', '.join(ACTIONS)}")

    def describe(self) -> str:
        return f"fixed:{self.action}"

    def probabilities(self, previous: int | None, observation: Any = None) -> Sequence[float]:
        return tuple(float(index == ACTION_INDEX[self.action]) for index in range(len(ACTIONS)))


@dataclass(frozen=True)
class EpsilonGreedy:
    """Follow `base`, but draw uniformly with probability `eps`: P(a) = (1 - eps) * base(a) + eps / 6.

    So every action keeps at least eps / 6, and data of a policy that is in use can be learned from again.

    >>> [round(p, 4) for p in EpsilonGreedy(Fixed("round_robin"), 0.3).probabilities(previous=None)]
    [0.05, 0.05, 0.75, 0.05, 0.05, 0.05]
    """

    base: LoggingPolicy
    eps: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.eps) and 0 < self.eps <= 1):
            raise PolicyError(
                f"epsilon: the share of uniform draws is {self.eps}; it must be above 0 and at most 1, for example 0.1"
            )

    @property
    def schema(self) -> Any:
        """What the base was trained for, if it was trained."""
        return getattr(self.base, "schema", None)

    def describe(self) -> str:
        return f"epsilon:{self.eps:g}:{self.base.describe()}"

    def probabilities(self, previous: int | None, observation: Any = None) -> Sequence[float]:
        share = self.eps / len(ACTIONS)
        return tuple(share + (1 - self.eps) * p for p in self.base.probabilities(previous, observation))


BUILTIN = {"uniform": "rl_hooks.policies.builtin:Uniform", "sticky": "rl_hooks.policies.builtin:Sticky"}
"""Short names; a parameter follows a colon, as in `sticky:0.5`. All that has a name: `rl_hooks.policies.named`."""

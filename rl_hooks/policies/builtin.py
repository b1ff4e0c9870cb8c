"""Logging policies: what probability each action has for a service, given what is known.

A policy only states the distribution. Drawing from it is done in one place (rl_hooks.control), so the recorded
propensity is the probability that was drawn with, never one that was worked out afterwards.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from rl_hooks.action_space import EVERY_STRATEGY, ActionSpace, Choices
from rl_hooks.decision import SERVICES


class PolicyError(ValueError):
    """A logging policy that cannot be what it was asked to be."""


class LoggingPolicy(Protocol):
    """A policy by which the balancer is steered while a run is recorded.

    Two things are optional. `among(choices)` gives the same policy where other actions exist than the six strategies
    (`rl_hooks.action_space.Choices`); one without it decides among all six only. `by_observation = False` says that it
    does not look at observations, so that it can make one decision for all services.
    """

    def describe(self) -> str:
        """Name and parameters, as they are stored with every decision."""

    def probabilities(self, previous: int | None, observation: Any) -> Sequence[float]:
        """The probability of each action by its number, summing to 1.

        `previous` is the service's action of the interval before, None at the start. `observation` is what is known
        about the service now: float32 (features,) in the order of `rl_hooks.observation.features_of`, NaN for what is
        not known; None where nobody observes.
        """


@dataclass(frozen=True)
class Uniform:
    """Every action with the same probability, whatever happened: the widest coverage there is."""

    choices: Choices = field(default=EVERY_STRATEGY, kw_only=True)
    by_observation = False

    def describe(self) -> str:
        return "uniform"

    def among(self, choices: Choices) -> LoggingPolicy:
        return replace(self, choices=choices)

    def probabilities(self, previous: int | None, observation: Any = None) -> Sequence[float]:
        return _shared(1.0, self.choices)


@dataclass(frozen=True)
class Sticky:
    """Keep the previous action with probability `keep`, else draw uniformly from all n that there are.

    P(a) = keep * 1(a = previous) + (1 - keep) / n. No action ever has probability 0 or 1, so coverage survives.

    >>> [round(p, 4) for p in Sticky(0.5).probabilities(previous=2)]
    [0.0833, 0.0833, 0.5833, 0.0833, 0.0833, 0.0833]
    """

    keep: float = 0.5
    choices: Choices = field(default=EVERY_STRATEGY, kw_only=True)
    by_observation = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.keep) and 0 <= self.keep < 1):
            raise PolicyError(f"sticky: keep is {self.keep}; it must be at least 0 and below 1, for example sticky:0.5")

    def describe(self) -> str:
        return f"sticky:{self.keep:g}"

    def among(self, choices: Choices) -> LoggingPolicy:
        return replace(self, choices=choices)

    def probabilities(self, previous: int | None, observation: Any = None) -> Sequence[float]:
        if previous is None:
            return _shared(1.0, self.choices)
        return tuple(
            share + self.keep * (index == previous) for index, share in enumerate(_shared(1 - self.keep, self.choices))
        )


@dataclass(frozen=True)
class Fixed:
    """Always the same action: a strategy to compare with, or to fall back to. Its data covers nothing else."""

    action: str
    choices: Choices = field(default=EVERY_STRATEGY, kw_only=True)
    by_observation = False

    def __post_init__(self) -> None:
        if self.choices.index(self.action) is None:
            raise PolicyError(f"fixed: there is no action {self.action!r}; there are {self.choices.listed}")

    def describe(self) -> str:
        return f"fixed:{self.action}"

    def among(self, choices: Choices) -> LoggingPolicy:
        """An instance is one service's own: the others, which cannot take it, draw uniformly."""
        if self.action in choices.of_others and choices.index(self.action) is None:
            return _Elsewhere(self.action, choices=choices)
        return replace(self, choices=choices)

    def probabilities(self, previous: int | None, observation: Any = None) -> Sequence[float]:
        taken = self.choices.index(self.action)
        return tuple(float(index == taken) for index in range(len(self.choices.labels)))


@dataclass(frozen=True)
class _Elsewhere(Uniform):
    """What a fixed instance of one service is for the others. It goes by the same name: it is the same policy."""

    action: str = ""

    def describe(self) -> str:
        return f"fixed:{self.action}"


@dataclass(frozen=True)
class EpsilonGreedy:
    """Follow `base`, but draw uniformly with probability `eps`: P(a) = (1 - eps) * base(a) + eps / n.

    So each of n actions keeps at least eps / n, and data of a policy that is in use can be learned from again.

    >>> [round(p, 4) for p in EpsilonGreedy(Fixed("round_robin"), 0.3).probabilities(previous=None)]
    [0.05, 0.05, 0.75, 0.05, 0.05, 0.05]
    """

    base: LoggingPolicy
    eps: float
    choices: Choices = field(default=EVERY_STRATEGY, kw_only=True)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.eps) and 0 < self.eps <= 1):
            raise PolicyError(
                f"epsilon: the share of uniform draws is {self.eps}; it must be above 0 and at most 1, for example 0.1"
            )

    @property
    def schema(self) -> Any:
        """What the base was trained for, if it was trained."""
        return getattr(self.base, "schema", None)

    @property
    def by_observation(self) -> bool:
        return looks(self.base)

    def describe(self) -> str:
        return f"epsilon:{self.eps:g}:{self.base.describe()}"

    def among(self, choices: Choices) -> LoggingPolicy:
        return replace(self, base=limited(self.base, choices), choices=choices)

    def probabilities(self, previous: int | None, observation: Any = None) -> Sequence[float]:
        stated = zip(_shared(self.eps, self.choices), self.base.probabilities(previous, observation), strict=True)
        return tuple(share + (1 - self.eps) * p for share, p in stated)


def limited(policy: LoggingPolicy, choices: Choices) -> LoggingPolicy:
    """The policy among these actions. Raises PolicyError when it cannot decide among them."""
    if choices == EVERY_STRATEGY:
        return policy
    among = getattr(policy, "among", None)
    if among is None:
        raise PolicyError(
            f"policy {policy.describe()}: decides among all six strategies, and here it has to choose among "
            f"{choices.listed}; give it a method among(choices)"
        )
    found: LoggingPolicy = among(choices)
    return found


def looks(policy: LoggingPolicy) -> bool:
    """Whether a policy may look at observations; one that does not say may."""
    return bool(getattr(policy, "by_observation", True))


def by_service(policy: LoggingPolicy, space: ActionSpace) -> tuple[LoggingPolicy, ...]:
    """The policy for each service, in the order of SERVICES. Raises PolicyError when it does not fit to the actions."""
    if space.one_for_all and looks(policy):
        raise PolicyError(
            f"policy {policy.describe()}: looks at each service's observation, so it would have {len(SERVICES)} "
            "opinions where the balancer has one switch for all services; take uniform, sticky or an action, or an "
            "actuator that reaches each service"
        )
    return tuple(limited(policy, space.choices(service)) for service in range(len(SERVICES)))


def _shared(whole: float, choices: Choices) -> tuple[float, ...]:
    """`whole` in equal parts over the actions that exist."""
    share = whole / sum(choices.available)
    return tuple(share if there else 0.0 for there in choices.available)


BUILTIN = {"uniform": "rl_hooks.policies.builtin:Uniform", "sticky": "rl_hooks.policies.builtin:Sticky"}
"""Short names; a parameter follows a colon, as in `sticky:0.5`. All that has a name: `rl_hooks.policies.named`."""

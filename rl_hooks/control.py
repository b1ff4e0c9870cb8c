"""The decision loop without Locust: sample the system, decide for every service, actuate, record.

One call of `Controller.step` is one decision interval. Who calls it, and when, is somebody else's business: the Locust
process that records, or later a trained policy beside a real balancer.
"""

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rl_hooks.action_space import ALL_STRATEGIES, ActionSpace
from rl_hooks.decision import SERVICES
from rl_hooks.policies.builtin import LoggingPolicy, PolicyError, by_service
from rl_hooks.policies.turns import Turns
from rl_hooks.row import MISSING_U8

NAN = math.nan


class SourceError(Exception):
    """The metrics source did not answer, or not with metrics."""


class ActuatorError(Exception):
    """The balancer did not take the decision, or not that of all services: `services` are those it did not."""

    def __init__(self, text: str, services: frozenset[str] = frozenset(SERVICES)) -> None:
        super().__init__(text)
        self.services = services


@dataclass(frozen=True, slots=True)
class InstanceSample:
    """What is known of one instance at one moment. NaN and None: missing, never zero."""

    service: int
    instance: str
    cpu: float  # utilization, 0 to 1
    memory: float  # utilization, 0 to 1
    health: float  # score, 0 to 1
    queue_depth: float  # requests waiting
    in_flight: float  # requests, as the balancer counts them
    capacity: float  # declared weight
    requests_total: int | None
    errors_total: int | None
    up: bool | None


@dataclass(frozen=True, slots=True)
class Sample:
    """What a metrics source knows about the whole system."""

    t_ns: int  # wall-clock time to which the values refer
    received_ns: int
    instances: tuple[InstanceSample, ...]


class Source(Protocol):
    """Where metrics come from.

    One that asks somebody may have `limit(seconds)`: it is told once how long a sample may take, see `limit_sampling`.
    """

    def describe(self) -> str: ...

    def sample(self) -> Sample | None:
        """The newest metrics; None when this source never has any. Raises SourceError."""


SAMPLING_SHARE = 0.5
"""Of the decision interval: longer a sample shall not be waited for, so that decisions stay in step."""


def limit_sampling(source: Source, interval_s: float) -> None:
    """Tell a source that can be told how long a decision can wait for it."""
    limit = getattr(source, "limit", None)
    if callable(limit):
        limit(SAMPLING_SHARE * interval_s)


class Actuator(Protocol):
    """How decisions reach the balancer.

    One with the attribute `observes = True` tells it nothing: the balancer decides, and nothing is drawn. Two more
    attributes are optional: `missing_actions`, the names of `decision.ACTIONS` that the balancer does not have, and
    `one_for_all`, true where it has one switch for all services.
    """

    def describe(self) -> str: ...

    def apply(self, actions: Mapping[str, str]) -> None:
        """Make `actions` (service -> action) what the balancer does from now on. Raises ActuatorError, whose
        `services` are those where it could not."""


class Window(Protocol):
    """What is known about the services, kept up to date by whoever has the facts (`rl_hooks.live`)."""

    @property
    def seen(self) -> Mapping[str, Any]:
        """Process -> how far its rows were known to the last observation, with `seq`, `at_ns` and `offset_ns`."""

    def observe(self, t_ns: int, sample: Sample | None) -> Any:
        """The observations at `t_ns`, float32 (services, features); `sample` is what was just read."""

    def decided(self, t_ns: int, decisions: Sequence["Decision"]) -> None:
        """These decisions are in force from `t_ns` on."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One service's decision for one interval."""

    tick: int
    service: int
    action: int  # MISSING_U8: nobody of ours decided, the balancer does
    probabilities: tuple[float, ...]  # of the actions, under the logging policy at that time
    policy: str
    actuated: bool

    @property
    def propensity(self) -> float:
        """The probability of the action taken, in (0, 1]; NaN: the balancer decides."""
        return NAN if self.action == MISSING_U8 else self.probabilities[self.action]


@dataclass(frozen=True, slots=True)
class Step:
    """What one call of `Controller.step` did; `fault` says what did not work, None when all did."""

    tick: int
    t_ns: int
    sample: Sample | None
    decisions: tuple[Decision, ...]  # one per service, in the order of SERVICES
    fault: str | None
    observed_ns: int  # when the observations were made; 0: nobody observes
    observations: Any  # (services, features) that the decisions were made with; None: nobody observes


@dataclass
class Controller:
    """Decides for all services, each by its own generator, so that no service's draws tell about another's.

    The generator's key is (seed, service, tick): a tick that was skipped changes no later draw.
    """

    policy: LoggingPolicy | Turns
    source: Source
    actuator: Actuator
    seed: int
    now_ns: Callable[[], int] = time.time_ns
    window: Window | None = None
    space: ActionSpace = ALL_STRATEGIES
    _previous: dict[int, int] = field(default_factory=dict)
    _mine: dict[int, tuple[LoggingPolicy, ...]] = field(default_factory=dict)  # of id(policy): one for each service

    def step(self, tick: int, take_effect: Callable[[int, Sequence[Decision]], None]) -> Step:
        """Sample, observe, decide, actuate; with an actuator that observes, sample and observe only.

        `take_effect(t_ns, decisions)` is called at the very moment `t_ns` the decisions come into force; whatever is
        sent after it is sent under them. A source or actuator that fails does not stop the loop: the decision is
        recorded as made without a sample, or as not applied.
        """
        faults = []
        try:
            sample = self.source.sample()
        except SourceError as error:
            sample = None
            faults.append(f"metrics source {self.source.describe()}: {error}")
        observed_ns, observations = 0, None
        if self.window is not None:
            observed_ns = self.now_ns()
            observations = self.window.observe(observed_ns, sample)
        if getattr(self.actuator, "observes", False):
            none_of_ours = (NAN,) * self.space.size
            decisions = tuple(
                Decision(tick, service, MISSING_U8, none_of_ours, "", actuated=False)
                for service in range(len(SERVICES))
            )
            t_ns = self.now_ns()
            take_effect(t_ns, decisions)
            return Step(tick, t_ns, sample, decisions, "; ".join(faults) or None, observed_ns, observations)
        policy = self.policy.at(tick) if isinstance(self.policy, Turns) else self.policy
        drawn = [(service, *self._draw(policy, tick, service, observations)) for service in range(len(SERVICES))]
        if self.space.one_for_all:
            drawn = [(service, *drawn[0][1:]) for service in range(len(SERVICES))]
        not_applied: frozenset[str] = frozenset()
        try:
            self.actuator.apply(
                {SERVICES[service]: self.space.name(service, action) for service, action, _, _ in drawn}
            )
        except ActuatorError as error:
            not_applied = error.services
            faults.append(f"actuator {self.actuator.describe()}: {error}{_which(not_applied)}")
        decisions = tuple(
            Decision(tick, service, action, probabilities, name, SERVICES[service] not in not_applied)
            for service, action, probabilities, name in drawn
        )
        t_ns = self.now_ns()
        take_effect(t_ns, decisions)
        if self.window is not None:
            self.window.decided(t_ns, decisions)
        self._previous = {decision.service: decision.action for decision in decisions}
        return Step(tick, t_ns, sample, decisions, "; ".join(faults) or None, observed_ns, observations)

    def _draw(
        self, policy: LoggingPolicy, tick: int, service: int, observations: Any
    ) -> tuple[int, tuple[float, ...], str]:
        """Action, probabilities, and the name of the policy that stated them: one may leave it to another."""
        one_for_all, size = self.space.one_for_all, self.space.size
        observation = None if observations is None or one_for_all else observations[service]
        mine = self._policy_of(policy, service)
        probabilities = tuple(mine.probabilities(self._previous.get(service), observation))
        name = mine.describe()
        proper = len(probabilities) == size and min(probabilities) >= 0
        if not (proper and math.isclose(sum(probabilities), 1, abs_tol=1e-9)):
            raise PolicyError(f"logging policy {name}: {probabilities} is no distribution over {size} actions")
        if any(p > 0 for p, there in zip(probabilities, self.space.available(service), strict=True) if not there):
            raise PolicyError(f"logging policy {name}: {probabilities} has an action that {SERVICES[service]} lacks")
        rng = random.Random(f"{self.seed}/decision/{'all services' if one_for_all else SERVICES[service]}/{tick}")
        return rng.choices(range(size), probabilities)[0], probabilities, name

    def _policy_of(self, policy: LoggingPolicy, service: int) -> LoggingPolicy:
        """The policy among the actions of a service."""
        if id(policy) not in self._mine:
            self._mine[id(policy)] = by_service(policy, self.space)
        return self._mine[id(policy)][service]


def _which(not_applied: frozenset[str]) -> str:
    """Names the services of a decision that was applied in part."""
    if not_applied >= frozenset(SERVICES):
        return ""
    return f" (not applied for {', '.join(name for name in SERVICES if name in not_applied)})"

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

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.policies.builtin import LoggingPolicy, PolicyError
from rl_hooks.policies.turns import Turns

NAN = math.nan


class SourceError(Exception):
    """The metrics source did not answer, or not with metrics."""


class ActuatorError(Exception):
    """The balancer did not take the decision."""


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
    """How decisions reach the balancer."""

    def describe(self) -> str: ...

    def apply(self, actions: Mapping[str, str]) -> None:
        """Make `actions` (service -> action) what the balancer does from now on. Raises ActuatorError."""


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
    action: int
    probabilities: tuple[float, ...]  # of the six actions, under the logging policy at that time
    policy: str
    actuated: bool

    @property
    def propensity(self) -> float:
        """The probability of the action taken, in (0, 1]."""
        return self.probabilities[self.action]


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
    _previous: dict[int, int] = field(default_factory=dict)

    def step(self, tick: int, take_effect: Callable[[int, Sequence[Decision]], None]) -> Step:
        """Sample, observe, decide, actuate.

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
        policy = self.policy.at(tick) if isinstance(self.policy, Turns) else self.policy
        drawn = [(service, *self._draw(policy, tick, service, observations)) for service in range(len(SERVICES))]
        try:
            self.actuator.apply({SERVICES[service]: ACTIONS[action] for service, action, _, _ in drawn})
            actuated = True
        except ActuatorError as error:
            actuated = False
            faults.append(f"actuator {self.actuator.describe()}: {error}")
        decisions = tuple(
            Decision(tick, service, action, probabilities, name, actuated)
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
        observation = None if observations is None else observations[service]
        probabilities = tuple(policy.probabilities(self._previous.get(service), observation))
        name = policy.describe()
        proper = len(probabilities) == len(ACTIONS) and min(probabilities) >= 0
        if not (proper and math.isclose(sum(probabilities), 1, abs_tol=1e-9)):
            raise PolicyError(f"logging policy {name}: {probabilities} is no distribution over {len(ACTIONS)} actions")
        rng = random.Random(f"{self.seed}/decision/{SERVICES[service]}/{tick}")
        return rng.choices(range(len(ACTIONS)), probabilities)[0], probabilities, name

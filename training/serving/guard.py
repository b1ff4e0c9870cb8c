"""When a policy may decide: by fresh telemetry only. Otherwise a fixed strategy does, and the record says so."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rl_hooks.action_space import Choices
from rl_hooks.control import Actuator, ActuatorError, Sample, Source, SourceError
from rl_hooks.policies.builtin import LoggingPolicy, PolicyError, looks


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a policy may not decide now. The kind stays the same while the text counts seconds."""

    kind: str  # no_sample, old_sample, no_requests, old_requests
    text: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What has to be how fresh. A kind of telemetry that there is not at all is not waited for."""

    stale_after_s: float
    samples: bool  # there is a metrics source
    requests: bool  # there is an access log

    def reasons(self, now_ns: int, sample_ns: int | None, request_ns: int | None) -> tuple[Reason, ...]:
        """Why the telemetry is stale at `now_ns`; empty: it is fresh.

        `sample_ns`: of the sample that was just read, None when the source failed; `request_ns`: the newest fact about
        a request, None before the first. Quiet traffic looks like a log that is not written any more: stale too.

        >>> Limits(6.0, samples=True, requests=True).reasons(10_000_000_000, 9_500_000_000, 1_000_000_000)
        (Reason(kind='old_requests', text='the newest fact about a request is 9.0 s old'),)
        """
        found = []
        if self.samples:
            found.append(self._judge("sample", "metrics sample", now_ns, sample_ns))
        if self.requests:
            found.append(self._judge("requests", "fact about a request", now_ns, request_ns))
        return tuple(reason for reason in found if reason is not None)

    def _judge(self, kind: str, what: str, now_ns: int, t_ns: int | None) -> Reason | None:
        if t_ns is None:
            return Reason(f"no_{kind}", f"there is no {what}")
        age_s = (now_ns - t_ns) / 1e9
        return Reason(f"old_{kind}", f"the newest {what} is {age_s:.1f} s old") if age_s > self.stale_after_s else None


@dataclass
class Guarded:
    """A LoggingPolicy: `base` while nothing speaks against it, else `fallback`; `describe` names who decided last.

    `reasons` is set before every interval. A policy that fails to state probabilities is heard by `on_error`, and the
    fallback decides in its place.
    """

    base: LoggingPolicy
    fallback: LoggingPolicy
    on_error: Callable[[PolicyError], None]
    reasons: tuple[Reason, ...] = (Reason("no_start", "nothing is known yet"),)
    _decided: LoggingPolicy | None = field(default=None, init=False)

    @property
    def schema(self) -> Any:
        return getattr(self.base, "schema", None)

    @property
    def by_observation(self) -> bool:
        return looks(self.base)

    def among(self, choices: Choices) -> LoggingPolicy:
        """Base and fallback are made for the balancer's actions already."""
        del choices
        return self

    def describe(self) -> str:
        return (self._decided or self.base).describe()

    def probabilities(self, previous: int | None, observation: Any) -> Sequence[float]:
        if not self.reasons:
            try:
                stated = self.base.probabilities(previous, observation)
            except PolicyError as error:
                self.on_error(error)
            except Exception as error:  # noqa: BLE001  (somebody else's code: told, and routing goes on)
                self.on_error(PolicyError(f"policy {self.base.describe()}: {type(error).__name__}: {error}"))
            else:
                self._decided = self.base
                return stated
        self._decided = self.fallback
        return self.fallback.probabilities(previous, observation)


@dataclass(frozen=True)
class GuardedSource:
    """A metrics source that, whatever it raises, fails as sources do: then the fallback decides."""

    source: Source

    def describe(self) -> str:
        return self.source.describe()

    def sample(self) -> Sample | None:
        try:
            return self.source.sample()
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class GuardedActuator:
    """An actuator that, whatever it raises, fails as actuators do: then the decision is recorded as not applied."""

    actuator: Actuator

    def describe(self) -> str:
        return self.actuator.describe()

    def apply(self, actions: Mapping[str, str]) -> None:
        try:
            self.actuator.apply(actions)
        except ActuatorError:
            raise
        except Exception as error:
            raise ActuatorError(f"{type(error).__name__}: {error}") from error

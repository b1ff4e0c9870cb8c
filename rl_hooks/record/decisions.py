"""Writing down what a run decided and who was there. Without Locust and gevent: a run in virtual time does the same."""

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from rl_hooks.control import Decision, Sample, Step, Window
from rl_hooks.decision import MOST_ACTIONS
from rl_hooks.record.recorder import InForce
from rl_hooks.row import MISSING_U8, MISSING_U64, OBSERVATION_VALUES
from rl_hooks.run_folder import RunWriter

_NUMBERS = re.compile(r"\d+")

logger = logging.getLogger(__name__)

_NO_VALUE = (float("nan"),) * OBSERVATION_VALUES  # of the features beyond those there are
_NOT_THERE = (0.0,) * MOST_ACTIONS  # probabilities of the actions beyond those there are


@dataclass
class NotApplied:
    """How many decisions the balancer did not take, and from when until when (`until_ns` None: to the last one)."""

    decisions: int = 0
    from_ns: int | None = None
    until_ns: int | None = None

    def note(self, step: Step) -> None:
        # Of a balancer that decides by itself there is nothing to apply.
        count = sum(not one.actuated and one.action != MISSING_U8 for one in step.decisions)
        if count:
            self.decisions += count
            self.from_ns, self.until_ns = self.from_ns or step.t_ns, None
        elif self.decisions and self.until_ns is None:
            self.until_ns = step.t_ns

    def to_json(self) -> dict[str, int | None]:
        return asdict(self)

    def text(self, decisions: int) -> str | None:
        """What a person is told when a run ends; None when everything was applied."""
        if self.from_ns is None:
            return None
        until = "the last one" if self.until_ns is None else _utc(self.until_ns)
        when = f"between {_utc(self.from_ns)} and {until}"
        return f"{self.decisions} of {decisions} decisions could not be applied, {when}; they are recorded as such"


def _utc(t_ns: int) -> str:
    return time.strftime("%H:%M:%S UTC", time.gmtime(t_ns // 10**9))


class DecisionLog:
    """Puts decisions into force and records them with their samples and observations.

    `announce(tick, chosen)` passes each decision on to the processes that send (the workers of a distributed run).
    """

    def __init__(
        self,
        writer: RunWriter,
        in_force: InForce,
        window: Window | None,
        announce: Callable[[int, list[tuple[int, int, float]]], None],
    ) -> None:
        self.decisions = 0
        self.faults = 0
        self.not_applied = NotApplied()
        self.last: Step | None = None  # for those who look on
        self.window = window  # what the decisions are made with; None: nobody observes
        self._writer = writer
        self._in_force = in_force
        self._announce = announce
        self._last_fault: str | None = None
        self._rows_seen = 0

    def take_effect(self, t_ns: int, decisions: Sequence[Decision]) -> None:
        """From now on requests are sent under these decisions; see `Controller.step`."""
        self._rows_seen = self._writer.tables["requests"].rows
        chosen = [(decision.service, decision.action, decision.propensity) for decision in decisions]
        self._in_force.set(decisions[0].tick, chosen)
        self._announce(decisions[0].tick, chosen)

    def record(self, step: Step, phase_name: str | None) -> None:
        """Write what was decided in the phase of that name."""
        self.last = step
        if step.sample is not None:
            self._record_sample(step.sample)
        phase = self._writer.ref("phase", phase_name or "")
        for decision in step.decisions:
            self._writer.tables["decisions"].append(
                step.t_ns,
                step.sample.t_ns if step.sample is not None else 0,
                step.tick,
                self._rows_seen,
                *decision.probabilities,
                *_NOT_THERE[len(decision.probabilities) :],
                decision.propensity,
                self._writer.ref("policy", decision.policy),
                phase,
                decision.service,
                decision.action,
                decision.actuated,
            )
            self.decisions += 1
        self.not_applied.note(step)
        if step.observations is not None:
            self._record_observations(step)
        self._note_fault(step.fault)

    def _record_observations(self, step: Step) -> None:
        """The observations, and how far the rows of each process were known to them."""
        for service, values in enumerate(step.observations.tolist()):
            rest = _NO_VALUE[len(values) :]
            self._writer.tables["observations"].append(step.observed_ns, step.tick, service, *values, *rest)
        assert self.window is not None
        seen = {name: [one.seq, one.at_ns, one.offset_ns] for name, one in self.window.seen.items()}
        self._writer.event("seen", tick=step.tick, observed_ns=step.observed_ns, rows=seen)

    def _record_sample(self, sample: Sample) -> None:
        for instance in sample.instances:
            self._writer.tables["samples"].append(
                sample.t_ns,
                sample.received_ns,
                instance.cpu,
                instance.memory,
                instance.health,
                instance.queue_depth,
                instance.in_flight,
                instance.capacity,
                MISSING_U64 if instance.requests_total is None else instance.requests_total,
                MISSING_U64 if instance.errors_total is None else instance.errors_total,
                self._writer.ref("instance", instance.instance),
                instance.service,
                MISSING_U8 if instance.up is None else instance.up,
            )

    def _note_fault(self, fault: str | None) -> None:
        """One event when something stops working and one when it works again, not one per interval."""
        self.faults += fault is not None
        words = None if fault is None else _NUMBERS.sub("#", fault)  # a server's answer may tell the time
        if fault is not None and words != self._last_fault:
            logger.warning("Decisions go on, but %s", fault)
            self._writer.event("control_fault", text=fault)
        elif fault is None and self._last_fault is not None:
            logger.warning("Metrics source and actuator work again")
            self._writer.event("control_recovered")
        self._last_fault = words


class Attendance:
    """Writes planned and actual users once a second, and the phase when it changes."""

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer
        self._phase: str | None = None

    def note(self, run_time_s: float, phase: str | None, planned: Mapping[str, int], actual: Mapping[str, int]) -> None:
        """Raises OSError when there is no room."""
        if phase != self._phase:
            self._phase = phase
            self._writer.event("phase", phase=phase, run_time_s=round(run_time_s, 3))
        self._writer.event("users", run_time_s=round(run_time_s, 3), planned=dict(planned), counts=dict(actual))

"""The decision loop inside Locust: when to step, and what to write down."""

import logging
from collections.abc import Callable, Sequence

import gevent

from rl_hooks.control import Controller, Decision, Sample, Step, Window
from rl_hooks.record.recorder import InForce
from rl_hooks.row import MISSING_U8
from rl_hooks.run_folder import RunWriter

logger = logging.getLogger(__name__)


class DecisionLoop:
    """Steps a controller once per decision interval and records samples and decisions.

    `announce(tick, chosen)` passes each decision on to the processes that send (the workers of a distributed run).
    An interval that was missed because the process was busy is skipped and counted, never made up for: two decisions
    at once would share one cohort of requests.
    """

    def __init__(
        self,
        controller: Controller,
        writer: RunWriter,
        in_force: InForce,
        phase_at: Callable[[float], str | None],
        interval_s: float,
        announce: Callable[[int, list[tuple[int, int, float]]], None],
    ) -> None:
        self.decisions = 0
        self.skipped_ticks = 0
        self.faults = 0
        self._controller = controller
        self._writer = writer
        self._in_force = in_force
        self._phase_at = phase_at
        self._interval_s = interval_s
        self._announce = announce
        self._last_fault: str | None = None
        self._rows_seen = 0

    def run(self, run_time_s: Callable[[], float], on_fault: Callable[[str], None]) -> None:
        """Step until the plan ends or the greenlet is killed. A fault that costs rows ends with `on_fault(message)`."""
        before, tick = -1, 0
        try:
            while self._phase_at(run_time_s()) is not None:
                self.skipped_ticks += tick - before - 1
                self._record(self._controller.step(tick, self._take_effect), run_time_s())
                # A timer may fire a little early.
                before, tick = tick, max(tick, int(run_time_s() / self._interval_s)) + 1
                gevent.sleep(max(0.0, tick * self._interval_s - run_time_s()))
        except Exception as error:  # noqa: BLE001  (a loop that ends unheard would leave hours of data without decisions)
            on_fault(f"the decision loop stopped: {type(error).__name__}: {error}")

    @property
    def window(self) -> Window | None:
        """What the decisions are made with; None: nobody observes."""
        return self._controller.window

    def _take_effect(self, t_ns: int, decisions: Sequence[Decision]) -> None:
        self._rows_seen = self._writer.tables["requests"].rows
        chosen = [(decision.service, decision.action, decision.propensity) for decision in decisions]
        self._in_force.set(decisions[0].tick, chosen)
        self._announce(decisions[0].tick, chosen)

    def _record(self, step: Step, run_time_s: float) -> None:
        if step.sample is not None:
            self._record_sample(step.sample)
        phase = self._writer.ref("phase", self._phase_at(run_time_s) or "")
        for decision in step.decisions:
            self._writer.tables["decisions"].append(
                step.t_ns,
                step.sample.t_ns if step.sample is not None else 0,
                step.tick,
                self._rows_seen,
                *decision.probabilities,
                decision.propensity,
                self._writer.ref("policy", decision.policy),
                phase,
                decision.service,
                decision.action,
                decision.actuated,
            )
            self.decisions += 1
        if step.observations is not None:
            self._record_observations(step)
        self._note_fault(step.fault)

    def _record_observations(self, step: Step) -> None:
        """The observations, and how far the rows of each process were known to them."""
        for service, values in enumerate(step.observations.tolist()):
            self._writer.tables["observations"].append(step.observed_ns, step.tick, service, *values)
        assert self.window is not None
        seen = {name: [one.seq, one.at_ns] for name, one in self.window.seen.items()}
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
                instance.requests_total,
                instance.errors_total,
                self._writer.ref("instance", instance.instance),
                instance.service,
                MISSING_U8 if instance.up is None else instance.up,
            )

    def _note_fault(self, fault: str | None) -> None:
        """One event when something stops working and one when it works again, not one per interval."""
        self.faults += fault is not None
        if fault is not None and fault != self._last_fault:
            logger.warning("Decisions go on, but %s", fault)
            self._writer.event("control_fault", text=fault)
        elif fault is None and self._last_fault is not None:
            logger.warning("Metrics source and actuator work again")
            self._writer.event("control_recovered")
        self._last_fault = fault

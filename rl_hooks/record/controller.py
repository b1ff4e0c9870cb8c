"""The decision loop inside Locust: when to step."""

from collections.abc import Callable

import gevent

from rl_hooks.control import Controller
from rl_hooks.parts import where
from rl_hooks.policies.builtin import PolicyError
from rl_hooks.record.decisions import DecisionLog
from rl_hooks.record.recorder import InForce
from rl_hooks.run_folder import RunWriter


class DecisionLoop(DecisionLog):
    """Steps a controller once per decision interval and records samples and decisions.

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
        super().__init__(writer, in_force, controller.window, announce)
        self.skipped_ticks = 0
        self._controller = controller
        self._phase_at = phase_at
        self._interval_s = interval_s
        self._wall_ns: Callable[[], int] | None = None

    def keep_to(self, wall_ns: Callable[[], int]) -> None:
        """Step at whole multiples of the interval by this clock: a balancer that decides by the clock as well then has
        its decisions in the same intervals, and an interval has one of them."""
        self._wall_ns = wall_ns

    def run(self, run_time_s: Callable[[], float], on_fault: Callable[[str], None]) -> None:
        """Step until the plan ends or the greenlet is killed. A fault that costs rows ends with `on_fault(message)`."""
        before, tick = -1, 0
        first_s = self._first_s(run_time_s())
        try:
            if first_s:
                gevent.sleep(max(0.0, first_s - run_time_s()))
            while self._phase_at(run_time_s()) is not None:
                self.skipped_ticks += tick - before - 1
                self.record(self._controller.step(tick, self.take_effect), self._phase_at(run_time_s()))
                # A timer may fire a little early.
                before, tick = tick, max(tick, int((run_time_s() - first_s) / self._interval_s)) + 1
                gevent.sleep(max(0.0, first_s + tick * self._interval_s - run_time_s()))
        except Exception as error:  # noqa: BLE001  (a loop that ends unheard would leave hours of data without decisions)
            place = "" if isinstance(error, PolicyError) else where(error)  # that one says itself what it is about
            on_fault(f"the decision loop stopped{place}: {type(error).__name__}: {error}")

    def _first_s(self, run_time_s: float) -> float:
        """When the first step is, in run time: at once, or where the clock that is kept to next has a multiple."""
        if self._wall_ns is None:
            return 0.0
        interval_ns = round(self._interval_s * 1e9)
        return run_time_s + (-self._wall_ns() % interval_ns) / 1e9

"""A policy at work: the decision loop beside a balancer, from the first decision until it is told to end."""

import threading
import time
from collections.abc import Callable

from rl_hooks.control import ActuatorError, Controller, Sample, Step, limit_sampling
from rl_hooks.decision import SERVICES
from rl_hooks.live import give_up_ns
from rl_hooks.observation import Spans
from rl_hooks.policies.builtin import PolicyError
from rl_hooks.record.decisions import DecisionLog
from rl_hooks.record.recorder import InForce
from rl_hooks.run_folder import RunFolderError, RunWriter, create_run_folder, update_manifest
from training.serving.guard import Guarded, GuardedActuator, GuardedSource
from training.serving.metrics import Health, Metrics
from training.serving.plan import PHASE
from training.serving.rows import BOARD_PLACES, RequestRows
from training.serving.setup import Setup
from training.serving.window import ServingWindow

EXIT_OK, EXIT_STOPPED, EXIT_ROWS_LOST = 0, 1, 3
SEAL_EVERY_S = 10.0  # so that what was recorded can be shipped


class Service:
    """Decides from construction on, until `run` returns. Raises RunFolderError when the folder cannot be made."""

    def __init__(self, setup: Setup, metrics: Metrics, health: Health, tell: Callable[[str], None]) -> None:
        self.setup = setup
        self.ended = threading.Event()
        self._metrics = metrics
        self._health = health
        self._tell = tell
        plan = setup.plan
        create_run_folder(setup.folder, setup.facts)
        self.writer = RunWriter(setup.folder, "local", BOARD_PLACES)
        give_up = give_up_ns(plan.request_timeout_s)
        self._rows = RequestRows(self.writer, PHASE, give_up)
        spans = Spans.of_seconds(plan.window_s, plan.decision_interval_s)
        self._window = ServingWindow(spans, give_up, self._rows, setup.follower, self._judge)
        self._guard = Guarded(setup.policy, setup.fallback, self._policy_failed)
        self._actuator = GuardedActuator(setup.actuator)
        limit_sampling(setup.source, plan.decision_interval_s)
        policy, source = setup.explored(self._guard), GuardedSource(setup.source)
        self._controller = Controller(policy, source, self._actuator, plan.seed, window=self._window, space=setup.space)
        self._log = DecisionLog(self.writer, InForce(setup.space), self._window, lambda tick, chosen: None)
        self._sample_ns: int | None = None
        self._told: set[str] = set()
        self._policy_fault: str | None = None
        metrics.watch_age("sample", lambda: self._sample_ns)
        metrics.watch_age("requests", lambda: self._rows.newest_ns)

    def run(self) -> int:
        """Decide until `ended` is set or the duration is over, then end in order; the exit code."""
        fault, code = None, EXIT_OK
        try:
            self.writer.event("phase", phase=PHASE, run_time_s=0.0)
            self._decide()
        except OSError as error:
            fault, code = f"rows can no longer be kept ({error.strerror}); free some space", EXIT_ROWS_LOST
        except (PolicyError, ValueError) as error:
            fault, code = str(error), EXIT_STOPPED
        if fault is not None:
            self._tell(f"stopped: {fault}")
        self._leave_to_fallback()
        return max(code, self._close(fault))

    def _decide(self) -> None:
        plan, began_s = self.setup.plan, time.monotonic()
        before, tick, sealed_s = -1, 0, began_s
        while not self.ended.is_set() and (run_time_s := time.monotonic() - began_s) < plan.duration_s:
            skipped, step_began_s = tick - before - 1, time.perf_counter()
            step = self._controller.step(tick, self._log.take_effect)
            self._log.record(step, PHASE)
            self._metrics.step_s.observe(time.perf_counter() - step_began_s)
            self._metrics.skipped.inc(skipped)
            self._after(step)
            if time.monotonic() - sealed_s > SEAL_EVERY_S:
                self.writer.rotate()
                sealed_s = time.monotonic()
            self.writer.maintain()
            run_time_s = time.monotonic() - began_s
            # A timer may fire a little early.
            before, tick = tick, max(tick, int(run_time_s / plan.decision_interval_s)) + 1
            self.ended.wait(max(0.0, min(tick * plan.decision_interval_s, plan.duration_s) - run_time_s))

    def _judge(self, now_ns: int, sample: Sample | None) -> None:
        """Before every interval: is the telemetry fresh?"""
        if sample is not None:
            self._sample_ns = min(sample.t_ns, now_ns)
        newest_ns = self._rows.newest_ns
        reasons = self.setup.limits.reasons(
            now_ns,
            self._sample_ns if sample is not None else None,
            None if newest_ns is None else min(newest_ns, now_ns),  # the balancer's clock may be ahead
        )
        kinds, before = ({reason.kind for reason in found} for found in (reasons, self._guard.reasons))
        self._guard.reasons = reasons
        self._metrics.fallback.set(bool(reasons))
        if kinds == before:
            return
        if reasons:
            why = ", ".join(reason.text for reason in reasons)
            self._tell(f"{self.setup.fallback.action} decides: telemetry is stale ({why})")
            for kind in sorted(kinds - before):
                self._metrics.fallbacks.labels(kind).inc()
        else:
            self._tell(f"{self.setup.policy.describe()} decides: telemetry is fresh")

    def _policy_failed(self, error: PolicyError) -> None:
        self._metrics.errors.labels("policy").inc()
        self._policy_fault = str(error)

    def _after(self, step: Step) -> None:
        """Count and tell what an interval brought."""
        metrics, follower = self._metrics, self.setup.follower
        metrics.decided(step)
        self._health.decided()
        for part in ("source", "actuator"):
            if step.fault is not None and f"{part} " in step.fault:
                metrics.errors.labels(part).inc()
        for table, count in self.writer.rows().items():
            metrics.count_rows(table, count)
        self._tell_once("policy", self._policy_fault, "so the fallback decides in its place; said once")
        if self._rows.not_noted:
            self._tell_once("board", f"more than {BOARD_PLACES} requests in flight", "the rest is not noted; said once")
        if follower is None:
            return
        if follower.trouble is not None:
            metrics.errors.labels("access_log").inc()
        for kind, count in (("read", follower.lines), ("other", follower.others), ("unreadable", follower.unreadable)):
            metrics.count_lines(kind, count)
        self._tell_once("log", follower.trouble, "said once")
        self._tell_once("line", follower.first_unreadable, "a line of the access log; counted, said once")
        if follower.lines and self._rows.newest_ns is not None and not self._rows.starts_told:
            self._tell_once("starts", "the access log tells no starts of requests", "in_flight is not known; said once")

    def _tell_once(self, kind: str, text: str | None, rest: str) -> None:
        if text is not None and kind not in self._told:
            self._told.add(kind)
            self._tell(f"{text} ({rest})")

    # -- the end ------------------------------------------------------------------------------------------------------

    def _leave_to_fallback(self) -> None:
        """Nobody decides any more: what was best for a moment shall not stay for ever."""
        action = self.setup.fallback.action
        try:
            self._actuator.apply(dict.fromkeys(SERVICES, action))
            self._tell(f"ended: the balancer is left with {action}")
        except ActuatorError as error:
            self._tell(f"ended: the balancer could not be left with {action} ({error})")

    def _close(self, fault: str | None) -> int:
        try:
            ended_ns = time.time_ns()
            self._window.take_in(ended_ns)
            self.writer.close(left_in_flight=True)
            state = "complete" if fault is None else "interrupted"
            update_manifest(self.setup.folder, state=state, ended_unix_ns=ended_ns, fault=fault)
        except (OSError, RunFolderError) as error:
            self._tell(f"{self.setup.folder}: not closed in order ({error}); its rows can still be exported")
            return EXIT_ROWS_LOST
        finally:
            if self.setup.follower is not None:
                self.setup.follower.close()
        return EXIT_OK

    def tally(self) -> list[str]:
        """What a person reads at the end."""
        rows, follower = self.writer.rows(), self.setup.follower
        lines = [f"decisions {rows['decisions']}, requests {rows['requests']}, samples {rows['samples']}"]
        not_applied = self._log.not_applied.text(rows["decisions"])
        if not_applied is not None:
            lines.append(not_applied)
        if follower is not None:
            lines.append(
                f"access log: {follower.lines} lines, {follower.others} about other services, "
                f"{follower.unreadable} could not be read"
            )
        return [*lines, f"export with: python -m rl_hooks.export {self.setup.folder}"]

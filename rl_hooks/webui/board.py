"""The runs that this process leads or has led, as the web UI shows them."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_hooks.action_space import ActionSpace
from rl_hooks.control import Step
from rl_hooks.faults.acting import acting, agent_events
from rl_hooks.record.lead import Lead, Run
from rl_hooks.record.progress import Now
from rl_hooks.reward_so_far import RewardSoFar
from rl_hooks.run_folder import RunFolderError, read_incarnations, read_manifest
from rl_hooks.standing import Chosen, History, Standing, document, latencies_ms, name_of

LOOK_AGAIN_S = 1.0  # real; however many look on, the state of a run is made once in this time

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recorded:
    """A run of this process."""

    number: int  # from 1 on; what a browser names it by
    folder: Path


class Board:
    """Looks on while runs are recorded. What goes wrong here is told on the page and in the log, and costs no run."""

    def __init__(self, lead: Lead, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self.recorded: list[Recorded] = []
        self._lead = lead
        self._monotonic_s = monotonic_s
        self._run: Run | None = None  # the newest that has begun
        self._now: Now | None = None
        self._now_ns = 0  # of the last tick
        self._reward: RewardSoFar | None = None
        self._history = History()
        self._lost: str | None = None  # why the newest run can no longer be followed
        self._made: tuple[float, dict[str, Any] | None] = (-LOOK_AGAIN_S, None)

    # -- what a run tells ---------------------------------------------------------------------------------------------

    def begun(self, run: Run) -> None:
        self.recorded.append(Recorded(len(self.recorded) + 1, run.setup.folder.resolve()))
        self._run, self._now, self._lost = run, None, None
        self._reward, self._history = RewardSoFar(run.setup.plan), History()
        if run.recording.window is not None:
            run.recording.window.on_rows = lambda rows: self._carefully(lambda: self._fold(run, rows))

    def ticked(self, run: Run, now: Now) -> None:
        if run is self._run and run.begun:
            self._now, self._now_ns = now, run.recording.clock.now_ns()
            self._carefully(lambda: self._note(run, now))

    def _fold(self, run: Run, rows: Any) -> None:
        if run is self._run and self._reward is not None:
            self._reward.fold(rows)

    def _note(self, run: Run, now: Now) -> None:
        if self._reward is not None:
            self._reward.settle(now.run_time_s)
        step = _last_step(run)
        latency = latencies_ms(None if step is None else step.observations, run.setup.space)
        self._history.note(now.run_time_s, sum(now.planned.values()), sum(now.running.values()), *latency)

    def _carefully(self, do: Callable[[], None]) -> None:
        if self._lost is not None:
            return
        try:
            do()
        except Exception as error:  # a page to look at must not end what is recorded: it is told there and in the log
            self._lost = (
                f"this page cannot follow the run any more ({type(error).__name__}: {error}); it is recorded on"
            )
            logger.exception("The RL tab cannot follow this run any more; the recording goes on")

    # -- what a browser is told ---------------------------------------------------------------------------------------

    def document(self) -> dict[str, Any] | None:
        """How the newest run stands; None before the first one."""
        now_s = self._monotonic_s()
        if now_s - self._made[0] >= LOOK_AGAIN_S:
            self._made = now_s, self._make()
        return self._made[1]

    def state(self, recorded: Recorded) -> str:
        """The state of a run of this process."""
        if self._run is not None and recorded is self.recorded[-1]:
            return self._state_of(self._run)
        try:
            return str(read_manifest(recorded.folder)["state"])
        except RunFolderError as error:
            return f"not readable: {error}"

    def _state_of(self, run: Run) -> str:
        if self._lead.run is not run:
            return run.state
        return "ending" if run.over else "running"

    def _make(self) -> dict[str, Any] | None:
        run, now, reward = self._run, self._now, self._reward
        if run is None or reward is None:
            return None
        step, loop = _last_step(run), run.recording.loop
        faults, failed = acting(agent_events(run.setup.folder), run.setup.plan.faults)
        trouble = [run.fault, run.trouble, None if step is None else step.fault, *failed, self._lost]
        standing = Standing(
            run=run.setup.folder.name,
            state=self._state_of(run),
            facts=run.setup.facts,
            plan=run.setup.plan,
            run_time_s=0.0 if now is None else now.run_time_s,
            planned={} if now is None else now.planned,
            running={} if now is None else now.running,
            failed=self._lead.environment.stats.total.num_failures,
            rows=self._rows(run),
            rows_lost=run.recording.recorder.rows_lost,
            decisions=0 if loop is None else loop.decisions,
            skipped=None if loop is None else loop.skipped_ticks,
            now_ns=self._now_ns if run.over else run.recording.clock.now_ns(),
            sample_ns=None if step is None or step.sample is None else step.sample.t_ns,
            chosen=() if step is None else chosen_of(step, run.setup.space),
            observation=None if step is None else step.observations,
            trouble="; ".join(text for text in trouble if text is not None) or None,
            faults=faults,
            reward=reward,
            history=self._history.points,
        )
        return document(standing)

    def _rows(self, run: Run) -> int:
        """Requests recorded by all processes; what workers wrote after their last report is known once they closed."""
        known = {run.recording.writer.incarnation: run.recording.counts["requests"], **run.rows_of_workers}
        if self._lead.run is not run:
            for who in read_incarnations(run.setup.folder):
                if who.last_seq is not None:
                    known[who.name] = max(known.get(who.name, 0), who.last_seq["requests"])
        return sum(known.values())


def chosen_of(step: Step, space: ActionSpace) -> list[Chosen]:
    """What a step decided, as far as it did."""
    return [
        Chosen(
            decision.service,
            name_of(space, decision.service, decision.action),
            decision.propensity,
            decision.policy,
            decision.actuated,
        )
        for decision in step.decisions
    ]


def _last_step(run: Run) -> Step | None:
    return None if run.recording.loop is None else run.recording.loop.last

"""One process's part in one recorded run: what is opened at its start and closed at its end.

role     writes                                                 decides
local    requests, sessions, decisions, observations, samples   yes
master   decisions, observations, samples                       yes; workers report their rows, and are told
worker   requests, sessions                                     no
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent

from rl_hooks.action_space import ALL_STRATEGIES, ActionSpace
from rl_hooks.clock import Anchor, Offset, SteadyClock
from rl_hooks.control import Controller, limit_sampling
from rl_hooks.record import generator, upkeep
from rl_hooks.record.clocks import ClockNotes
from rl_hooks.record.controller import DecisionLoop
from rl_hooks.record.decisions import Attendance
from rl_hooks.record.options import Setup
from rl_hooks.record.recorder import InForce
from rl_hooks.record.statements import ORDINARY, FedSource, Load, Reading, ReadingRecorder, make_recorder
from rl_hooks.report_rows import Report, Reporter
from rl_hooks.run_folder import RunFolderError, RunWriter, create_run_folder, read_manifest, this_process
from scenario.plan import Plan

if TYPE_CHECKING:
    from rl_hooks.live import LiveWindow

DECISIONS_MESSAGE = "rl_decisions"
FAULT_MESSAGE = "rl_fault"
ROWS_MESSAGE = "rl_rows"
REPORT_AT_LEAST_EVERY_S = 0.5  # real seconds; more often where decisions are made more often
SPARE_BOARD_PLACES = 256

logger = logging.getLogger(__name__)


def _leading(_clock: Anchor) -> Offset:
    """The times of the process that decides are those of the run."""
    return Offset(0, 0)


class Recording:
    """Open from construction until `close`.

    `run_time_s` is the time in the plan; `on_fault(message)` is called at most once, when rows can no longer be kept;
    `offset_of` tells by how much times of a clock with that anchor have to be moved, None while that is not known;
    `reading` is what answers are read for beside the usual.
    Raises RunFolderError when the folder cannot be written.
    """

    def __init__(
        self,
        environment: Any,
        role: str,
        folder: Path,
        plan: Plan,
        run_time_s: Callable[[], float],
        on_fault: Callable[[str], None],
        offset_of: Callable[[Anchor], Offset | None] = _leading,
        reading: Reading = ORDINARY,
        space: ActionSpace = ALL_STRATEGIES,
    ) -> None:
        self.role = role
        self.folder = folder
        self.plan = plan
        self.run_time_s = run_time_s
        self.fault: str | None = None
        self.in_force = InForce(space)
        self.loop: DecisionLoop | None = None
        self.window: LiveWindow | None = None  # what this process decides with
        self._environment = environment
        self._on_fault = on_fault
        self._greenlets: list[gevent.Greenlet] = []
        self._closed = False
        places = 2 * sum(plan.max_users_per_profile.values()) + SPARE_BOARD_PLACES
        self.clock = SteadyClock()
        self.writer = RunWriter(folder, role, places, this_process(self.clock))
        self._attendance = Attendance(self.writer)
        self.recorder = make_recorder(reading, self.writer, self.in_force, self._fail, self.clock.now_ns)
        self._loads: dict[tuple[int, str], Load] = {}  # the newest reports of instances, as workers passed them on
        self._offset_of = offset_of
        self._clock_notes = ClockNotes(self.writer, self.clock, lambda: offset_of(self.clock.anchor))
        try:
            self.recorder.know(plan.scenario.profiles, [phase.name for phase in plan.phases])
        except OSError as error:
            raise RunFolderError(f"{folder}: no room for names ({error.strerror}); free some space") from error
        environment.events.request.add_listener(self.recorder.on_request)
        self._greenlets.append(gevent.spawn(upkeep.keep, self.writer, self._fail))
        self._greenlets.append(gevent.spawn(generator.watch, self.writer, self._fail))
        self._greenlets.append(gevent.spawn(self._clock_notes.keep, self._fail))

    def decide(self, setup: Setup, announce: Callable[[int, list[tuple[int, int, float]]], None]) -> None:
        """Start the decision loop in this process. With workers their reports have to be given to `fold`."""
        from rl_hooks.live import LiveWindow, LocalWindow, give_up_ns  # here, because only who decides needs numpy
        from rl_hooks.observation import Spans

        spans = Spans.of_seconds(setup.plan.window_s, setup.plan.decision_interval_s)
        give_up = give_up_ns(setup.plan.request_timeout_s)
        local = self.role == "local"
        self.window = (
            LocalWindow(spans, give_up, Reporter(self.writer), setup.space)
            if local
            else LiveWindow(spans, give_up, setup.space)
        )
        limit_sampling(setup.source, setup.plan.decision_interval_s)
        reading = Reading.of(setup.source, setup.actuator)
        source = FedSource(setup.source, self._take_loads) if reading.loads else setup.source
        controller = Controller(
            setup.policy, source, setup.actuator, setup.plan.seed, self.clock.now_ns, self.window, setup.space
        )
        interval_s = setup.plan.decision_interval_s
        self.loop = DecisionLoop(controller, self.writer, self.in_force, self.phase_now, interval_s, announce)
        if reading.statements:
            self.loop.keep_to(self.clock.now_ns)
        self._greenlets.append(gevent.spawn(self.loop.run, self.run_time_s, self._fail))

    def report(self, send: Callable[[dict[str, Any]], None]) -> None:
        """Report this process's rows to the one that decides, from now on, until this is closed."""
        reporter = Reporter(self.writer)
        every_s = min(self.plan.decision_interval_s / 2, REPORT_AT_LEAST_EVERY_S)

        def keep_reporting() -> None:
            while True:
                gevent.sleep(every_s)
                offset = self._offset_of(self.clock.anchor)
                moved_ns = offset.applied_ns if offset is not None else 0
                report = reporter.report(self.clock.now_ns(), moved_ns)
                send(replace(report, loads=self._take_loads()).to_message())

        self._greenlets.append(gevent.spawn(keep_reporting))

    def fold(self, message: Mapping[str, Any]) -> None:
        """What a worker reports."""
        if self.window is None or self._closed:
            return
        try:
            report = Report(**message)
            self.window.fold(report)
            self._note_loads(report.loads, report.offset_ns)
        except ValueError as error:
            self._fail(f"what decisions are made with is not complete: {error}")

    def _take_loads(self) -> list[Load]:
        """What instances said since the last call, of answers to this process and to its workers."""
        own = self.recorder.take_loads() if isinstance(self.recorder, ReadingRecorder) else []
        loads, self._loads = [*self._loads.values(), *own], {}
        return loads

    def _note_loads(self, loads: Sequence[Sequence[Any]], offset_ns: int) -> None:
        """A worker's, in our time; of two workers' reports about one instance the newer one stays."""
        for service, instance, text, at_ns in loads:
            known = self._loads.get((service, instance))
            if known is None or known[3] < at_ns + offset_ns:
                self._loads[service, instance] = (service, instance, text, at_ns + offset_ns)

    def phase_now(self, t_s: float) -> str | None:
        """The name of the phase at `t_s`, None outside the plan."""
        phase = self.plan.phase_at(t_s)
        return None if phase is None else phase.name

    def note_users(self, run_time_s: float, planned: Mapping[str, int], actual: Mapping[str, int]) -> None:
        """Write planned and actual users, and the phase when it changes. Called once a second."""
        try:
            self._attendance.note(run_time_s, self.phase_now(run_time_s), planned, actual)
        except OSError as error:
            self._fail(f"{self.folder}: an event could not be written ({error.strerror})")

    def close(self) -> None:
        """Stop the loops and seal everything. Safe to call more than once."""
        if self._closed:
            return
        self._closed = True
        gevent.killall(self._greenlets)
        gevent.get_hub().threadpool.join()  # the upkeep may be sealing in another thread
        self._environment.events.request.remove_listener(self.recorder.on_request)
        try:
            self._clock_notes.look(last=True)
            self.writer.close()
        except OSError as error:
            self._fail(f"{self.folder}: not closed in order ({error.strerror}); its rows can still be exported")

    @property
    def counts(self) -> dict[str, int]:
        """Rows written by this process, by table, and the requests of others it saw."""
        return {**self.writer.rows(), "foreign_requests": self.recorder.foreign_requests}

    def _fail(self, message: str) -> None:
        if self.fault is None:
            self.fault = message
            self._on_fault(message)


def open_folder(setup: Setup) -> None:
    """Create the run folder with its manifest. Raises RunFolderError."""
    create_run_folder(setup.folder, setup.facts)


def join_folder(folder: Path) -> dict[str, Any]:
    """The manifest of a run that a worker joins. Raises RunFolderError when this machine does not see the folder."""
    try:
        return read_manifest(folder)
    except RunFolderError as error:
        way_out = "give all the same folder (a shared volume) with --run-folder, or each worker its own with --spool"
        raise RunFolderError(f"worker: {error}; {way_out}") from error

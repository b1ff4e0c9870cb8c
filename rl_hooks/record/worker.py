"""A process that sends requests in the run of its master."""

import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gevent
from locust.exception import RPCError

from rl_hooks.action_space import ActionSpace
from rl_hooks.clock import Anchor, Offset, between
from rl_hooks.record.clocks import MasterClock
from rl_hooks.record.part import EXIT_MASTER_GONE, EXIT_ROWS_LOST, ROWS_REPORTED, Part
from rl_hooks.record.recording import FAULT_MESSAGE, ROWS_MESSAGE, Recording, join_folder
from rl_hooks.record.statements import Reading
from rl_hooks.run_folder import RunFolderError, create_part
from scenario.plan import Plan

logger = logging.getLogger(__name__)

MASTER_SILENT_S = 10  # real; heartbeats come every second


class Worker(Part):
    """A process that sends requests in the run of its master."""

    def __init__(self, environment: Any, runtime_for: Callable[[Recording], Any]) -> None:
        super().__init__(environment, runtime_for)
        self.recording: Recording | None = None
        self.fault: str | None = None
        self._clock = MasterClock(environment.runner)
        self._spool: str | None = environment.parsed_options.spool  # read now: the master's options replace it
        self._seconds_silent: int | None = None  # the master; None: nothing was heard of it yet
        self._master_gone = False
        self._run_id = ""
        self._reported: list[str | int] | None = None  # of the newest run, also after its end
        environment.events.heartbeat_received.add_listener(lambda **_: self._heard())
        gevent.spawn(self._watch_master)

    def _heard(self) -> None:
        self._seconds_silent = 0

    def _watch_master(self) -> None:
        """Leave when the master is silent. Without it nobody decides, so what is sent is worth nothing.

        Locust does so after a minute, by the wall clock, and with an exit code that says all is well. Seconds are
        counted here and not measured: a process that was stopped for a while hears what came in the meantime first.
        """
        while self._seconds_silent is None or self._seconds_silent < MASTER_SILENT_S:
            gevent.sleep(1)
            if self._seconds_silent is not None:
                self._seconds_silent += 1
        self._master_gone = True
        print(f"worker: the master was silent for {MASTER_SILENT_S} s; leaving, to be started again", file=sys.stderr)
        self.runner.quit()

    def start(self) -> None:
        """Locust's test_start; the master's options came with the message that caused it."""
        self.fault = None
        about = getattr(self.environment.parsed_options, "rl_run", None)
        if about is None:
            return
        try:
            self._join(**about)
        except RunFolderError as error:
            self.fail(str(error))

    def _join(
        self,
        folder: str,
        run_id: str,
        plan: Mapping[str, Any],
        action_space: Mapping[str, Any],
        clock: Mapping[str, int],
        start_ns: int,
        newest_ns: int,
        decision: Mapping[str, Any] | None,
        reading: Mapping[str, bool],
    ) -> None:
        """Begin our part. All times are the master's: `clock` is its anchor, `newest_ns` lies a second or two back."""
        masters = Anchor(**clock)

        def offset_of(mine: Anchor) -> Offset | None:
            monotonic = self._clock.offset()
            return None if monotonic is None else between(mine, masters, monotonic)

        def run_time_s() -> float:
            offset = offset_of(recording.clock.anchor)
            # A worker that joins in the middle of a run may not have had an answer yet.
            ahead_ns = offset.applied_ns if offset is not None else newest_ns - recording.clock.anchor.wall_ns
            return (recording.clock.now_ns() + ahead_ns - start_ns) / 1e9

        place = self._place(Path(folder), run_id)
        self._run_id = run_id
        recording = self.recording = Recording(
            *(self.environment, "worker", place, Plan.from_json(plan), run_time_s, self.fail, offset_of),
            reading=Reading(**reading),
            space=ActionSpace.from_json(action_space),
        )
        if decision is not None:
            self.recording.in_force.set(**decision)
        self.recording.report(self._send_rows)
        self.give_users(self.recording)

    def _place(self, folder: Path, run_id: str) -> Path:
        """Where this process's part of the run goes."""
        if self._spool is None:
            join_folder(folder)
            return folder
        part = Path(self._spool) / run_id
        create_part(part)
        return part

    def _send_rows(self, message: dict[str, Any]) -> None:
        """New rows, for the master's decisions. They are recorded here in any case."""
        try:
            self.runner.send_message(ROWS_MESSAGE, message)
        except RPCError as error:  # the master is gone; Locust ends this process when it stays away
            logger.warning("Rows could not be reported to the master: %s", error)

    def report(self, data: dict[str, Any]) -> None:
        """Locust's report to the master, every few seconds: how many rows there are goes with it."""
        if self.recording is not None:
            self._reported = [self._run_id, self.recording.writer.incarnation, self.recording.counts["requests"]]
        data[ROWS_REPORTED] = self._reported

    def told(self, msg: Any, **_: Any) -> None:
        """The decisions that are in force now."""
        if self.recording is not None:
            self.recording.in_force.set(**msg.data)

    def fail(self, message: str) -> None:
        """Rows can no longer be kept: the master ends the run."""
        if self.fault is None:
            self.fault = message
            print(f"run stopped: {message}", file=sys.stderr, flush=True)
            gevent.spawn(self.runner.send_message, FAULT_MESSAGE, {"text": message})

    def stop(self) -> None:
        """Locust's test_stop: all users of this process have left."""
        if self.recording is not None:
            self.close(self.recording)
            self.report({})  # its last rows are in the report that Locust sends next
            self.recording = None

    def quit(self) -> None:
        """Locust's quitting. Failed requests are data: they do not make the exit code."""
        if self.recording is not None:
            self.runner.quit()
            self.stop()
        left = EXIT_MASTER_GONE if self._master_gone else 0
        self.environment.process_exit_code = left if self.fault is None else EXIT_ROWS_LOST

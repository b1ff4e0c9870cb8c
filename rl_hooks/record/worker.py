"""A process that sends requests in the run of its master."""

import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gevent
from locust.exception import RPCError

from rl_hooks.record.part import EXIT_ROWS_LOST, ROWS_REPORTED, Part
from rl_hooks.record.recording import FAULT_MESSAGE, ROWS_MESSAGE, Recording, join_folder
from rl_hooks.run_folder import RunFolderError, create_part
from scenario.plan import Plan

logger = logging.getLogger(__name__)


class Worker(Part):
    """A process that sends requests in the run of its master."""

    def __init__(self, environment: Any, runtime_for: Callable[[Recording], Any]) -> None:
        super().__init__(environment, runtime_for)
        self.recording: Recording | None = None
        self.fault: str | None = None
        self._spool: str | None = environment.parsed_options.spool  # read now: the master's options replace it

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
        self, folder: str, run_id: str, plan: Mapping[str, Any], start_ns: int, decision: Mapping[str, Any] | None
    ) -> None:
        self.recording = Recording(
            self.environment,
            "worker",
            self._place(Path(folder), run_id),
            Plan.from_json(plan),
            lambda: (time.time_ns() - start_ns) / 1e9,
            self.fail,
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
        data[ROWS_REPORTED] = self.recording.counts["requests"] if self.recording is not None else 0

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
            self.recording = None

    def quit(self) -> None:
        """Locust's quitting. Failed requests are data: they do not make the exit code."""
        if self.recording is not None:
            self.runner.quit()
            self.stop()
        self.environment.process_exit_code = 0 if self.fault is None else EXIT_ROWS_LOST

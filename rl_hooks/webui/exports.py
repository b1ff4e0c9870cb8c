"""Exporting a run from the web UI: in a process of its own, as a headless run does at its end."""

import logging
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent

LINES, LINE_CHARACTERS = 40, 400  # of what a process says, kept for the browser
NICENESS = 10  # a run that goes on comes first

_EXPORTED = {0: "done", 3: "incomplete"}  # exit code of the export -> what came of it, where there is a bundle
_JUDGED = (0, 1)  # exit codes of the report card where there is one; 1: not fit to train on

logger = logging.getLogger(__name__)


class ExportRefusedError(Exception):
    """The run cannot be exported now; the message says why."""


@dataclass
class Export:
    """One export of one run, and what it says."""

    number: int  # of the run
    state: str = "running"  # then "done", "incomplete" (rows are missing) or "failed"
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES))

    def to_json(self) -> dict[str, Any]:
        return {"state": self.state, "lines": list(self.lines)}


class Exporter:
    """At most one export at a time. `project` is where the suite's packages are found."""

    def __init__(self, project: Path, logs: str) -> None:
        self._project = project
        self._logs = logs
        self._exports: dict[int, Export] = {}  # number of the run -> its last export
        self._process: subprocess.Popen[str] | None = None

    def of(self, number: int) -> Export | None:
        return self._exports.get(number)

    def start(self, number: int, folder: Path) -> None:
        """Export a run in the background. Raises ExportRefusedError while another export goes on."""
        busy = [export.number for export in self._exports.values() if export.state == "running"]
        if busy:
            raise ExportRefusedError(f"run {busy[0]} is being exported; wait for its end")
        export = self._exports[number] = Export(number)
        gevent.spawn(self._carry_out, export, folder)

    def stop(self) -> None:
        """End what is still going on; a bundle that is not complete is not there at all."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _carry_out(self, export: Export, folder: Path) -> None:
        """First the bundle, then the report card; each judges by its exit code whether the next is worth it."""
        try:
            state = _EXPORTED.get(self._run(export, ["-m", "rl_hooks.export", str(folder), "--logs", self._logs]))
            if state is not None and self._run(export, ["-m", "rl_hooks.report", str(folder)]) not in _JUDGED:
                state = None
            export.state = state or "failed"
        except OSError as error:
            export.lines.append(f"could not be started: {error}")
            export.state = "failed"
        logger.info("Export of %s: %s", folder, export.state)

    def _run(self, export: Export, arguments: Sequence[str]) -> int:
        path = os.pathsep.join([str(self._project), *filter(None, [os.environ.get("PYTHONPATH")])])
        with subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C in the terminal is not for it
        ) as process:
            self._process = process
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
            assert process.stdout is not None
            for line in process.stdout:
                export.lines.append(line.rstrip()[:LINE_CHARACTERS])
        self._process = None
        return process.returncode

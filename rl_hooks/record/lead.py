"""The process that plans, decides and ends a run: the only one, or the master of workers."""

import logging
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import gevent
from locust.exception import RPCError
from locust.runners import STATE_INIT, MasterRunner

from rl_hooks.record.faults import FaultAgent
from rl_hooks.record.options import Setup, SetupError, make_setup
from rl_hooks.record.part import EXIT_FAILED, EXIT_ROWS_LOST, EXIT_SETUP, ROWS_REPORTED, Part
from rl_hooks.record.progress import Now, Progress
from rl_hooks.record.recording import DECISIONS_MESSAGE, Recording, open_folder
from rl_hooks.record.statements import Reading
from rl_hooks.run_folder import RunFolderError, read_incarnations, update_manifest
from rl_hooks.target import TargetError, check_target, root_of, size_sandbox
from scenario.plan import Plan

logger = logging.getLogger(__name__)

WORKERS_CLOSE_S = 5.0  # beyond the stop timeout, for the workers' last rows
PAUSE_S = 1.1  # between two runs: folders are named by the second, and a sandbox is free a second after a request
CANNOT_START = (SetupError, TargetError, RunFolderError)
"""What `Lead.prepare` raises when a run cannot start; the message is for the user."""
LookAtShop = Callable[[str, Plan], list[str]]
"""(host, plan) -> what to know of a shop that is not the sandbox's. Raises TargetError when no run can use it."""


@dataclass
class Run:
    """A run that this process leads, from its folder to its last row."""

    setup: Setup
    recording: Recording
    progress: Progress
    agent: FaultAgent | None = None  # makes the scenario's faults; None: there are none
    begun: bool = False
    reached_end: bool = False
    fault: str | None = None  # why rows could not be kept
    trouble: str | None = None  # why the scenario's faults were not what they should be
    rows_of_workers: dict[str, int] = field(default_factory=dict)  # incarnation -> request rows in its last report
    over: bool = False  # its end has begun
    ending: gevent.Greenlet | None = None  # writes the end down, once the recording is closed

    @property
    def state(self) -> str:
        return "complete" if self.reached_end and self.fault is None else "interrupted"


class Onlooker(Protocol):
    """Who watches runs from within the leading process."""

    def begun(self, run: Run) -> None:
        """The run has begun: its decisions can be looked at from here on."""

    def ticked(self, run: Run, now: Now) -> None:
        """How the run stands, once a second."""


class Lead(Part):
    """The process that plans, decides and ends the run: the only one, or the master of workers."""

    def __init__(
        self, environment: Any, runtime_for: Callable[[Recording], Any], project: Path, look_at_shop: LookAtShop
    ) -> None:
        super().__init__(environment, runtime_for)
        self._project = project  # where the suite's packages are found
        self._look_at_shop = look_at_shop
        self.form: dict[str, Any] = {}  # what the web UI's start form said, read by the types of our options
        self.runs = 0
        self.next_start_s = 0.0
        self.run: Run | None = None  # from its preparation until all is written
        self.onlooker: Onlooker | None = None
        self._refusal: str | None = None  # why the last start came to nothing
        environment.parsed_options.rl_run = None

    @property
    def headless(self) -> bool:
        return bool(self.environment.parsed_options.headless)

    @property
    def is_master(self) -> bool:
        return isinstance(self.runner, MasterRunner)

    # -- before a run -------------------------------------------------------------------------------------------------

    def prepare(self) -> Run:
        """Decide everything, ask the target for its health, open the recording. Raises what the user has to hear."""
        gevent.sleep(max(0.0, self.next_start_s - time.time()))
        options = Namespace(**{**vars(self.environment.parsed_options), **self.form})
        if options.run_folder and self.runs:
            options.run_folder += f"-{self.runs + 1}"
        setup = make_setup(options, self.environment.host)
        check_target(setup.host)
        if setup.is_sandbox:  # it is told what it sells
            lines = size_sandbox(root_of(setup.host), setup.peak_load())
        else:
            lines = self._look_at_shop(setup.host, setup.plan)
        open_folder(setup)
        self.runs += 1
        clock, role = self.environment.shape_class.get_run_time, "master" if self.is_master else "local"
        recording = Recording(
            *(self.environment, role, setup.folder, setup.plan, clock, self.fail),
            reading=Reading.of(setup.source, setup.actuator),
            space=setup.space,
        )
        self.environment.process_exit_code = None
        print("\n".join([*setup.describe(), *lines]), flush=True)
        agent = FaultAgent(setup, self._project) if setup.plan.faults else None
        progress = Progress(setup.plan.duration_s, _write, on_terminal=sys.stdout.isatty())
        return Run(setup, recording, progress, agent)

    def plan_for(self, _environment: Any) -> Plan:
        """What the timeline follows. It asks once more when a master begins, and gets the same plan.

        Raises SetupError with what the user has to hear.
        """
        try:
            self.run = self.run or self.prepare()
        except CANNOT_START as error:
            self._refusal = str(error)
            self.environment.process_exit_code = EXIT_SETUP
            raise SetupError(self._refusal) from error
        return self.run.setup.plan

    def take_refusal(self) -> str | None:
        """Why the last start came to nothing, told once; None when it did not."""
        refusal, self._refusal = self._refusal, None
        return refusal

    # -- a run --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Locust's test_start."""
        run = self.run
        if run is None:  # users started by hand in the terminal hear that they have no plan
            return
        run.begun = True
        clock = run.recording.clock
        start_ns = clock.now_ns()
        self._write_down(run, started_unix_ns=start_ns)
        self.give_users(run.recording)
        if self.is_master:
            # Every spawn message carries the options, so workers that join late learn of the run too.
            about = {
                "folder": str(run.setup.folder.resolve()),
                "run_id": run.setup.facts["run_id"],
                "plan": run.setup.facts["plan"],
                "action_space": run.setup.facts["action_space"],
                "clock": asdict(clock.anchor),
                "start_ns": start_ns,
                "newest_ns": start_ns,
                "decision": None,
                "reading": asdict(Reading.of(run.setup.source, run.setup.actuator)),
            }
            self.environment.parsed_options.rl_run = about
        run.recording.decide(run.setup, self.tell_workers)
        if self.onlooker is not None:
            self.onlooker.begun(run)

    def tell_workers(self, tick: int, chosen: list[tuple[int, int, float]]) -> None:
        if self.is_master:
            decision = self.environment.parsed_options.rl_run["decision"] = {"tick": tick, "chosen": chosen}
            for worker in list(self.runner.clients):
                self._tell(worker, decision)

    def _tell(self, worker: str, decision: Mapping[str, Any]) -> None:
        try:
            self.runner.send_message(DECISIONS_MESSAGE, decision, worker)
        except RPCError as error:  # its link is gone; it hears the next one, or is missing
            logger.warning("A decision did not reach worker %s: %s", worker, error)

    def note_users(self, run_time_s: float, planned: Mapping[str, int], actual: Mapping[str, int]) -> None:
        """The timeline's tick, once a second."""
        run = self.run
        if run is None:
            return
        if self.is_master and self.environment.parsed_options.rl_run is not None:
            self.environment.parsed_options.rl_run["newest_ns"] = run.recording.clock.now_ns()
        run.reached_end = run.reached_end or run_time_s >= run.setup.plan.duration_s
        self._watch_faults(run, run_time_s)
        run.recording.note_users(run_time_s, planned, actual)
        total, recording = self.environment.stats.total, run.recording
        now = Now(
            run_time_s=run_time_s,
            phase=recording.phase_now(run_time_s),
            planned=planned,
            running=actual,
            sent=total.num_requests,
            failed=total.num_failures,
            rows=recording.counts["requests"] + sum(run.rows_of_workers.values()),
            rows_lost=recording.recorder.rows_lost,
            decisions=recording.loop.decisions if recording.loop is not None else 0,
            faults=tuple(fault.text for fault in run.setup.plan.faults_at(run_time_s)),
        )
        run.progress.tick(now)
        if self.onlooker is not None:
            self.onlooker.ticked(run, now)

    def _watch_faults(self, run: Run, run_time_s: float) -> None:
        """Without its agent the run is not what the scenario says: end it."""
        if run.agent is None or run.over or run.trouble is not None:
            return
        run.agent.begin(run_time_s)
        if run.agent.died():
            run.trouble = "the fault agent is gone"
            self._end_early(run.trouble)

    def rows_reported(self, msg: Any, **_: Any) -> None:
        """A worker's new rows, for the decisions."""
        if self.run is not None:
            self.run.recording.fold(msg.data)

    def reported(self, data: Mapping[str, Any]) -> None:
        """Locust's report of a worker. The manifest knows every incarnation, also one that leaves nothing else."""
        run, about = self.run, data.get(ROWS_REPORTED)
        if run is None or about is None or about[0] != run.setup.facts["run_id"]:
            return
        _, incarnation, rows = about
        is_new = incarnation not in run.rows_of_workers
        run.rows_of_workers[incarnation] = rows
        if is_new:
            self._write_down(run, **_incarnations(run))

    def fail(self, message: str) -> None:
        """Rows can no longer be kept: say so once and end the run in order."""
        run = self.run
        if run is None or run.fault is not None:
            return
        run.fault = message
        self._end_early(message)

    def _end_early(self, why: str) -> None:
        print(f"run stopped: {why}", file=sys.stderr, flush=True)
        gevent.spawn(self.runner.quit if self.headless else self.runner.stop)

    # -- after a run --------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Locust's test_stop: all users have left, or the workers have been told to end theirs."""
        run = self.run
        if run is not None and not run.over:
            run.over = True  # closing gives way to other greenlets, which may come here too
            try:
                self.close(run.recording)
            finally:  # Ctrl-C can come in any greenlet; what there is has to be written down all the same
                run.ending = gevent.spawn(self._end, run)

    def give_up(self) -> None:
        """End what has not begun: Locust's own stop leaves a master alone that waits for its first worker."""
        waiting = self.runner.shape_greenlet
        if waiting is not None and self.runner.state == STATE_INIT:
            waiting.kill()
            self.runner.shape_greenlet = self.runner.shape_last_tick = None
            self.stop()

    def quit(self) -> None:
        """Locust's quitting: after an interruption the users are still there."""
        run = self.run
        if run is not None:
            self.runner.quit()
            self.stop()
            while run.ending is None:
                gevent.sleep(0.01)
            run.ending.join()

    def _end(self, run: Run) -> None:
        """Lift what acts, wait for the last rows, close the manifest and, in a headless run, export."""
        run.trouble = (run.agent.close() if run.agent is not None else None) or run.trouble
        self._wait_for_workers(run.setup.folder)
        ended_ns = run.recording.clock.now_ns()
        self._write_down(run, **_incarnations(run), state=run.state, ended_unix_ns=ended_ns, fault=run.fault)
        self._tell_not_applied(run)
        code = EXIT_ROWS_LOST if run.fault is not None else 0 if run.state == "complete" else EXIT_FAILED
        if run.trouble is not None:
            print(f"run failed: {run.trouble}", file=sys.stderr)
            code = code or EXIT_FAILED
        total = self.environment.stats.total
        if run.begun and total.num_requests and total.num_requests == total.num_failures:
            print(f"run failed: no request succeeded of {total.num_requests} sent to {run.setup.host}", file=sys.stderr)
            code = code or EXIT_FAILED
        self.environment.process_exit_code = max(code, self._export(run))
        self.environment.parsed_options.rl_run = None
        self.next_start_s = time.time() + PAUSE_S
        self.run = None

    def _tell_not_applied(self, run: Run) -> None:
        loop = run.recording.loop
        if loop is None:
            return
        self._write_down(run, decisions_not_applied=loop.not_applied.to_json())
        text = loop.not_applied.text(loop.decisions)
        if text is not None:
            print(text, file=sys.stderr, flush=True)

    def _wait_for_workers(self, folder: Path) -> None:
        wait_s = self.environment.stop_timeout + WORKERS_CLOSE_S
        deadline = time.monotonic() + wait_s
        while open_ := [who.name for who in read_incarnations(folder) if who.role == "worker" and not who.closed]:
            if time.monotonic() > deadline:
                print(f"not closed in order within {wait_s:g} s: {', '.join(open_)}", file=sys.stderr, flush=True)
                return
            gevent.sleep(0.1)

    def _write_down(self, run: Run, **facts: Any) -> None:
        try:
            update_manifest(run.setup.folder, **facts)
        except (OSError, RunFolderError) as error:
            self.fail(f"{run.setup.folder}: the manifest could not be written ({error})")

    def _export(self, run: Run) -> int:
        """Export in a process of its own, so that this one's patched sockets and memory play no part in it."""
        command = ["-m", "rl_hooks.export", str(run.setup.folder)]
        again = f"python {' '.join(command)}"
        if not run.begun:
            print(f"run ended before it began: {run.setup.folder}", flush=True)
            return 0
        if not self.headless or self.environment.parsed_options.no_export:
            print(f"run {run.state}, not exported; do it with: {again}", flush=True)
            return 0
        command = [sys.executable, *command, "--logs", self.environment.parsed_options.logs]
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would leave the run without its bundle
        path = os.pathsep.join([str(self._project), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {**os.environ, "PYTHONPATH": path}
        code = abs(subprocess.run(command, env=env, check=False).returncode)
        if code in (0, EXIT_ROWS_LOST):  # its verdict is about the data, not about the run
            subprocess.run([sys.executable, "-m", "rl_hooks.report", str(run.setup.folder)], env=env, check=False)
        else:
            text = f"run {run.state}, and its rows are kept; once what is said above is mended, export it with: {again}"
            print(text, file=sys.stderr, flush=True)
        return code


def _incarnations(run: Run) -> dict[str, Any]:
    """For the manifest: every process of the run that wrote rows, and how many requests it is known to have written."""
    rows = {run.recording.writer.incarnation: run.recording.counts["requests"], **run.rows_of_workers}
    return {"incarnations": {name: {"requests": count} for name, count in rows.items()}}


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()

"""The composition root: Locust loads this file, and it puts the parts together. Nobody imports it.

    locust -f locustfile.py                                     web UI on http://localhost:8089
    locust -f locustfile.py --headless --scenario NAME ...      one run, then the export
    locust -f locustfile.py --headless --processes 2 ...        the same with a master and two workers

User classes are made from the scenario file before Locust reads its options, so this file looks them up early.
"""

import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import gevent
from flask import request
from gevent.event import AsyncResult
from gevent.lock import BoundedSemaphore
from locust import events
from locust.argument_parser import get_parser
from locust.runners import STATE_INIT, MasterRunner, WorkerRunner

from profiles import seating
from profiles.base import Runtime
from profiles.shoppers import user_classes
from rl_hooks.record.faults import FaultAgent
from rl_hooks.record.form import read_form
from rl_hooks.record.options import Setup, SetupError, add_options, default_host, make_setup, read_scenario_file
from rl_hooks.record.progress import Now, Progress
from rl_hooks.record.recording import (
    DECISIONS_MESSAGE,
    FAULT_MESSAGE,
    ROWS_MESSAGE,
    Recording,
    join_folder,
    open_folder,
)
from rl_hooks.run_folder import RunFolderError, read_incarnations, update_manifest
from rl_hooks.target import TargetError, check_target, root_of, size_sandbox
from scenario.errors import ScenarioError
from scenario.load import ScenarioFile
from scenario.plan import Plan
from shapes import dispatch
from shapes.timeline import Timeline, TimelineError

PROJECT = Path(__file__).resolve().parent
WORKERS_CLOSE_S = 5.0  # beyond the stop timeout, for the workers' last rows
WORKERS_COME_S = 20.0  # how long a master that cannot start waits for the workers it has forked
PAUSE_S = 1.1  # between two runs: folders are named by the second, and a sandbox is free a second after a request
STOP_GRACE_S = 5.0  # beyond the request timeout, for users that are told to leave

ROWS_REPORTED = "rl_rows"  # in a worker's report: request rows it has recorded in this run

EXIT_FAILED, EXIT_SETUP, EXIT_ROWS_LOST = 1, 2, 3


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _stop_with(message: object) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(EXIT_SETUP)


def _scenarios() -> ScenarioFile:
    """The scenario file this process was started with, from any of Locust's sources of options."""
    parser = get_parser()
    add_options(parser)
    arguments = [argument for argument in sys.argv[1:] if argument not in ("-h", "--help", "-V", "--version")]
    return read_scenario_file(parser.parse_known_args(arguments)[0])


try:
    SCENARIOS = _scenarios()
except ScenarioError as problem:
    _stop_with(problem)

globals().update({user.__name__: user for user in user_classes(SCENARIOS.profiles)})
PART: AsyncResult = AsyncResult()  # what this process does in runs, once Locust has made its runner


class Part:
    """What every process does in a run: it gives its users what they need, and takes it back."""

    def __init__(self, environment: Any, desk: seating.Desk) -> None:
        self.environment = environment
        self.runner = environment.runner
        self.desk = desk

    def give_users(self, recording: Recording) -> None:
        seats, accounts = self.desk.open(recording.plan.accounts)
        self.environment.rl_runtime = Runtime(
            plan=recording.plan,
            run_time_s=recording.run_time_s,
            steering=recording.recorder,
            seats=seats,
            accounts=accounts,
            on_session_end=recording.recorder.session_ended,
        )

    def close(self, recording: Recording) -> None:
        recording.close()
        self.environment.rl_runtime = None  # users that somebody starts by hand shall not write into a closed recording


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
    over: bool = False  # its end has begun
    ending: gevent.Greenlet | None = None  # writes the end down, once the recording is closed

    @property
    def state(self) -> str:
        return "complete" if self.reached_end and self.fault is None else "interrupted"


class Lead(Part):
    """The process that plans, decides and ends the run: the only one, or the master of workers."""

    def __init__(self, environment: Any, desk: seating.Desk) -> None:
        super().__init__(environment, desk)
        self.form: dict[str, Any] = {}  # what the web UI's start form said, read by the types of our options
        self.runs = 0
        self.next_start_s = 0.0
        self.run: Run | None = None  # from its preparation until all is written
        self.refusal: str | None = None  # why the last start came to nothing
        self.rows_of_workers: dict[str, int] = {}  # worker id -> request rows in its last report
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
        lines = size_sandbox(root_of(setup.host), setup.peak_load()) if setup.is_sandbox else []
        open_folder(setup)
        self.runs += 1
        clock, role = self.environment.shape_class.get_run_time, "master" if self.is_master else "local"
        recording = Recording(self.environment, role, setup.folder, setup.plan, clock, self.fail)
        self.environment.process_exit_code = None
        print("\n".join([*setup.describe(), *lines]), flush=True)
        agent = FaultAgent(setup, PROJECT) if setup.plan.faults else None
        progress = Progress(setup.plan.duration_s, _write, on_terminal=sys.stdout.isatty())
        self.rows_of_workers = {}
        return Run(setup, recording, progress, agent)

    def plan_for(self, _environment: Any) -> Plan:
        """What the timeline follows. It asks once more when a master begins, and gets the same plan."""
        try:
            self.run = self.run or self.prepare()
        except (SetupError, TargetError, RunFolderError) as error:
            self.refusal = str(error)
            self.environment.process_exit_code = EXIT_SETUP
            raise TimelineError(self.refusal) from error
        return self.run.setup.plan

    # -- a run --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Locust's test_start."""
        run = self.run
        if run is None:  # users started by hand in the terminal hear that they have no plan
            return
        run.begun = True
        self._write_down(run, started_unix_ns=time.time_ns())
        self.give_users(run.recording)
        if self.is_master:
            # Every spawn message carries the options, so workers that join late learn of the run too.
            about = {"folder": str(run.setup.folder.resolve()), "start_ns": time.time_ns(), "decision": None}
            self.environment.parsed_options.rl_run = about
        run.recording.decide(run.setup, self.tell_workers)

    def tell_workers(self, tick: int, chosen: list[tuple[int, int, float]]) -> None:
        if self.is_master:
            decision = self.environment.parsed_options.rl_run["decision"] = {"tick": tick, "chosen": chosen}
            for worker in list(self.runner.clients):
                self.runner.send_message(DECISIONS_MESSAGE, decision, worker)

    def note_users(self, run_time_s: float, planned: Mapping[str, int], actual: Mapping[str, int]) -> None:
        """The timeline's tick, once a second."""
        run = self.run
        if run is None:
            return
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
            rows=recording.counts["requests"] + sum(self.rows_of_workers.values()),
            rows_lost=recording.recorder.rows_lost,
            decisions=recording.loop.decisions if recording.loop is not None else 0,
            faults=tuple(fault.text for fault in run.setup.plan.faults_at(run_time_s)),
        )
        run.progress.tick(now)

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

    def reported(self, worker: str, data: Mapping[str, Any]) -> None:
        """Locust's report of a worker."""
        self.rows_of_workers[worker] = data.get(ROWS_REPORTED, 0)

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
            self.close(run.recording)
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
        self._write_down(run, state=run.state, ended_unix_ns=time.time_ns(), fault=run.fault)
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
        if not run.begun:
            print(f"run ended before it began: {run.setup.folder}", flush=True)
            return 0
        if not self.headless or self.environment.parsed_options.no_export:
            print(f"run {run.state}, not exported; do it with: python {' '.join(command)}", flush=True)
            return 0
        command = [sys.executable, *command, "--logs", self.environment.parsed_options.logs]
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would leave the run without its bundle
        path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
        return abs(subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode)


class Worker(Part):
    """A process that sends requests in the run of its master."""

    def __init__(self, environment: Any, desk: seating.Desk) -> None:
        super().__init__(environment, desk)
        self.recording: Recording | None = None
        self.fault: str | None = None

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

    def _join(self, folder: str, start_ns: int, decision: Mapping[str, Any] | None) -> None:
        plan = Plan.from_json(join_folder(Path(folder))["plan"])
        self.recording = Recording(
            self.environment, "worker", Path(folder), plan, lambda: (time.time_ns() - start_ns) / 1e9, self.fail
        )
        if decision is not None:
            self.recording.in_force.set(**decision)
        self.recording.report(lambda message: self.runner.send_message(ROWS_MESSAGE, message))
        self.give_users(self.recording)

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


def _watch_start_form(web_ui: Any, lead: Lead) -> None:
    """Let the start form say what is wrong: Locust would answer that all is well, and say it in its log alone."""
    views, one_at_a_time = web_ui.app.view_functions, BoundedSemaphore()
    locusts_start, locusts_stop = views["locust.swarm"], views["locust.stop"]

    def start() -> Any:
        with one_at_a_time:
            try:
                read(request.form)
            except SetupError as error:
                return refused(str(error))
            lead.refusal = None
            answer = locusts_start()
            if lead.refusal is not None:
                gevent.joinall([lead.runner.shape_greenlet] if lead.runner.shape_greenlet else [])
                return refused(lead.refusal)
            if lead.runner.shape_greenlet is None:  # Stop came while the target was asked for its health
                lead.stop()
                return refused("the run was stopped before it began")
            return answer

    def read(form: Mapping[str, str]) -> None:
        if lead.run is not None and lead.run.ending is not None:
            lead.run.ending.join()
        if lead.run is not None:
            raise SetupError("a run is going on, and its options cannot be changed; stop it first")
        lead.form |= read_form(form)

    def refused(message: str) -> Any:
        return {"success": False, "message": message, "host": lead.environment.host}

    def stop() -> Any:
        answer = locusts_stop()
        lead.give_up()
        return answer

    views["locust.swarm"] = web_ui.auth_required_if_enabled(start)
    views["locust.stop"] = web_ui.auth_required_if_enabled(stop)


@events.init_command_line_parser.add_listener
def _options(parser: Any) -> None:
    add_options(parser, SCENARIOS)


@events.init.add_listener
def _wire(environment: Any, web_ui: Any, **_: Any) -> None:
    desk = seating.install(environment)
    timeout_s = max(scenario.request_timeout_s for scenario in SCENARIOS.scenarios.values())
    dispatch.install(environment, timeout_s + STOP_GRACE_S)
    part = _work(environment, desk) if isinstance(environment.runner, WorkerRunner) else _lead(environment, desk)
    environment.events.test_stop.add_listener(lambda **_: part.stop())
    environment.events.quitting.add_listener(lambda **_: part.quit())
    if web_ui is not None:
        _watch_start_form(web_ui, part)
    PART.set(part)


@events.test_start.add_listener
def _start(**_: Any) -> None:
    # A worker that joins late can be told to start before Locust has fired its init: the message waits here.
    PART.get().start()


def _end_in_order_on_signals() -> None:
    """Let SIGINT and SIGTERM end the run, not whichever user happens to be running.

    Locust hears SIGTERM only once a shape has begun to wait, and Python raises Ctrl-C in any greenlet.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, lambda: gevent.get_hub().parent.throw(KeyboardInterrupt))


def _work(environment: Any, desk: seating.Desk) -> Worker:
    if environment.parsed_options.processes:  # Ctrl-C in the terminal reaches all processes, and the master tells them
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker(environment, desk)
    environment.runner.register_message(DECISIONS_MESSAGE, worker.told)
    environment.events.report_to_master.add_listener(lambda client_id, data, **_: worker.report(data))
    return worker


def _lead(environment: Any, desk: seating.Desk) -> Lead:
    lead = Lead(environment, desk)
    environment.host = environment.host or default_host(SCENARIOS)
    if isinstance(environment.shape_class, Timeline):
        environment.shape_class.plan_for, environment.shape_class.on_tick = lead.plan_for, lead.note_users
    if lead.is_master:
        environment.runner.register_message(FAULT_MESSAGE, lambda msg, **_: lead.fail(f"worker: {msg.data['text']}"))
        environment.runner.register_message(ROWS_MESSAGE, lead.rows_reported)
        environment.events.worker_report.add_listener(lambda client_id, data, **_: lead.reported(client_id, data))
    if lead.headless:
        try:
            lead.run = lead.prepare()
        except (SetupError, TargetError, RunFolderError) as error:
            if lead.is_master:
                _dismiss_workers(environment.runner, environment.parsed_options.processes or 0)
            _stop_with(error)
        _end_in_order_on_signals()
    return lead


def _dismiss_workers(master: MasterRunner, own: int) -> None:
    """Tell the workers that there is no run. Those of our `own` would wait on when this process is gone."""
    with gevent.Timeout(WORKERS_COME_S, False):
        while master.worker_count < own:
            gevent.sleep(0.05)
    master.quit()

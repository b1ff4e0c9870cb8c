"""The composition root: Locust loads this file, and it puts the parts together. Nobody imports it.

    locust -f locustfile.py                                     web UI on http://localhost:8089
    locust -f locustfile.py --headless --scenario NAME ...      one run, then the export
    locust -f locustfile.py --headless --processes 2 ...        the same with a master and two workers

User classes are made from the scenario file before Locust reads its options, so this file looks them up early.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gevent
from locust import events
from locust.argument_parser import get_parser
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

from profiles import seating
from profiles.base import Runtime
from profiles.shoppers import user_classes
from rl_hooks.record.options import Setup, SetupError, add_options, default_host, make_setup, read_scenario_file
from rl_hooks.record.progress import Progress
from rl_hooks.record.recording import DECISIONS_MESSAGE, FAULT_MESSAGE, Recording, join_folder, open_folder
from rl_hooks.run_folder import RunFolderError, read_incarnations, update_manifest
from rl_hooks.target import TargetError, check_target, root_of, size_sandbox
from scenario.errors import ScenarioError
from scenario.load import ScenarioFile
from scenario.plan import Plan
from shapes import dispatch
from shapes.timeline import Timeline, TimelineError

PROJECT = Path(__file__).resolve().parent
WORKERS_CLOSE_S = 20.0  # how long the master waits for its workers' last rows
STOP_GRACE_S = 5.0  # beyond the request timeout, for users that are told to leave

EXIT_FAILED, EXIT_SETUP, EXIT_ROWS_LOST = 1, 2, 3


def _stop_with(message: object) -> None:
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


class Suite:
    """One Locust environment and, while a test runs, its recording."""

    def __init__(self, environment: Any, desk: seating.Desk) -> None:
        self.environment = environment
        self.desk = desk
        self.runner = environment.runner
        self.setup: Setup | None = None
        self.recording: Recording | None = None
        self.fault: str | None = None
        self.reached_end = False

    @property
    def headless(self) -> bool:
        return bool(self.environment.parsed_options.headless)

    # -- before a run -------------------------------------------------------------------------------------------------

    def prepare(self) -> Setup:
        """Decide everything, ask the target for its health, make the run folder. Raises what the user has to hear."""
        if self.setup is None:
            setup = make_setup(self.environment.parsed_options, self.environment.host)
            check_target(setup.host)
            lines = size_sandbox(root_of(setup.host), setup.peak_load()) if setup.is_sandbox else []
            open_folder(setup)
            self.environment.host = setup.host
            self.setup = setup
            print("\n".join([*setup.describe(), *lines]), flush=True)
        return self.setup

    def plan_for(self, _environment: Any) -> Plan:
        """What the timeline follows; in the web UI this is the first moment at which the options are known."""
        try:
            return self.prepare().plan
        except (SetupError, TargetError, RunFolderError) as error:
            raise TimelineError(str(error)) from error

    # -- a run --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Locust's test_start, in every process."""
        self.fault, self.reached_end = None, False
        if isinstance(self.runner, WorkerRunner):
            self._join(**self.environment.parsed_options.rl_run)
            return
        if self.setup is None:  # the timeline has said why
            return
        setup, clock = self.setup, self.environment.shape_class.get_run_time
        update_manifest(setup.folder, started_unix_ns=time.time_ns())
        role = "master" if isinstance(self.runner, MasterRunner) else "local"
        self.recording = Recording(self.environment, role, setup.folder, setup.plan, clock, self.fail)
        self.progress = Progress(setup.plan.duration_s, lambda line: print(line, flush=True))
        self.recording.decide(setup, self._tell_workers if role == "master" else lambda tick, chosen: None)
        self._give_users(self.recording)
        if role == "master":
            # Every spawn message carries the options, so workers that join late learn of the run too.
            run = {"folder": str(setup.folder.resolve()), "start_ns": time.time_ns()}
            self.environment.parsed_options.rl_run = run

    def _join(self, folder: str, start_ns: int) -> None:
        """A worker's part in the master's run."""
        try:
            plan = Plan.from_json(join_folder(Path(folder))["plan"])
            clock = lambda: (time.time_ns() - start_ns) / 1e9  # noqa: E731
            self.recording = Recording(self.environment, "worker", Path(folder), plan, clock, self.fail)
            self._give_users(self.recording)
        except RunFolderError as error:
            self.fail(str(error))

    def _give_users(self, recording: Recording) -> None:
        seats, accounts = self.desk.open(recording.plan.accounts)
        self.environment.rl_runtime = Runtime(
            plan=recording.plan,
            run_time_s=recording.run_time_s,
            steering=recording.recorder,
            seats=seats,
            accounts=accounts,
            on_session_end=recording.recorder.session_ended,
        )

    def _tell_workers(self, tick: int, chosen: list[tuple[int, int, float]]) -> None:
        self.runner.send_message(DECISIONS_MESSAGE, {"tick": tick, "chosen": chosen})

    def told(self, msg: Any, **_: Any) -> None:
        """A worker hears of the decisions now in force."""
        if self.recording is not None:
            self.recording.in_force.set(msg.data["tick"], msg.data["chosen"])

    def note_users(self, run_time_s: float, planned: Any, actual: Any) -> None:
        if self.recording is not None:
            self.reached_end = self.reached_end or run_time_s >= self.recording.plan.duration_s
            self.recording.note_users(run_time_s, planned, actual)
            self._show_progress(self.recording, run_time_s, (planned, actual))

    def _show_progress(self, recording: Recording, run_time_s: float, users: tuple[Any, Any]) -> None:
        total = self.environment.stats.total
        decisions = recording.loop.decisions if recording.loop is not None else 0
        phase, lost = recording.phase_now(run_time_s), recording.recorder.rows_lost
        self.progress.tick(run_time_s, phase, users, (total.num_requests, total.num_failures), decisions, lost)

    def fail(self, message: str) -> None:
        """Rows can no longer be kept: say so once and end the run in order."""
        if self.fault is not None:
            return
        self.fault = message
        print(f"run stopped: {message}", file=sys.stderr, flush=True)
        if isinstance(self.runner, WorkerRunner):
            self.runner.send_message(FAULT_MESSAGE, {"text": message})
        else:
            self.environment.process_exit_code = EXIT_ROWS_LOST
            gevent.spawn(self.runner.quit if self.headless else self.runner.stop)

    # -- after a run --------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Locust's test_stop, in every process: all users of this process have left."""
        if self.recording is not None:
            self.recording.close()
        if not isinstance(self.runner, WorkerRunner) and not self.headless:
            gevent.spawn(self._finish)

    def quit(self) -> None:
        """Locust's quitting: after an interruption the users are still there."""
        if self.recording is None and self.setup is None:
            return
        self.runner.quit()
        if self.recording is not None:
            self.recording.close()
        if not isinstance(self.runner, WorkerRunner):
            self._finish()

    def _finish(self) -> None:
        """Close the manifest and, in a headless run, export."""
        setup, recording, self.setup, self.recording = self.setup, self.recording, None, None
        if setup is None:
            return
        self._wait_for_workers(setup.folder)
        state = "complete" if self.reached_end and self.fault is None else "interrupted"
        update_manifest(setup.folder, state=state, ended_unix_ns=time.time_ns(), fault=self.fault)
        if not self.headless:
            print(f"run {state}; export it with: python -m rl_hooks.export {setup.folder}", flush=True)
            return
        code = self.environment.process_exit_code or (0 if state == "complete" else EXIT_FAILED)
        total = self.environment.stats.total
        if total.num_requests and total.num_requests == total.num_failures:
            print(f"run failed: no request succeeded of {total.num_requests} sent to {setup.host}", file=sys.stderr)
            code = code or EXIT_FAILED
        if recording is not None and not self.environment.parsed_options.no_export:
            code = self._export(setup.folder) or code
        elif recording is not None:
            print(f"run {state}, not exported; do it with: python -m rl_hooks.export {setup.folder}", flush=True)
        self.environment.process_exit_code = code

    def _wait_for_workers(self, folder: Path) -> None:
        deadline = time.monotonic() + WORKERS_CLOSE_S
        while not all(who.closed for who in read_incarnations(folder)) and time.monotonic() < deadline:
            gevent.sleep(0.1)

    def _export(self, folder: Path) -> int:
        """Export in a process of its own, so that this one's patched sockets and memory play no part in it."""
        command = [sys.executable, "-m", "rl_hooks.export", str(folder), "--logs", self.environment.parsed_options.logs]
        path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode


@events.init_command_line_parser.add_listener
def _options(parser: Any) -> None:
    add_options(parser, SCENARIOS)


@events.init.add_listener
def _wire(environment: Any, **_: Any) -> None:
    suite = Suite(environment, seating.install(environment))
    runner, shape = environment.runner, environment.shape_class
    timeout_s = max(scenario.request_timeout_s for scenario in SCENARIOS.scenarios.values())
    dispatch.install(environment, timeout_s + STOP_GRACE_S)
    environment.events.test_start.add_listener(lambda **_: suite.start())
    environment.events.test_stop.add_listener(lambda **_: suite.stop())
    environment.events.quitting.add_listener(lambda **_: suite.quit())
    if isinstance(runner, WorkerRunner):
        runner.register_message(DECISIONS_MESSAGE, suite.told)
        return
    if isinstance(runner, MasterRunner):
        runner.register_message(FAULT_MESSAGE, lambda msg, **_: suite.fail(f"worker: {msg.data['text']}"))
    if isinstance(shape, Timeline):
        shape.plan_for, shape.on_tick = suite.plan_for, suite.note_users
    environment.host = environment.host or default_host(SCENARIOS)
    if suite.headless and isinstance(runner, LocalRunner | MasterRunner):
        try:
            suite.prepare()
        except (SetupError, TargetError, RunFolderError) as error:
            _stop_with(error)

"""The composition root: Locust loads this file, and it puts the parts together. Nobody imports it.

    locust -f locustfile.py                                     web UI on http://localhost:8089
    locust -f locustfile.py --headless --scenario NAME ...      one run, then the export
    locust -f locustfile.py --headless --processes 2 ...        the same with a master and two workers

User classes are made from the scenario file before Locust reads its options, so this file looks them up early.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import gevent
from gevent.event import AsyncResult
from locust import events
from locust.argument_parser import get_parser
from locust.runners import MasterRunner, WorkerRunner

from profiles import products, seating
from profiles.base import Runtime
from profiles.shoppers import user_classes
from rl_hooks.record.clocks import answer_clocks
from rl_hooks.record.form import watch_start_form
from rl_hooks.record.lead import CANNOT_START, Lead
from rl_hooks.record.options import SetupError, add_options, default_host, read_scenario_file
from rl_hooks.record.part import EXIT_SETUP
from rl_hooks.record.recording import DECISIONS_MESSAGE, FAULT_MESSAGE, ROWS_MESSAGE, Recording
from rl_hooks.record.worker import Worker
from rl_hooks.target import TargetError
from scenario.errors import ScenarioError
from scenario.load import ScenarioFile
from scenario.plan import Plan
from shapes import dispatch
from shapes.timeline import Timeline, TimelineError

PROJECT = Path(__file__).resolve().parent
WORKERS_COME_S = 20.0  # how long a master that cannot start waits for the workers it has forked
STOP_GRACE_S = 5.0  # beyond the request timeout, for users that are told to leave


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


@events.init_command_line_parser.add_listener
def _options(parser: Any) -> None:
    add_options(parser, SCENARIOS)


@events.init.add_listener
def _wire(environment: Any, web_ui: Any, **_: Any) -> None:
    runtime_for = _runtimes(seating.install(environment))
    timeout_s = max(scenario.request_timeout_s for scenario in SCENARIOS.scenarios.values())
    dispatch.install(environment, timeout_s + STOP_GRACE_S)
    works = isinstance(environment.runner, WorkerRunner)
    part = _work(environment, runtime_for) if works else _lead(environment, runtime_for)
    environment.events.test_stop.add_listener(lambda **_: part.stop())
    environment.events.quitting.add_listener(lambda **_: part.quit())
    if web_ui is not None:
        watch_start_form(web_ui, part)
        from rl_hooks.webui.login import add_login
        from rl_hooks.webui.tab import add_tab  # here, because it needs numpy, which workers do without

        add_login(web_ui, os.environ)
        add_tab(web_ui, part, PROJECT)
    PART.set(part)


def _runtimes(desk: seating.Desk) -> Callable[[Recording], Runtime]:
    def runtime_for(recording: Recording) -> Runtime:
        """What the users of a run need in this process."""
        seats, accounts = desk.open(recording.plan.accounts)
        return Runtime(
            plan=recording.plan,
            run_time_s=recording.run_time_s,
            steering=recording.recorder,
            seats=seats,
            accounts=accounts,
            on_session_end=recording.recorder.session_ended,
            unix_ns=recording.clock.now_ns,
        )

    return runtime_for


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


def _work(environment: Any, runtime_for: Callable[[Recording], Runtime]) -> Worker:
    if environment.parsed_options.processes:  # Ctrl-C in the terminal reaches all processes, and the master tells them
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker(environment, runtime_for)
    environment.runner.register_message(DECISIONS_MESSAGE, worker.told)
    environment.events.report_to_master.add_listener(lambda client_id, data, **_: worker.report(data))
    return worker


def _look_at_shop(host: str, plan: Plan) -> list[str]:
    try:
        return products.look(host, plan.scenario)
    except products.NothingSoldError as error:
        raise TargetError(str(error)) from error


def _lead(environment: Any, runtime_for: Callable[[Recording], Runtime]) -> Lead:
    lead = Lead(environment, runtime_for, PROJECT, _look_at_shop)

    def plan_for(environment: Any) -> Plan:
        try:
            return lead.plan_for(environment)
        except SetupError as error:
            raise TimelineError(str(error)) from error

    environment.host = environment.host or default_host(SCENARIOS)
    if isinstance(environment.shape_class, Timeline):
        environment.shape_class.plan_for, environment.shape_class.on_tick = plan_for, lead.note_users
    if lead.is_master:
        answer_clocks(environment.runner)
        environment.runner.register_message(FAULT_MESSAGE, lambda msg, **_: lead.fail(f"worker: {msg.data['text']}"))
        environment.runner.register_message(ROWS_MESSAGE, lead.rows_reported)
        environment.events.worker_report.add_listener(lambda client_id, data, **_: lead.reported(data))
    if lead.headless:
        try:
            lead.run = lead.prepare()
        except CANNOT_START as error:
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

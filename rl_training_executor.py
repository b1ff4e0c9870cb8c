"""Run scenarios from start to bundle: start the sandbox if no target is named, run Locust, export, sum up.

    python rl_training_executor.py --mode validation
    python rl_training_executor.py --mode comprehensive --host http://balancer.example/proxy
    python rl_training_executor.py --mode custom --config my_scenarios.yaml --scenario my_scenario --time-scale 10

A thin layer over the packages: a scenario runs as `locust -f locustfile.py --headless` in a process of its own, beside
a sandbox where no target is named. Only this process hears Ctrl-C, and passes it on when the other can end in
order. If this process is killed, its sandbox notices; Locust is told by the kernel on Linux, and goes on to the end of
its plan elsewhere.
"""

import argparse
import json
import logging
import shlex
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

# What takes long to import is imported in the functions that need it: Ctrl-C in that time would give a traceback.
from rl_hooks.actuators.header import FORMS as ACTUATORS
from rl_hooks.children import ChildError, Process, Stop, child, interrupted_with_parent, kill, target_for, wait
from rl_hooks.export.executions import FINISHED, INTERRUPTED, NAME, Execution, ResumeError, gates, resume
from rl_hooks.export.summary import ScenarioResult, read_result, write_report
from rl_hooks.sources.none import FORMS as SOURCES
from sandbox.outside.kinds import KINDS, OWN

if TYPE_CHECKING:
    from rl_hooks.prerequisites import Check
    from scenario.plan import Plan

PROJECT = Path(__file__).resolve().parent
VALIDATION_TIME_SCALE = 15.0
STRESS = "stress_test_rl_config.yaml"
MODES = {  # mode -> scenarios as (file, name); custom names its own
    "validation": (("quick_validation_config.yaml", "quick_validation"),),
    "comprehensive": (
        ("comprehensive_rl_training_config.yaml", "comprehensive_rl_training"),
        (STRESS, "flash_sale_simulation"),
        (STRESS, "service_degradation_simulation"),
        (STRESS, "mixed_load_chaos"),
    ),
}
HELP = """modes:
  validation     a quick check from end to end with few users; two minutes at time scale 15, which is its default
  comprehensive  comprehensive_rl_training, flash_sale_simulation, service_degradation_simulation and mixed_load_chaos
                 with a pause after each: 335 minutes at time scale 1
  custom         any scenarios of any file: --config FILE --scenario NAME [--scenario NAME ...]

exit codes: 0 all is there; 1 interrupted, failed or a gate not passed, what there is was exported; 2 could not start;
3 rows are missing
"""
LOG, LOCUST_LOG = "rl_training_executor.log", "enhanced_rl_training_load_test.log"
VALIDATION_JSON = "quick_validation_config.json"
FAILED, NOT_STARTED, ROWS_MISSING = 1, 2, 3
SANDBOX_FREE_S = 1.1  # a sandbox takes a new load when its last request is a second old

logger = logging.getLogger("rl_training_executor")


class ExecutorError(Exception):
    """The executor cannot do what was asked; the message says what to do."""


@dataclass(frozen=True)
class Job:
    """One scenario to run."""

    config: Path
    plan: "Plan"
    folder: Path  # of the run

    @property
    def scenario(self) -> str:
        return self.plan.scenario.name

    def settings(self, options: argparse.Namespace) -> dict[str, Any]:
        """The suite's own options for this run; None: left out."""
        return {
            "scenario_file": str(self.config),
            "scenario": self.scenario,
            "run_folder": str(self.folder),
            "logs": options.logs,
            "time_scale": self.plan.time_scale,
            "user_scale": options.user_scale,
            "seed": options.seed,
            "decision_interval": options.decision_interval,
            "logging_policy": options.logging_policy,
            "action_space": options.action_space,
            "metrics_source": options.metrics_source,
            "actuator": options.actuator,
            "fault_injector": options.fault_injector,
            "no_faults": options.no_faults,
        }


def main() -> int:
    stop = Stop()
    options = _parser().parse_args()
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    try:
        jobs, checks = _checked_jobs(options, stamp)
        execution = _execution(options, jobs, stamp)
        _make_folder(Path(options.runs), "--runs")
        _make_folder(Path(options.logs), "--logs")
        _open_logs(Path(options.logs))
        for check in checks:
            logger.info("%s", check)
        if options.mode == "validation":
            _write_as_json(jobs[0].config, Path(options.logs) / VALIDATION_JSON)
        with target_for(options.host, PROJECT, _sandbox_options(options)) as (host, is_gone):
            if not stop.times:
                _check_start(jobs, host, options)
                _run_all(execution, jobs, (host, is_gone), options, stop)
    except (ExecutorError, ResumeError, ChildError) as error:
        print(error, file=sys.stderr)
        logger.debug("%s", error)
        return NOT_STARTED
    return _end(execution, options, stop)


def _parser() -> argparse.ArgumentParser:
    about, form = (__doc__ or "").splitlines()[0], argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("rl_training_executor.py", None, about, HELP, formatter_class=form)
    add = parser.add_argument
    add("--mode", required=True, choices=(*MODES, "custom"), help="what to run, see below")
    add("--config", metavar="FILE", help="scenario file (custom); a bare name is also looked up in configs/")
    add("--scenario", metavar="NAME", action="append", help="scenario of that file (custom); may be repeated")
    add("--host", help="target such as http://localhost:8080/proxy; without it a sandbox is started")
    add("--time-scale", type=float, metavar="S", help="divides every duration; 15 for validation, else 1")
    add("--user-scale", type=float, default=1.0, metavar="U", help="multiplies the users of every phase")
    add("--seed", type=int, default=1, help="fixes every choice of the shoppers and of the logging policy")
    add("--decision-interval", type=float, metavar="SECONDS", help="instead of the scenario's, before time scale")
    add("--logging-policy", default="uniform", help="as --logging-policy of locust")
    add("--action-space", default="strategies", choices=("strategies", "instances"), help="as that of locust")
    add("--metrics-source", default="auto", help=f"auto, {SOURCES} or module:attribute")
    add("--actuator", default="auto", help=f"auto, {', '.join(ACTUATORS.values())} or module:attribute")
    add("--fault-injector", default="auto", help="auto, none, sandbox, http:FILE, command:FILE or module:attribute")
    add("--no-faults", action="store_true", help="leave the scenarios' faults out; the data says so")
    add("--processes", type=int, metavar="N", help="run Locust as a master with N workers")
    add("--balancer", choices=(OWN, *KINDS), default=OWN, help="what balances in the sandbox that is started")
    add("--healthy", action="store_true", help="start the sandbox without antagonists, pauses and incidents")
    add("--namespace", help="of the target's pods, where kubectl is configured; else that of its current context")
    add("--resume", action="store_true", help="go on with the scenarios that the last execution did not complete")
    add("--min-success", type=float, default=0.5, metavar="SHARE", help="of the requests, or the run has failed (0.5)")
    add("--max-rows-lost", type=int, default=0, metavar="N", help="more missing rows make exit code 3 (0)")
    add("--runs", default="runs", metavar="DIR", help="where run folders are made")
    add("--logs", default="logs", metavar="DIR", help="where logs and summaries are written")
    return parser


# -- before anything is started ---------------------------------------------------------------------------------------


def _checked_jobs(options: argparse.Namespace, stamp: str) -> "tuple[list[Job], list[Check]]":
    """The scenarios to run, and what was checked for them.

    Raises ExecutorError with all that is wrong, before anything is made or started.
    """
    from rl_hooks.parts import PartError, find_rewards
    from rl_hooks.policies.builtin import PolicyError
    from rl_hooks.policies.named import make_policies, make_run_policy
    from rl_hooks.prerequisites import State, check_all
    from scenario.errors import ScenarioError
    from scenario.load import find_file, load_file
    from scenario.plan import make_plan

    def find_jobs() -> None:
        default = VALIDATION_TIME_SCALE if options.mode == "validation" else 1.0
        scale = default if options.time_scale is None else options.time_scale
        for config, name in MODES.get(options.mode) or [(options.config, one) for one in options.scenario or [None]]:
            file = load_file(find_file(config))
            plan = make_plan(
                file.scenario(name),
                options.seed,
                scale,
                options.user_scale,
                options.decision_interval,
                faults=not options.no_faults,
            )
            find_rewards(plan.scenario.rewards)
            jobs.append(Job(Path(file.path), plan, Path(options.runs) / f"{plan.scenario.name}_{stamp}"))

    def check_policy() -> None:
        if options.action_space != "strategies":
            return  # the instances are known when the target is there; `_check_start` looks then
        make_policies(options.logging_policy)
        for job in jobs:
            make_run_policy(options.logging_policy, job.plan)

    sys.path.append(str(Path.cwd()))  # where Locust finds a logging policy of the user's, too
    jobs: list[Job] = []
    problems = _misplaced(options)
    for check in [*([] if problems else [find_jobs]), check_policy]:
        try:
            check()
        except (ScenarioError, PartError, PolicyError) as error:
            problems.append(str(error))
    # Without a plan only the target can be looked at.
    plans = [job.plan for job in jobs]
    checked = check_all(plans, options.host, Path(options.runs), options.namespace)
    problems += [one.problem for one in checked if one.state is State.FAILED]
    if problems:
        raise ExecutorError("\n".join(problems))
    return jobs, checked


def _sandbox_options(options: argparse.Namespace) -> list[str]:
    """How a sandbox is started, where no target is named."""
    return ["--balancer", options.balancer, *(["--healthy"] if options.healthy else [])]


def _misplaced(options: argparse.Namespace) -> list[str]:
    """What is wrong with the options by themselves and among each other."""
    problems = []
    if options.mode == "custom" and options.config is None:
        problems.append("--mode custom needs --config FILE (and --scenario NAME when it holds several)")
    if options.mode != "custom" and (options.config is not None or options.scenario is not None):
        problems.append(f"--mode {options.mode} has its own scenarios; use --mode custom for --config, --scenario")
    if len(set(options.scenario or ())) < len(options.scenario or ()):
        problems.append("--scenario: names a scenario twice; name each one once")
    if options.host is not None and options.healthy:
        problems.append("--healthy is for the sandbox, and --host names another target; leave one of them out")
    if options.host is not None and options.balancer != OWN:
        problems.append("--balancer is for the sandbox, and --host names another target; leave one of them out")
    if options.processes is not None and options.processes < 1:
        problems.append(f"--processes {options.processes}: give a number of workers from 1 on, or leave it out")
    if not 0 <= options.min_success <= 1:
        problems.append(f"--min-success {options.min_success:g}: give a share from 0 to 1, such as 0.5")
    if options.max_rows_lost < 0:
        problems.append(f"--max-rows-lost {options.max_rows_lost}: give a number of rows from 0 on")
    return problems


def _execution(options: argparse.Namespace, jobs: list[Job], stamp: str) -> Execution:
    """A new execution, or with --resume one that goes on where the last one of the same kind ended."""
    asked = {
        "host": options.host,
        **{name: value for name, value in jobs[0].settings(options).items() if name not in _OF_ONE_RUN},
        "scenario_files": sorted({str(job.config) for job in jobs}),
        **({} if options.balancer == OWN else {"balancer": options.balancer}),
    }
    planned = tuple(job.scenario for job in jobs)
    if options.resume:
        return resume(options.mode, stamp, asked, planned, Path(options.logs))
    return Execution(options.mode, stamp, asked, planned)


_OF_ONE_RUN = ("scenario_file", "scenario", "run_folder", "logs")


def _make_folder(path: Path, option: str) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise ExecutorError(f"{path}: cannot be written ({error.strerror}); choose another with {option}") from error


def _open_logs(folder: Path) -> None:
    """What a person sees goes to our log as well, with its time, and so does what only helps to find a fault."""
    file, screen = logging.FileHandler(folder / LOG, encoding="utf-8"), logging.StreamHandler(sys.stdout)
    form = logging.Formatter("%(asctime)sZ %(message)s", "%Y-%m-%dT%H:%M:%S")
    form.converter = time.gmtime
    file.setFormatter(form)
    screen.setLevel(logging.INFO)
    logger.setLevel(logging.DEBUG)
    logger.addHandler(file)
    logger.addHandler(screen)
    logger.debug("started: %s", shlex.join(sys.argv))


def _write_as_json(source: Path, path: Path) -> None:
    """The scenario file in the form in which users have theirs: something to start from."""
    import yaml

    content = yaml.safe_load(source.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_start(jobs: list[Job], host: str, options: argparse.Namespace) -> None:
    """All that has to hold before the first of them runs, for all of them: nobody shall hear of it hours later."""
    from rl_hooks.record.options import SetupError, make_setup

    problems = []
    for job in jobs:
        try:
            make_setup(argparse.Namespace(**job.settings(options)), host)
        except SetupError as error:
            problems.append(f"{job.scenario}: {error}")
    if problems:
        raise ExecutorError("\n".join(problems))


# -- all scenarios ----------------------------------------------------------------------------------------------------

Target = tuple[str, Callable[[], bool]]  # the host, and whether it is gone


def _run_all(execution: Execution, jobs: list[Job], target: Target, options: argparse.Namespace, stop: Stop) -> None:
    """Every scenario that is not done yet, with a pause between two; what came of each is saved at once."""
    left = [job for job in jobs if job.scenario not in execution.done]
    for job in jobs:
        if job not in left:
            logger.info("scenario %s is complete since %s", job.scenario, execution.resumed_from)
    _save(execution, options)
    for number, job in enumerate(left):
        if stop.times:
            break
        execution.scenarios.append(_run(job, target, options, stop))
        _save(execution, options)
        if number + 1 < len(left) and not stop.times:
            execution.pauses.append(_pause(job, left[number + 1], target[0], stop))


def _pause(job: Job, following: Job, host: str, stop: Stop) -> dict[str, Any]:
    """Let the system come to rest under light traffic; what came of it."""
    from profiles.background import rest

    plan, scenario = job.plan, job.plan.scenario
    duration_s, rps = scenario.recovery_pause_min * 60 / plan.time_scale, scenario.background_rps * plan.time_scale
    logger.info("pause of %.4g s before %s, %.4g requests/s", duration_s, following.scenario, rps)
    came = rest(host, scenario, duration_s, rps, plan.request_timeout_s, lambda: bool(stop.times))
    mean = "" if came.mean_ms is None else f", mean {came.mean_ms:.0f} ms"
    late = f", {came.not_sent} not sent because too many were in flight" if came.not_sent else ""
    logger.info("pause is over: %d background requests, %d ok%s%s", came.sent, came.ok, mean, late)
    if not stop.times:
        time.sleep(SANDBOX_FREE_S)
    facts = {"duration_s": round(came.duration_s, 3), "sent": came.sent, "ok": came.ok, "not_sent": came.not_sent}
    return {"after": job.scenario, "before": following.scenario, **facts, "mean_ms": came.mean_ms}


def _save(execution: Execution, options: argparse.Namespace) -> None:
    try:
        execution.save(Path(options.logs))
    except OSError as error:
        text = f"{options.logs}: the execution results cannot be written ({error.strerror}); bundles are not touched"
        print(text, file=sys.stderr)


# -- one scenario -----------------------------------------------------------------------------------------------------


def _run(job: Job, target: Target, options: argparse.Namespace, stop: Stop) -> ScenarioResult:
    """Locust, export, gates."""
    logger.info("scenario %s of %s, time scale %g", job.scenario, job.config, job.plan.time_scale)
    code = _record(job, target, options, stop)
    state = _state_of(job.folder)
    tally: list[str] = []
    export_code = 0
    if state != "not started":
        export_code, tally = _export(job.folder, options.logs, stop)
    result = read_result(job.folder, job.scenario, str(job.config), state, code, tally)
    failed = gates(result, options.min_success, options.max_rows_lost)
    if export_code == ROWS_MISSING and not any("--max-rows-lost" in text for text in failed):
        export_code = 0  # rows are missing, but no more than is allowed
    code = max(code, export_code, FAILED if failed else 0)
    return replace(result, exit_code=code, gates=tuple(failed))


def _record(job: Job, target: Target, options: argparse.Namespace, stop: Stop) -> int:
    """Locust from start to end, or to the moment at which it is interrupted; its exit code."""
    host, is_gone = target
    log, told = Path(options.logs) / LOCUST_LOG, False
    command = [sys.executable, "-m", "locust", "-f", str(PROJECT / "locustfile.py"), "--headless", "--only-summary"]
    command += ["--no-export", "--json-file", str(job.folder / "locust_stats")]  # its tables would bury our tally
    command += ["--logfile", str(log), "--host", host, *_workers(options.processes)]
    for name, value in job.settings(options).items():
        flag = f"--{name.replace('_', '-')}"
        command += [flag] if value is True else [] if value in (None, False) else [flag, str(value)]
    with child(command, PROJECT, preexec_fn=interrupted_with_parent()) as locust:
        for asked in wait(locust, stop):
            if asked > 1:
                kill(locust)
            elif not told and (asked or is_gone()):
                told = _interrupt(locust, job, "interrupted" if asked else "the sandbox has ended")
    code = locust.returncode
    if code not in (0, NOT_STARTED) and not stop.times:
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        print(f"Locust {how}; what it recorded is kept, and its log may say more: {log}", file=sys.stderr)
    return code if code >= 0 else FAILED


def _workers(count: int | None) -> list[str]:
    """Options for workers on this machine, on a free port, so that two executors do not meet."""
    if count is None:
        return []
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = str(sock.getsockname()[1])
    master = ["--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port]
    return ["--processes", str(count), "--enable-rebalancing", *master]


def _interrupt(locust: Process, job: Job, why: str) -> bool:
    """End Locust in order. False: not yet, it is between making the run folder and its first user; ask again."""
    from rl_hooks.run_folder import read_manifest

    if not (job.folder / "manifest.json").exists():  # it is still loading, and has made nothing yet
        kill(locust)
        return True
    if not any(file.stat().st_size for file in (job.folder / "events").glob("*")):
        return False
    if time.time() >= read_manifest(job.folder)["started_unix_ns"] / 1e9 + job.plan.duration_s:
        logger.info("%s: the run is at its end already; waiting for its last users", why)
        return True
    locust.send_signal(signal.SIGINT)
    logger.info("%s: waiting for requests in flight, then what was recorded is exported", why)
    logger.info("Ctrl-C again ends Locust at once; what was recorded is kept in that case too")
    return True


def _export(folder: Path, logs: str, stop: Stop) -> tuple[int, list[str]]:
    """Export, then judge the data: the export's exit code in our terms, and the tally of both.

    The report card's verdict is about the data, not about the run: it does not change the exit code.
    """
    before = stop.times  # a Ctrl-C from the next line on is meant for the export
    logger.info("exporting %s", folder)
    code, tally = _printed(["rl_hooks.export", str(folder), "--logs", logs], stop, before, "the export")
    if code in (0, ROWS_MISSING) and not stop.times:
        tally += _printed(["rl_hooks.report", str(folder)], stop, 0, "the report card")[1]
    return code if code in (0, ROWS_MISSING) else FAILED, tally


def _printed(module: list[str], stop: Stop, before: int, what: str) -> tuple[int, list[str]]:
    """A module of ours in a process of its own, which a first Ctrl-C lets finish: exit code and printed lines.

    `before`: how often a stop was asked for that was not meant for it.
    """
    told = False
    with tempfile.TemporaryFile("w+", encoding="utf-8") as printed:
        with child([sys.executable, "-m", *module], PROJECT, stdout=printed) as process:
            for asked in wait(process, stop, before):
                if asked > 1:
                    kill(process)
                elif asked and not told:
                    told = True
                    logger.info("interrupted: %s is finished first; Ctrl-C again ends it at once", what)
        printed.seek(0)
        lines = printed.read().splitlines()
    if process.returncode < 0:
        later = shlex.join(["python", "-m", *module[:2]])
        print(f"{what} was ended by signal {-process.returncode}; do it later with: {later}", file=sys.stderr)
    return process.returncode, lines


def _state_of(folder: Path) -> str:
    """complete | interrupted | not started; a run that was killed could not say that it was interrupted."""
    from rl_hooks.run_folder import RunFolderError, read_manifest

    try:
        return "complete" if read_manifest(folder)["state"] == "complete" else "interrupted"
    except RunFolderError:
        return "not started"


# -- at the end -------------------------------------------------------------------------------------------------------


def _end(execution: Execution, options: argparse.Namespace, stop: Stop) -> int:
    """Save and sum up what there is; the exit code."""
    ran = [result for result in execution.scenarios if result.state != "not started"]
    execution.state = INTERRUPTED if stop.times else FINISHED
    if ran:
        if stop.times:
            logger.info("interrupted: this is what was recorded until then")
        _sum_up(execution, options)
    elif stop.times:
        logger.info("interrupted before the run began: nothing was recorded")
    if set(execution.planned) - execution.done and len(execution.planned) > 1:
        logger.info("go on with what is not complete: the same command with --resume")
    return max([FAILED if stop.times else 0, *(result.exit_code for result in execution.scenarios)])


def _sum_up(execution: Execution, options: argparse.Namespace) -> None:
    """Write execution results and summary report; print the tally, so that it is the last thing there is to read."""
    logs, mode, stamp = Path(options.logs), execution.mode, execution.started_utc
    others = [logs / name for name in (LOG, LOCUST_LOG, *([VALIDATION_JSON] if mode == "validation" else []))]
    _save(execution, options)
    others = [logs / NAME.format(stamp), *others]
    try:
        others = [write_report(logs, mode, stamp, execution.scenarios, execution.pauses, others), *others]
    except OSError as error:
        print(f"{logs}: the summary cannot be written ({error.strerror}); bundles are not touched", file=sys.stderr)
    for result in execution.scenarios:
        for line in ("", *(result.tally or [f"run          {result.run_folder} ({result.state}), no bundle"])):
            logger.info("%s", line)
        for text in result.gates:
            logger.info("gate         not passed: %s", text)
    for path in others:
        logger.info("log          %s", path)


if __name__ == "__main__":
    sys.exit(main())

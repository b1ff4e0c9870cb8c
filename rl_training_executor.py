"""Run scenarios from start to bundle: start the sandbox if no target is named, run Locust, export, sum up.

    python rl_training_executor.py --mode validation
    python rl_training_executor.py --mode comprehensive --host http://balancer.example/proxy
    python rl_training_executor.py --mode custom --config my_scenarios.yaml --scenario my_scenario --time-scale 10

A thin layer over the packages: every scenario runs as `locust -f locustfile.py --headless` in a process of its own.
"""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rl_hooks.record.options import DEFAULT_SCENARIO_FILE
from rl_hooks.run_folder import RunFolderError, read_manifest, write_json
from scenario.errors import ScenarioError
from scenario.load import ScenarioFile, find_file, load_file

PROJECT = Path(__file__).resolve().parent
VALIDATION_FILE, VALIDATION_SCENARIO, VALIDATION_TIME_SCALE = "quick_validation_config.yaml", "quick_validation", 15.0
COMPREHENSIVE = ((DEFAULT_SCENARIO_FILE, "comprehensive_rl_training"),)
SANDBOX_READY_S = 30.0

logger = logging.getLogger("executor")


class ExecutorError(Exception):
    """The executor cannot do what was asked; the message says what to do."""


@dataclass(frozen=True)
class Job:
    """One scenario to run."""

    config: Path
    scenario: str
    time_scale: float


@dataclass(frozen=True)
class Result:
    """What came of one scenario."""

    scenario: str
    config: str
    run_folder: str
    bundle: str | None
    state: str  # complete | interrupted | not started
    exit_code: int
    duration_s: float


def main() -> int:
    options = _parser().parse_args()
    logs = Path(options.logs)
    logs.mkdir(parents=True, exist_ok=True)
    _log_to(logs / "rl_training_executor.log")
    try:
        jobs = _jobs(options)
        if options.mode == "validation":
            _write_validation_config(jobs[0], logs / "quick_validation_config.json")
        with _target(options) as host:
            results = [_run(job, host, options) for job in jobs]
    except (ScenarioError, ExecutorError) as error:
        print(error, file=sys.stderr)
        logger.error("%s", error)
        return 2
    _sum_up(results, options.mode, logs)
    return max((result.exit_code for result in results), default=0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rl_training_executor.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--mode", required=True, choices=("validation", "comprehensive", "custom"))
    add("--config", help="scenario file (custom); a bare name is also looked up in configs/")
    add("--scenario", help="scenario of that file (custom); not needed when it holds only one")
    add("--host", help="target such as http://localhost:8080/proxy; without it the sandbox is started")
    add("--time-scale", type=float, help="divides every duration; 15 for validation, else 1")
    add("--user-scale", type=float, default=1.0, help="multiplies the users of every phase")
    add("--seed", type=int, default=1)
    add("--logging-policy", default="uniform", help="uniform, sticky:KEEP or module:attribute")
    add("--processes", type=int, help="run Locust as a master with this many workers")
    add("--healthy", action="store_true", help="start the sandbox without antagonists, pauses and incidents")
    add("--runs", default="runs", help="where run folders are made")
    add("--logs", default="logs", help="where logs and summaries are written")
    return parser


def _log_to(path: Path) -> None:
    logging.Formatter.converter = time.gmtime
    handlers: list[logging.Handler] = [logging.FileHandler(path), logging.StreamHandler(sys.stdout)]
    handlers[0].setFormatter(logging.Formatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    handlers[1].setFormatter(logging.Formatter("%(message)s"))
    handlers[1].addFilter(lambda record: record.levelno < logging.ERROR)  # errors are printed where they belong
    logging.basicConfig(level=logging.INFO, handlers=handlers)


def _jobs(options: argparse.Namespace) -> list[Job]:
    """The scenarios to run; each has been loaded once, so that no mistake shows up only hours into a list of runs."""
    if options.mode == "custom":
        if options.config is None:
            raise ExecutorError("--mode custom needs --config FILE (and --scenario NAME when it holds several)")
        asked: tuple[tuple[str, str | None], ...] = ((options.config, options.scenario),)
    else:
        if options.config is not None or options.scenario is not None:
            raise ExecutorError(
                f"--mode {options.mode} has its own scenarios; use --mode custom for --config, --scenario"
            )
        validation = ((VALIDATION_FILE, VALIDATION_SCENARIO),)
        asked = validation if options.mode == "validation" else COMPREHENSIVE
    default = VALIDATION_TIME_SCALE if options.mode == "validation" else 1.0
    scale = options.time_scale if options.time_scale is not None else default
    return [Job(Path(file.path), file.scenario(name).name, scale) for name, file in _loaded(asked)]


def _loaded(asked: tuple[tuple[str, str | None], ...]) -> Iterator[tuple[str | None, ScenarioFile]]:
    for config, name in asked:
        file = load_file(find_file(config))
        logger.info("scenario file: %s", file.path)
        yield name, file


def _write_validation_config(job: Job, path: Path) -> None:
    """The validation scenario as JSON, the form in which users have their files: something to start from."""
    import yaml

    write_json(path, yaml.safe_load(job.config.read_text(encoding="utf-8")))


@contextmanager
def _target(options: argparse.Namespace) -> Iterator[str]:
    """The host to run against; a sandbox of our own lives as long as this context."""
    if options.host is not None:
        yield options.host
        return
    command = [sys.executable, "-m", "sandbox", "--port", "0", "--parent", str(os.getpid())]
    command += ["--healthy"] if options.healthy else []
    # In a session of its own, so that Ctrl-C reaches Locust first: the users' last requests need a target.
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, start_new_session=True) as sandbox:
        try:
            yield _ready_host(sandbox)
        finally:
            sandbox.send_signal(signal.SIGINT)
            for line in sandbox.stdout or ():
                logger.info("%s", line.rstrip())


def _ready_host(sandbox: "subprocess.Popen[str]") -> str:
    assert sandbox.stdout is not None
    for line in sandbox.stdout:
        logger.info("%s", line.rstrip())
        if line.startswith("sandbox ready: "):
            return line.split()[2]
    raise ExecutorError(f"the sandbox did not start (exit code {sandbox.wait()}); see what it printed above")


def _run(job: Job, host: str, options: argparse.Namespace) -> Result:
    """One scenario in a Locust process, which exports when it ends."""
    folder = Path(options.runs) / f"{job.scenario}_{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    command = [sys.executable, "-m", "locust", "-f", str(PROJECT / "locustfile.py"), "--headless", "--only-summary"]
    command += ["--no-export", "--json-file", str(folder / "locust_stats")]  # its tables would bury our tally
    command += ["--logfile", str(Path(options.logs) / "enhanced_rl_training_load_test.log"), "--host", host]
    command += ["--scenario-file", str(job.config), "--scenario", job.scenario, "--run-folder", str(folder)]
    command += ["--time-scale", str(job.time_scale), "--user-scale", str(options.user_scale)]
    command += ["--seed", str(options.seed), "--logging-policy", options.logging_policy, "--logs", options.logs]
    command += ["--processes", str(options.processes)] if options.processes else []
    logger.info("scenario %s: %s", job.scenario, folder)
    began = time.monotonic()
    code = _wait_in_order(command)
    if _state_of(folder) != "not started":
        code = _wait_in_order([sys.executable, "-m", "rl_hooks.export", str(folder), "--logs", options.logs]) or code
    bundle = folder / "bundle"
    return Result(
        scenario=job.scenario,
        config=str(job.config),
        run_folder=str(folder),
        bundle=str(bundle) if bundle.is_dir() else None,
        state=_state_of(folder),
        exit_code=code,
        duration_s=round(time.monotonic() - began, 1),
    )


def _wait_in_order(command: list[str]) -> int:
    """Run a command to its end. Ctrl-C reaches it as well, and it ends in order, so we only go on waiting."""
    path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                logger.info("interrupted: waiting for the run to end in order")


def _state_of(folder: Path) -> str:
    try:
        return str(read_manifest(folder)["state"])
    except RunFolderError:
        return "not started"


def _sum_up(results: list[Result], mode: str, logs: Path) -> None:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    content: dict[str, Any] = {"mode": mode, "finished_utc": stamp, "scenarios": [asdict(result) for result in results]}
    execution = logs / f"rl_training_execution_results_{stamp}.json"
    write_json(execution, content)
    report = logs / f"rl_training_summary_report_{stamp}.md"
    report.write_text(_report(results, mode, stamp), encoding="utf-8")
    for result in results:
        logger.info("%s: %s in %.0f s", result.scenario, result.state, result.duration_s)
        logger.info("  run folder  %s", result.run_folder)
        logger.info("  bundle      %s", result.bundle or "none")
    logger.info("  summary     %s", report)
    logger.info("  logs        %s", logs)


def _report(results: list[Result], mode: str, stamp: str) -> str:
    lines = [
        f"# Summary of {mode}, {stamp}",
        "",
        "| scenario | state | exit code | seconds | bundle |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.scenario} | {r.state} | {r.exit_code} | {r.duration_s:.0f} | {r.bundle or 'none'} |" for r in results
    ]
    for result in results:
        counts = _counts(result)
        if counts:
            lines += ["", f"## {result.scenario}", "", "```json", json.dumps(counts, indent=1), "```"]
    return "\n".join(lines) + "\n"


def _counts(result: Result) -> Any:
    """What the bundle counts, for the summary; nothing when there is no bundle."""
    if result.bundle is None:
        return None
    return json.loads((Path(result.bundle) / "dataset.json").read_text(encoding="utf-8")).get("counts")


if __name__ == "__main__":
    sys.exit(main())

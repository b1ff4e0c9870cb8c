"""The executor as a person uses it: real sandboxes, real runs at large time scales, real interruptions."""

import copy
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from rl_hooks.export.summary import ScenarioResult, read_result, summary_report
from rl_hooks.export.tally import tally
from rl_hooks.run_folder import read_manifest
from rl_hooks.run_reader import read_run
from scenario.load import load_file
from tests.processes import serving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 60
STAMP = r"\d{8}T\d{6}Z"


@dataclass(frozen=True)
class Execution:
    """An executor in a process of its own, with all it writes under one folder."""

    folder: Path
    process: "subprocess.Popen[str]"

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    @property
    def printed(self) -> str:
        return self.out + self.err

    @property
    def run(self) -> Path:
        """The folder of its only run."""
        (run,) = (self.folder / "runs").iterdir()
        return run

    @property
    def has_made_a_run_folder(self) -> bool:
        return any((self.folder / "runs").glob("*/manifest.json"))

    def rows(self) -> int:
        return len(read_run(self.run).requests) if self.has_made_a_run_folder else 0

    def logs(self, pattern: str) -> list[Path]:
        return sorted((self.folder / "logs").glob(pattern))

    def results(self) -> dict[str, Any]:
        """The one scenario of the execution results."""
        (path,) = self.logs("rl_training_execution_results_*.json")
        (scenario,) = json.loads(path.read_text())["scenarios"]
        assert isinstance(scenario, dict)
        return scenario

    def ctrl_c(self) -> None:
        """What a terminal does: it tells the whole foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert self.process.poll() is None, f"ended before {what}:\n{self.printed}"
            assert time.monotonic() < deadline, f"waited in vain until {what}:\n{self.printed}"
            time.sleep(0.02)

    def ended(self) -> int:
        """Its exit code; nothing it started may be left then."""
        code = self.process.wait(TIMEOUT_S)
        assert processes(self.left_behind) == []
        return code

    def left_behind(self, arguments: str) -> bool:
        return str(self.folder) in arguments or f"--parent {self.process.pid}" in arguments

    def pid_of(self, part: str) -> int:
        """The first process it started whose command line has `part`."""
        return min(processes(lambda arguments: self.left_behind(arguments) and part in arguments))


def processes(wanted: Callable[[str], bool]) -> list[int]:
    """Process ids by command line; what has ended and only waits to be collected does not count."""
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split(None, 2) for line in listed.splitlines())
    return [int(row[0]) for row in rows if len(row) == 3 and not row[1].startswith("Z") and wanted(row[2])]


@contextmanager
def executing(folder: Path, *options: str) -> Iterator[Execution]:
    """An executor that is ended with the context, whatever happens, and so is what it started."""
    command = [sys.executable, str(ROOT / "rl_training_executor.py"), *options]
    command += ["--runs", str(folder / "runs"), "--logs", str(folder / "logs")]
    with (
        (folder / "out").open("w") as out,
        (folder / "err").open("w") as err,
        subprocess.Popen(command, cwd=folder, stdout=out, stderr=err, text=True, start_new_session=True) as process,
    ):
        execution = Execution(folder, process)
        try:
            yield execution
        finally:
            process.kill()
            process.wait()
            for pid in processes(execution.left_behind):
                subprocess.run(["kill", "-9", str(pid)], check=False)


def validation(folder: Path, *options: str) -> AbstractContextManager[Execution]:
    return executing(folder, "--mode", "validation", "--time-scale", "180", "--healthy", *options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Execution:
    """A validation that was left alone."""
    with validation(tmp_path_factory.mktemp("whole"), "--time-scale", "300") as execution:
        assert execution.ended() == 0, execution.printed
    return execution


# -- a run that is left alone -----------------------------------------------------------------------------------------


def test_a_validation_needs_nothing_but_itself_and_ends_with_a_bundle(whole: Execution) -> None:
    assert whole.err == ""
    assert read_manifest(whole.run)["state"] == "complete"
    assert read_manifest(whole.run)["balancer_details"]["kind"] == "sandbox"
    assert read_run(whole.run).requests["ok"].all()
    assert (whole.run / "bundle" / "dataset.json").is_file()
    first = [line.split("  ")[0] for line in whole.out.splitlines()[:4]]
    assert first == ["not checked", "ok", "ok", "not checked"]  # target, disk space, packages, pods
    assert "\nsandbox ready: http://127.0.0.1:" in whole.out
    assert f"\nscenario quick_validation of {ROOT / 'configs' / 'quick_validation_config.yaml'}, time " in whole.out


def test_progress_is_shown_while_it_runs(whole: Execution) -> None:
    for phase in ("quick_browsing", "quick_purchases", "quick_wind_down"):
        assert re.search(
            rf"^0:\d\d of 0:06, 0:\d\d left +{phase} .* users .* requests/s .* \d+ rows, 0 lost +\d+ decisions$",
            whole.out,
            re.M,
        )


def test_the_tally_and_the_places_are_the_last_thing_there_is_to_read(whole: Execution) -> None:
    numbers = tally(whole.run / "bundle")
    assert {line.split()[0] for line in numbers} >= {"requests", "sessions", "decisions", "conversion", "actions"}
    assert "rows lost    0" in numbers
    logs = [line.removeprefix("log          ") for line in whole.out.splitlines() if line.startswith("log ")]
    end = whole.out[whole.out.index("\n\n" + "\n".join(numbers) + "\nlog ") :]
    assert "\nverdict      " in end  # which one depends on how busy the machine was, too
    assert f"\nreport card  {whole.run / 'bundle' / 'report_card.html'}\n" in end
    assert {line.split()[0] for line in end.splitlines()[-5:]} == {"log"}
    assert sorted(logs) == [str(path) for path in whole.logs("*")]


def test_logs_have_the_names_that_users_look_for_with_one_form_of_time(whole: Execution) -> None:
    names = [re.sub(STAMP, "<time>", path.name) for path in whole.logs("*")]
    assert sorted(names) == [
        "enhanced_rl_training_load_test.log",
        "quick_validation_config.json",
        "rl_training_execution_results_<time>.json",
        "rl_training_executor.log",
        "rl_training_metrics_quick_validation_<time>.json",
        "rl_training_results_quick_validation_<time>.json",
        "rl_training_summary_report_<time>.md",
    ]
    assert re.fullmatch(f"quick_validation_{STAMP}", whole.run.name)


def test_the_execution_results_say_what_came_of_it(whole: Execution) -> None:
    scenario, facts = whole.results(), json.loads((whole.run / "bundle" / "dataset.json").read_text())
    assert scenario["state"] == "complete"
    assert scenario["exit_code"] == 0
    assert scenario["run_folder"] == str(whole.run)
    assert scenario["bundle"] == str(whole.run / "bundle")
    assert scenario["run"] == facts["runs"][0]
    assert scenario["counts"] == facts["counts"]


def test_the_summary_report_says_the_same_to_a_person(whole: Execution) -> None:
    (path,) = whole.logs("rl_training_summary_report_*.md")
    report, facts = path.read_text(), json.loads((whole.run / "bundle" / "dataset.json").read_text())
    run, bulk = facts["runs"][0], facts["runs"][0]["conversion"]["bulk_buyer"]
    assert "## quick_validation: complete\n" in report
    assert f"| requests | {run['requests']:,}, 100.00% ok, 0 retries |" in report
    assert f"| decisions | {run['decisions']:,} |" in report
    assert "| rows lost | 0 |" in report
    assert re.search(r"\| duration \| 0 min \d s of real time \|", report)
    actual = "no session ended" if bulk["actual"] is None else f"{bulk['actual']:.1%}"
    assert f"| bulk_buyer | 60.0% | {actual} | {bulk['sessions']} | " in report
    assert f"| transitions | train {facts['counts']['transitions']['train']:,}, " in report
    assert f"- bundle: `{whole.run / 'bundle'}`" in report
    assert "None" not in report


def test_our_log_has_the_time_on_every_line_and_what_the_sandbox_said(whole: Execution) -> None:
    lines = (whole.folder / "logs" / "rl_training_executor.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", line) for line in lines)
    text = "\n".join(lines)
    assert "Z started: " in text
    assert "Z sandbox stopped: requests answered (failed) per service" in text
    assert "sandbox stopped" not in whole.out


def test_the_json_form_of_the_validation_is_a_scenario_file_that_runs_with_workers_against_a_host(
    whole: Execution, tmp_path: Path
) -> None:
    path = whole.folder / "logs" / "quick_validation_config.json"
    assert load_file(path).scenarios == load_file(ROOT / "configs" / "quick_validation_config.yaml").scenarios
    custom = ("--mode", "custom", "--config", str(path), "--time-scale", "600", "--processes", "2", "--user-scale", "2")
    with sandbox() as host, executing(tmp_path, *custom, "--host", host) as execution:
        assert execution.ended() == 0, execution.printed
        run = read_run(execution.run)
        assert answers(host), "the executor ended a target that is not its own"
    assert sorted(who.role for who in run.incarnations) == ["master", "worker", "worker"]
    assert run.manifest["target"] == host
    assert run.manifest["plan"]["user_scale"] == 2
    assert len(set(run.requests["incarnation"].tolist())) == 2
    assert execution.out.startswith(f"ok           target       {host}: all 5 services are up\n")
    assert f"\nscenario quick_validation of {path}, time scale 600\n" in execution.out
    assert not execution.logs("quick_validation_config.json")


# -- against a host that is already there -----------------------------------------------------------------------------


@contextmanager
def sandbox() -> Iterator[str]:
    command = [sys.executable, "-m", "sandbox", "--port", "0", "--healthy"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield next(line.split()[2] for line in process.stdout if line.startswith("sandbox ready: "))
        finally:
            process.kill()


def answers(host: str) -> bool:
    address = host.removeprefix("http://").removesuffix("/proxy").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=10):
        return True


# -- interruptions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "moment", ["the sandbox starts", "Locust is loading"], ids=["while-the-sandbox-starts", "while-locust-loads"]
)
def test_ctrl_c_before_the_run_began_says_so_and_leaves_no_run(tmp_path: Path, moment: str) -> None:
    signs = {"the sandbox starts": "scenario quick_validation", "Locust is loading": "sandbox ready: "}
    with validation(tmp_path) as execution:
        execution.wait_until(lambda: signs[moment] in execution.out, moment)
        execution.ctrl_c()
        assert execution.ended() == 1
    assert execution.out.endswith("interrupted before the run began: nothing was recorded\n")
    assert execution.err == ""
    assert not list((tmp_path / "runs").iterdir())
    assert not execution.logs("*.md")


def test_ctrl_c_right_after_the_run_folder_was_made_waits_for_a_moment_to_end_in_order(tmp_path: Path) -> None:
    with validation(tmp_path) as execution:
        execution.wait_until(lambda: execution.has_made_a_run_folder, "the run folder is made")
        execution.ctrl_c()
        assert execution.ended() == 1
    assert all(who.closed for who in read_run(execution.run).incarnations)
    assert read_manifest(execution.run)["state"] == "interrupted"


def test_ctrl_c_ends_in_order_and_exports_all_that_was_recorded(tmp_path: Path) -> None:
    with validation(tmp_path) as execution:
        execution.wait_until(lambda: execution.rows() > 500, "500 rows are written")
        execution.ctrl_c()
        assert execution.ended() == 1
    run = read_run(execution.run)
    assert "interrupted: waiting for requests in flight, then what was recorded is exported\n" in execution.out
    assert "Ctrl-C again ends Locust at once; what was recorded is kept in that case too\n" in execution.out
    assert "interrupted: this is what was recorded until then\n\nrun          quick_validation_" in execution.out
    assert run.losses == ()
    assert all(who.closed for who in run.incarnations)
    results = execution.results()
    assert results["state"] == "interrupted"
    assert results["exit_code"] == 1
    assert results["run"]["requests"] == len(run.requests) + len(run.in_flight) > 500
    (report,) = execution.logs("*.md")
    assert "## quick_validation: interrupted\n" in report.read_text()


def test_a_second_ctrl_c_ends_locust_at_once_and_its_rows_are_exported(tmp_path: Path) -> None:
    with validation(tmp_path, "--processes", "2") as execution:
        execution.wait_until(lambda: execution.rows() > 500, "500 rows are written")
        execution.ctrl_c()
        execution.process.send_signal(signal.SIGTERM)  # two of the same kind could arrive as one
        assert execution.ended() == 1
    assert not any(who.closed for who in read_run(execution.run).incarnations)
    assert execution.results()["state"] == "interrupted"
    assert execution.results()["run"]["requests"] > 500
    assert execution.out.splitlines()[-1].startswith("log ")


def test_ctrl_c_when_the_plan_is_over_waits_for_the_users(tmp_path: Path) -> None:
    with validation(tmp_path, "--time-scale", "1800") as execution:
        execution.wait_until(lambda: " requests/s " in execution.out, "the first users are there")
        began_s = read_manifest(execution.run)["started_unix_ns"] / 1e9
        execution.wait_until(lambda: time.time() > began_s + 1.05, "the plan is over")
        execution.ctrl_c()
        assert execution.ended() == 1
    assert "interrupted: the run is at its end already; waiting for its last users\n" in execution.out
    assert read_manifest(execution.run)["state"] == "complete"


def test_ctrl_c_during_the_export_lets_it_finish(tmp_path: Path) -> None:
    with validation(tmp_path, "--time-scale", "1800") as execution:
        execution.wait_until(lambda: "\nexporting " in execution.out, "the export begins")
        execution.ctrl_c()
        assert execution.ended() == 1
    assert "interrupted: the export is finished first; Ctrl-C again ends it at once\n" in execution.out
    assert (execution.run / "bundle" / "dataset.json").is_file()


def test_a_second_ctrl_c_ends_the_export_and_says_how_to_do_it_later(tmp_path: Path) -> None:
    with validation(tmp_path, "--time-scale", "1800") as execution:
        execution.wait_until(lambda: "\nexporting " in execution.out, "the export begins")
        execution.ctrl_c()
        execution.process.send_signal(signal.SIGTERM)
        assert execution.ended() == 1
    later = f"do it later with: python -m rl_hooks.export {execution.run}"
    assert f"the export was ended by signal 9; {later}\n" in execution.err
    assert f"\nrun          {execution.run} (complete), no bundle\n" in execution.out
    (report,) = execution.logs("*.md")
    way_out = f"There is no bundle. This makes one of what was recorded: `python -m rl_hooks.export {execution.run}`\n"
    assert way_out in report.read_text()


# -- something is killed ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere Locust goes on to the end of its plan")
def test_when_the_executor_is_killed_locust_ends_in_order_and_nothing_stays_behind(tmp_path: Path) -> None:
    with validation(tmp_path, "--time-scale", "18", "--processes", "2") as execution:
        execution.wait_until(lambda: execution.rows() > 100, "100 rows are written")
        execution.process.kill()
        execution.process.wait()
        deadline = time.monotonic() + TIMEOUT_S
        while processes(execution.left_behind):
            assert time.monotonic() < deadline, "sandbox or Locust stayed behind"
            time.sleep(0.1)
    assert read_manifest(execution.run)["state"] == "interrupted"
    assert all(who.closed for who in read_run(execution.run).incarnations)


# -- parts that fail --------------------------------------------------------------------------------------------------


def test_a_sandbox_that_ends_ends_the_run_too(tmp_path: Path) -> None:
    with validation(tmp_path, "--time-scale", "18") as execution:
        execution.wait_until(lambda: execution.rows() > 100, "100 rows are written")
        subprocess.run(["kill", "-9", str(execution.pid_of("-m sandbox"))], check=True)
        assert execution.ended() == 1
    assert "the sandbox has ended: waiting for requests in flight, then what was recorded is exported" in execution.out
    log = tmp_path / "logs" / "enhanced_rl_training_load_test.log"
    said = f"Locust ended with exit code 1; what it recorded is kept, and its log may say more: {log}\n"
    assert said in execution.err
    assert (execution.run / "bundle" / "dataset.json").is_file()


def test_a_locust_that_is_killed_leaves_a_bundle_and_a_summary_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with validation(tmp_path, "--time-scale", "18", "--processes", "2") as execution:
        execution.wait_until(lambda: execution.rows() > 100, "100 rows are written")
        stamp = execution.run.name.removeprefix("quick_validation_")
        (tmp_path / "logs" / f"rl_training_summary_report_{stamp}.md").mkdir()  # in the way
        subprocess.run(["kill", "-9", str(execution.pid_of("-m locust"))], check=True)
        assert execution.ended() == 1
    assert "Locust was ended by signal 9; what it recorded is kept, and its log may say more: " in execution.err
    said = f"{tmp_path / 'logs'}: the summary cannot be written (Is a directory); bundles are not touched\n"
    assert said in execution.err
    assert "Traceback" not in execution.err
    assert execution.out.count("(interrupted)") == 1
    assert (execution.run / "bundle" / "dataset.json").is_file()


# -- several scenarios ------------------------------------------------------------------------------------------------


def two_scenarios(folder: Path) -> Path:
    """The quick scenario under two names, `first` and `second`."""
    content = yaml.safe_load((ROOT / "configs" / "quick_validation_config.yaml").read_text())
    scenarios = content["rl_training_scenarios"]["training_scenarios"]
    quick = scenarios.pop("quick_validation")
    scenarios.update(first=quick, second=copy.deepcopy(quick))  # or they would be written as one and an alias
    path = folder / "two.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def both(folder: Path, *options: str) -> AbstractContextManager[Execution]:
    asked = ("--mode", "custom", "--config", str(folder / "two.yaml"), "--scenario", "first", "--scenario", "second")
    return executing(folder, *asked, "--healthy", "--time-scale", "180", *options)


def test_comprehensive_runs_all_four_scenarios_with_pauses_and_says_what_came_of_each(tmp_path: Path) -> None:
    with executing(tmp_path, "--mode", "comprehensive", "--time-scale", "450", "--user-scale", "0.06") as execution:
        assert execution.process.wait(170) == 0, execution.printed
    (path,) = execution.logs("rl_training_execution_results_*.json")
    content = json.loads(path.read_text())
    assert [one["scenario"] for one in content["scenarios"]] == [
        "comprehensive_rl_training",
        "flash_sale_simulation",
        "service_degradation_simulation",
        "mixed_load_chaos",
    ]
    assert {one["state"] for one in content["scenarios"]} == {"complete"}
    assert content["state"] == "finished"
    assert [one["run"]["faults"]["applied"] for one in content["scenarios"]] == [0, 0, 4, 0]
    assert [one["run"]["faults"]["lifted"] for one in content["scenarios"]] == [0, 0, 4, 0]
    # Five minutes at time scale 450 with one request per nominal second.
    assert [round(one["duration_s"], 1) for one in content["pauses"]] == [pytest.approx(300 / 450, abs=0.3)] * 3
    assert all(one["sent"] + one["not_sent"] >= 290 for one in content["pauses"])
    (report,) = execution.logs("rl_training_summary_report_*.md")
    assert "## Pauses between scenarios\n" in report.read_text()
    assert "| comprehensive_rl_training | 1 | " in report.read_text()


def test_an_execution_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    two_scenarios(tmp_path)

    def second_runs() -> bool:
        return any((tmp_path / "runs").glob("second_*/manifest.json"))

    with both(tmp_path) as execution:
        execution.wait_until(second_runs, "the second scenario runs")
        execution.process.kill()
        execution.process.wait()
        deadline = time.monotonic() + TIMEOUT_S
        while processes(execution.left_behind) and time.monotonic() < deadline:
            time.sleep(0.1)
    with both(tmp_path, "--resume", "--seed", "2") as execution:
        assert execution.ended() == 2
    assert "cannot be resumed with other options (seed was 1); give the same, or start anew" in execution.err
    with both(tmp_path, "--resume") as execution:
        assert execution.ended() == 0, execution.printed
    assert "\nscenario first is complete since " in execution.out
    assert len(list((tmp_path / "runs").glob("first_*"))) == 1
    assert len(list((tmp_path / "runs").glob("second_*"))) == 2
    newest = json.loads(execution.logs("rl_training_execution_results_*.json")[-1].read_text())
    assert [(one["scenario"], one["state"]) for one in newest["scenarios"]] == [
        ("first", "complete"),
        ("second", "complete"),
    ]
    with both(tmp_path, "--resume") as execution:
        assert execution.ended() == 2
    assert "all its scenarios are complete, there is nothing to resume; start anew\n" in execution.err


def test_ctrl_c_in_a_pause_ends_at_once_and_says_how_to_go_on(tmp_path: Path) -> None:
    path = two_scenarios(tmp_path)
    path.write_text(path.read_text().replace("recovery_pause_minutes: 5", "recovery_pause_minutes: 500"))
    with both(tmp_path) as execution:
        execution.wait_until(lambda: "pause of 166.7 s before second" in execution.out, "the pause begins")
        execution.ctrl_c()
        assert execution.ended() == 1
    assert "go on with what is not complete: the same command with --resume" in execution.out
    assert execution.results()["state"] == "complete"


# -- gates ------------------------------------------------------------------------------------------------------------


def test_a_target_that_answers_500_to_everything_is_a_failed_run(tmp_path: Path) -> None:
    class Broken(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            healthy = self.path.endswith("/actuator/health")
            content = b'{"status": "UP"}' if healthy else b'{"error": "broken"}'
            self.send_response(200 if healthy else 500)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing: the test reads what matters."""

    with serving(Broken) as root:
        host = f"{root}/proxy"
        with executing(tmp_path, "--mode", "validation", "--time-scale", "180", "--host", host) as execution:
            assert execution.ended() == 1
    assert re.search(rf"run failed: no request succeeded of \d+ sent to {host}", execution.err)
    gate = "gate         not passed: 0.0% of the requests succeeded, less than --min-success 0.5 asks for"
    assert gate in execution.out.splitlines()
    assert execution.results()["exit_code"] == 1


def test_a_gate_of_ones_own(tmp_path: Path) -> None:
    """A cart that fails half of the time: a run as planned, but not one with 99 % success."""
    path = two_scenarios(tmp_path)
    content = yaml.safe_load(path.read_text())
    for phase in content["rl_training_scenarios"]["training_scenarios"]["first"]["traffic_patterns"][:2]:
        phase["simulated_conditions"] = {"cart-service": {"error_rate": 0.5}}
    path.write_text(yaml.safe_dump(content))
    options = ("--mode", "custom", "--config", str(path), "--scenario", "first", "--healthy", "--time-scale", "180")
    with executing(tmp_path, *options, "--min-success", "0.99") as execution:
        assert execution.ended() == 1
    assert "less than --min-success 0.99 asks for" in execution.results()["gates"][0]
    assert execution.results()["state"] == "complete"


# -- what cannot be started -------------------------------------------------------------------------------------------

OWN_SCENARIOS = "has its own scenarios; use --mode custom for --config, --scenario"
REFUSED = {
    "no-config": ("--mode custom", ["--mode custom needs --config FILE (and --scenario NAME when it holds several)"]),
    "config-of-validation": ("--mode validation --config x.yaml", [f"--mode validation {OWN_SCENARIOS}"]),
    "scenario-of-comprehensive": ("--mode comprehensive --scenario x", [f"--mode comprehensive {OWN_SCENARIOS}"]),
    "missing-config": (
        "--mode custom --config nowhere.yaml",
        ["nowhere.yaml: 1 problem\n  the whole file: no such file (tried nowhere.yaml, "],
    ),
    "broken-config": (
        "--mode custom --config broken.yaml",
        ["broken.yaml: 5 problems\n", "base_confg", "Did you mean 'base_config'?"],
    ),
    "unknown-scenario": (
        "--mode custom --config comprehensive_rl_training_config.json --scenario comprehensive",
        ["comprehensive_rl_training_config.yaml: 1 problem\n", "there is no scenario 'comprehensive'. "],
    ),
    "all-at-once": (
        (
            "--mode validation --healthy --host ftp://x --processes 0 --logging-policy unifrom --min-success 2 "
            "--max-rows-lost -1"
        ),
        [
            "--min-success 2: give a share from 0 to 1, such as 0.5\n",
            "--max-rows-lost -1: give a number of rows from 0 on\n",
            "--healthy is for the sandbox, and --host names another target; leave one of them out\n",
            "--processes 0: give a number of workers from 1 on, or leave it out\n",
            "policy unifrom: is not a known name. Did you mean 'uniform'?",
            "--host ftp://x: not a URL of a web server; give one like http://localhost:8080/proxy\n",
        ],
    ),
    "time-scale": ("--mode validation --time-scale nan", ["time_scale: nan is not a number between 0.000001 and "]),
    "runs": ("--mode validation --runs in_the_way/runs", ["cannot be written (Not a directory); choose another with"]),
    "no-mode": ("", ["the following arguments are required: --mode\n"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_started_is_said_at_once_and_nothing_is_made(tmp_path: Path, case: str) -> None:
    (tmp_path / "broken.yaml").write_text("rl_training_scenarios: {base_confg: {}}\n")
    (tmp_path / "in_the_way").write_text("")
    before = sorted(tmp_path.iterdir())
    options, messages = REFUSED[case]
    done = execute(tmp_path, *options.split())
    assert done.returncode == 2, done.stdout
    for message in messages:
        assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(tmp_path.iterdir()) == before


def test_a_host_where_nothing_listens_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # taken, but it does not listen
        host = f"http://127.0.0.1:{sock.getsockname()[1]}/proxy"
        done = execute(tmp_path, "--mode", "validation", "--host", host)
    assert done.returncode == 2
    assert done.stderr.startswith(f"target {host}: 5 of 5 services are not ready\n")
    assert done.stderr.endswith("Start the target, correct --host, or start the sandbox: make sandbox\n")
    assert not list(tmp_path.iterdir())


def test_a_host_that_is_something_else_is_said_before_anything_is_made(tmp_path: Path) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing: the test reads what matters."""

    with serving(Other) as host:
        done = execute(tmp_path, "--mode", "validation", "--host", host)
    assert done.returncode == 2
    assert "/cart-service/actuator/health: answered 501\n" in done.stderr
    assert not list(tmp_path.iterdir())


def test_logs_that_cannot_be_written_are_said(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("")
    done = execute(tmp_path, "--mode", "validation")
    assert done.returncode == 2
    assert done.stderr == "logs: cannot be written (File exists); choose another with --logs\n"


def test_a_sandbox_that_does_not_start_is_said(tmp_path: Path) -> None:
    (tmp_path / "uvicorn.py").write_text("raise SystemExit('this is no server')\n")
    done = execute(tmp_path, "--mode", "validation", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    said = "the sandbox did not start (exit code 1); see what it printed above\n"
    assert done.stderr == f"this is no server\n{said}"
    assert not list((tmp_path / "runs").iterdir())


def test_a_logging_policy_of_ones_own_is_found_in_the_current_folder(tmp_path: Path) -> None:
    """The check before the run looks where Locust will look; the target's fault shows that it came that far."""
    (tmp_path / "mine.py").write_text("from rl_hooks.policies.builtin import Uniform as Mine\n")
    done = execute(tmp_path, "--mode", "validation", "--logging-policy", "mine:Mine", "--host", "ftp://x")
    assert done.stderr == "--host ftp://x: not a URL of a web server; give one like http://localhost:8080/proxy\n"


def test_the_help_says_what_each_mode_runs(tmp_path: Path) -> None:
    done = execute(tmp_path, "--help")
    assert done.returncode == 0
    for line in (
        "two minutes at time scale 15, which is its default",
        "with a pause after each: 335 minutes at time scale 1",
        "any scenarios of any file: --config FILE --scenario NAME",
    ):
        assert line in done.stdout


def execute(folder: Path, *options: str, **env: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "rl_training_executor.py"), *options]
    env = {**os.environ, **env}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=env)


TALLY = ["log          a.json", "verdict      do not train", "report card  b.html"]

# -- the summary report -----------------------------------------------------------------------------------------------


def test_a_report_names_gaps_and_what_is_not_known(whole: Execution) -> None:
    result = read_result(whole.run, "quick|validation", "x.yaml", "interrupted", 3, TALLY)
    assert result.run is not None
    run = {
        **result.run,
        "requests": 7,
        "unfinished": 7,
        "ended_unix_ns": None,
        "losses": [{"missing_rows": 12, "text": "cut"}],
        "conversion": {"window_shopper": {**result.run["conversion"]["bulk_buyer"], "planned": 0.02, "actual": None}},
    }
    changed = ScenarioResult(**{**result.__dict__, "run": run})
    report = summary_report("custom", "20260101T000000Z", [changed], [], [Path("logs/x.log")])
    assert report.startswith("# Summary of custom, started 20260101T000000Z\n\n## quick|validation: interrupted\n")
    assert "| requests | 7, none ended, 7 with unknown end, 0 retries |\n" in report
    assert "| rows lost | at least 12 |\n" in report
    assert "| duration | not known, it was killed |\n" in report
    assert "| window_shopper | 2.0% | no session ended | " in report
    assert "- log: `a.json`\n- report card: `b.html`\n" in report
    assert "| verdict | do not train |\n" in report
    assert report.endswith("## Logs\n\n- `logs/x.log`\n")

"""The main job with real processes: sandbox, Locust, export, and everything that can go wrong between them."""

import http.server
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.run_folder import read_manifest
from rl_hooks.run_reader import read_run
from tests.processes import ROOT, TIMEOUT_S, Sandbox, free_port, rows_written, sandbox_started, serving, wait_until
from tests.replayed import check_replay


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with sandbox_started("--healthy") as running:
        yield running


def command(folder: Path, host: str, *options: str) -> list[str]:
    """Locust on the quick scenario: thirty nominal minutes in ten seconds unless `options` say otherwise."""
    return [
        *(sys.executable, "-m", "locust", "-f", str(ROOT / "locustfile.py"), "--headless", "--only-summary"),
        *("--scenario-file", "quick_validation_config.yaml", "--time-scale", "180", "--host", host),
        *("--run-folder", str(folder), "--logs", str(folder.parent / "logs"), *options),
    ]


def run(folder: Path, host: str, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(folder, host, *options), cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


@contextmanager
def running(folder: Path, host: str, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """A Locust process that is ended with the context, whatever happens."""
    with subprocess.Popen(
        command(folder, host, *options), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def export(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "rl_hooks.export", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def dataset(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "bundle" / "dataset.json").read_text())
    return content


@pytest.fixture(scope="module")
def recorded(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One whole run: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("recorded") / "run"
    done = run(folder, sandbox.host, "--time-scale", "90", "--logging-policy", "sticky:0.3")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_a_run_ends_with_a_bundle(recorded: tuple[Path, str]) -> None:
    folder, printed = recorded
    assert read_manifest(folder)["state"] == "complete"
    found = dataset(folder)
    assert found["complete"] is True
    assert found["counts"]["rows_lost"] == 0
    train = pd.read_parquet(folder / "bundle" / "data" / "transitions" / "train-00000-of-00001.parquet")
    assert set(train["service"]) == set(SERVICES)
    assert re.search(r"rows lost +0", printed)
    assert f"run folder: {folder}" in printed


def test_on_a_healthy_sandbox_everything_succeeds(recorded: tuple[Path, str]) -> None:
    requests = read_run(recorded[0]).requests
    failed = requests[requests["ok"] == 0]
    assert len(requests) > 1000
    assert len(failed) == 0, np.unique(failed[["service", "status", "backend_status", "failure"]])


def test_rows_carry_the_decision_they_were_sent_under(recorded: tuple[Path, str]) -> None:
    """By tick and by time it is the same decision, and the balancer applied what was asked for."""
    run_ = read_run(recorded[0])
    for service in range(len(SERVICES)):
        decisions = run_.decisions[run_.decisions["service"] == service]
        requests = run_.requests[run_.requests["service"] == service]
        position = np.searchsorted(decisions["t_ns"], requests["start_ns"], side="right") - 1
        sent_under = requests[position >= 0]
        decision = decisions[position[position >= 0]]
        assert len(sent_under) > 0
        assert (sent_under["decision_tick"] == decision["tick"]).all()
        assert (sent_under["action_requested"] == decision["action"]).all()
        assert (sent_under["action_applied"] == decision["action"]).all()
        assert np.allclose(sent_under["propensity"], decision["propensity"])


def test_propensities_are_the_logging_policys(recorded: tuple[Path, str]) -> None:
    run_ = read_run(recorded[0])
    assert run_.names["policy"] == ("", "sticky:0.3")
    for service in range(len(SERVICES)):
        rows = run_.decisions[run_.decisions["service"] == service]
        kept = rows["action"][1:] == rows["action"][:-1]
        assert np.allclose(rows["propensity"][1:], np.where(kept, 0.3 + 0.7 / 6, 0.7 / 6))
    assert set(run_.decisions["action"]) == set(range(len(ACTIONS)))


def test_every_decision_knew_a_sample_from_before_it(recorded: tuple[Path, str]) -> None:
    run_ = read_run(recorded[0])
    assert (run_.decisions["sample_ns"] > 0).all()
    assert (run_.decisions["sample_ns"] <= run_.decisions["t_ns"]).all()
    assert len(run_.samples) == 15 * len(np.unique(run_.decisions["tick"]))


def test_what_decisions_were_made_with_can_be_looked_at_again(recorded: tuple[Path, str]) -> None:
    check_replay(recorded[0])


def test_users_follow_the_plan_and_all_leave(recorded: tuple[Path, str]) -> None:
    run_ = read_run(recorded[0])
    users = [event for event in run_.events if event["kind"] == "users"]
    assert [event["phase"] for event in run_.events if event["kind"] == "phase"][-1] is None
    assert sum(event["planned"] == event["counts"] for event in users) > len(users) / 2
    assert not any(users[-1]["planned"].values())


def test_exporting_again_gives_the_same_bytes(recorded: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = recorded
    done = export(folder, "--out", tmp_path / "again", "--logs", tmp_path / "logs")
    assert done.returncode == 0, done.stderr
    first = sorted(path for path in (folder / "bundle").rglob("*") if path.is_file() and "report_card" not in path.name)
    assert len(first) >= 7
    for path in first:
        assert (tmp_path / "again" / path.relative_to(folder / "bundle")).read_bytes() == path.read_bytes(), path
    for path in (folder.parent / "logs").glob("*.json"):
        assert (tmp_path / "logs" / path.name).read_bytes() == path.read_bytes(), path


def test_a_second_run_on_the_same_target_finds_its_accounts_and_succeeds(
    recorded: tuple[Path, str], sandbox: Sandbox, tmp_path: Path
) -> None:
    done = run(tmp_path / "run", sandbox.host, "--no-export")
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_run(tmp_path / "run").requests["ok"].all()
    assert "not exported; do it with: python -m rl_hooks.export" in done.stdout
    assert not (tmp_path / "run" / "bundle").exists()


def test_after_kill_9_every_accepted_row_is_exported(tmp_path: Path) -> None:
    """The sandbox knows how many requests it got; each is a row, or was in flight when the process died."""
    folder = tmp_path / "run"
    with sandbox_started("--healthy") as target, running(folder, target.host) as locust:
        wait_until(lambda: rows_written(folder) > 800, "800 rows are written")
        locust.kill()
        locust.wait()
        seen = read_run(folder)
        received = target.client_requests()
    assert seen.losses == ()
    assert len(seen.requests) <= received <= len(seen.requests) + len(seen.in_flight)
    done = export(folder, "--logs", tmp_path / "logs")
    assert done.returncode == 0, done.stderr
    exported = pd.read_parquet(folder / "bundle" / "data" / "requests")
    assert exported["seq"].notna().sum() == len(seen.requests)
    assert exported["seq"].isna().sum() == len(seen.in_flight)  # sent, and nobody knows what came of it
    assert dataset(folder)["runs"][0]["state"] == "interrupted"
    assert dataset(folder)["runs"][0]["unfinished"] == len(seen.in_flight)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl_c", "sigterm"])
def test_a_signal_ends_the_run_in_order_and_exports_what_there_is(
    sandbox: Sandbox, tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "run"
    with running(folder, sandbox.host) as locust:
        wait_until(lambda: rows_written(folder) > 400, "400 rows are written")
        locust.send_signal(number)
        printed = locust.communicate(timeout=TIMEOUT_S)[0]
    assert locust.returncode == 1, printed
    assert "Traceback" not in printed
    assert read_manifest(folder)["state"] == "interrupted"
    run_ = read_run(folder)
    assert run_.losses == ()
    assert all(who.closed for who in run_.incarnations)
    assert len(run_.in_flight) == 0
    whose = ["profile_ref", "slot", "session"]
    assert set(map(tuple, run_.requests[whose])) == set(map(tuple, run_.sessions[whose]))  # none died unrecorded
    assert (folder / "bundle" / "dataset.json").exists()


def test_a_target_that_is_not_there_is_said_before_anything_is_made(tmp_path: Path) -> None:
    host = f"http://127.0.0.1:{free_port()}/proxy"
    done = run(tmp_path / "run", host)
    assert done.returncode == 2
    assert f"target {host}: 5 of 5 services are not ready" in done.stderr
    assert "start the sandbox: make sandbox" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_exists_is_left_alone(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    done = run(tmp_path / "run", sandbox.host)
    assert done.returncode == 2
    assert "the run folder exists and is not empty; choose another with --run-folder" in done.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_all_wrong_options_are_said_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    wrong = ("--logging-policy", "unifrom", "--metrics-source", "sandbx", "--actuator", "os:path", "--time-scale", "-1")
    done = run(tmp_path / "run", sandbox.host, *wrong)
    assert done.returncode == 2
    for line in (
        "time_scale: -1 is not a number between 0.000001 and 1000000. Give one such as 1 or 0.5.",
        "policy unifrom: is not a known name. Did you mean 'uniform'?",
        "--metrics-source sandbx: is not a known name. Did you mean 'sandbox'?",
        "--actuator os:path: is a module; name a class or a function that makes one",
    ):
        assert line in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_broken_scenario_file_is_said_without_a_traceback(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("rl_training_scenarios: 5\n")
    done = run(tmp_path / "run", sandbox.host, "--scenario-file", str(tmp_path / "bad.yaml"))
    assert done.returncode == 2
    assert f"{tmp_path / 'bad.yaml'}: " in done.stderr
    assert "Traceback" not in done.stderr


class Broken(http.server.BaseHTTPRequestHandler):
    """A target whose services say they are up and fail at everything."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        healthy = self.path.endswith("/actuator/health")
        body = b'{"status": "UP"}' if healthy else b"{}"
        self.send_response(200 if healthy else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing: the test reads what matters."""


def test_a_target_that_never_answers_well_is_a_failed_run(tmp_path: Path) -> None:
    with serving(Broken) as host:
        done = run(tmp_path / "run", host)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"sent to {host}" in done.stderr
    assert "run failed: no request succeeded of " in done.stderr
    assert "(metrics source none, actuator header)" in done.stdout
    assert not read_run(tmp_path / "run").requests["ok"].any()


@pytest.mark.root
def test_a_full_disk_stops_the_run_and_loses_no_row(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=7m", "none", str(disk)], check=False).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        with sandbox_started("--healthy") as target:
            done = run(disk / "run", target.host, "--time-scale", "30", "--user-scale", "3", "--no-export")
            received = target.client_requests()
        assert done.returncode == 3, done.stdout + done.stderr
        assert "run stopped: " in done.stderr
        assert "Traceback" not in done.stderr
        assert "unexpected state" not in done.stderr
        assert "no more room for rows (No space left on device); free some space and start again" in done.stderr
        seen = read_run(disk / "run")
        assert seen.losses == ()
        assert len(seen.requests) == received
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


@pytest.mark.parametrize("table", ["requests", "decisions", "samples", "sessions"])
def test_a_run_whose_segment_was_cut_is_exported_with_the_gap_named(
    recorded: tuple[Path, str], tmp_path: Path, table: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(recorded[0], folder, ignore=shutil.ignore_patterns("bundle"))
    whole = len(getattr(read_run(folder), table))
    segment = max((folder / table).iterdir(), key=lambda path: path.stat().st_size)
    content = segment.read_bytes()
    segment.write_bytes(content[: random.Random(table).randrange(100, len(content))])
    done = export(folder, "--logs", tmp_path / "logs")
    assert done.returncode == 3, done.stdout + done.stderr
    missing = whole - len(getattr(read_run(folder), table))
    assert missing > 0
    assert dataset(folder)["complete"] is False
    assert dataset(folder)["counts"]["rows_lost"] == missing
    assert f"{segment}: cut after " in done.stdout + done.stderr


def test_exporting_what_is_no_run_is_refused(tmp_path: Path) -> None:
    done = export(tmp_path)
    assert done.returncode == 2
    assert f"{tmp_path}: not a run folder, it has no manifest.json" in done.stderr


def test_a_run_that_cannot_be_exported_says_that_it_is_kept(tmp_path: Path, sandbox: Sandbox) -> None:
    """A reward of one's own that is there and is no reward: nobody knows before the export tries it."""
    text = (ROOT / "configs" / "quick_validation_config.yaml").read_text()
    own = 'user_satisfaction: 0.1\n    rewards:\n      wrong: {function: "math:sqrt", weight: 0.1}'
    assert text.count("user_satisfaction: 0.2") == 1
    (tmp_path / "own.yaml").write_text(text.replace("user_satisfaction: 0.2", own))
    folder = tmp_path / "run"
    done = run(folder, sandbox.host, "--scenario-file", str(tmp_path / "own.yaml"))
    assert done.returncode == 2
    assert "reward wrong (math:sqrt): failed on 1 cohorts (TypeError" in done.stderr
    assert "run complete, and its rows are kept; once what is said above is mended, export it with: " in done.stderr
    assert f"python -m rl_hooks.export {folder}" in done.stderr
    assert not (folder / "bundle").exists()
    assert read_run(folder).losses == ()

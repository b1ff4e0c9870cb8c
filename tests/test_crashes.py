"""What a distributed run survives, with real processes: whatever happens, every request that was sent is accounted for.

A killed worker is in test_distributed.py. Where hosts have to be apart they are network namespaces (tests/lab.py).
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl_hooks.run_folder import SEGMENT_BYTES
from rl_hooks.run_reader import Run, read_run
from tests.lab import Lab, WallClock, why_not
from tests.processes import ROOT, TIMEOUT_S, Locust, Sandbox, free_port, sandbox_started
from tests.replayed import check_replay
from tests.team import Team, follows_the_master, roles, workers_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

LEAVE_WITHIN_S = 15
SLOW_MACHINE_S = 15  # on top of it, where tests have to share two processors
PACE = ("--decision-interval", "30", "--stop-timeout", "8")  # a decision a second at a time scale of 30


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with sandbox_started("--healthy") as running:
        yield running


def export(folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "rl_hooks.export", str(folder), "--logs", str(folder.parent / "logs")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def run_in_bundle(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "bundle" / "dataset.json").read_text())["runs"][0]
    return content


def answered(run: Run) -> int:
    return int((run.requests["status"] != 0).sum())


def all_accounted_for(run: Run, served: int) -> None:
    """Every request the sandbox served has a row or is known to have been in flight, and no answered one is made up."""
    assert run.losses == ()
    assert answered(run) <= served <= len(run.requests) + len(run.in_flight)


def each_ended_in_order(*processes: Locust) -> None:
    assert [process.ended() for process in processes] == [0] * len(processes), "\n".join(p.said for p in processes)
    assert not any("Traceback" in process.said for process in processes)


def wait(seconds: float) -> None:
    """For what takes its time, whatever the machine does."""
    time.sleep(seconds)


# -- processes that are killed or told to end -------------------------------------------------------------------------


def test_workers_leave_a_killed_master_in_order_and_ask_to_be_started_again(sandbox: Sandbox, tmp_path: Path) -> None:
    before = sandbox.client_requests()
    with Team(tmp_path, sandbox.host) as team:
        master = team.master("--time-scale", "15", *PACE, workers=2)
        workers = [team.worker("one"), team.worker("two")]
        team.wait_for_rows(100)
        master.process.send_signal(signal.SIGKILL)
        killed_s = time.monotonic()
        assert [worker.ended() for worker in workers] == [75, 75], workers[0].said + workers[1].said
        assert time.monotonic() - killed_s < LEAVE_WITHIN_S + SLOW_MACHINE_S
    run = read_run(team.folder)
    assert roles(run) == {("master", False): 1, ("worker", True): 2}
    assert len(run.in_flight) == 0
    all_accounted_for(run, sandbox.client_requests() - before)
    done = export(team.folder)
    assert done.returncode == 0, done.stderr
    assert (run_in_bundle(team.folder)["state"], run_in_bundle(team.folder)["unfinished"]) == ("interrupted", 0)
    for worker in workers:
        assert "the master was silent for 10 s; leaving, to be started again" in worker.said
        assert "Traceback" not in worker.said


def test_workers_of_a_killed_master_join_the_next_one(sandbox: Sandbox, tmp_path: Path) -> None:
    """As an orchestrator does it: what left is started again, and the next run is whole."""
    with Team(tmp_path, sandbox.host) as team:
        doomed = team.master("--time-scale", "15", *PACE, workers=1)
        worker = team.worker("one")
        team.wait_for_rows(50)
        doomed.process.send_signal(signal.SIGKILL)
        doomed.process.wait()
        again = team.worker("again")  # there before the next master
        assert worker.ended() == 75, worker.said
        wait(2)  # a sandbox takes another run a second after the last request
        team.folder = tmp_path / "next"
        master = team.master(*PACE, "--time-scale", "60", workers=1)
        assert [master.ended(), again.ended()] == [0, 0], master.said + again.said
    for folder, state in ((tmp_path / "run", "running"), (tmp_path / "next", "complete")):
        run = read_run(folder)
        assert (run.manifest["state"], run.losses) == (state, ())
    assert roles(run) == {("master", True): 1, ("worker", True): 1}


@pytest.mark.parametrize("ended", ["worker", "master"])
def test_sigterm_with_requests_in_flight_loses_none(sandbox: Sandbox, tmp_path: Path, ended: str) -> None:
    before = sandbox.client_requests()
    with Team(tmp_path, sandbox.host) as team:
        master = team.master("--time-scale", "30", *PACE, workers=2)
        steady, leaving = team.worker("steady"), team.worker("leaving")
        team.wait_for_rows(100)
        (leaving if ended == "worker" else master).process.send_signal(signal.SIGTERM)
        assert leaving.ended() == 0, leaving.said
        assert master.ended() == (0 if ended == "worker" else 1), master.said
        assert steady.ended() == 0, steady.said
    run = read_run(team.folder)
    assert roles(run) == {("master", True): 1, ("worker", True): 2}
    assert len(run.in_flight) == 0
    all_accounted_for(run, sandbox.client_requests() - before)
    assert run.manifest["state"] == ("complete" if ended == "worker" else "interrupted")


# -- what is around the processes -------------------------------------------------------------------------------------


@pytest.mark.root
def test_a_full_disk_of_a_worker_ends_the_run_with_every_accepted_row(sandbox: Sandbox, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    before = sandbox.client_requests()
    disk, size = tmp_path / "disk", sum(SEGMENT_BYTES.values()) * 3
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        with Team(tmp_path, sandbox.host) as team:
            master = team.master("--time-scale", "15", *PACE, workers=2)
            healthy, full = team.worker("healthy"), team.worker("full", "--spool", str(disk))
            team.wait_for_rows(100)
            fill(disk / "others")
            assert master.ended() == 3, master.said
            assert [healthy.ended(), full.ended()] == [0, 3], healthy.said + full.said
            assert "No space left on device" in full.said
        gather(disk / "run", team.folder)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
    run = read_run(team.folder)
    assert roles(run) == {("master", True): 1, ("worker", True): 2}
    all_accounted_for(run, sandbox.client_requests() - before)


def fill(file: Path) -> None:
    """Somebody else takes all the room there is."""
    with file.open("wb", buffering=0) as content:
        try:
            while True:
                content.write(b"\0" * 4096)
        except OSError:
            pass


def gather(part: Path, run: Path) -> None:
    """What a shipper brings together."""
    for file in part.rglob("*"):
        if file.is_file():
            (run / file.relative_to(part)).write_bytes(file.read_bytes())


def test_a_balancer_that_is_away_for_half_a_minute(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    options = ("--healthy", "--port", str(free_port()), "--access-log", str(log))
    with Team(tmp_path, f"http://127.0.0.1:{options[2]}/proxy") as team:
        with sandbox_started(*options) as first:
            master = team.master("--time-scale", "25", *PACE, workers=2)
            workers = [team.worker("one"), team.worker("two")]
            team.wait_for_rows(100)
            first.stop()
        wait(30)
        with sandbox_started(*options) as second:
            each_ended_in_order(master, *workers)
            second.stop()
    run = read_run(team.folder)
    assert (run.manifest["state"], len(run.in_flight)) == ("complete", 0)
    all_accounted_for(run, sum(json.loads(line)["event"] == "start" for line in log.read_text().splitlines()))
    assert (run.requests["status"] == 0).sum() > 50
    assert run.requests["ok"][-50:].mean() > 0.5  # it goes on when the balancer is back
    gaps_s = np.diff(np.unique(run.decisions["t_ns"])) / 1e9
    assert gaps_s.max() < 15  # and decisions went on all the time
    missed = int((run.decisions["actuated"] == 0).sum())
    assert missed > 10
    assert run.manifest["decisions_not_applied"]["decisions"] == missed  # and it says so when it ends
    assert f"{missed} of {len(run.decisions)} decisions could not be applied, between " in master.said
    kinds = [event["kind"] for event in run.events if event["kind"].startswith("control_")]
    assert (kinds[0], kinds[-1]) == ("control_fault", "control_recovered")


def test_telemetry_that_is_away_is_missing_and_nothing_else(sandbox: Sandbox, tmp_path: Path) -> None:
    before, flag = sandbox.client_requests(), tmp_path / "away"
    (tmp_path / "unsteady.py").write_text(
        f"""
from pathlib import Path
from rl_hooks.control import SourceError
from rl_hooks.sources.sandbox import SandboxSource

class Unsteady(SandboxSource):
    def sample(self):
        if Path({str(flag)!r}).exists():
            raise SourceError("connection refused")
        return super().sample()

def source(root):
    return Unsteady(root)
"""
    )
    with Team(tmp_path, sandbox.host) as team:
        options = ("--time-scale", "45", *PACE, "--metrics-source", "unsteady:source")
        env = {"PYTHONPATH": str(tmp_path)}
        master = team.master(*options, workers=1, env=env)
        worker = team.worker("one")
        team.wait_for_rows(50)
        flag.touch()
        wait(10)
        flag.unlink()
        assert [master.ended(), worker.ended()] == [0, 0], master.said + worker.said
    run = read_run(team.folder)
    all_accounted_for(run, sandbox.client_requests() - before)
    without = run.decisions["sample_ns"] == 0
    assert 0 < without.mean() < 0.8
    assert run.decisions["actuated"].all()
    kinds = [event["kind"] for event in run.events if event["kind"].startswith("control_")]
    assert kinds == ["control_fault", "control_recovered"]
    check_replay(team.folder)


# -- hosts that are apart ---------------------------------------------------------------------------------------------


class Apart:
    """A sandbox, a master and workers, each on a host of its own."""

    def __init__(self, place: Path, lab: Lab, sandbox: Sandbox) -> None:
        self.lab, self.sandbox = lab, sandbox
        self.team = Team(place, sandbox.host, lab)


@pytest.fixture
def apart(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Apart]:
    needs = getattr(request, "param", {})
    if (reason := why_not(**needs)) is not None:
        pytest.skip(reason)
    with (
        Lab("target", "master", "near", "far") as lab,
        sandbox_started("--healthy", "--host", lab.address("target"), on=lab.on("target")) as sandbox,
    ):
        apart = Apart(tmp_path, lab, sandbox)
        with apart.team:
            yield apart


@pytest.mark.root
def test_a_link_that_is_cut_for_20_s_costs_a_worker_and_no_row(apart: Apart) -> None:
    team, lab = apart.team, apart.lab
    master = team.master("--time-scale", "25", *PACE, workers=2)
    near, far = team.worker("near"), team.worker("far")
    team.wait_for_rows(100)
    lab.cut("far")
    wait(20)
    lab.heal("far")
    assert far.ended() == 75, far.said
    again = team.worker("far.again")
    each_ended_in_order(master, near, again)
    run = read_run(team.folder)
    assert roles(run) == {("master", True): 1, ("worker", True): 3}
    assert (run.manifest["state"], len(run.in_flight)) == ("complete", 0)
    all_accounted_for(run, apart.sandbox.client_requests())
    rows = np.unique(run.requests["incarnation"], return_counts=True)[1]
    assert len(rows) == 3 and rows.min() > 10
    for worker in workers_of(run):
        follows_the_master(run, worker)


@pytest.mark.root
@pytest.mark.parametrize("apart", [{"loss": True}], indirect=True, ids=[""])
def test_a_link_that_loses_packets_slows_a_worker_and_costs_no_row(apart: Apart) -> None:
    team = apart.team
    master = team.master("--time-scale", "30", *PACE, workers=2)
    near, far = team.worker("near"), team.worker("far")
    team.wait_for_rows(50)
    apart.lab.lose("far", 15)
    each_ended_in_order(master, near, far)
    run = read_run(team.folder)
    assert roles(run) == {("master", True): 1, ("worker", True): 2}
    assert (run.manifest["state"], len(run.in_flight)) == ("complete", 0)
    all_accounted_for(run, apart.sandbox.client_requests())
    check_replay(team.folder)


@pytest.mark.root
@pytest.mark.parametrize("apart", [{"clocks": True}], indirect=True, ids=[""])
def test_a_worker_whose_clock_is_wrong_and_is_set_by_90_s_goes_on_and_is_put_right(
    apart: Apart, tmp_path: Path
) -> None:
    team, clock = apart.team, WallClock(tmp_path / "clock", ahead_s=5)
    master = team.master("--time-scale", "30", *PACE, workers=2)
    near, far = team.worker("near"), team.worker("far", env=clock.env)
    team.wait_for_rows(100)
    for times in range(1, 6):  # Locust's own check would notice it only now and then
        clock.set(5 + 90 * times)
        wait(2)
    each_ended_in_order(master, near, far)
    run = read_run(team.folder)
    assert roles(run) == {("master", True): 1, ("worker", True): 2}
    all_accounted_for(run, apart.sandbox.client_requests())
    told = {clock["process"].split(".")[1]: clock for clock in run_in_bundle(team.folder)["clocks"]}
    assert sum(told["far"]["steps_s"]) == pytest.approx(5 * 90, abs=0.5)
    assert told["far"]["offset_s"] == pytest.approx(-5, abs=0.1 + told["far"]["uncertainty_s"])
    assert (told["far"]["corrected"], told["near"]["corrected"], told["near"]["steps_s"]) == (True, False, [])
    assert "its wall clock was set by +" in master.said
    for worker in workers_of(run):
        sent_under_their_decision(run, worker)
    check_replay(team.folder)


def sent_under_their_decision(run: Run, worker: int) -> None:
    """By the master's clock, what a worker sent under a decision was sent after it was made, and not long after."""
    decided = {int(d["tick"]): int(d["t_ns"]) for d in run.decisions}
    rows = run.requests[run.requests["incarnation"] == worker]
    rows = rows[np.isin(rows["decision_tick"], list(decided))]
    late_s = np.array([int(row["start_ns"]) - decided[int(row["decision_tick"])] for row in rows]) / 1e9
    assert len(late_s) > 20
    assert late_s.min() > -0.05 and np.median(late_s) < 1.5


def test_the_lab_says_why_there_can_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert why_not() == "network namespaces need root"

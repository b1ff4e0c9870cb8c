"""A master and its workers as real processes: their rows, the decisions they follow, and what they survive."""

import json
import os
import resource
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests

from rl_hooks.decision import SERVICES
from rl_hooks.observation import FEATURES
from rl_hooks.row import MISSING_U32
from rl_hooks.run_folder import read_incarnations, read_manifest
from rl_hooks.run_reader import Run, read_run
from scenario.plan import Plan
from tests.processes import (
    ROOT,
    Sandbox,
    answers,
    free_port,
    locust_started,
    rows_written,
    sandbox_started,
    wait_until,
)
from tests.replayed import check_replay
from tests.team import Team, exact_in, follows_the_master, roles, workers_of

pytestmark = pytest.mark.slow

LIMIT = 1 << 20  # bytes in one file: too few for the next segment of requests, enough for everything that is small


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with sandbox_started("--healthy") as running:
        yield running


def dataset_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "bundle" / "dataset.json").read_text())
    return content


def is_alive(process_group: int) -> bool:
    try:
        os.killpg(process_group, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_record_and_follow_the_masters_decisions(sandbox: Sandbox, tmp_path: Path) -> None:
    before = sandbox.client_requests()
    with Team(tmp_path, sandbox.host) as team:
        locust = team.forking()
        assert locust.ended() == 0, locust.said
    run = read_run(team.folder)
    assert roles(run) == {("master", True): 1, ("worker", True): 2}
    assert (run.losses, len(run.in_flight)) == ((), 0)
    assert len(run.requests) == sandbox.client_requests() - before
    for worker in workers_of(run):
        rows = run.requests[run.requests["incarnation"] == worker]
        assert (rows["decision_tick"] != MISSING_U32).mean() > 0.9  # the first decision comes with the first users
        follows_the_master(run, worker)
    assert exact_in(run) == {phase.name for phase in Plan.from_json(run.manifest["plan"]).phases}
    assert run.manifest["state"] == "complete"
    assert dataset_of(team.folder)["complete"] is True
    assert "Traceback" not in locust.said


def test_what_decisions_were_made_with_can_be_looked_at_again_and_is_what_the_bundle_has(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """Train and serve are one: the recorded observations, those replayed from the rows, and those of the bundle."""
    with Team(tmp_path, sandbox.host) as team:
        both = team.forking("--time-scale", "60")
        assert both.ended() == 0, both.said
    check_replay(team.folder)
    bundle = team.folder / "bundle"
    frame = pd.concat([pd.read_parquet(file) for file in sorted((bundle / "data").glob("[te]*/*.parquet"))])
    run = read_run(team.folder)
    for feature, row in ((feature, f"value_{index}") for index, feature in enumerate(FEATURES)):
        recorded = {
            (int(tick), SERVICES[service]): value
            for tick, service, value in zip(
                run.observations["tick"], run.observations["service"], run.observations[row], strict=True
            )
        }
        keys = zip(frame["decision_tick"], frame["service"], strict=True)
        expected = np.array([recorded[tick, service] for tick, service in keys], np.float32)
        np.testing.assert_array_equal(frame[f"obs.{feature.name}"].to_numpy(), expected)
    # The master hears of its workers' rows a little later, so it knew less than there was.
    knew, there_was = frame["obs.request_rate_rps"].sum(), frame["all.request_rate_rps"].sum()
    assert 0.8 * there_was < knew < there_was


def test_a_run_outlives_a_killed_worker_and_takes_in_a_late_one(sandbox: Sandbox, tmp_path: Path) -> None:
    before = sandbox.client_requests()
    with Team(tmp_path, sandbox.host) as team:
        interval = (
            "--decision-interval",
            "240",
        )  # 2 s, for which a late worker could miss the decision in force
        master = team.master("--time-scale", "120", "--stop-timeout", "1", *interval, workers=2)
        steady, doomed = team.worker("steady"), team.worker("doomed")
        team.wait_for_rows(200)
        doomed.process.send_signal(signal.SIGKILL)
        late = team.worker("late", "-f", f"{slow_to_begin(tmp_path)},{ROOT / 'locustfile.py'}")
        assert master.ended() == 0, master.said
        assert [steady.ended(), late.ended()] == [0, 0], steady.said + late.said
    run = read_run(team.folder)
    assert roles(run) == {("master", True): 1, ("worker", True): 2, ("worker", False): 1}
    (killed,) = (i for i, who in enumerate(run.incarnations) if not who.closed)
    assert f"not closed in order within 6 s: {run.incarnations[killed].name}" in master.said
    assert run.losses == ()
    assert set(run.in_flight["incarnation"]) <= {killed}
    received = sandbox.client_requests() - before
    assert len(run.requests) <= received <= len(run.requests) + len(run.in_flight)
    assert min(np.unique(run.requests["incarnation"], return_counts=True)[1]) > 20
    assert_joined_in_time(run)
    for worker in workers_of(run):
        follows_the_master(run, worker)
    assert Plan.from_json(run.manifest["plan"]).phases[-1].name in exact_in(run)
    exported = pd.read_parquet(team.folder / "bundle" / "data" / "requests")
    assert (exported["seq"].notna().sum(), exported["seq"].isna().sum()) == (len(run.requests), len(run.in_flight))
    assert "Traceback" not in master.said + steady.said + late.said


def slow_to_begin(folder: Path) -> Path:
    """A locustfile of somebody else, with which a worker is told to start before our own init has run."""
    file = folder / "slow.py"
    file.write_text(
        "import gevent\nfrom locust import events\n\n\n@events.init.add_listener\ndef _(**_):\n    gevent.sleep(0.5)\n"
    )
    return file


def assert_joined_in_time(run: Run) -> None:
    """The last worker to begin has the plan's phase and a decision from its first request on."""
    first = {worker: run.requests[run.requests["incarnation"] == worker][0] for worker in workers_of(run)}
    late = max(first.values(), key=lambda row: row["start_ns"])
    began_ns = next(event["t_ns"] - event["run_time_s"] * 1e9 for event in run.events if event["kind"] == "users")
    phase = Plan.from_json(run.manifest["plan"]).phase_at((int(late["start_ns"]) - began_ns) / 1e9)
    assert phase is not None
    assert run.names["phase"][late["phase_ref"]] == phase.name != "warm_up"
    rows = run.requests[run.requests["incarnation"] == late["incarnation"]]
    assert (rows["decision_tick"] != MISSING_U32).all()


def test_a_worker_that_cannot_keep_rows_ends_the_run(sandbox: Sandbox, tmp_path: Path) -> None:
    before = sandbox.client_requests()
    with Team(tmp_path, sandbox.host) as team:
        master = team.master("--time-scale", "20", "--stop-timeout", "5", workers=2)
        healthy, broken = team.worker("healthy"), team.worker("broken")
        team.wait_for_rows(100)
        resource.prlimit(broken.process.pid, resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
        assert master.ended() == 3, master.said
        assert [healthy.ended(), broken.ended()] == [0, 3], healthy.said + broken.said
    fault = f"{team.folder}: no more room for rows (File too large); free some space and start again"
    assert f"run stopped: worker: {fault}" in master.said
    assert f"run stopped: {fault}" in broken.said
    run = read_run(team.folder)
    assert (run.manifest["state"], run.manifest["fault"]) == ("interrupted", f"worker: {fault}")
    assert roles(run) == {("master", True): 1, ("worker", True): 2}
    assert run.losses == ()
    assert len(run.requests) == sandbox.client_requests() - before
    assert dataset_of(team.folder)["runs"][0]["state"] == "interrupted"
    assert "Traceback" not in master.said + healthy.said + broken.said


def test_a_worker_that_cannot_join_ends_the_run(sandbox: Sandbox, tmp_path: Path) -> None:
    with Team(tmp_path, sandbox.host) as team:
        master = team.master("--time-scale", "20", "--stop-timeout", "5", workers=1)
        worker = team.worker("worker")
        resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
        assert master.ended() == 3, master.said
        assert worker.ended() == 3, worker.said
    fault = f"{team.folder}: cannot be written (File too large)"
    assert f"run stopped: worker: {fault}" in master.said
    assert f"run stopped: {fault}" in worker.said
    assert "Traceback" not in master.said + worker.said


def test_a_wrong_start_ends_master_and_workers(sandbox: Sandbox, tmp_path: Path) -> None:
    with Team(tmp_path, "http://127.0.0.1:9/proxy") as team:
        locust = team.forking()
        assert locust.ended() == 2, locust.said
        assert locust.said.count("target http://127.0.0.1:9/proxy: 5 of 5 services are not ready") == 1
        wait_until(lambda: not is_alive(locust.process.pid), "the workers have ended, too")
    assert not team.folder.exists()
    assert "Traceback" not in locust.said


def test_a_master_with_a_web_ui_waits_for_workers_stops_and_starts_again(sandbox: Sandbox, tmp_path: Path) -> None:
    web, bind = free_port(), str(free_port())
    url = f"http://127.0.0.1:{web}"
    where = ("--web-host", "127.0.0.1", "--web-port", str(web), "--host", sandbox.host, "--stop-timeout", "2")
    options = ("--master", "--master-bind-port", bind, "--time-scale", "20", *where)
    with (
        locust_started(tmp_path / "master.log", *options) as master,
        locust_started(tmp_path / "worker.log", "--worker", "--master-port", bind) as worker,
    ):
        worker.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: answers(url), "the web UI answers")
        folders = tmp_path / "runs"

        def press(button: str) -> None:
            assert requests.post(f"{url}/{button}", data={}, timeout=60).json()["success"], master.said

        press("swarm")
        (unbegun,) = folders.iterdir()
        press("stop")
        said = f"run ended before it began: {Path('runs') / unbegun.name}"
        wait_until(lambda: said in master.said, "the run that never began has ended")
        assert read_manifest(unbegun)["state"] == "interrupted"

        worker.process.send_signal(signal.SIGCONT)
        done = {unbegun}
        for _ in range(2):
            press("swarm")
            (folder,) = set(folders.iterdir()) - done
            done.add(folder)
            wait_until(lambda folder=folder: rows_written(folder) > 50, "rows are written")
            press("stop")
            wait_until(lambda folder=folder: read_manifest(folder)["state"] == "interrupted", "the run has ended")
            assert Counter(who.role for who in read_incarnations(folder)) == {"master": 1, "worker": 1}
            assert all(who.closed for who in read_incarnations(folder))
            assert read_run(folder).losses == ()
        wait_until(lambda: master.said.count("reported as ready") == 3, "the worker has rested and is ready again")
        master.process.send_signal(signal.SIGINT)
        assert [master.ended(), worker.ended()] == [1, 0], master.said + worker.said
    assert "Traceback" not in master.said + worker.said

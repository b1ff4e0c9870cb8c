"""Faults and chaos in whole runs: really made, at the right minute, lifted however the run ends, and in the data."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
import yaml

from rl_hooks.export.align import plan_start_ns
from rl_hooks.run_reader import read_run
from scenario.plan import Plan
from tests.processes import ROOT, Locust, Sandbox, locust_started, sandbox_started, wait_until

pytestmark = pytest.mark.slow

QUICK = ROOT / "configs" / "quick_validation_config.yaml"
SLOW_CART = {"simulated_conditions": {"cart-service": {"latency_factor": 4}}}
LIFTED_AT_ONCE_S = 20


def scenario_file(folder: Path, change: Callable[[list[dict[str, Any]]], None]) -> Path:
    """The quick scenario with changed phases: thirty nominal minutes in three phases."""
    content = yaml.safe_load(QUICK.read_text())
    change(content["rl_training_scenarios"]["training_scenarios"]["quick_validation"]["traffic_patterns"])
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def slow_cart_from_the_second_phase_on(phases: list[dict[str, Any]]) -> None:
    phases[1].update(SLOW_CART)


def always_slow(phases: list[dict[str, Any]]) -> None:
    phases[0].update(SLOW_CART)


def headless(folder: Path, file: Path, sandbox: Sandbox, *options: str) -> Any:
    arguments = [
        "--headless",
        "--scenario-file",
        str(file),
        "--host",
        sandbox.host,
        "--run-folder",
        str(folder / "run"),
    ]
    return locust_started(folder / "locust.log", *arguments, *options)


def acting(sandbox: Sandbox) -> list[tuple[str, str]]:
    url = sandbox.host.replace("/proxy", "/control/faults")
    return [(one["service"], one["kind"]) for one in requests.get(url, timeout=10).json()["faults"]]


def changes(folder: Path) -> list[tuple[str, int]]:
    return [(one["what"], one["fault"]) for one in read_run(folder / "run").events if one["kind"] == "fault"]


def wait_for_the_fault(locust: Locust, sandbox: Sandbox, folder: Path) -> None:
    wait_until(lambda: acting(sandbox) == [("cart-service", "latency")], "the cart is slow")
    wait_until(lambda: changes(folder) == [("applied", 0)], "that is written down")
    assert locust.process.poll() is None


def test_a_fault_acts_inside_the_instances_in_its_time_alone_and_the_bundle_says_so(tmp_path: Path) -> None:
    def change(phases: list[dict[str, Any]]) -> None:
        phases[1]["failure_timeline"] = [
            {"minute": 2, "duration_minutes": 6, "service": "cart", "latency_factor": 6, "error_rate": 0.5}
        ]

    with sandbox_started("--healthy") as sandbox:
        options = ("--time-scale", "90", "--logs", str(tmp_path / "logs"))
        with headless(tmp_path, scenario_file(tmp_path, change), sandbox, *options) as locust:
            assert locust.ended() == 0, locust.said
        assert acting(sandbox) == []
    facts = json.loads((tmp_path / "run" / "bundle" / "dataset.json").read_text())["runs"][0]["faults"]
    assert (facts["planned"], facts["applied"], facts["lifted"], facts["injector"]) == (2, 2, 2, "sandbox")
    run = read_run(tmp_path / "run")
    plan = Plan.from_json(run.manifest["plan"])
    for one in facts["changes"]:  # minute 12 and minute 18 of the scenario; never early, late by its call alone
        assert one["planned_s"] == pytest.approx(plan.faults[one["fault"]].start_s if one["what"] == "applied" else 12)
        assert 0 <= one["t_s"] - one["planned_s"] < 2
    times = {(one["what"], one["fault"]): one["t_s"] for one in facts["changes"]}
    frame = pd.concat([pd.read_parquet(file) for file in (tmp_path / "run" / "bundle" / "data").glob("t*/*.parquet")])
    both = "cart-service latency 6; cart-service errors 0.5"
    assert set(frame["faults"]) >= {"", both}
    began, over = max(times["applied", 0], times["applied", 1]), min(times["lifted", 0], times["lifted", 1])
    inside = frame[(frame["t_s"] >= began) & (frame["t_s"] < over)]
    assert set(inside["faults"]) == {both}
    assert set(frame[frame["t_s"] < 7]["faults"]) == {""}
    requests_ = run.requests
    t_s = (requests_["start_ns"] - plan_start_ns(run)) / 1e9
    cart, during = requests_["service"] == 2, (t_s >= began) & (t_s < over)
    calm = (t_s < times["applied", 0] - 1) | (t_s > times["lifted", 0] + 2)
    assert (requests_["ok"][cart & during] == 0).mean() > 0.3  # half of them fail at each try
    assert (requests_["ok"][~cart & calm] == 1).all()
    good = requests_["ok"] == 1
    slow, normal = (np.median(requests_["upstream_us"][cart & good & when]) for when in (during, calm))
    assert slow > 3 * normal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_leaves_no_fault_behind(tmp_path: Path, number: signal.Signals) -> None:
    with sandbox_started("--healthy") as sandbox:
        file = scenario_file(tmp_path, always_slow)
        with headless(tmp_path, file, sandbox, "--time-scale", "20", "--no-export") as locust:
            wait_for_the_fault(locust, sandbox, tmp_path)
            locust.process.send_signal(number)
            assert locust.ended() == 1
        assert acting(sandbox) == []
        assert "fault lifted: cart-service latency 4" in locust.said
    assert changes(tmp_path) == [("applied", 0), ("lifted", 0)]


def test_a_run_that_is_killed_leaves_no_fault_behind(tmp_path: Path) -> None:
    with sandbox_started("--healthy") as sandbox:
        file = scenario_file(tmp_path, always_slow)
        with headless(tmp_path, file, sandbox, "--time-scale", "20", "--processes", "2") as locust:
            wait_for_the_fault(locust, sandbox, tmp_path)
            locust.process.kill()
            wait_until(lambda: acting(sandbox) == [], "the fault is lifted")
    wait_until(lambda: changes(tmp_path) == [("applied", 0), ("lifted", 0)], "that is written down")


def test_a_run_whose_fault_agent_is_killed_ends_and_the_fault_is_lifted(tmp_path: Path) -> None:
    with sandbox_started("--healthy") as sandbox:
        file = scenario_file(tmp_path, always_slow)
        with headless(tmp_path, file, sandbox, "--time-scale", "20", "--no-export") as locust:
            wait_for_the_fault(locust, sandbox, tmp_path)
            (agent,) = (tmp_path / "run" / "processes").glob("faults.*.json")
            subprocess.run(["kill", "-9", str(json.loads(agent.read_text())["pid"])], check=True)
            assert locust.ended() == 1
        assert acting(sandbox) == []
    assert "run stopped: the fault agent is gone" in locust.said
    assert "run failed: the fault agent was ended by signal 9; what it had applied was lifted" in locust.said
    assert changes(tmp_path) == [("applied", 0), ("lifted", 0)]


def test_a_scenario_with_faults_does_not_start_where_nothing_makes_them(tmp_path: Path) -> None:
    with sandbox_started("--healthy") as sandbox:
        file = scenario_file(tmp_path, always_slow)
        with headless(tmp_path, file, sandbox, "--fault-injector", "none") as locust:
            assert locust.ended() == 2
        assert sandbox.client_requests() == 0
        assert (
            "the scenario has 1 faults, the first is cart-service latency 4, and nothing is known that makes faults in "
            f"{sandbox.host}; name what makes them with --fault-injector, or leave them out with --no-faults"
        ) in locust.said
        assert not (tmp_path / "run").exists()
        options = ("--fault-injector", "none", "--no-faults", "--logs", str(tmp_path / "logs"))
        with headless(tmp_path, file, sandbox, *options) as locust:
            assert locust.ended() == 0, locust.said
    assert "faults       left out on request (--no-faults)" in locust.said
    facts = json.loads((tmp_path / "run" / "bundle" / "dataset.json").read_text())["runs"][0]["faults"]
    assert (facts["without_faults"], facts["planned"], facts["changes"]) == (True, 0, [])


def test_an_http_template_makes_the_faults_of_a_whole_run(tmp_path: Path) -> None:
    """The sandbox's own control API, as somebody would describe the one of their system."""
    (tmp_path / "faults.yaml").write_text(
        "faults:\n"
        "  latency:\n"
        "    apply: POST /control/faults\n"
        '    body: {service: "{service}", kind: "{kind}", value: "{value}"}\n'
        "    handle: id\n"
        "    lift: DELETE /control/faults/{handle}\n"
    )
    injector = f"http:{tmp_path / 'faults.yaml'}"
    with sandbox_started("--healthy") as sandbox:
        file = scenario_file(tmp_path, slow_cart_from_the_second_phase_on)
        with headless(tmp_path, file, sandbox, "--fault-injector", injector, "--no-export") as locust:
            wait_until(lambda: acting(sandbox) == [("cart-service", "latency")], "the cart is slow")
            assert locust.ended() == 0, locust.said
        assert acting(sandbox) == []
    assert changes(tmp_path) == [("applied", 0), ("lifted", 0)]
    assert read_run(tmp_path / "run").manifest["faults"]["injector"] == injector


def test_a_run_follows_its_chaos(tmp_path: Path) -> None:
    def change(phases: list[dict[str, Any]]) -> None:
        phases[0].update(
            concurrent_users=10,
            chaos_parameters={"user_variance": 0.2, "think_time_variance": 0.5, "change_every_seconds": 200},
            ramp_up_time_seconds=10,
        )

    with sandbox_started("--healthy") as sandbox:
        file = scenario_file(tmp_path, change)
        with headless(tmp_path, file, sandbox, "--time-scale", "45", "--no-export") as locust:
            assert locust.ended() == 0, locust.said
    run = read_run(tmp_path / "run")
    plan = Plan.from_json(run.manifest["plan"])
    assert [one.name for one in plan.segments] == ["quick_browsing"] * 3 + ["quick_purchases", "quick_wind_down"]
    assert len({one.users for one in plan.segments[:3]}) > 1
    users = [event for event in run.events if event["kind"] == "users"]
    settled = [
        event
        for event in users
        if (segment := plan.segment_at(event["run_time_s"])) is not None
        and event["run_time_s"] > segment.start_s + segment.ramp_s + 2.5
    ]
    stretch_s = 200 / 45
    assert {event["run_time_s"] // stretch_s for event in settled if event["run_time_s"] < 3 * stretch_s} == {0, 1, 2}
    for event in settled:
        segment = plan.segment_at(event["run_time_s"])
        assert segment is not None
        assert event["counts"] == segment.mix

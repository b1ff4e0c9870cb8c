"""Runs with other actions than the six strategies, with the real Locust, sandbox, export, report card and formats."""

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests

from rl_hooks.action_space import ActionSpace
from rl_hooks.decision import SERVICES
from rl_hooks.export.formats.source import read_bundle
from rl_hooks.live import LiveWindow
from rl_hooks.observation import Spans, features_of
from rl_hooks.record.options import OPTIONS, make_setup
from rl_hooks.run_folder import read_manifest
from rl_hooks.run_reader import Run, read_run
from tests.processes import ROOT, TIMEOUT_S, Sandbox, locust_started, sandbox_started, wait_until
from tests.replayed import check_replay

DOWN = "cart-service-2"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with sandbox_started("--healthy") as running:
        yield running


@pytest.fixture(scope="module")
def recorded(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One whole run of a master with two workers: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("pinned") / "run"
    options = ("--host", sandbox.host, "--run-folder", str(folder), "--logs", str(folder.parent / "logs"))
    pinned = ("--action-space", "instances", "--logging-policy", "epsilon:0.5:sticky:0.5", "--time-scale", "90")
    with locust_started(folder.parent / "log", "--headless", "--processes", "2", *options, *pinned) as locust:
        assert locust.ended() == 0, locust.said
    return folder, locust.said


def served_by(run: Run) -> "np.ndarray[tuple[int], np.dtype[np.object_]]":
    return np.array(run.names["instance"], object)[run.requests["instance_ref"]]


def asked_for(run: Run) -> "np.ndarray[tuple[int], np.dtype[np.object_]]":
    space = ActionSpace.of(run.manifest)
    names = np.array(space.names, object)  # the sandbox has as many instances of each service
    return names[run.requests["service"], run.requests["action_requested"]]


def test_the_instances_are_taken_before_the_run_and_told(recorded: tuple[Path, str]) -> None:
    folder, printed = recorded
    space = ActionSpace.of(read_manifest(folder))
    assert space.names == tuple(tuple(f"{service}-{number}" for number in (1, 2, 3)) for service in SERVICES)
    assert "actions: an instance of the service, pinned by X-LB-Pin (user-service 3, inventory-service 3" in printed
    assert "actuator header" in printed


def test_every_request_is_served_by_the_instance_that_was_drawn(recorded: tuple[Path, str]) -> None:
    run = read_run(recorded[0])
    sent = run.requests["action_requested"] != 255
    assert sent.sum() > 500
    served = served_by(run)[sent]
    assert (served == asked_for(run)[sent]).all()
    assert len(set(served)) == 15


def test_what_was_observed_is_observed_again_with_the_features_of_each_instance(recorded: tuple[Path, str]) -> None:
    check_replay(recorded[0])
    bundle = read_bundle(recorded[0] / "bundle")
    assert bundle.actions == ("instance_1", "instance_2", "instance_3")
    frame = bundle.parts["train"].frame
    for gauge in ("cpu", "health", "queue_depth", "in_flight"):
        assert frame[f"obs.instance_3_{gauge}"].notna().all()
    last = frame[frame["step"] > 0]
    held = last[[f"obs.previous_action_{name}" for name in bundle.actions]]
    assert (held.sum(axis=1) == 1).all()


def test_the_bundle_has_the_instances_and_exact_propensities(recorded: tuple[Path, str]) -> None:
    bundle = read_bundle(recorded[0] / "bundle")
    frame = pd.concat([part.frame for part in bundle.parts.values()])
    assert set(frame["action_name"]) == {f"{service}-{number}" for service in SERVICES for number in (1, 2, 3)}
    probabilities = np.stack(frame["action_probs"].to_list())
    assert probabilities.shape[1] == 3
    drawn = probabilities[np.arange(len(frame)), frame["action"]]
    np.testing.assert_allclose(drawn, frame["propensity"], rtol=1e-6)
    assert (frame["propensity"] >= 0.5 / 3 - 1e-6).all()
    assert not frame["action_differs"].any()
    assert (recorded[0] / "bundle" / "report_card.json").is_file()


def test_formats_follow(recorded: tuple[Path, str]) -> None:
    command = [sys.executable, "-m", "rl_hooks.export.formats", str(recorded[0] / "bundle")]
    command += ["--format", "bandit,jsonl,rllib,npz"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(recorded[0] / "bundle" / "formats" / "bandit" / "train.npz") as rounds:
        assert rounds["n_actions"] == 3
        assert rounds["pi_b"].shape[1:] == (3, 1)


def test_a_fixed_instance_that_crashes_leaves_failures_in_the_data_and_no_other_action(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """The sandbox sends to a pinned instance even when it is down: that is what the action leads to."""
    folder = tmp_path / "run"
    options = ("--host", sandbox.host, "--run-folder", str(folder), "--logs", str(tmp_path), "--time-scale", "120")
    with locust_started(
        tmp_path / "log", "--headless", "--action-space", "instances", "--logging-policy", DOWN, *options
    ) as locust:
        wait_until(lambda: "cart-service" in locust.said and (folder / "requests").exists(), "the run has begun")
        fault = {"service": "cart-service", "instance": DOWN, "kind": "crash", "duration_s": 5}
        answer = requests.post(sandbox.host.replace("/proxy", "/control/faults"), json=fault, timeout=10)
        assert answer.ok, answer.text
        assert locust.ended() == 0, locust.said
    run = read_run(folder)
    cart = (run.requests["service"] == SERVICES.index("cart-service")) & (run.requests["action_requested"] != 255)
    assert set(asked_for(run)[cart]) == {DOWN}
    assert (run.requests["ok"][cart] == 0).any()
    assert set(served_by(run)[cart]) <= {DOWN, ""}
    others = run.decisions["service"] != SERVICES.index("cart-service")
    assert np.allclose(run.decisions["propensity"][others], 1 / 3)


def test_without_metrics_the_balancer_lists_the_instances_and_their_features_are_missing(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    usual = {flag.removeprefix("--").replace("-", "_"): about.get("default") for flag, about in OPTIONS.items()}
    asked = {"action_space": "instances", "metrics_source": "none", "logs": str(tmp_path), "no_faults": True}
    setup = make_setup(Namespace(**{**usual, **asked}), sandbox.host)
    assert setup.space.names[2] == tuple(f"cart-service-{number}" for number in (1, 2, 3))
    window = LiveWindow(Spans.of_seconds(10, 2), 10**9, setup.space)
    seen = window.observe(10**9, None)
    names = [feature.name for feature in features_of(setup.space.labels)]
    assert np.isnan(seen[:, [names.index(name) for name in names if name.startswith("instance_")]]).all()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            ("--actuator", "sandbox"),
            "--action-space instances: instances are pinned by a header of each request, and --actuator sandbox sends",
        ),
        (("--logging-policy", "cart-service-9"), "policy cart-service-9: is not a known name"),
    ],
)
def test_a_run_that_cannot_pin_is_refused_before_it(
    sandbox: Sandbox, tmp_path: Path, options: tuple[str, ...], complaint: str
) -> None:
    with locust_started(
        tmp_path / "log", "--headless", "--host", sandbox.host, "--action-space", "instances", *options
    ) as locust:
        assert locust.ended() == 2
    assert complaint in locust.said


def test_a_balancer_with_four_strategies_and_one_switch(sandbox: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    parts = ("--actuator", "tests.one_switch:OneSwitch", "--logging-policy", "sticky:0.3", "--time-scale", "120")
    options = ("--headless", "--host", sandbox.host, "--run-folder", str(folder), *parts)
    with locust_started(tmp_path / "log", *options, env={"PYTHONPATH": str(ROOT)}) as locust:
        assert locust.ended() == 0, locust.said
    assert "not in this balancer: circuit_breaker, backpressure" in locust.said
    assert "one decision for all services: the balancer has one switch" in locust.said
    run = read_run(folder)
    assert run.decisions["actuated"].all()
    by_tick = run.decisions["action"].reshape(-1, len(SERVICES))
    assert (by_tick == by_tick[:, :1]).all()
    assert set(by_tick.ravel()) == {0, 1, 2, 3}
    told = run.requests["action_applied"] != 255
    assert told.any()
    assert set(run.requests["action_applied"][told]) <= {0, 1, 2, 3}
    bundle = read_bundle(folder / "bundle")
    assert bundle.facts["action_space"]["one_for_all"]
    masks = np.stack(bundle.parts["train"].frame["action_mask"].to_list())
    assert (masks == [True] * 4 + [False] * 2).all()
    card = json.loads((folder / "bundle" / "report_card.json").read_text())
    assert "Not in this balancer: circuit_breaker, backpressure." in json.dumps(card)

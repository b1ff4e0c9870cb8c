"""A policy that serves: a real sandbox, real traffic, metrics over HTTP, and a run folder that is exported."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.export.__main__ import main as export
from rl_hooks.export.verify.__main__ import main as verify
from rl_hooks.observation import FEATURE_INDEX, FEATURES
from rl_hooks.run_reader import Run, read_run
from tests import tiny_policy
from tests.processes import ROOT, Sandbox, free_port, sandbox_started, wait_until
from training.serve import main

pytestmark = pytest.mark.training
pytest.importorskip("onnxruntime", reason="needs the extra `train`")
pytest.importorskip("onnx", reason="needs the extra `train`")
pytest.importorskip("prometheus_client", reason="needs the extra `train`")

EXPLORE = 0.5
SECONDS_OF_TRAFFIC = 12.0
INTERVAL_S = 0.25


@dataclass
class Serving:
    """A running `training.serve`."""

    process: "subprocess.Popen[str]"
    said: Path
    address: str

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric, summed over what has these labels; 0 when there is none yet."""
        total = 0.0
        for line in requests.get(f"{self.address}/metrics", timeout=10).text.splitlines():
            found = re.fullmatch(rf"{name}(?:{{(.*)}})? (\S+)", line)
            if found and labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', found[1] or "")).items():
                total += float(found[2])
        return total

    def health(self) -> int:
        return requests.get(f"{self.address}/healthz", timeout=10).status_code

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def serving_started(log: Path, *arguments: str) -> Iterator[Serving]:
    port, said = free_port(), log.with_suffix(".said")
    command = [sys.executable, "-m", "training.serve", *arguments, "--metrics-port", str(port)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with said.open("w") as file:
        process = subprocess.Popen(command, cwd=log.parent, stdout=file, stderr=file, text=True, env=env)
    try:
        serving = Serving(process, said, f"http://127.0.0.1:{port}")
        wait_until(lambda: process.poll() is not None or "metrics: " in said.read_text(), "it serves")
        assert process.poll() is None, said.read_text()
        yield serving
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(30)


@contextmanager
def traffic(host: str) -> Iterator[None]:
    """One shopper who looks at things, some sixty requests a second, until the end of the block."""
    over = threading.Event()
    session = requests.Session()
    account = {"email": "ann@example.org", "password": "correct horse", "firstName": "Ann", "lastName": "Test"}
    session.post(f"{host}/user-service/api/users/register", json=account, timeout=10)
    token = session.post(f"{host}/user-service/api/users/login", json=account, timeout=10).json()["token"]
    session.headers["Authorization"] = f"Bearer {token}"
    paths = [
        "inventory-service/api/inventory/products/category/books",
        "cart-service/api/cart",
        "order-service/api/orders/user",
        "user-service/api/users/me",
    ]

    def shop() -> None:
        while not over.is_set():
            for path in paths:
                session.get(f"{host}/{path}", timeout=30)
            over.wait(0.02)

    thread = threading.Thread(target=shop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        session.close()


@dataclass(frozen=True)
class Served:
    """What came of the one run that all tests look at."""

    run: Run
    folder: Path
    policy: Path
    said: str
    exit_code: int
    scraped: dict[str, float]
    client_requests: int
    health: dict[str, int]
    left_with: set[str]


def actions_of(sandbox: Sandbox) -> set[str]:
    state = requests.get(sandbox.host.replace("/proxy", "/state"), timeout=10).json()
    return {report["action"] for report in state["services"].values()}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Fresh telemetry, then a sandbox that stands still, then fresh telemetry again, then SIGTERM."""
    place = tmp_path_factory.mktemp("served")
    policy = tiny_policy.save(
        place / "policy.onnx",
        tiny_policy.weights({"service_cart-service": {"least_loaded": 9.0}, "in_flight": {"fastest_response": 0.1}}),
        {"weighted_capacity": 0.5},
        tiny_policy.schema(window_s=2.0, decision_interval_s=INTERVAL_S),
    )
    log, folder, health = place / "access.log", place / "run", dict[str, int]()
    with sandbox_started("--healthy", "--time-scale", "10", "--access-log", str(log)) as sandbox:
        parts = ("--host", sandbox.host, "--source", "sandbox", "--actuator", "sandbox", "--requests", str(log))
        options = ("--explore", str(EXPLORE), "--run-folder", str(folder), "--seed", "11", "--stale-after", "1.5")
        with serving_started(log, f"onnx:{policy.name}", *parts, *options) as serving:
            with traffic(sandbox.host):
                wait_until(lambda: serving.metric("rl_serve_fallback_active") == 0, "the policy decides")
                time.sleep(SECONDS_OF_TRAFFIC / 2)
                health["fresh"] = serving.health()
                os.kill(sandbox.process.pid, signal.SIGSTOP)
                try:
                    wait_until(lambda: serving.metric("rl_serve_fallback_active") == 1, "the fallback decides")
                    wait_until(lambda: serving.health() == 503, "it is not in time")
                finally:
                    os.kill(sandbox.process.pid, signal.SIGCONT)
                wait_until(lambda: serving.metric("rl_serve_fallback_active") == 0, "the policy decides again")
                wait_until(lambda: serving.health() == 200, "it is in time again")
                time.sleep(SECONDS_OF_TRAFFIC / 2)
            time.sleep(3 * INTERVAL_S)  # until the last lines are read
            wanted = ("rl_serve_decisions_total", "rl_serve_rows_total", "rl_serve_errors_total")
            scraped = {name: serving.metric(name) for name in wanted}
            scraped["requests"] = serving.metric("rl_serve_rows_total", table="requests")
            scraped["source"] = serving.metric("rl_serve_errors_total", part="source")
            scraped["age"] = serving.metric("rl_serve_telemetry_age_seconds", kind="sample")
            scraped["no_sample"] = serving.metric("rl_serve_fallbacks_total", reason="no_sample")
            code = serving.stop()
        left_with, asked = actions_of(sandbox), sandbox.client_requests()
    return Served(read_run(folder), folder, policy, serving.said.read_text(), code, scraped, asked, health, left_with)


def names(run: Run) -> Any:
    return np.array(run.names["policy"], object)[run.decisions["policy_ref"]]


def distribution(run: Run) -> Any:
    return np.column_stack([run.decisions[f"prob_{index}"] for index in range(len(ACTIONS))])


def test_it_says_who_decides_once_per_change_and_ends_in_order(served: Served) -> None:
    told = re.findall(r"training\.serve: (\S+) decides: telemetry is (stale|fresh)", served.said)
    trained = read_name(served)
    assert [who for who, _ in told] in (
        [trained, "backpressure", trained],
        ["backpressure", trained, "backpressure", trained],
        ["backpressure", trained, "backpressure", "backpressure", trained],
        [trained, "backpressure", "backpressure", trained],
    )
    assert "there is no metrics sample" in served.said
    assert "training.serve: ended: the balancer is left with backpressure" in served.said
    assert (served.exit_code, served.run.manifest["state"], served.run.losses) == (0, "complete", ())
    assert served.left_with == {"backpressure"}
    assert served.health == {"fresh": 200}


def read_name(served: Served) -> str:
    return str(served.run.manifest["serving"]["policy"])


def test_every_decision_has_the_name_and_the_exact_distribution_of_who_made_it(served: Served) -> None:
    from rl_hooks.policies.onnx import OnnxPolicy

    run, policy = served.run, OnnxPolicy(served.policy)
    by_policy = names(run) == f"epsilon:0.5:{policy.describe()}"
    by_fallback = names(run) == "epsilon:0.5:fixed:backpressure"
    assert (by_policy | by_fallback).all()
    assert by_policy.sum() > 100 and by_fallback.sum() >= 2 * len(SERVICES)
    fallback = [EXPLORE / 6] * 5 + [1 - EXPLORE + EXPLORE / 6]
    assert distribution(run)[by_fallback] == pytest.approx(np.tile(fallback, (by_fallback.sum(), 1)))
    assert np.array_equal(run.observations[["tick", "service"]], run.decisions[["tick", "service"]])
    seen = np.column_stack([run.observations[f"value_{index}"] for index in range(len(FEATURES))])[by_policy]
    best = policy.values(seen).argmax(axis=1)
    expected = EXPLORE / 6 + (1 - EXPLORE) * np.eye(len(ACTIONS))[best]
    assert distribution(run)[by_policy] == pytest.approx(expected)
    taken = run.decisions["action"].astype(int)
    assert run.decisions["propensity"] == pytest.approx(distribution(run)[np.arange(len(taken)), taken])
    assert set(best[run.decisions["service"][by_policy] == SERVICES.index("cart-service")]) == {0}


def test_what_was_drawn_is_drawn_with_the_probabilities_that_are_written(served: Served) -> None:
    """E[1 / (6 p)] = 1 over the action drawn: within five standard errors (by chance one run in two million fails)."""
    weight = 1 / (6 * served.run.decisions["propensity"].astype(float))
    assert abs(weight.mean() - 1) < 5 * weight.std() / np.sqrt(len(weight))


def test_every_request_of_the_log_is_a_row_with_the_action_that_was_applied(served: Served) -> None:
    rows = served.run.requests
    assert len(rows) == served.scraped["requests"]
    assert abs(served.client_requests - len(rows) - len(served.run.in_flight)) <= 2  # register and login came before
    told = rows["action_requested"] < len(ACTIONS)
    same = rows["action_applied"][told] == rows["action_requested"][told]
    assert same.mean() > 0.9  # the balancer hears of a decision a moment before it counts as in force
    assert set(np.array(served.run.names["endpoint"], object)[rows["endpoint_ref"]]) >= {"GET /api/cart"}


def test_the_policy_saw_what_a_live_run_would_have_shown_it(served: Served) -> None:
    run = served.run
    late = run.observations[run.observations["tick"] > 8]
    cart = late[late["service"] == SERVICES.index("cart-service")]
    rate = cart[f"value_{FEATURE_INDEX['request_rate_rps']}"]
    assert np.nanmax(rate) > 5
    assert np.isfinite(cart[f"value_{FEATURE_INDEX['in_flight']}"]).all()
    assert np.nanmin(cart[f"value_{FEATURE_INDEX['cpu_mean']}"]) >= 0


def test_the_metrics_tell_what_the_record_says(served: Served) -> None:
    scraped, rows = served.scraped, served.run.manifest
    assert scraped["no_sample"] >= 1 and scraped["source"] >= 1
    assert 0 <= scraped["age"] < 2
    decided = len(served.run.decisions)
    assert 0 <= decided - scraped["rl_serve_decisions_total"] <= 3 * len(SERVICES)
    assert rows["serving"]["explore"] == EXPLORE


def test_the_run_folder_is_exported_and_the_throughput_nobody_can_know_is_missing(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    assert export([str(served.folder), "--out", str(bundle), "--logs", str(tmp_path / "logs")]) == 0
    parts = [*bundle.glob("data/transitions/*.parquet"), *bundle.glob("data/excluded/*.parquet")]
    steps = pd.concat([pd.read_parquet(part) for part in parts])
    key = {(int(row["tick"]), int(row["service"])): row for row in served.run.decisions}
    kept = steps[steps["propensity"].notna()]
    services = kept["service"].astype(str).map(SERVICES.index)
    drawn = [key[who]["propensity"] for who in zip(kept["decision_tick"], services, strict=True)]
    assert kept["propensity"].to_numpy() == pytest.approx(np.array(drawn))
    assert set(steps["phase"].astype(str)) == {"serving"}
    measured = steps[(steps["n_requests"] > 0) & ~steps["reward_filled"]]
    assert len(measured) > 50
    assert measured["reward_throughput"].isna().all() and measured["reward_response_time"].notna().all()
    facts = json.loads((bundle / "dataset.json").read_text())
    assert facts["runs"][0]["serving"]["fallback"] == "backpressure"
    assert facts["decision_interval_s"] == INTERVAL_S
    assert "recorded while a policy served somebody else's traffic." in (bundle / "README.md").read_text()
    table = pd.read_parquet(bundle / "data" / "requests" / "requests.parquet")
    assert table["user_action"].isna().all()
    capsys.readouterr()
    assert verify([str(served.folder)]) == 2
    assert "a policy served real traffic here, so no traffic was planned" in capsys.readouterr().err


class Deaf:
    """A source that never answers, and a balancer that does not listen."""

    def __init__(self, root: str) -> None:
        assert root == "http://127.0.0.1:9"

    def describe(self) -> str:
        return "deaf"

    def sample(self) -> None:
        raise TimeoutError("no answer")

    def apply(self, actions: Any) -> None:
        raise ConnectionError("not heard")


@pytest.fixture
def signals() -> Iterator[None]:
    """The handlers of this process, which serving replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_without_any_telemetry_it_still_serves_records_what_it_did_and_ends_after_its_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = ["--host", "http://127.0.0.1:9", "--source", f"{__name__}:Deaf", "--actuator", f"{__name__}:Deaf"]
    options = ["--scenario-file", "quick_validation_config.yaml", "--metrics-port", "0", "--fallback", "round_robin"]
    folder = tmp_path / "run"
    assert main(["uniform", *parts, *options, "--duration", "3.5", "--run-folder", str(folder)]) == 0
    told = capsys.readouterr()
    assert told.err.count("round_robin decides: telemetry is stale (there is no metrics sample)") == 1
    assert "ended: the balancer could not be left with round_robin (ConnectionError: not heard)" in told.err
    assert "requests: no access log, features of requests are not known" in told.out
    run = read_run(folder)
    assert set(names(run)) == {"fixed:round_robin"}
    assert run.decisions["propensity"].tolist() == [1.0] * len(run.decisions) == [1.0] * 2 * len(SERVICES)
    assert run.decisions["actuated"].tolist() == [0] * len(run.decisions)
    assert run.manifest["state"] == "complete"
    of_clients = [index for index, feature in enumerate(FEATURES) if feature.source == "client"]
    assert all(np.isnan(run.observations[f"value_{index}"]).all() for index in of_clients)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["uniform"], "name a scenario that does with --scenario-file FILE"),
        (["onnx:nowhere.onnx"], "nowhere.onnx: there is no such file"),
    ],
)
def test_what_cannot_be_served_is_refused_with_exit_code_2(
    given: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = ["--host", "http://127.0.0.1:9", "--source", "sandbox", "--actuator", "sandbox", "--metrics-port", "0"]
    assert main([*given, *parts]) == 2
    assert complaint in capsys.readouterr().err


def test_a_port_that_is_taken_and_a_folder_that_is_not_empty_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = ["--host", "http://127.0.0.1:9", "--source", "sandbox", "--actuator", "sandbox"]
    given = ["uniform", *parts, "--scenario-file", "quick_validation_config.yaml"]
    (tmp_path / "mine").write_text("text")
    assert main([*given, "--metrics-port", "0", "--run-folder", str(tmp_path)]) == 2
    assert "the run folder exists and is not empty" in capsys.readouterr().err
    assert main([*given, "--metrics-host", "192.0.2.1", "--run-folder", str(tmp_path / "new")]) == 2
    assert "--metrics-host 192.0.2.1 --metrics-port 9464: cannot listen there" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()

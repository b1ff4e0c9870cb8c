"""The web UI with a real Locust process and plain HTTP: what the start form offers, and what Start and Stop do."""

import http.server
import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from rl_hooks.run_folder import read_manifest
from rl_hooks.run_reader import Run, read_run
from tests.processes import (
    TIMEOUT_S,
    Locust,
    Sandbox,
    answers,
    free_port,
    locust_started,
    rows_written,
    sandbox_started,
    wait_until,
)

NOT_THERE = "http://127.0.0.1:9/proxy"
SLOW = "20"  # time scale of a run that goes on until it is stopped


@dataclass(frozen=True)
class WebUi:
    """Locust with its web UI, in a folder of its own."""

    url: str
    locust: Locust
    folder: Path

    def template(self) -> dict[str, Any]:
        page = requests.get(self.url, timeout=30).text
        found = re.search(r"window\.templateArgs = (.*?);?\n", page)
        assert found is not None, page
        arguments: dict[str, Any] = json.loads(found[1])
        return arguments

    def start(self, **fields: object) -> dict[str, Any]:
        """What Start answers. Like the page, it posts every field of the form as text, also those left empty."""
        template = self.template()
        form = {name: option["default_value"] for name, option in template["extra_options"].items()}
        form |= {"host": template["host"], "scenario": "quick_validation", **fields}
        data = {name: "" if value is None else str(value) for name, value in form.items()}
        response = requests.post(f"{self.url}/swarm", data=data, timeout=60)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def stop(self) -> None:
        assert requests.post(f"{self.url}/stop", timeout=60).json()["success"]

    def runs(self) -> list[Path]:
        return sorted((self.folder / "runs").glob("*"))

    def record(self, rows: int, **fields: object) -> Path:
        """The folder of a run that has been started and has that many rows."""
        before = set(self.runs())
        answer = self.start(**fields)
        assert answer["success"], answer
        (folder,) = set(self.runs()) - before
        wait_until(lambda: rows_written(folder) > rows, f"{rows} rows are written")
        return folder


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with sandbox_started("--healthy") as running:
        yield running


@contextmanager
def web_ui_started(folder: Path, host: str, *options: str) -> Iterator[WebUi]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    where = ("--web-host", "127.0.0.1", "--web-port", str(port), "--host", host)
    with locust_started(folder / "locust.log", *where, *options) as locust:
        wait_until(lambda: answers(url), f"the web UI answers: {locust.said}")
        yield WebUi(url, locust, folder)


def state_of(folder: Path) -> str:
    return str(read_manifest(folder)["state"])


def stopped(ui: WebUi, folder: Path) -> Run:
    ui.stop()
    wait_until(lambda: state_of(folder) != "running", "the manifest is closed")
    return read_run(folder)


@pytest.fixture(scope="module")
def web_ui(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUi]:
    """One web UI for all tests, so that each finds what the ones before it left."""
    with web_ui_started(tmp_path_factory.mktemp("web"), sandbox.host) as ui:
        yield ui


def test_the_start_form_offers_our_options(web_ui: WebUi, sandbox: Sandbox) -> None:
    template = web_ui.template()
    options = template["extra_options"]
    assert {name: option["default_value"] for name, option in options.items()} == {
        "scenario": None,
        "seed": 1,
        "time_scale": 180.0,
        "user_scale": 1.0,
        "decision_interval": None,
        "logging_policy": "uniform",
        "action_space": "strategies",
        "metrics_source": "auto",
        "actuator": "auto",
        "fault_injector": "auto",
        "no_faults": False,
    }
    assert options["scenario"]["choices"] == ["quick_validation"]
    assert options["action_space"]["choices"] == ["strategies", "instances"]
    assert all(option["help_text"] for option in options.values())
    assert template["host"] == sandbox.host
    assert template["hide_common_options"]  # users and spawn rate are the plan's


WRONG = [
    ({"scenario": "quick_validaton"}, "there is no scenario 'quick_validaton'. Did you mean 'quick_validation'?"),
    ({"time_scale": -1}, "time_scale: -1 is not a number between 0.000001 and 1000000. Give one such as 1 or 0.5."),
    ({"time_scale": "fast"}, "time_scale: 'fast' is not a number. Give one such as 1 or 0.5."),
    ({"user_scale": ""}, "user_scale: '' is not a number. Give one such as 1 or 0.5."),
    ({"seed": "1.5"}, "seed: '1.5' is not a whole number. Give one such as 1."),
    ({"no_faults": "perhaps"}, "no_faults: 'perhaps' is neither true nor false. Tick the box or leave it."),
    ({"fault_injector": "sandbx"}, "--fault-injector sandbx: is not a known name. Did you mean 'sandbox'?"),
    ({"decision_interval": "often"}, "decision_interval: 'often' is not a number. Give one such as 1 or 0.5."),
    ({"logging_policy": "unifrom"}, "policy unifrom: is not a known name. Did you mean 'uniform'?"),
    ({"host": NOT_THERE}, f"target {NOT_THERE}: 5 of 5 services are not ready"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG, ids=[" ".join(map(str, *f.items())) for f, _ in WRONG])
def test_a_start_that_cannot_be_is_answered_with_the_reason(
    web_ui: WebUi, sandbox: Sandbox, fields: dict[str, object], message: str
) -> None:
    runs, said = web_ui.runs(), len(web_ui.locust.said)
    answer = web_ui.start(**{"host": sandbox.host, **fields})
    assert not answer["success"]
    assert message in answer["message"]
    assert web_ui.runs() == runs
    assert "Traceback" not in web_ui.locust.said[said:]
    assert web_ui.locust.said[said:].count(message) <= 1  # once in the log, if Locust came to start at all
    assert web_ui.template()["user_count"] == 0


def test_stop_ends_a_run_in_order_and_the_next_start_is_a_run_of_its_own(web_ui: WebUi, sandbox: Sandbox) -> None:
    received = sandbox.client_requests()
    first = web_ui.record(100, host=sandbox.host, time_scale=SLOW, seed=7)
    run = stopped(web_ui, first)
    sent = len(run.requests)
    assert sandbox.client_requests() - received == sent
    assert run.manifest["state"] == "interrupted"
    assert run.manifest["seed"] == 7
    assert run.manifest["fault"] is None
    assert [who.closed for who in run.incarnations] == [True]
    assert (len(run.in_flight), run.losses) == (0, ())
    assert len(run.sessions) > 0
    wait_until(lambda: "run interrupted, not exported; do it with: python -m rl_hooks.export" in web_ui.locust.said, "")

    second = web_ui.record(100, host=sandbox.host, time_scale=SLOW, seed=8, decision_interval=12)
    run = stopped(web_ui, second)
    assert second != first
    assert (run.manifest["seed"], run.manifest["plan"]["decision_interval_s"]) == (8, 0.6)
    assert sandbox.client_requests() - received == sent + len(run.requests)
    assert len(read_run(first).requests) == sent
    assert min(run.decisions["tick"]) == 0


def test_a_start_after_a_refused_one_works_and_runs_to_its_end(web_ui: WebUi, sandbox: Sandbox) -> None:
    """In ten seconds; without a word of its own, the form's empty decision interval means the scenario's."""
    assert not web_ui.start(host=NOT_THERE)["success"]
    folder = web_ui.record(0, host=sandbox.host)
    wait_until(lambda: state_of(folder) == "complete", "the run is complete")
    run = read_run(folder)
    assert run.manifest["plan"]["decision_interval_s"] == 0.2
    assert (len(run.in_flight), run.losses) == (0, ())


def test_options_of_a_run_cannot_be_changed_while_it_goes_on(web_ui: WebUi, sandbox: Sandbox) -> None:
    folder = web_ui.record(100, host=sandbox.host, time_scale=SLOW)
    answer = web_ui.start(host=NOT_THERE)
    assert answer["message"] == "a run is going on, and its options cannot be changed; stop it first"
    assert web_ui.template()["host"] == sandbox.host  # new users would be sent there
    stopped(web_ui, folder)


def test_ctrl_c_ends_the_run_that_goes_on(tmp_path: Path) -> None:
    mine = ("--run-folder", str(tmp_path / "runs" / "mine"))
    with sandbox_started("--healthy") as target, web_ui_started(tmp_path, target.host, *mine) as ui:
        first = ui.record(100, time_scale=SLOW)
        stopped(ui, first)
        second = ui.record(100, time_scale=SLOW)
        ui.locust.process.send_signal(signal.SIGINT)
        assert ui.locust.ended() == 1, ui.locust.said
        assert (first.name, second.name) == ("mine", "mine-2")  # a name that is given is given to the first run
        assert state_of(second) == "interrupted"
        assert all(who.closed for who in read_run(second).incarnations)
        assert "Traceback" not in ui.locust.said


def test_a_manifest_that_cannot_be_closed_is_said(tmp_path: Path) -> None:
    with sandbox_started("--healthy") as target, web_ui_started(tmp_path, target.host) as ui:
        folder = ui.record(20, time_scale=SLOW)
        (folder / "manifest.json").write_text("{}")
        ui.stop()
        message = f"run stopped: {Path('runs') / folder.name}: the manifest could not be written ("
        wait_until(lambda: message in ui.locust.said, "the fault is said")
        ui.locust.process.send_signal(signal.SIGINT)
        assert ui.locust.ended() == 3, ui.locust.said


def test_stop_while_the_target_is_asked_for_its_health(tmp_path: Path) -> None:
    with slow_target() as (host, asked), web_ui_started(tmp_path, host) as ui:
        with ThreadPoolExecutor() as pool:
            start = pool.submit(ui.start)
            assert asked.wait(TIMEOUT_S)
            ui.stop()
            answer = start.result(TIMEOUT_S)
        assert answer["message"] == "the run was stopped before it began"
        (folder,) = ui.runs()
        wait_until(lambda: f"run ended before it began: runs/{folder.name}" in ui.locust.said, "the run has ended")
        assert state_of(folder) == "interrupted"
        assert all(who.closed for who in read_run(folder).incarnations)


@contextmanager
def slow_target() -> Iterator[tuple[str, threading.Event]]:
    """Services that are up and take a moment to say so, and an event: the first one has been asked."""
    asked = threading.Event()

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            healthy = self.path.endswith("/actuator/health")
            if healthy:
                asked.set()
                time.sleep(0.3)
            self.send_response(200 if healthy else 404)
            self.end_headers()
            self.wfile.write(b'{"status": "UP"}')

        def log_message(self, *_: object) -> None:
            """Nothing: the test reads what matters."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()

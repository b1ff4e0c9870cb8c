"""The web UI with a real Locust process and plain HTTP: what the start form offers, and what Start and Stop do."""

import http.client
import http.server
import io
import json
import re
import signal
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
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
    serving,
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
def web_ui_started(
    folder: Path, host: str, *options: str, env: Mapping[str, str] | None = None, at: str = ""
) -> Iterator[WebUi]:
    """`at`: the path of the page, where that is not the root."""
    port = free_port()
    url = f"http://127.0.0.1:{port}{at}"
    where = ("--web-host", "127.0.0.1", "--web-port", str(port), "--host", host)
    with locust_started(folder / "locust.log", *where, *options, env=env) as locust:
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


# -- the RL tab -------------------------------------------------------------------------------------------------------


def runs_of(ui: WebUi) -> list[dict[str, Any]]:
    """What the tab says about the runs of this process, the newest first."""
    runs: list[dict[str, Any]] = requests.get(f"{ui.url}/rl/now", timeout=30).json()["runs"]
    return runs


def exported(ui: WebUi, number: int) -> dict[str, Any]:
    """What the tab says about a run whose export has ended."""
    assert requests.post(f"{ui.url}/rl/runs/{number}/export", timeout=30).status_code == 202

    def about() -> dict[str, Any]:
        return next(run for run in runs_of(ui) if run["number"] == number)

    wait_until(lambda: about()["export"]["state"] != "running", "the export has ended")
    return about()


def test_locusts_page_has_our_tab_and_script(web_ui: WebUi) -> None:
    assert {"key": "rl", "title": "RL"} in web_ui.template()["extended_tabs"]
    page = requests.get(web_ui.url, timeout=30).text
    assert page.count('<script src="./rl/tab.js" defer></script></body>') == 1
    for name, kind in (("", "text/html"), ("page.js", "text/javascript"), ("page.css", "text/css")):
        answer = requests.get(f"{web_ui.url}/rl/{name}", timeout=30)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_tab_says_how_the_run_stands_and_what_was_recorded(web_ui: WebUi, sandbox: Sandbox) -> None:
    folder = web_ui.record(100, host=sandbox.host, time_scale=SLOW)
    wait_until(
        lambda: requests.get(f"{web_ui.url}/rl/now").json()["now"]["reward"]["decisions"] > 0, "there is a reward"
    )
    now = requests.get(f"{web_ui.url}/rl/now").json()["now"]
    assert (now["run"], now["state"], now["phase"]) == (folder.name, "running", "quick_browsing")
    assert {one["policy"] for one in now["services"]} == {"uniform"}
    assert now["telemetry_age_s"] >= 0
    number = runs_of(web_ui)[0]["number"]
    refused = requests.post(f"{web_ui.url}/rl/runs/{number}/export", timeout=30)
    assert (refused.status_code, refused.json()["message"]) == (
        409,
        "the run is still going on; stop it or wait for its end, then export it",
    )
    run = stopped(web_ui, folder)
    wait_until(lambda: runs_of(web_ui)[0]["state"] == "interrupted", "the tab knows of the end")
    wait_until(lambda: requests.get(f"{web_ui.url}/rl/now").json()["now"]["state"] == "interrupted", "so does the rest")
    counts = requests.get(f"{web_ui.url}/rl/now").json()["now"]["counts"]
    assert counts["requests"] == len(run.requests)
    assert counts["decisions"] == len(run.decisions)
    assert counts["rows_lost"] == 0

    about = exported(web_ui, number)
    assert about["export"]["state"] == "done", about["export"]["lines"]
    assert about["files"] == ["report_card.html", "report_card.json", "manifest.json", "bundle.zip"]
    place = f"{web_ui.url}/rl/runs/{number}"
    report = requests.get(f"{place}/report_card.html", timeout=30)
    assert report.text == (folder / "bundle" / "report_card.html").read_text()
    assert report.headers["Content-Security-Policy"].endswith("; sandbox")
    with zipfile.ZipFile(io.BytesIO(requests.get(f"{place}/bundle.zip", timeout=60).content)) as archive:
        name = f"run-{number}-bundle/dataset.json"
        assert archive.read(name) == (folder / "bundle" / "dataset.json").read_bytes()

    assert requests.post(f"{place}/export", timeout=30).status_code == 202
    half_way = requests.get(f"{place}/bundle.zip", timeout=30)
    assert (half_way.status_code, half_way.json()["message"]) == (
        409,
        "the run is being exported, which replaces its bundle; wait for its end",
    )
    wait_until(lambda: runs_of(web_ui)[0]["export"]["state"] == "done", "it is exported again")


NOWHERE = [
    *("runs/1/../../../etc/passwd", "runs/1/%2e%2e%2fmanifest.json", "runs/1/..%5cmanifest.json", "runs/1/processes"),
    *("runs/1//etc/passwd", "runs/0/manifest.json", "runs/999/manifest.json", "runs/-1/manifest.json", "page.html"),
    *("tab.py", "..%2ftab.py", "%2e%2e/tab.py", "static/page.js", "runs/1/manifest.json%00.html"),
]


@pytest.mark.parametrize("path", NOWHERE)
def test_nothing_else_is_served(web_ui: WebUi, sandbox: Sandbox, path: str) -> None:
    if not runs_of(web_ui):
        stopped(web_ui, web_ui.record(0, host=sandbox.host))
    connection = http.client.HTTPConnection(web_ui.url.removeprefix("http://"), timeout=30)
    connection.request("GET", f"/rl/{path}")  # as it is: nothing is resolved on the way
    assert connection.getresponse().status in (308, 404)
    connection.close()


@pytest.mark.slow
def test_with_workers_the_tab_knows_all_their_rows(tmp_path: Path, sandbox: Sandbox) -> None:
    port = str(free_port())
    workers = ("--processes", "2", "--enable-rebalancing", "--master-bind-port", port, "--master-port", port)
    with web_ui_started(tmp_path, sandbox.host, *workers) as ui:
        wait_until(lambda: requests.get(f"{ui.url}/worker-count", timeout=30).json()["worker_count"] == 2, "both came")
        folder = ui.record(100, time_scale=SLOW)

        def now() -> Any:
            return requests.get(f"{ui.url}/rl/now", timeout=30).json()["now"]

        wait_until(lambda: now()["reward"]["decisions"] > 0, "there is a reward")
        assert sum(one["running"] for one in now()["users"]) > 0
        run = stopped(ui, folder)
        wait_until(lambda: now()["counts"]["requests"] == len(run.requests), "the last reports have come")
        assert now()["counts"]["decisions"] == len(run.decisions)


def test_pages_of_other_sites_are_not_answered(web_ui: WebUi) -> None:
    def status(method: str, path: str, **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.request(method, f"{web_ui.url}/rl/{path}", headers=named, timeout=30).status_code

    elsewhere = "https://elsewhere.example"
    assert status("GET", "now", Origin=elsewhere) == 403
    assert status("GET", "now", Origin="null") == 403
    assert status("GET", "now", Origin=web_ui.url) == status("GET", "now") == 200
    assert status("POST", "runs/999/export", Origin=elsewhere) == 403
    assert status("POST", "runs/999/export", Sec_Fetch_Site="cross-site") == 403
    assert status("POST", "runs/999/export", Origin=elsewhere, Sec_Fetch_Site="same-site") == 403
    assert status("POST", "runs/999/export", Origin=web_ui.url) == status("POST", "runs/999/export") == 404
    assert status("GET", "runs/999/export") == 404  # and no GET starts anything


def test_with_a_login_nothing_of_the_tab_is_given_away_without_it(tmp_path: Path, sandbox: Sandbox) -> None:
    env = {"RL_WEB_USER": "rosa", "RL_WEB_PASSWORD": "pässword"}
    with web_ui_started(tmp_path, sandbox.host, "--web-login", env=env) as ui:
        for path in ("/", "/rl/", "/rl/now", "/rl/page.js", "/rl/tab.js", "/rl/runs/1/manifest.json"):
            answer = requests.get(f"{ui.url}{path}", allow_redirects=False, timeout=30)
            assert (answer.status_code, answer.headers["Location"].split("?")[0]) == (302, "/login")
        answer = requests.post(f"{ui.url}/rl/runs/1/export", allow_redirects=False, timeout=30)
        assert answer.status_code == 302
        with requests.Session() as browser:
            for name, password in (("rosa", "wrong"), ("other", "pässword"), ("", "")):
                answer = browser.post(f"{ui.url}/login_submit", {"username": name, "password": password}, timeout=30)
                assert "The name or the password is wrong." in answer.text
                assert browser.get(f"{ui.url}/rl/now", allow_redirects=False, timeout=30).status_code == 302
            browser.post(f"{ui.url}/login_submit", {"username": "rosa", "password": "pässword"}, timeout=30)
            assert browser.get(f"{ui.url}/rl/now", timeout=30).json() == {"now": None, "runs": []}
            assert "password" not in browser.get(ui.url, timeout=30).text


def test_under_a_base_path_the_tab_is_there_too(tmp_path: Path, sandbox: Sandbox) -> None:
    with web_ui_started(tmp_path, sandbox.host, "--web-base-path", "/load", at="/load/") as ui:
        assert requests.get(f"{ui.url}rl/now", timeout=30).json() == {"now": None, "runs": []}
        assert './rl/tab.js"' in requests.get(ui.url, timeout=30).text


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

    with serving(Slow) as host:
        yield host, asked

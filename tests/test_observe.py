"""Observe mode with real processes: a sandbox that decides by itself, one that states nothing, and load reports."""

import http.client
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest

from rl_hooks.decision import ACTIONS
from rl_hooks.row import MISSING_U8
from rl_hooks.run_reader import read_run
from tests.processes import Locust, locust_started, sandbox_started
from tests.replayed import check_replay
from tests.team import Team

EVERY_S = 0.5  # real: of the sandbox's decisions and of ours
OBSERVE = ("--actuator", "observe", "--time-scale", "90", "--decision-interval", str(90 * EVERY_S))


def observing(place: Path, host: str, *options: str) -> Locust:
    where = ("--headless", "--host", host, "--run-folder", str(place / "run"), "--logs", str(place / "logs"))
    with locust_started(place / "log.txt", *where, *OBSERVE, *options) as locust:
        locust.ended()
        return locust


def steps_of(folder: Path) -> pd.DataFrame:
    """Those that train or validate."""
    return pd.concat([pd.read_parquet(file) for file in sorted((folder / "bundle/data/transitions").iterdir())])


def dataset_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "bundle" / "dataset.json").read_text())
    return content


def test_a_sandbox_that_decides_is_recorded_with_what_it_drew(tmp_path: Path) -> None:
    seed = 11
    decides = ("--decides", "uniform", "--decide-every", str(10 * EVERY_S), "--seed", str(seed))
    with sandbox_started("--healthy", *decides) as sandbox:
        locust = observing(tmp_path, sandbox.host)
    assert locust.process.returncode == 0, locust.said
    assert "logging policy: observed, the balancer decides by itself" in locust.said
    assert "could not be applied" not in locust.said, "there was nothing to apply"
    folder = tmp_path / "run"
    run = read_run(folder)
    assert set(run.decisions["action"]) == {MISSING_U8}
    assert set(run.requests["action_requested"]) == {MISSING_U8}
    assert len(run.observations) == len(run.decisions)
    facts = dataset_of(folder)
    assert facts["propensities"]["are"] == "known"
    assert facts["propensities"]["policies"] == ["uniform"]
    steps = steps_of(folder)
    assert len(steps) > 10
    assert steps["propensity"].to_numpy() == pytest.approx(1 / 6)
    # The sandbox's draws can be made again: which decision a step is, is told by the clock on the wall.
    late_s = steps["t_unix_ns"] / 1e9 % EVERY_S
    steps = steps[late_s < 0.2 * EVERY_S]  # a busy machine is late now and then
    assert len(steps) > 5
    number = (steps["t_unix_ns"] / 1e9 // EVERY_S).astype(int)
    drawn = [
        ACTIONS[Random(f"{seed}:{service}:decides:{tick}").choices(range(6), [1 / 6] * 6)[0]]
        for service, tick in zip(steps["service"], number, strict=True)
    ]
    assert steps["action_name"].tolist() == drawn
    check_replay(folder)


@pytest.mark.slow
def test_a_balancer_that_states_nothing_leaves_data_without_propensities(tmp_path: Path) -> None:
    with sandbox_started("--healthy") as sandbox:
        locust = observing(tmp_path, sandbox.host)
    assert locust.process.returncode == 0, locust.said
    found = dataset_of(tmp_path / "run")["propensities"]
    assert (found["are"], found["steps_with"], found["policies"]) == ("none", 0, ["unknown"])
    assert found["steps_without"] > 0
    steps = steps_of(tmp_path / "run")
    assert set(steps["action_name"]) == {"round_robin"}  # the sandbox's own, where nobody asks for another
    assert steps["propensity"].isna().all()
    assert "propensities none: 0 steps with" in locust.said


# -- load reports, with workers ---------------------------------------------------------------------------------------

SOURCE = '''
import json
from rl_hooks.sources.orca import OrcaSource

class Noting(OrcaSource):
    """The source of load reports, with a line for every batch of reports that it is given."""

    def push_reports(self, reports):
        super().push_reports(reports)
        with open({file!r}, "a") as file:
            file.write(json.dumps(reports) + "\\n")
'''


class Reporting(http.server.BaseHTTPRequestHandler):
    """Passes everything on to the sandbox, and adds a load report to what an instance answered."""

    protocol_version = "HTTP/1.1"
    behind = ("", 0)

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        connection = http.client.HTTPConnection(*self.behind, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                self.send_header(name, value)
        instance = answer.getheader("x-lb-instance", "-")
        if instance != "-":
            number = instance.rpartition("-")[2]  # cart-service-2 says that its CPU is busy for 0.2
            self.send_header("endpoint-load-metrics", f"TEXT cpu_utilization=0.{number}")
        if answer.status != 204:
            self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        connection.close()

    def do_GET(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def do_PUT(self) -> None:
        self._pass_on()

    def do_DELETE(self) -> None:
        self._pass_on()

    def log_message(self, *_: object) -> None: ...


@contextmanager
def reporting(behind: str) -> Iterator[str]:
    """A balancer in front of the sandbox at `behind`; its URL."""
    parts = urlsplit(behind)
    handler = type("Handler", (Reporting,), {"behind": (parts.hostname, parts.port)})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}{parts.path}"
        finally:
            server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [False, True])
def test_load_reports_reach_the_source_of_the_process_that_decides(
    workers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "given.jsonl"
    (tmp_path / "noting_source.py").write_text(SOURCE.format(file=str(given)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options = ("--metrics-source", "noting_source:Noting", "--user-scale", "0.5")
    decides = ("--decides", "sticky:0.5", "--decide-every", str(10 * EVERY_S))
    with (
        sandbox_started("--healthy", *decides) as sandbox,
        reporting(sandbox.host) as host,
        Team(tmp_path, host) as team,
    ):
        if workers:
            locust = team.forking(*OBSERVE, *options)
            locust.ended()
        else:
            locust = observing(tmp_path, host, *options)
    assert locust.process.returncode == 0, locust.said
    run = read_run(tmp_path / "run")
    batches = [json.loads(line) for line in given.read_text().splitlines()]
    reports = [tuple(report) for batch in batches for report in batch]
    assert len(batches) == len(np.unique(run.decisions["tick"])), "one before every sample"
    assert all(text == f"TEXT cpu_utilization=0.{instance[-1]}" for _, instance, text, _ in reports)
    names = np.array(run.names["instance"], object)[run.samples["instance_ref"]]
    assert len(names) > len(batches)
    said = np.isfinite(run.samples["cpu"])  # an instance whose report is too old is missing
    assert said.sum() > len(batches)
    assert run.samples["cpu"][said] == pytest.approx([int(name[-1]) / 10 for name in names[said]])
    served = {(int(row["service"]), run.names["instance"][row["instance_ref"]]) for row in run.requests}
    told = {(service, instance) for service, instance, _, _ in reports}
    assert told <= served
    assert len(told) > len(served) / 2
    first, last = (int(run.requests["start_ns"].min()), int(run.requests["start_ns"].max()) + 2 * 10**9)
    assert all(first < at_ns < last for _, _, _, at_ns in reports)
    # What the balancer stated comes from the workers too.
    assert dataset_of(tmp_path / "run")["propensities"]["policies"] == ["sticky:0.5"]
    assert ({who.role for who in run.incarnations} == {"master", "worker"}) is workers

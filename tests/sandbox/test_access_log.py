"""The sandbox's access log: what it writes is what happened, in the form that others read."""

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.sources.access_log import Line, parse_line

Run = Callable[..., Any]


def lines(path: Path) -> list[Line]:
    found = [parse_line(text) for text in path.read_bytes().splitlines()]
    return [line for line in found if line is not None]


def test_two_lines_per_request_and_none_for_the_balancers_own_health(run_live: Run, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    live = run_live("--healthy", "--time-scale", "10", "--access-log", str(log))
    before_ns = time.time_ns()
    live.get("/proxy/cart-service/actuator/health")
    asked = {"X-RL-Action": "backpressure"}
    status, headers, _ = live.call("GET", "/proxy/inventory-service/api/inventory/search?query=x", headers=asked)
    live.call("GET", '/proxy/nothing-service/a"b%0A')
    live.stop()
    start, end = lines(log)
    assert (start.ended, end.ended) == (False, True)
    assert (start.start_ns, start.request_id, start.endpoint) == (end.start_ns, end.request_id, end.endpoint)
    assert before_ns <= start.start_ns <= end.moment_ns <= time.time_ns()
    assert end.endpoint == "GET /api/inventory/search"
    assert SERVICES[end.service] == "inventory-service"
    assert end.status == status
    assert end.action is not None and ACTIONS[end.action] == headers["x-lb-action"] == "backpressure"
    assert end.instance == headers["x-lb-instance"]
    assert end.upstream_us == int(headers["x-lb-upstream-us"])
    assert end.queue_us == round(float(headers["x-lb-queue-ms"]) * 1000)
    assert len(log.read_text().splitlines()) == 4  # also of a service that there is not


def test_a_502_names_the_services_own_status(run_live: Run, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    live = run_live("--healthy", "--time-scale", "10", "--access-log", str(log))
    assert live.call("GET", "/proxy/cart-service/api/cart")[0] == 502  # without a token
    live.stop()
    assert (lines(log)[1].status, lines(log)[1].backend_status) == (502, 401)


def test_a_client_that_went_away_is_told_with_status_499(run_live: Run, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    live = run_live("--healthy", "--access-log", str(log))
    fault = {"service": "cart-service", "kind": "latency", "value": 100, "duration_s": 60}
    live.call("POST", "/control/faults", fault)
    with socket.create_connection(("127.0.0.1", live.port)) as sock:
        sock.sendall(b"GET /proxy/cart-service/api/cart HTTP/1.1\r\nHost: x\r\n\r\n")
        deadline = time.monotonic() + 20
        while log.read_text().count("\n") < 1:
            assert time.monotonic() < deadline, "never: the start in the log"
            time.sleep(0.02)
    while log.read_text().count("\n") < 2:
        assert time.monotonic() < deadline, "never: the end in the log"
        time.sleep(0.02)
    assert [line.status for line in lines(log)] == [0, 499]


def test_it_is_appended_and_lines_come_while_the_sandbox_runs(run_live: Run, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text("{}\n")
    live = run_live("--healthy", "--time-scale", "10", "--access-log", str(log))
    live.call("GET", "/proxy/cart-service/api/cart")
    deadline = time.monotonic() + 20
    while log.read_text().count("\n") < 3:
        assert time.monotonic() < deadline, "never: the lines in the log"
        time.sleep(0.02)
    assert json.loads(log.read_text().splitlines()[0]) == {}


def test_a_log_that_cannot_be_written_is_refused(tmp_path: Path, capsys: Any) -> None:
    from sandbox.__main__ import main

    assert main(["--access-log", str(tmp_path / "no" / "log")]) == 2
    assert f"--access-log {tmp_path / 'no' / 'log'}: cannot be written (No such file" in capsys.readouterr().err

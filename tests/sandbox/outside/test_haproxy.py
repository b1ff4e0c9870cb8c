"""The sandbox behind a real HAProxy; what its strategies mean is in `test_meaning`."""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from rl_hooks.decision import ACTIONS, SERVICES
from sandbox.outside.balancer import BalancerError, Endpoint, Setup
from sandbox.outside.haproxy import process
from sandbox.outside.haproxy.config import LUA_FILE
from sandbox.outside.haproxy.example import example_files
from sandbox.parameters import Parameters
from tests.processes import free_port, wait_until

PROGRAM = shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy")
pytestmark = [
    pytest.mark.balancers,
    pytest.mark.skipif(PROGRAM is None, reason="haproxy is not installed: apt install haproxy"),
]

Run = Callable[..., Any]
ME = "/proxy/user-service/api/users/me"


@pytest.fixture(scope="module")
def haproxy(run_live_for_file: Run) -> Any:
    """One healthy sandbox behind HAProxy for the whole file; a test leaves it as it was."""
    return run_live_for_file("--balancer", "haproxy", "--healthy", "--time-scale", "10")


def _asked(live: Any, path: str = ME, **headers: str) -> tuple[int, dict[str, str], str]:
    told = {"Authorization": f"Bearer {live.token('ann')}"}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    status, answer, text = live.call("GET", path, None, told)
    return status, answer, text


def _children(live: Any) -> list[psutil.Process]:
    return list(psutil.Process(live.process.pid).children())


# -- As part of the sandbox --------------------------------------------------------------------------------------------


def test_the_shipped_example_is_accepted_without_a_warning(tmp_path: Path) -> None:
    for name, text in example_files(str(tmp_path)).items():
        (tmp_path / name).write_text(text)
    shutil.copy(LUA_FILE, tmp_path)
    done = subprocess.run([str(PROGRAM), "-c", "-f", tmp_path / "haproxy.cfg"], capture_output=True, text=True)
    assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr


def test_the_state_says_what_balances(haproxy: Any) -> None:
    balancer = haproxy.get("/state")["balancer"]
    assert balancer["kind"] == "haproxy" and re.fullmatch(r"\d+\.\d+.*", balancer["version"])
    assert re.fullmatch(r"[0-9a-f]{64}", balancer["config_sha256"])
    assert f"balancer: haproxy {balancer['version']} metrics=http://127.0.0.1:{haproxy.port}" in haproxy.opening


@pytest.mark.parametrize("action", ACTIONS)
def test_every_answer_of_every_service_tells_all_headers_of_the_contract(haproxy: Any, action: str) -> None:
    for service in SERVICES:
        _, told, _ = _asked(haproxy, f"/proxy/{service}/api/nothing", X_RL_Action=action, X_Trace_Id="a" * 32)
        assert told["x-lb-action"] == action and told["x-lb-instance"].startswith(service)
        assert int(told["x-lb-upstream-us"]) > 0 and float(told["x-lb-queue-ms"]) >= 0.0
        assert (told["x-lb-inflight"], told["x-lb-attempts"]) == ("0", "1")
        assert (told["x-lb-flags"], told["x-trace-id"]) == ("-", "a" * 32)


def test_the_metrics_have_the_names_of_the_contract(haproxy: Any) -> None:
    _asked(haproxy, X_RL_Action="backpressure")
    haproxy.call("GET", "/proxy/nowhere/x")
    _, _, text = haproxy.call("GET", "/balancer/metrics")
    assert re.search(
        r'^lb_pod_requests_total\{service="user-service",pod="user-service-\d",action="backpressure",code="200"\} \d+$',
        text,
        re.MULTILINE,
    )
    active = re.findall(r'^lb_pod_active_requests\{service="\S+",pod="(\S+)"\} (\d+)$', text, re.MULTILINE)
    assert len(active) == 15 and {count for _, count in active} == {"0"}
    counts = re.findall(r'^lb_pod_response_time_seconds_count\{\S+pod="(\S+)"\} (\d+)$', text, re.MULTILINE)
    ends = re.findall(r'^lb_pod_response_time_seconds_bucket\{\S+pod="(\S+)",le="\+Inf"\} (\d+)$', text, re.MULTILINE)
    assert counts == ends and sum(int(count) for _, count in counts) > 0
    assert "haproxy_server_current_sessions" in haproxy.call("GET", "/haproxy/metrics")[2]


def test_a_client_that_goes_away_is_taken_off_the_counts(run_live: Run) -> None:
    """Long before its request would time out: no timeout is counted."""
    live = run_live("--balancer", "haproxy", "--healthy")
    live.call("POST", "/control/faults", {"service": "order-service", "kind": "timeouts", "value": 1.0})
    head = f"GET /proxy/order-service/api/orders/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {live.token('ann')}"
    sockets = []
    for _ in range(6):
        sockets.append(socket.create_connection(("127.0.0.1", live.port)))
        sockets[-1].sendall(f"{head}\r\nX-RL-Action: least_loaded\r\n\r\n".encode())

    def active() -> int:
        text = live.call("GET", "/balancer/metrics")[2]
        return sum(int(count) for count in re.findall(r'active_requests\{service="order-service".*\} (\d+)', text))

    wait_until(lambda: active() == 6, "all are in flight")
    for one in sockets:
        one.close()
    wait_until(lambda: active() == 0, "none is in flight")
    assert 'code="504"' not in live.call("GET", "/balancer/metrics")[2]


def test_healthy_means_everything_succeeds_with_all_actions_mixed(haproxy: Any) -> None:
    """Also what fans out: every line in a cart asks the inventory twice, through HAProxy."""
    product = "BOOK-001"
    body = {"productId": product, "productName": "Book", "price": 12.5, "quantity": 1}
    tokens = [haproxy.token(f"user{number}") for number in range(6)]

    def shop(number: int) -> list[int]:
        statuses = []
        for turn in range(12):
            action = ACTIONS[(number + turn) % len(ACTIONS)]
            told = {"Authorization": f"Bearer {tokens[number]}", "X-RL-Action": action}
            statuses.append(haproxy.call("POST", "/proxy/cart-service/api/cart/items", body, told)[0])
            statuses.append(haproxy.call("GET", "/proxy/cart-service/api/cart", None, told)[0])
        return statuses

    with ThreadPoolExecutor(6) as pool:
        statuses = Counter(status for one in pool.map(shop, range(6)) for status in one)
    assert statuses == Counter({201: 72, 200: 72})


def test_another_load_reloads_haproxy_on_the_same_port_and_forgets(run_live: Run) -> None:
    live = run_live("--balancer", "haproxy", "--healthy", "--time-scale", "10")
    _asked(live)
    live.call("PUT", "/control/actions", {"actions": {"user-service": "backpressure"}})
    (before,) = _children(live)
    products = [{"sku": "A-1", "name": "A", "category": "a", "brand": "b", "price": 1.0}]
    load = {"time_scale": 2, "expect": {"user-service GET /api/users/me": 400.0}, "products": products}
    wait_until(lambda: live.call("PUT", "/control/load", load)[0] == 200, "the sandbox is idle")
    assert "lb_pod_requests_total{" not in live.call("GET", "/balancer/metrics")[2]
    assert _asked(live, "/proxy/user-service/api/users/me")[1]["x-lb-action"] == "round_robin"
    wait_until(lambda: before not in _children(live), "the process before has ended")
    folder = re.search(r"configuration=(\S+)", live.opening)
    assert folder is not None
    config = Path(folder[1], "haproxy.cfg").read_text()
    assert "timeout server 4000ms" in config and "user-service-1=2," not in config
    assert live.stop() == 0 and not Path(folder[1]).exists()


# -- Its process -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_haproxy_does_not_outlive_the_sandbox(run_live: Run, number: signal.Signals) -> None:
    live = run_live("--balancer", "haproxy")
    (child,) = _children(live)
    code = live.stop(number)
    assert code == (0 if number != signal.SIGKILL else -signal.SIGKILL)
    wait_until(lambda: not child.is_running(), "HAProxy has ended")


def test_without_haproxy_the_sandbox_ends_and_says_so(run_live: Run) -> None:
    live = run_live("--balancer", "haproxy")
    (child,) = _children(live)
    os.kill(child.pid, signal.SIGKILL)
    live.closing, _ = live.process.communicate(timeout=60)
    assert live.process.returncode == 1
    assert "sandbox: haproxy has ended, and with it the sandbox: killed by signal 9" in live.closing


# -- Alone, before instances of the tests' own -------------------------------------------------------------------------


class _Instance(BaseHTTPRequestHandler):
    """Answers after a while."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        time.sleep(float(self.headers.get("X-Sleep", "0")))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    """One service with one instance of one worker."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Instance) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = Endpoint("cart-service", "cart-service-1", "127.0.0.1", server.server_address[1], 1.0)
        yield Setup([endpoint], "127.0.0.1", free_port(), "127.0.0.1", 1, Parameters(), {"cart-service-1": 1}, tmp_path)
        server.shutdown()


def _get(setup: Setup, sleep_s: float) -> dict[str, str]:
    connection = http.client.HTTPConnection(setup.host, setup.port, timeout=60)
    connection.request("GET", "/proxy/cart-service/x", headers={"X-Sleep": str(sleep_s), "Connection": "close"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return {name.lower(): value for name, value in answer.getheaders()}


def test_what_an_instance_has_no_room_for_waits_in_haproxy_and_says_how_long(setup: Setup) -> None:
    room_for_one = replace(setup, parameters=replace(Parameters(), queue_per_worker=0))
    balancer = process.start(room_for_one)
    try:
        with ThreadPoolExecutor(3) as pool:
            heard = list(pool.map(lambda _: _get(setup, 0.3), range(3)))
        waited_ms = sorted(float(one["x-lb-queue-ms"]) for one in heard)
        upstream_ms = [int(one["x-lb-upstream-us"]) / 1000 for one in heard]
        assert waited_ms[0] < 100 and waited_ms[1] > 200 and waited_ms[2] > 500
        assert min(upstream_ms) > 250, "the time at the instance does not contain the wait"
        assert {one["x-lb-inflight"] for one in heard} == {"0", "1", "2"}, "what waits is in flight"
    finally:
        balancer.stop()


def test_without_the_program_the_error_says_what_to_install(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.shutil, "which", lambda name: None)
    with pytest.raises(BalancerError, match="apt install haproxy, or use another balancer"):
        process.start(setup)


def test_an_old_haproxy_is_refused(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "haproxy"
    old.write_text("#!/bin/sh\necho HAProxy version 2.4.22-f8e3218 2023/02/14\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(BalancerError, match=r"is HAProxy 2\.4\.22-f8e3218; 2\.6 or newer is needed"):
        process.start(setup)


def test_a_configuration_that_haproxy_does_not_take_is_told_with_its_words(setup: Setup) -> None:
    with pytest.raises(BalancerError, match=r"exit code 1(.|\n)*cannot bind|exit code 1(.|\n)*Address family"):
        process.start(replace(setup, host="203.0.113.1"))


def test_an_action_that_cannot_be_set_is_an_error(setup: Setup) -> None:
    balancer = process.start(setup)
    try:
        with pytest.raises(BalancerError, match="did not take its actions"):
            balancer.set_actions({"no-service": "round_robin"})
    finally:
        balancer.stop()
    assert balancer.ended() is not None
    with pytest.raises(BalancerError, match="does not answer on its runtime socket"):
        balancer.set_actions({"cart-service": "round_robin"})

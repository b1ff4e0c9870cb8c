"""The live sandbox: real processes, real sockets."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.version import VERSION

ROOT = Path(__file__).parents[2]
ADDRESS = {"street": "1 Main St", "city": "Troy", "state": "NY", "country": "US", "zipCode": "12180"}
TRACE = "0123456789abcdef0123456789abcdef"
CONTRACT = {
    "x-lb-action",
    "x-lb-instance",
    "x-lb-upstream-us",
    "x-lb-queue-ms",
    "x-lb-inflight",
    "x-lb-attempts",
    "x-lb-flags",
    "x-trace-id",
}
Run = Callable[..., Any]


def until(condition: Callable[[], bool], what: str) -> None:
    """Ask again until it holds; a state that is never reached is a failure, with the reason."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


# -- the contract of an answer ----------------------------------------------------------------------------------------


def test_a_purchase_over_http(live: Any) -> None:
    item = {"productId": "BOOK-001", "productName": "Paperback Novel", "price": 12.5, "quantity": 2}
    assert live.shop("GET", "inventory-service/api/inventory/products/category/books")[1][0]["sku"] == "BOOK-001"
    assert live.shop("GET", "inventory-service/api/inventory/search?query=Running%20Shoes")[1][0]["sku"] == "SPRT-001"
    assert live.shop("POST", "cart-service/api/cart/items", item)[0] == 201
    assert live.shop("PUT", "cart-service/api/cart/items", {"productId": "BOOK-001", "quantity": 3})[0] == 200
    assert live.shop("GET", "cart-service/api/cart/summary")[1]["totalItems"] == 3
    status, order = live.shop("POST", "order-service/api/orders", {"items": [], "shippingAddress": ADDRESS})
    assert (status, order["totalAmount"]) == (201, 37.5)
    pay = {
        "userId": order["userId"],
        "amount": 37.5,
        "currency": "USD",
        "paymentMethod": "COD",
        "orderId": order["id"],
    }
    status, payment = live.shop("POST", "payment-service/api/payments", pay)
    assert (status, payment["status"]) == (201, "COMPLETED")
    assert live.shop("GET", f"payment-service/api/payments/{payment['paymentId']}") == (200, payment)
    assert live.shop("GET", f"order-service/api/orders/{order['id']}")[1]["paymentStatus"] == "COMPLETED"
    assert [one["id"] for one in live.shop("GET", "order-service/api/orders/user")[1]] == [order["id"]]
    assert live.shop("DELETE", "cart-service/api/cart/items/BOOK-001") == (204, None)
    assert live.shop("DELETE", "cart-service/api/cart") == (204, None)


@pytest.mark.parametrize("action", ACTIONS)
def test_every_answer_tells_what_was_done(live: Any, action: str) -> None:
    headers = {"Authorization": f"Bearer {live.token('ann')}", "X-RL-Action": action, "X-Trace-Id": TRACE}
    status, told, _ = live.call("GET", "/proxy/user-service/api/users/me", None, headers)
    assert status == 200 and set(told) >= CONTRACT
    assert (told["x-lb-action"], told["x-lb-attempts"], told["x-lb-flags"]) == (action, "1", "-")
    assert re.fullmatch(r"user-service-[123]", told["x-lb-instance"]) and told["x-trace-id"] == TRACE
    assert int(told["x-lb-upstream-us"]) > 100 and float(told["x-lb-queue-ms"]) >= 0.0


def test_absent_and_unknown_actions_get_the_control_action(live: Any) -> None:
    live.call("PUT", "/control/actions", {"actions": {"user-service": "least_loaded"}})
    for headers, flags in (({}, "-"), ({"X-RL-Action": "fastest"}, "unknown_action")):
        _, told, _ = live.call("GET", "/proxy/user-service/api/users/me", None, headers)
        assert (told["x-lb-action"], told["x-lb-flags"]) == ("least_loaded", flags)
    live.call("PUT", "/control/actions", {"actions": {"user-service": "round_robin"}})


def test_a_pin_is_honoured(live: Any) -> None:
    for _ in range(3):
        _, told, _ = live.call("GET", "/proxy/user-service/api/users/me", None, {"X-LB-Pin": "user-service-3"})
        assert (told["x-lb-instance"], told["x-lb-flags"]) == ("user-service-3", "pinned")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("GET", "nix-service/api", None, 503, "No healthy instances available for service: nix-service"),
        ("PATCH", "user-service/api/users/me", None, 405, "Method not allowed: use GET, POST, PUT, DELETE"),
        ("POST", "user-service/api/users/login", b"{", 400, "Malformed JSON body: Expecting"),
        ("POST", "user-service/api/users/login", b'{"a": NaN}', 400, "Malformed JSON body: NaN is not JSON"),
        ("POST", "user-service/api/users/login", b"[" * 60_000, 400, "Malformed JSON body: maximum recursion depth"),
        ("POST", "user-service/api/users/login", b"\xff", 400, "Malformed JSON body: 'utf-8' codec"),
        ("POST", "user-service/api/users/login", b"9" * 5000, 400, "Malformed JSON body: Exceeds"),
        (
            "GET",
            "user-service/api/users/me",
            None,
            502,
            "Failed to forward request: 401 Unauthorized from GET /api/users/me: a valid token is needed: log in",
        ),
        (
            "POST",
            "user-service/api/users/login",
            {},
            502,
            "Failed to forward request: 400 Bad Request from POST /api/users/login: email: must be text, not blank",
        ),
    ],
)
def test_errors_of_the_balancer_carry_the_contract_too(
    live: Any, method: str, path: str, body: Any, status: int, error: str
) -> None:
    got, told, text = live.call(method, f"/proxy/{path}", body, {"X-Trace-Id": TRACE})
    assert got == status and json.loads(text)["error"].startswith(error)
    assert set(told) >= CONTRACT and told["x-lb-action"] in ACTIONS


def test_the_status_of_the_backend_is_in_the_text(live: Any) -> None:
    live.token("ann")
    again = {"email": "ann@example.org", "password": "correct horse", "firstName": "A", "lastName": "B"}
    status, _, text = live.call("POST", "/proxy/user-service/api/users/register", again)
    found = re.search(r"Failed to forward request: (\d{3})", text)
    assert status == 502 and found is not None and found[1] == "409"


@pytest.mark.parametrize("trace", ["", "xyz", TRACE.upper(), TRACE + "0"])
def test_a_trace_id_that_is_none_is_not_echoed(live: Any, trace: str) -> None:
    _, told, _ = live.call("GET", "/proxy/user-service/actuator/health", None, {"X-Trace-Id": trace})
    assert "x-trace-id" not in told


def test_health_is_up_and_does_not_touch_the_model(live: Any) -> None:
    before = live.get("/state")["services"]["payment-service"]["instances"]
    for service in SERVICES:
        status, told, text = live.call("GET", f"/proxy/{service}/actuator/health")
        assert (status, json.loads(text)["status"], told["x-lb-instance"]) == (200, "UP", "-")
    after = live.get("/state")["services"]["payment-service"]["instances"]
    assert [one["requests_total"] for one in before.values()] == [one["requests_total"] for one in after.values()]
    assert live.get("/actuator/health") == {"status": "UP"}


def test_a_body_that_is_too_large_is_refused(live: Any) -> None:
    status, told, text = live.call("POST", "/proxy/user-service/api/users/login", b'"' + b"x" * 65_536 + b'"')
    assert set(told) >= CONTRACT - {"x-trace-id"}
    assert (status, json.loads(text)) == (413, {"error": "The body is larger than 65536 bytes"})


def test_a_head_without_end_is_cut_off(live: Any) -> None:
    with socket.create_connection(("127.0.0.1", live.port), timeout=20) as one:
        sent = 0
        with contextlib.suppress(ConnectionError):
            one.sendall(b"GET /proxy/user-service/api HTTP/1.1\r\nX-Long: ")
            while sent < 64 * 2**20:
                one.sendall(b"x" * 65_536)
                sent += 65_536
        assert sent < 64 * 2**20
    assert live.get("/actuator/health") == {"status": "UP"}


# -- state, metrics, admin --------------------------------------------------------------------------------------------


def test_the_state(live: Any) -> None:
    state = live.get("/state")
    assert abs(state["t_unix_ns"] - time.time_ns()) < 60e9 and tuple(state["services"]) == SERVICES
    assert state["balancer"] == {"kind": "sandbox", "version": VERSION, "config_sha256": None}
    for service, told in state["services"].items():
        assert set(told) == {"action", "instances"} and told["action"] in ACTIONS
        assert list(told["instances"]) == [f"{service}-{number}" for number in (1, 2, 3)]
        assert [one["capacity"] for one in told["instances"].values()] == [2.0, 1.0, 1.0]
        for one in told["instances"].values():
            assert set(one) == {
                "cpu",
                "memory",
                "queue_depth",
                "in_flight",
                "health",
                "up",
                "capacity",
                "breaker",
                "requests_total",
                "errors_total",
                "latency_ewma_ms",
            }
            assert 0 <= one["cpu"] <= 1 and 0 <= one["memory"] <= 1 and 0 <= one["health"] <= 1
            assert one["up"] is True and one["breaker"] == "closed" and one["in_flight"] == one["queue_depth"] == 0


def test_metrics_in_the_names_of_the_contract(live: Any) -> None:
    live.shop("GET", "user-service/api/users/me")
    _, told, text = live.call("GET", "/metrics")
    assert told["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    sample = re.compile(r'[a-z_]+\{([a-z]+="[^"]*",?)+\} [0-9.e+-]+')
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in text.splitlines())
    total = Counter(
        {m[1]: int(m[2]) for m in re.finditer(r"lb_pod_requests_total\{(.*)\} (\d+)", text)}  #
    )
    state = live.get("/state")["services"]
    by_pod: Counter[str] = Counter()
    for labels, count in total.items():
        by_pod[dict(re.findall(r'(\w+)="([^"]*)"', labels))["pod"]] += count
    for service in SERVICES:
        for pod, one in state[service]["instances"].items():
            assert by_pod[pod] == one["requests_total"]
            label = f'{{service="{service}",pod="{pod}"}}'
            assert f"lb_pod_response_time_seconds_count{label} {one['requests_total']}" in text
            assert f"lb_pod_active_requests{label} 0" in text
            for gauge in ("cpu_utilization", "memory_utilization", "queue_depth", "health", "up"):
                assert f"sandbox_instance_{gauge}{label} " in text
    assert 'pod="-"' not in text or '"503"' in text


def test_the_admin_api_of_the_real_balancer(live: Any) -> None:
    services = live.get("/api/services")
    assert [one["name"] for one in services] == list(SERVICES)
    assert services[0]["healthyInstances"] == services[0]["totalInstances"] == 3
    assert services[0]["instances"][0] == {
        "serviceName": "user-service",
        "instanceName": "user-service-1",
        "url": f"http://127.0.0.1:{live.port}/proxy/user-service",
        "healthUrl": f"http://127.0.0.1:{live.port}/proxy/user-service/actuator/health",
        "healthy": True,
    }
    live.shop("GET", "user-service/api/users/me")
    pods = live.get("/api/metrics/user-service")
    assert list(pods) == [f"user-service-{number}" for number in (1, 2, 3)]
    assert all(
        set(pod)
        == {
            "cpuUsagePercent",
            "jvmMemoryUsagePercent",
            "uptimeSeconds",
            "avgResponseTimeMs",
            "errorRatePercent",
            "requestRatePerSecond",
        }
        for pod in pods.values()
    )
    assert sum(pod["requestRatePerSecond"] for pod in pods.values()) > 0
    assert live.call("GET", "/api/metrics/nix")[0] == 404


def test_control_actions_are_checked_as_a_whole(live: Any) -> None:
    status, _, text = live.call(
        "PUT", "/control/actions", {"actions": {"user-service": "least_loaded", "a": "round_robin", "cart-service": 5}}
    )
    assert status == 400 and json.loads(text)["problems"] == [
        f"'a': service must be one of {', '.join(SERVICES)}",
        f"cart-service: action must be one of {', '.join(ACTIONS)}",
    ]
    assert live.get("/control/actions")["actions"]["user-service"] == "round_robin"
    for body in ({}, {"actions": {}}, {"actions": []}, [], {"actions": {"user-service": "round_robin"}, "x": 1}):
        status, _, text = live.call("PUT", "/control/actions", body)
        assert status == 400 and "with at least one service" in text
    assert "not JSON" in live.call("PUT", "/control/actions", b"{")[2]


# -- faults -----------------------------------------------------------------------------------------------------------


def test_faults_come_and_go_over_http(live: Any) -> None:
    def cart() -> tuple[int, Any]:
        return live.shop("GET", "cart-service/api/cart")

    crash = {"service": "cart-service", "kind": "crash"}
    status, _, text = live.call("POST", "/control/faults", crash)
    assert status == 201 and set(json.loads(text)) == {"id"}
    assert live.call("GET", "/proxy/cart-service/actuator/health")[0] == 503
    until(lambda: cart()[0] == 503, "the health checks see the crash")
    assert cart()[1] == {"error": "No healthy instances available for service: cart-service"}
    assert [fault["kind"] for fault in live.get("/control/faults")["faults"]] == ["crash"]
    status, _, _ = live.call("DELETE", f"/control/faults/{json.loads(text)['id']}")
    assert status == 200 and live.get("/control/faults") == {"faults": []}
    until(lambda: cart()[0] == 200, "it is back")

    errors = {"service": "cart-service", "kind": "errors", "value": 1.0, "duration_s": 0.4}
    live.call("POST", "/control/faults", errors)
    status, body = cart()
    assert status == 502
    assert body == {"error": "Failed to forward request: 500 Internal Server Error from GET /api/cart: failed"}
    until(lambda: cart()[0] == 200, "the fault is over by itself")
    live.call("POST", "/control/faults", {**errors, "duration_s": 60})
    live.call("POST", "/control/faults", {**errors, "duration_s": 60})
    assert json.loads(live.call("DELETE", "/control/faults")[2]) == {"lifted": 2}
    assert cart()[0] == 200


def test_a_bad_fault_is_refused_with_all_its_problems(live: Any) -> None:
    status, _, text = live.call("POST", "/control/faults", {"service": "x", "kind": "y"})
    assert status == 400 and len(json.loads(text)["problems"]) == 2
    assert "not JSON" in live.call("POST", "/control/faults", b"{")[2]
    assert live.call("DELETE", "/control/faults/f99")[0] == 404


# -- HTTP -------------------------------------------------------------------------------------------------------------


def test_what_is_not_there_and_what_is_not_allowed(live: Any) -> None:
    assert live.call("GET", "/nothing")[0] == 404
    status, told, _ = live.call("POST", "/state", {})
    assert (status, told["allow"]) == (405, "GET")


def test_a_client_that_goes_away_leaves_nothing_behind(live: Any) -> None:
    live.call("POST", "/control/faults", {"service": "payment-service", "kind": "latency", "value": 60})
    token = live.token("ann")

    def in_flight() -> int:
        instances = live.get("/state")["services"]["payment-service"]["instances"]
        return sum(one["in_flight"] for one in instances.values())

    sockets = []
    for _ in range(8):
        one = socket.create_connection(("127.0.0.1", live.port))
        one.sendall(
            b"GET /proxy/payment-service/api/payments/1 HTTP/1.1\r\nHost: x\r\n"
            b"Authorization: Bearer " + token.encode() + b"\r\n\r\n"
        )
        sockets.append(one)
    until(lambda: in_flight() == 8, "all are in flight")
    for one in sockets:
        one.close()
    until(lambda: in_flight() == 0, "all counts are back")
    live.call("DELETE", "/control/faults")
    queues = live.get("/state")["services"]["payment-service"]["instances"].values()
    assert all(one["queue_depth"] == 0 for one in queues)
    assert 'service="payment-service"' in live.call("GET", "/metrics")[2]
    assert 'code="499"' in live.call("GET", "/metrics")[2]


def test_requests_in_a_row_on_one_connection_and_in_parts(live: Any) -> None:
    with socket.create_connection(("127.0.0.1", live.port), timeout=20) as one:
        body = b'{"email": "ann@example.org", "password": "wrong horse"}'
        head = b"POST /proxy/user-service/api/users/login HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        health = b"GET /proxy/user-service/actuator/health HTTP/1.1\r\nHost: x\r\n\r\n"
        for part in (health + health, head[:20], head[20:], body[:10], body[10:], health):
            one.sendall(part)
            time.sleep(0.01)
        seen = b""
        while seen.count(b"HTTP/1.1 ") < 4 or not seen.endswith(b"}"):
            seen += one.recv(65536)
    assert re.findall(rb"HTTP/1\.1 (\d+)", seen) == [b"200", b"200", b"502", b"200"]


# -- under load -------------------------------------------------------------------------------------------------------


def test_healthy_means_everything_succeeds_with_all_actions_mixed(run_live: Run) -> None:
    live = run_live("--healthy", "--time-scale", "10", "--seed", "3")
    assert live.shop_with_all_actions() == {200: 160, 201: 160}
    assert live.stop(signal.SIGINT) == 0
    lines = live.closing.splitlines()
    assert lines[0] == "sandbox stopped: requests answered (failed) per service, calls between services included"
    assert [line.split()[0] for line in lines[1:]] == list(SERVICES)
    assert lines[4].split() == ["order-service", "80", "(0)"]
    assert lines[3].split() == ["cart-service", str(80 + 80 + 2 * 80), "(0)"]


# -- its end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly_also_with_requests_under_way(run_live: Run, number: signal.Signals) -> None:
    live = run_live("--healthy")
    token = live.token("ann")
    live.call("POST", "/control/faults", {"service": "cart-service", "kind": "latency", "value": 1000})
    with socket.create_connection(("127.0.0.1", live.port)) as one:
        one.sendall(
            b"GET /proxy/cart-service/api/cart HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
            + token.encode()
            + b"\r\n\r\n"
        )
        until(
            lambda: any(
                pod["in_flight"] for pod in live.get("/state")["services"]["cart-service"]["instances"].values()
            ),
            "it is in flight",
        )
        assert live.stop(number) == 0
        answer = one.recv(65536)
    assert answer.startswith(b"HTTP/1.1 503 ") and answer.endswith(b'{"error":"The sandbox is being stopped"}')
    assert "sandbox stopped" in live.closing and "Traceback" not in live.closing


def test_it_stops_when_its_parent_is_gone(run_live: Run) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    live = run_live("--healthy", "--parent", str(parent.pid))
    assert live.get("/actuator/health") == {"status": "UP"}
    parent.kill()
    parent.communicate()
    assert live.process.wait(timeout=30) == 0


def test_it_stops_when_its_own_parent_is_killed_and_nobody_collects_it(tmp_path: Path) -> None:
    """As an executor that is killed: its child is handed to another process."""
    note = tmp_path / "pid"
    script = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'sandbox', '--port', '0', '--parent', str(os.getpid())],"
        " stdout=subprocess.PIPE, text=True)\n"
        "assert any('sandbox ready' in line for line in child.stdout)\n"
        f"open({str(note)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    until(lambda: note.exists() and note.read_text() != "", "the sandbox is ready")
    pid = int(note.read_text())
    try:
        os.kill(parent.pid, signal.SIGKILL)  # not yet waited for: a zombie, whose number still exists
        until(lambda: not _runs(pid), "the sandbox is gone")
    finally:
        parent.wait()
        if _runs(pid):
            os.kill(pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


# -- its start --------------------------------------------------------------------------------------------------------


def fails_to_start(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "sandbox", *options], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2 and done.stdout == ""
    return done.stderr


def test_a_port_in_use_is_told_with_the_way_out(live: Any) -> None:
    assert fails_to_start("--port", str(live.port)) == (
        f"sandbox: port {live.port} on 127.0.0.1 is in use: choose another with --port, or --port 0 for a free one\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "70000"], "sandbox: --port: must be from 0 to 65535; 0 takes a free one\n"),
        (["--time-scale", "0"], "sandbox: --time-scale: must be a positive number, for example 45\n"),
        (["--utilization", "9"], "sandbox: --utilization: must be from 0.01 to 3, for example 0.85\n"),
        (["--expect", "{}"], 'sandbox: --expect: 1 problem\n  must be a JSON object like {"cart-service POST'),
        (["--expect", "no.json"], "sandbox: --expect: cannot read no.json: "),
        (["--catalogue", "no.json"], "sandbox: --catalogue: cannot read no.json: "),
        (
            ["--balancer", "envoy", "--access-log", "a"],
            "sandbox: --access-log: the sandbox's own balancer writes it; envoy",
        ),
        (["--host", "203.0.113.1"], "sandbox: cannot listen on 203.0.113.1 port 8080: "),
    ],
)
def test_options_that_cannot_be(options: list[str], message: str) -> None:
    assert fails_to_start(*options).startswith(message)


def test_it_sells_the_catalogue_and_is_sized_for_the_load_it_is_given(run_live: Run, tmp_path: Path) -> None:
    catalogue, expect = tmp_path / "catalogue.json", tmp_path / "expect.json"
    catalogue.write_text('[{"sku": "K-1", "name": "Kettle", "category": "kitchen", "brand": "Fuma", "price": 30}]')
    expect.write_text('{"inventory-service GET /api/inventory/products/{sku}": 500}')
    live = run_live("--catalogue", str(catalogue), "--expect", str(expect), "--time-scale", "45", "--seed", "7")
    assert live.shop("GET", "inventory-service/api/inventory/products/K-1")[1]["price"] == 30
    assert live.opening.splitlines()[:3] == [
        "sandbox: seed 7, time scale 45, service dynamics 10 times as fast",
        "sandbox: compressed: service times and timeouts are divided by 10 only",
        "sandbox: antagonists, pauses and incidents; utilization 0.85 at the expected load",
    ]
    assert live.opening.splitlines()[5].split() == ["inventory-service", "500.0", "2+1+1", "6.80", "ms", "0.85"]


def test_another_address_than_loopback_is_warned_about() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox", "--host", "0.0.0.0", "--port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("sandbox ready"):
            break
    process.terminate()
    assert process.wait(timeout=30) == 0
    process.stdout.close()
    assert (
        "warning: 0.0.0.0 is not a loopback address: everybody who can reach it can inject faults and change actions\n"
        in lines
    )


def test_a_healthy_sandbox_has_no_antagonists(live: Any) -> None:
    """Seconds after the last request nothing is on any CPU; with antagonists that holds for 1 % of the time."""
    cpus = [one["cpu"] for told in live.get("/state")["services"].values() for one in told["instances"].values()]
    assert cpus == [0.0] * 15

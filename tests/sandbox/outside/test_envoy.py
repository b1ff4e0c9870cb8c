"""The sandbox behind a real Envoy."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.sources.envoy_clusters import parse_clusters
from sandbox.outside.envoy.process import find_binary

pytest.importorskip("envoy", reason="needs the extra `envoy`")
pytestmark = pytest.mark.balancers

ROOT = Path(__file__).parents[3]
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
ME = "/proxy/user-service/api/users/me"
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def envoy(run_live_for_file: Run) -> Any:
    """One healthy sandbox behind Envoy for the whole file; a test leaves it as it was."""
    return run_live_for_file("--balancer", "envoy", "--healthy", "--time-scale", "10")


def until(condition: Callable[[], bool], what: str) -> None:
    """Ask again until it holds; a state that is never reached is a failure, with the reason."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


def asked(live: Any, path: str = ME, **headers: str) -> tuple[int, dict[str, str], str]:
    """GET as a logged-in user."""
    told = {"Authorization": f"Bearer {live.token('ann')}", "X-Trace-Id": TRACE}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    status, answer, text = live.call("GET", path, None, told)
    return status, answer, text


def fault(live: Any, kind: str, service: str, instance: str | None = None, **more: Any) -> None:
    body = {"kind": kind, "service": service, **({"instance": instance} if instance else {}), **more}
    status, _, text = live.call("POST", "/control/faults", body)
    assert status == 201, text


def lift(live: Any) -> None:
    live.call("DELETE", "/control/faults")


def children_of(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] + [
        int(one)
        for task in Path(f"/proc/{pid}/task").iterdir()
        if task.name != str(pid)
        for one in (task / "children").read_text().split()
    ]


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# -- the contract -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("service", SERVICES)
def test_every_answer_of_every_service_tells_the_action_and_the_instance(envoy: Any, service: str, action: str) -> None:
    status, told, _ = asked(envoy, f"/proxy/{service}/api/nothing", X_RL_Action=action)
    assert status == 404 and set(told) >= CONTRACT
    assert (told["x-lb-action"], told["x-lb-attempts"], told["x-lb-flags"]) == (action, "1", "-")
    assert re.fullmatch(rf"{service}-[123]", told["x-lb-instance"]) and told["x-trace-id"] == TRACE
    assert int(told["x-lb-upstream-us"]) > 100 and float(told["x-lb-queue-ms"]) >= 0.0


def test_the_services_tell_their_load(envoy: Any) -> None:
    _, told, _ = asked(envoy)
    assert set(told) >= {"x-queue-ms", "x-service-ms", "x-queue-depth", "x-inflight"}
    form, _, text = told["endpoint-load-metrics"].partition(" ")
    load = json.loads(text)
    assert form == "JSON" and 0.0 <= load["cpu_utilization"] <= 1.0 and load["named_metrics"]["workers"] >= 1


def test_a_purchase_through_envoy(envoy: Any) -> None:
    item = {"productId": "BOOK-001", "productName": "Paperback Novel", "price": 12.5, "quantity": 2}
    assert envoy.shop("GET", "inventory-service/api/inventory/products/category/books")[1][0]["sku"] == "BOOK-001"
    assert envoy.shop("GET", "inventory-service/api/inventory/search?query=Running%20Shoes")[1][0]["sku"] == "SPRT-001"
    assert envoy.shop("POST", "cart-service/api/cart/items", item)[0] == 201
    status, order = envoy.shop("POST", "order-service/api/orders", {"items": [], "shippingAddress": ADDRESS})
    assert (status, order["totalAmount"]) == (201, 25.0)
    pay = {"userId": order["userId"], "amount": 25.0, "currency": "USD", "paymentMethod": "COD", "orderId": order["id"]}
    status, payment = envoy.shop("POST", "payment-service/api/payments", pay)
    assert (status, payment["status"]) == (201, "COMPLETED")
    assert envoy.shop("DELETE", "cart-service/api/cart") == (204, None)


def test_a_status_of_a_service_is_passed_through(envoy: Any) -> None:
    status, told, text = envoy.call("GET", ME)
    assert (status, json.loads(text)) == (401, {"error": "a valid token is needed: log in"})
    assert told["x-lb-flags"] == "-"


def test_a_pin_is_honoured_and_an_unknown_one_is_told(envoy: Any) -> None:
    for _ in range(3):
        _, told, _ = asked(envoy, X_LB_Pin="user-service-3")
        assert (told["x-lb-instance"], told["x-lb-flags"]) == ("user-service-3", "pinned")
    assert asked(envoy, X_LB_Pin="user-service-9")[1]["x-lb-flags"] == "unknown_pin"


def test_an_unknown_action_gets_the_services_own(envoy: Any) -> None:
    _, told, _ = asked(envoy, X_RL_Action="fastest")
    assert (told["x-lb-action"], told["x-lb-flags"]) == ("round_robin", "unknown_action")


def test_health_is_that_of_an_instance(envoy: Any) -> None:
    for service in SERVICES:
        status, told, text = envoy.call("GET", f"/proxy/{service}/actuator/health")
        assert (status, json.loads(text)["status"]) == (200, "UP") and told["x-lb-instance"].startswith(service)


def test_envoys_own_errors_carry_the_contract(envoy: Any) -> None:
    status, told, text = asked(envoy, "/proxy/nix-service/api", X_RL_Action="weighted_capacity")
    assert status == 503 and set(told) >= CONTRACT and "No healthy instances" in json.loads(text)["error"]
    assert (told["x-lb-action"], told["x-lb-instance"], told["x-lb-attempts"]) == ("weighted_capacity", "-", "0")


def test_a_timeout_is_envoys_and_names_the_instance(envoy: Any) -> None:
    fault(envoy, "timeouts", "payment-service", value=1.0)
    try:
        status, told, text = asked(envoy, "/proxy/payment-service/api/payments/1", X_RL_Action="least_loaded")
    finally:
        lift(envoy)
    assert (status, told["x-lb-flags"], told["x-lb-action"]) == (504, "UT", "least_loaded")
    assert told["x-lb-instance"].startswith("payment-service-") and "timeout" in json.loads(text)["error"]


# -- control ----------------------------------------------------------------------------------------------------------


def test_the_control_action_serves_requests_that_ask_for_none(envoy: Any) -> None:
    for action in (*ACTIONS, "round_robin"):
        status, _, _ = envoy.call("PUT", "/control/actions", {"actions": {"user-service": action}})
        assert status == 200
        assert {asked(envoy)[1]["x-lb-action"] for _ in range(3)} == {action}
        assert envoy.get("/state")["services"]["user-service"]["action"] == action
    assert asked(envoy, "/proxy/cart-service/api/nothing")[1]["x-lb-action"] == "round_robin"


def test_calls_between_services_follow_the_control_action(envoy: Any) -> None:
    """A cart of one item is two reads of inventory, which Envoy counts by the action that chose."""
    item = {"productId": "BOOK-002", "productName": "x", "price": 1.0, "quantity": 1}
    envoy.call("PUT", "/control/actions", {"actions": {"inventory-service": "weighted_capacity"}})
    before = inventory_counts(envoy)
    assert envoy.shop("POST", "cart-service/api/cart/items", item)[0] == 201
    envoy.call("PUT", "/control/actions", {"actions": {"inventory-service": "round_robin"}})
    until(lambda: sum((inventory_counts(envoy) - before).values()) >= 2, "Envoy has counted the calls")
    assert inventory_counts(envoy) - before == Counter({"weighted_capacity": 2})


def inventory_counts(live: Any) -> Counter[str]:
    text = admin(live, "/stats/prometheus?filter=lb_pod.*requests_total")
    found: Counter[str] = Counter()
    for labels, count in re.findall(r"lb_pod_requests_total\{(.*)\} (\d+)", text):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if tags["service"] == "inventory-service":
            found[tags["action"]] += int(count)
    return found


def admin(live: Any, path: str) -> str:
    """An answer of Envoy's admin interface, whose address the sandbox tells."""
    import http.client

    found = re.search(r"admin=http://([\d.]+):(\d+)", live.opening)
    assert found is not None
    connection = http.client.HTTPConnection(found[1], int(found[2]), timeout=20)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_the_clusters_name_instances_as_the_answers_do(envoy: Any) -> None:
    """So that the metrics source `envoy` and the recorded requests speak of the same."""
    named = {one.instance for one in parse_clusters(json.loads(admin(envoy, "/clusters?format=json")))}
    assert named == {f"{service}-{number}" for service in SERVICES for number in (1, 2, 3)}


def test_the_metrics_have_the_names_of_the_contract(envoy: Any) -> None:
    asked(envoy, X_RL_Action="backpressure")
    want = 'envoy_lb_pod_requests_total{service="user-service",pod="user-service-'
    until(lambda: want in admin(envoy, "/stats/prometheus?filter=lb_pod"), "the request is counted")
    text = admin(envoy, "/stats/prometheus?filter=lb_pod")
    assert 'action="backpressure",code="200"' in text and "envoy_lb_pod_response_time_ms_bucket" in text
    active = re.findall(r'envoy_lb_pod_active_requests\{service="(.*?)",pod="(.*?)"\} (\d+)', text)
    assert {pod for _, pod, _ in active} >= {"user-service-1"} and {count for *_, count in active} == {"0"}


def test_the_state_says_what_balances_and_leaves_out_what_only_that_knows(envoy: Any) -> None:
    state = envoy.get("/state")
    assert state["balancer"]["kind"] == "envoy" and state["balancer"]["version"] == "1.40.0"
    assert re.fullmatch(r"[0-9a-f]{64}", state["balancer"]["config_sha256"])
    assert tuple(state["services"]) == SERVICES and "client_requests_total" not in state
    for told in state["services"].values():
        for one in told["instances"].values():
            assert {"cpu", "queue_depth", "in_flight", "requests_total"} <= set(one)
            assert not {"breaker", "latency_ewma_ms"} & set(one)


def test_another_load_brings_another_world_with_its_timeouts_on_the_same_ports(envoy: Any) -> None:
    load = {
        "time_scale": 5,
        "expect": {"user-service GET /api/users/me": 20.0},
        "products": [{"sku": "K-1", "name": "Kettle", "category": "kitchen", "brand": "Fuma", "price": 30}],
    }
    until(lambda: envoy.call("PUT", "/control/load", load)[0] == 200, "the sandbox is idle and takes the load")
    envoy.tokens.clear()  # a fresh shop knows nobody
    assert envoy.shop("GET", "inventory-service/api/inventory/products/K-1")[1]["price"] == 30
    routes = json.loads(admin(envoy, "/config_dump?resource=dynamic_route_configs"))
    timeouts = {one["route"]["timeout"] for one in json.dumps(routes) and proxied(routes)}
    assert timeouts == {"1.600s"}
    assert {asked(envoy, X_RL_Action=action)[0] for action in ACTIONS} == {200}


def proxied(dump: dict[str, Any]) -> list[dict[str, Any]]:
    found = [route for host in dump["configs"][0]["route_config"]["virtual_hosts"] for route in host["routes"]]
    return [route for route in found if route["name"] in SERVICES]


# -- sick instances ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS)
def test_a_crashed_instance_is_avoided_and_all_down_is_told(envoy: Any, action: str) -> None:
    def served(count: int) -> Counter[str]:
        return Counter(asked(envoy, X_RL_Action=action)[1]["x-lb-instance"] for _ in range(count))

    asked(envoy)
    fault(envoy, "crash", "user-service", "user-service-1")
    try:
        until(lambda: set(served(20)) == {"user-service-2", "user-service-3"}, "Envoy's health checks see the crash")
        counts = served(20)
        assert set(counts) == {"user-service-2", "user-service-3"}
        if action != "fastest_response":
            assert min(counts.values()) >= 9
        fault(envoy, "crash", "user-service")
        until(lambda: asked(envoy, X_RL_Action=action)[1]["x-lb-flags"].endswith("UH"), "all are seen to be down")
        status, told, text = asked(envoy, X_RL_Action=action)
        assert (status, told["x-lb-action"], told["x-lb-instance"], told["retry-after"]) == (503, action, "-", "1")
        assert json.loads(text) == {"error": "No healthy instances available for service: user-service"}
    finally:
        lift(envoy)
    until(lambda: all_take_turns(envoy), "all are back, and nothing is remembered")


def all_take_turns(live: Any) -> bool:
    """For both clusters of the service."""
    return all(
        sorted(Counter(told["x-lb-instance"] for told in turns).values()) == [3, 3, 3]
        and {told["x-lb-flags"] for told in turns} == {"-"}
        for turns in (
            [asked(live, X_RL_Action=action)[1] for _ in range(9)] for action in ("round_robin", "circuit_breaker")
        )
    )


def test_a_breaker_opens_for_circuit_breaker_alone_and_reads_are_tried_elsewhere(envoy: Any) -> None:
    asked(envoy)
    fault(envoy, "errors", "user-service", "user-service-2", value=1.0)
    try:
        first = [asked(envoy, X_RL_Action="circuit_breaker") for _ in range(20)]
        assert {status for status, *_ in first} == {200}
        retried = [told for _, told, _ in first if told["x-lb-attempts"] != "1"]
        assert retried and all(told["x-lb-instance"] != "user-service-2" for told in retried)
        until(lambda: breaker_attempts(envoy) == {"1"}, "the instance is ejected, and nothing has to be tried again")
        others = Counter(asked(envoy, X_RL_Action="round_robin")[0] for _ in range(9))
        assert others == Counter({200: 6, 500: 3})
    finally:
        lift(envoy)


def breaker_attempts(live: Any) -> set[str]:
    return {asked(live, X_RL_Action="circuit_breaker")[1]["x-lb-attempts"] for _ in range(6)}


def test_a_write_that_may_have_arrived_is_not_sent_again(envoy: Any) -> None:
    fault(envoy, "errors", "user-service", value=1.0)
    login = {"email": "ann@example.org", "password": "correct horse"}
    try:
        status, told, _ = envoy.call("POST", "/proxy/user-service/api/users/login", login, {"X-RL-Action": ACTIONS[4]})
    finally:
        lift(envoy)
    assert (status, told["x-lb-attempts"]) == (500, "1")


def test_a_write_that_never_arrived_is_sent_elsewhere(envoy: Any) -> None:
    """Before the health checks have seen the crash, the connection is refused."""
    login = {"email": "ann@example.org", "password": "correct horse"}
    envoy.token("ann")
    until(lambda: all_take_turns(envoy), "nothing is remembered")
    fault(envoy, "crash", "user-service", "user-service-2")
    try:
        headers = {"X-RL-Action": "circuit_breaker"}
        told = [envoy.call("POST", "/proxy/user-service/api/users/login", login, headers)[:2] for _ in range(6)]
    finally:
        lift(envoy)
    assert {status for status, _ in told} == {200}
    assert "2" in {answer["x-lb-attempts"] for _, answer in told}
    until(lambda: all_take_turns(envoy), "it is back")


def test_backpressure_sheds_when_all_queues_are_long(run_live: Run) -> None:
    live = run_live("--balancer", "envoy", "--healthy", "--time-scale", "10", "--utilization", "3")
    live.token("ann")
    fault(live, "latency", "user-service", value=20.0)

    def ask(_: int) -> tuple[int, dict[str, str], str]:
        return asked(live, X_RL_Action="backpressure")

    with ThreadPoolExecutor(120) as pool:
        answers = list(pool.map(ask, range(240)))
    shed = [(status, told, text) for status, told, text in answers if told["x-lb-flags"] == "shed"]
    assert shed
    for status, told, text in shed:
        assert (status, told["x-lb-instance"], told["retry-after"]) == (503, "-", "1") and set(told) >= CONTRACT
        assert json.loads(text) == {"error": "All instances of user-service have long queues: request shed"}


def test_a_client_that_goes_away_is_taken_off_the_counts(envoy: Any) -> None:
    import socket

    fault(envoy, "latency", "order-service", value=60)
    sockets, token = [], envoy.token("ann")
    for _ in range(8):
        one = socket.create_connection(("127.0.0.1", envoy.port))
        head = f"GET /proxy/order-service/api/orders/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}"
        one.sendall(head.encode() + b"\r\nX-RL-Action: least_loaded\r\n\r\n")
        sockets.append(one)
    inside = lambda: sum(  # noqa: E731
        one["in_flight"] for one in envoy.get("/state")["services"]["order-service"]["instances"].values()
    )
    until(lambda: inside() == 8, "all are in flight")
    for one in sockets:
        one.close()
    lift(envoy)
    path = "/proxy/order-service/api/orders/user"
    until(lambda: asked(envoy, path, X_RL_Action="least_loaded")[1]["x-lb-inflight"] == "0", "nothing is in flight")


def test_envoy_takes_the_shipped_example() -> None:
    example = ROOT / "deploy" / "envoy" / "envoy.yaml"
    command = [str(find_binary()), "--mode", "validate", "--concurrency", "1", "-c", str(example)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and f"configuration '{example}' OK" in done.stdout + done.stderr


# -- under load, and the end ------------------------------------------------------------------------------------------


def test_healthy_means_everything_succeeds_with_all_actions_mixed(run_live: Run) -> None:
    live = run_live("--balancer", "envoy", "--healthy", "--time-scale", "10", "--seed", "3")
    assert live.shop_with_all_actions() == {200: 160, 201: 160}
    assert live.stop() == 0 and re.search(r"inventory-service +\d+ \(0\)", live.closing)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_leaves_no_process(run_live: Run, number: signal.Signals) -> None:
    live = run_live("--balancer", "envoy")
    (child,) = children_of(live.process.pid)
    assert live.stop(number) == 0
    assert is_gone(child)


def test_envoy_does_not_outlive_a_sandbox_that_is_killed(run_live: Run) -> None:
    live = run_live("--balancer", "envoy")
    (child,) = children_of(live.process.pid)
    live.stop(signal.SIGKILL)
    until(lambda: is_gone(child), "the kernel has told Envoy")


def test_a_port_that_is_in_use_is_told(envoy: Any) -> None:
    command = [sys.executable, "-m", "sandbox", "--balancer", "envoy", "--port", str(envoy.port)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and f"port {envoy.port} on 127.0.0.1 is in use" in done.stderr


def test_without_envoy_the_sandbox_ends_and_says_so(run_live: Run) -> None:
    live = run_live("--balancer", "envoy")
    (child,) = children_of(live.process.pid)
    os.kill(child, signal.SIGKILL)
    live.closing, _ = live.process.communicate(timeout=30)
    assert live.process.returncode == 1
    assert "sandbox: envoy has ended, and with it the sandbox: killed by signal 9" in live.closing

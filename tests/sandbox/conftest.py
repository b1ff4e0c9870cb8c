"""Builders with defaults, and a real sandbox in a process of its own."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rl_hooks.decision import ACTIONS
from sandbox.backend import Backend
from sandbox.balancer import Balancer
from sandbox.clock import VirtualClock
from sandbox.instance import Instance
from sandbox.parameters import Parameters
from sandbox.sizing import size
from sandbox.world import World

ROOT = Path(__file__).parents[2]
CALM = replace(Parameters(), weather=False)
ADDRESS = {"street": "1 Main St", "city": "Troy", "state": "NY", "country": "US", "zipCode": "12180"}


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def make_instance(clock: VirtualClock) -> Callable[..., Instance]:
    def make(
        *, name: str = "a-1", workers: int = 1, mean_service_s: float = 1.0, seed: int = 0, **changes: Any
    ) -> Instance:
        parameters = replace(CALM, **{"demand_sigma": 0.0, **changes})
        rng = Random(seed)
        return Instance(name, clock, rng, workers=workers, mean_service_s=mean_service_s, parameters=parameters)

    return make


@pytest.fixture
def make_balancer(clock: VirtualClock, make_instance: Callable[..., Instance]) -> Callable[..., Balancer]:
    """A balancer in front of instances with exact service times of 1 s, unless told otherwise."""

    def make(*, workers: tuple[int, ...] = (2, 1, 1), mean_service_s: float = 1.0, **changes: Any) -> Balancer:
        parameters = replace(CALM, **{"demand_sigma": 0.0, "request_timeout_s": 1000.0, **changes})
        instances = [
            make_instance(
                name=f"a-{i + 1}", workers=count, seed=i, mean_service_s=mean_service_s, **vars_of(parameters)
            )
            for i, count in enumerate(workers)
        ]
        backends = [Backend(i, one, float(one.workers), parameters) for i, one in enumerate(instances)]
        return Balancer("a", backends, clock, parameters)

    return make


def vars_of(parameters: Parameters) -> dict[str, Any]:
    return {name: getattr(parameters, name) for name in Parameters.__dataclass_fields__}


@pytest.fixture
def make_world(clock: VirtualClock) -> Callable[..., World]:
    def make(
        *,
        seed: int = 1,
        expected: dict[str, float] | None = None,
        target: float = 0.85,
        time_scale: float = 1.0,
        weather: bool = False,
        on: VirtualClock | None = None,
        **changes: Any,
    ) -> World:
        parameters = replace(Parameters(), weather=weather, **changes).scaled(time_scale)
        return World(on or clock, parameters, size(expected, time_scale, target), seed=seed)

    return make


@dataclass
class Live:
    """A running sandbox and a client without any cleverness: one connection per request."""

    process: subprocess.Popen[str]
    port: int
    opening: str
    closing: str = ""
    tokens: dict[str, str] = field(default_factory=dict)

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, data, headers or {})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode()
        finally:
            connection.close()

    def shop(self, method: str, path: str, body: Any = None, *, user: str = "ann") -> tuple[int, Any]:
        """A call through the balancer as a logged-in user; the status and the JSON of the answer."""
        headers = {"Authorization": f"Bearer {self.token(user)}"}
        status, _, text = self.call(method, f"/proxy/{path}", body, headers)
        return status, json.loads(text) if text else None

    def shop_with_all_actions(self) -> Counter[int]:
        """Eight shoppers at once, 40 calls each under every action in turn: how often each status came."""
        tokens = [self.token(f"user{number}") for number in range(8)]
        item = {"productId": "BOOK-003", "productName": "x", "price": 18.9, "quantity": 1}
        calls = [
            ("GET", "inventory-service/api/inventory/products/BOOK-003", None),
            ("POST", "cart-service/api/cart/items", item),
            ("GET", "cart-service/api/cart/summary", None),
            ("POST", "order-service/api/orders", {"items": [], "shippingAddress": ADDRESS}),
        ]

        def shop(number: int) -> list[int]:
            headers = {"Authorization": f"Bearer {tokens[number]}"}
            done = []
            for turn in range(40):
                method, path, body = calls[turn % 4]
                action = {"X-RL-Action": ACTIONS[(number + turn) % 6]}
                done.append(self.call(method, f"/proxy/{path}", body, headers | action)[0])
            return done

        with ThreadPoolExecutor(8) as pool:
            return Counter(status for done in pool.map(shop, range(8)) for status in done)

    def token(self, user: str) -> str:
        if user not in self.tokens:
            account = {"email": f"{user}@example.org", "password": "correct horse"}
            self.call(
                "POST", "/proxy/user-service/api/users/register", {**account, "firstName": user, "lastName": "Test"}
            )
            _, _, text = self.call("POST", "/proxy/user-service/api/users/login", account)
            self.tokens[user] = json.loads(text)["token"]
        return self.tokens[user]

    def get(self, path: str) -> Any:
        return json.loads(self.call("GET", path)[2])

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.closing, _ = self.process.communicate(timeout=30)
        return self.process.returncode


def start_live(*options: str) -> Live:
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox", "--port", "0", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    opening = ""
    for line in process.stdout:
        opening += line
        ready = re.match(r"sandbox ready: http://127\.0\.0\.1:(\d+)/proxy ", line)
        if ready:
            return Live(process, int(ready[1]), opening)
    raise AssertionError(f"the sandbox did not start:\n{opening}")


def _sandboxes() -> Iterator[Callable[..., Live]]:
    """Starts sandboxes; those still running at the end are ended."""
    started: list[Live] = []

    def run(*options: str) -> Live:
        started.append(start_live(*options))
        return started[-1]

    yield run
    for live in started:
        _end(live)


run_live = pytest.fixture(_sandboxes, name="run_live")
run_live_for_file = pytest.fixture(_sandboxes, name="run_live_for_file", scope="module")


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    """One healthy sandbox for a whole file."""
    sandbox = start_live("--healthy", "--time-scale", "10")
    yield sandbox
    _end(sandbox)


def _end(live: Live) -> None:
    """In order, so that it removes its files; whatever does not end so is killed."""
    live.process.terminate()
    try:
        live.process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        live.process.kill()
        live.process.wait(timeout=30)
    if live.process.stdout is not None:
        live.process.stdout.close()

"""Asks a balancer everything that the contract says, with requests that change nothing in the shop.

At most some 250 requests, one after the other but for three connections at once while actions are mixed, and never for
longer than `LONGEST_S`. Nothing that comes back is trusted: sizes and times are bounded.
"""

import http.client
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from rl_hooks.conformance.facts import (
    UNKNOWN_ACTION,
    UNKNOWN_PIN,
    UNKNOWN_SERVICE,
    Answer,
    Ask,
    Facts,
    Page,
    Why,
)
from rl_hooks.decision import ACTIONS, REQUEST_ACTION, REQUEST_PIN, SERVICES, write_request
from scenario.errors import show

TIMEOUT_S = 5.0
LONGEST_S = 90.0
LARGEST_BYTES = 16 * 1024 * 1024  # of a page of metrics; Envoy's has one
CONNECTIONS = 3  # while actions are mixed
PINNED_INSTANCES = 3  # of each service

PATHS: Mapping[str, str] = {
    "user-service": "/api/users/me",
    "inventory-service": "/api/inventory/search?query=conformance",
    "cart-service": "/api/cart/summary",
    "order-service": "/api/orders/user",
    "payment-service": "/api/payments/0",
}
"""Calls that need no state and leave none. Without a token most are answered 401: that is an instance's answer too."""
NOT_FOUND_PATH = "/api/inventory/products/CONFORMANCE-NO-SUCH-SKU"
METRICS_PATHS = ("/metrics", "/actuator/prometheus", "/stats/prometheus")
ADMIN_PATH = "/api/services"


class Link:
    """One connection, kept for as long as the other side keeps it."""

    def __init__(self, url: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._base = parts.path.rstrip("/")
        self._timeout_s = timeout_s
        self._connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
        self._cut = False

    def close(self) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        """The answer, read to its end. Raises OSError with what happened when there is none in time."""
        kept = self._connection.sock is not None
        try:
            return self._ask(method, path, headers, body)
        except _GoneError:
            if not kept:
                raise
            return self._ask(method, path, headers, body)  # the other side had closed what it had kept until then

    def _ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        reused = self._connection.sock is not None
        self._cut = False
        try:
            began_ns = time.perf_counter_ns()
            if not reused:
                self._connection.connect()
            with _Deadline(self._connection.sock, self._timeout_s, self):
                self._connection.request(method, f"{self._base}{path}", body, dict(headers))
                with self._connection.getresponse() as response:
                    content = response.read(LARGEST_BYTES)
                    if len(content) < LARGEST_BYTES and response.length:
                        raise http.client.IncompleteRead(content, response.length)
                    if response.read(1):
                        self._connection.close()  # whatever else it has to say
                    duration_us = (time.perf_counter_ns() - began_ns) // 1000
                    told = tuple((name.lower(), value) for name, value in response.getheaders())
                    return Answer(response.status, told, content, duration_us, reused)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            if self._cut or isinstance(error, TimeoutError):
                raise TimeoutError(f"no answer within {self._timeout_s:g} s") from error
            if isinstance(error, ConnectionResetError | BrokenPipeError | http.client.RemoteDisconnected):
                raise _GoneError("the connection was closed without an answer") from error
            raise OSError(_said(error)) from error

    def cut(self) -> None:
        self._cut = True


class _GoneError(OSError):
    """The connection was closed before a byte of the answer."""


class _Deadline:
    """Cuts a connection that takes too long; a timeout of the socket begins anew with every byte."""

    def __init__(self, sock: socket.socket, timeout_s: float, link: Link) -> None:
        self._sock, self._link = sock, link
        self._timer = threading.Timer(timeout_s, self._end)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        self._link.cut()
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:  # the other side was quicker
            return


def _said(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or type(error).__name__}"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return f"{type(error).__name__} {show(str(error))}"


@dataclass(frozen=True, slots=True)
class Wish:
    """A request to make."""

    why: Why
    service: str
    path: str
    action: str | None = None
    pin: str | None = None
    method: str = "GET"
    body: bytes | None = None


class Prober:
    """Makes the requests, and stops when there is no time left."""

    def __init__(self, host: str, timeout_s: float, longest_s: float) -> None:
        self._host = host
        self._timeout_s = timeout_s
        self._deadline_s = time.monotonic() + longest_s
        self._rng = random.Random("conformance")
        self.asks: list[Ask] = []
        self.not_asked = 0

    def go(self, wishes: list[Wish]) -> None:
        """One after the other on one connection."""
        asks, left = self._go(wishes)
        self.asks += asks
        self.not_asked += left

    def go_at_once(self, wishes: list[list[Wish]]) -> None:
        """Each list on a connection of its own, all at the same time."""
        with ThreadPoolExecutor(len(wishes)) as pool:
            for asks, left in pool.map(self._go, wishes):
                self.asks += asks
                self.not_asked += left

    def _go(self, wishes: list[Wish]) -> tuple[list[Ask], int]:
        link, asks = Link(self._host, self._timeout_s), []
        try:
            for wish in wishes:
                if time.monotonic() > self._deadline_s:
                    break
                asks.append(self._one(link, wish))
        finally:
            link.close()
        return asks, len(wishes) - len(asks)

    def _one(self, link: Link, wish: Wish) -> Ask:
        trace_id = f"{self._rng.getrandbits(128):032x}"
        headers = {"X-Trace-Id": trace_id, "Accept": "*/*", **write_request(wish.action)}
        if wish.pin is not None:
            headers[REQUEST_PIN] = wish.pin
        if wish.body is not None:
            headers["Content-Type"] = "application/json"
        path = f"/{wish.service}{wish.path}"
        answer, error = None, ""
        try:
            answer = link.ask(wish.method, path, headers, wish.body)
        except OSError as reason:
            error = str(reason)
        return Ask(wish.why, wish.service, trace_id, headers.get(REQUEST_ACTION), wish.pin, answer, error)

    def page(self, url: str) -> Page:
        """A page somewhere else, without the headers of the contract."""
        if time.monotonic() > self._deadline_s:
            self.not_asked += 1
            return Page(url, None, "there was no time left")
        parts = urlsplit(url)
        link = Link(f"{parts.scheme}://{parts.netloc}", self._timeout_s)
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            return Page(url, link.ask("GET", target, {"Accept": "*/*"}))
        except OSError as error:
            return Page(url, None, str(error))
        finally:
            link.close()


def look(
    host: str, root: str, metrics: str | None, timeout_s: float = TIMEOUT_S, longest_s: float = LONGEST_S
) -> Facts:
    """Everything about the target at `host`. Where nobody answers at all, nothing more than its health is asked.

    `root`: of the balancer; `metrics`: where its metrics are, None to look for them at the root.
    """
    began_s = time.monotonic()
    prober = Prober(host, timeout_s, longest_s)
    prober.go([Wish(Why.HEALTH, service, "/actuator/health") for service in SERVICES])
    if all(ask.answer is None for ask in prober.asks):
        return Facts(host, tuple(prober.asks), (), None, time.monotonic() - began_s)
    prober.go(list(_in_a_row()))
    prober.go_at_once(_mixed())
    prober.go(list(_errors()))
    facts = Facts(host, tuple(prober.asks), (), None, 0.0)
    prober.go(list(_pinned(facts.instances())))
    urls = [metrics] if metrics is not None else [f"{root}{path}" for path in METRICS_PATHS]
    pages = [prober.page(url) for url in urls]
    admin = prober.page(f"{root}{ADMIN_PATH}")
    return Facts(host, tuple(prober.asks), tuple(pages), admin, time.monotonic() - began_s, prober.not_asked)


def _in_a_row() -> Iterator[Wish]:
    for service in SERVICES:
        for action in ACTIONS:
            yield from [Wish(Why.ASKED, service, PATHS[service], action)] * 2
        yield from [Wish(Why.ABSENT, service, PATHS[service])] * 3
        yield from [Wish(Why.UNKNOWN, service, PATHS[service], UNKNOWN_ACTION)] * 2


def _mixed() -> list[list[Wish]]:
    """Every action of every service once per connection, in an order of its own."""
    wishes = [Wish(Why.MIXED, service, PATHS[service], action) for service in SERVICES for action in ACTIONS]
    return [random.Random(f"conformance/{index}").sample(wishes, len(wishes)) for index in range(CONNECTIONS)]


def _errors() -> Iterator[Wish]:
    yield Wish(Why.NOT_FOUND, "inventory-service", NOT_FOUND_PATH, ACTIONS[2])
    yield Wish(Why.NO_SERVICE, UNKNOWN_SERVICE, "/", ACTIONS[2])
    yield Wish(Why.MALFORMED, "user-service", "/api/users/login", ACTIONS[2], method="POST", body=b'{"email": ')
    yield Wish(Why.METHOD, "inventory-service", PATHS["inventory-service"], ACTIONS[2], method="PATCH")


def _pinned(instances: Mapping[str, list[str]]) -> Iterator[Wish]:
    for service, names in instances.items():
        for name in names[:PINNED_INSTANCES]:
            yield from [Wish(Why.PINNED, service, PATHS[service], ACTIONS[0], name)] * 2
        yield Wish(Why.UNKNOWN_PIN, service, PATHS[service], ACTIONS[0], UNKNOWN_PIN)

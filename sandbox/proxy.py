"""From HTTP to the world and back: what the balancer accepts, and what its answers look like.

Still without sockets: bytes and headers in, `HttpReply` out. Every answer under /proxy carries the headers of the
contract (lb-contract/1), the balancer's own errors too.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qsl

from rl_hooks.decision import (
    ACTION_INDEX,
    NO_INSTANCE,
    REQUEST_ACTION,
    REQUEST_PIN,
    RESPONSE_ACTION,
    RESPONSE_INSTANCE,
    RESPONSE_QUEUE_MS,
    RESPONSE_UPSTREAM_US,
)
from sandbox.balancer import TIMEOUT_CODE, Exchange
from sandbox.shop.calls import Request, Response, encode_json
from sandbox.stage import Stage
from sandbox.strategies import DEFAULT_ACTION

METHODS = ("GET", "POST", "PUT", "DELETE")
PREFIX = "/proxy/"
HEALTH_PATH = "/actuator/health"

_ASK_ACTION = REQUEST_ACTION.lower().encode()
_ASK_PIN = REQUEST_PIN.lower().encode()
_TELL_ACTION = RESPONSE_ACTION.lower().encode()
_TELL_INSTANCE = RESPONSE_INSTANCE.lower().encode()
_TELL_UPSTREAM = RESPONSE_UPSTREAM_US.lower().encode()
_TELL_QUEUE = RESPONSE_QUEUE_MS.lower().encode()
_TRACE_ID = re.compile(rb"[0-9a-f]{32}")
_JSON = (b"content-type", b"application/json")
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_MAX_ECHO = 200  # characters of a path or name that an error repeats

Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class HttpReply:
    """An answer, ready to be sent."""

    status: int
    headers: Headers
    body: bytes


@dataclass(slots=True)
class HttpRequest:
    """A request as it came; header names in lower case."""

    method: str
    path: str  # unquoted
    query: bytes
    headers: Headers
    body: bytes


class BadBodyError(ValueError):
    """A body that is not JSON."""


def parse_json(body: bytes) -> object:
    """The body's value, None when it is empty; `BadBodyError` for everything that JSON does not know."""
    if not body:
        return None
    try:
        return _DECODER.decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise BadBodyError(str(error)[:_MAX_ECHO]) from error


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)  # once: json.loads makes one per call for its options


def json_reply(status: int, body: object, headers: Headers | None = None) -> HttpReply:
    """`body` as JSON."""
    return _reply(status, encode_json(body).encode(), headers or [])


def text_reply(status: int, body: str, content_type: str) -> HttpReply:
    """`body` as it is."""
    data = body.encode()
    length = str(len(data)).encode()
    return HttpReply(status, [(b"content-type", content_type.encode()), (b"content-length", length)], data)


def _reply(status: int, body: bytes, headers: Headers) -> HttpReply:
    if status != HTTPStatus.NO_CONTENT:
        headers.append(_JSON)
        headers.append((b"content-length", b"%d" % len(body)))
    return HttpReply(status, headers, body)


@dataclass(slots=True)
class Asked:
    """What the headers of a request say, as far as we believe it."""

    action: str | None = None
    unknown_action: bool = False
    pin: str | None = None
    trace_id: bytes | None = None
    token: str | None = None
    session_id: str | None = None


def read_headers(headers: Headers) -> Asked:
    asked = Asked()
    for name, value in headers:
        if name == _ASK_ACTION:
            action = value.decode("latin-1")
            if action in ACTION_INDEX:
                asked.action = action
            else:
                asked.unknown_action = True
        elif name == b"x-trace-id":
            asked.trace_id = value if _TRACE_ID.fullmatch(value) else None
        elif name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            asked.token = token.strip() if scheme.lower() == "bearer" else None
        elif name == b"x-session-id":
            asked.session_id = value[:64].decode("latin-1")
        elif name == _ASK_PIN:
            asked.pin = value[:64].decode("latin-1")
    return asked


class Proxy:
    """The balancer's front door, for everything under /proxy."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def open(self, request: HttpRequest, on_reply: Callable[[HttpReply], None]) -> Exchange | None:
        """Handle a request; `on_reply` is called once, possibly before this returns. The exchange is there to be
        cancelled; None when no service was asked."""
        asked = read_headers(request.headers)
        service, slash, rest = request.path[len(PREFIX) :].partition("/")
        path = slash + rest
        reply = self._own_reply(request, asked, service, path)
        if reply is not None:
            on_reply(reply)
            return None
        try:
            body = parse_json(request.body)
        except BadBodyError as error:
            on_reply(self._refuse(service, asked, 400, f"Malformed JSON body: {error}"))
            return None
        query = dict(parse_qsl(request.query.decode("latin-1"), keep_blank_values=True)) if request.query else {}
        self._stage.note_request()
        stated = self._statement(service, asked)  # of now: another decision may be in force when the answer is there
        return self._stage.world.send(
            service,
            Request(request.method, path, query, body, asked.token, asked.session_id),
            lambda exchange: on_reply(self._answer(service, path, asked, stated, exchange)),
            action=asked.action,
            pin=asked.pin,
        )

    def refuse(self, request: HttpRequest, status: int, text: str, *extra: tuple[bytes, bytes]) -> HttpReply:
        """An error of the balancer's own about a request that it does not handle."""
        service = request.path[len(PREFIX) :].partition("/")[0]
        return self._refuse(service, read_headers(request.headers), status, text, *extra)

    def _own_reply(self, request: HttpRequest, asked: Asked, service: str, path: str) -> HttpReply | None:
        """What the balancer answers without asking an instance; None when it has to."""
        balancer = self._stage.world.balancers.get(service)
        if request.method not in METHODS:
            allow = ", ".join(METHODS)
            return self._refuse(service, asked, 405, f"Method not allowed: use {allow}", (b"allow", allow.encode()))
        if balancer is None:
            return self._refuse(service, asked, 503, _no_instance(service))
        if request.method != "GET" or path != HEALTH_PATH:
            return None
        if not any(backend.instance.up for backend in balancer.backends):
            return self._refuse(service, asked, 503, _no_instance(service))
        return json_reply(200, {"status": "UP", "service": service}, self._own_headers(service, asked))

    def _refuse(self, service: str, asked: Asked, status: int, text: str, *extra: tuple[bytes, bytes]) -> HttpReply:
        return json_reply(status, {"error": text}, [*self._own_headers(service, asked), *extra])

    def _own_headers(self, service: str, asked: Asked) -> Headers:
        """Headers of an answer for which no instance was contacted."""
        balancer = self._stage.world.balancers.get(service)
        headers: Headers = [
            (_TELL_ACTION, (asked.action or (balancer.action if balancer else DEFAULT_ACTION)).encode()),
            (_TELL_INSTANCE, NO_INSTANCE.encode()),
            (_TELL_UPSTREAM, b"0"),
            (_TELL_QUEUE, b"0"),
            (b"x-lb-inflight", b"0"),
            (b"x-lb-attempts", b"0"),
            (b"x-lb-flags", b"unknown_action" if asked.unknown_action else b"-"),
            *self._statement(service, asked),
        ]
        if asked.trace_id is not None:
            headers.append((b"x-trace-id", asked.trace_id))
        return headers

    def _statement(self, service: str, asked: Asked) -> tuple[tuple[bytes, bytes], ...]:
        """Who chose the action, where the balancer did and not the request."""
        balancer = self._stage.world.balancers.get(service)
        return () if balancer is None or asked.action is not None or asked.pin is not None else balancer.statement

    def _answer(
        self, service: str, path: str, asked: Asked, stated: tuple[tuple[bytes, bytes], ...], exchange: Exchange
    ) -> HttpReply:
        headers = [*_exchange_headers(asked, exchange), *stated]
        status, body, come_back = answer_of(exchange, service, path)
        if come_back:
            headers.append((b"retry-after", b"%d" % self._stage.world.parameters.retry_after))
        return _reply(status, body.encode(), headers)


def answer_of(exchange: Exchange, service: str, path: str) -> tuple[int, str, bool]:
    """What the client is answered when `exchange` is over: status, body, and whether it is told to come back later."""
    response = exchange.response
    if isinstance(response, Response) and response.status < 400:
        return response.status, response.body or "", False
    if exchange.backend is None:
        if exchange.flags[-1] == "no_healthy_instance":
            return 503, _error(_no_instance(service)), False
        return 503, _error(_REFUSALS[exchange.flags[-1]].format(service=service)), True
    text = _failure(exchange, response if isinstance(response, Response) else None, path)
    return 502, _error(f"Failed to forward request: {text}"), False


def _error(text: str) -> str:
    return encode_json({"error": text})


_REFUSALS = {
    "shed": "All instances of {service} have long queues: request shed",
    "breaker_open": "The circuit breakers of all instances of {service} are open",
}


def _no_instance(service: str) -> str:
    return f"No healthy instances available for service: {service[:_MAX_ECHO]}"


def _failure(exchange: Exchange, response: Response | None, path: str) -> str:
    """Why there is no good answer. It begins with the backend's status where there is one, and only there."""
    name = exchange.backend.name if exchange.backend is not None else NO_INSTANCE
    if "refused" in exchange.flags[-1:]:
        return f"connection refused by {name}"
    if "reset" in exchange.flags[-1:]:
        return f"connection reset by {name}"
    if exchange.code == TIMEOUT_CODE and response is None:
        return f"timeout, no answer of {name} within {exchange.upstream_s * 1000:.0f} ms"
    text = f"{exchange.code} {_PHRASES.get(exchange.code, '')} from {exchange.method} {path[:_MAX_ECHO]}"
    why = _error_text(response) if response is not None else exchange.flags[-1].replace("_", " ")
    return f"{text}: {why}" if why else text


def _error_text(response: Response) -> str:
    body = json.loads(response.body) if response.body else {}
    return str(body.get("error", ""))[:_MAX_ECHO]


def _exchange_headers(asked: Asked, exchange: Exchange) -> Headers:
    flags = exchange.flags
    if asked.unknown_action:
        flags = ("unknown_action", *flags)
    backend = exchange.backend
    headers: Headers = [
        (_TELL_ACTION, exchange.action.encode()),
        (_TELL_INSTANCE, (NO_INSTANCE if backend is None else backend.name).encode()),
        (_TELL_UPSTREAM, b"%d" % round(exchange.upstream_s * 1e6)),
        (_TELL_QUEUE, b"%.3f" % (exchange.queue_s * 1000)),
        (b"x-lb-inflight", b"%d" % exchange.in_flight_at_choice),
        (b"x-lb-attempts", b"%d" % exchange.attempts),
        (b"x-lb-flags", ",".join(flags).encode() if flags else b"-"),
    ]
    if asked.trace_id is not None:
        headers.append((b"x-trace-id", asked.trace_id))
    return headers

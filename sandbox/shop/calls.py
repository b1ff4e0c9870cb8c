"""What goes into the shop and what comes out: a request, an answer, or calls to other services before the answer."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

encode_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
"""An object as compact JSON text; refuses what JSON does not have."""


@dataclass(slots=True)  # not frozen: one is made per request, and a frozen one costs three times as much
class Request:
    """A request as a service gets it from the balancer; nobody changes it."""

    method: str
    path: str  # without the service, unquoted: /api/cart/items
    query: Mapping[str, str] = field(default_factory=dict)
    body: object = None  # parsed JSON; None when there was none
    token: str | None = None  # of `Authorization: Bearer <token>`
    session_id: str | None = None  # X-Session-ID


@dataclass(slots=True)
class Response:
    """An answer of a service. `body` is JSON text, or None for an empty answer."""

    status: int
    body: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A call to another service: load there, and `run` is what it does when that service serves it."""

    service: str
    method: str
    run: Callable[[], Response]


@dataclass(frozen=True, slots=True)
class FanOut:
    """Calls to make side by side; `then` makes the answer, or the next calls, of the answers in the same order.

    An answer is None where a call failed: not answered, or with 500 and above. `undo` runs when nobody is left to
    run `then`, because the instance died meanwhile.
    """

    calls: Sequence[Call]
    then: Callable[[Sequence[Response | None]], "Reply"]
    undo: Callable[[], None] = lambda: None


Reply = Response | FanOut


def json_response(status: int, body: object) -> Response:
    """An answer with `body` as JSON."""
    return Response(status, encode_json(body))


def error(status: int, text: str) -> Response:
    """An answer that says what was wrong. The balancer passes the first line of it on."""
    return Response(status, encode_json({"error": text}))


def upstream_failed(service: str) -> Response:
    """What a service answers when a service behind it did not."""
    return error(502, f"{service} did not answer")

"""Judging the shop's answers: what a status and a body mean to the shopper, and whether to try again.

Pure. A balancer may report its backend's failure as a 502 that names the status in its text only; the status that
counts then is the backend's.
"""

import enum
import json
import re
from dataclasses import dataclass
from typing import Any

from profiles.shop import Endpoint

_FORWARDED = re.compile(rb"Failed to forward request: (\d{3})")
_LONGEST_ERROR_TEXT = 4096  # bytes of a 502 that are searched

UNAUTHORIZED = 401
REQUEST_TIMEOUT = 408
TOO_MANY_REQUESTS = 429
SERVICE_UNAVAILABLE = 503


class Failure(enum.Enum):
    """Why a request did not do what the shopper wanted."""

    TIMEOUT = "timeout"  # no answer within the request timeout
    CONNECTION = "connection"  # refused, reset, or no connection at all
    STATUS = "status"  # an answer with a status that is not the expected one
    CONTENT = "content"  # the right status with a body that makes no sense


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request."""

    status: int  # as the client saw it; 0: no answer
    backend_status: int  # of the service behind the balancer where it can be known; else 0
    failure: Failure | None
    reason: str  # a short text without anything that varies from request to request; empty when all is well
    learned: Any = None  # what `Endpoint.read` made of the body
    retry_after_s: float = 0.0  # asked for by the shop; 0: it did not

    @property
    def ok(self) -> bool:
        return self.failure is None

    @property
    def meant_status(self) -> int:
        """The status that counts: the service's own where it is known."""
        return self.backend_status or self.status

    @property
    def worth_retrying(self) -> bool:
        """Whether the same request may do better later: not for a 4xx other than 401, 408 and 429."""
        status = self.meant_status
        if self.failure is not Failure.STATUS:
            return not self.ok
        return not 400 <= status < 500 or status in (UNAUTHORIZED, REQUEST_TIMEOUT, TOO_MANY_REQUESTS)

    @property
    def refused(self) -> bool:
        """Whether the request surely changed nothing: it was turned away, by a rule or for want of room."""
        if self.failure is not Failure.STATUS or self.meant_status == REQUEST_TIMEOUT:
            return False
        return 400 <= self.meant_status < 500 or self.meant_status == SERVICE_UNAVAILABLE


def no_answer(failure: Failure, what: str, status: int = 0) -> Answer:
    """The answer that did not come, or not as a whole (then with its `status`). `what` names the kind of trouble."""
    return Answer(status, 0, failure, f"{failure.value}: {what}")


def judge(endpoint: Endpoint, status: int, body: bytes, retry_after: str | None = None) -> Answer:
    """What the shopper makes of an answer. `retry_after` is the header of that name; only seconds are understood."""
    backend_status = _backend_status(status, body)
    meant = backend_status or status
    if meant not in endpoint.accepts:
        behind = f" (backend {backend_status})" if backend_status else ""
        reason = f"status {status}{behind}"
        return Answer(status, backend_status, Failure.STATUS, reason, retry_after_s=_seconds(retry_after))
    if meant not in endpoint.with_content:
        return Answer(status, backend_status, None, "")
    try:
        learned = endpoint.read(json.loads(body))
    except (ValueError, KeyError, TypeError, RecursionError):
        # ValueError includes a body that is no JSON or no UTF-8; RecursionError one that is nested without end.
        return Answer(status, backend_status, Failure.CONTENT, f"content: not {endpoint.expects}")
    return Answer(status, backend_status, None, "", learned)


def _backend_status(status: int, body: bytes) -> int:
    if status != 502:
        return 0
    found = _FORWARDED.search(body, 0, _LONGEST_ERROR_TEXT)
    return int(found[1]) if found else 0


def _seconds(header: str | None) -> float:
    return float(header) if header is not None and header.isascii() and header.isdigit() and len(header) <= 9 else 0.0

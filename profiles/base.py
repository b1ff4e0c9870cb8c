"""What the shoppers and those who watch and steer them have in common.

The composition root makes one `Runtime` per run and process and sets it as `environment.rl_runtime` before users start.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from profiles.seats import Seat
from profiles.session import SessionSummary
from scenario.plan import Plan, Segment

SIGNING_IN = "session"
"""Stands for the user action while a shopper registers and logs in."""


@dataclass(slots=True)
class VisitInfo:
    """Whose requests these are: shared by all calls of one page visit, and never changed."""

    profile: str
    phase: str  # when the visit began
    slot: int
    session: int
    account: int
    page: int  # from 1 on; 0: before the first
    user_action: str  # SIGNING_IN while registering and logging in
    note: bytes | None = None  # for the steering alone: what it has worked out about this visit


class Call:
    """One request on its way, from the first try or a retry to its end.

    Handed to Locust's `request` event as context["call"]. What came of it is set before the event fires.
    """

    __slots__ = (
        "action",
        "attempt",
        "backend_status",
        "endpoint",
        "failure",
        "method",
        "ok",
        "place",
        "propensity",
        "service",
        "start_ns",
        "status",
        "tick",
        "trace_hi",
        "trace_lo",
        "visit",
    )

    def __init__(
        self, visit: VisitInfo, service: str, method: str, endpoint: str, attempt: int, trace_hi: int, trace_lo: int
    ) -> None:
        self.visit = visit
        self.service = service
        self.method = method
        self.endpoint = endpoint  # "GET /api/inventory/products/{sku}"
        self.attempt = attempt  # 1 for the first try; more for a retry
        self.place: int | None = None  # the steering's own note of where it keeps this request
        self.trace_hi = trace_hi  # X-Trace-Id, upper 64 bits
        self.trace_lo = trace_lo
        self.start_ns = 0  # wall clock; set by the steering
        self.tick: int | None = None  # decision in force; set by the steering, None: none
        self.action: str | None = None  # the balancer's action asked for; None: none
        self.propensity: float | None = None  # probability the logging policy gave it
        self.ok = False
        self.failure: str | None = None  # "timeout", "connection", "status", "content"
        self.status = 0  # as the client saw it; 0: no answer
        self.backend_status = 0  # of the service behind the balancer; 0: unknown


class Steering(Protocol):
    """Decides how the balancer is asked to route a request."""

    def begin(self, call: Call) -> Mapping[str, str]:
        """The request is about to be sent: sets `call.start_ns`, tick, action and propensity, returns headers."""
        ...


class NoSteering:
    """The balancer decides by itself."""

    _NONE: Mapping[str, str] = {}

    def begin(self, call: Call) -> Mapping[str, str]:
        call.start_ns = time.time_ns()
        return self._NONE


class SeatSource(Protocol):
    def take(self, profile: str) -> Seat:
        """A free seat; may wait for the master's answer."""
        ...

    def give_back(self, seat: Seat) -> None: ...


class AccountSource(Protocol):
    def lease(self) -> int:
        """A free account; may wait for the master's answer."""
        ...

    def give_back(self, account: int) -> None: ...


def _ignore(summary: SessionSummary) -> None:
    """Sessions need not be recorded."""


@dataclass
class Runtime:
    """What the users of one run need in one process."""

    plan: Plan
    run_time_s: Callable[[], float]  # real seconds since the plan's start
    seats: SeatSource
    accounts: AccountSource
    steering: Steering = field(default_factory=NoSteering)
    on_session_end: Callable[[SessionSummary], None] = _ignore
    unix_ns: Callable[[], int] = time.time_ns  # what sessions are stamped with
    registered: set[int] = field(default_factory=set)  # accounts that this process has registered

    def segment_now(self) -> Segment:
        """What holds now. Before the start the first segment, and the last one while users end after the plan's end."""
        t_s = self.run_time_s()
        return self.plan.segment_at(t_s) or self.plan.segments[0 if t_s < 0.0 else -1]

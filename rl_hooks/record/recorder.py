"""The recorder: one row per request into the run folder, from Locust's request event.

It also tells the users which of the balancer's actions is in force when they send (`begin`), so that a row carries
exactly the decision its request was sent under.

The listener never raises: one that does costs Locust 270 us per request and hides the error in a log. It catches its
own faults, counts the rows they cost, and stops the run once with a message.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rl_hooks.decision import (
    ACTION_INDEX,
    ACTIONS,
    NO_INSTANCE,
    REQUEST_ACTION,
    RESPONSE_ACTION,
    RESPONSE_INSTANCE,
    RESPONSE_QUEUE_MS,
    RESPONSE_UPSTREAM_US,
    SERVICE_INDEX,
    SERVICES,
    read_us,
)
from rl_hooks.row import MISSING_U8, MISSING_U32, Failure, Intent, Method, Outcome, UserAction
from rl_hooks.run_folder import RunWriter

NAN = float("nan")
MAX_NAME = 128

_METHODS = {method.name: int(method) for method in Method}
_USER_ACTIONS = {action.name.lower(): int(action) for action in UserAction}
_FAILURES = {None: int(Failure.NONE)} | {failure.name.lower(): int(failure) for failure in Failure if failure}
_INTENTS = {intent.name.lower(): int(intent) for intent in Intent}
_OUTCOMES = {outcome.name.lower(): int(outcome) for outcome in Outcome}
_NO_ACTION: tuple[str | None, int, Mapping[str, str], float] = (None, MISSING_U8, {}, NAN)
_NOT_SERVED = (0, MISSING_U8, MISSING_U32, MISSING_U32)


class InForce:
    """The decision each service's requests are sent under now."""

    def __init__(self) -> None:
        self.tick = MISSING_U32
        # service name -> (action name, action index, request headers, propensity)
        self.by_service: dict[str, tuple[str | None, int, Mapping[str, str], float]] = dict.fromkeys(
            SERVICES, _NO_ACTION
        )

    def set(self, tick: int, chosen: Iterable[tuple[int, int, float]]) -> None:
        """`chosen`: (service index, action index, propensity) for every service."""
        self.by_service = {
            SERVICES[service]: (ACTIONS[action], action, {REQUEST_ACTION: ACTIONS[action]}, propensity)
            for service, action, propensity in chosen
        }
        self.tick = tick


class Recorder:
    """Writes the requests and sessions of this process.

    `on_fault(message)` is called once, when a row could not be written; `rows_lost` says how many.
    """

    def __init__(self, writer: RunWriter, in_force: InForce, on_fault: Callable[[str], None]) -> None:
        self.writer = writer
        self.in_force = in_force
        self.rows_lost = 0
        self.foreign_requests = 0  # requests of others on the same Locust, which carry no call of ours
        self.requests_ok = 0
        self._on_fault = on_fault
        self._append = writer.tables["requests"].append
        self._board = writer.board
        self._places: dict[tuple[str, int], int] = {}
        self._endpoints = _Refs(writer, "endpoint")
        self._instances = _Refs(writer, "instance")
        self._profiles = _Refs(writer, "profile")
        self._phases = _Refs(writer, "phase")

    def know(self, endpoints: Iterable[str], profiles: Iterable[str], phases: Iterable[str]) -> None:
        """Write the names that will be used before the run begins, while there is surely room for them."""
        for refs, names in ((self._endpoints, endpoints), (self._profiles, profiles), (self._phases, phases)):
            for name in names:
                refs[name]

    def begin(self, call: Any) -> Mapping[str, str]:
        """A request is about to be sent: note it as in flight and return the headers that steer the balancer."""
        action, index, headers, propensity = self.in_force.by_service[call.service]
        call.action, call.tick, call.propensity = action, self.in_force.tick, propensity
        call.start_ns = time.time_ns()
        try:
            self._note_in_flight(call, index)
        except Exception as error:  # noqa: BLE001  (the shopper's request goes on; the run hears of it)
            self._report(f"a request in flight could not be noted: {type(error).__name__}: {error}")
        return headers

    def on_request(
        self, response_time: float, response_length: int, response: Any, context: Mapping[str, Any], **_: Any
    ) -> None:
        """Locust's request event: write the row of a request that has ended."""
        call = context.get("call")
        if call is None:
            self.foreign_requests += 1
            return
        try:
            visit = call.visit
            instance, applied, upstream_us, queue_us = self._served(response)
            self._append(
                call.start_ns,
                int(response_time * 1000),
                call.tick,
                call.propensity,
                call.trace_hi,
                call.trace_lo,
                response_length or 0,
                upstream_us,
                queue_us,
                visit.account,
                visit.slot,
                visit.session,
                visit.page,
                self._endpoints[call.endpoint],
                instance,
                self._profiles[visit.profile],
                self._phases[visit.phase],
                call.status,
                call.backend_status,
                SERVICE_INDEX[call.service],
                _METHODS[call.method],
                _USER_ACTIONS[visit.user_action],
                MISSING_U8 if call.action is None else ACTION_INDEX[call.action],
                applied,
                call.ok,
                _FAILURES[call.failure],
                call.attempt,
            )
            self._board.end(self._places[visit.profile, visit.slot])
            self.requests_ok += call.ok
        except Exception as error:  # noqa: BLE001  (whatever it was, the run must hear of it, and Locust must not)
            self._lost("request", error)

    def session_ended(self, summary: Any) -> None:
        """Write the row of a session. `summary` has the columns of SESSIONS, with names instead of ids."""
        try:
            actions = summary.user_actions
            self.writer.tables["sessions"].append(
                summary.start_ns,
                round(summary.duration_s * 1e6),
                round(summary.planned_s * 1e6),
                summary.slot,
                summary.session,
                summary.account,
                self._profiles[summary.profile],
                self._phases[summary.phase],
                summary.pages_planned,
                summary.pages,
                actions["browse"],
                actions["search"],
                actions["cart"],
                actions["order"],
                actions["profile"],
                summary.cart_adds,
                summary.orders_placed,
                summary.orders_paid,
                _INTENTS[summary.intent],
                _OUTCOMES[summary.outcome],
            )
        except Exception as error:  # noqa: BLE001  (as in on_request)
            self._lost("session", error)

    def _note_in_flight(self, call: Any, action: int) -> None:
        visit = call.visit
        seat = (visit.profile, visit.slot)
        place = self._places.get(seat)
        if place is None:
            place = self._places[seat] = self._board.take()
        self._board.begin(
            place,
            call.start_ns,
            call.tick,
            call.propensity,
            call.trace_hi,
            call.trace_lo,
            visit.account,
            visit.slot,
            visit.session,
            visit.page,
            self._endpoints[call.endpoint],
            self._profiles[visit.profile],
            self._phases[visit.phase],
            SERVICE_INDEX[call.service],
            _METHODS[call.method],
            _USER_ACTIONS[visit.user_action],
            action,
            call.attempt,
        )

    def _served(self, response: Any) -> tuple[int, int, int, int]:
        """(instance ref, applied action, upstream us, queue us) from the answer's headers; missing where silent."""
        headers = response.headers if response is not None else None
        if not headers:
            return _NOT_SERVED
        get = headers.get
        try:
            instance = get(RESPONSE_INSTANCE, NO_INSTANCE)
            upstream_us = read_us(get(RESPONSE_UPSTREAM_US), 1)
            queue_us = read_us(get(RESPONSE_QUEUE_MS), 1000)
            return (
                0 if instance == NO_INSTANCE else self._instances[instance],
                ACTION_INDEX.get(get(RESPONSE_ACTION), MISSING_U8),
                MISSING_U32 if upstream_us is None else upstream_us,
                MISSING_U32 if queue_us is None else queue_us,
            )
        except TypeError:  # a header given twice arrives as a list: it says two things, so it says nothing
            return _NOT_SERVED

    def _lost(self, what: str, error: Exception) -> None:
        self.rows_lost += 1
        self._report(f"a {what} row could not be written: {type(error).__name__}: {error}")

    def _report(self, message: str) -> None:
        on_fault, self._on_fault = self._on_fault, _nothing
        on_fault(message)


class _Refs(dict[str, int]):
    """name -> id, asking the writer only for names not seen before. Overlong names from the network count as none."""

    def __init__(self, writer: RunWriter, kind: str) -> None:
        super().__init__()
        self._writer = writer
        self._kind = kind

    def __missing__(self, name: str) -> int:
        ref = self._writer.ref(self._kind, name) if len(name) <= MAX_NAME else 0
        self[name] = ref
        return ref


def _nothing(message: str) -> None:
    """The first fault stops the run; those that follow from it would only bury its message."""

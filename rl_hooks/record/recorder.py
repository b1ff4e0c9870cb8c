"""The recorder: one row per request into the run folder, from Locust's request event.

It also tells the users which of the balancer's actions is in force when they send (`begin`), so that a row carries
exactly the decision its request was sent under.

The listener never raises: one that does costs Locust 270 us per request and hides the error in a log. It catches its
own faults, counts the rows they cost, and stops the run once with a message.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rl_hooks.action_space import ALL_STRATEGIES, ActionSpace
from rl_hooks.decision import (
    ACTION_INDEX,
    HOUR_US,
    NO_INSTANCE,
    RESPONSE_ACTION,
    RESPONSE_INSTANCE,
    RESPONSE_QUEUE_MS,
    RESPONSE_UPSTREAM_US,
    SERVICE_INDEX,
    SERVICES,
    one_value,
    read_response,
)
from rl_hooks.row import (
    ENDED,
    ENDPOINT,
    MISSING_U8,
    MISSING_U32,
    SENT,
    SENT_BYTES,
    VISIT,
    Failure,
    Intent,
    Method,
    Outcome,
    UserAction,
)
from rl_hooks.run_folder import RunWriter

NAN = float("nan")
MAX_NAME = 128

_METHODS = {method.name: int(method) for method in Method}
_USER_ACTIONS = {action.name.lower(): int(action) for action in UserAction}
_FAILURES = {None: int(Failure.NONE)} | {failure.name.lower(): int(failure) for failure in Failure if failure}
_INTENTS = {intent.name: int(intent) for intent in Intent}
_OUTCOMES = {outcome.name: int(outcome) for outcome in Outcome}
_NO_ACTION: tuple[str | None, int, Mapping[str, str], float] = (None, MISSING_U8, {}, NAN)
_pack_sent, _pack_ended = SENT.pack_into, ENDED.pack_into
# geventhttpclient keeps headers as lower-case name -> (name, value). Reading that costs half of its own lookup; where
# a header was given twice, or once it keeps them otherwise, the careful path with the public lookup takes over.
_entry: Callable[[Any, str], Any] = dict.__getitem__
_ACTION, _INSTANCE = RESPONSE_ACTION.lower(), RESPONSE_INSTANCE.lower()
_UPSTREAM_US, _QUEUE_MS = RESPONSE_UPSTREAM_US.lower(), RESPONSE_QUEUE_MS.lower()
_SERVED_HEADERS = (RESPONSE_ACTION, RESPONSE_INSTANCE, RESPONSE_UPSTREAM_US, RESPONSE_QUEUE_MS)
_NOT_SERVED = (0, MISSING_U8, MISSING_U32, MISSING_U32)


class InForce:
    """The decision each service's requests are sent under now."""

    def __init__(self, space: ActionSpace = ALL_STRATEGIES) -> None:
        self.tick = MISSING_U32
        self._space = space
        # service name -> (action name, action index, request headers, propensity)
        self.by_service: dict[str, tuple[str | None, int, Mapping[str, str], float]] = dict.fromkeys(
            SERVICES, _NO_ACTION
        )

    def set(self, tick: int, chosen: Iterable[tuple[int, int, float]]) -> None:
        """`chosen`: (service index, action index, propensity) for every service; MISSING_U8: the balancer decides."""
        self.by_service = {
            SERVICES[service]: _NO_ACTION if action == MISSING_U8 else self._asked(service, action, propensity)
            for service, action, propensity in chosen
        }
        self.tick = tick

    def _asked(self, service: int, action: int, propensity: float) -> tuple[str, int, Mapping[str, str], float]:
        name = self._space.name(service, action)
        return name, action, {self._space.header: name}, propensity


class Recorder:
    """Writes the requests and sessions of this process.

    `on_fault(message)` is called once, when a row could not be written; `rows_lost` says how many.
    """

    def __init__(
        self,
        writer: RunWriter,
        in_force: InForce,
        on_fault: Callable[[str], None],
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._now_ns = now_ns
        self.writer = writer
        self.in_force = in_force
        self.rows_lost = 0
        self.foreign_requests = 0  # requests of others on the same Locust, which carry no call of ours
        self._on_fault = on_fault
        self._requests = writer.tables["requests"]
        self._board = writer.board
        self._board_map = writer.board.map
        self._places: dict[tuple[str, int], int] = {}
        self._endpoints = _Endpoints(writer)
        self._instances = _Refs(writer, "instance")
        self._instances[NO_INSTANCE] = 0
        self._profiles = _Refs(writer, "profile")
        self._phases = _Refs(writer, "phase")

    def know(self, profiles: Iterable[str], phases: Iterable[str]) -> None:
        """Write the names that will be used before the run begins, while there is surely room for them."""
        for refs, names in ((self._profiles, profiles), (self._phases, phases)):
            for name in names:
                refs[name]

    def begin(self, call: Any) -> Mapping[str, str]:
        """A request is about to be sent: note it as in flight and return the headers that steer the balancer."""
        action, index, headers, propensity = self.in_force.by_service[call.service]
        call.action, call.tick, call.propensity = action, self.in_force.tick, propensity
        call.start_ns = self._now_ns()
        visit = call.visit
        try:
            place = self._places.get((visit.profile, visit.slot))
            if place is None:
                place = self._places[visit.profile, visit.slot] = self._board.take()
            call.place = place
            _pack_sent(
                self._board_map,
                place,
                call.start_ns,
                call.tick,
                propensity,
                call.trace_hi,
                call.trace_lo,
                index,
                call.attempt,
                self._endpoints[call.service, call.endpoint],
                visit.note or self._note(visit),
                1,
            )
        except Exception as error:  # noqa: BLE001  (the shopper's request goes on; the run hears of it)
            self._report(f"a request in flight could not be noted: {type(error).__name__}: {error}")
        return headers

    def on_request(
        self,
        request_type: str,
        name: str,
        response_time: float,
        response_length: int,
        response: Any,
        context: Mapping[str, Any],
        exception: Any,
        start_time: float,
        url: str | None,
        **_: Any,
    ) -> None:
        """Locust's request event: write the row of a request that has ended.

        All that Locust passes is named, because gathering the rest into a dict costs time; `_` is what a later Locust
        may add.
        """
        call = context.get("call")
        if call is None:
            self.foreign_requests += 1
            return
        try:
            headers = None if response is None else response.headers
            if headers is None:  # not bool(headers), which would cost a microsecond
                instance, applied, upstream_us, queue_us = _NOT_SERVED
            else:
                try:  # the usual answer tells everything, and in the usual form
                    upstream_us = int(_entry(headers, _UPSTREAM_US)[1])
                    queue_us = int(float(_entry(headers, _QUEUE_MS)[1]) * 1000)
                    instance = self._instances[_entry(headers, _INSTANCE)[1]]
                    applied = ACTION_INDEX[_entry(headers, _ACTION)[1]]
                    usual = 0 <= upstream_us <= HOUR_US and 0 <= queue_us <= HOUR_US
                except (KeyError, ValueError, OverflowError, TypeError):
                    usual = False
                if not usual:
                    instance, applied, upstream_us, queue_us = self._served_as_far_as_told(headers)
            length = response_length or 0
            self.write(call, int(response_time * 1000), length, instance, applied, upstream_us, queue_us)
        except Exception as error:  # noqa: BLE001  (whatever it was, the run must hear of it, and Locust must not)
            self._lost("request", error)

    def write(
        self, call: Any, duration_us: int, length: int, instance: int, applied: int, upstream_us: int, queue_us: int
    ) -> None:
        """Write the row of a request that ended, from facts; raises what goes wrong."""
        place = call.place
        rows = self._requests
        offset = rows.place()
        ended = offset + SENT_BYTES
        rows.map[offset:ended] = self._board_map[place : place + SENT_BYTES]
        _pack_ended(
            rows.map,
            ended,
            duration_us,
            length,
            upstream_us,
            queue_us,
            instance,
            call.status,
            call.backend_status,
            applied,
            call.ok,
            _FAILURES[call.failure],
            rows.next_seq,
        )
        rows.commit()
        self._board_map[place + SENT_BYTES] = 0  # no longer busy

    def session_ended(self, summary: Any) -> None:
        """Write the row of a session. `summary` has the columns of SESSIONS, with names instead of ids."""
        try:
            visits = summary.visits
            self.writer.tables["sessions"].append(
                summary.start_ns,
                summary.duration_us,
                summary.planned_us,
                summary.slot,
                summary.session,
                summary.account,
                self._profiles[summary.profile],
                self._phases[summary.phase],
                summary.pages_planned,
                summary.pages,
                visits.get("browse", 0),
                visits.get("search", 0),
                visits.get("cart", 0),
                visits.get("order", 0),
                visits.get("profile", 0),
                summary.cart_adds,
                summary.orders_placed,
                summary.orders_paid,
                _INTENTS[summary.intent.name],
                _OUTCOMES[summary.outcome.name],
            )
        except Exception as error:  # noqa: BLE001  (as in on_request)
            self._lost("session", error)

    def _note(self, visit: Any) -> bytes:
        """The part of a row that all requests of a page visit share."""
        visit.note = VISIT.pack(
            visit.account,
            visit.slot,
            visit.session,
            visit.page,
            self._profiles[visit.profile],
            self._phases[visit.phase],
            _USER_ACTIONS[visit.user_action],
        )
        return visit.note  # type: ignore[no-any-return]

    def _served_as_far_as_told(self, headers: Any) -> tuple[int, int, int, int]:
        """What an answer tells that is silent about something or makes no sense: missing there, never a guess.

        (instance ref, applied action, upstream us, queue us)
        """
        # A header given twice arrives as a list: where it says two things it says nothing.
        told = {name: value for name in _SERVED_HEADERS if (value := one_value(headers.get(name))) is not None}
        served = read_response(told)
        return (
            0 if served.instance is None else self._instances[served.instance],
            MISSING_U8 if served.action is None else ACTION_INDEX[served.action],
            MISSING_U32 if served.upstream_us is None else served.upstream_us,
            MISSING_U32 if served.queue_us is None else served.queue_us,
        )

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
        if not isinstance(name, str):
            raise TypeError(f"a name is expected, not {name!r}")
        ref = self._writer.ref(self._kind, name) if len(name) <= MAX_NAME else 0
        self[name] = ref
        return ref


class _Endpoints(dict[tuple[str, str], bytes]):
    """(service, "METHOD path template") -> the part of a row that all its requests share."""

    def __init__(self, writer: RunWriter) -> None:
        super().__init__()
        self._writer = writer

    def __missing__(self, key: tuple[str, str]) -> bytes:
        service, endpoint = key
        ref = self._writer.ref("endpoint", endpoint)
        method = _METHODS[endpoint.partition(" ")[0]]
        packed = self[key] = ENDPOINT.pack(ref, SERVICE_INDEX[service], method, 0, MISSING_U32)
        return packed


def _nothing(message: str) -> None:
    """The first fault stops the run; those that follow from it would only bury its message."""

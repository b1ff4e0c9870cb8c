"""The tables of a run folder: one fixed-width little-endian row per fact, its columns stated once.

Each `Table` gives both halves the same layout: the recorder packs with `Table.struct`, the exporter reads with
`Table.dtype`. The last column of every log is `seq`, the row's number within its process incarnation, from 1 on.
It is packed last, so a row that a kill cut in the middle does not carry its number and is not counted as written.

Facts only: what is not known holds the column's stated "missing" value, and the exporter turns that into a mask.
Times are wall-clock nanoseconds (`*_ns`) and microseconds (`*_us`). `*_ref` columns are ids of names, resolved with the
dictionary of the same incarnation; 0 is "none".
"""

import enum
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rl_hooks.decision import MOST_ACTIONS

MISSING_U64 = 0xFFFFFFFFFFFFFFFF
MISSING_U32 = 0xFFFFFFFF
MISSING_U8 = 0xFF

_NUMPY_OF = {"q": "<i8", "Q": "<u8", "I": "<u4", "H": "<u2", "B": "u1", "f": "<f4"}


@dataclass(frozen=True)
class Table:
    """One kind of row: its name (also the folder's name) and its columns as (name, struct code, meaning)."""

    name: str
    columns: tuple[tuple[str, str, str], ...]

    @cached_property
    def struct(self) -> struct.Struct:
        return struct.Struct("<" + "".join(code for _, code, _ in self.columns))

    @cached_property
    def dtype(self) -> Any:
        """The numpy dtype of a row; numpy is imported here, so that a worker that only records need not load it."""
        import numpy as np

        return np.dtype([(name, _NUMPY_OF[code]) for name, code, _ in self.columns])

    @property
    def row_bytes(self) -> int:
        return self.struct.size

    def values(self, row: dict[str, Any]) -> tuple[Any, ...]:
        """The row's values in column order. KeyError when one is missing: there are no defaults for facts."""
        return tuple(row[name] for name, _, _ in self.columns)


class Failure(enum.IntEnum):
    """Why a request did not do what the shopper wanted. The numbers are stored; never renumber."""

    NONE = 0
    TIMEOUT = 1  # no answer within the request timeout
    CONNECTION = 2  # refused, reset, or no connection at all
    STATUS = 3  # an answer with a status that is not the expected one
    CONTENT = 4  # the right status with a body that makes no sense


class Method(enum.IntEnum):
    GET = 1
    POST = 2
    PUT = 3
    DELETE = 4


class UserAction(enum.IntEnum):
    """What the shopper was doing. SESSION is the registering and logging in before the first page."""

    SESSION = 0
    BROWSE = 1
    SEARCH = 2
    CART = 3
    ORDER = 4
    PROFILE = 5


class Intent(enum.IntEnum):
    BROWSE_ONLY = 0
    ABANDON = 1
    PURCHASE = 2


class Outcome(enum.IntEnum):
    """How a session ended. ENDED: by itself, its intent kept. The others are counted beside it."""

    ENDED = 1
    TRUNCATED = 2  # cut short by a phase change or the end of the run
    FAILED = 3  # ended by itself, but the system's failures kept the shopper from what it came for


_TRY = (
    ("start_ns", "q", "wall-clock time when the request was sent"),
    ("decision_tick", "I", "tick of the decision in force when the request was sent; MISSING_U32: none"),
    ("propensity", "f", "probability of the requested action, or the one an observed balancer states; NaN: unknown"),
    ("trace_hi", "Q", "X-Trace-Id, upper 64 bits"),
    ("trace_lo", "Q", "X-Trace-Id, lower 64 bits"),
    ("action_requested", "B", "number among the service's own actions, see DECISIONS; MISSING_U8: none was asked for"),
    ("attempt", "B", "1 for the first try; more for a retry"),
)
_ENDPOINT = (
    ("endpoint_ref", "H", "dictionary 'endpoint': method and path template"),
    ("service", "B", "index in decision.SERVICES"),
    ("method", "B", "Method"),
)
# What a balancer that decides by itself says about its decision. Beside the endpoint, because in all other runs both
# are the same for all requests and cost the recorder nothing.
_STATED = (
    ("policy_ref", "H", "dictionary 'policy': who decided, as the balancer states it; 0: it did not say"),
    ("stated_decision", "I", "checksum of the decision's id as the balancer states it; MISSING_U32: it did not say"),
)
_VISIT = (
    ("account", "I", "the account's number within the scenario"),
    ("slot", "I", "the user slot within the profile"),
    ("session", "I", "the session's number within the slot, from 0 on"),
    ("page", "H", "the page visit within the session, from 1 on; 0: before the first"),
    ("profile_ref", "H", "dictionary 'profile'"),
    ("phase_ref", "H", "dictionary 'phase'"),
    ("user_action", "B", "UserAction; MISSING_U8: whoever sent it was no shopper of ours"),
)
_ENDED = (
    ("duration_us", "I", "from sending to the end of the answer or the failure"),
    ("response_bytes", "I", "length of the answer's body"),
    ("upstream_us", "I", "time at the instance as the balancer reports it; MISSING_U32: not reported"),
    ("queue_us", "I", "time in the instance's queue as reported; MISSING_U32: not reported"),
    ("instance_ref", "H", "dictionary 'instance'; 0: none was contacted or none was named"),
    ("status", "H", "HTTP status as seen by the client; 0: no answer"),
    ("backend_status", "H", "status of the service behind the balancer where it can be known; 0: unknown"),
    ("action_applied", "B", "strategy, index in decision.ACTIONS; MISSING_U8: the balancer did not say"),
    ("ok", "B", "1: the shopper got what it asked for"),
    ("failure", "B", "Failure"),
    ("seq", "Q", "number of the row within the incarnation, from 1 on"),
)

_SENT = _TRY + _ENDPOINT + _STATED + _VISIT

REQUESTS = Table("requests", _SENT + _ENDED)
"""A request that has ended: what was known when it was sent, and what came of it."""

IN_FLIGHT = Table("in_flight", (*_SENT, ("busy", "B", "1: this request is in flight; 0: the place is free")))
"""The board: one place per user that says what it has in flight. Not a log; a place is written again and again."""

SENT_BYTES = IN_FLIGHT.row_bytes - 1  # a request row begins with exactly the bytes of its place on the board
# The recorder packs a row in parts, because most of it stays the same for a page visit or an endpoint.
ENDPOINT, STATED, VISIT, ENDED = (
    struct.Struct("<" + "".join(code for _, code, _ in part)) for part in (_ENDPOINT + _STATED, _STATED, _VISIT, _ENDED)
)
SENT = struct.Struct("<" + "".join(code for _, code, _ in _TRY) + f"{ENDPOINT.size}s{VISIT.size}sB")
PROPENSITY = struct.Struct("<f")
PROPENSITY_OFFSET, STATED_OFFSET = (
    struct.calcsize("<" + "".join(code for _, code, _ in before))
    for before in (_TRY[: [name for name, _, _ in _TRY].index("propensity")], _TRY + _ENDPOINT)
)
"""Where the recorder writes what an answer states into a row, of which the rest was written when it was sent."""

SESSIONS = Table(
    "sessions",
    (
        ("start_ns", "q", "wall-clock time of the start"),
        ("duration_us", "Q", "length, from the start to the end"),
        ("planned_us", "Q", "length that was drawn, in the run's own time"),
        ("slot", "I", "the user slot within the profile"),
        ("session", "I", "the session's number within the slot, from 0 on"),
        ("account", "I", "the account's number within the scenario"),
        ("profile_ref", "H", "dictionary 'profile'"),
        ("phase_ref", "H", "dictionary 'phase': the phase at the start"),
        ("pages_planned", "H", "page visits drawn for intensity medium"),
        ("pages", "H", "page visits made"),
        ("browse", "H", "browse visits made"),
        ("search", "H", "search visits made"),
        ("cart", "H", "cart visits made"),
        ("order", "H", "order visits made"),
        ("profile", "H", "profile visits made"),
        ("cart_adds", "H", "products added to the cart"),
        ("orders_placed", "H", "orders placed"),
        ("orders_paid", "H", "orders placed and paid"),
        ("intent", "B", "Intent"),
        ("outcome", "B", "Outcome"),
        ("seq", "Q", "number of the row within the incarnation, from 1 on"),
    ),
)

DECISIONS = Table(
    "decisions",
    (
        ("t_ns", "q", "wall-clock time from which the decision was in force; only older facts were known to it"),
        ("sample_ns", "q", "wall-clock time of the metrics sample read for this tick; 0: there was none"),
        ("tick", "I", "number of the decision interval, from 0 on; the services of one tick share it"),
        ("rows_seen", "Q", "last request row of this incarnation when the decision was made"),
        *(
            (
                f"prob_{number}",
                "f",
                f"probability of action {number} under the logging policy then; 0: there is none; NaN: nobody drew",
            )
            for number in range(MOST_ACTIONS)
        ),
        ("propensity", "f", "probability of the action taken, in (0, 1]; NaN: the balancer decided"),
        ("policy_ref", "H", "dictionary 'policy': the logging policy with its parameters"),
        ("phase_ref", "H", "dictionary 'phase'"),
        ("service", "B", "index in decision.SERVICES"),
        ("action", "B", "its number among the service's own, see `action_space`; MISSING_U8: the balancer decided"),
        ("actuated", "B", "1: the actuator applied it; 0: it could not be applied, or there was nothing to apply"),
        ("seq", "Q", "number of the row within the incarnation, from 1 on"),
    ),
)

# As many as `rl_hooks.observation.features_of` has where there are the most actions: four of each instance, which one
# came before, and 37 more. A recording process need not load numpy for it.
OBSERVATION_VALUES = 37 + 5 * MOST_ACTIONS

OBSERVATIONS = Table(
    "observations",
    (
        ("t_ns", "q", "wall-clock time at which the deciding process looked; the decision came right after it"),
        ("tick", "I", "number of the decision interval"),
        ("service", "B", "index in decision.SERVICES"),
        *(
            (f"value_{index}", "f", "value of a feature, in the order of `features_of`; NaN: missing, or there is none")
            for index in range(OBSERVATION_VALUES)
        ),
        ("seq", "Q", "number of the row within the incarnation, from 1 on"),
    ),
)
"""What the deciding process knew when it decided, as it knew it: rows of workers may not all have reached it."""

SAMPLES = Table(
    "samples",
    (
        ("t_ns", "q", "wall-clock time to which the values refer, as the source states it"),
        ("received_ns", "q", "wall-clock time at which we had them"),
        ("cpu", "f", "CPU utilization, 0 to 1; NaN: missing"),
        ("memory", "f", "memory utilization, 0 to 1; NaN: missing"),
        ("health", "f", "health score, 0 (down) to 1; NaN: missing"),
        ("queue_depth", "f", "requests waiting at the instance; NaN: missing"),
        ("in_flight", "f", "requests in flight as the balancer counts them; NaN: missing"),
        ("capacity", "f", "declared capacity (weight); NaN: unknown"),
        ("requests_total", "Q", "requests sent to the instance since it started; MISSING_U64: unknown"),
        ("errors_total", "Q", "of these, failed; MISSING_U64: unknown"),
        ("instance_ref", "H", "dictionary 'instance'"),
        ("service", "B", "index in decision.SERVICES"),
        ("up", "B", "1: takes requests; 0: down; MISSING_U8: unknown"),
        ("seq", "Q", "number of the row within the incarnation, from 1 on"),
    ),
)

TABLES = {table.name: table for table in (REQUESTS, SESSIONS, DECISIONS, OBSERVATIONS, SAMPLES)}

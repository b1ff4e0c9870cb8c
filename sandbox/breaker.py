"""A circuit breaker: closed, open for a while after failures, half open for a few probes, closed again.

    closed --(5 failures in a row, or half of 20 requests)--> open --(10 s)--> half open --(3 good probes)--> closed
                                                               ^---(a bad probe: twice as long)---'

All requests of a service teach its breakers; only the strategy `circuit_breaker` obeys them.
"""

from sandbox.gauges import FadingCount
from sandbox.parameters import Parameters

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"

UNCOUNTED = -1
"""The ticket of a request whose result says nothing: it was sent while the breaker was not closed, not as a probe."""


class Breaker:
    """The breaker of one instance. A ticket ties a result to the state in which its request was sent."""

    __slots__ = (
        "_bad",
        "_epoch",
        "_good_probes",
        "_in_row",
        "_open_s",
        "_opened_s",
        "_p",
        "_probing",
        "_state",
        "_total",
    )

    def __init__(self, parameters: Parameters) -> None:
        self._p = parameters
        self._state = CLOSED
        self._epoch = 0
        self._in_row = 0
        self._bad = FadingCount(parameters.breaker_window_half_life_s)
        self._total = FadingCount(parameters.breaker_window_half_life_s)
        self._opened_s = 0.0
        self._open_s = parameters.breaker_open_s
        self._probing = False
        self._good_probes = 0

    def state(self, now_s: float) -> str:
        """closed, open or half_open."""
        if self._state == OPEN and now_s - self._opened_s >= self._open_s:
            self._state = HALF_OPEN
            self._epoch += 1
            self._probing = False
            self._good_probes = 0
        return self._state

    def allows(self, now_s: float) -> bool:
        """Whether `circuit_breaker` may send a request: closed, or half open with no probe under way."""
        state = self.state(now_s)
        return state == CLOSED or (state == HALF_OPEN and not self._probing)

    def admit(self, now_s: float) -> int:
        """The ticket of a request that `circuit_breaker` sends; a probe when half open."""
        if self.state(now_s) == HALF_OPEN:
            self._probing = True
        return self._epoch

    def watch(self, now_s: float) -> int:
        """The ticket of a request that another strategy sends."""
        return self._epoch if self.state(now_s) == CLOSED else UNCOUNTED

    def forget(self, ticket: int) -> None:
        """The request of `ticket` will have no result: its client went away."""
        if ticket == self._epoch:
            self._probing = False

    def record(self, ticket: int, ok: bool, now_s: float) -> None:
        """The result of the request of `ticket`."""
        if ticket != self._epoch or self._state == OPEN:
            return
        if self._state == HALF_OPEN:
            self._record_probe(ok, now_s)
            return
        self._total.add(now_s, 1.0)
        if ok:
            self._in_row = 0
            return
        self._in_row += 1
        self._bad.add(now_s, 1.0)
        total = self._total.value(now_s)
        too_many = (
            total >= self._p.breaker_min_requests and self._bad.value(now_s) >= self._p.breaker_error_rate * total
        )
        if self._in_row >= self._p.breaker_consecutive or too_many:
            self._open(now_s)

    def _record_probe(self, ok: bool, now_s: float) -> None:
        self._probing = False
        if not ok:
            self._open_s = min(self._p.breaker_open_max_s, 2.0 * self._open_s)
            self._open(now_s)
            return
        self._good_probes += 1
        if self._good_probes >= self._p.breaker_probes:
            self._state = CLOSED
            self._epoch += 1
            self._open_s = self._p.breaker_open_s
            self._in_row = 0
            self._bad.clear()
            self._total.clear()

    def _open(self, now_s: float) -> None:
        self._state = OPEN
        self._epoch += 1
        self._opened_s = now_s


class RetryBudget:
    """Retries are earned by requests, so that they cannot multiply the load on a service that fails."""

    __slots__ = ("_earn", "_max", "_saved")

    def __init__(self, parameters: Parameters) -> None:
        self._earn = parameters.retry_earn
        self._max = parameters.retry_saved_max
        self._saved = parameters.retry_saved_max

    def earn(self) -> None:
        """A request that may be retried was sent."""
        self._saved = min(self._max, self._saved + self._earn)

    def spend(self) -> bool:
        """Take one retry; False when none is saved."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True

"""A session while it runs: its pure half, its account and its clock. Whose clock that is decides who runs it."""

from collections.abc import Callable

from profiles import shop
from profiles.base import SIGNING_IN, VisitInfo
from profiles.session import Outcome, Session, SessionSummary, Visit

ACCOUNT_POLL_S = 0.2
"""Real seconds after which a shopper without an account asks again. Users that are leaving may still hold theirs."""


class RunningSession:
    """A session while it runs: its pure half, its account and its clock.

    `clock_s` tells real seconds since some moment, `unix_ns` the time of day.
    """

    __slots__ = (
        "_clock_s",
        "_start",
        "_time_scale",
        "account",
        "credentials",
        "info",
        "phase",
        "session",
        "start_ns",
        "visit",
    )

    def __init__(
        self,
        session: Session,
        account: int,
        credentials: shop.Credentials,
        phase: str,
        time_scale: float,
        clock_s: Callable[[], float],
        unix_ns: Callable[[], int],
    ) -> None:
        self._clock_s = clock_s
        self.session = session
        self.account = account
        self.credentials = credentials
        self.phase = phase  # at the start
        self.info = self.describe(phase, SIGNING_IN)
        self.visit: Visit | None = None
        self.start_ns = unix_ns()
        self._start = self._clock_s()
        self._time_scale = time_scale
        session.reference = f"{session.reference}-{self.start_ns:x}"

    def now_s(self) -> float:
        """Nominal seconds since the session's start."""
        return (self._clock_s() - self._start) * self._time_scale

    def real_s_until(self, nominal_s: float) -> float:
        """Real seconds until `nominal_s` of the session; 0 when it has passed."""
        return max(0.0, (nominal_s - self.now_s()) / self._time_scale)

    def time_left_s(self) -> float:
        return self.real_s_until(self.session.length_s)

    def is_over(self) -> bool:
        return self.session.is_over(self.now_s())

    def describe(self, phase: str, user_action: str) -> VisitInfo:
        """Whose requests the next ones are."""
        key = self.session.key
        return VisitInfo(key.profile, phase, key.slot, key.session, self.account, self.session.pages, user_action)

    def summary(self, outcome: Outcome) -> SessionSummary:
        session = self.session
        return SessionSummary(
            start_ns=self.start_ns,
            duration_us=round((self._clock_s() - self._start) * 1e6),
            planned_us=round(session.length_s / self._time_scale * 1e6),
            profile=session.key.profile,
            slot=session.key.slot,
            session=session.key.session,
            account=self.account,
            phase=self.phase,
            intent=session.intent,
            outcome=outcome,
            pages_planned=session.pages_planned,
            pages=session.pages,
            visits=dict(session.visits),
            cart_adds=session.cart_adds,
            orders_placed=session.orders_placed,
            orders_paid=session.orders_paid,
        )

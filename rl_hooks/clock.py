"""Clocks of several processes: one that never steps, and how far two of them are apart. Pure; who asks is elsewhere.

A process stamps what it records with its `SteadyClock`: the wall clock as it was when the run began for it, moved on by
the monotonic clock. So an interval is never negative, and a wall clock that somebody sets during the run (`step_ns`)
changes no row.

    worker, monotonic t0 ---- asks ---->  master, monotonic t1     the worker's clock has to be moved by
    worker, monotonic t2 <--- answers --                           t1 - (t0 + t2) / 2, wrong by at most (t2 - t0) / 2

Answers come every few seconds, and the one that bounds the error best counts (D. L. Mills, RFC 5905, section 10, keeps
the one with the smallest delay for the same reason). An old answer bounds it worse, because clocks drift apart.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

DRIFT = 50e-6  # how fast two monotonic clocks move apart at most; crystals of computers are within it
KEPT = 64  # answers
STEP_NS = 10_000_000  # a wall clock is slewed by far less between two looks
_READ_WITHIN_NS = 200_000
_READS = 8


@dataclass(frozen=True, slots=True)
class Anchor:
    """One moment on both clocks of a process. Between two processes only the wall clocks are comparable."""

    wall_ns: int
    monotonic_ns: int

    def wall_at(self, monotonic_ns: int) -> int:
        """
        >>> Anchor(wall_ns=1_000, monotonic_ns=10).wall_at(25)
        1015
        """
        return self.wall_ns + monotonic_ns - self.monotonic_ns


class SteadyClock:
    """See the module. `step_ns` says how far the wall clock has been set forward since the anchor, back if negative."""

    def __init__(
        self, wall_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._read_wall_ns = wall_ns
        self.monotonic_ns = monotonic_ns
        self.anchor = self._both()
        self._ahead_ns = self.anchor.wall_ns - self.anchor.monotonic_ns

    def now_ns(self) -> int:
        return self.monotonic_ns() + self._ahead_ns

    def step_ns(self) -> int:
        now = self._both()
        return now.wall_ns - now.monotonic_ns - self._ahead_ns

    def _both(self) -> Anchor:
        """Both clocks at one moment: a process that loses its CPU between the two reads tries again."""
        best_ns, best = None, None
        for _ in range(_READS):
            before = self.monotonic_ns()
            wall = self._read_wall_ns()
            took_ns = self.monotonic_ns() - before
            if best_ns is None or took_ns < best_ns:
                best_ns, best = took_ns, Anchor(wall, before + took_ns // 2)
            if took_ns <= _READ_WITHIN_NS:
                break
        assert best is not None
        return best


@dataclass(frozen=True, slots=True)
class Offset:
    """By how much the times of one clock have to be moved to be those of another, and how wrong that may be."""

    offset_ns: int
    uncertainty_ns: int

    @property
    def told_apart(self) -> bool:
        """Whether the two clocks are known to differ; within the uncertainty they count as one.

        >>> [Offset(offset, 300).told_apart for offset in (-200, 300, 301)]
        [False, False, True]
        """
        return abs(self.offset_ns) > self.uncertainty_ns

    @property
    def applied_ns(self) -> int:
        return self.offset_ns if self.told_apart else 0


@dataclass(frozen=True, slots=True)
class _Answer:
    at_ns: int
    offset_ns: int
    half_trip_ns: int


class OffsetEstimate:
    """The offset of this process's monotonic clock to that of another one, from its answers."""

    def __init__(self) -> None:
        self._of: str | None = None
        self._answers: deque[_Answer] = deque(maxlen=KEPT)

    def add(self, of: str, asked_ns: int, stated_ns: int, heard_ns: int) -> None:
        """An answer of the process `of`: asked and heard by our clock, stated by its own. Another process begins anew.

        >>> estimate = OffsetEstimate()
        >>> estimate.add("m", asked_ns=1_000, stated_ns=51_500, heard_ns=2_000)
        >>> estimate.add("m", asked_ns=2_000, stated_ns=58_000, heard_ns=9_000)  # a long way: it tells less
        >>> estimate.at(9_000)
        Offset(offset_ns=50000, uncertainty_ns=500)
        """
        if heard_ns < asked_ns:
            return
        if of != self._of:
            self._of = of
            self._answers.clear()
        middle_ns = (asked_ns + heard_ns) // 2
        self._answers.append(_Answer(middle_ns, stated_ns - middle_ns, (heard_ns - asked_ns + 1) // 2))

    def at(self, now_ns: int) -> Offset | None:
        """The best that is known now; None before the first answer."""

        def wrong_by_ns(answer: _Answer) -> int:
            return answer.half_trip_ns + int(DRIFT * (now_ns - answer.at_ns))

        if not self._answers:
            return None
        best = min(self._answers, key=wrong_by_ns)
        return Offset(best.offset_ns, wrong_by_ns(best))


def between(mine: Anchor, others: Anchor, monotonic: Offset) -> Offset:
    """The offset of the times recorded with `mine` to those recorded with `others`, from that of the monotonic clocks.

    >>> mine, others = Anchor(wall_ns=500, monotonic_ns=100), Anchor(wall_ns=1_000, monotonic_ns=7_100)
    >>> between(mine, others, Offset(offset_ns=7_000, uncertainty_ns=3))
    Offset(offset_ns=500, uncertainty_ns=3)
    """
    there_ns = others.wall_at(mine.monotonic_ns + monotonic.offset_ns)
    return Offset(there_ns - mine.wall_ns, monotonic.uncertainty_ns)

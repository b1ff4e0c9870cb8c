"""Small instruments: a mean over a sliding window, counts that fade, timeouts that expire in turn."""

import math
from collections import deque
from collections.abc import Callable

from sandbox.clock import Clock, Handle


class SlidingMean:
    """The time-weighted mean of a level over the last `window_s` seconds.

    Keeps about ten marks of the integral per window and interpolates, so a step is seen within a tenth of a window.
    """

    __slots__ = ("_integral", "_level", "_marks", "_since_s", "_window_s")

    def __init__(self, now_s: float, window_s: float) -> None:
        self._window_s = window_s
        self._level = 0.0
        self._since_s = now_s
        self._integral = 0.0
        self._marks: deque[tuple[float, float]] = deque([(now_s, 0.0)])

    def set(self, now_s: float, level: float) -> None:
        """From now on the level is `level`."""
        self._integral += (now_s - self._since_s) * self._level
        self._since_s = now_s
        self._level = level
        if now_s - self._marks[-1][0] >= self._window_s / 10:
            self._marks.append((now_s, self._integral))
            while len(self._marks) > 2 and self._marks[1][0] <= now_s - self._window_s:
                self._marks.popleft()

    def mean(self, now_s: float) -> float:
        """The mean over [now - window, now], or since the beginning while that is shorter."""
        self.set(now_s, self._level)
        start_s = now_s - self._window_s
        before, after = self._marks[0], self._marks[0]
        for mark in self._marks:
            after = mark
            if mark[0] > start_s:
                break
            before = mark
        if before[0] >= start_s or after[0] <= before[0]:
            start_s, start_integral = max(start_s, before[0]), before[1]
        else:
            part = (start_s - before[0]) / (after[0] - before[0])
            start_integral = before[1] + part * (after[1] - before[1])
        return (self._integral - start_integral) / (now_s - start_s) if now_s > start_s else self._level


class FadingCount:
    """A sum in which everything counts half as much after each `half_life_s`."""

    __slots__ = ("_at_s", "_decay_per_s", "_value")

    def __init__(self, half_life_s: float) -> None:
        self._decay_per_s = math.log(2) / half_life_s
        self._value = 0.0
        self._at_s = 0.0

    def add(self, now_s: float, amount: float) -> None:
        """Count `amount` now."""
        self._value = self.value(now_s) + amount
        self._at_s = now_s

    def value(self, now_s: float) -> float:
        """The faded sum."""
        return self._value * math.exp(-(now_s - self._at_s) * self._decay_per_s) if self._value else 0.0

    def rate(self, now_s: float) -> float:
        """Amount per second: a steady rate r has the faded sum r / decay."""
        return self.value(now_s) * self._decay_per_s

    def clear(self) -> None:
        """Forget everything."""
        self._value = 0.0


class Deadline:
    """One entry of `TimeoutLine`."""

    __slots__ = ("due_s", "expire")

    def __init__(self, due_s: float, expire: Callable[[], None]) -> None:
        self.due_s = due_s
        self.expire: Callable[[], None] | None = expire

    def cancel(self) -> None:
        """In time: nothing expires."""
        self.expire = None


class TimeoutLine:
    """Timeouts of one length. They expire in the order they began, so one timer serves them all."""

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._line: deque[Deadline] = deque()
        self._timer: Handle | None = None

    def start(self, expire: Callable[[], None]) -> Deadline:
        """Call `expire` one timeout from now unless the deadline is cancelled before."""
        deadline = Deadline(self._clock.now() + self._timeout_s, expire)
        self._line.append(deadline)
        if self._timer is None:
            self._timer = self._clock.call_later(self._timeout_s, self._on_timer)
        return deadline

    def _on_timer(self) -> None:
        now_s = self._clock.now()
        line = self._line
        while line and (line[0].expire is None or line[0].due_s <= now_s):
            expire = line.popleft().expire
            if expire is not None:
                expire()
        # Only now: one that began while others expired must not arm the timer for itself, behind those before it.
        self._timer = self._clock.call_later(line[0].due_s - now_s, self._on_timer) if line else None

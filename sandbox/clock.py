"""Time as the model sees it: `now`, `call_later`, and a clock that a test or a simulation turns by hand.

Nothing in the model reads a wall clock or sleeps; it asks its `Clock`. The live server hands it a clock over the event
loop, simulations hand it `VirtualClock`. Both run events in the order of their due time, ties in the order of asking.
"""

import heapq
from collections.abc import Callable
from typing import Protocol


class Handle(Protocol):
    """What `call_later` returns."""

    def cancel(self) -> None:
        """The function is not called any more; no effect once it was called."""


class Clock(Protocol):
    """All the model knows about time."""

    def now(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    def call_later(self, delay_s: float, fn: Callable[[], None]) -> Handle:
        """Call `fn` once, `delay_s` seconds from now (at once for zero or less, but never inside this call)."""


class Timer:
    """An entry of `EventHeap`."""

    __slots__ = ("due_s", "fn")

    def __init__(self, due_s: float, fn: Callable[[], None]) -> None:
        self.due_s = due_s
        self.fn: Callable[[], None] | None = fn

    def cancel(self) -> None:
        """The function is not called any more. The entry leaves the heap when its time has come."""
        self.fn = None


class EventHeap:
    """What is still to come, earliest first."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Timer]] = []
        self._pushed = 0

    def push(self, due_s: float, fn: Callable[[], None]) -> Timer:
        """Add `fn`, due at `due_s`."""
        timer = Timer(due_s, fn)
        self._pushed += 1
        heapq.heappush(self.heap, (due_s, self._pushed, timer))
        return timer

    def next_due_s(self) -> float | None:
        """When the next function is due, or None when nothing is to come."""
        heap = self.heap
        while heap:
            if heap[0][2].fn is not None:
                return heap[0][0]
            heapq.heappop(heap)
        return None

    def pop(self) -> Callable[[], None]:
        """Take the next function; only after `next_due_s` said that there is one."""
        fn = heapq.heappop(self.heap)[2].fn
        if fn is None:
            raise LookupError("the next event was cancelled: ask next_due_s first")
        return fn


class VirtualClock:
    """A clock that stands still until it is turned; events then run at exactly their due time."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s
        self._events = EventHeap()
        self.events_run = 0

    def now(self) -> float:
        """Seconds; moves only inside `run_until` and `step`."""
        return self._now_s

    def call_later(self, delay_s: float, fn: Callable[[], None]) -> Timer:
        """See `Clock.call_later`."""
        return self._events.push(self._now_s + max(0.0, delay_s), fn)

    def step(self) -> bool:
        """Run the next event; False when there is none."""
        due_s = self._events.next_due_s()
        if due_s is None:
            return False
        self._now_s = due_s
        self.events_run += 1
        self._events.pop()()
        return True

    def run_until(self, end_s: float) -> None:
        """Run everything due up to and including `end_s`; afterwards it is `end_s`."""
        while (due_s := self._events.next_due_s()) is not None and due_s <= end_s:
            self.step()
        self._now_s = max(self._now_s, end_s)

    def run_before(self, end_s: float) -> None:
        """Run everything due before `end_s`, but nothing due at it; afterwards it is `end_s`."""
        heap = self._events.heap
        while heap and heap[0][0] < end_s:
            due_s, _, timer = heapq.heappop(heap)
            fn = timer.fn
            if fn is not None:
                self._now_s = due_s
                self.events_run += 1
                fn()
        self._now_s = max(self._now_s, end_s)

    def run_for(self, duration_s: float) -> None:
        """`run_until` counted from now."""
        self.run_until(self._now_s + duration_s)

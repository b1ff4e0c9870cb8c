"""Processor sharing: all jobs on the CPU progress at one common rate, exactly and in O(log n) per event.

With n jobs on c cores each progresses at min(1, c / n). Instead of touching every job when n or c changes, the
processor keeps one number, the *progress* a job present since the beginning would have made. A job that enters at
progress p with w seconds of work leaves when the progress reaches p + w (the virtual-time method of fair queueing).
"""

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

from sandbox.clock import Clock, Handle

Item = TypeVar("Item")

_ROUNDING_S = 1e-9  # float error of the progress; far below anything a clock here resolves


class SharedProcessor(Generic[Item]):
    """Cores shared evenly by all jobs present; a job never gets more than one core."""

    def __init__(self, clock: Clock, cores: float, on_done: Callable[[Item], None]) -> None:
        self._clock = clock
        self._cores = cores
        self._on_done = on_done
        self._heap: list[tuple[float, int, Item]] = []
        self._added = 0
        self._progress_s = 0.0
        self._at_s = clock.now()
        self._timer: Handle | None = None
        self._timer_due_s = float("inf")

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def cores(self) -> float:
        """What the jobs have to share now."""
        return self._cores

    @property
    def cores_used(self) -> float:
        """Cores at work for the jobs now."""
        return min(float(len(self._heap)), self._cores)

    def add(self, item: Item, work_s: float) -> None:
        """A job enters that needs `work_s` seconds of one core; `on_done(item)` when it had them."""
        self._advance()
        self._added += 1
        heapq.heappush(self._heap, (self._progress_s + work_s, self._added, item))
        self._arm()

    def set_cores(self, cores: float) -> None:
        """From now on there are `cores` to share; 0 stops everything."""
        self._advance()
        self._cores = cores
        self._arm()

    def clear(self) -> None:
        """All jobs vanish without being done."""
        self._advance()
        self._heap.clear()
        self._arm()

    def _rate(self) -> float:
        jobs = len(self._heap)
        return 1.0 if jobs <= self._cores else self._cores / jobs

    def _advance(self) -> None:
        now_s = self._clock.now()
        if self._heap:
            self._progress_s += (now_s - self._at_s) * self._rate()
        else:
            self._progress_s = 0.0  # so that its float error does not grow over days
        self._at_s = now_s

    def _arm(self) -> None:
        """A timer for the job that is done first. One that is too early is left alone: it looks again when it fires."""
        rate = self._rate() if self._heap else 0.0
        if rate <= 0.0:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        wait_s = max(0.0, (self._heap[0][0] - self._progress_s) / rate)
        due_s = self._at_s + wait_s
        if self._timer is not None:
            if self._timer_due_s <= due_s:
                return
            self._timer.cancel()
        self._timer_due_s = due_s
        self._timer = self._clock.call_later(wait_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._advance()
        done: list[Item] = []
        while self._heap and self._heap[0][0] <= self._progress_s + _ROUNDING_S:
            done.append(heapq.heappop(self._heap)[2])
        self._arm()
        for item in done:
            self._on_done(item)

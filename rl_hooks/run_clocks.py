"""The clock of each process of a run, and its times as those of the process that decides.

Workers measure every few seconds by how much their times have to be moved (events of kind `clock`, `rl_hooks.clock`).
Between two readings the offset is interpolated; a bad reading gives way to good ones before and after it. A clock that
was never told apart from the leading process's is left alone: moving its rows by less than is known would only add
noise.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.clock import DRIFT, Offset

Ints = npt.NDArray[np.int64]

READING, STEP = "clock", "clock_step"
"""Kinds of events: an offset to the leading process, and a wall clock that was set during the run."""


@dataclass(frozen=True)
class ProcessClock:
    """What is known of one process's clock. `t_ns` is by itself, in order; the arrays have one place per reading."""

    t_ns: Ints
    offset_ns: Ints
    uncertainty_ns: Ints
    steps_s: tuple[float, ...] = ()  # by how much its wall clock was set, each time; no row moved with it

    @property
    def corrects(self) -> bool:
        """Whether its times are moved at all."""
        readings = zip(self.offset_ns.tolist(), self.uncertainty_ns.tolist(), strict=True)
        return any(Offset(*reading).told_apart for reading in readings)

    def corrected(self, times_ns: Any) -> Any:
        """Its times as those of the leading process.

        >>> clock = ProcessClock(*(np.array(numbers) for numbers in ([1_000, 3_000], [500, 700], [10, 10])))
        >>> clock.corrected(np.array([0, 1_000, 2_000, 9_000])).tolist()
        [500, 1500, 2600, 9700]
        """
        if not self.corrects:
            return times_ns
        since = (np.asarray(times_ns, np.int64) - self.t_ns[0]).astype(np.float64)  # floats hold no nanoseconds of 1970
        moved = np.interp(since, (self.t_ns - self.t_ns[0]).astype(np.float64), self.offset_ns.astype(np.float64))
        return times_ns + np.rint(moved).astype(np.int64)


def process_clock(events: Iterable[Mapping[str, Any]]) -> ProcessClock:
    """From the events of one process, in the order in which it wrote them."""
    events = list(events)
    readings = [(e["t_ns"], _ns(e["offset_s"]), _ns(e["uncertainty_s"])) for e in events if e["kind"] == READING]
    columns = np.array(sorted(readings), np.int64).reshape(-1, 3).T
    return ProcessClock(*_by_all(*columns), tuple(float(e["step_s"]) for e in events if e["kind"] == STEP))


def _by_all(t_ns: Ints, offset_ns: Ints, uncertainty_ns: Ints) -> tuple[Ints, Ints, Ints]:
    """The readings, each replaced by the one that tells most about its moment: clocks drift apart only so fast.

    >>> readings = (np.array(column) for column in ([0, 1_000_000], [900, 500], [800, 10]))
    >>> [column.tolist() for column in _by_all(*readings)]
    [[0, 1000000], [500, 500], [60, 10]]
    """
    best, known = np.arange(len(t_ns)), np.empty_like(uncertainty_ns)
    for place, moment_ns in enumerate(t_ns.tolist()):
        wrong_by = uncertainty_ns + (DRIFT * np.abs(t_ns - moment_ns)).astype(np.int64)
        best[place] = wrong_by.argmin()
        known[place] = wrong_by.min()
    return t_ns, offset_ns[best], known


def is_whole(event: Mapping[str, Any]) -> bool:
    """Whether an event says what its kind has to say about clocks."""
    needed = {READING: ("offset_s", "uncertainty_s"), STEP: ("step_s",)}.get(event["kind"], ())
    return all(isinstance(event.get(name), int | float) for name in needed)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)

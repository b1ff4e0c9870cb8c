"""Facts in order of time: the two stores behind the observation window."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_FIRST_CAPACITY = 1024


class TimedFacts:
    """Columns of equal length, kept sorted by time.

    Appending costs amortised constant time per fact; facts that come out of order are sorted in, which is rare.
    """

    def __init__(self, **columns: Any) -> None:
        dtypes = {"t_ns": np.int64, **columns}
        self._columns: dict[str, Array] = {name: np.empty(_FIRST_CAPACITY, dtype) for name, dtype in dtypes.items()}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, name: str) -> Array:
        return self._columns[name][: self._length]

    def push(self, t_ns: Array, **columns: Array) -> Array:
        """Add facts; returns the positions at which they are now."""
        times = np.asarray(t_ns, np.int64)
        order = np.argsort(times, kind="stable")
        begin, end = self._length, self._length + len(times)
        self._reserve(end)
        for name, values in {"t_ns": times, **columns}.items():
            self._columns[name][begin:end] = np.asarray(values)[order]
        self._length = end
        in_order = begin == 0 or begin == end or self["t_ns"][begin - 1] <= self["t_ns"][begin]
        return np.arange(begin, end) if in_order else self._sort()[begin:end]

    def position(self, t_ns: int) -> int:
        """How many facts lie before `t_ns`."""
        return int(self["t_ns"].searchsorted(t_ns))

    def drop(self, facts: int) -> None:
        """Forget the first `facts` facts."""
        if facts == 0:
            return
        for values in self._columns.values():
            values[: self._length - facts] = values[facts : self._length].copy()
        self._length -= facts

    def worth_dropping(self, facts: int) -> bool:
        """Whether forgetting that many frees more than it moves."""
        return facts >= _FIRST_CAPACITY and 2 * facts >= self._length

    def _sort(self) -> Array:
        """Sort all columns by time; returns where each row went."""
        order = np.argsort(self["t_ns"], kind="stable")
        for values in self._columns.values():
            values[: self._length] = values[: self._length][order]
        place = np.empty(self._length, np.int64)
        place[order] = np.arange(self._length)
        return place

    def _reserve(self, length: int) -> None:
        capacity = len(self._columns["t_ns"])
        if length <= capacity:
            return
        for name, values in self._columns.items():
            grown = np.empty(max(length, 2 * capacity), values.dtype)
            grown[: self._length] = values[: self._length]
            self._columns[name] = grown


class WaitingFacts:
    """Facts that wait for their time and are handed out once, in order; late ones with the next that are handed out."""

    def __init__(self, **columns: Any) -> None:
        self._facts = TimedFacts(**columns)
        self._names = tuple(columns)
        self._done = 0

    def __len__(self) -> int:
        """Facts in memory."""
        return len(self._facts)

    def push(self, t_ns: Array, **columns: Array) -> None:
        if len(t_ns) and len(self._facts) and np.min(t_ns) < self._facts["t_ns"][-1]:
            # The new ones will be sorted in: what was handed out has to be gone first, or it would come out again.
            self._facts.drop(self._done)
            self._done = 0
        self._facts.push(t_ns, **columns)

    def release(self, before_ns: int) -> dict[str, Array]:
        """The facts before `before_ns` that were not handed out yet."""
        end = max(self._done, self._facts.position(before_ns))
        facts = {name: self._facts[name][self._done : end].copy() for name in self._names}
        self._done = end
        if self._facts.worth_dropping(self._done):
            self._facts.drop(self._done)
            self._done = 0
        return facts

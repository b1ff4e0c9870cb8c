"""The requests of a run, read in batches: what is in memory at a time does not depend on how many there are.

    index (one entry per batch)   first start, first end, where the rows are      made once, when the run is read
    batches(by)                   8,192 rows at most, in order of their first     as often as somebody asks

Rows are in order of their end within a process, with small disorder, and the processes overlap. A batch says until
when everything is there (`complete_ns`), so that whoever needs an order across batches knows how long to wait.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from rl_hooks.row import REQUESTS
from rl_hooks.segments import rows_of

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
By = Literal["start_ns", "end_ns"]

BATCH_ROWS = 8192
"""Columns of a batch are 64 kB: they stay in the cache, and the allocator hands the same memory out again."""

DTYPE = np.dtype([("incarnation", "<u2"), *REQUESTS.dtype.descr])
"""A request as everybody after the reader sees it."""

_NEVER = np.iinfo(np.int64).max


class Columns(Protocol):
    """A structured array, or what gives columns as one does."""

    def __getitem__(self, name: str) -> Any: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Some requests, and the moment before which no request of a later batch began (or ended, as was asked for)."""

    rows: Columns
    complete_ns: int


def end_ns(rows: Columns) -> Ints:
    """When each request ended."""
    ended: Ints = rows["duration_us"].astype(np.int64)
    ended *= 1000
    ended += rows["start_ns"]
    return ended


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows of one process that follow each other, in one file or in several small ones."""

    incarnation: int
    pieces: tuple[tuple[Path, int, int], ...]  # file, first row, rows
    rows: int
    first_start_ns: int
    first_end_ns: int
    last_end_ns: int


def stretches(incarnation: int, segments: Iterable[tuple[Path, Array]]) -> Iterator[Stretch]:
    """The index of one process, from its segments in order of writing."""
    waiting: list[Stretch] = []
    for file, rows in segments:
        for first in range(0, len(rows), BATCH_ROWS):
            found = _stretch(incarnation, file, first, rows[first : first + BATCH_ROWS])
            if waiting and sum(stretch.rows for stretch in waiting) + found.rows > BATCH_ROWS:
                yield _joined(waiting)
                waiting = []
            waiting.append(found)
    if waiting:
        yield _joined(waiting)


def _stretch(incarnation: int, file: Path, first: int, rows: Array) -> Stretch:
    start, end = rows["start_ns"], end_ns(rows)
    piece = (file, first, len(rows))
    return Stretch(incarnation, (piece,), len(rows), int(start.min()), int(end.min()), int(end.max()))


def _joined(parts: Sequence[Stretch]) -> Stretch:
    return Stretch(
        parts[0].incarnation,
        tuple(piece for part in parts for piece in part.pieces),
        sum(part.rows for part in parts),
        min(part.first_start_ns for part in parts),
        min(part.first_end_ns for part in parts),
        max(part.last_end_ns for part in parts),
    )


class RequestLog:
    """The requests in a run folder. `ids[i]` turns the ids of process i into common ones, by kind of name."""

    def __init__(self, index: Sequence[Stretch], ids: Sequence[Mapping[str, Array]]) -> None:
        self._index = tuple(index)
        self._ids = tuple(ids)

    def __len__(self) -> int:
        return sum(stretch.rows for stretch in self._index)

    def rows_of_process(self, incarnation: int) -> int:
        return sum(stretch.rows for stretch in self._index if stretch.incarnation == incarnation)

    @property
    def last_end_ns(self) -> int:
        """When the last request ended. ValueError where there is none."""
        return max(stretch.last_end_ns for stretch in self._index)

    def batches(self, by: By = "end_ns") -> Iterator[Batch]:
        """All requests, a batch at a time, in order of the first start or the first end in each."""
        firsts = [stretch.first_end_ns if by == "end_ns" else stretch.first_start_ns for stretch in self._index]
        order = np.argsort(np.array(firsts, np.int64), kind="stable").tolist()
        for number, following in zip(order, [*order[1:], None], strict=True):
            yield Batch(self._read(self._index[number]), _NEVER if following is None else firsts[following])

    def load(self) -> Array:
        """All requests in memory, sorted by start; the order of writing decides between equals."""
        rows = np.empty(len(self), DTYPE)
        filled = 0
        for stretch in self._index:
            rows[filled : filled + stretch.rows] = _structured(self._read(stretch))
            filled += stretch.rows
        return rows[np.argsort(rows["start_ns"], kind="stable")]

    def _read(self, stretch: Stretch) -> "_Rows":
        parts = [rows_of(file, REQUESTS, first, count) for file, first, count in stretch.pieces]
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return _Rows(rows, stretch.incarnation, self._ids[stretch.incarnation])


class _Rows:
    """Rows as they were written, with common ids."""

    def __init__(self, rows: Array, incarnation: int, ids: Mapping[str, Array]) -> None:
        self._rows = rows
        self._incarnation = incarnation
        self._ids = ids

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, name: str) -> Array:
        if name == "incarnation":
            return np.full(len(self._rows), self._incarnation, np.uint16)
        if name.endswith("_ref"):
            return common_ids(self._rows[name], self._ids[name.removesuffix("_ref")])
        return np.ascontiguousarray(self._rows[name])


def common_ids(own: Array, ids: Array) -> Array:
    """The common ids for a process's `own`, 0 where its dictionary lacks the name."""
    known = own < len(ids)
    found: Array = ids.take(own, mode="clip")
    return found if known.all() else np.where(known, found, 0)


def batches_of(rows: Array, by: By = "end_ns") -> Iterator[Batch]:
    """The same batches for requests that are in memory, sorted by start."""
    parts = [rows[first : first + BATCH_ROWS] for first in range(0, len(rows), BATCH_ROWS)]
    firsts = [int((end_ns(part) if by == "end_ns" else part["start_ns"]).min()) for part in parts]
    complete = np.minimum.accumulate([*firsts[1:], _NEVER][::-1])[::-1].tolist() if parts else []
    for part, complete_ns in zip(parts, complete, strict=True):
        yield Batch(part, complete_ns)


def in_order(batches: Iterable[Batch], more: Array, count: int) -> Iterator[Array]:
    """All rows of `batches` (by start_ns) and of `more` in order of their start, `count` at a time.

    Held are the rows that began while one of the others was under way.
    """
    held = [more]
    for batch in batches:
        held.append(_structured(batch.rows))
        if sum(len(part) for part in held) >= count:
            rows = _by_start(held)
            ready = int(rows["start_ns"].searchsorted(batch.complete_ns)) // count * count
            yield from (rows[first : first + count] for first in range(0, ready, count))
            held = [rows[ready:].copy()]
    rows = _by_start(held)
    yield from (rows[first : first + count] for first in range(0, len(rows), count))


def _by_start(parts: Sequence[Array]) -> Array:
    rows = np.concatenate(parts)
    rows = rows[np.argsort(rows["incarnation"], kind="stable")]  # between equals as `RequestLog.load` has it
    return rows[np.argsort(rows["start_ns"], kind="stable")]


def _structured(rows: Columns) -> Array:
    table = np.empty(len(rows), DTYPE)
    for name in DTYPE.names or ():
        table[name] = rows[name]
    return table

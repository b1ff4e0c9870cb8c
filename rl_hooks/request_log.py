"""The requests of a run, read in batches: what is in memory at a time does not depend on how many there are.

    index (one entry per batch)   first start, where the rows are      made once, when the run is read
    batches()                     16,384 rows at most                  as often as somebody asks

Rows are in order of their end within a process, with small disorder, and the processes overlap. Batches come in order
of the first start in each, and a batch says which start the later ones do not come before (`complete_ns`). So whoever
needs an order across batches, of starts or of ends, knows how long to wait.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rl_hooks.row import REQUESTS
from rl_hooks.segments import rows_of

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

BATCH_ROWS = 1 << 14
"""Columns of a batch are 128 kB: they stay in the cache, and the allocator hands the same memory out again."""

DTYPE = np.dtype([("incarnation", "<u2"), *REQUESTS.dtype.descr])
"""A request as everybody after the reader sees it."""

NEVER_NS = int(np.iinfo(np.int64).max)


class Columns(Protocol):
    """A structured array, or what gives columns as one does."""

    def __getitem__(self, name: str) -> Any: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Some requests, and the moment before which no request of a later batch was sent."""

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


def stretches(incarnation: int, segments: Iterable[tuple[Path, Array]]) -> Iterator[Stretch]:
    """The index of one process, from its segments in order of writing."""
    small: list[Stretch] = []
    for file, rows in segments:
        parts = max(1, -(-len(rows) // BATCH_ROWS))
        edges = [len(rows) * part // parts for part in range(parts + 1)]
        for first, end in zip(edges[:-1], edges[1:], strict=True):
            if first == end:
                continue
            start_ns = int(rows["start_ns"][first:end].min())
            found = Stretch(incarnation, ((file, first, end - first),), end - first, start_ns)
            if small and sum(stretch.rows for stretch in small) + found.rows > BATCH_ROWS // 2:
                yield _joined(small)
                small = []
            if found.rows > BATCH_ROWS // 4:
                yield found  # joining means copying
            else:
                small.append(found)
    if small:
        yield _joined(small)


def _joined(parts: Sequence[Stretch]) -> Stretch:
    return Stretch(
        parts[0].incarnation,
        tuple(piece for part in parts for piece in part.pieces),
        sum(part.rows for part in parts),
        min(part.first_start_ns for part in parts),
    )


class RequestLog:
    """The requests in a run folder. `ids[i]` turns the ids of process i into common ones, by kind of name; it has an
    entry for every id in the rows."""

    def __init__(self, index: Sequence[Stretch], ids: Sequence[Mapping[str, Array]]) -> None:
        self._index = tuple(index)
        self._ids = tuple(ids)

    def __len__(self) -> int:
        return sum(stretch.rows for stretch in self._index)

    def rows_of_process(self, incarnation: int) -> int:
        return sum(stretch.rows for stretch in self._index if stretch.incarnation == incarnation)

    def batches(self) -> Iterator[Batch]:
        """All requests, a batch at a time."""
        index = sorted(self._index, key=lambda stretch: stretch.first_start_ns)
        for stretch, following in zip(index, [*index[1:], None], strict=True):
            yield Batch(self._read(stretch), following.first_start_ns if following else NEVER_NS)

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
            return self._ids[name.removesuffix("_ref")].take(self._rows[name])
        return np.ascontiguousarray(self._rows[name])


def batches_of(rows: Array) -> Iterator[Batch]:
    """The same batches for requests that are in memory, sorted by start."""
    for first in range(0, len(rows), BATCH_ROWS):
        later = rows["start_ns"][first + BATCH_ROWS : first + BATCH_ROWS + 1]
        yield Batch(rows[first : first + BATCH_ROWS], int(later[0]) if len(later) else NEVER_NS)


def in_order(batches: Iterable[Batch], more: Array, count: int) -> Iterator[Array]:
    """All rows of `batches` and of `more` in order of their start, `count` at a time.

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

"""The requests of a run, read in batches: what is in memory at a time does not depend on how many there are.

    index (one entry per batch)   first start, where the rows are      made once, when the run is read
    batches()                     32,768 rows at most                  as often as somebody asks

Rows are in order of their end within a process, with small disorder, and the processes overlap. Batches come in order
of the first start in each, and a batch says which start the later ones do not come before (`complete_ns`). So whoever
needs an order across batches, of starts or of ends, knows how long to wait.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rl_hooks.row import REQUESTS
from rl_hooks.segments import rows_of

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

BATCH_ROWS = 1 << 15
"""Enough to hide what a call of numpy costs, while the columns still fit into a processor's cache."""

_PIECE_ROWS = 1 << 13  # 0.7 MB of rows, whose columns are taken out while they are in the cache

DTYPE = np.dtype([("incarnation", "<u2"), *REQUESTS.dtype.descr])
"""A request as everybody after the reader sees it."""

NEVER_NS = int(np.iinfo(np.int64).max)


class Columns(Protocol):
    """What gives columns by their names, as a structured array does."""

    def __getitem__(self, name: str) -> Any: ...

    def __len__(self) -> int: ...


class Batch:
    """Some requests, and the moment before which no request of a later batch was sent."""

    def __init__(self, pieces: Sequence["_Piece"], complete_ns: int) -> None:
        self.complete_ns = complete_ns
        self._pieces = pieces

    def __len__(self) -> int:
        return sum(len(piece.rows) for piece in self._pieces)

    def __getitem__(self, name: str) -> Array:
        (column,) = self.columns(name)
        return column

    def columns(self, *names: str) -> list[Array]:
        """Some columns with common ids, each in an array of its own; all at once is faster than one by one."""
        found = [np.empty(len(self), DTYPE[name]) for name in names]
        first = 0
        for piece in self._pieces:
            for begin in range(0, len(piece.rows), _PIECE_ROWS):
                rows = piece.rows[begin : begin + _PIECE_ROWS]
                for name, column in zip(names, found, strict=True):
                    column[first : first + len(rows)] = piece.column(rows, name)
                first += len(rows)
        return found

    def pieces(self, kind: str) -> Iterator[tuple[Array, Array | None]]:
        """The rows where they lie, with the common ids of one kind of name; None: the rows have common ones."""
        for piece in self._pieces:
            yield piece.rows, None if piece.ids is None else piece.ids[kind]

    def structured(self) -> Array:
        """All columns, as rows of DTYPE."""
        table = np.empty(len(self), DTYPE)
        names = DTYPE.names or ()
        for name, column in zip(names, self.columns(*names), strict=True):
            table[name] = column
        return table


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows as they were written, of one process; or, without `ids`, as everybody sees them."""

    rows: Array
    incarnation: int = 0
    ids: Mapping[str, Array] | None = None

    def column(self, rows: Array, name: str) -> Any:
        """A column of some of the rows."""
        if self.ids is None:
            return rows[name]
        if name == "incarnation":
            return self.incarnation
        kind = name.removesuffix("_ref")
        return rows[name] if kind == name else self.ids[kind].take(rows[name])


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


Moved = Callable[[Any], Any]  # times by one process's clock, as those by the common one, in the same order


def stretches(incarnation: int, segments: Iterable[tuple[Path, Array]], moved: Moved) -> Iterator[Stretch]:
    """The index of one process, from its segments in order of writing."""
    waiting: list[Stretch] = []
    for file, rows in segments:
        for first in range(0, len(rows), BATCH_ROWS):
            start_ns = rows["start_ns"][first : first + BATCH_ROWS]
            if waiting and sum(stretch.rows for stretch in waiting) + len(start_ns) > BATCH_ROWS:
                yield _joined(waiting)
                waiting = []
            piece = (file, first, len(start_ns))
            waiting.append(Stretch(incarnation, (piece,), len(start_ns), int(moved(start_ns.min()))))
    if waiting:
        yield _joined(waiting)


def _joined(parts: Sequence[Stretch]) -> Stretch:
    return Stretch(
        parts[0].incarnation,
        tuple(piece for part in parts for piece in part.pieces),
        sum(part.rows for part in parts),
        min(part.first_start_ns for part in parts),
    )


class RequestLog:
    """The requests in a run folder. `ids[i]` turns the ids of process i into common ones, by kind of name; it has an
    entry for every id in the rows. `moved[i]` gives its times by the common clock; None: they are."""

    def __init__(
        self, index: Sequence[Stretch], ids: Sequence[Mapping[str, Array]], moved: Sequence[Moved | None]
    ) -> None:
        self._index = tuple(index)
        self._ids = tuple(ids)
        self._moved = tuple(moved)

    def __len__(self) -> int:
        return sum(stretch.rows for stretch in self._index)

    def rows_of_process(self, incarnation: int) -> int:
        return sum(stretch.rows for stretch in self._index if stretch.incarnation == incarnation)

    def batches(self) -> Iterator[Batch]:
        """All requests, a batch at a time."""
        index = sorted(self._index, key=lambda stretch: stretch.first_start_ns)
        later_ns = [*(stretch.first_start_ns for stretch in index), NEVER_NS][1:]
        for stretch, following_ns in zip(index, later_ns, strict=True):
            yield Batch(self._pieces(stretch), following_ns)

    def load(self) -> Array:
        """All requests in memory, sorted by start; the order of writing decides between equals."""
        rows = np.empty(len(self), DTYPE)
        filled = 0
        for stretch in self._index:
            rows[filled : filled + stretch.rows] = Batch(self._pieces(stretch), NEVER_NS).structured()
            filled += stretch.rows
        return rows[np.argsort(rows["start_ns"], kind="stable")]

    def _pieces(self, stretch: Stretch) -> list[_Piece]:
        ids, moved = self._ids[stretch.incarnation], self._moved[stretch.incarnation]
        return [
            _Piece(_by_common_clock(rows_of(file, REQUESTS, first, count), moved), stretch.incarnation, ids)
            for file, first, count in stretch.pieces
        ]


def _by_common_clock(rows: Array, moved: Moved | None) -> Array:
    if moved is None:
        return rows
    rows = rows.copy()
    rows["start_ns"] = moved(rows["start_ns"])
    return rows


def batches_of(rows: Array) -> Iterator[Batch]:
    """The same batches for requests that are in memory, sorted by start."""
    for first in range(0, len(rows), BATCH_ROWS):
        later = rows["start_ns"][first + BATCH_ROWS : first + BATCH_ROWS + 1]
        yield Batch([_Piece(rows[first : first + BATCH_ROWS])], int(later[0]) if len(later) else NEVER_NS)


def in_order(batches: Iterable[Batch], more: Array, count: int) -> Iterator[Array]:
    """All rows of `batches` and of `more` in order of their start, `count` at a time.

    Held are the rows that began while one of the others was under way.
    """
    held = [more]
    for batch in batches:
        held.append(batch.structured())
        if sum(len(part) for part in held) >= count:
            rows = _by_start(held)
            ready = int(rows["start_ns"].searchsorted(batch.complete_ns)) // count * count
            held.append(rows[ready:].copy())
            yield from _parts(rows[:ready], count)
            del rows  # before the next ones are put in order
    yield from _parts(_by_start(held), count)


def _parts(rows: Array, count: int) -> Iterator[Array]:
    yield from (rows[first : first + count] for first in range(0, len(rows), count))


def _by_start(parts: list[Array]) -> Array:
    """All rows in order of their start; `parts` is empty afterwards, so that they are in memory only once more."""
    rows = np.concatenate(parts)
    parts.clear()
    order = np.lexsort((rows["incarnation"], rows["start_ns"]))  # between equals as `RequestLog.load` has it
    ordered: Array = rows[order]
    return ordered

"""Observations at many moments at once: what `ObservationWindow` would give at each, from facts that come in batches.

    completions  --add-->  sums per cell       differences of running sums  -->  windows at every moment
                           one histogram       slides from moment to moment  -->  quantiles
    samples, decisions     sorted once         position of every moment      -->  gauges, previous action

Time is cut into cells at all moments and at all left ends of windows. Counts and sums per cell are whole numbers, so
they do not depend on the order of the rows; only the histogram needs to know until when everything is there. What the
numbers mean is defined in `observation.features` alone, and the tests hold both ways equal bit for bit.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks import histogram
from rl_hooks.action_space import are_instances
from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.observation import (
    GAUGES,
    QUANTILE_LEVELS,
    UNKNOWN_ACTION,
    Known,
    Spans,
    each_instance,
    features,
    summarize,
)

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

Slide = Callable[[Ints, Array, Ints, Ints], Floats]
"""Moves a histogram (services, buckets) from moment to moment; gives the quantiles (n, services, levels) at each.

Arguments: the histogram; keys of rows; n + 1 positions among them up to which rows have come into the histogram, before
the first moment and at each; the same for those that are gone again.
"""

_SNAPSHOTS = 16  # moments whose quantiles are read together
DURATIONS = 1 << 32  # of whole microseconds
_NEVER_NS = np.iinfo(np.int64).max
_SAMPLES = 4096  # samples that are summarized together


class Cells:
    """Time cut at `edges_ns` (sorted): cell 0 lies before the first edge, cell i from edge i - 1 on."""

    def __init__(self, edges_ns: Ints) -> None:
        self.edges_ns = edges_ns

    def __len__(self) -> int:
        return len(self.edges_ns) + 1

    def of(self, t_ns: Ints) -> tuple[slice, Ints]:
        """The cells that some times lie in, and for each time which of them, counted from the first."""
        low, high = self.edges_ns.searchsorted((t_ns.min(), t_ns.max()), "right").tolist()
        return slice(low, high + 1), self.edges_ns[low:high].searchsorted(t_ns, "right")

    def of_earlier(self, t_ns: Ints, later: Ints) -> tuple[slice, Ints, Ints]:
        """The same for times that lie in the cells `later` (counted from 0) or before, and which lie before."""
        begins_ns = np.append(-_NEVER_NS, self.edges_ns)
        cell = later.copy()
        before = np.flatnonzero(t_ns < begins_ns.take(cell))
        cell[before] = self.edges_ns.searchsorted(t_ns[before], "right")
        low, high = int(cell.min()), int(cell.max())
        cell -= low
        return slice(low, high + 1), cell, before

    def before(self, sums: Array, t_ns: Array, *places: Array) -> Array:
        """What lies before each of `t_ns`, which are edges; `sums` has one entry per cell, (cells, ...).

        `places` choose one of the other dimensions for each of `t_ns`.
        """
        running = np.zeros((len(sums) + 1, *sums.shape[1:]), sums.dtype)
        np.cumsum(sums, axis=0, out=running[1:])
        found: Array = running[(self.edges_ns.searchsorted(t_ns) + 1, *places)]
        return found


class CompletionTable:
    """Completions in, windows at n moments out."""

    def __init__(
        self, moments_ns: Ints, spans: Spans, *, exact_quantiles: bool = False, slide: Slide | None = None
    ) -> None:
        """`moments_ns` (n,) are in order and different; `slide` replaces what moves the histogram."""
        self._moments_ns = moments_ns
        self._spans = spans
        lefts = [moments_ns - length for length in spans.lengths_ns]
        self.cells = Cells(np.unique(np.concatenate((moments_ns, *lefts))))
        self.moments_passed = moments_ns.searchsorted(np.append(-_NEVER_NS, self.cells.edges_ns), "right")
        self.count = np.zeros((len(self.cells), len(SERVICES)), np.int64)
        self.failed = np.zeros_like(self.count)
        self.sum_us = np.zeros((len(self.cells), len(SERVICES)))
        self.quantiles = _SlidingQuantiles(self.cells, moments_ns, spans.window_ns, exact_quantiles, slide)

    def add(self, service: Ints, end_ns: Ints, duration_us: Floats, failed: Ints, complete_ns: int) -> Ints:
        """Requests that ended, and which of them failed (their positions).

        All others that end before `complete_ns` were added before or are among them. Returns how many moments lie at or
        before each end.
        """
        cells, cell = self.cells.of(end_ns)
        place = cell * len(SERVICES)
        place += service
        shape = (cells.stop - cells.start, len(SERVICES))
        size = shape[0] * shape[1]
        count = np.bincount(place, minlength=size).reshape(shape)
        self.count[cells] += count
        self.failed[cells] += np.bincount(place[failed], minlength=size).reshape(shape)
        self.sum_us[cells] += np.bincount(place, duration_us, size).reshape(shape)
        cell += cells.start
        self.quantiles.rows[cells.start + 1 : cells.stop + 1] += count.sum(axis=1)
        self.quantiles.add(cell, self.quantiles.keys(service, duration_us), complete_ns)
        return self.moments_passed.take(cell)

    def windows(self) -> tuple[Floats, Floats, Floats]:
        """Completions, how many of them failed, and the sum of their durations (us): each (n, windows, services)."""
        count, failed = self._inside(self.count), self._inside(self.failed)
        return count.astype(np.float64), failed.astype(np.float64), self._inside(self.sum_us)

    def ended(self) -> Ints:
        """All completions before each moment, (n, services)."""
        return self.cells.before(self.count, self._moments_ns)

    def quantiles_us(self) -> Floats:
        """Of the longest window, (n, services, levels). Call it when everything was added."""
        return self.quantiles.finish()

    def _inside(self, sums: Array) -> Array:
        until = self.cells.before(sums, self._moments_ns)
        lefts = [self.cells.before(sums, self._moments_ns - length) for length in self._spans.lengths_ns]
        return np.stack([until - left for left in lefts], axis=1)


class _SlidingQuantiles:
    """A histogram of the window of each moment, made from the one before; holds the rows of one window."""

    def __init__(self, cells: Cells, moments_ns: Ints, window_ns: int, exact: bool, slide: Slide | None) -> None:
        self._moments_ns = moments_ns
        self.exact = exact
        self._slide = slide or self._slide_in_blocks
        # A row is in the window of a moment from cell `first` on, up to and without cell `end`.
        self._end = cells.edges_ns.searchsorted(moments_ns) + 1
        self._first = cells.edges_ns.searchsorted(moments_ns - window_ns) + 1
        self.rows = np.zeros(len(cells) + 1, np.int64)  # in each cell, behind a zero
        self._waiting: list[tuple[Array, Array]] = []  # (cell, key) of rows that later moments ask for, cells in order
        self.key_dtype = np.dtype(np.int64 if exact else np.uint16)
        self._key = np.empty(0, self.key_dtype)  # of the held rows, in order of their cells
        self._forgotten = 0  # how many rows lie before those
        self._entered = self._left = 0  # how many rows have come into the histogram, and gone again
        self._counts = np.zeros((len(SERVICES), histogram.BUCKETS), np.int64)
        self._snapshots = np.empty((_SNAPSHOTS, *self._counts.shape), np.int32)
        self._done = 0
        self._found = np.full((len(moments_ns), len(SERVICES), len(QUANTILE_LEVELS)), np.nan)

    def keys(self, service: Ints, duration_us: Floats) -> Array:
        """What the rows are held by."""
        if self.exact:
            return service * DURATIONS + duration_us.astype(np.int64)
        return (histogram.bucket_of(duration_us) + service * histogram.BUCKETS).astype(self.key_dtype)

    def add(self, cell: Array, key: Array, complete_ns: int) -> None:
        """Rows by the cell and the key of each; they are counted in `rows` already."""
        order = slice(None) if (cell[1:] >= cell[:-1]).all() else np.argsort(cell, kind="stable")
        self._waiting.append((cell[order], key[order]))
        # Waiting for some moments together spares most of the cost of each.
        ready = int(self._moments_ns.searchsorted(complete_ns, "right"))
        if ready >= self._done + 2 * _SNAPSHOTS:
            self._advance(ready)

    def finish(self) -> Floats:
        self._advance(len(self._moments_ns))
        return self._found

    def _advance(self, ready: int) -> None:
        """Go on to the moments before `ready`, at which everything is there."""
        if ready == self._done:
            return
        self._take(int(self._end[ready - 1]))
        before = np.cumsum(self.rows[: self._end[ready - 1] + 1])
        entered = before[self._end[self._done : ready]] - self._forgotten
        left = before[self._first[self._done : ready]] - self._forgotten
        if self.exact:
            self._select(entered.tolist(), left.tolist())
        else:
            done, gone = self._entered - self._forgotten, self._left - self._forgotten
            moves = np.append(done, entered), np.append(gone, left)
            self._found[self._done : ready] = self._slide(self._counts, self._key, *moves)
            self._entered, self._left = int(before[self._end[ready - 1]]), int(before[self._first[ready - 1]])
        self._key = self._key[left[-1] :]
        self._forgotten += int(left[-1])
        self._done = ready

    def _take(self, end: int) -> None:
        """Hold all rows of the cells before `end`; what was held lies before what is new."""
        cells, keys, waiting = [], [], []
        for cell, key in self._waiting:
            ready = int(cell.searchsorted(end))
            cells.append(cell[:ready])
            keys.append(key[:ready])
            if ready < len(cell):
                waiting.append((cell[ready:].copy(), key[ready:].copy()))
        self._waiting = waiting
        if cells:
            order = np.argsort(np.concatenate(cells), kind="stable")
            self._key = np.append(self._key, np.concatenate(keys)[order])

    def _slide_in_blocks(self, counts: Ints, key: Array, entered: Ints, left: Ints) -> Floats:
        """A `Slide` in numpy."""
        flat, found = counts.reshape(-1), []
        moves = list(zip(itertools.pairwise(entered.tolist()), itertools.pairwise(left.tolist()), strict=True))
        for first in range(0, len(moves), _SNAPSHOTS):
            block = moves[first : first + _SNAPSHOTS]
            for number, (come, go) in enumerate(block):
                np.add.at(flat, key[slice(*come)].astype(np.intp), 1)
                np.add.at(flat, key[slice(*go)].astype(np.intp), -1)
                self._snapshots[number] = counts
            rows = self._snapshots[: len(block)].reshape(-1, histogram.BUCKETS)
            found.append(histogram.quantiles(rows, QUANTILE_LEVELS).reshape(len(block), len(SERVICES), -1))
        return np.concatenate(found)

    def _select(self, entered: list[int], left: list[int]) -> None:
        for moment, (begin, end) in enumerate(zip(left, entered, strict=True)):
            service, duration_us = np.divmod(self._key[begin:end], DURATIONS)
            for index in range(len(SERVICES)):
                mine = duration_us[service == index]
                if len(mine):
                    self._found[self._done + moment, index] = np.quantile(mine, QUANTILE_LEVELS)


def observations(
    completions: CompletionTable,
    in_flight: Array,
    samples: Array,
    decisions: Array,
    moments_ns: Ints,
    spans: Spans,
    labels: Sequence[str] = ACTIONS,
    number: Ints | None = None,
) -> tuple[npt.NDArray[np.float32], Ints]:
    """The features (n, services, features) and the time of the sample used (n, services), 0: none.

    `in_flight` (n, services) are the requests in flight at each moment; `samples` and `decisions` are rows of those
    tables, decisions of a service in order of time. `number` is that of each sample's instance among its service's
    actions, -1: none; it is needed where decisions are made among instances.
    """
    count, failed, sum_us = completions.windows()
    instances = labels if are_instances(labels) else ()
    places = np.full(len(samples), -1) if number is None else number
    gauges, sample_ns = _gauges(samples, places, moments_ns, spans.window_ns, instances)
    previous, held = _previous_actions(decisions, moments_ns)
    quantiles_us = completions.quantiles_us()
    known = Known(count, failed, sum_us, quantiles_us, in_flight.astype(np.float64), gauges, previous, held)
    return features(known, spans, labels=labels), sample_ns


def _previous_actions(decisions: Array, moments_ns: Ints) -> tuple[Ints, Floats]:
    """The last action before each moment and for how many decisions in a row, each (n, services)."""
    previous = np.full((len(moments_ns), len(SERVICES)), UNKNOWN_ACTION, np.int64)
    held = np.zeros(previous.shape)
    for service in range(len(SERVICES)):
        mine = decisions[decisions["service"] == service]
        mine = mine[np.argsort(mine["t_ns"], kind="stable")]
        if len(mine) == 0:
            continue
        action = np.where(mine["actuated"] != 0, mine["action"].astype(np.int64), UNKNOWN_ACTION)
        begins = np.append(True, action[1:] != action[:-1])
        since = np.maximum.accumulate(np.where(begins, np.arange(len(action)), 0))
        last = mine["t_ns"].searchsorted(moments_ns) - 1
        made = last >= 0
        previous[made, service] = action[last[made]]
        held[made, service] = (last - since[last] + 1)[made]
    return previous, held


def _gauges(
    samples: Array, number: Ints, moments_ns: Ints, window_ns: int, labels: Sequence[str]
) -> tuple[dict[str, Floats], Ints]:
    """The features of the newest sample received before each moment, each (n, services), and the sample's time."""
    sample_ns = np.zeros((len(moments_ns), len(SERVICES)), np.int64)
    first, rows = np.zeros(sample_ns.shape, np.int64), np.zeros(sample_ns.shape, np.int64)
    order = np.lexsort((np.maximum(samples["t_ns"], samples["received_ns"]), samples["t_ns"], samples["service"]))
    for service in range(len(SERVICES)):
        begin, end = np.searchsorted(samples["service"][order], (service, service + 1)).tolist()
        if begin < end:
            mine = samples[order[begin:end]]
            newest, place, count = _newest(mine["t_ns"], np.maximum(mine["t_ns"], mine["received_ns"]), moments_ns)
            known = (count > 0) & (newest >= moments_ns - window_ns)
            sample_ns[known, service] = newest[known]
            first[known, service], rows[known, service] = begin + place[known], count[known]
    width = max(int(rows.max(initial=0)), 1)
    used, which = np.unique(first * (width + 1) + rows, return_inverse=True)
    parts = list(_summaries(samples[order], number[order], *np.divmod(used, width + 1), width, labels))
    found = {name: np.concatenate([part[name] for part in parts])[which.reshape(rows.shape)] for name in parts[0]}
    return found, sample_ns


def _newest(t_ns: Ints, ready_ns: Ints, moments_ns: Ints) -> tuple[Ints, Ints, Ints]:
    """Of one service's rows, sorted by time and readiness: the newest time, its first row and how many are ready."""
    by_ready = np.argsort(ready_ns, kind="stable")
    ready = ready_ns[by_ready].searchsorted(moments_ns, "right")  # a sample of exactly the moment counts
    newest = np.append(0, np.maximum.accumulate(t_ns[by_ready]))[ready]
    first, end = t_ns.searchsorted(newest), t_ns.searchsorted(newest, "right")
    count = np.zeros(len(moments_ns), np.int64)
    for number in range(int((end - first).max(initial=0))):
        row = np.minimum(first + number, len(t_ns) - 1)
        count += (first + number < end) & (ready_ns[row] <= moments_ns)
    return newest, first, np.where(ready > 0, count, 0)


def _summaries(
    samples: Array, number: Ints, first: Ints, rows: Ints, width: int, labels: Sequence[str]
) -> Iterator[dict[str, Floats]]:
    """`summarize` for stretches of the samples: from `first` on `rows`, at most `width`."""
    gauges = np.array([*(samples[name] for name in GAUGES), number], np.float64)
    gauges = np.pad(gauges, ((0, 0), (0, width)), constant_values=np.nan)
    for begin in range(0, len(rows), _SAMPLES):
        count = rows[begin : begin + _SAMPLES]
        values = gauges[:, first[begin : begin + _SAMPLES, None] + np.arange(width)]
        values = np.where(np.arange(width) < count[:, None], values, np.nan)
        yield {**summarize(values[:-1], count), **each_instance(values[:-1], values[-1], labels)}

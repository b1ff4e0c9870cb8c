"""The pass over the requests as one compiled loop, where numba is installed; `align.tally` gives the same bits without.

A row is touched once, where it lies in its file: no column is copied out, and no array of the length of a batch is
made but the two that the sliding histogram holds.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks import histogram
from rl_hooks.export.sent import FAILED, SATISFIED, SentTable
from rl_hooks.observation import QUANTILE_LEVELS
from rl_hooks.observation_table import DURATIONS, CompletionTable
from rl_hooks.request_log import Batch

Array = npt.NDArray[Any]


WORTH_ROWS = 8_000_000
"""Loading numba and the compiled loops takes as long as the pass over so many rows saves."""


def worth_it(rows: int) -> bool:
    """Whether the compiled pass is used: for many rows, where numba is installed and works with this numpy."""
    if rows < WORTH_ROWS:
        return False
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    return True


def add(batch: Batch, ended: CompletionTable, sent: SentTable) -> None:
    """Count the rows of a batch in both tables."""
    cell = np.empty(len(batch), np.int32)
    key = np.empty(len(batch), ended.quantiles.key_dtype)
    begin = 0
    for rows, ids in batch.pieces("instance"):
        common = np.arange(sent.instances, dtype=np.uint16) if ids is None else ids
        end = begin + len(rows)
        _add(rows, common, ended, sent, cell[begin:end], key[begin:end])
        begin = end
    ended.quantiles.add(cell, key, batch.complete_ns)


def slide(counts: Array, key: Array, entered: Array, left: Array) -> Array:
    """An `observation_table.Slide`."""
    found = np.zeros((2, len(entered) - 1, len(counts), len(QUANTILE_LEVELS)), np.int64)
    total = np.zeros(found.shape[1:3], np.int64)
    _kernel(_move)(counts, key, entered, left, QUANTILE_LEVELS, found[0], found[1], total)
    return histogram.between(found[0], found[1], total, QUANTILE_LEVELS)


def _add(rows: Array, ids: Array, ended: CompletionTable, sent: SentTable, cell: Array, key: Array) -> None:
    done = 0
    while done < len(rows):
        done += _kernel(_count)(
            *(rows[done:], ids, ended.cells.edges_ns, ended.moments_passed, sent.cells.edges_ns),
            *(ended.count, ended.failed, ended.sum_us, ended.quantiles.rows, cell[done:], key[done:]),
            *(ended.quantiles.exact, sent.satisfied_us, sent.tolerated_us, sent.column, sent.instances),
            *(sent.answers, sent.ok_us, sent.last_end_ns, sent.requests_served),
        )
        if done < len(rows):
            sent.make_room(int(rows["service"][done]) * sent.instances + int(ids[rows["instance_ref"][done]]))


@functools.cache
def _kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    import numba

    try:
        return numba.njit(function, cache=True)  # type: ignore[no-any-return]
    except RuntimeError:  # neither the folder of this file nor the user's cache can be written
        return numba.njit(function)  # type: ignore[no-any-return]


_BUCKETS, _SHIFT, _FIRST = histogram.BUCKETS, histogram.MANTISSA_SHIFT, histogram.ONE - 1


def _count(
    rows: Any,
    ids: Any,
    edges_ns: Any,
    moments_passed: Any,
    moments_ns: Any,
    count: Any,
    failed: Any,
    sum_us: Any,
    rows_behind: Any,
    cells: Any,
    keys: Any,
    exact: bool,
    satisfied_us: Any,
    tolerated_us: Any,
    column: Any,
    instances: int,
    answers: Any,
    ok_us: Any,
    last_end_ns: Any,
    served: Any,
) -> int:
    """How many rows were counted: all before the first one whose instance has no column in `served` yet."""
    services, told = answers.shape[1], answers.shape[2]
    cell: Any = -1
    for row in range(len(rows)):
        service = np.int64(rows[row]["service"])
        ref = np.int64(rows[row]["instance_ref"])
        if service >= services or ref >= len(ids) or ids[ref] >= instances:
            raise IndexError("a request names a service or an instance that does not exist")
        place = column[service * instances + ids[ref]]
        if place < 0:
            return row
        start_ns = rows[row]["start_ns"]
        duration_us = np.int64(rows[row]["duration_us"])
        end_ns = start_ns + duration_us * 1000
        # By the end. Rows are nearly in order of it, so mostly it lies in the cell of the row before.
        if (
            cell < 0
            or (cell > 0 and end_ns < edges_ns[cell - 1])
            or (cell < len(edges_ns) and end_ns >= edges_ns[cell])
        ):
            cell = np.searchsorted(edges_ns, end_ns, "right")
        ok = np.int64(rows[row]["ok"] == 1)
        count[cell, service] += 1
        failed[cell, service] += 1 - ok
        sum_us[cell, service] += duration_us
        rows_behind[cell + 1] += 1
        cells[row] = cell
        if exact:
            keys[row] = service * DURATIONS + duration_us
        else:
            bucket: Any = (np.float64(duration_us).view(np.int64) >> _SHIFT) - _FIRST  # as `histogram.bucket_of`
            keys[row] = service * _BUCKETS + max(bucket, 0)
        # By the start, which lies in the same interval or a few before.
        last = moments_passed[cell]
        sender = last
        while sender > 0 and start_ns < moments_ns[sender - 1]:
            sender -= 1
        if sender < last:
            last_end_ns[sender] = max(last_end_ns[sender], end_ns)
        late = np.int64(duration_us > satisfied_us[service]) + np.int64(duration_us > tolerated_us[service])
        action = min(np.int64(rows[row]["action_applied"]), told - 1)
        answers[sender, service, action, SATISFIED + late if ok else FAILED] += 1
        ok_us[sender, service] += duration_us * ok
        served[sender, service, place] += 1
    return len(rows)


_OCTAVE, _OCTAVES = histogram.BUCKETS_PER_OCTAVE, histogram.OCTAVES


def _move(counts: Any, key: Any, entered: Any, left: Any, levels: Any, low: Any, high: Any, total: Any) -> None:
    """Buckets of the order statistics below and above each quantile, as `histogram.quantiles` finds them."""
    services = len(counts)
    octaves = np.zeros((services, _OCTAVES), np.int64)
    for service in range(services):
        for bucket in range(1, _BUCKETS):
            octaves[service, (bucket - 1) // _OCTAVE] += counts[service, bucket]
    for moment in range(len(entered) - 1):
        for change, places in ((1, entered), (-1, left)):
            for row in range(places[moment], places[moment + 1]):
                place = np.int64(key[row])
                counts[place // _BUCKETS, place % _BUCKETS] += change
                if place % _BUCKETS:
                    octaves[place // _BUCKETS, (place % _BUCKETS - 1) // _OCTAVE] += change
        for service in range(services):
            rows = counts[service, 0] + octaves[service].sum()
            total[moment, service] = rows
            if rows == 0:
                continue
            for level in range(len(levels)):
                rank = (rows - 1) * levels[level]
                below = np.int64(np.floor(rank))
                # The first bucket with more than `below` rows up to and with it.
                bucket, running = 0, counts[service, 0]
                if running <= below:
                    octave = 0
                    while running + octaves[service, octave] <= below:
                        running += octaves[service, octave]
                        octave += 1
                    bucket = octave * _OCTAVE
                    while running <= below:
                        bucket += 1
                        running += counts[service, bucket]
                low[moment, service, level] = bucket
                # The rank above is mostly in the same one.
                if np.ceil(rank) >= running:
                    bucket += 1
                    while counts[service, bucket] == 0:
                        bucket += 1
                high[moment, service, level] = bucket

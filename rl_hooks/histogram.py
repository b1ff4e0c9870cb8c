"""Log-linear histograms of durations: 64 buckets per octave, counts that add over workers and subtract over time.

A bucket's representative is the harmonic mean of its edges, so a value read from a histogram is off by at most
1/129 = 0.775 % of the true value. Sketches that bound the rank instead (t-digest, KLL) are off without limit in value
where a distribution jumps, as response times do at a timeout.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BUCKETS_PER_OCTAVE = 64
OCTAVES = 32  # durations are unsigned 32-bit microseconds
BUCKETS = 1 + OCTAVES * BUCKETS_PER_OCTAVE  # bucket 0 is the duration 0
_MANTISSA_SHIFT = 52 - 6  # keeps the six leading bits of a double's mantissa: 64 steps per octave
_ONE = 1023 << 6  # the same bits of 1.0


def bucket_of(duration_us: npt.NDArray[Any]) -> Ints:
    """The bucket of each duration in whole microseconds.

    >>> bucket_of(np.array([0, 1, 64, 65, 128])).tolist()
    [0, 1, 385, 386, 449]
    """
    bits = np.asarray(duration_us, np.float64).view(np.int64) >> _MANTISSA_SHIFT
    return np.where(bits == 0, 0, bits - _ONE + 1)


def _representatives() -> Floats:
    """The value that stands for each bucket, in microseconds."""
    steps = np.arange(OCTAVES * BUCKETS_PER_OCTAVE)
    octave = 2.0 ** (steps // BUCKETS_PER_OCTAVE)
    low = octave * (1 + steps % BUCKETS_PER_OCTAVE / BUCKETS_PER_OCTAVE)
    high = low + octave / BUCKETS_PER_OCTAVE
    return np.concatenate(([0.0], 2 * low * high / (low + high)))


VALUE_US = _representatives()


def quantiles(counts: npt.NDArray[Any], levels: Floats) -> Floats:
    """Quantiles in microseconds of each row of `counts` (rows, BUCKETS); NaN where a row is empty.

    The definition is numpy's default, linear between the two neighbouring order statistics (Hyndman and Fan, type 7),
    so that the error bound of a single value holds for the quantile too. Shape: (rows, levels).
    """
    cumulative = np.cumsum(counts, axis=1)
    found = np.full((len(counts), len(levels)), np.nan)
    for row, total in enumerate(cumulative[:, -1]):
        if total:
            rank = (total - 1) * levels
            below = np.floor(rank)
            at = cumulative[row].searchsorted(np.concatenate((below, np.ceil(rank))), side="right")
            low, high = VALUE_US[at[: len(levels)]], VALUE_US[at[len(levels) :]]
            found[row] = low + (rank - below) * (high - low)
    return found

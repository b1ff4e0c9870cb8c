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
MANTISSA_SHIFT = 52 - 6  # keeps the six leading bits of a double's mantissa: 64 steps per octave
ONE = 1023 << 6  # the same bits of 1.0


def bucket_of(duration_us: npt.NDArray[Any]) -> Ints:
    """The bucket of each duration in whole microseconds.

    >>> bucket_of(np.array([0, 1, 64, 65, 128])).tolist()
    [0, 1, 385, 386, 449]
    """
    bucket: Ints = np.asarray(duration_us, np.float64).view(np.int64) >> MANTISSA_SHIFT
    bucket -= ONE - 1
    np.maximum(bucket, 0, out=bucket)  # the bits of 0 are 0
    return bucket


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
    octaves = counts[:, 1:].reshape(len(counts), OCTAVES, BUCKETS_PER_OCTAVE)
    below_octave = np.cumsum(np.column_stack((counts[:, 0], octaves.sum(axis=2))), axis=1)  # (rows, 1 + OCTAVES)
    total = below_octave[:, -1]
    rank = (np.maximum(total, 1) - 1)[:, None] * levels
    below = np.floor(rank).astype(np.int64)
    row = np.repeat(np.arange(len(counts)), len(levels))
    low, next_rank = _bucket_at(octaves, below_octave, row, below.ravel())
    high = low.copy()
    # The rank above is mostly in the same bucket.
    other = np.flatnonzero(np.ceil(rank).ravel() >= next_rank)
    high[other], _ = _bucket_at(octaves, below_octave, row[other], below.ravel()[other] + 1)
    return between(low.reshape(rank.shape), high.reshape(rank.shape), total, levels)


def between(low: Ints, high: Ints, total: Ints, levels: Floats) -> Floats:
    """Quantiles from the buckets (..., levels) of their two neighbouring order statistics among `total` (...)."""
    rank = (np.maximum(total, 1) - 1)[..., None] * levels
    low_us, high_us = VALUE_US[low], VALUE_US[high]
    return np.where(total[..., None] > 0, low_us + (rank - np.floor(rank)) * (high_us - low_us), np.nan)


def _bucket_at(octaves: npt.NDArray[Any], below_octave: npt.NDArray[Any], row: Ints, rank: Ints) -> tuple[Ints, Ints]:
    """The bucket of each rank (counted from 0) of a row, and the first rank behind that bucket."""
    octave = (below_octave[row] <= rank[:, None]).sum(axis=1) - 1  # -1: bucket 0
    inside = np.clip(octave, 0, OCTAVES - 1)  # also for an empty row
    running = below_octave[row, inside][:, None] + np.cumsum(octaves[row, inside], axis=1)
    step = np.minimum((running <= rank[:, None]).sum(axis=1), BUCKETS_PER_OCTAVE - 1)
    zero = octave < 0
    behind = np.where(zero, below_octave[row, 0], running[np.arange(len(row)), step])
    return np.where(zero, 0, 1 + inside * BUCKETS_PER_OCTAVE + step), behind

"""Histograms of durations: the error bound, and that counts add and subtract."""

import numpy as np
import pytest

from rl_hooks import histogram

LARGEST_ERROR = 0.0078
LEVELS = np.array([0.0, 0.01, 0.5, 0.95, 0.99, 1.0])


def test_the_value_of_a_bucket_is_near_every_duration_in_it() -> None:
    rng = np.random.default_rng(1)
    small, any_size = np.arange(1, 200_000), (2 ** rng.uniform(0, 32, 300_000)).astype(np.uint32)
    edges = np.concatenate([[2**octave - 1, 2**octave, 2**octave + 1] for octave in range(1, 32)])
    durations = np.concatenate((small, any_size, edges, [2**32 - 1])).astype(np.uint32)
    error = np.abs(histogram.VALUE_US[histogram.bucket_of(durations)] / durations - 1)
    assert error.max() <= LARGEST_ERROR


def test_every_duration_has_a_bucket_and_longer_ones_no_earlier_one() -> None:
    durations = np.array([0, 1, 2, 63, 64, 65, 2**20, 2**32 - 1], np.uint32)
    buckets = histogram.bucket_of(durations)
    assert buckets[0] == 0
    assert buckets[-1] == histogram.BUCKETS - 1
    assert (np.diff(buckets) > 0).all()


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1000])
def test_quantiles_are_near_the_exact_ones(count: int) -> None:
    rng = np.random.default_rng(count)
    durations = rng.lognormal(10, 2, count).astype(np.uint32) + 1
    counts = np.bincount(histogram.bucket_of(durations), minlength=histogram.BUCKETS)[None, :]
    found = histogram.quantiles(counts, LEVELS)[0]
    assert np.abs(found / np.quantile(durations, LEVELS) - 1).max() <= LARGEST_ERROR


def test_a_cliff_between_fast_answers_and_timeouts_is_kept() -> None:
    durations = np.array([1000] * 98 + [10_000_000] * 2)
    counts = np.bincount(histogram.bucket_of(durations), minlength=histogram.BUCKETS)[None, :]
    p95, p99 = histogram.quantiles(counts, np.array([0.95, 0.99]))[0]
    assert p95 == pytest.approx(1000, rel=LARGEST_ERROR)
    assert p99 == pytest.approx(10_000_000, rel=LARGEST_ERROR)


def test_nothing_has_no_quantile() -> None:
    counts = np.zeros((2, histogram.BUCKETS), np.int64)
    counts[1, 5] = 1
    found = histogram.quantiles(counts, LEVELS)
    assert np.isnan(found[0]).all()
    assert not np.isnan(found[1]).any()

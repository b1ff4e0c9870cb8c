"""Exact intervals against scipy, and the law that Holm's procedure has to keep."""

import numpy as np
import pytest
from scipy import stats

from rl_hooks.export.verify.binomial import clopper_pearson, judged, p_value

CASES = [(0, 1), (1, 1), (0, 30), (30, 30), (3, 40), (33, 707), (500, 1000), (4999, 5000), (7, 20000)]


@pytest.mark.parametrize(("hits", "count"), CASES)
@pytest.mark.parametrize("confidence", [0.95, 0.99, 0.99999])
def test_the_interval_is_the_exact_one(hits: int, count: int, confidence: float) -> None:
    exact = stats.binomtest(hits, count).proportion_ci(confidence, method="exact")
    assert clopper_pearson(hits, count, confidence) == pytest.approx((exact.low, exact.high), abs=1e-9)


@pytest.mark.parametrize(("hits", "count"), CASES)
@pytest.mark.parametrize("planned", [0.0, 0.001, 0.05, 0.5, 0.98, 1.0])
def test_the_p_value_is_twice_the_smaller_tail(hits: int, count: int, planned: float) -> None:
    less, more = (stats.binomtest(hits, count, planned, alternative=side).pvalue for side in ("less", "greater"))
    assert p_value(planned, hits, count) == pytest.approx(min(1.0, 2 * min(less, more)), abs=1e-12)


def test_without_a_trial_nothing_is_known() -> None:
    assert clopper_pearson(0, 0, 0.95) == (0.0, 1.0)
    assert p_value(0.3, 0, 0) == 1.0


def test_the_verdict_and_the_interval_agree() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        planned = rng.uniform(0.05, 0.95, 6)
        off = planned + rng.choice([0.0, 0.15], 6, p=(0.7, 0.3))
        count = rng.integers(1, 300, 6)
        found = [(p, int(rng.binomial(n, min(q, 1.0))), int(n)) for p, q, n in zip(planned, off, count, strict=True)]
        for share in judged(found, 0.95):
            low, high = share.interval
            assert share.fits == (low <= share.planned <= high)


def test_holm_stops_at_the_first_that_is_not_refuted() -> None:
    """p-values 0.0002, 0.036 and 0.036: alone each is below 0.05, together only the first is refuted."""
    found = [(0.5, 5, 30), (0.5, 9, 30), (0.5, 9, 30)]
    alone = [judged([one], 0.95)[0].fits for one in found]
    assert alone == [False, False, False]
    assert [share.fits for share in judged(found[1:] + [(0.5, 15, 30)] * 4, 0.95)] == [True] * 6
    assert [share.fits for share in judged([*found, (0.5, 15, 30)], 0.95)] == [False, True, True, True]


def test_what_is_as_planned_is_seldom_refuted() -> None:
    """All eight together at 95 %: at most 5 % of tables with a wrong verdict (here 400 tables, 99.9 % bound)."""
    rng = np.random.default_rng(11)
    shares = (0.05, 0.35, 0.6, 0.25, 0.7, 0.4, 0.2, 0.45)
    wrong = sum(
        not all(one.fits for one in judged([(p, int(rng.binomial(150, p)), 150) for p in shares], 0.95))
        for _ in range(400)
    )
    assert wrong <= stats.binom.ppf(0.999, 400, 0.05)

"""The statistics against independent ones, and their error rates."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from rl_hooks.report import stats


@pytest.mark.parametrize(("successes", "trials", "p"), [(3, 20, 0.35), (50, 60, 0.8), (0, 12, 0.05), (400, 9000, 0.05)])
def test_the_binomial_test_is_the_exact_one(successes: int, trials: int, p: float) -> None:
    assert stats.binomial_p(successes, trials, p) == pytest.approx(scipy_stats.binomtest(successes, trials, p).pvalue)


@pytest.mark.parametrize(("successes", "p", "expected"), [(10, 1.0, 1.0), (9, 1.0, 0.0), (0, 0.0, 1.0), (1, 0.0, 0.0)])
def test_a_certain_event_has_to_happen(successes: int, p: float, expected: float) -> None:
    assert stats.binomial_p(successes, 10, p) == expected


def test_the_distance_is_that_of_kolmogorov_and_smirnov() -> None:
    rng = np.random.default_rng(1)
    one, other = np.round(rng.normal(0, 1, 200), 1), np.round(rng.normal(0.3, 1, 150), 1)
    assert stats.ks_distance(one, other) == pytest.approx(scipy_stats.ks_2samp(one, other).statistic)


def test_autocorrelated_rewards_count_for_less() -> None:
    """An AR(1) with coefficient 0.8 has n (1 - 0.8) / (1 + 0.8) = n / 9 independent values."""
    rng = np.random.default_rng(2)
    values = np.zeros(50_000)
    noise = rng.normal(0, 1, len(values))
    for i in range(1, len(values)):
        values[i] = 0.8 * values[i - 1] + noise[i]
    sequence = np.arange(len(values)) // 1000
    assert stats.effective_count(values, sequence) == pytest.approx(len(values) / 9, rel=0.1)
    assert stats.effective_count(noise, sequence) == pytest.approx(len(noise), rel=0.1)
    assert stats.effective_count(np.ones(10), np.zeros(10, np.int64)) == 0


def test_clusters_that_are_apart_are_found() -> None:
    rng = np.random.default_rng(3)
    centre = np.repeat(np.arange(4), 200)
    points = rng.normal(0, 0.1, (800, 3)) + centre[:, None] * 5
    found = stats.k_means(points, 4, rng)
    assert [len(np.unique(found[centre == number])) for number in range(4)] == [1] * 4
    assert len(np.unique(found)) == 4


def test_more_clusters_than_points_that_differ_is_no_fault() -> None:
    assert stats.k_means(np.zeros((10, 2)), 3, np.random.default_rng(1)).tolist() == [0] * 10


def test_redrawing_keeps_its_level_under_a_policy_that_is_not_uniform() -> None:
    """200 logs without an effect: 5 % of the p-values below 0.05 (with 99 %: at most 19)."""
    rng = np.random.default_rng(4)
    p_values = []
    for _ in range(200):
        p = rng.dirichlet(np.ones(6), 300)
        action = (rng.random((300, 1)) > np.cumsum(p, axis=1)[:, :-1]).sum(axis=1)
        p_values.append(stats.redraw_p(rng.exponential(1, 300), action, p, rng, 99))
    assert sum(value < 0.05 for value in p_values) <= 19
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.08)


def test_flipping_signs_keeps_its_level_where_rows_of_a_cluster_depend_on_each_other() -> None:
    rng = np.random.default_rng(5)
    p_values = [stats.sign_flip_p(rng.normal(0, 1, (30, 5)) @ rng.normal(0, 1, (5, 5)), rng, 199) for _ in range(200)]
    assert sum(value < 0.05 for value in p_values) <= 19
    assert stats.sign_flip_p(rng.normal(1, 1, (30, 5)), rng, 199) == 1 / 200


def test_a_classifier_gains_nothing_where_there_is_nothing_and_something_where_there_is() -> None:
    rng = np.random.default_rng(6)
    x, fold = rng.normal(0, 1, (6000, 4)), rng.integers(0, 5, 6000)
    logged = np.full((6000, 6), 1 / 6)
    none = stats.classifier_gain(x, rng.integers(0, 6, 6000), logged, fold)
    scores = np.outer(x[:, 0], np.arange(6) - 2.5) * 0.5
    true = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    action = (rng.random((6000, 1)) > np.cumsum(true, axis=1)[:, :-1]).sum(axis=1)
    secret = stats.classifier_gain(x, action, logged, fold)
    best = np.log(true[np.arange(6000), action] * 6).mean()
    assert none.mean() < 0.001
    assert secret.mean() == pytest.approx(best, rel=0.1)


def test_predictions_of_unseen_folds_are_those_of_the_line() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(0, 1, (500, 3))
    y = x @ np.array([1.0, -2.0, 0.0]) + 3
    predicted = stats.ridge_predictions(x, y, rng.integers(0, 5, 500), ridge=1e-6)
    assert stats.r_squared(y, predicted) == pytest.approx(1)

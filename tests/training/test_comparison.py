"""Differences between policies, against known truths."""

import doctest
import math

import numpy as np
import pytest

from training import comparison
from training.comparison import Blocks, Difference, by_blocks, paired

SEED = 20240
SIMULATIONS = 300


def balanced(rng: np.random.Generator, effects: list[float], levels: list[float], each: int, chance: float) -> Blocks:
    """`each` blocks of every policy in every stratum."""
    policy = np.tile(np.repeat(np.arange(len(effects)), each), len(levels))
    stratum = np.repeat(np.arange(len(levels)), len(effects) * each)
    value = np.array(effects)[policy] + np.array(levels)[stratum] + chance * rng.standard_normal(len(policy))
    return Blocks(policy, stratum, value)


def unbalanced(rng: np.random.Generator, effects: list[float], levels: list[float], chance: float) -> Blocks:
    """Forty blocks, dealt out by chance: policies have other shares in other strata."""
    policy, stratum = rng.integers(0, len(effects), 40), rng.integers(0, len(levels), 40)
    return Blocks(policy, stratum, np.array(effects)[policy] + np.array(levels)[stratum] + chance * rng.normal(size=40))


def test_the_examples_of_the_docstrings_hold() -> None:
    assert tuple(doctest.testmod(comparison)) == (0, 5)


@pytest.mark.parametrize("seed", range(5))
def test_without_chance_differences_are_exact_however_policies_are_dealt_out(seed: int) -> None:
    fit = by_blocks(unbalanced(np.random.default_rng(seed), [0.1, 0.3, 0.2], [5.0, -2.0, 0.0], 0.0), 3)
    for one, other, truth in ((0, 1, -0.2), (1, 2, 0.1), (2, 0, 0.1)):
        found = fit.difference(one, other)
        assert found.value == pytest.approx(truth)
        assert found.error == pytest.approx(0, abs=1e-9)


def test_the_interval_holds_the_truth_95_times_of_100() -> None:
    """300 draws: with 95 % the share is within 0.925 and 0.975 but for 1 case in 20; the seed is one of the 19."""
    rng = np.random.default_rng(SEED)
    held = 0
    for _ in range(SIMULATIONS):
        found = by_blocks(unbalanced(rng, [0.0, 0.4], [1.0, 3.0, -1.0], 0.5), 2).difference(1, 0)
        held += found.low <= 0.4 <= found.high
    assert 0.925 <= held / SIMULATIONS <= 0.975


def test_a_difference_of_the_detectable_size_is_found_80_times_of_100() -> None:
    rng = np.random.default_rng(SEED)
    true_error = 0.5 * math.sqrt(2 / 20)  # 20 blocks each
    truth = Difference(0.0, true_error, 37).detectable
    found = [
        by_blocks(balanced(rng, [0.0, truth], [1.0, 3.0], 10, 0.5), 2).difference(1, 0).is_clear
        for _ in range(SIMULATIONS)
    ]
    assert 0.75 <= np.mean(found) <= 0.85


def test_a_constant_on_a_stratum_changes_no_difference() -> None:
    blocks = unbalanced(np.random.default_rng(SEED), [0.0, 0.4, 0.1], [0.0, 0.0, 0.0], 0.3)
    shifted = Blocks(blocks.policy, blocks.stratum, blocks.value + np.array([100.0, -7.0, 3.0])[blocks.stratum])
    before, after = by_blocks(blocks, 3), by_blocks(shifted, 3)
    for pair in ((0, 1), (0, 2), (1, 2)):
        one, other = before.difference(*pair), after.difference(*pair)
        assert (one.value, one.error) == pytest.approx((other.value, other.error))


def test_values_differ_by_what_differences_say_and_not_by_when_a_policy_had_its_turn() -> None:
    """Policy 1 had mostly the bad stratum, so its plain mean is the worse one."""
    policy, stratum = np.array([0, 0, 0, 1, 0, 1, 1, 1]), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    value = np.array([0.0, 0.1])[policy] + np.array([1.0, 0.0])[stratum]
    fit = by_blocks(Blocks(policy, stratum, value), 2)
    assert value[policy == 1].mean() < value[policy == 0].mean()
    assert fit.value(1) - fit.value(0) == pytest.approx(0.1)
    assert (fit.value(0) + fit.value(1)) / 2 == pytest.approx(value.mean())


def test_equal_values_differ_by_exactly_nothing() -> None:
    fit = by_blocks(Blocks(np.array([0, 1, 0, 1, 0]), np.array([0, 0, 1, 1, 1]), np.full(5, 0.1 + 0.2)), 2)
    found = fit.difference(0, 1)
    assert (found.value, found.error, found.is_clear) == (0.0, 0.0, False)


def test_policies_that_never_met_cannot_be_compared_and_those_with_a_common_third_can() -> None:
    """0 met 1, 1 met 2; 3 was alone in its stratum, and 4 had no block with a value."""
    policy, stratum = np.array([0, 1, 0, 1, 2, 2, 3, 3, 4]), np.array([0, 0, 0, 1, 1, 1, 2, 2, 0])
    value = np.array([1.0, 2.0, 1.2, 5.0, 8.0, 8.2, 9.0, 9.4, math.nan])
    fit = by_blocks(Blocks(policy, stratum, value), 5)
    assert fit.meets(0, 2) and fit.difference(0, 2).is_known
    for other in (3, 4):
        assert not fit.meets(0, other)
        assert not fit.difference(0, other).is_known
    assert fit.value(3) == pytest.approx(9.2)
    assert math.isnan(fit.value(4))


def test_without_a_degree_of_freedom_there_is_a_value_and_no_interval() -> None:
    found = by_blocks(Blocks(np.array([0, 1]), np.array([0, 0]), np.array([1.0, 3.0])), 2).difference(1, 0)
    assert found.value == pytest.approx(2.0)
    assert not found.is_known
    assert math.isnan(found.low) and math.isnan(found.detectable)


def test_blocks_without_any_value_make_no_fit() -> None:
    fit = by_blocks(Blocks(np.array([0, 1]), np.array([0, 0]), np.array([math.nan, math.nan])), 2)
    assert not fit.difference(0, 1).is_known
    assert math.isnan(fit.value(0))


def test_paired_values_are_judged_by_their_differences_alone() -> None:
    rng = np.random.default_rng(SEED)
    seeds, chance = 1000 * rng.standard_normal(12), rng.standard_normal(12)
    found, alone = paired(seeds + 1 + chance, seeds), paired(1 + chance, np.zeros(12))
    assert (found.value, found.error, found.degrees) == pytest.approx((alone.value, alone.error, 11))


def test_a_pair_without_both_values_is_no_evidence() -> None:
    holed = paired(np.array([1.0, math.nan, 2.0, 4.0]), np.array([0.0, 1.0, 1.0, math.nan]))
    assert holed == paired(np.array([1.0, 2.0]), np.array([0.0, 1.0]))
    assert not paired(np.array([1.0]), np.array([0.5])).is_known
    assert not paired(np.array([]), np.array([])).is_known


def test_paired_intervals_hold_the_truth_95_times_of_100() -> None:
    rng = np.random.default_rng(SEED)
    found = [paired(0.3 + rng.standard_normal(6), rng.standard_normal(6)) for _ in range(SIMULATIONS)]
    assert 0.925 <= np.mean([one.low <= 0.3 <= one.high for one in found]) <= 0.975

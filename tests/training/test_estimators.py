"""Laws of the estimators, on logs whose answers are known."""

import doctest
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy import stats as scipy_stats

from tests.training.logs import EFFECT, always, chain, clustered, long_run_value, one_step_value, with_rewards
from training import estimators
from training.estimators import (
    AS_LOGGED,
    LONG_RUN,
    ONE_STEP,
    Estimate,
    Limits,
    Scores,
    doubly_robust,
    importance,
    ips,
    logged_mean,
    partial_history,
    reward_model,
    snips,
)

SURE = 4.0  # standard errors; by chance a right value is further away once in 16,000 seeds


def estimate(scores: Scores, log: estimators.Log, carry_over: int | None = 0) -> Estimate:
    return scores.estimate(log, Limits(), carry_over)


def test_the_examples_hold() -> None:
    assert tuple(doctest.testmod(estimators)) == (0, 15)


# -- what each one answers -------------------------------------------------------------------------------------------


def test_ips_is_unbiased() -> None:
    """Also with few steps, where a self-normalized estimate is not, and under a log that prefers some actions."""
    rng, values = np.random.default_rng(1), []
    logged = np.tile([0.5, 0.3, 0.05, 0.05, 0.05, 0.05], (10, 1))
    for _ in range(4000):
        action = rng.choice(6, 10, p=logged[0])
        log = replace(clustered(rng, 1), action=action, logged=logged, reward=0.5 + EFFECT[action])
        values.append(ips(replace(log, measured=np.ones(10, bool)), always(2, 10)).value)
    error = np.std(values) / len(values) ** 0.5
    assert abs(np.mean(values) - (0.5 + EFFECT[2])) < SURE * error
    assert SURE * error < 0.25


def test_a_shift_of_all_rewards_shifts_self_normalized_estimates_by_the_same() -> None:
    log = clustered(np.random.default_rng(2))
    shifted, target = with_rewards(log, log.reward + 10), always(2, len(log))
    for one in (snips, partial(partial_history, back=2)):
        before, after = (estimate(one(each, target), each) for each in (log, shifted))
        assert after.value == pytest.approx(before.value + 10)
        assert after.high - after.low == pytest.approx(before.high - before.low)
    assert ips(shifted, target).value != pytest.approx(ips(log, target).value + 10, abs=0.05)


def test_a_good_reward_model_makes_the_doubly_robust_estimate_precise_and_a_bad_one_leaves_it_right() -> None:
    rng = np.random.default_rng(3)
    log = clustered(rng, 40, spread=0.0)
    state = rng.normal(0, 0.3, len(log))
    log, target = with_rewards(log, log.reward + state), always(5, len(log))
    truth = 0.5 + EFFECT[5] + state.mean()
    perfect = 0.5 + EFFECT[None, :] + state[:, None]
    found = {
        "none": estimate(snips(log, target), log),
        "perfect": estimate(doubly_robust(log, target, perfect), log),
        "fitted": estimate(doubly_robust(log, target, reward_model(state[:, None], log)), log),
        "wrong": estimate(doubly_robust(log, target, 1 - perfect), log),
    }
    half = {name: (one.high - one.low) / 2 for name, one in found.items()}
    assert half["perfect"] < half["none"] / 2
    assert half["fitted"] < half["none"] * 0.6
    assert all(abs(one.value - truth) < 2 * half[name] for name, one in found.items())


def test_the_reward_model_has_not_seen_the_cluster_it_is_asked_about() -> None:
    log = clustered(np.random.default_rng(4), 10)
    level = np.eye(10)[log.cluster] * 3  # an observation that tells clusters apart, and nothing else
    moved = with_rewards(log, np.where(log.cluster == 0, log.reward + 100, log.reward))
    before, after = (reward_model(level, each)[log.cluster == 0] for each in (log, moved))
    np.testing.assert_array_equal(before, after)


def test_the_reward_model_expects_nothing_beyond_what_it_was_fitted_to() -> None:
    rng = np.random.default_rng(5)
    log = clustered(rng, 10)
    state = np.where(log.cluster == 0, 4.0, rng.normal(0, 0.5, len(log)))  # one block is far from all the others
    log = with_rewards(log, 0.5 + np.minimum(state, 1.0))
    seen = log.reward[log.cluster % 5 != 0]
    predicted = reward_model(state[:, None], log)[log.cluster == 0]
    assert predicted.max() <= seen.max() < 1.6


def test_a_history_of_one_action_is_the_self_normalized_estimate() -> None:
    log, _, _ = chain(np.random.default_rng(6))
    target = np.tile([0.5, 0.5, 0, 0, 0, 0], (len(log), 1))
    one, other = partial_history(log, target, 1), snips(log, target)
    assert one.value == other.value
    np.testing.assert_array_equal(one.influence, other.influence)
    assert (one.question, other.question) == (LONG_RUN, ONE_STEP)


def test_one_step_and_long_run_are_two_answers_and_each_estimator_gives_its_own() -> None:
    log, here, _ = chain(np.random.default_rng(7), 400)
    predicted = reward_model(here, log)
    for action in (0, 1):
        target = always(action, len(log))
        for scores in (ips(log, target), snips(log, target), doubly_robust(log, target, predicted)):
            found = estimate(scores, log)
            assert found.low < one_step_value(action) < found.high, found
        found = estimate(partial_history(log, target, 2), log)
        assert found.low < long_run_value(action) < found.high, found
    assert one_step_value(0) < one_step_value(1)
    assert long_run_value(0) > long_run_value(1)


def test_histories_go_through_steps_without_a_reward_and_stop_at_the_border_of_a_sequence() -> None:
    ratio, sequence = np.array([2.0, 3.0, 0.5, 4.0]), np.array([0, 0, 0, 1])
    log = replace(
        clustered(np.random.default_rng(8), 1),
        action=np.zeros(4, np.int64),
        logged=np.stack((0.1 / ratio, 1 - 0.1 / ratio), axis=1),
        reward=np.array([0.1, 0.9, 0.5, 0.7]),
        measured=np.array([True, False, True, True]),
        sequence=sequence,
        cluster=sequence,
    )
    target = np.tile([0.1, 0.9], (4, 1))
    weights, whole = estimators.history_weights(importance(log, target), sequence, 3)
    assert weights[whole].tolist() == pytest.approx([3.0])
    assert whole.tolist() == [False, False, True, False]
    found = partial_history(log, target, 2)
    assert found.evidence.tolist() == [False, False, True, False]
    assert found.value == 0.5


def test_a_reward_that_was_filled_changes_nothing() -> None:
    log, here, _ = chain(np.random.default_rng(9))
    measured = np.random.default_rng(10).random(len(log)) < 0.6
    some = replace(log, measured=measured)
    other = with_rewards(some, np.where(measured, log.reward, 99.0))
    target = always(3, len(log))
    for one in (ips, snips, partial(partial_history, back=2), partial(partial_history, back=3)):
        assert estimate(one(some, target), some) == estimate(one(other, target), other)
    np.testing.assert_array_equal(reward_model(here, some), reward_model(here, other))


# -- intervals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", [ips, snips, partial(partial_history, back=2)], ids=["ips", "snips", "last 2"])
def test_clustered_intervals_hold_the_truth_95_times_of_100_and_intervals_by_step_do_not(one: object) -> None:
    """With as many effective steps as an estimate needs to be trusted."""
    rng = np.random.default_rng(11)
    inside, inside_by_step, rounds = 0, 0, 200
    for _ in range(rounds):
        log = clustered(rng, 90, spread=0.15)
        shuffled = replace(log, cluster=np.arange(len(log)))
        scores = one(log, np.tile([0.0, 0.0, 0.0, 0.0, 0.5, 0.5], (len(log), 1)))  # type: ignore[operator]
        truth = 0.5 + EFFECT[4:].mean()
        found, by_step = estimate(scores, log), estimate(scores, shuffled)
        assert found.trusted
        inside += found.low <= truth <= found.high
        inside_by_step += by_step.low <= truth <= by_step.high
    assert scipy_stats.binomtest(inside, rounds, 0.95).pvalue > 0.001
    assert inside_by_step < inside - 3 * (rounds * 0.05 * 0.95) ** 0.5


def test_a_difference_is_paired() -> None:
    """Levels of clusters are common to both policies, and leave the difference."""
    log = clustered(np.random.default_rng(12), 40, spread=0.2)
    one, other = (snips(log, always(action, len(log))) for action in (5, 0))
    found = estimate(one.minus(other), log)
    alone = estimate(one, log)
    assert found.low < EFFECT[5] - EFFECT[0] < found.high
    assert found.high - found.low < (alone.high - alone.low) / 3
    assert estimate(one.minus(one), log).high == 0


def test_quantiles_of_students_t_are_those_of_others() -> None:
    degrees = np.arange(1, 300)
    ours = [estimators.student_t(int(number)) for number in degrees]
    np.testing.assert_allclose(ours, scipy_stats.t.ppf(0.975, degrees), rtol=2e-3)


# -- trust -----------------------------------------------------------------------------------------------------------


def test_the_logging_policy_itself_has_every_step() -> None:
    log = clustered(np.random.default_rng(13))
    for scores in (ips(log, log.logged), snips(log, log.logged), logged_mean(log)):
        assert scores.effective_size == pytest.approx(len(log))
        assert scores.value == pytest.approx(log.reward.mean())
    assert estimate(logged_mean(log), log).question == AS_LOGGED


def test_an_estimate_of_few_effective_steps_is_not_trusted() -> None:
    log = clustered(np.random.default_rng(14), 30)
    found = estimate(partial_history(log, always(1, len(log)), 3), log)
    assert not found.trusted
    assert found.distrust == (f"effective sample size {found.effective_sample_size:.0f}, below 300",)
    assert estimate(logged_mean(log), log).trusted


def test_an_estimate_of_few_time_blocks_is_not_trusted() -> None:
    log = clustered(np.random.default_rng(15), 9)
    assert estimate(logged_mean(log), log).distrust[-1] == "9 time blocks, below 10"


def test_a_history_shorter_than_the_carry_over_is_not_trusted_for_the_long_run() -> None:
    log, _, _ = chain(np.random.default_rng(16), 300)
    scores = partial_history(log, always(0, len(log)), 2)
    assert estimate(scores, log, carry_over=1).trusted
    assert estimate(scores, log, carry_over=None).trusted
    assert estimate(scores, log, carry_over=2).distrust == (
        "actions have effects 2 steps later, and it looks back 2 actions",
    )
    assert estimate(snips(log, always(0, len(log))), log, carry_over=2).trusted


def test_a_policy_that_does_what_the_log_never_does_is_not_trusted() -> None:
    log = clustered(np.random.default_rng(17), 40)
    logged = np.tile([0.25, 0.25, 0.25, 0.25, 0.0, 0.0], (len(log), 1))
    narrow = replace(log, action=log.action % 4, logged=logged)
    target = np.tile([0.8, 0.0, 0.0, 0.0, 0.2, 0.0], (len(log), 1))
    assert estimate(snips(narrow, target), narrow).distrust == ("20.0% of its actions were impossible in the log",)


def test_an_action_that_was_never_taken_has_no_value() -> None:
    log = clustered(np.random.default_rng(18), 12)
    never = replace(log, action=log.action % 5)
    found = estimate(snips(never, always(5, len(log))), never)
    assert np.isnan(found.value)
    assert found.distrust[0] == "effective sample size 0, below 300"

"""Fitted Q evaluation against a system that can be solved by hand."""

import importlib.util
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.training.logs import BONUS, GOOD, always, chain, with_rewards
from training.estimators import LONG_RUN, Array, Limits, Log

if TYPE_CHECKING:
    from training.fqe import Fitted, Settings

pytestmark = [
    pytest.mark.training,
    pytest.mark.skipif(
        importlib.util.find_spec("torch") is None, reason="torch is not installed; it is in the extra `train`"
    ),
]
GAMMA = 0.9


def discounted(action: int) -> float:
    """The exact answer for the chain: the first state is as logged, all others are as the action leaves them."""
    return float(0.2 + 0.5 * ((1 - GAMMA) * GOOD.mean() + GAMMA * GOOD[action]) + BONUS[action])


def settings(**special: float) -> "Settings":
    from training.fqe import Settings

    return replace(Settings(), **special)


def fitted(log: Log, here: Array, there: Array, action: int, **special: float) -> "Fitted":
    from training.fqe import fitted_q

    target = always(action, len(log))
    return fitted_q(here, there, log, target, target, settings(**special))


def test_it_gives_the_long_run_value_where_one_step_gives_another() -> None:
    log, here, there = chain(np.random.default_rng(1))
    assert settings().gamma == GAMMA
    for action in (0, 1, 4):
        found = fitted(log, here, there, action).estimate(log, Limits(), 1)
        assert found.value == pytest.approx(discounted(action), abs=0.02)
        assert found.low < discounted(action) < found.high
        assert found.high - found.low < 0.08
        assert (found.question, found.trusted) == (LONG_RUN, True)
    assert discounted(0) > discounted(1)


def test_without_a_future_it_gives_the_one_step_value() -> None:
    log, here, there = chain(np.random.default_rng(2))
    found = fitted(log, here, there, 1, gamma=0.0)
    assert found.value == pytest.approx(0.2 + 0.5 * GOOD.mean() + BONUS[1], abs=0.02)


def test_steps_without_a_reward_lead_on_but_their_fill_is_no_reward() -> None:
    """Rewards are seen more often in the good state, so the answer is the mean over the steps that have one."""
    rng = np.random.default_rng(3)
    log, here, there = chain(rng, 100)
    share = np.array([0.3, 0.9])
    some = replace(log, measured=rng.random(len(log)) < share[(here[:, 0] > 0).astype(int)])
    good = (1 - GAMMA) * GOOD.mean() + GAMMA * GOOD[0]
    weight = np.array([1 - good, good]) * share
    found = fitted(some, here, there, 0)
    assert found.value == pytest.approx(float(weight @ [0.2, 0.7]) / weight.sum(), abs=0.02)
    refilled = with_rewards(some, np.where(some.measured, log.reward, 0.123))
    np.testing.assert_array_equal(fitted(refilled, here, there, 0).members, found.members)


def test_the_same_seed_gives_the_same_numbers_and_other_threads_are_left_alone() -> None:
    import torch

    log, here, there = chain(np.random.default_rng(4), 20, 60)
    threads = torch.get_num_threads()
    one, again, other = (fitted(log, here, there, 2, updates=40, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.members, again.members)
    assert not np.array_equal(one.members, other.members)
    assert torch.get_num_threads() == threads


def test_two_policies_are_paired_member_by_member() -> None:
    rng = np.random.default_rng(5)
    log, here, there = chain(rng)
    log = with_rewards(log, log.reward + rng.normal(0, 0.3, 60)[log.sequence])
    one, other = (fitted(log, here, there, action) for action in (0, 1))
    difference = one.minus(other).estimate(log, Limits(), None)
    apart = np.var(one.members, ddof=1) + np.var(other.members, ddof=1)
    assert difference.low < discounted(0) - discounted(1) < difference.high
    assert np.var(one.minus(other).members, ddof=1) < apart / 2


def test_a_fit_that_ran_away_and_one_on_few_steps_are_not_trusted() -> None:
    log, here, there = chain(np.random.default_rng(6), 20, 60)
    found = fitted(log, here, there, 0, updates=20)
    few = found.estimate(log, Limits(), None)
    assert few.distrust == (f"effective sample size {few.effective_sample_size:.0f}, below 300",)
    away = replace(found, beyond=True, effective_size=1000.0).estimate(log, Limits(), None)
    assert away.distrust == ("the fit left the range of the logged rewards",)

"""The reward of a run that goes on says what the exporter will say, as far as both know the same."""

from dataclasses import replace

import numpy as np
import pytest

from rl_hooks.decision import SERVICES
from rl_hooks.export.align import cohorts, observe, tally, timeline
from rl_hooks.export.rewards import REWARDS, components, weighted_sum
from rl_hooks.reward_so_far import RewardSoFar
from rl_hooks.row import MISSING_U32
from tests import builders

PLAN = builders.plan()


@pytest.fixture(scope="module")
def run() -> builders.Run:
    return builders.random_run(planned=PLAN)


def exported(run: builders.Run, settled: int) -> np.ndarray:
    """The exporter's rewards without load balance, of the decisions below a tick: (ticks, services)."""
    line = timeline(run, PLAN)
    found = tally(run, PLAN, line, exact_quantiles=False)
    sample_ns = observe(run, PLAN, line, found).sample_ns
    table = components(cohorts(run, PLAN, line, found.sent, sample_ns))
    table[:, list(REWARDS).index("load_balance")] = np.nan
    return weighted_sum(table, PLAN.scenario.reward_weights).reshape(len(SERVICES), -1).T[:settled]


def settled_at(run_time_s: float) -> int:
    return int((run_time_s - PLAN.request_timeout_s) // PLAN.decision_interval_s) - 1


def test_it_is_the_exporters_mean_over_the_settled_decisions(run: builders.Run) -> None:
    reward = RewardSoFar(PLAN)
    for rows in np.array_split(run.requests, 7):
        reward.fold(rows)
    reward.settle(150.0)
    expected = exported(run, settled_at(150.0))
    assert reward.decisions == np.count_nonzero(~np.isnan(expected)) > 100
    assert reward.mean() == pytest.approx(np.nanmean(expected), rel=1e-6)
    assert [reward.mean_of(service) for service in range(len(SERVICES))] == pytest.approx(
        np.nanmean(expected, axis=0).tolist(), rel=1e-6
    )


def test_settling_often_or_once_and_rows_in_any_order_make_no_difference(run: builders.Run) -> None:
    often, once = RewardSoFar(PLAN), RewardSoFar(PLAN)
    once.fold(np.random.default_rng(3).permutation(run.requests))
    once.settle(200.0)
    ends_s = (run.requests["start_ns"] - builders.START_NS) / 1e9 + run.requests["duration_us"] / 1e6
    for second in range(201):
        often.fold(run.requests[(ends_s >= second - 1) & (ends_s < second)])
        often.settle(float(second))
    assert often.late == 0
    assert (often.mean(), often.decisions) == (pytest.approx(once.mean()), once.decisions)


def test_rows_of_a_settled_decision_are_late_and_change_nothing(run: builders.Run) -> None:
    reward = RewardSoFar(PLAN)
    reward.fold(run.requests)
    reward.settle(100.0)
    before = reward.mean()
    reward.fold(run.requests[run.requests["decision_tick"] == 0])
    reward.settle(101.0)
    assert reward.late == np.count_nonzero(run.requests["decision_tick"] == 0) > 0
    assert reward.mean() == before


def test_without_a_settled_decision_there_is_no_reward() -> None:
    reward = RewardSoFar(PLAN)
    rows = builders.rows("requests", {"decision_tick": [MISSING_U32, 3], "service": [0, 1]})
    reward.fold(rows)
    reward.settle(0.0)
    assert (reward.mean(), reward.mean_of(1), reward.decisions) == (None, None, 0)


def test_traffic_that_no_plan_made_is_judged_without_throughput(run: builders.Run) -> None:
    served, planned = RewardSoFar(replace(PLAN, max_users_per_profile={})), RewardSoFar(PLAN)
    for reward in (served, planned):
        reward.fold(run.requests)
        reward.settle(150.0)
    assert served.decisions == planned.decisions
    assert served.mean() != planned.mean()


def test_rewards_of_ones_own_are_left_out_and_named(run: builders.Run) -> None:
    """The other components share their weight, so halving these changes nothing."""
    own = {name: weight / 2 for name, weight in PLAN.scenario.reward_weights.items()} | {"mine": 0.5, "shown": 0.0}
    scenario = replace(PLAN.scenario, reward_weights=own, rewards={"mine": "no_such:mine", "shown": "no_such:shown"})
    with_own, plain = RewardSoFar(replace(PLAN, scenario=scenario)), RewardSoFar(PLAN)
    for reward in (with_own, plain):
        reward.fold(run.requests)
        reward.settle(150.0)
    assert with_own.decisions == plain.decisions > 100
    assert with_own.mean() == pytest.approx(plain.mean())
    assert (with_own.without, plain.without) == (("load_balance", "mine"), ("load_balance",))

"""The rewards: the examples in their docstrings, their limits, and all of them against the definition."""

import doctest
import math
from typing import Any

import numpy as np
import pytest

from rl_hooks.decision import SERVICES
from rl_hooks.export import align, episodes, rewards, steps
from rl_hooks.export.rewards import REWARDS, one_cohort
from tests import builders
from tests.rl_hooks.oracle import reward_components

WEIGHTS = {"response_time": 0.3, "error_rate": 0.3, "throughput": 0.1, "load_balance": 0.1, "user_satisfaction": 0.2}


@pytest.mark.parametrize("name", REWARDS)
def test_every_reward_explains_itself_with_a_number(name: str) -> None:
    examples = doctest.DocTestFinder().find(REWARDS[name], globs=vars(rewards))
    assert sum(len(example.examples) for example in examples) > 0
    for example in examples:
        assert doctest.DocTestRunner().run(example).failed == 0


@pytest.mark.parametrize("module", [rewards, episodes])
def test_the_examples_in_the_text_are_true(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_rewards_of_a_run_are_those_of_the_definition() -> None:
    run = builders.random_run(count=2000, missing=0.2)
    planned = builders.plan()
    found = steps.build(run, planned, exact_quantiles=False)
    for index, row in found.frame.iterrows():
        service, t_ns = int(row["service_index"]), int(row["t_unix_ns"])
        requests = run.requests[
            (run.requests["service"] == service)
            & (run.requests["start_ns"] >= t_ns)
            & (run.requests["start_ns"] < row["next_unix_ns"])
        ]
        names = ("duration_us", "ok", "instance_ref")
        cohort = [{name: request[name].item() for name in names} for request in requests]
        last = run.samples[(run.samples["service"] == service) & (run.samples["t_ns"] == row["sample_unix_ns"])]
        capacity = {one["instance_ref"].item(): one["capacity"].item() for one in last if one["up"]}
        middle_s = (t_ns + (row["next_unix_ns"] - t_ns) // 2 - builders.START_NS) / 1e9
        expected_rps = planned.expected_service_rps_at(middle_s)[SERVICES[service]]
        wanted = reward_components(cohort, planned.slo_ms[SERVICES[service]], 2 * expected_rps, capacity)
        for name, value in wanted.items():
            assert row[f"reward_{name}"] == pytest.approx(value, nan_ok=True), (index, name)
        present = {name: weight for name, weight in WEIGHTS.items() if not math.isnan(wanted[name])}
        total = sum(weight * wanted[name] for name, weight in present.items()) / (sum(present.values()) or math.nan)
        assert row["reward"] == pytest.approx(total, nan_ok=True)
        assert row["n_requests"] == len(cohort)


def test_a_cohort_is_what_was_sent_whenever_it_ends() -> None:
    planned = builders.plan()
    decided = builders.decisions(planned, np.random.default_rng(1))
    slow = {"start_ns": builders.at(10.5), "duration_us": 3_000_000, "service": 1, "ok": 1}
    quick = {"start_ns": builders.at(12.5), "duration_us": 1_000, "service": 1, "ok": 1}
    run = builders.run(planned, decisions=decided, requests=builders.rows("requests", [slow, quick]))
    frame = steps.build(run, planned, exact_quantiles=False).frame.query("service_index == 1").set_index("t_s")
    assert frame.loc[10.0, "n_requests"] == frame.loc[12.0, "n_requests"] == 1
    assert frame.loc[10.0, "reward_response_time"] == 0.0  # 3 s against an SLO of 250 ms
    assert frame.loc[12.0, "reward_response_time"] == pytest.approx(1 - 1 / 250 / 2)


def test_a_failure_is_worse_than_any_success_and_being_fast_does_not_help() -> None:
    assert rewards.response_time(one_cohort([], failed=3)).item() == 0.0
    assert rewards.response_time(one_cohort([1e6])).item() == 0.0
    assert rewards.user_satisfaction(one_cohort([], failed=3)).item() == 0.0


def test_apdex_counts_up_to_the_slo_fully_and_up_to_four_slos_half() -> None:
    assert rewards.user_satisfaction(one_cohort([100, 100.1, 400, 400.1], slo_ms=100)).item() == 0.5


def test_throughput_is_missing_where_nobody_knows_what_to_expect() -> None:
    assert np.isnan(rewards.throughput(one_cohort([1.0] * 9, expected=np.nan)).item())


def test_throughput_is_full_where_nothing_is_expected_and_never_above_one() -> None:
    assert rewards.throughput(one_cohort([1.0], expected=0)).item() == 1.0
    assert rewards.throughput(one_cohort([1.0] * 9, expected=2)).item() == 1.0


def test_load_balance_is_missing_below_one_request_per_instance() -> None:
    assert np.isnan(rewards.load_balance(one_cohort([1, 1], instance_requests=[1, 1, 0])))
    assert rewards.load_balance(one_cohort([1, 1, 1], instance_requests=[3, 0, 0])).item() == pytest.approx(1 / 3)
    assert rewards.load_balance(one_cohort([1], instance_requests=[1])).item() == 1.0


def test_an_instance_that_is_down_is_not_counted() -> None:
    down = [1.0, 1.0, np.nan]
    assert rewards.load_balance(one_cohort([1] * 4, instance_requests=[2, 2, 0], instance_capacity=down)).item() == 1.0


def test_nothing_finished_means_no_component_at_all() -> None:
    assert np.isnan(rewards.components(one_cohort([]))).all()
    assert np.isnan(rewards.weighted_sum(rewards.components(one_cohort([])), WEIGHTS)).all()


def test_the_sum_stays_between_0_and_1_and_uses_all_weights() -> None:
    table = np.random.default_rng(1).random((500, len(REWARDS)))
    weight = np.array([WEIGHTS[name] for name in REWARDS])
    np.testing.assert_allclose(rewards.weighted_sum(table, WEIGHTS), table @ weight, rtol=1e-12)
    table[:, list(REWARDS).index("load_balance")] = np.nan
    others = np.array([weight[i] for i, name in enumerate(REWARDS) if name != "load_balance"])
    rest = np.delete(table, list(REWARDS).index("load_balance"), axis=1)
    np.testing.assert_allclose(rewards.weighted_sum(table, WEIGHTS), rest @ others / 0.9, rtol=1e-12)


def test_the_hash_of_the_weights_changes_with_a_weight_and_not_with_their_order() -> None:
    assert rewards.weights_sha256(WEIGHTS) == rewards.weights_sha256(dict(reversed(WEIGHTS.items())))
    assert rewards.weights_sha256(WEIGHTS) != rewards.weights_sha256({**WEIGHTS, "throughput": 0.2})


def test_without_samples_every_instance_that_is_named_counts() -> None:
    planned = builders.plan()
    decided = builders.decisions(planned, np.random.default_rng(1))
    facts = [
        {"start_ns": builders.at(t), "service": 1, "instance_ref": ref} for t, ref in ((10.1, 4), (10.2, 4), (20.1, 5))
    ]
    run = builders.run(planned, decisions=decided, requests=builders.rows("requests", facts))
    frame = steps.build(run, planned, exact_quantiles=False).frame.query("service_index == 1").set_index("t_s")
    assert frame.loc[10.0, "reward_load_balance"] == 0.5  # both on one of two
    assert np.isnan(frame.loc[20.0, "reward_load_balance"])  # one request for two instances


def test_the_expected_requests_are_those_of_the_middle_of_the_interval() -> None:
    planned = builders.plan()
    run = builders.run(planned, decisions=builders.decisions(planned, np.random.default_rng(1)))
    line = align.timeline(run, planned)
    found = align.tally(run, planned, line, exact_quantiles=False)
    expected = align.cohorts(run, planned, line, found.sent, np.zeros(len(line.t_ns), np.int64)).expected
    inventory = line.service == 1
    at_start, later = expected[inventory][0], expected[inventory][30]
    assert at_start == pytest.approx(2 * planned.expected_service_rps_at(1.0)["inventory-service"])
    assert 0 < at_start < later  # users are still coming


def test_the_plan_start_comes_from_an_event_that_has_both_clocks() -> None:
    events = [{"t_ns": builders.at(5.0), "kind": "users", "run_time_s": 3.0, "counts": {}}]
    assert align.plan_start_ns(builders.run(events=events)) == builders.at(2.0)
    assert align.plan_start_ns(builders.run(events=[])) == builders.START_NS - 10**9

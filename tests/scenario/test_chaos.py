"""Chaos around a plan: what is drawn, that it stays in its bounds, and that the plan follows it."""

from collections.abc import Callable

import pytest

from scenario import chaos
from scenario.load import find_file, load_file
from scenario.model import PACE
from scenario.plan import Plan, make_plan
from tests.scenario.files import Tree, load, phase, tree

CHAOS = {"user_variance": 0.3, "think_time_variance": 0.5, "action_randomness": 0.2, "change_every_seconds": 60}


def plan_of(change: Callable[[Tree], object] = lambda whole: None, seed: int = 1, time_scale: float = 1.0) -> Plan:
    """`day` with a morning of 10 minutes and 10 users in 10 stretches of a minute, and an evening without chaos."""
    whole = tree()
    phase(whole)["chaos_parameters"] = dict(CHAOS)
    change(whole)
    return make_plan(load(whole).scenario(), seed=seed, time_scale=time_scale)


def test_the_drawing_of_the_docstring() -> None:
    waves = load_file(find_file("stress_test_rl_config.yaml")).scenario("mixed_load_chaos")
    first = [one for one in make_plan(waves).segments if one.name == "chaos_wave_one"]
    assert [one.start_s for one in first] == [120.0 * index for index in range(10)]
    assert all(56 <= one.users <= 104 for one in first)
    assert min(one.users for one in first) < 62  # each tenth of the range is visited once
    assert max(one.users for one in first) > 98


@pytest.mark.parametrize("seed", range(40))
def test_users_pace_and_weights_stay_within_their_bounds_and_near_the_plan_on_average(seed: int) -> None:
    plan = plan_of(lambda whole: phase(whole).update(concurrent_users=100) or base(whole), seed)
    morning, nominal = [one for one in plan.segments if one.name == "morning"], plan.phases[0]
    assert all(70 <= one.users <= 130 for one in morning)
    assert all(0.5 * PACE["medium"] <= one.pace <= 1.5 * PACE["medium"] for one in morning)
    # One from each tenth of [-1, 1]: the mean is off by less than a tenth of the variance, and half a user of rounding.
    assert abs(sum(one.users for one in morning) / 10 - 100) <= 0.3 * 100 / 10 + 0.5
    assert abs(sum(one.pace for one in morning) / 10 - 1) <= 0.5 / 10
    for one in morning:
        assert sum(one.mix.values()) == one.users
        assert sum(one.weights.values()) == pytest.approx(sum(nominal.weights.values()))
        for action, weight in nominal.weights.items():
            assert one.weights[action] >= 0.8 * weight - 1e-9
    assert len({tuple(one.weights.values()) for one in morning}) == 10


def base(whole: Tree) -> None:
    whole["rl_training_scenarios"]["base_config"].update(max_concurrent_users=200, total_users=200)


def test_the_seed_decides_and_nothing_else() -> None:
    assert plan_of(seed=3) == plan_of(seed=3)
    assert plan_of(seed=3).segments != plan_of(seed=4).segments
    slow, fast = plan_of(seed=3), plan_of(seed=3, time_scale=10)
    assert [one.mix for one in slow.segments] == [one.mix for one in fast.segments]
    longer = plan_of(lambda whole: phase(whole, 1).update(chaos_parameters=dict(CHAOS)), seed=3)
    assert longer.segments[:10] == plan_of(seed=3).segments[:10]  # one phase's draws do not move another's


def test_a_phase_without_chaos_is_one_segment_as_the_file_says() -> None:
    plan = plan_of()
    (evening,) = [one for one in plan.segments if one.name == "evening"]
    assert (evening.start_s, evening.duration_s) == (600, 600)
    assert (evening.mix, evening.users, evening.pace) == (plan.phases[1].mix, 10, 1)
    assert evening.weights == plan.phases[1].weights


def test_each_variance_moves_only_what_it_is_about() -> None:
    users = plan_of(lambda whole: phase(whole).update(chaos_parameters={"user_variance": 0.3})).segments
    assert len({one.users for one in users}) > 2
    assert ({one.pace for one in users}, len({tuple(one.weights.items()) for one in users})) == ({1.0}, 1)
    pace = plan_of(lambda whole: phase(whole).update(chaos_parameters={"think_time_variance": 0.3})).segments
    assert (len({one.pace for one in pace[:-1]}), {one.users for one in pace}) == (5, {10})


def test_users_are_on_the_way_for_a_ramp_and_then_exactly_the_mix() -> None:
    plan = plan_of()
    for one, before in zip(plan.segments[1:], plan.segments, strict=False):
        assert plan.mix_at(one.start_s) == before.mix
        assert plan.in_ramp(one.start_s + 29.9)
        assert not plan.in_ramp(one.start_s + 30)
        assert plan.mix_at(one.start_s + 30) == plan.mix_at(one.start_s + one.duration_s - 0.1) == one.mix
    assert max(sum(plan.mix_at(t / 10).values()) for t in range(6000)) <= chaos.most_users(10, 0.3)


def test_expected_requests_follow_the_segments() -> None:
    plan = plan_of()
    morning = plan.phases[0]
    at = [sum(plan.expected_service_rps_at(one.start_s + 45).values()) for one in plan.segments[:10]]
    assert max(at) > 1.5 * min(at)
    assert sum(plan.expected_service_rps(morning).values()) == pytest.approx(sum(at) / 10)


def test_a_plan_with_chaos_and_faults_is_read_back_as_it_was_written() -> None:
    plan = plan_of(
        lambda whole: phase(whole).update(
            simulated_conditions={"cart": {"crash": True, "instances": ["cart-service-1"]}}, target_products=["MUG-1"]
        )
    )
    assert Plan.from_json(plan.to_json()) == plan


def test_faults_are_planned_in_real_seconds_from_the_start_of_the_run() -> None:
    timeline = [{"minute": 4, "duration_minutes": 3, "service": "cart", "latency_factor": 5}]

    def change(whole: Tree) -> None:
        phase(whole, 1).update(failure_timeline=timeline, simulated_conditions={"order": {"error_rate": 0.2}})

    plan = plan_of(change, time_scale=10)
    assert [(fault.index, fault.phase, fault.text, fault.start_s, fault.end_s) for fault in plan.faults] == [
        (0, "evening", "order-service errors 0.2", 60, 120),
        (1, "evening", "cart-service latency 5", 84, 102),
    ]
    assert [fault.index for fault in plan.faults_at(90)] == [0, 1]
    assert [fault.index for fault in plan.faults_at(102)] == [0]
    assert (plan.faults_at(59.9), plan.faults_at(120)) == ((), ())


def test_faults_can_be_left_out_and_the_plan_says_so() -> None:
    whole = tree()
    phase(whole)["simulated_conditions"] = {"cart": {"crash": True}}
    scenario = load(whole).scenario()
    assert (make_plan(scenario).without_faults, len(make_plan(scenario).faults)) == (False, 1)
    left_out = make_plan(scenario, faults=False)
    assert (left_out.without_faults, left_out.faults) == (True, ())
    assert "  left out on request (--no-faults); the data says so" in left_out.describe()
    assert not make_plan(load(tree()).scenario(), faults=False).without_faults  # there is nothing to leave out


def test_a_plan_warns_of_what_contradicts_it() -> None:
    def change(whole: Tree) -> None:
        phase(whole).update(
            intensity="variable",
            chaos_parameters=dict(CHAOS),
            service_load_characteristics={"order": "high", "cart": "low"},
        )
        phase(whole, 1).update(intensity="variable", simulated_conditions={"cart": {"crash": True}})

    lines = plan_of(change).describe()
    warnings = lines[lines.index("Warnings") :]
    rates = plan_of(change).expected_service_rps(plan_of(change).phases[0])
    assert (
        "  morning: order-service is expected to have high load and cart-service low, but the plan sends "
        f"{rates['order-service']:.1f} and {rates['cart-service']:.1f} requests/s"
    ) in warnings
    assert "  evening: intensity variable without chaos_parameters is paced like medium" in warnings
    assert (
        "  evening: cart-service crash lasts until the end of the scenario, so its recovery is not in the data"
    ) in warnings
    assert not any("morning: intensity" in line for line in warnings)


def test_an_extreme_phase_is_more_than_a_system_for_the_scenario_is_made_for() -> None:
    calm = plan_of(lambda whole: phase(whole).pop("chaos_parameters"))
    extreme = plan_of(lambda whole: phase(whole).update(intensity="extreme") or phase(whole).pop("chaos_parameters"))
    assert dict(calm.design_rps()) == pytest.approx(dict(calm.expected_rps(calm.phases[0])), rel=1e-9)
    burst = extreme.expected_rps(extreme.phases[0])
    assert sum(burst.values()) == pytest.approx(1.4 * sum(extreme.design_rps().values()))

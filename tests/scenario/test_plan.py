"""A plan answers "at t": laws for every t, exact numbers of the shipped scenario, and a complete round trip."""

import itertools
import json
import math
from dataclasses import replace
from random import Random

import pytest

from scenario.errors import ScenarioError
from scenario.load import CONFIGS, load_file
from scenario.model import SERVICES
from scenario.plan import Plan, make_plan
from tests.scenario.files import load, phase, tree

COMPREHENSIVE = load_file(CONFIGS / "comprehensive_rl_training_config.yaml").scenario()
QUICK = load_file(CONFIGS / "quick_validation_config.yaml").scenario()


def plan_of(change=lambda whole: None, **arguments):
    whole = tree()
    change(whole)
    return make_plan(load(whole).scenario(), **arguments)


def random_times(plan, count, seed=0):
    random = Random(seed)
    edges = [
        edge + shift for p in plan.phases for edge in (p.start_s, p.start_s + plan.ramp_s) for shift in (-1e-6, 0, 1e-6)
    ]
    return [*edges, plan.duration_s, *(random.uniform(-1, plan.duration_s + 1) for _ in range(count))]


PLANS = [
    make_plan(COMPREHENSIVE),
    make_plan(COMPREHENSIVE, time_scale=45, user_scale=0.4),
    make_plan(COMPREHENSIVE, time_scale=7.3, user_scale=0.03),
    make_plan(COMPREHENSIVE, user_scale=9.7),
    make_plan(QUICK, time_scale=15),
]


def test_the_six_phases_have_the_exact_users_of_the_specification():
    plan = make_plan(COMPREHENSIVE)
    mixes = [(p.name, p.users, *p.mix.values()) for p in plan.phases]
    assert list(plan.phases[0].mix) == ["quick_browser", "careful_shopper", "bulk_buyer", "impulse_buyer"]
    assert mixes == [
        ("morning_peak_rush", 80, 32, 20, 12, 16),
        ("steady_browsing_period", 45, 27, 14, 2, 2),
        ("lunch_hour_shopping", 70, 21, 14, 7, 28),
        ("afternoon_steady_state", 35, 16, 14, 3, 2),
        ("evening_purchase_surge", 100, 20, 30, 25, 25),
        ("late_night_wind_down", 20, 10, 6, 3, 1),
    ]
    assert [(p.start_s / 60, p.end_s / 60) for p in plan.phases] == [
        (0, 25),
        (25, 60),
        (60, 80),
        (80, 120),
        (120, 150),
        (150, 180),
    ]
    assert (plan.duration_s, plan.decision_interval_s, plan.accounts) == (10800, 2, 500)
    assert plan.max_users_per_profile == {
        "quick_browser": 32,
        "careful_shopper": 30,
        "bulk_buyer": 25,
        "impulse_buyer": 28,
    }


@pytest.mark.parametrize("plan", PLANS)
def test_at_every_t_the_mix_is_the_phases_outside_of_ramps_and_between_two_in_them(plan):
    nobody = dict.fromkeys(plan.max_users_per_profile, 0)
    for t_s in random_times(plan, 2000):
        mix, now = plan.mix_at(t_s), plan.phase_at(t_s)
        assert set(mix) == set(nobody)
        if not 0 <= t_s < plan.duration_s:
            assert (now, mix, plan.in_ramp(t_s)) == (None, nobody, False)
            continue
        assert now.start_s <= t_s
        assert now.index == len(plan.phases) - 1 or t_s < plan.phases[now.index + 1].start_s
        assert sum(now.mix.values()) == now.users
        before = plan.phases[now.index - 1].mix if now.index else nobody
        assert plan.in_ramp(t_s) == (t_s - now.start_s < plan.ramp_s)
        if plan.in_ramp(t_s):
            assert all(
                min(before[name], now.mix[name]) <= mix[name] <= max(before[name], now.mix[name]) for name in mix
            )
            line = sum(before.values()) + (now.users - sum(before.values())) * (t_s - now.start_s) / plan.ramp_s
            assert abs(sum(mix.values()) - line) <= 0.5 + 1e-6
        else:
            assert mix == now.mix


@pytest.mark.parametrize("plan", PLANS)
def test_during_a_ramp_no_profile_goes_back_and_every_mix_is_reached(plan):
    for p in plan.phases:
        steps = [plan.mix_at(p.start_s + plan.ramp_s * step / 300) for step in range(301)]
        before = plan.phases[p.index - 1].mix if p.index else dict.fromkeys(p.mix, 0)
        assert steps[0] == before
        assert steps[-1] == p.mix
        for earlier, later in itertools.pairwise(steps):
            assert all((later[name] - earlier[name]) * (p.mix[name] - before[name]) >= 0 for name in p.mix)


@pytest.mark.parametrize("plan", PLANS)
def test_every_profile_with_a_share_has_a_user(plan):
    for p, nominal in zip(plan.phases, plan.scenario.phases, strict=True):
        assert all(p.mix[name] >= 1 for name, share in nominal.distribution.items() if share > 0)


def test_the_drawing_of_the_docstring():
    def two_phases(whole):
        phase(whole, 0)["concurrent_users"] = 20
        phase(whole, 1)["concurrent_users"] = 10

    plan = plan_of(two_phases, time_scale=2)
    (first, second), ramp_s = plan.phases, plan.ramp_s
    totals = {t_s: sum(plan.mix_at(t_s).values()) for t_s in (0, ramp_s / 2, ramp_s, second.start_s - 0.01)}
    assert list(totals.values()) == [0, 10, 20, 20]
    assert sum(plan.mix_at(second.start_s).values()) == 20
    assert sum(plan.mix_at(second.start_s + ramp_s / 2).values()) == 15
    assert sum(plan.mix_at(second.start_s + ramp_s).values()) == 10
    assert plan.phase_at(first.end_s) == second
    assert plan.phase_at(plan.duration_s) is None


def test_without_a_ramp_the_mix_is_there_at_once():
    plan = plan_of(lambda whole: whole["rl_training_scenarios"]["base_config"].update(ramp_seconds=0))
    assert plan.mix_at(0) == plan.phases[0].mix
    assert not plan.in_ramp(0)


def test_the_time_scale_divides_everything_but_dynamics_stop_at_ten():
    real, fast, faster = (make_plan(COMPREHENSIVE, time_scale=scale) for scale in (1, 10, 40))
    for plan, scale, dynamics in ((real, 1, 1), (fast, 10, 10), (faster, 40, 10)):
        assert plan.duration_s == pytest.approx(10800 / scale)
        assert (plan.window_s, plan.episode_s, plan.ramp_s) == (60 / scale, 300 / scale, 30 / scale)
        assert plan.dynamics_scale == dynamics
        assert (plan.request_timeout_s, plan.retry_delay_s) == (10 / dynamics, 0.5 / dynamics)
        assert plan.slo_ms == {
            service: slo / dynamics for service, slo in zip(SERVICES, (250, 250, 300, 500, 600), strict=True)
        }
    assert [plan.decision_interval_s for plan in (real, fast, faster)] == [2, 0.2, 0.2]
    assert faster.decision_interval_asked_s == 0.05
    assert [plan.compressed for plan in (real, fast, faster)] == [False, False, True]


def test_a_decision_interval_is_nominal_and_raised():
    assert make_plan(COMPREHENSIVE, time_scale=4, decision_interval_s=10).decision_interval_s == 2.5
    assert make_plan(COMPREHENSIVE, time_scale=4, decision_interval_s=0.1).decision_interval_s == 0.2


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, -math.inf, 1e-9, 1e9])
@pytest.mark.parametrize("name", ["time_scale", "user_scale", "decision_interval"])
def test_numbers_that_make_no_plan(bad, name):
    argument = "decision_interval_s" if name == "decision_interval" else name
    with pytest.raises(ScenarioError) as caught:
        make_plan(COMPREHENSIVE, **{argument: bad})
    shown = f"{bad:.10g}"
    assert str(caught.value) == (
        f"plan: 1 problem\n  {name}: {shown} is not a number between 0.000001 and 1000000. Give one such as 1 or 0.5."
    )


def test_all_bad_numbers_are_told_at_once():
    with pytest.raises(ScenarioError) as caught:
        make_plan(COMPREHENSIVE, time_scale=0, user_scale=-1, decision_interval_s=0)
    assert [problem.place for problem in caught.value.problems] == ["time_scale", "user_scale", "decision_interval"]


def test_a_phase_without_a_decision_of_its_own_makes_no_plan():
    with pytest.raises(ScenarioError) as caught:
        plan_of(time_scale=6000)
    assert str(caught.value) == (
        "plan: 1 problem\n  decision_interval: 0.2 s of real time is longer than the phase morning, 0.1 s at time "
        "scale 6000. Choose a smaller time scale or a shorter interval, so that every phase has a decision of its own."
    )


def test_few_users_are_raised_to_one_for_every_profile_and_it_is_said():
    plan = make_plan(COMPREHENSIVE, user_scale=0.01)
    assert [p.users for p in plan.phases] == [4] * 6
    assert [p.users_asked for p in plan.phases] == [1, 0, 1, 0, 1, 0]
    assert "  morning_peak_rush: users raised from 1 to 4, one for every profile with a share" in plan.describe()


def test_more_users_than_accounts_get_accounts_and_it_is_said():
    plan = plan_of(user_scale=6)
    assert (plan.phases[0].users, plan.accounts) == (60, 300)
    lines = plan.describe()
    assert "  total_users 50 raised to 300, as many as the users need" in lines
    assert "  60 users at once, above max_concurrent_users 20" in lines


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_goes_through_json_and_comes_back_equal(plan):
    back = Plan.from_json(json.loads(json.dumps(plan.to_json(), allow_nan=False)))
    assert back == plan
    assert back.to_json() == plan.to_json()
    assert back.describe() == plan.describe()
    with pytest.raises(TypeError):
        back.phases[0].mix["quick_browser"] = 1
    with pytest.raises(TypeError):
        back.scenario.profiles["quick_browser"].user_actions["browse"] = 1


def test_equal_inputs_make_equal_plans_and_others_do_not():
    assert make_plan(COMPREHENSIVE, seed=3) == make_plan(COMPREHENSIVE, seed=3)
    assert make_plan(COMPREHENSIVE, seed=3) != make_plan(COMPREHENSIVE, seed=4)


def test_a_damaged_plan_says_where():
    data = make_plan(QUICK).to_json()
    data["phases"][1]["users"] = "many"
    del data["seed"]
    with pytest.raises(ScenarioError) as caught:
        Plan.from_json(data)
    lines = str(caught.value).splitlines()
    assert lines[0] == "plan: 2 problems"
    assert lines[1].startswith("  seed: cannot be read back (") and lines[1].endswith(
        "). Use the plan as it was written."
    )
    assert lines[2].startswith("  phases.1.users: cannot be read back (")


def test_expected_requests_have_the_size_the_specification_gives():
    morning = replace(COMPREHENSIVE.phases[0], intensity="medium")
    medium = make_plan(replace(COMPREHENSIVE, phases=(morning,)))
    hurried = make_plan(replace(COMPREHENSIVE, phases=(COMPREHENSIVE.phases[0],)))
    at_medium = medium.expected_service_rps(medium.phases[0])
    at_very_high = hurried.expected_service_rps(hurried.phases[0])
    # By hand: page visits/s of one user are 30/210, 65/840, 75/1050, 32.5/330; times 32, 20, 12, 16 users: 8.55/s.
    page_visits = medium.expected_rps(medium.phases[0])["cart-service GET /api/cart/summary"]
    assert page_visits == pytest.approx(32 * 30 / 210 + 20 * 65 / 840 + 12 * 75 / 1050 + 16 * 32.5 / 330)
    assert 20 < sum(at_medium.values()) < 23
    assert 41 < sum(at_very_high.values()) < 45
    assert max(at_medium, key=at_medium.__getitem__) == "inventory-service"
    assert list(at_medium) == list(SERVICES)


def test_expected_requests_are_real_time_and_follow_the_users():
    slow, fast = make_plan(COMPREHENSIVE), make_plan(COMPREHENSIVE, time_scale=8)
    for before, after in zip(slow.phases, fast.phases, strict=True):
        for service, rate in slow.expected_service_rps(before).items():
            assert fast.expected_service_rps(after)[service] == pytest.approx(8 * rate)
    inside = slow.phases[1].start_s + slow.ramp_s
    assert slow.expected_service_rps_at(inside) == slow.expected_service_rps(slow.phases[1])
    assert set(slow.expected_service_rps_at(0).values()) == {0.0}
    assert set(slow.expected_service_rps_at(-1).values()) == set(slow.expected_service_rps_at(10800).values()) == {0.0}
    assert 0 < sum(slow.expected_service_rps_at(10).values()) < sum(slow.expected_service_rps_at(30).values())


def test_a_profile_that_leaves_is_expected_to_send_requests_until_it_is_gone():
    plan = plan_of(lambda whole: phase(whole, 1).update(user_behavior_distribution={"browser": 1.0}))
    start_s = plan.phases[1].start_s
    rates = [sum(plan.expected_service_rps_at(start_s + plan.ramp_s * step / 10).values()) for step in range(11)]
    both_profiles_are_alike = sum(plan.expected_service_rps(plan.phases[1]).values())
    assert rates == pytest.approx([both_profiles_are_alike] * 11, rel=0.1)


def test_services_add_up_to_endpoints():
    plan = make_plan(COMPREHENSIVE)
    for p in plan.phases:
        assert sum(plan.expected_rps(p).values()) == pytest.approx(sum(plan.expected_service_rps(p).values()))


def test_accounts_are_registered_once():
    plan = make_plan(COMPREHENSIVE)
    registered = sum(plan.expected_rps(p)["user-service POST /api/users/register"] * p.duration_s for p in plan.phases)
    assert registered == pytest.approx(plan.accounts)
    few = make_plan(replace(COMPREHENSIVE, total_users=10**6))
    for p in few.phases:
        rates = few.expected_rps(p)
        assert rates["user-service POST /api/users/register"] == pytest.approx(
            rates["user-service POST /api/users/login"]
        )


STRESS = load_file(CONFIGS / "stress_test_rl_config.yaml")


@pytest.mark.parametrize(
    ("name", "minutes", "users", "intensities"),
    [
        ("flash_sale_simulation", [5, 15], [250, 100], ["extreme", "high"]),
        ("service_degradation_simulation", [15] * 4, [50] * 4, ["medium"] * 4),
        ("mixed_load_chaos", [20] * 3, [80, 120, 60], ["variable"] * 3),
        ("service_failure_cascade", [60, 30], [60, 60], ["medium"] * 2),
    ],
)
def test_the_stress_scenarios_have_the_numbers_of_the_specification(name, minutes, users, intensities):
    phases = STRESS.scenario(name).phases
    assert [phase.duration_min for phase in phases] == minutes
    assert [phase.users for phase in phases] == users
    assert [phase.intensity for phase in phases] == intensities


def test_the_faults_of_the_stress_scenarios_are_those_of_the_specification():
    def planned(name):
        return [(f.text, f.start_s / 60, f.end_s / 60) for f in make_plan(STRESS.scenario(name)).faults]

    assert planned("service_degradation_simulation") == [
        ("inventory-service latency 5", 15, 30),
        ("inventory-service errors 0.2", 15, 30),
        ("cart-service errors 0.3", 30, 45),
        ("cart-service timeouts 0.15", 30, 45),
    ]
    assert planned("service_failure_cascade") == [
        ("inventory-service errors 0.3", 10, 25),
        ("cart-service latency 5", 25, 45),
        ("order-service timeouts 0.2", 45, 55),
    ]
    assert planned("flash_sale_simulation") == planned("mixed_load_chaos") == []


def test_every_fault_of_the_stress_scenarios_is_followed_by_time_without_it():
    for scenario in STRESS.scenarios.values():
        plan = make_plan(scenario)
        assert not [line for line in plan.describe() if "recovery is not in the data" in line]
        for fault in plan.faults:
            assert not [other for other in plan.faults_at(fault.end_s + 60) if other.service == fault.service]


def test_chaos_of_the_stress_scenario_is_that_of_the_specification():
    chaos = [phase.chaos for phase in STRESS.scenario("mixed_load_chaos").phases]
    assert [(one.user_variance, one.think_time_variance, one.action_randomness) for one in chaos] == [
        (0.3, 0.5, 0.2),
        (0.4, 0.6, 0.3),
        (0.2, 0.3, 0.1),
    ]


def test_both_files_know_the_four_profiles_by_the_same_numbers():
    for name, profile in COMPREHENSIVE.profiles.items():
        assert STRESS.profiles[name] == profile
    assert set(STRESS.profiles) - set(COMPREHENSIVE.profiles) == {
        "aggressive_buyer",
        "window_shopper",
        "enterprise_buyer",
        "mobile_user",
    }

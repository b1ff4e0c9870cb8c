"""Faults and chaos of old files: in numbers or in words, of a phase or of a whole scenario."""

import pytest

from tests.scenario.files import phase, suite, tree
from tests.scenario.old_files import convert, lines, refused, result


def test_prose_becomes_conditions():
    old = tree()
    phase(old)["simulated_conditions"] = {
        "inventory_service": "5x normal response time, 20% of requests fail",
        "cart": {"response_time": "200% increase", "timeout_rate": "15%"},
        "order_service_error_rate": 0.3,
        "payment-service": "normal",
    }
    converted = convert(old)
    written = result(converted)["training_scenarios"]["day"]["traffic_patterns"][0]["simulated_conditions"]
    assert written == {
        "inventory-service": {"latency_factor": 5, "error_rate": 0.2},
        "cart-service": {"latency_factor": 3, "timeout_rate": 0.15},
        "order-service": {"error_rate": 0.3},
    }
    (line,) = lines(converted)
    assert line.startswith("training_scenarios.day.traffic_patterns[0].simulated_conditions: {inventory_service: '5x ")
    assert line.endswith(" (conditions as numbers, by service)")


def test_prose_that_no_rule_understands_is_refused_all_at_once():
    old = tree()
    phase(old)["simulated_conditions"] = {
        "cart": "things get slow",
        "inventory": {"error_rate": "many"},
        "basket": "down",
    }
    phase(old, 1)["simulated_conditions"] = {"cart": {"latency_factor": 0.5}}
    at = "training_scenarios.day.traffic_patterns"
    found = refused(old)
    assert [line.split(". ")[0] for line in found] == [
        f"{at}[0].simulated_conditions.cart: 'things get slow' is not understood",
        f"{at}[0].simulated_conditions.inventory.error_rate: 'many' is not understood as error_rate",
        f"{at}[0].simulated_conditions.basket: 'basket' is not one of the five services",
        f"{at}[1].simulated_conditions.cart: latency_factor 0.5 is not a factor above 1",
    ]


def test_a_failure_timeline_of_a_scenario_goes_into_its_phases():
    old = tree()
    suite(old)["training_scenarios"]["day"]["failure_timeline"] = [
        {"minute": 5, "service": "inventory-service", "impact": "30% of requests fail", "duration_minutes": 10},
        {"start_minute": 12, "service": "cart_service", "failure_type": "slow", "impact": "5x"},
        {"minute": 17, "event": "recovery", "description": "Everything is well again"},
    ]
    converted = convert(old)
    first, second = result(converted)["training_scenarios"]["day"]["traffic_patterns"]
    inventory = {"service": "inventory-service", "error_rate": 0.3}
    assert first["failure_timeline"] == [{"minute": 5, "duration_minutes": 5, **inventory}]
    assert second["failure_timeline"] == [
        {"minute": 0, "duration_minutes": 5, **inventory},
        {"minute": 2, "duration_minutes": 5, "service": "cart-service", "latency_factor": 5},
    ]
    said = "\n".join(lines(converted))
    assert "day.failure_timeline[0]: {minute: 5, " in said
    assert " -> morning.failure_timeline [{minute: 5, duration_minutes: 5, " in said
    assert "; evening.failure_timeline [{minute: 0, " in said
    assert "-> dropped (all is well from there on; faults end by themselves)" in said


def test_a_fault_where_no_phase_is():
    old = tree()
    event = {"minute": 25, "service": "cart-service", "crash": True, "duration_minutes": 1}
    suite(old)["training_scenarios"]["day"]["failure_timeline"] = [event]
    assert refused(old) == [
        "training_scenarios.day.failure_timeline[0]: begins at minute 25, where no phase is. Correct its minute."
    ]


def test_a_scenario_without_phases_is_one_phase_and_chaos_goes_into_it():
    old = tree()
    suite(old)["training_scenarios"] = {
        "wild night": {
            "duration_hours": 0.5,
            "users": 10,
            "user_count_variance": "30%",
            "chaos_config": {"think_time_variance": [0.5, 1.5], "action_randomness": 0.2},
        }
    }
    del suite(old)["base_config"]["test_duration_minutes"]
    suite(old)["base_config"]["max_concurrent_users"] = 5
    converted = convert(old)
    written = result(converted)
    assert written["training_scenarios"]["wild_night"] == {
        "test_duration_minutes": 30,
        "traffic_patterns": [
            {
                "name": "wild_night",
                "duration_minutes": 30,
                "intensity": "medium",
                "concurrent_users": 10,
                "user_behavior_distribution": {"browser": 0.5, "buyer": 0.5},
                "scenario_weights": {"browse_weight": 1, "search_weight": 1, "cart_weight": 1, "order_weight": 1},
                "chaos_parameters": {"user_variance": 0.3, "think_time_variance": 0.5, "action_randomness": 0.2},
            }
        ],
    }
    assert written["base_config"]["max_concurrent_users"] == 13
    said = lines(converted)
    assert (
        "base_config.max_concurrent_users: 5 -> max_concurrent_users 13 (a phase has so many users, with chaos)" in said
    )
    place = "training_scenarios.'wild night'"
    assert f"{place}: 'wild night' -> wild_night (names are letters, digits, _ and -)" in said
    assert f"{place}.traffic_patterns: not there -> one phase wild_night (there is no list of phases)" in said
    assert (
        f"{place}.user_behavior_distribution: not there -> {{browser: 0.5, buyer: 0.5}} "
        "(default: equal shares of all profiles)" in said
    )


def test_faults_of_a_phase_count_from_its_start_or_that_of_the_scenario():
    old = tree()
    phase(old, 1)["start_minute"] = 10
    crash = {"service": "cart-service", "crash": True}
    phase(old, 1)["failure_timeline"] = [
        {"minute": 1, "duration_minutes": 2, **crash},
        {"minute": 14, "duration_minutes": 60, "service": "order", "failure_type": "outage"},
    ]
    converted = convert(old)
    second = result(converted)["training_scenarios"]["day"]["traffic_patterns"][1]
    assert second["failure_timeline"] == [
        {"minute": 1, "duration_minutes": 2, **crash},
        {"minute": 4, "duration_minutes": 6, "service": "order-service", "crash": True},
    ]
    (line,) = lines(converted)
    assert line.startswith("training_scenarios.day.traffic_patterns[1].failure_timeline[1]: {minute: 14, ")
    assert line.endswith("(the minute counted from the start of the scenario; cut where the phase ends)")


def test_faults_told_by_kind_and_value():
    old = tree()
    phase(old)["failure_timeline"] = [
        {"minute": 1, "duration_seconds": 120, "service": "cart", "type": "latency", "value": "4x", "severity": "high"},
        {"minute": 4, "duration_minutes": 2, "services": ["order", "payment"], "failure_type": "error", "rate": 20},
        {"minute": 7, "duration": 2, "impact": "inventory service: 30% of requests fail"},
        {"minute": 9, "duration": 1, "event": "user_service_slowdown", "impact": "5x normal response time"},
    ]
    converted = convert(old)
    assert result(converted)["training_scenarios"]["day"]["traffic_patterns"][0]["failure_timeline"] == [
        {"minute": 1, "duration_minutes": 2, "service": "cart-service", "latency_factor": 4},
        {"minute": 4, "duration_minutes": 2, "service": "order-service", "error_rate": 0.2},
        {"minute": 4, "duration_minutes": 2, "service": "payment-service", "error_rate": 0.2},
        {"minute": 7, "duration_minutes": 2, "service": "inventory-service", "error_rate": 0.3},
        {"minute": 9, "duration_minutes": 1, "service": "user-service", "latency_factor": 5},
    ]


@pytest.mark.parametrize(
    ("conditions", "line"),
    [
        ({"latency": 500}, "cart.latency: 500 has no unit. Write it as latency_factor."),
        ({"timeout": 30}, "cart: unknown key 'timeout' with 30. "),
        ({"error_rate": 1.5}, "cart.error_rate: 1.5 is not understood as error_rate. "),
        (
            {"error_rate": 0.3, "impact": "50% of requests fail"},
            "cart.impact: says error_rate 0.5, but 0.3 stands",
        ),
        ({"type": "latency", "value": "soon"}, "cart.value: 'soon' is not understood as latency_factor. "),
        ({"value": 3}, "cart.value: 3 is not understood. Write it as one of latency_factor, "),
        ("latency_factor 5000", "cart: 'latency_factor 5000' is not understood. "),
        ({"latency_factor": 5000}, "cart: latency_factor 5000 is not a factor above 1"),
        (["30% errors", "40% errors"], "cart: says error_rate 0.4, but 0.3 stands beside it. "),
        ("30% of inventory requests fail", "cart: '30% of inventory requests fail' is not understood. "),
        (
            {"latency_factor": 2, "latency_increase": "300%"},
            "cart.latency_increase: says latency_factor 4, but 2 stands",
        ),
        (["down", ["down"]], "cart: ['down'] is not understood. "),
    ],
)
def test_conditions_that_could_mean_two_things_are_refused(conditions, line):
    old = tree()
    phase(old)["simulated_conditions"] = {"cart": conditions}
    found = refused(old)
    place = "training_scenarios.day.traffic_patterns[0].simulated_conditions."
    assert any(one.startswith(f"{place}{line}") for one in found), found


@pytest.mark.parametrize("enabled", [True, False])
def test_chaos_that_is_switched_off_is_dropped(enabled):
    old = tree()
    phase(old)["chaos_config"] = {"enabled": enabled, "user_variance": 0.3}
    converted = convert(old)
    first = result(converted)["training_scenarios"]["day"]["traffic_patterns"][0]
    assert first.get("chaos_parameters") == ({"user_variance": 0.3} if enabled else None)
    off = "chaos_config: {enabled: false, user_variance: 0.3} -> dropped (chaos is not enabled)"
    assert any(line.endswith(off) for line in lines(converted)) is not enabled

"""Old scenario files in the variants that users have: what each becomes, and what is said of it."""

import json
from pathlib import Path

import pytest
import yaml

from tests.scenario.files import ADDRESS, PHASE, PRODUCT, PROFILE, Tree, phase, profile, suite, tree
from tests.scenario.old_files import convert, lines, refused, result

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))


def without(whole: Tree, *keys: str) -> Tree:
    return {key: value for key, value in whole.items() if key not in keys}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_file_that_loads_stays_as_it_is(path):
    converted = convert(path.read_text(encoding="utf-8"), path.name)
    assert converted.notes == []
    assert converted.report() == "nothing had to be changed"
    assert result(converted) == yaml.safe_load(path.read_text(encoding="utf-8"))["rl_training_scenarios"]


def test_sections_may_stand_anywhere():
    whole = suite(tree())
    flat = {
        "base_config": whole["base_config"],
        "profiles": whole["user_behavior_profiles"],
        "my_tests": {"load_scenarios": whole["training_scenarios"]},
        "products": whole["product_catalogue"],
        "addresses": whole["shipping_addresses"],
    }
    converted = convert(flat)
    assert result(converted) == whole
    assert lines(converted) == [
        "base_config: base_config -> rl_training_scenarios.base_config (moved)",
        "profiles: profiles -> rl_training_scenarios.user_behavior_profiles (moved)",
        "my_tests: a container my_tests -> its parts under rl_training_scenarios (every file has one root)",
        "my_tests.load_scenarios: load_scenarios -> rl_training_scenarios.training_scenarios (moved)",
        "products: products -> rl_training_scenarios.product_catalogue (moved)",
        "addresses: addresses -> rl_training_scenarios.shipping_addresses (moved)",
    ]


def test_settings_and_scenarios_that_stand_at_the_top_are_found():
    whole = suite(tree())
    old = {**without(whole, "base_config", "training_scenarios"), **whole["base_config"], **whole["training_scenarios"]}
    converted = convert(old)
    assert result(converted) == whole
    assert "total_users: 50 -> base_config.total_users (moved)" in lines(converted)
    assert "day: a scenario day -> training_scenarios.day (scenarios stand in one section)" in lines(converted)


def test_flat_probabilities_are_scaled_to_one():
    old = tree()
    del profile(old)["action_probabilities"]
    profile(old).update(browse_probability=0.5, search_probability="30%", cart_probability=0.4)
    converted = convert(old)
    written = {"browse": 0.416667, "search": 0.25, "cart": 0.333333}
    assert result(converted)["user_behavior_profiles"]["browser"]["action_probabilities"] == written
    into = "action_probabilities {browse: 0.416667, search: 0.25, cart: 0.333333} (they add up to 1.2; scaled to 1)"
    assert lines(converted) == [
        f"user_behavior_profiles.browser.browse_probability: 0.5 -> {into}",
        f"user_behavior_profiles.browser.search_probability: '30%' -> {into}",
        f"user_behavior_profiles.browser.cart_probability: 0.4 -> {into}",
    ]


def test_actions_of_other_names_are_one_user_action():
    old = tree()
    profile(old)["action_probabilities"] = {"browsing": 50, "view_cart": 10, "add_to_cart": 20, "checkout": 20}
    converted = convert(old)
    written = {"browse": 0.5, "cart": 0.3, "order": 0.2}
    assert result(converted)["user_behavior_profiles"]["browser"]["action_probabilities"] == written
    place = "user_behavior_profiles.browser.action_probabilities"
    assert f"{place}.add_to_cart: 20 -> added to cart (it means the same user action)" in lines(converted)


@pytest.mark.parametrize(
    ("key", "value", "minutes"),
    [
        ("session_duration_minutes", 10, [10, 10]),
        ("session_duration_minutes", {"min": 5, "max": 15}, [5, 15]),
        ("session_duration_range_seconds", [300, 900], [5, 15]),
        ("session_duration", "5-15 min", [5, 15]),
        ("sessionDurationHours", [0.25, 0.5], [15, 30]),
    ],
)
def test_sessions_in_any_unit_become_a_range_of_minutes(key, value, minutes):
    old = tree()
    del profile(old)["session_duration_range"]
    profile(old)[key] = value
    converted = convert(old)
    assert result(converted)["user_behavior_profiles"]["browser"]["session_duration_range"] == minutes
    (line,) = lines(converted)
    assert line.startswith(f"user_behavior_profiles.browser.{key}: ")
    assert f" -> session_duration_range {minutes} (" in line


def test_a_duration_without_unit_is_refused():
    old = tree()
    del profile(old)["session_duration_range"]
    profile(old)["session_duration"] = [5, 15]
    phase(old)["duration"] = phase(old).pop("duration_minutes")
    assert refused(old) == [
        (
            "user_behavior_profiles.browser.session_duration: [5, 15] has no unit. "
            "Rename the key to session_duration_minutes or session_duration_seconds."
        ),
        (
            "training_scenarios.day.traffic_patterns[0].duration: 10 has no unit. "
            "Rename the key to duration_minutes or duration_seconds."
        ),
    ]


def test_think_times_of_base_config_go_to_the_profiles():
    old = tree()
    suite(old)["base_config"].update(min_think_time=1, max_think_time=3.5)
    del profile(old)["think_time_range"]
    converted = convert(old)
    profiles = result(converted)["user_behavior_profiles"]
    assert profiles["browser"]["think_time_range"] == [1, 3.5]
    assert profiles["buyer"]["think_time_range"] == [1.0, 3.0]
    assert (
        "user_behavior_profiles.browser.think_time_range: not there -> [1, 3.5] (base_config says it for all profiles)"
        in lines(converted)
    )
    assert any(line.startswith("base_config.max_think_time: 3.5 -> ") for line in lines(converted))


def test_rates_in_percent_are_shares():
    old = tree()
    profile(old).update(conversion_rate="25%", abandonment_rate=40)
    del profile(old)["cart_abandonment_rate"]
    converted = convert(old)
    written = result(converted)["user_behavior_profiles"]["browser"]
    assert (written["conversion_rate"], written["cart_abandonment_rate"]) == (0.25, 0.4)
    assert lines(converted) == [
        (
            "user_behavior_profiles.browser.conversion_rate: '25%' -> conversion_rate 0.25 "
            "(conversion_rate is a share from 0 to 1)"
        ),
        (
            "user_behavior_profiles.browser.abandonment_rate: 40 -> cart_abandonment_rate 0.4 "
            "(cart_abandonment_rate is a share from 0 to 1)"
        ),
    ]


def test_what_a_profile_does_not_say_is_filled_in_and_told():
    old = tree()
    suite(old)["user_behavior_profiles"]["browser"] = {"conversion_rate": 0.9}
    suite(old)["user_behavior_profiles"]["quick_browser"] = {}
    converted = convert(old)
    profiles = result(converted)["user_behavior_profiles"]
    assert profiles["browser"] == {
        "session_duration_range": [5, 15],
        "pages_per_session": [8, 20],
        "think_time_range": [1.0, 3.0],
        "action_probabilities": {"browse": 0.5, "search": 0.2, "cart": 0.2, "order": 0.1},
        "conversion_rate": 0.9,
        "cart_abandonment_rate": 0.1,  # with 0.4 there would be more carts than sessions
    }
    assert profiles["quick_browser"]["pages_per_session"] == [20, 40]  # as shipped
    said = lines(converted)
    for key in ("session_duration_range", "pages_per_session", "think_time_range", "action_probabilities"):
        assert any(line.startswith(f"user_behavior_profiles.browser.{key}: not there -> ") for line in said)
    assert (
        "user_behavior_profiles.browser.cart_abandonment_rate: not there -> 0.1 (default: the example profile of the "
        "README, as far as conversion_rate leaves room for it)" in said
    )
    assert "user_behavior_profiles.quick_browser: used by no phase -> kept (it does no harm)" in said


def test_a_profile_that_says_nothing_is_refused():
    old = tree()
    suite(old)["user_behavior_profiles"]["browser"] = {"description": "Somebody"}
    (line,) = refused(old)
    assert line.startswith("user_behavior_profiles.browser: says nothing about its shoppers. Give at least one of ")


def test_users_and_weights_in_other_spellings():
    old = tree()
    phase(old)["userCount"] = str(phase(old).pop("concurrent_users"))
    phase(old)["weights"] = {"browse": "50%", "add_to_cart": 30, "order_weight": 20}
    del phase(old)["scenario_weights"]
    phase(old)["user_distribution"] = {"browsers": "60%", "buyer": 60}
    del phase(old)["user_behavior_distribution"]
    phase(old, 1)["user_behavior_distribution"] = [
        {"profile": "browser", "percentage": 60},
        {"name": "buyer", "share": 40},
    ]
    phase(old, 1)["intensity"] = "Very High"
    converted = convert(old)
    first, second = result(converted)["training_scenarios"]["day"]["traffic_patterns"]
    assert first["concurrent_users"] == 10
    assert first["scenario_weights"] == {"browse_weight": 50, "cart_weight": 30, "order_weight": 20}
    assert first["user_behavior_distribution"] == {"browsers": 0.5, "buyer": 0.5}
    assert second["user_behavior_distribution"] == {"browser": 0.6, "buyer": 0.4}
    assert second["intensity"] == "very_high"
    at = "training_scenarios.day.traffic_patterns"
    said = lines(converted)
    assert f"{at}[0].userCount: '10' -> concurrent_users 10 (concurrent_users is a whole number above 0)" in said
    assert (
        f"{at}[0].user_distribution: {{browsers: '60%', buyer: 60}} -> user_behavior_distribution "
        "{browsers: 0.5, buyer: 0.5} (they add up to 120; scaled to 1)" in said
    )


def test_phases_follow_each_other_and_decide_the_whole_duration():
    old = tree()
    suite(old)["base_config"]["test_duration_minutes"] = 60
    phase(old).update(start_minute=0, duration_minutes=10)
    phase(old, 1).update(start_minute=5, duration_minutes=10)
    late = {**PHASE, "name": "late", "start_minute": 40, "duration_seconds": 300}
    del late["duration_minutes"]
    suite(old)["training_scenarios"]["day"]["traffic_patterns"].append(late)
    converted = convert(old)
    day = result(converted)["training_scenarios"]["day"]
    times = [(one["start_minute"], one["duration_minutes"]) for one in day["traffic_patterns"]]
    assert times == [(0, 10), (10, 10), (20, 5)]
    assert day["test_duration_minutes"] == 25
    at = "training_scenarios.day.traffic_patterns"
    kept = "phases follow each other and keep their durations"
    assert lines(converted) == [
        f"{at}[2].duration_seconds: 300 -> duration_minutes 5 (duration_minutes is a number of minutes)",
        f"{at}[1].start_minute: 5 -> start_minute 10 (an overlap of 5 min in all before it; {kept})",
        f"{at}[2].start_minute: 40 -> start_minute 20 (a gap of 20 min in all before it; {kept})",
        (
            "base_config.test_duration_minutes: 60 -> training_scenarios.day.test_duration_minutes 25 "
            "(the phases add up to 25)"
        ),
    ]


def test_durations_that_are_not_said_are_read_from_the_rest():
    old = tree()
    suite(old)["base_config"]["test_duration_minutes"] = 30
    third = {**without(PHASE, "duration_minutes"), "name": "third", "minutes": "15-20"}
    phases = suite(old)["training_scenarios"]["day"]["traffic_patterns"]
    phases.append(third)
    phase(old)["start_minute"] = 0
    phase(old)["end_minute"] = 15
    phases[1]["start_minute"] = 20
    del phases[0]["duration_minutes"], phases[1]["duration_minutes"]
    converted = convert(old)
    written = result(converted)["training_scenarios"]["day"]["traffic_patterns"]
    assert [(one["name"], one["start_minute"], one["duration_minutes"]) for one in written] == [
        ("morning", 0, 15),
        ("third", 15, 5),
        ("evening", 20, 10),
    ]
    said = "\n".join(lines(converted))
    assert "the order morning, third, evening (phases are written in order of their start)" in said
    assert (
        "traffic_patterns[1].duration_minutes: not there -> 10 (until the next one starts, or the scenario ends)"
        in said
    )


def test_a_name_in_two_sections_is_two_scenarios_or_one():
    old = tree()
    day = suite(old)["training_scenarios"]["day"]
    suite(old)["stress_scenarios"] = {"day": {"traffic_patterns": [{**PHASE, "duration_minutes": 20}]}}
    suite(old)["failure_scenarios"] = {"day": day}
    converted = convert(old)
    scenarios = result(converted)["training_scenarios"]
    assert list(scenarios) == ["day", "day_2"]
    assert scenarios["day"] == day
    said = lines(converted)
    assert "stress_scenarios.day: 'day' -> day_2 (another scenario has this name; both are kept)" in said
    assert any(
        line.startswith("failure_scenarios.day: ") and line.endswith("(training_scenarios.day is the same scenario)")
        for line in said
    )


def test_a_key_of_a_json_file_that_is_there_twice():
    text = json.dumps(tree())
    day = json.dumps(suite(tree())["training_scenarios"]["day"])
    other = day.replace('"concurrent_users": 10', '"concurrent_users": 12')
    twice = text.replace('"training_scenarios": {', f'"training_scenarios": {{"day": {other}, ')
    converted = convert(twice)
    scenarios = result(converted)["training_scenarios"]
    assert [one["traffic_patterns"][0]["concurrent_users"] for one in scenarios.values()] == [12, 10]
    assert lines(converted) == [
        "training_scenarios.day: day again, with other content -> day_2 (the key is there twice; both are kept)"
    ]
    same = convert(text.replace('"total_users": 50', '"total_users": 50, "total_users": 50'))
    assert lines(same) == ["base_config.total_users: 50 -> dropped (the key is there twice, with the same value)"]
    assert refused(text.replace('"total_users": 50', '"total_users": 50, "total_users": 60')) == [
        "base_config.total_users: the key is there twice, as 50 and as 60. Keep one of them."
    ]


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


@pytest.mark.parametrize("key", ["phases", "chaos_phases", "degradation_phases", "stages"])
def test_phases_under_other_keys(key):
    old = tree()
    day = suite(old)["training_scenarios"]["day"]
    day[key] = {one.pop("name"): one for one in day.pop("traffic_patterns")}
    converted = convert(old)
    assert result(converted) == suite(tree())
    assert lines(converted)[0] == f"training_scenarios.day.{key}: {key} -> traffic_patterns (renamed)"
    assert f"training_scenarios.day.{key}.morning: a phase by its name -> name morning (phases are a list)" in lines(
        converted
    )


def test_products_by_id_and_with_gaps():
    old = tree()
    suite(old)["product_catalogue"] = {
        "MUG-1": {"name": "Blue Mug", "price": "$12.50", "category": "Home", "brand": "Calla", "stock": 5},
        "77": {"product_id": 77, "name": "Lamp"},
    }
    phase(old)["target_products"] = ["Lamp", "MUG-1", "Lamp"]
    converted = convert(old)
    written = result(converted)
    assert written["product_catalogue"] == [
        {"sku": "MUG-1", "name": "Blue Mug", "category": "Home", "brand": "Calla", "price": 12.5},
        {"sku": "77", "name": "Lamp", "category": "General", "brand": "Unknown", "price": 20.0},
    ]
    assert written["training_scenarios"]["day"]["traffic_patterns"][0]["target_products"] == ["77", "MUG-1"]
    said = lines(converted)
    assert "product_catalogue.'77'.product_id: 77 -> sku '77' (it is the SKU)" in said
    assert "product_catalogue.'77'.price: not there -> 20 (default; the target has to sell it so)" in said
    assert "product_catalogue.MUG-1.stock: 5 -> dropped (the plan needs nothing else of a product)" in said


def test_without_products_and_addresses_the_shipped_ones_are_taken():
    old = {"rl_training_scenarios": without(suite(tree()), "product_catalogue", "shipping_addresses")}
    converted = convert(old)
    assert len(result(converted)["product_catalogue"]) == 24
    assert lines(converted) == [
        (
            "product_catalogue: not there -> 24 products, LAP-ULTRA-14 and others "
            "(default: the shipped catalogue; the target has to sell these products, the sandbox sells any)"
        ),
        "shipping_addresses: not there -> 6 addresses (default: the shipped addresses)",
    ]


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [("zip", 2108, "02108"), ("zipCode", "02108", "02108"), ("postal_code", 981260001, "98126-0001")],
)
def test_zip_codes_are_text(key, value, code):
    old = tree()
    suite(old)["shipping_addresses"] = [{**without(ADDRESS, "zip_code"), key: value}]
    converted = convert(old)
    assert result(converted)["shipping_addresses"] == [{**ADDRESS, "zip_code": code}]
    (line,) = lines(converted)
    assert line.startswith(f"shipping_addresses[0].{key}: ")
    assert f"-> zip_code '{code}'" in line
    assert f'zip_code: "{code}"' in converted.yaml


def test_what_changes_no_traffic_is_dropped_and_told():
    old = tree()
    old["version"] = "2.0"
    suite(old)["base_config"].update(connection_pool_size=50, log_level="INFO")
    suite(old)["training_scenarios"]["day"]["expected_outcome"] = "Faster"
    phase(old)["service_load_characteristics"] = {"cart_service": "high", "inventory_service": "spiky"}
    converted = convert(old)
    written = result(converted)["training_scenarios"]["day"]["traffic_patterns"][0]
    assert written["service_load_characteristics"] == {"cart-service": "high"}
    said = lines(converted)
    assert "version: '2.0' -> dropped (only tells people something)" in said
    pool = "every shopper has a connection of its own, there is no pool"
    assert f"base_config.connection_pool_size: 50 -> dropped ({pool})" in said
    assert "training_scenarios.day.expected_outcome: 'Faster' -> dropped (only tells people something)" in said
    assert any("service_load_characteristics.inventory_service: 'spiky' -> dropped" in line for line in said)
    assert any(line.startswith("base_config.log_level: 'INFO' -> dropped") for line in said)


def test_what_has_no_meaning_is_refused_all_at_once():
    old = tree()
    suite(old)["base_config"]["network_jitter"] = 5
    profile(old)["conversion_rate"] = -0.1
    phase(old).update(concurrent_users=-5, warp=9)
    phase(old)["user_behavior_distribution"] = {"ghost": 1.0}
    phase(old, 1)["intensity"] = "hellish"
    suite(old)["product_catalogue"] = [{**PRODUCT, "price": -1}]
    at = "training_scenarios.day.traffic_patterns"
    assert {line.split(". ")[0] for line in refused(old)} == {
        "base_config: unknown key 'network_jitter' with 5",
        "user_behavior_profiles.browser.conversion_rate: -0.1 is not a share from 0 to 1",
        f"{at}[0].concurrent_users: -5 is not a whole number above 0",
        f"{at}[0]: unknown key 'warp' with 9",
        f"{at}[0].user_behavior_distribution.ghost: the profile 'ghost' is defined nowhere",
        f"{at}[1].intensity: 'hellish' is not one of extreme, very_high, high, medium, medium_low, low, variable",
        "product_catalogue[0].price: -1 is not a price above 0",
    }


def test_what_the_loader_would_not_take_is_refused_with_its_words():
    old = tree()
    profile(old)["pages_per_session"] = [9000, 9000]
    (line,) = refused(old)
    assert line.startswith("user_behavior_profiles.browser.pages_per_session: as converted, it ")
    assert "do not fit a session of 5 minutes" in line


def test_two_keys_for_one_thing_have_to_agree():
    old = tree()
    phase(old)["users"] = 10
    phase(old, 1)["users"] = 11
    assert refused(old) == [
        (
            "training_scenarios.day.traffic_patterns[1].users: is 11, but concurrent_users beside it means the same "
            "and is 10. Keep one of them."
        )
    ]
    del phase(old, 1)["users"]
    assert lines(convert(old)) == [
        "training_scenarios.day.traffic_patterns[0].users: 10 -> dropped (concurrent_users says the same)"
    ]


def test_yaml_is_converted_like_json():
    old = tree()
    phase(old)["users"] = phase(old).pop("concurrent_users")
    as_yaml, as_json = convert(yaml.safe_dump(old, sort_keys=False), "old.yaml"), convert(old)
    assert result(as_yaml) == result(as_json)
    assert as_yaml.notes == as_json.notes != []


@pytest.mark.parametrize("old", ["[]", "3", "{}", '{"rl_training_scenarios": 5}', '{"a": {"b": 1}}'])
def test_a_file_of_something_else_is_refused(old):
    assert refused(old) != []


def test_a_spawn_rate_is_the_ramp_of_each_phase():
    old = tree()
    suite(old)["base_config"]["spawn_rate"] = 0.5
    converted = convert(old)
    phases = result(converted)["training_scenarios"]["day"]["traffic_patterns"]
    assert [one["ramp_up_time_seconds"] for one in phases] == [20, 20]
    assert (
        "base_config.spawn_rate: 0.5 -> dropped (written as ramp_up_time_seconds of the phases: users / rate)"
        in lines(converted)
    )


def test_the_new_file_reads_like_the_shipped_ones():
    old = tree()
    profile(old)["description"] = "Yes: 1e3 #1"
    text = convert(old).yaml
    assert text.startswith(
        "# Converted from old.json by `python -m scenario convert`, whose report says what changed.\n#\n"
    )
    assert "\n          user_behavior_distribution: {browser: 0.6, buyer: 0.4}\n" in text
    assert "\n      session_duration_range: [5, 15]\n" in text
    sections = [line.strip() for line in text.splitlines() if line.startswith("  ") and line[2] not in " #"]
    assert sections == [
        "base_config:", "user_behavior_profiles:", "training_scenarios:", "product_catalogue:", "shipping_addresses:",
    ]  # fmt: skip
    assert result(convert(old))["user_behavior_profiles"]["browser"]["description"] == "Yes: 1e3 #1"
    assert PROFILE["cart_size"] == result(convert(old))["user_behavior_profiles"]["buyer"]["cart_size"]


def test_what_a_scenario_says_holds_for_its_phases():
    old = tree()
    day = suite(old)["training_scenarios"]["day"]
    for one in day["traffic_patterns"]:
        del one["concurrent_users"], one["user_behavior_distribution"]
    day["traffic_patterns"][1]["users"] = 4
    day.update(users=7, profiles=["browser", "buyer"], simulated_conditions={"cart": {"errors": "10%"}})
    converted = convert(old)
    first, second = result(converted)["training_scenarios"]["day"]["traffic_patterns"]
    assert (first["concurrent_users"], second["concurrent_users"]) == (7, 4)
    assert first["user_behavior_distribution"] == second["user_behavior_distribution"] == {"browser": 0.5, "buyer": 0.5}
    assert first["simulated_conditions"] == second["simulated_conditions"] == {"cart-service": {"error_rate": 0.1}}
    assert (
        "training_scenarios.day.concurrent_users: 7 -> morning.concurrent_users 7 "
        "(the scenario says it for phases that do not)" in lines(converted)
    )


def test_a_profile_that_no_phase_uses_is_kept_and_told():
    old = tree()
    suite(old)["user_behavior_profiles"]["ghost"] = PROFILE
    converted = convert(old)
    assert "ghost" in result(converted)["user_behavior_profiles"]
    assert lines(converted) == ["user_behavior_profiles.ghost: used by no phase -> kept (it does no harm)"]


def test_a_default_distribution_follows_the_weights_of_the_profiles():
    old = tree()
    profile(old)["weight"] = 3
    profile(old, "buyer")["weight"] = "100%"
    del phase(old)["user_behavior_distribution"]
    converted = convert(old)
    first = result(converted)["training_scenarios"]["day"]["traffic_patterns"][0]
    assert first["user_behavior_distribution"] == {"browser": 0.75, "buyer": 0.25}
    assert any(line.endswith("(default: by the weights of the profiles)") for line in lines(converted))


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
        {"minute": 7, "duration_minutes": 2, "impact": "inventory service: 30% of requests fail"},
    ]
    converted = convert(old)
    assert result(converted)["training_scenarios"]["day"]["traffic_patterns"][0]["failure_timeline"] == [
        {"minute": 1, "duration_minutes": 2, "service": "cart-service", "latency_factor": 4},
        {"minute": 4, "duration_minutes": 2, "service": "order-service", "error_rate": 0.2},
        {"minute": 4, "duration_minutes": 2, "service": "payment-service", "error_rate": 0.2},
        {"minute": 7, "duration_minutes": 2, "service": "inventory-service", "error_rate": 0.3},
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
        (["down", ["down"]], "cart: ['down'] is not understood. "),
    ],
)
def test_conditions_that_could_mean_two_things_are_refused(conditions, line):
    old = tree()
    phase(old)["simulated_conditions"] = {"cart": conditions}
    found = refused(old)
    place = "training_scenarios.day.traffic_patterns[0].simulated_conditions."
    assert any(one.startswith(f"{place}{line}") for one in found), found

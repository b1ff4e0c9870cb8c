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


def test_the_same_product_twice_is_one():
    old = tree()
    suite(old)["product_catalogue"] = [PRODUCT, PRODUCT]
    converted = convert(old)
    assert result(converted)["product_catalogue"] == [PRODUCT]
    (line,) = lines(converted)
    assert line.startswith("product_catalogue[1]: {sku: 'MUG-1', ")
    assert line.endswith("-> dropped (product_catalogue[0] is the same product)")
    suite(old)["product_catalogue"] = [PRODUCT, {**PRODUCT, "price": 3}]
    assert refused(old)[0].startswith("product_catalogue[1].sku: as converted, it 'MUG-1' is the SKU of ")


def test_a_phase_shorter_than_the_default_ramp_gets_a_shorter_one():
    old = tree()
    phase(old)["duration_minutes"] = 0.5
    converted = convert(old)
    assert result(converted)["training_scenarios"]["day"]["ramp_seconds"] == 15
    reason = "the default of 30 s does not fit a phase of 30 s"
    assert f"training_scenarios.day.ramp_seconds: not there -> 15 ({reason})" in lines(converted)


def test_reward_weights_and_response_times():
    old = tree()
    suite(old)["base_config"]["reward_weights"] = {"response_time_weight": 60, "error_rate": 60}
    suite(old)["base_config"]["slo"] = {"cart": 300, "order_service": "0.5s"}
    converted = convert(old)
    base = result(converted)["base_config"]
    rest = {"throughput": 0, "load_balance": 0, "user_satisfaction": 0}
    assert base["reward_weights"] == {"response_time": 0.5, "error_rate": 0.5, **rest}
    assert base["service_slo_ms"] == {"cart-service": 300, "order-service": 500}
    said = lines(converted)
    assert any(line.endswith(" (all five components, scaled from 120 to 1)") for line in said)
    assert any(
        line.startswith("base_config.slo: {cart: 300, order_service: '0.5s'} -> service_slo_ms ") for line in said
    )


def test_phases_of_one_name_are_numbered_and_all_services_are_five():
    old = tree()
    phase(old, 1)["name"] = "morning"
    phase(old)["simulated_conditions"] = [{"services": "all", "error_rate": "10%"}]
    converted = convert(old)
    first, second = result(converted)["training_scenarios"]["day"]["traffic_patterns"]
    assert (first["name"], second["name"]) == ("morning", "morning_2")
    assert len(first["simulated_conditions"]) == 5
    place = "training_scenarios.day.traffic_patterns[1].name"
    assert f"{place}: morning -> morning_2 (an earlier phase has this name)" in lines(converted)


def test_a_key_of_a_yaml_file_that_is_there_twice():
    text = yaml.safe_dump(tree(), sort_keys=False).replace("total_users: 50", "total_users: 50\n    total_users: 50")
    converted = convert(text, "old.yaml")
    assert lines(converted) == ["base_config.total_users: 50 -> dropped (the key is there twice, with the same value)"]


def test_settings_of_two_places_have_to_agree():
    old = tree()
    suite(old)["global_settings"] = {"total_users": 50, "max_users": 30, "think_time": 2}
    suite(old)["base_config"]["think_time"] = 3
    suite(old)["training_scenarios"]["day"].update(window_seconds=60, config={"x": 1}, settings={"window": 30})
    assert [line for line in refused(old) if "Keep one" in line] == [
        "global_settings: max_concurrent_users is 30 here and 20 elsewhere. Keep one of them.",
        "global_settings: think_time_range is [2, 2] here and [3, 3] elsewhere. Keep one of them.",
        "training_scenarios.day.settings: window_seconds is 30 here and 60 elsewhere. Keep one of them.",
    ]

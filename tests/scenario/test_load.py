"""Finding and loading files: the two fragments of the specification, the shipped files, defaults, names."""

import copy
import hashlib
import json
import os
import textwrap
from random import Random
from typing import get_args

import pytest

from scenario.errors import ScenarioError
from scenario.load import find_file, load_file, load_text
from scenario.model import DEFAULTS, LEVELS, PACE, Chaos, Fault
from scenario.schema import Level, PhaseNode, Settings
from tests.scenario.files import ADDRESS, PRODUCT, load, phase, profile, suite, tree

NEW_PROFILE = """
{"new_behavior_profile": {"description": "Custom behavior description",
  "session_duration_range": [5, 15], "think_time_range": [1.0, 3.0],
  "action_probabilities": {"browse": 0.5, "search": 0.2, "cart": 0.2, "order": 0.1},
  "conversion_rate": 0.3, "pages_per_session": [8, 20], "cart_abandonment_rate": 0.4}}
"""
ALL_SLOS = (
    "service_slo_ms user-service 250, inventory-service 250, cart-service 300, order-service 500, payment-service 600"
)
CUSTOM_PATTERN = """
{"custom_pattern": {"name": "custom_traffic_pattern", "start_minute": 0, "duration_minutes": 30,
  "intensity": "medium", "concurrent_users": 50,
  "user_behavior_distribution": {"careful_shoppers": 0.6, "quick_browsers": 0.4},
  "scenario_weights": {"browse_weight": 50, "cart_weight": 30, "order_weight": 20}}}
"""


def fragments():
    new = json.loads(NEW_PROFILE)["new_behavior_profile"]
    return {
        "rl_training_scenarios": {
            "base_config": {"total_users": 100, "max_concurrent_users": 50},
            "user_behavior_profiles": {"new_behavior_profile": new, "careful_shopper": new, "quick_browser": new},
            "training_scenarios": {"custom": {"traffic_patterns": [json.loads(CUSTOM_PATTERN)["custom_pattern"]]}},
            "product_catalogue": [PRODUCT],
            "shipping_addresses": [ADDRESS],
        }
    }


def test_both_fragments_of_the_specification_are_valid_as_they_stand():
    scenario = load(fragments()).scenario("custom")
    new = scenario.profiles["new_behavior_profile"]
    assert (new.session_duration_min, new.pages, new.think_time_s) == ((5, 15), (8, 20), (1, 3))
    assert new.user_actions == {"browse": 0.5, "search": 0.2, "cart": 0.2, "order": 0.1}
    (custom,) = scenario.phases
    assert custom.distribution == {"careful_shopper": 0.6, "quick_browser": 0.4}
    assert custom.weights == {"browse": 50, "cart": 30, "order": 20}
    assert (custom.start_min, custom.duration_min, custom.users, custom.pace) == (0, 30, 50, 1)


def test_a_cart_size_left_out_is_the_printed_default_of_the_profiles_that_are_used():
    scenario = load(fragments()).scenario()
    assert {one.cart_size for one in scenario.profiles.values()} == {(1, 3)}
    assert [line for line in scenario.defaults if "cart_size" in line] == [
        "user_behavior_profiles.careful_shopper.cart_size 1-3",
        "user_behavior_profiles.quick_browser.cart_size 1-3",
    ]


def test_singular_and_plural_names_meet_in_both_directions():
    whole = tree()
    profiles = suite(whole)["user_behavior_profiles"]
    profiles["buyers"] = profiles.pop("buyer")
    phase(whole)["user_behavior_distribution"] = {"browsers": 0.6, "buyer": 0.4}
    scenario = load(whole).scenario()
    assert list(scenario.profiles) == ["browser", "buyers"]  # as they are defined
    assert scenario.phases[0].distribution == {"browser": 0.6, "buyers": 0.4}


def test_phases_without_start_minute_follow_each_other():
    whole = tree()
    phase(whole, 1)["start_minute"] = 10
    assert [one.start_min for one in load(whole).scenario().phases] == [0, 10]
    del phase(whole, 1)["start_minute"]
    assert [one.start_min for one in load(whole).scenario().phases] == [0, 10]


def test_a_scenario_states_its_own_settings_and_the_file_the_others():
    whole = tree()
    suite(whole)["base_config"].update(window_seconds=30, retry_attempts=0, service_slo_ms={"cart-service": 99})
    suite(whole)["training_scenarios"]["day"].update(window_seconds=20, total_users=44, episode_seconds=100)
    scenario = load(whole).scenario()
    assert (scenario.window_s, scenario.total_users, scenario.episode_s) == (20, 44, 100)
    assert (scenario.retry_attempts, scenario.max_concurrent_users) == (0, 20)
    assert dict(scenario.service_slo_ms) == {**DEFAULTS["service_slo_ms"], "cart-service": 99}
    assert list(scenario.service_slo_ms) == list(DEFAULTS["service_slo_ms"])


def test_every_default_that_is_used_is_told_and_no_other():
    whole = tree()
    assert load(whole).scenario().defaults == (
        "data_collection_interval_seconds 2",
        "window_seconds 60",
        "episode_seconds 300",
        "ramp_seconds 30",
        "request_timeout_seconds 10",
        "retry_attempts 2",
        "retry_delay_seconds 0.5",
        "recovery_pause_minutes 5",
        "background_requests_per_second 1",
        ALL_SLOS,
        "reward_weights response_time 0.3, error_rate 0.3, throughput 0.1, load_balance 0.1, user_satisfaction 0.2",
    )
    base = suite(whole)["base_config"]
    base.update({key: DEFAULTS[key] for key in DEFAULTS.keys() & Settings.model_fields.keys()})
    base.update(service_slo_ms={"cart-service": 1}, reward_weights=dict(DEFAULTS["reward_weights"]))
    assert load(whole).scenario().defaults == (
        "service_slo_ms user-service 250, inventory-service 250, order-service 500, payment-service 600",
    )


def test_services_are_known_by_their_short_names_too():
    whole = tree()
    phase(whole)["service_load_characteristics"] = {"cart": "high", "order_service": "low", "user-service": "medium"}
    kept = load(whole).scenario().phases[0].service_load_characteristics
    assert kept == {"cart-service": "high", "order-service": "low", "user-service": "medium"}


def test_faults_of_a_phase_are_one_for_each_condition_in_order_of_their_start():
    whole = tree()
    phase(whole)["failure_timeline"] = [
        {"minute": 4, "duration_minutes": 2, "service": "order", "timeout_rate": 0.2, "instances": ["order-service-1"]},
        {"minute": 1, "duration_minutes": 2.5, "service": "cart-service", "crash": True},
    ]
    phase(whole)["simulated_conditions"] = {"inventory_service": {"latency_factor": 5, "error_rate": 0.2}}
    first, second = load(whole).scenario().phases
    assert second.faults == ()
    assert first.faults == (
        Fault("inventory-service", "latency", 5, (), 0, 10),
        Fault("inventory-service", "errors", 0.2, (), 0, 10),
        Fault("cart-service", "crash", None, (), 1, 2.5),
        Fault("order-service", "timeouts", 0.2, ("order-service-1",), 4, 2),
    )
    assert [str(fault) for fault in first.faults[2:]] == [
        "cart-service crash",
        "order-service timeouts 0.2 (order-service-1)",
    ]


def test_types_of_a_file_and_of_the_model_know_the_same_words():
    assert get_args(Level) == LEVELS
    assert get_args(PhaseNode.model_fields["intensity"].annotation) == tuple(PACE)


def test_chaos_products_and_ramp_of_a_phase():
    whole = tree()
    phase(whole).update(chaos_parameters={"user_variance": 0.3}, target_products=["MUG-1"], ramp_up_time_seconds=7)
    scenario = load(whole).scenario()
    first, second = scenario.phases
    assert (first.chaos, first.target_products, first.ramp_s) == (Chaos(0.3, 0, 0, 120), ("MUG-1",), 7)
    assert (second.chaos, second.target_products, second.ramp_s) == (None, (), None)
    assert "morning.chaos_parameters.change_every_seconds 120" in scenario.defaults


def test_products_weigh_one_unless_they_say_otherwise():
    whole = tree()
    suite(whole)["product_catalogue"].append({**PRODUCT, "sku": "MUG-2", "weight": 2.5})
    assert [product.weight for product in load(whole).scenario().catalogue] == [1, 2.5]


def test_a_feasible_pair_at_its_very_limit_is_valid():
    whole = tree()
    profile(whole).update(conversion_rate=0.1, cart_abandonment_rate=0.9)
    assert load(whole).profiles["browser"].abandon_rate == pytest.approx(0.9)  # 0.1 / (1 - 0.9) > 1 in floats


def test_what_was_read_cannot_be_changed():
    scenario = load(tree()).scenario()
    with pytest.raises(AttributeError):
        scenario.total_users = 3
    with pytest.raises(TypeError):
        scenario.profiles["x"] = None
    with pytest.raises(TypeError):
        scenario.phases[0].weights["browse"] = 1


@pytest.mark.parametrize("seed", range(5))
def test_no_change_of_a_valid_file_crashes_the_loader(seed):
    random = Random(seed)
    junk = [
        None,
        True,
        -1,
        0,
        1e308,
        float("nan"),
        "",
        "x",
        "\x00",
        [],
        {},
        [[]],
        {"a": {}},
        "999",
        10**39,
        ["a", 1],
        -0.0,
    ]

    def spoil(node):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = random.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and random.random() < 0.8:
            spoil(node[key])
        elif isinstance(node, dict) and random.random() < 0.3:
            node[random.choice(["x", "a b", "name", "\ud800", "weight"])] = node.pop(key)
        else:
            node[key] = copy.deepcopy(random.choice(junk))

    refused = 0
    for _ in range(300):
        whole = tree()
        for _ in range(random.randint(1, 4)):
            spoil(whole)
        try:
            load(whole)
        except ScenarioError as error:
            refused += 1
            assert str(error).encode("utf-8")
            assert all(problem.text and problem.way_out for problem in error.problems)
    assert refused > 250


# Files


def test_the_shipped_files_load_without_a_default():
    for name, scenario in (
        ("comprehensive_rl_training_config.yaml", "comprehensive_rl_training"),
        ("quick_validation_config.yaml", "quick_validation"),
    ):
        assert load_file(find_file(name)).scenario(scenario).defaults == ()


def test_the_comprehensive_file_has_what_the_specification_asks_for():
    scenario = load_file(find_file("comprehensive_rl_training_config.yaml")).scenario()
    assert (scenario.duration_min, scenario.total_users, scenario.max_concurrent_users) == (180, 500, 100)
    assert len(scenario.catalogue) == 24
    assert len({product.category for product in scenario.catalogue}) == 6
    assert len(scenario.addresses) == 6
    numbers = {
        name: (p.conversion_rate, p.cart_abandonment_rate, p.session_duration_min, p.pages, p.think_time_s, p.cart_size)
        for name, p in scenario.profiles.items()
    }
    assert numbers == {
        "quick_browser": (0.05, 0.70, (2, 5), (20, 40), (0.3, 1.5), (1, 2)),
        "careful_shopper": (0.35, 0.40, (8, 20), (40, 90), (1.5, 4.0), (2, 5)),
        "bulk_buyer": (0.60, 0.20, (10, 25), (50, 100), (1.0, 3.0), (5, 15)),
        "impulse_buyer": (0.25, 0.45, (3, 8), (20, 45), (0.3, 1.5), (1, 4)),
    }
    weights = ["/".join(f"{weight:g}" for weight in one.weights.values()) for one in scenario.phases]
    assert weights == ["50/20/20/8/2", "60/25/10/3/2", "35/15/35/12/3", "55/20/15/7/3", "25/10/40/20/5", "65/20/10/3/2"]


def test_both_shipped_files_have_the_same_profiles():
    comprehensive, quick = (
        load_file(find_file(name)) for name in ("comprehensive_rl_training_config.yaml", "quick_validation_config.yaml")
    )
    assert comprehensive.profiles == quick.profiles


def test_the_quick_scenario_lets_sessions_of_every_profile_end():
    scenario = load_file(find_file("quick_validation_config.yaml")).scenario()
    assert all(p.session_duration_min[1] < scenario.duration_min for p in scenario.profiles.values())
    assert all(set(one.distribution) == set(scenario.profiles) for one in scenario.phases)
    assert all(len(one.weights) == 5 for one in scenario.phases)


def test_a_file_says_its_path_and_the_hash_of_its_bytes(tmp_path):
    path = tmp_path / "day.json"
    path.write_text(json.dumps(tree()))
    file = load_file(path)
    assert (file.path, file.text_sha256) == (str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    assert load_text(path.read_text(), "day.json").scenarios == file.scenarios


def test_yaml_and_json_give_the_same_scenarios():
    from_yaml = load_text(textwrap.dedent(json.dumps(tree(), indent=1)), "day.yaml")
    assert from_yaml.scenarios == load(tree()).scenarios


def message(error):
    return str(error.value).splitlines()[1].strip()


def test_a_name_is_looked_up_here_then_in_configs_and_json_finds_yaml(tmp_path, monkeypatch):
    here, configs = tmp_path / "here", tmp_path / "configs"
    here.mkdir()
    configs.mkdir()
    monkeypatch.chdir(here)
    (configs / "a_config.yaml").touch()
    (configs / "b_config.json").touch()
    assert find_file("a_config.yaml", configs) == configs / "a_config.yaml"
    assert find_file("a_config.json", configs) == configs / "a_config.yaml"
    assert find_file("b_config.json", configs) == configs / "b_config.json"
    (here / "a_config.yaml").touch()
    assert str(find_file("a_config.yaml", configs)) == "a_config.yaml"
    assert find_file(here / "a_config.json", configs) == here / "a_config.yaml"


def test_a_file_that_is_not_there_says_what_was_tried(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "quick_config.yaml").touch()
    with pytest.raises(ScenarioError) as caught:
        find_file("quik_config.json", configs)
    assert message(caught) == (
        f"the whole file: no such file (tried quik_config.json, {configs}/quik_config.json, quik_config.yaml, "
        f"{configs}/quik_config.yaml, quik_config.yml, {configs}/quik_config.yml). Did you mean 'quick_config.yaml'? "
        "Known are: quick_config.yaml."
    )


@pytest.mark.parametrize("name", ["..", ".", "/", "sub/none.yaml"])
def test_odd_names_find_nothing_and_do_not_crash(name, tmp_path):
    with pytest.raises(ScenarioError):
        find_file(name, tmp_path)


def test_a_folder_or_a_pipe_is_not_a_file(tmp_path):
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    for path in (tmp_path, pipe, tmp_path / "none.yaml"):
        with pytest.raises(ScenarioError) as caught:
            load_file(path)
        assert message(caught) == "the whole file: is not a file. Name a scenario file, such as one of configs/."


def test_scenarios_are_asked_for_by_name():
    whole = tree()
    assert load(whole).scenario().name == load(whole).scenario("day").name == "day"
    scenarios = suite(whole)["training_scenarios"]
    scenarios["night"] = scenarios["day"]
    with pytest.raises(ScenarioError) as caught:
        load(whole).scenario()
    assert message(caught) == "training_scenarios: has 2 scenarios. Name one of them: day, night."
    with pytest.raises(ScenarioError) as caught:
        load(whole).scenario("nigth")
    assert message(caught) == (
        "training_scenarios: there is no scenario 'nigth'. Did you mean 'night'? Known are: day, night."
    )

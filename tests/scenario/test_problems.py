"""Every problem a file can have, by its whole message."""

import json

import pytest

from scenario.errors import SHOWN_PROBLEMS, Problem, ScenarioError
from scenario.load import load_text
from tests.scenario.files import PRODUCT, PROFILE, load, phase, problems, profile, suite, tree

PHASE_0 = "training_scenarios.day.traffic_patterns[0]"
PHASE_1 = "training_scenarios.day.traffic_patterns[1]"
BROWSER = "user_behavior_profiles.browser"
PAIR = "Write it as [smallest, largest]."
NAME = "is not a name. Use 1 to 64 letters, digits, _ and -; the name becomes part of file names."
MAPPING = "not a mapping. Write it as keys with values."
NO_VALUE = "has no value. Give it one, or leave the key out where that is allowed."
SERVICES = "cart-service, inventory-service, order-service, payment-service, user-service"
CONDITIONS = "latency_factor, error_rate, timeout_rate, capacity, antagonist, crash"
TO_PHASE = "belongs into a phase, because phases are what the data is judged by"
MOVE = "Move it into the traffic_patterns that it is meant for."
INTO_CHAOS = "Write it into the chaos_parameters of the phase"
INTENSITIES = "'extreme', 'very_high', 'high', 'medium', 'medium_low', 'low' or 'variable'"
LEVELS = "'very_low', 'low', 'medium', 'high', 'very_high' or 'extreme'"
PHASE_KEYS = (
    "chaos_parameters, concurrent_users, description, duration_minutes, expected_service_stress, failure_timeline, "
    "intensity, name, ramp_up_time_seconds, scenario_weights, service_load_characteristics, simulated_conditions, "
    "start_minute, target_products, user_behavior_distribution"
)
PROFILE_KEYS = (
    "action_probabilities, cart_abandonment_rate, cart_size, conversion_rate, description, pages_per_session, "
    "session_duration_range, think_time_range"
)


# -- how a valid file is changed --------------------------------------------------------------------------------------


def base(**values):
    return lambda t: suite(t)["base_config"].update(values)


def of_phase(index=0, **values):
    return lambda t: phase(t, index).update(values)


def of_browser(**values):
    return lambda t: profile(t).update(values)


def of_suite(**values):
    return lambda t: suite(t).update(values)


def of_day(**values):
    return lambda t: suite(t)["training_scenarios"]["day"].update(values)


def of_product(**values):
    return lambda t: suite(t)["product_catalogue"][0].update(values)


def of_address(**values):
    return lambda t: suite(t)["shipping_addresses"][0].update(values)


def drop(*path):
    def change(t):
        node = suite(t)
        for part in path[:-1]:
            node = node[part]
        del node[path[-1]]

    return change


def number_text(value, words):
    return f"is {value}, which is not {words}. Give a number {words}."


# (how a valid file is changed, the one line that must come of it)
SINGLE = [
    # structure
    (lambda t: t.clear(), "the whole file: rl_training_scenarios is missing. Add it (Everything of the file)."),
    (lambda t: t.update(rl_training_scenarios=None), f"rl_training_scenarios: {NO_VALUE}"),
    (
        lambda t: t.update(training_scenarios={}),
        (
            "the whole file: unknown key 'training_scenarios'. Put training_scenarios under rl_training_scenarios, "
            "or convert the file: python -m scenario convert FILE."
        ),
    ),
    (
        of_phase(intensty="low"),
        f"{PHASE_0}: unknown key 'intensty'. Did you mean 'intensity'? Known are: {PHASE_KEYS}.",
    ),
    (of_browser(xyzzy=1), f"{BROWSER}: unknown key 'xyzzy'. Known are: {PROFILE_KEYS}."),
    (
        lambda t: profile(t).update(conversion_rat=profile(t).pop("conversion_rate")),
        f"{BROWSER}: unknown key 'conversion_rat'. Did you mean 'conversion_rate'? Known are: {PROFILE_KEYS}.",
    ),
    (
        of_phase(retry_attempts=3),
        (f"{PHASE_0}: unknown key 'retry_attempts'. retry_attempts belongs to the scenario, beside traffic_patterns."),
    ),
    (
        of_browser(window_seconds=3),
        (f"{BROWSER}: unknown key 'window_seconds'. window_seconds belongs into base_config or a scenario."),
    ),
    (
        drop("user_behavior_profiles", "browser", "conversion_rate"),
        (f"{BROWSER}: conversion_rate is missing. Add it (Share of sessions that end in a paid order)."),
    ),
    (drop("product_catalogue"), "rl_training_scenarios: product_catalogue is missing. Add it (What shoppers buy)."),
    (of_suite(product_catalogue=[]), "product_catalogue: is empty. Add at least one entry."),
    (of_suite(user_behavior_profiles="x"), f"user_behavior_profiles: is the text 'x', {MAPPING}"),
    (
        of_day(traffic_patterns={}),
        ("training_scenarios.day.traffic_patterns: is a mapping, not a list. Write its entries as a list."),
    ),
    (of_day(traffic_patterns=[]), "training_scenarios.day.traffic_patterns: is empty. Add at least one entry."),
    (lambda t: suite(t)["training_scenarios"].update(night=[]), f"training_scenarios.night: is a list, {MAPPING}"),
    (
        of_phase(1, user_behavior_distribution={}),
        f"{PHASE_1}.user_behavior_distribution: is empty. Add at least one entry.",
    ),
    (of_phase(concurrent_users=None), f"{PHASE_0}.concurrent_users: {NO_VALUE}"),
    (of_browser(cart_size=None), f"{BROWSER}.cart_size: {NO_VALUE}"),
    # numbers
    (
        of_phase(concurrent_users=10.0),
        (f"{PHASE_0}.concurrent_users: is the number 10, not a whole number. Write a whole number such as 5."),
    ),
    (
        of_phase(concurrent_users="10"),
        (
            f"{PHASE_0}.concurrent_users: is the text '10', not a whole number. "
            "Write a whole number such as 5, without quotes."
        ),
    ),
    (
        of_phase(concurrent_users=True),
        (f"{PHASE_0}.concurrent_users: is the truth value true, not a whole number. Write a whole number such as 5."),
    ),
    (
        of_browser(conversion_rate="0.5"),
        (f"{BROWSER}.conversion_rate: is the text '0.5', not a number. Write a number such as 0.5, without quotes."),
    ),
    (of_phase(concurrent_users=0), f"{PHASE_0}.concurrent_users: {number_text(0, 'above 0')}"),
    (of_phase(concurrent_users=-5), f"{PHASE_0}.concurrent_users: {number_text(-5, 'above 0')}"),
    (of_phase(duration_minutes=0), f"{PHASE_0}.duration_minutes: {number_text(0, 'above 0')}"),
    (of_phase(duration_minutes=-2.5), f"{PHASE_0}.duration_minutes: {number_text(-2.5, 'above 0')}"),
    (of_phase(concurrent_users=10**12), f"{PHASE_0}.concurrent_users: {number_text(10**12, 'at most 1000000')}"),
    (of_browser(conversion_rate=1.5), f"{BROWSER}.conversion_rate: {number_text(1.5, 'at most 1')}"),
    (of_browser(conversion_rate=-0.1), f"{BROWSER}.conversion_rate: {number_text(-0.1, 'at least 0')}"),
    (
        of_browser(conversion_rate=float("nan")),
        (f"{BROWSER}.conversion_rate: is nan, not a finite number. Give a finite number."),
    ),
    (
        of_phase(duration_minutes=float("inf")),
        (f"{PHASE_0}.duration_minutes: is inf, not a finite number. Give a finite number."),
    ),
    (of_browser(cart_size=[1, 101]), f"{BROWSER}.cart_size[1]: {number_text(101, 'at most 100')}"),
    # ranges
    (of_browser(session_duration_range=7), f"{BROWSER}.session_duration_range: is the number 7, not a pair. {PAIR}"),
    (of_browser(session_duration_range=[7]), f"{BROWSER}.session_duration_range: has 1 value, not 2. {PAIR}"),
    (of_browser(session_duration_range=[]), f"{BROWSER}.session_duration_range: has no values, not 2. {PAIR}"),
    (of_browser(session_duration_range=[5, 6, 7]), f"{BROWSER}.session_duration_range: has 3 values, not 2. {PAIR}"),
    (
        of_browser(session_duration_range=["a", 7]),
        (
            f"{BROWSER}.session_duration_range[0]: is the text 'a', not a number. "
            "Write a number such as 0.5, without quotes."
        ),
    ),
    (
        of_browser(session_duration_range=[15, 5]),
        f"{BROWSER}.session_duration_range: [15, 5] starts above its end. {PAIR}",
    ),
    (of_browser(pages_per_session=[20, 8]), f"{BROWSER}.pages_per_session: [20, 8] starts above its end. {PAIR}"),
    (of_browser(think_time_range=[3.0, 1.5]), f"{BROWSER}.think_time_range: [3, 1.5] starts above its end. {PAIR}"),
    (of_browser(cart_size=[4, 1]), f"{BROWSER}.cart_size: [4, 1] starts above its end. {PAIR}"),
    # texts and names
    (of_phase(name="../etc"), f"{PHASE_0}.name: '../etc' {NAME}"),
    (of_phase(name=""), f"{PHASE_0}.name: '' {NAME}"),
    (of_phase(name="a" * 65), f"{PHASE_0}.name: '{'a' * 59}... {NAME}"),
    (of_phase(name="a\n"), f"{PHASE_0}.name: 'a\\n' {NAME}"),
    (of_phase(name=5), f"{PHASE_0}.name: is the number 5, not text. Put it in quotes."),
    (
        lambda t: suite(t)["user_behavior_profiles"].update({"a/b": PROFILE}),
        f"user_behavior_profiles.'a/b': 'a/b' {NAME}",
    ),
    (
        lambda t: suite(t).update(training_scenarios={"a b": suite(t)["training_scenarios"]["day"]}),
        f"training_scenarios.'a b': 'a b' {NAME}",
    ),
    (
        of_phase(description="\x1b[31mred"),
        (
            f"{PHASE_0}.description: holds control characters. "
            "Remove them; names and descriptions are printed on terminals."
        ),
    ),
    (
        of_phase(description=" "),
        (f"{PHASE_0}.description: is blank. Write something, or leave the key out where that is allowed."),
    ),
    (of_phase(description="x" * 2001), f"{PHASE_0}.description: is longer than 2000 characters. Shorten it."),
    (
        of_phase(intensity="very-high"),
        (f"{PHASE_0}.intensity: 'very-high' is not one of {INTENSITIES}. Did you mean 'very_high'?"),
    ),
    (of_phase(intensity=3), f"{PHASE_0}.intensity: 3 is not one of {INTENSITIES}. Choose one of them."),
    (
        of_phase(service_load_characteristics={"cart-service": [1]}),
        f"{PHASE_0}.service_load_characteristics.cart-service: [1] is not one of {LEVELS}. Choose one of them.",
    ),
    (
        base(base_url="ftp://x"),
        (
            "base_config.base_url: 'ftp://x' is not an http or https address. "
            "Write one such as http://localhost:8080/proxy, without query."
        ),
    ),
    # catalogue and addresses
    (
        of_product(sku="../x"),
        (
            "product_catalogue[0].sku: '../x' is not a SKU. "
            "Use 1 to 64 letters, digits, . _ and -, starting with a letter or digit."
        ),
    ),
    (of_product(price=0), f"product_catalogue[0].price: {number_text(0, 'above 0')}"),
    (of_product(weight=0), f"product_catalogue[0].weight: {number_text(0, 'above 0')}"),
    (
        of_suite(product_catalogue=[PRODUCT, PRODUCT]),
        (
            "product_catalogue[1].sku: 'MUG-1' is the SKU of "
            "product_catalogue[0] already. Give every product a SKU of its own."
        ),
    ),
    (of_address(zip_code=2108), "shipping_addresses[0].zip_code: is the number 2108, not text. Put it in quotes."),
    (
        of_address(zip_code="2108"),
        ('shipping_addresses[0].zip_code: \'2108\' is not a zip code. Write "12345" or "12345-6789".'),
    ),
    (
        of_address(phone="555 1234"),
        ("shipping_addresses[0].phone: '555 1234' is not a phone number. Write digits only, such as \"+12025550123\"."),
    ),
    # faults
    (
        of_phase(simulated_conditions={"checkout": {"error_rate": 0.2}}),
        f"{PHASE_0}.simulated_conditions.checkout: there is no service 'checkout'. Known are: {SERVICES}.",
    ),
    (
        of_phase(simulated_conditions={"cart": {"error_rate": 0.2}, "cart-service": {"latency_factor": 2}}),
        (f"{PHASE_0}.simulated_conditions: 'cart-service' and 'cart' name the same service. Keep one of them."),
    ),
    (
        of_phase(simulated_conditions={"cart": {}}),
        (f"{PHASE_0}.simulated_conditions.cart: says nothing of what goes wrong. Give at least one of {CONDITIONS}."),
    ),
    (
        of_phase(simulated_conditions={"cart": {"latency_factor": "5x normal"}}),
        (
            f"{PHASE_0}.simulated_conditions.cart.latency_factor: is the text '5x normal', not a number. "
            "Write a number such as 0.5, without quotes."
        ),
    ),
    (
        of_phase(simulated_conditions={"cart": {"latency_factor": 1}}),
        f"{PHASE_0}.simulated_conditions.cart.latency_factor: {number_text(1, 'above 1')}",
    ),
    (
        of_phase(simulated_conditions={"cart": {"crash": True, "instances": ["a", "a"]}}),
        f"{PHASE_0}.simulated_conditions.cart.instances: names an instance twice. Name each one once.",
    ),
    (
        of_phase(failure_timeline=[{"minute": 8, "duration_minutes": 3, "service": "cart", "crash": True}]),
        (
            f"{PHASE_0}.failure_timeline[0]: ends at minute 11 of a phase of 10 minutes. "
            "Shorten it, or write the rest into the next phase."
        ),
    ),
    (
        of_phase(failure_timeline=[{"minute": 8, "duration_minutes": 1, "service": "cart", "error_rat": 0.1}]),
        (
            f"{PHASE_0}.failure_timeline[0]: unknown key 'error_rat'. Did you mean 'error_rate'? Known are: "
            "antagonist, capacity, crash, duration_minutes, error_rate, instances, latency_factor, minute, service, "
            "timeout_rate."
        ),
    ),
    # chaos
    (
        of_phase(chaos_parameters={"change_every_seconds": 60}),
        (
            f"{PHASE_0}.chaos_parameters: randomizes nothing. "
            "Give one of user_variance, think_time_variance, action_randomness a value above 0."
        ),
    ),
    (
        of_phase(chaos_parameters={"user_variance": 0.2, "change_every_seconds": 30}),
        (
            f"{PHASE_0}.chaos_parameters.change_every_seconds: is 30 s, but users take 30 s to change. "
            "Use a larger one, or a shorter ramp."
        ),
    ),
    (
        of_phase(concurrent_users=18, chaos_parameters={"user_variance": 0.2}),
        (
            f"{PHASE_0}.concurrent_users: is 18 and wanders up to 22, but base_config.max_concurrent_users is 20. "
            "Use fewer users or raise max_concurrent_users."
        ),
    ),
    (
        of_phase(chaos_parameters={"user_variance": 1}),
        f"{PHASE_0}.chaos_parameters.user_variance: is 1, which is not below 1. Give a number below 1.",
    ),
    # products, ramps, expectations
    (
        of_phase(target_products=["MUG-1", "MUG-9"]),
        f"{PHASE_0}.target_products[1]: 'MUG-9' is not in product_catalogue. Did you mean 'MUG-1'? Known are: MUG-1.",
    ),
    (
        of_phase(target_products=["MUG-1", "MUG-1"]),
        f"{PHASE_0}.target_products[1]: 'MUG-1' stands there already. Name each product once.",
    ),
    (
        of_phase(ramp_up_time_seconds=600),
        (
            f"{PHASE_0}.ramp_up_time_seconds: is 600 s, but the phase lasts only 600 s. "
            "Use a shorter ramp or a longer phase."
        ),
    ),
    (
        of_phase(expected_service_stress={"till": "high"}),
        f"{PHASE_0}.expected_service_stress: there is no service 'till'. Known are: {SERVICES}.",
    ),
    (
        of_phase(service_load_characteristics={"cart": "hgh"}),
        (
            f"{PHASE_0}.service_load_characteristics.cart: 'hgh' is not one of 'very_low', 'low', 'medium', 'high', "
            "'very_high' or 'extreme'. Did you mean 'high'?"
        ),
    ),
    # keys that users have elsewhere
    *(
        (of_day(**{key: {}}), f"training_scenarios.day.{key}: {TO_PHASE}. {MOVE}")
        for key in ("simulated_conditions", "chaos_parameters", "target_products")
    ),
    (
        of_day(failure_timeline=[]),
        (
            f"training_scenarios.day.failure_timeline: {TO_PHASE}. "
            "Move each entry into its phase, with its minute counted from the phase's start."
        ),
    ),
    *(
        (of_phase(**{key: 0.3}), f"{PHASE_0}.{key}: stands in the wrong place. {INTO_CHAOS}.")
        for key in ("user_variance", "think_time_variance", "action_randomness")
    ),
    (of_phase(user_count_variance=0.3), f"{PHASE_0}.user_count_variance: is not a key. {INTO_CHAOS} as user_variance."),
    (of_phase(chaos_config={}), f"{PHASE_0}.chaos_config: is not a key. {INTO_CHAOS}."),
    (
        base(ramp_up_time_seconds=60),
        "base_config.ramp_up_time_seconds: is a phase's own. Write ramp_seconds, which holds for every phase.",
    ),
    *(
        (
            base(**{key: 10}),
            (
                f"base_config.{key}: means nothing here: every shopper has a connection of its own, as browsers have, "
                "and no pool is shared. Remove it; concurrent_users says how many connections there are."
            ),
        )
        for key in ("connection_pool_size", "max_connections", "pool_size")
    ),
    *(
        (base(**{old: 10}), f"base_config.{old}: is not a key. Write {new}.")
        for old, new in (
            ("request_timeout", "request_timeout_seconds"),
            ("max_retries", "retry_attempts"),
            ("retry_delay", "retry_delay_seconds"),
        )
    ),
]


# -- one mistake, one line --------------------------------------------------------------------------------------------


def test_the_file_that_the_tests_change_is_valid():
    assert list(load(tree()).scenarios) == ["day"]


@pytest.mark.parametrize(("change", "line"), SINGLE, ids=[str(line)[:70] for _, line in SINGLE])
def test_one_mistake_gives_one_line(change, line):
    whole = tree()
    change(whole)
    assert problems(whole) == [line]


# -- many at once -----------------------------------------------------------------------------------------------------


def test_yaml_and_json_give_the_same_messages():
    whole = tree()
    of_phase(name="../etc", intensity="lo", concurrent_users=0)(whole)
    with pytest.raises(ScenarioError) as from_yaml:
        load_text(json.dumps(whole), "x")
    with pytest.raises(ScenarioError) as from_json:
        load_text(json.dumps(whole), "x.json")
    assert from_yaml.value.problems == from_json.value.problems


def test_ten_different_mistakes_give_ten_lines_at_once():
    whole = tree()
    of_browser(
        conversion_rat=0.3,
        think_time_range=[3, 1],
        action_probabilities={"browse": 0.9},
    )(whole)
    del profile(whole)["conversion_rate"]
    profile(whole, "buyer").update(conversion_rate=0.9, cart_size=["one", 4])
    of_phase(concurrent_users=-1, intensity="hgh", user_behavior_distribution={"browsr": 0.6, "buyers": 0.4})(whole)
    of_phase(1, name="morning", start_minute=11, simulated_conditions={})(whole)
    assert sorted(problems(whole)) == sorted(
        [
            f"{BROWSER}: unknown key 'conversion_rat'. Did you mean 'conversion_rate'? Known are: {PROFILE_KEYS}.",
            f"{BROWSER}.think_time_range: [3, 1] starts above its end. {PAIR}",
            (
                f"{BROWSER}.action_probabilities: adds up to 0.9, not 1 (browse 0.9). "
                "Change the probabilities so that they add up to 1."
            ),
            (
                "user_behavior_profiles.buyer: conversion_rate 0.9 with cart_abandonment_rate 0.4 needs 1.5 carts per "
                "session, more than 1. Lower one of them: conversion_rate / (1 - cart_abandonment_rate) is the share "
                "of sessions with a cart."
            ),
            (
                "user_behavior_profiles.buyer.cart_size[0]: is the text 'one', not a whole number. "
                "Write a whole number such as 5, without quotes."
            ),
            f"{PHASE_0}.concurrent_users: {number_text(-1, 'above 0')}",
            f"{PHASE_0}.intensity: 'hgh' is not one of {INTENSITIES}. Did you mean 'high'?",
            (
                f"{PHASE_0}.user_behavior_distribution: the profile 'browsr' is not defined. Did you mean 'browser'? "
                "Known are: browser, buyer."
            ),
            (
                f"{PHASE_1}.name: 'morning' is the name of traffic_patterns[0] already. "
                "Give every phase a name of its own."
            ),
            (
                f"{PHASE_1}.start_minute: is 11, but morning ends at minute 10: a gap of 1 min. "
                "Write 10, or leave start_minute out."
            ),
            f"{PHASE_1}.simulated_conditions: is empty. Add at least one entry.",
        ]
    )


def test_a_phase_that_is_not_a_mapping_hides_nothing_in_the_others():
    whole = tree()
    suite(whole)["training_scenarios"]["day"]["traffic_patterns"].insert(0, "morning")
    phase(whole, 2)["concurrent_users"] = 30
    assert problems(whole) == [
        f"{PHASE_0}: is the text 'morning', {MAPPING}",
        (
            "training_scenarios.day.traffic_patterns[2].concurrent_users: is 30, but base_config.max_concurrent_users "
            "is 20. Use fewer users or raise max_concurrent_users."
        ),
    ]


def test_a_profile_that_is_not_a_mapping_is_still_defined():
    whole = tree()
    suite(whole)["user_behavior_profiles"]["browser"] = 3
    assert problems(whole) == [f"{BROWSER}: is the number 3, {MAPPING}"]


def test_a_long_list_of_problems_says_how_many_are_not_shown():
    many = ScenarioError("f.yaml", [Problem(f"a[{n}]", "is wrong", "Correct it") for n in range(SHOWN_PROBLEMS + 2)])
    lines = str(many).splitlines()
    assert lines[0] == "f.yaml: 102 problems"
    assert lines[-2:] == ["  a[99]: is wrong. Correct it.", "  and 2 more, not shown"]
    assert len(many.problems) == SHOWN_PROBLEMS + 2


def test_a_file_with_very_many_names_lists_some_of_them():
    whole = tree()
    suite(whole)["user_behavior_profiles"].update({f"kind_{n}": PROFILE for n in range(40)})
    of_phase(user_behavior_distribution={"zzz": 1.0})(whole)
    (line,) = problems(whole)
    assert line.endswith("kind_27 and 12 more.")

"""Kinds of shoppers of old files."""

import pytest

from tests.scenario.files import PROFILE, phase, profile, suite, tree
from tests.scenario.old_files import convert, lines, refused, result


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


def test_one_profile_with_two_shares_is_refused():
    old = tree()
    phase(old)["user_behavior_distribution"] = {"browser": 0.3, "Browsers": 0.3, "buyer": 0.4}
    assert refused(old) == [
        (
            "training_scenarios.day.traffic_patterns[0].user_behavior_distribution.Browsers: "
            "the profile 'browser' has a share already. Keep one of them."
        )
    ]


def test_pages_that_are_not_said_leave_room_in_the_session():
    old = tree()
    profile(old)["think_time_range"] = [10, 20]
    del profile(old)["pages_per_session"]
    converted = convert(old)
    pages = result(converted)["user_behavior_profiles"]["browser"]["pages_per_session"]
    assert pages[0] < 8
    (line,) = lines(converted)
    assert line == (
        f"user_behavior_profiles.browser.pages_per_session: not there -> {pages} "
        "(default [8, 20], as many as leave room in half a session)"
    )

from dataclasses import replace

import pytest

from profiles.choice import Intent, draw_intent, free_visit_shares, pick
from rl_hooks import row
from scenario.model import Profile

ACTIONS = {"browse": 0.45, "search": 0.3, "cart": 0.2, "order": 0.05}
SHOPPER = Profile("p", "", 0.35, 0.4, (8, 20), (40, 90), (1.5, 4.0), ACTIONS, (2, 5))
WEIGHTS = {"browse": 60.0, "search": 25.0, "cart": 10.0, "order": 3.0, "profile": 2.0}


def test_intents_have_the_names_that_are_stored() -> None:
    assert {intent.name for intent in Intent} == {intent.name for intent in row.Intent}


def test_an_intent_is_drawn_with_its_probability() -> None:
    steps = 60_000
    drawn = [draw_intent(SHOPPER, (n + 0.5) / steps) for n in range(steps)]
    shares = {intent: drawn.count(intent) / steps for intent in Intent}
    abandon = 0.35 * 0.4 / 0.6
    assert shares[Intent.PURCHASE] == pytest.approx(0.35, abs=1e-4)
    assert shares[Intent.ABANDON] == pytest.approx(abandon, abs=1e-4)
    assert shares[Intent.ABANDON] / (shares[Intent.ABANDON] + shares[Intent.PURCHASE]) == pytest.approx(0.4, abs=1e-3)


def test_a_free_visit_is_probability_times_weight_and_profile_visits_take_the_phase_share() -> None:
    shares = free_visit_shares(SHOPPER, WEIGHTS, Intent.PURCHASE)
    products = {"browse": 0.45 * 60, "search": 0.3 * 25, "cart": 0.2 * 10, "order": 0.05 * 3}
    assert shares["profile"] == pytest.approx(0.02)
    for user_action, product in products.items():
        assert shares[user_action] == pytest.approx(0.98 * product / sum(products.values()))


def test_an_omitted_weight_is_neutral() -> None:
    shares = free_visit_shares(SHOPPER, {"browse": 50.0, "order": 10.0}, Intent.PURCHASE)
    assert shares["cart"] / shares["browse"] == pytest.approx(0.2 * 30 / (0.45 * 50))
    assert "profile" not in shares


def test_a_profile_that_lists_profile_visits_multiplies_them_too() -> None:
    lists = replace(SHOPPER, user_actions={"browse": 0.5, "profile": 0.5})
    shares = free_visit_shares(lists, {"browse": 30.0, "profile": 10.0}, Intent.BROWSE_ONLY)
    assert shares == pytest.approx({"browse": 0.75, "profile": 0.25})


def test_a_browsing_session_neither_fills_a_cart_nor_orders() -> None:
    assert set(free_visit_shares(SHOPPER, WEIGHTS, Intent.BROWSE_ONLY)) == {"browse", "search", "profile"}


def test_a_session_that_may_do_nothing_browses() -> None:
    buyer = replace(SHOPPER, user_actions={"cart": 0.5, "order": 0.5})
    assert free_visit_shares(buyer, {"cart": 1.0}, Intent.BROWSE_ONLY) == {"browse": 1.0}


def test_pick_covers_the_line_and_skips_what_has_no_share() -> None:
    shares = {"a": 0.0, "b": 1.0, "c": 0.0, "d": 3.0, "e": 0.0}
    assert [pick(shares, u) for u in (0.0, 0.2499, 0.25, 0.9999999999999999)] == ["b", "b", "d", "d"]
    with pytest.raises(ValueError, match="no choice has a share above zero"):
        pick({"a": 0.0}, 0.5)

"""What a user action costs, against a plain simulation of the rules and against the numbers everybody quotes."""

import doctest
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

import scenario.chaos
import scenario.model
from rl_hooks import decision
from scenario import visits
from scenario.load import CONFIGS, load_file
from scenario.model import SERVICES, USER_ACTIONS, one_name

CONFIG = CONFIGS / "comprehensive_rl_training_config.yaml"
SCENARIO = load_file(CONFIG).scenario()


@pytest.mark.parametrize(("module", "examples"), [(visits, 2), (scenario.model, 3), (scenario.chaos, 1)])
def test_the_worked_examples(module, examples):
    assert tuple(doctest.testmod(module)) == (0, examples)


def test_services_and_endpoints_are_those_of_the_balancer_contract():
    assert SERVICES == decision.SERVICES
    tables = [*visits.CALLS.values(), visits.CALLS_CART_FULL, visits.CALLS_ORDER_EMPTY_CART, visits.CALLS_CHECKOUT_ONLY]
    for endpoint in {endpoint for calls in [*tables, visits.CALLS_SESSION_START] for endpoint in calls}:
        service, method, path = endpoint.split(" ")
        assert service in SERVICES
        assert method in ("GET", "POST", "PUT")
        assert path.startswith("/api/")


def test_every_page_visit_reads_the_mini_cart_once():
    tables = [*visits.CALLS.values(), visits.CALLS_CART_FULL, visits.CALLS_ORDER_EMPTY_CART, visits.CALLS_CHECKOUT_ONLY]
    assert [calls[visits.CART_SUMMARY] for calls in tables] == [1] * len(tables)
    assert tuple(visits.CALLS) == USER_ACTIONS
    assert sum(visits.BROWSE_OPENS) == pytest.approx(1)
    assert visits.CALLS["browse"][visits.PRODUCT] == pytest.approx(0.4)


@pytest.mark.parametrize("target", range(1, 101))
def test_a_cart_reaches_its_target_in_the_lines_that_are_told(target):
    units, lines = 0, 0
    while units < target:
        units += min(visits.line_quantity(target), target - units)
        lines += 1
    assert lines == visits.lines_of(target) <= visits.MAX_LINES


def test_choices_follow_probability_times_weight():
    weights = visits.weigh({"browse": 0.5, "cart": 0.5}, {"browse": 30, "cart": 10})
    assert weights == {"browse": 0.75, "search": 0.0, "cart": 0.25, "order": 0.0, "profile": 0.0}


def test_an_omitted_weight_is_the_mean_of_those_given():
    weights = visits.weigh({"browse": 0.5, "search": 0.5}, {"browse": 30, "cart": 10})
    assert weights["search"] / weights["browse"] == pytest.approx(20 / 30)


def test_profile_visits_take_the_weights_share_when_the_profile_does_not_list_them():
    weights = visits.weigh({"browse": 1.0}, {"browse": 30, "cart": 50, "profile": 20})
    assert weights == {"browse": pytest.approx(0.8), "search": 0, "cart": 0, "order": 0, "profile": pytest.approx(0.2)}
    assert visits.weigh({"browse": 1.0}, {"browse": 30})["profile"] == 0


def test_a_listed_profile_action_is_weighted_like_any_other():
    weights = visits.weigh({"browse": 0.5, "profile": 0.5}, {"browse": 30, "profile": 10})
    assert weights["profile"] == pytest.approx(0.25)


@pytest.mark.parametrize("name", SCENARIO.profiles)
def test_intents_hold_conversion_and_abandonment(name):
    profile = SCENARIO.profiles[name]
    intents = visits.intents(profile)
    assert sum(intents.values()) == pytest.approx(1)
    assert intents["purchase"] == profile.conversion_rate
    with_cart = intents["purchase"] + intents["abandon"]
    assert intents["abandon"] / with_cart == pytest.approx(profile.cart_abandonment_rate)


def simulate(profile, weights, visits_per_session, sessions, random):
    """Mean calls of a session, walked visit by visit the way section 4 of the specification tells it."""
    free = visits.weigh(profile.user_actions, weights)
    total = Counter()
    for _ in range(sessions):
        total.update(visits.CALLS_SESSION_START)
        intent = random.choices(*zip(*visits.intents(profile).items(), strict=True))[0]
        allowed = visits.ALLOWED[intent]
        ordered, missing, filled = False, draw_lines(profile, random), False
        for page in range(visits_per_session):
            left = visits_per_session - page
            action = random.choices(allowed, [free[one] for one in allowed])[0]
            if intent == "purchase" and not ordered and left == 1:
                action = "order"
            elif not filled and (intent, left) in (("purchase", 2), ("abandon", 1)) and not ordered:
                action = "cart"
            calls = visits.CALLS[action]
            if action == "cart":
                calls = calls if missing else visits.CALLS_CART_FULL
                missing, filled = max(0, missing - 1), True
            elif action == "order" and intent == "abandon":
                calls = visits.CALLS_CHECKOUT_ONLY
            elif action == "order":
                calls = calls if filled else visits.CALLS_ORDER_EMPTY_CART
                ordered, missing, filled = True, draw_lines(profile, random), False
            total.update(calls)
    return {endpoint: count / sessions for endpoint, count in total.items()}


def draw_lines(profile, random):
    return visits.lines_of(random.randint(*profile.cart_size))


@pytest.mark.parametrize("name", SCENARIO.profiles)
@pytest.mark.parametrize("index", [0, 4, 5])
def test_expected_calls_agree_with_a_simulation(name, index):
    profile, phase = SCENARIO.profiles[name], SCENARIO.phases[index]
    expected = visits.calls_per_user_s(profile, phase.weights, phase.pace)
    exact_visits = sum(profile.pages) / 2 / phase.pace
    whole = round(exact_visits)
    sessions = 1500
    simulated = simulate(profile, phase.weights, whole, sessions, Random(f"{name} {index}"))
    per_session = 1 / visits.sessions_per_user_s(profile)
    for endpoint, rate in expected.items():
        # 5 standard errors of a mean of counts that vary like a Poisson number at most twice over.
        mean = rate * per_session
        tolerance = 5 * (2 * max(mean, 1 / sessions) / sessions) ** 0.5 + 0.02 * mean
        assert simulated.get(endpoint, 0.0) == pytest.approx(mean, abs=tolerance), endpoint
    assert set(simulated) <= set(expected)


@pytest.mark.parametrize("pages", [1, 2, 3, 4])
def test_what_an_intent_forces_in_a_short_session_agrees_with_a_simulation(pages):
    profile = replace(SCENARIO.profiles["careful_shopper"], pages=(pages, pages))
    weights = SCENARIO.phases[1].weights
    rates = visits.calls_per_user_s(profile, weights, 1.0)
    sessions = 8000
    simulated = simulate(profile, weights, pages, sessions, Random(pages))
    for endpoint in (visits.CART_ADD, visits.CART_CHANGE, visits.ORDER_PLACE, visits.PAY, visits.ME):
        mean = rates.get(endpoint, 0.0) / visits.sessions_per_user_s(profile)
        tolerance = 4 * (max(mean, 1 / sessions) / sessions) ** 0.5
        assert simulated.get(endpoint, 0.0) == pytest.approx(mean, abs=tolerance), endpoint


def test_a_session_of_one_visit_still_keeps_its_intent():
    profile = replace(SCENARIO.profiles["bulk_buyer"], conversion_rate=1.0, cart_abandonment_rate=0.0, pages=(1, 1))
    rates = visits.calls_per_user_s(profile, SCENARIO.phases[0].weights, 1.0)
    for endpoint in (visits.PAY, visits.ORDER_PLACE, visits.CART_ADD):
        assert rates[endpoint] == pytest.approx(rates[visits.LOGIN])


@pytest.mark.parametrize(
    ("names", "one"),
    [
        (("careful_shopper", "careful_shoppers"), "careful_shopper"),
        (("party", "parties"), "party"),
        (("boss", "bosses", "boss"), "boss"),
        (("box", "boxes"), "box"),
        (("business_class",), "business_class"),
        (("bus", "s", "is"), None),
    ],
)
def test_singular_and_plural_are_one_name(names, one):
    assert [one_name(name) for name in names] == ([one] * len(names) if one else list(names))

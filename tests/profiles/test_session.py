"""What holds over thousands of sessions. Seeds are fixed; levels of confidence are stated with each test."""

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
from scipy import stats

from profiles import shop
from profiles.choice import Intent, free_visit_shares
from profiles.session import GAP_JITTER, Outcome, Session, SessionKey
from rl_hooks import row
from scenario.model import PACE, USER_ACTIONS, Address, Product, Profile
from scenario.plan import make_plan
from scenario.visits import CALLS, CALLS_CART_FULL, CALLS_CHECKOUT_ONLY, CALLS_ORDER_EMPTY_CART
from tests.profiles.simulator import WEIGHTS, Run, comprehensive, sessions, simulate, slow

PROFILES = ("quick_browser", "careful_shopper", "bulk_buyer", "impulse_buyer")
COUNT = 2000
BROWSING = {"browse": 1.0, "search": 0.0, "cart": 0.0, "order": 0.0}


@cache
def runs(profile: str) -> list[Run]:
    """2,000 sessions at intensity medium, answered at once."""
    return [simulate(session) for session in sessions(profile, COUNT)]


def test_outcomes_have_the_names_that_are_stored() -> None:
    assert {outcome.name for outcome in Outcome} == {outcome.name for outcome in row.Outcome}


@pytest.mark.parametrize("profile", PROFILES)
def test_conversion_and_abandonment_are_inside_their_99_percent_intervals(profile: str) -> None:
    shopper = comprehensive().profiles[profile]
    assert all(run.session.outcome() is Outcome.ENDED for run in runs(profile))
    ordered = sum(run.shop.payments > 0 for run in runs(profile))
    with_cart = sum(run.session.cart_adds > 0 for run in runs(profile))
    assert _inside_99(ordered, COUNT, shopper.conversion_rate)
    assert _inside_99(with_cart - ordered, with_cart, shopper.cart_abandonment_rate)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_intent_decides_what_happens(profile: str) -> None:
    for run in runs(profile):
        orders, adds = len(run.shop.orders), run.session.cart_adds
        assert run.shop.payments == run.session.orders_paid == run.session.orders_placed == orders
        match run.session.intent:
            case Intent.PURCHASE:
                assert orders >= 1 and adds >= orders
            case Intent.ABANDON:
                assert orders == 0 and adds >= 1 and run.shop.cart.total() >= 1
            case Intent.BROWSE_ONLY:
                assert orders == 0 and adds == 0 and not run.shop.cart


@pytest.mark.parametrize("profile", PROFILES)
def test_length_and_pages_are_inside_their_ranges_at_medium(profile: str) -> None:
    shopper = comprehensive().profiles[profile]
    shortest_s, longest_s = (60 * end for end in shopper.session_duration_min)
    for run in runs(profile):
        assert shortest_s <= run.end_s <= longest_s
        assert run.end_s == pytest.approx(run.session.length_s)
        assert shopper.pages[0] <= run.session.pages <= shopper.pages[1]
        assert run.session.pages == run.session.pages_planned == sum(run.session.visits.values())
    lengths = [run.end_s for run in runs(profile)]
    pages = [run.session.pages for run in runs(profile)]
    # The whole of both ranges is used, and longer sessions see more pages.
    assert min(lengths) < shortest_s + 0.02 * (longest_s - shortest_s)
    assert max(lengths) > longest_s - 0.02 * (longest_s - shortest_s)
    assert {min(pages), max(pages)} == set(shopper.pages)
    assert stats.spearmanr(lengths, pages).statistic > 0.9


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("intensity", [intensity for intensity in PACE if intensity not in ("medium", "variable")])
def test_length_is_inside_its_range_and_visits_follow_the_pace(profile: str, intensity: str) -> None:
    shopper, pace = comprehensive().profiles[profile], PACE[intensity]
    shortest_s, longest_s = (60 * end for end in shopper.session_duration_min)
    for session in sessions(profile, 40, seed=2):
        run = simulate(session, pace=pace)
        assert shortest_s <= run.end_s <= longest_s
        assert abs(session.pages - session.pages_planned / pace) <= 0.5 + 1e-9
        assert session.outcome() is Outcome.ENDED


@pytest.mark.parametrize("profile", PROFILES)
def test_visits_are_spread_over_the_whole_session(profile: str) -> None:
    """The middle visit is near the middle of the session: early pauses are not longer than late ones."""
    middles = [run.starts_s[len(run.starts_s) // 2] / run.end_s for run in runs(profile)]
    assert sum(middles) / COUNT == pytest.approx(0.5, abs=0.02)
    assert sum(run.starts_s[-1] / run.end_s for run in runs(profile)) / COUNT > 0.9


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("mean_s", [0.5, 2.0, 6.0])
def test_slow_answers_cost_pages_and_neither_length_nor_conversion(profile: str, mean_s: float) -> None:
    """A session may be late by what is in progress: one request, or the payment of an order just placed."""
    shopper = comprehensive().profiles[profile]
    for number, session in enumerate(sessions(profile, 60, seed=3)):
        longest_s = 0.0
        draws = slow(number, mean_s)

        def request_s() -> float:
            nonlocal longest_s
            took_s = draws()  # noqa: B023 - called within this turn of the loop
            longest_s = max(longest_s, took_s)
            return took_s

        run = simulate(session, pace=0.5, request_s=request_s)
        assert session.length_s <= run.end_s <= session.length_s + 2 * longest_s
        assert run.end_s >= 60 * shopper.session_duration_min[0]
        assert session.outcome() is Outcome.ENDED


@pytest.mark.parametrize("intent", Intent)
@pytest.mark.parametrize("profile", PROFILES)
def test_the_mix_of_free_visits_passes_a_chi_square_test_at_1_percent(profile: str, intent: Intent) -> None:
    free = Counter(
        visit.user_action
        for run in runs(profile)
        if run.session.intent is intent
        for visit in run.visits
        if not visit.forced
    )
    shares = free_visit_shares(comprehensive().profiles[profile], WEIGHTS, intent)
    assert set(free) == set(shares)
    total = free.total()
    expected = [shares[name] * total for name in shares]
    assert min(expected) >= 5
    assert stats.chisquare([free[name] for name in shares], expected).pvalue > 0.01


@pytest.mark.parametrize("profile", PROFILES)
def test_nothing_is_ordered_from_an_empty_cart_and_quantities_follow_the_profile(profile: str) -> None:
    """The shop of the simulator refuses an empty cart with an AssertionError."""
    lowest, largest = comprehensive().profiles[profile].cart_size
    units = [units for run in runs(profile) for units in run.shop.ordered_units]
    assert min(units) >= 1 and max(units) <= largest
    assert sum(units) / len(units) > lowest / 2


@pytest.mark.parametrize("profile", PROFILES)
def test_nothing_is_ordered_from_an_empty_cart_when_requests_fail(profile: str) -> None:
    for number, session in enumerate(sessions(profile, 80, seed=4)):
        draws = SessionKey(5, profile, 0, number).random("failures")
        run = simulate(session, fails=lambda step: draws.random() < 0.2)  # noqa: B023 - used within this turn
        assert run.session.orders_placed == len(run.shop.orders)
        assert run.session.orders_paid == run.shop.payments
        if session.intent is not Intent.PURCHASE:
            assert run.shop.orders == []
        if session.intent is Intent.BROWSE_ONLY:
            assert not run.shop.cart


@pytest.mark.parametrize("profile", PROFILES)
def test_what_an_earlier_session_left_in_the_cart_is_not_ordered(profile: str) -> None:
    largest = comprehensive().profiles[profile].cart_size[1]
    for session in sessions(profile, 60, seed=6):
        run = simulate(session, leftover={"OLD": 60})
        assert max(run.shop.ordered_units, default=0) <= largest
        assert session.outcome() is Outcome.ENDED


@pytest.mark.parametrize("profile", PROFILES)
def test_the_calls_of_every_kind_of_visit_are_those_of_the_plan(profile: str) -> None:
    """Fixed calls exactly; the number of opened products inside 99 % of a normal distribution."""
    table = {
        **CALLS,
        "cart_full": CALLS_CART_FULL,
        "order_empty_cart": CALLS_ORDER_EMPTY_CART,
        "checkout_only": CALLS_CHECKOUT_ONLY,
    }
    visits: Counter[str] = Counter()
    calls: dict[str, Counter[str]] = {}
    for run in runs(profile):
        visits.update(run.kinds)
        for kind, counts in run.calls.items():
            calls.setdefault(kind, Counter()).update(counts)
    assert set(visits) == set(table)
    for kind, means in table.items():
        assert set(calls[kind]) == set(means)
        for endpoint, mean in means.items():
            seen = calls[kind][endpoint] / visits[kind]
            if mean == 1:
                assert seen == 1, (kind, endpoint)
            else:
                spread = (0.34 if kind == "browse" else 0.25) ** 0.5  # variances of 0/1/2 and of 0/1 products
                assert seen == pytest.approx(mean, abs=2.58 * spread / visits[kind] ** 0.5), (kind, endpoint)


@pytest.mark.parametrize("profile", PROFILES)
def test_requests_per_second_are_what_the_plan_expects(profile: str) -> None:
    """Sessions of one user, back to back, against the plan's rates for that user: 4 %, for rare calls 15 %."""
    base = comprehensive()
    phase = replace(base.phases[1], weights=WEIGHTS, distribution={profile: 1.0}, users=1, intensity="medium")
    plan = make_plan(replace(base, phases=(replace(phase, start_min=0.0),)))
    expected = plan.expected_rps(plan.phases[0])
    seconds = sum(run.end_s for run in runs(profile))
    seen: Counter[str] = Counter()
    for run in runs(profile):
        for counts in run.calls.values():
            seen.update(counts)
    for endpoint in (shop.CATEGORY, shop.PRODUCT, shop.SEARCH, shop.SUMMARY, shop.CART, shop.ADD, shop.PLACE, shop.PAY):
        tolerance = 0.04 if seen[endpoint.key] > 10_000 else 0.15
        assert seen[endpoint.key] / seconds == pytest.approx(expected[endpoint.key], rel=tolerance), endpoint.key


@pytest.mark.parametrize("profile", PROFILES)
def test_the_same_seed_makes_the_same_sessions(profile: str) -> None:
    first = [simulate(session) for session in sessions(profile, 25)]
    again = [simulate(session) for session in sessions(profile, 25)]
    other = [simulate(session) for session in sessions(profile, 25, seed=99)]
    assert [run.visits for run in first] == [run.visits for run in again]
    assert [run.starts_s for run in first] == [run.starts_s for run in again]
    assert [run.visits for run in first] != [run.visits for run in other]
    assert len({tuple(run.visits) for run in first}) == 25


@pytest.mark.parametrize("profile", PROFILES)
def test_timing_and_failures_do_not_change_what_is_chosen(profile: str) -> None:
    """Free visits of the same number are the same; only which visits are forced may depend on what happened."""
    compared = 0
    for number, (calm, rough) in enumerate(zip(sessions(profile, 40), sessions(profile, 40), strict=True)):
        draws = SessionKey(7, profile, 0, number).random("failures")
        first = simulate(calm)
        second = simulate(rough, request_s=slow(number, 0.4), fails=lambda step: draws.random() < 0.1)  # noqa: B023
        assert (calm.intent, calm.length_s, calm.pages_planned) == (rough.intent, rough.length_s, rough.pages_planned)
        for one, two in zip(first.visits, second.visits, strict=False):
            if not one.forced and not two.forced and one.page == two.page:
                assert one == two
                compared += 1
    assert compared > 500


def test_a_seed_means_the_same_in_every_process_and_version() -> None:
    """Written down once: a change of this makes every recorded seed mean something else."""
    user_actions = {"browse": 0.45, "search": 0.3, "cart": 0.2, "order": 0.05}
    shopper = Profile("p", "", 0.35, 0.4, (8, 20), (40, 90), (1.5, 4.0), user_actions, (2, 5))
    catalogue = [Product(f"S{n}", f"Thing {n}", f"C{n % 3}", "B", 9.5, 1.0 + n) for n in range(9)]
    session = Session(shopper, SessionKey(5, "p", 3, 1), catalogue, [Address("s", "c", "s", "12345", "USA", None)])
    run = simulate(session)
    assert (session.intent, session.pages_planned, round(session.length_s, 3)) == FIRST_SESSION
    assert [(visit.user_action, visit.product) for visit in run.visits[:5]] == FIRST_VISITS


FIRST_SESSION = (Intent.PURCHASE, 72, 976.858)
FIRST_VISITS = [("browse", "S6"), ("profile", "S1"), ("search", "S7"), ("browse", "S1"), ("search", "S6")]


def test_the_pace_may_change_during_a_session() -> None:
    for session in sessions("careful_shopper", 60, seed=8):
        half_s = session.length_s / 2
        run = simulate(session, phases=lambda t_s, half_s=half_s: ((0.5 if t_s < half_s else 1.5), WEIGHTS))
        assert run.end_s == pytest.approx(session.length_s)
        assert session.outcome() is Outcome.ENDED
        before = sum(start < half_s for start in run.starts_s)
        assert before == pytest.approx(session.pages_planned, rel=0.35)  # half the pages, at twice the rate
        assert session.pages - before == pytest.approx(session.pages_planned / 3, rel=0.5)


def test_a_purchase_whose_last_visit_a_slower_phase_takes_away_still_orders() -> None:
    """Just before the last visit the pace goes from 0.5 to 1.5: the budget left is not worth a visit any more."""
    tried = 0
    for fast, session in zip(
        sessions("impulse_buyer", 200, seed=9), sessions("impulse_buyer", 200, seed=9), strict=True
    ):
        dry = simulate(fast, phases=lambda _: (0.5, BROWSING))
        if session.intent is not Intent.PURCHASE or not dry.visits[-1].forced:
            continue
        late_s = (dry.starts_s[-2] + dry.starts_s[-1]) / 2
        simulate(session, phases=lambda t_s, late_s=late_s: ((0.5 if t_s < late_s else 1.5), BROWSING))
        assert session.outcome() is Outcome.ENDED
        tried += 1
    assert tried > 10


def test_one_visit_is_enough_to_buy() -> None:
    scenario = comprehensive()
    hasty = replace(scenario.profiles["impulse_buyer"], conversion_rate=1.0, cart_abandonment_rate=0.0, pages=(1, 1))
    session = Session(hasty, SessionKey(0, "hasty", 0, 0), scenario.catalogue, scenario.addresses)
    run = simulate(session)
    assert [visit.user_action for visit in run.visits] == ["order"]
    assert session.outcome() is Outcome.ENDED


def test_a_purchase_that_the_shop_prevents_is_failed_and_a_browsing_session_is_not() -> None:
    outcomes = {intent: set() for intent in Intent}
    for session in sessions("impulse_buyer", 200, seed=10):
        simulate(session, fails=lambda step: step.endpoint in (shop.PLACE, shop.ADD))
        outcomes[session.intent].add(session.outcome())
    assert outcomes == {
        Intent.PURCHASE: {Outcome.FAILED},
        Intent.ABANDON: {Outcome.FAILED},
        Intent.BROWSE_ONLY: {Outcome.ENDED},
    }


def test_nobody_signs_in_nobody_visits_and_the_session_lasts_its_time() -> None:
    for session in sessions("quick_browser", 50, seed=11):
        run = simulate(session, fails=lambda step: step.endpoint is shop.LOGIN)
        assert session.outcome() is Outcome.FAILED
        assert (session.pages, run.visits) == (0, [])
        assert run.end_s == pytest.approx(session.length_s)


def test_jitter_leaves_the_mean_alone() -> None:
    assert sum(GAP_JITTER) == 2.0


def test_all_user_actions_are_made() -> None:
    made = Counter(visit.user_action for profile in PROFILES for run in runs(profile) for visit in run.visits)
    assert set(made) == set(USER_ACTIONS)


def _inside_99(successes: int, trials: int, probability: float) -> bool:
    return stats.binomtest(successes, trials, probability).pvalue > 0.01


def test_target_products_are_the_only_ones_of_interest_and_keep_their_weights() -> None:
    base, targets = comprehensive(), ("PHN-MID-6", "HDP-NOISE-2", "SOC-WOOL-3P")
    weights = {product.sku: product.weight for product in base.catalogue if product.sku in targets}
    seen: Counter[str] = Counter()
    opened: set[str] = set()
    for number in range(400):
        key = SessionKey(1, "impulse_buyer", 0, number)
        session = Session(base.profiles["impulse_buyer"], key, base.catalogue, base.addresses)
        for visit in (session.next_visit(10.0 * page, 1.0, WEIGHTS, targets) for page in range(10)):
            assert visit is not None
            seen[visit.product.sku] += 1
            opened |= {product.sku for product in visit.opens}
            assert visit.query in visit.product.name.split()
    assert set(seen) == set(targets) == opened
    expected = [sum(seen.values()) * weight / sum(weights.values()) for weight in weights.values()]
    assert stats.chisquare([seen[sku] for sku in weights], expected).pvalue > 0.01  # a false alarm in a hundred seeds


def test_a_session_goes_back_to_the_whole_catalogue_when_the_targets_are_over() -> None:
    base = comprehensive()
    session = Session(base.profiles["bulk_buyer"], SessionKey(1, "bulk_buyer", 0, 0), base.catalogue, base.addresses)
    narrowed = [session.next_visit(10.0 * page, 1.0, WEIGHTS, ("SPT-TENT-2",)) for page in range(10)]
    free = [session.next_visit(100 + 10.0 * page, 1.0, WEIGHTS) for page in range(30)]
    assert {visit.product.sku for visit in narrowed if visit is not None} == {"SPT-TENT-2"}
    assert len({visit.product.sku for visit in free if visit is not None}) > 5

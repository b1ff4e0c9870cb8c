"""What a user action costs: the one table of the calls behind each page visit, and what sessions add up to.

The journeys of the shoppers are tested to agree with `CALLS`; the plan's expected request rates follow from it.
Endpoint keys are "<service> <METHOD> <path template>".
"""

from collections.abc import Mapping
from types import MappingProxyType

from scenario.model import USER_ACTIONS, Profile

LOGIN = "user-service POST /api/users/login"
REGISTER = "user-service POST /api/users/register"
ME = "user-service GET /api/users/me"
CATEGORY = "inventory-service GET /api/inventory/products/category/{category}"
PRODUCT = "inventory-service GET /api/inventory/products/{sku}"
SEARCH = "inventory-service GET /api/inventory/search"
CART = "cart-service GET /api/cart"
CART_SUMMARY = "cart-service GET /api/cart/summary"
CART_ADD = "cart-service POST /api/cart/items"
CART_CHANGE = "cart-service PUT /api/cart/items"
ORDER_PLACE = "order-service POST /api/orders"
ORDER = "order-service GET /api/orders/{id}"
ORDERS = "order-service GET /api/orders/user"
PAY = "payment-service POST /api/payments"

BROWSE_OPENS = (0.65, 0.30, 0.05)
"""P(a browse visit opens 0, 1, 2 products)."""
SEARCH_OPENS = 0.5
"""P(a search visit opens a result)."""
MAX_LINES = 3
"""A cart reaches its target in at most this many additions."""

Calls = Mapping[str, float]  # endpoint key -> mean calls


def _calls(*calls: tuple[str, float]) -> Calls:
    return MappingProxyType(dict(calls))


CALLS: Mapping[str, Calls] = MappingProxyType(
    {
        "browse": _calls((CATEGORY, 1), (PRODUCT, BROWSE_OPENS[1] + 2 * BROWSE_OPENS[2]), (CART_SUMMARY, 1)),
        "search": _calls((SEARCH, 1), (PRODUCT, SEARCH_OPENS), (CART_SUMMARY, 1)),
        "cart": _calls((PRODUCT, 1), (CART_ADD, 1), (CART, 1), (CART_SUMMARY, 1)),
        "order": _calls((CART, 1), (ORDER_PLACE, 1), (PAY, 1), (ORDER, 1), (CART_SUMMARY, 1)),
        "profile": _calls((ME, 1), (ORDERS, 1), (CART_SUMMARY, 1)),
    }
)
"""User action -> the calls of one page visit, in the usual case."""

CALLS_CART_FULL = _calls((PRODUCT, 1), (CART_CHANGE, 1), (CART, 1), (CART_SUMMARY, 1))
"""A cart visit when the cart already holds its target: a quantity is changed instead."""
CALLS_ORDER_EMPTY_CART = _calls((PRODUCT, 1), (CART_ADD, 1), *CALLS["order"].items())
"""An order visit with an empty cart: a product is opened and added first."""
CALLS_CHECKOUT_ONLY = _calls((CART, 1), (ME, 1), (CART_SUMMARY, 1))
"""An order visit of a session that will abandon its cart: the checkout starts, nothing is placed."""
CALLS_SESSION_START = _calls((LOGIN, 1))
"""Before the first page; the first session of an account registers it before that."""

ALLOWED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"purchase": USER_ACTIONS, "abandon": USER_ACTIONS, "browse_only": ("browse", "search", "profile")}
)
"""Intent -> user actions of its free page visits."""


def line_quantity(cart_target: int) -> int:
    """Units that one addition puts into a cart (the last one only what is missing): bulk buyers add many at once.

    >>> [line_quantity(target) for target in (1, 3, 4, 15)]
    [1, 1, 2, 5]
    """
    return -(-cart_target // MAX_LINES)


def lines_of(cart_target: int) -> int:
    """Additions until a cart of `cart_target` units is full.

    >>> [lines_of(target) for target in (1, 2, 3, 4, 15)]
    [1, 2, 3, 2, 3]
    """
    return -(-cart_target // line_quantity(cart_target))


def choice_weights(profile: Profile, phase_weights: Mapping[str, float]) -> dict[str, float]:
    """User action -> probability of a free page visit, before the intent leaves out what it does not allow."""
    return weigh(profile.user_actions, phase_weights)


def weigh(user_actions: Mapping[str, float], phase_weights: Mapping[str, float]) -> dict[str, float]:
    """User action -> probability, from a profile's probabilities and a phase's weights.

    A listed user action: the profile's probability times the phase's weight, where an omitted weight is neutral (the
    mean of the weights given). A *profile* visit that the profile does not list takes the phase's weight share.
    All zero when the phase gives no weight to anything the profile does.
    """
    given = sum(phase_weights.values())
    mean = given / len(phase_weights)
    products = {action: p * phase_weights.get(action, mean) for action, p in user_actions.items()}
    total = sum(products.values())
    share = 0.0
    if "profile" not in user_actions and given > 0:
        share = phase_weights.get("profile", 0.0) / given
    rest = {action: (1 - share) * product / total if total > 0 else 0.0 for action, product in products.items()}
    return {action: rest.get(action, share if action == "profile" else 0.0) for action in USER_ACTIONS}


def intents(profile: Profile) -> dict[str, float]:
    """Intent -> probability at the start of a session."""
    buy, abandon = profile.conversion_rate, profile.abandon_rate
    return {"purchase": buy, "abandon": abandon, "browse_only": max(0.0, 1 - buy - abandon)}


def sessions_per_user_s(profile: Profile) -> float:
    """Sessions that one user starts per nominal second: they follow each other without a pause."""
    return 2 / (sum(profile.session_duration_min) * 60)


def calls_per_user_s(profile: Profile, phase_weights: Mapping[str, float], pace: float) -> dict[str, float]:
    """Endpoint key -> expected requests per nominal second of one user, without the registering of new accounts.

    Page visits: mean pages / mean length / pace (both ends of the ranges belong together, so the ratio of the means
    is right). What a visit costs is the expectation over intents, free visits and the ones an intent forces.
    """
    session_rate = sessions_per_user_s(profile)
    visits = max(1.0, sum(profile.pages) / 2 / pace)
    rates: dict[str, float] = {}
    _add(rates, CALLS_SESSION_START, session_rate)
    for intent, probability in intents(profile).items():
        if probability > 0:
            # The session is walked in whole visits; the scale brings it back to the exact mean.
            whole = max(1, round(visits))
            scale = session_rate * probability * visits / whole
            for calls, count in _walk(profile, phase_weights, intent, whole):
                _add(rates, calls, count * scale)
    return rates


def pauses_per_visit(user_actions: Mapping[str, float]) -> float:
    """Mean number of think times in one page visit: one less than its requests."""
    return sum(p * (sum(CALLS[action].values()) - 1) for action, p in user_actions.items())


def _add(rates: dict[str, float], calls: Calls, times: float) -> None:
    for endpoint, mean in calls.items():
        rates[endpoint] = rates.get(endpoint, 0.0) + mean * times


def _walk(profile: Profile, phase_weights: Mapping[str, float], intent: str, visits: int) -> list[tuple[Calls, float]]:
    """The expected number of each kind of visit in a session of `visits` visits.

    A Markov chain over (additions still missing in the cart, cart filled at all, intent kept). The last visit of a
    purchase without an order is an order; the one before it fills an empty cart; the last visit of an abandoning
    session that has filled none is a cart visit.
    """
    free = choice_weights(profile, phase_weights)
    allowed = {action: free[action] for action in ALLOWED[intent]}
    total = sum(allowed.values())
    choice = {action: weight / total for action, weight in allowed.items()} if total > 0 else {"browse": 1.0}
    targets = _line_counts(profile)
    counts: dict[str, float] = {}
    states: dict[tuple[int, bool, bool], float] = {(lines, False, False): p for lines, p in targets.items()}
    for left in range(visits, 0, -1):
        after: dict[tuple[int, bool, bool], float] = {}
        for (missing, filled, kept), p_state in states.items():
            for action, p_action in _forced(intent, left, filled, kept, choice).items():
                p = p_state * p_action
                kind, following = _visit(intent, action, missing, filled, kept)
                counts[kind] = counts.get(kind, 0.0) + p
                if kind in ("order", "order_empty_cart"):  # a paid cart is empty, and the next target is drawn
                    for lines, p_lines in targets.items():
                        state = (lines, False, True)
                        after[state] = after.get(state, 0.0) + p * p_lines
                else:
                    after[following] = after.get(following, 0.0) + p
        states = after
    return [(_KINDS[kind], count) for kind, count in counts.items()]


_KINDS: Mapping[str, Calls] = {
    **CALLS,
    "cart_full": CALLS_CART_FULL,
    "order_empty_cart": CALLS_ORDER_EMPTY_CART,
    "checkout_only": CALLS_CHECKOUT_ONLY,
}


def _forced(intent: str, left: int, filled: bool, kept: bool, choice: Mapping[str, float]) -> Mapping[str, float]:
    """User action -> probability of the next visit when `left` visits are left, with what the intent forces."""
    if intent == "purchase" and not kept:
        if left == 1:
            return {"order": 1.0}
        if left == 2 and not filled:
            return {"cart": 1.0}
    if intent == "abandon" and not filled and left == 1:
        return {"cart": 1.0}
    return choice


def _visit(intent: str, action: str, missing: int, filled: bool, kept: bool) -> tuple[str, tuple[int, bool, bool]]:
    """The kind of a visit and the state after it."""
    if action == "cart":
        return ("cart", (missing - 1, True, kept)) if missing else ("cart_full", (0, True, kept))
    if action == "order":
        if intent == "abandon":
            return "checkout_only", (missing, filled, kept)
        return ("order" if filled else "order_empty_cart"), (missing, filled, kept)
    return action, (missing, filled, kept)


def _line_counts(profile: Profile) -> dict[int, float]:
    """Additions that fill a cart -> probability, with targets uniform over the cart sizes."""
    lowest, highest = profile.cart_size
    share = 1 / (highest - lowest + 1)
    counts: dict[int, float] = {}
    for target in range(lowest, highest + 1):
        lines = lines_of(target)
        counts[lines] = counts.get(lines, 0.0) + share
    return counts

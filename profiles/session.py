"""One visit of one shopper to the shop: how long, how many pages, what for, and what comes next.

Pure: no clock, no network. Times are nominal seconds since the session's start; who runs a session divides them by the
time scale. Whatever a seed fixes is drawn from generators of its own (see `SessionKey`), so answers and their timing
cannot change it. They do change when things happen, and which page visits an intent has to force.

    start                                                                      length_s
    | sign in | visit 1 | dwell | visit 2 | dwell | ... | last visit | dwell until |
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from profiles.cart import Cart
from profiles.choice import Intent, draw_intent, free_visit_shares, pick
from scenario.model import USER_ACTIONS, Address, Product, Profile
from scenario.visits import BROWSE_OPENS, SEARCH_OPENS

PAGES_JITTER = 0.1
"""How far the quantile of the pages may be from the quantile of the length, to both sides."""
GAP_JITTER = (0.5, 1.5)
"""The pause between two page visits is multiplied by a number from this range; its mean is 1."""
ORDER_REQUESTS = 7
"""Most requests of an order visit without trouble: open, add, view the cart, order, pay, check, mini-cart."""
CART_REQUESTS = 4
SLOWER_THAN_SO_FAR = 2.0
"""How much slower than so far answers may become before a forced visit comes too late."""
_OPENED = dict(enumerate(BROWSE_OPENS))  # number of products -> probability
_NEWEST = 0.2  # weight of the newest request in the running mean of how long requests take


class Outcome(enum.Enum):
    """How a session ended."""

    ENDED = "ended"  # by itself, its intent kept
    TRUNCATED = "truncated"  # cut short by a phase change or the end of the run
    FAILED = "failed"  # by itself, but the system's failures kept the shopper from what it came for


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Names one session of a run, and seeds its generators."""

    seed: int
    profile: str
    slot: int  # the user slot within the profile
    session: int  # number of the session within the slot, from 0 on

    def random(self, concern: str, number: int = 0) -> Random:
        """The generator of one concern; a string seed is the same in every process and on every machine."""
        return Random(f"{self.seed}/{self.profile}/{self.slot}/{self.session}/{concern}/{number}")


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """What is recorded of a session when it is over. Real time, unlike everything else here."""

    start_ns: int  # wall clock
    duration_us: int
    planned_us: int  # the length that was drawn
    profile: str
    slot: int
    session: int
    account: int
    phase: str  # at the start
    intent: Intent
    outcome: Outcome
    pages_planned: int  # at intensity medium
    pages: int
    visits: Mapping[str, int]  # user action -> page visits made
    cart_adds: int
    orders_placed: int
    orders_paid: int


@dataclass(frozen=True, slots=True)
class OpenOrder:
    """An order that was placed and is not paid yet."""

    id: int
    amount: float
    payment_id: str | None  # of the payment that came with the order, if any


class Assortment:
    """The products that a shopper looks at and buys, each as often as its weight says."""

    def __init__(self, products: Sequence[Product]) -> None:
        self._products = products
        self._cumulative_weights = list(accumulate(product.weight for product in products))
        self._shelves: dict[str, list[Product]] = {}
        for product in products:
            self._shelves.setdefault(product.category, []).append(product)

    def draw(self, draws: Random) -> Product:
        return draws.choices(self._products, cum_weights=self._cumulative_weights)[0]

    def draw_beside(self, product: Product, draws: Random) -> Product:
        """A product of the same category, each as likely."""
        return draws.choice(self._shelves[product.category])


class Visit:
    """One page visit: its user action and everything that is chosen in it, drawn in a fixed order."""

    __slots__ = ("_random", "address", "change_u", "forced", "opens", "pace", "page", "product", "query", "user_action")

    def __init__(
        self,
        session: "Session",
        page: int,
        pace: float,
        weights: Mapping[str, float],
        forced: str | None,
        assortment: Assortment,
    ):
        draws = self._random = session.key.random("visit", page)
        self.page = page  # from 1 on
        self.pace = pace
        self.forced = forced is not None
        free = pick(session.free_shares(weights), draws.random())
        self.user_action = forced or free
        self.product = assortment.draw(draws)
        words = self.product.name.split()
        self.query = words[int(draws.random() * len(words))]
        self.change_u = draws.random()
        self.address = session.addresses[int(draws.random() * len(session.addresses))]
        self.opens = self._opened(assortment, draws.random(), draws)

    def _opened(self, assortment: Assortment, u: float, draws: Random) -> tuple[Product, ...]:
        """The products a browse or search visit opens: of its category, or the one searched for."""
        if self.user_action == "search":
            return (self.product,) if u < SEARCH_OPENS else ()
        if self.user_action != "browse":
            return ()
        return tuple(assortment.draw_beside(self.product, draws) for _ in range(pick(_OPENED, u)))

    def think_s(self, profile: Profile) -> float:
        """The pause before the visit's next request, nominal seconds."""
        return self._random.uniform(*profile.think_time_s) * self.pace


class Session:
    """A session from its draws to its end. Its journeys tell it what was learned from the shop's answers.

    Who runs it: wait until `due_s`; when `is_over`, ask for the `outcome`; else make the `next_visit` there is.
    """

    def __init__(
        self, profile: Profile, key: SessionKey, catalogue: Sequence[Product], addresses: Sequence[Address]
    ) -> None:
        self.profile = profile
        self.key = key
        self.addresses = addresses
        self._catalogue = catalogue
        self._assortments: dict[tuple[str, ...], Assortment] = {}
        self._shares: tuple[Mapping[str, float], dict[str, float]] | None = None

        draws = key.random("session")
        self.intent = draw_intent(profile, draws.random())
        quantile = draws.random()
        self.length_s = 60.0 * _between(profile.session_duration_min, quantile)
        pages_quantile = min(1.0, max(0.0, quantile + draws.uniform(-PAGES_JITTER, PAGES_JITTER)))
        self.pages_planned = round(_between(profile.pages, pages_quantile))
        self._timing = key.random("timing")
        self._budget = float(self.pages_planned)
        self._last_forced = False
        self._request_s = 0.0

        self.due_s = 0.0  # when the next visit is due
        self.pages = 0
        self.visits = dict.fromkeys(USER_ACTIONS, 0)
        self.orders_placed = 0
        self.cart = self._new_cart()
        self.cart_adds = 0
        self.orders_paid = 0
        self.open_order: OpenOrder | None = None
        self.known_orders: set[int] = set()
        self.user_id: str | None = None  # None: not signed in
        self.token = ""
        self.reference = f"{key.profile}-{key.slot}-{key.session}"
        """Names the session to the shop. Who runs it makes it unique among runs, so that orders can be told apart."""

    def is_over(self, now_s: float) -> bool:
        return now_s >= self.length_s

    def next_visit(
        self, now_s: float, pace: float, weights: Mapping[str, float], target_products: tuple[str, ...] = ()
    ) -> Visit | None:
        """The visit that starts now, at the pace and with the weights of the phase now; None: only dwelling is left.

        `target_products` are the SKUs of interest now, all where there are none. Sets `due_s` for the visit after it.
        """
        left = self._visits_left(pace)
        if left == 0 and (self._last_forced or not self._owes_a_visit()):
            self.due_s = self.length_s
            return None
        gap_s = self._spend(now_s, pace)
        forced = self._forced(now_s, pace, left, gap_s)
        self.pages += 1
        visit = Visit(self, self.pages, pace, weights, forced, self._assortment(target_products))
        self.visits[visit.user_action] += 1
        return visit

    def skip_visit(self, now_s: float, pace: float) -> None:
        """Lets a page visit go by, as a shopper does who could not sign in; sets `due_s` for the next one."""
        if self._visits_left(pace):
            self._spend(now_s, pace)
        else:
            self.due_s = self.length_s

    def request_took(self, seconds: float) -> None:
        """One request was answered or given up after so many nominal seconds, its retries included."""
        self._request_s += _NEWEST * (seconds - self._request_s)

    def outcome(self) -> Outcome:
        """How the session ended, when it ended by itself."""
        kept = {
            Intent.BROWSE_ONLY: self.pages > 0,
            Intent.ABANDON: self.cart_adds > 0 and self.orders_placed == 0,
            Intent.PURCHASE: self.orders_paid > 0,
        }
        return Outcome.ENDED if kept[self.intent] else Outcome.FAILED

    def free_shares(self, weights: Mapping[str, float]) -> dict[str, float]:
        """The probability of each user action in a free visit; worked out once per phase."""
        if self._shares is None or self._shares[0] is not weights:
            self._shares = weights, free_visit_shares(self.profile, weights, self.intent)
        return self._shares[1]

    def placed(self, order: OpenOrder) -> None:
        """The shop took the order: the cart is empty, and a possible next one has a target of its own."""
        self.open_order = order
        self.known_orders.add(order.id)
        self.orders_placed += 1
        self.cart = self._new_cart()

    def paid(self) -> None:
        self.open_order = None
        self.orders_paid += 1

    def _assortment(self, skus: tuple[str, ...]) -> Assortment:
        if skus not in self._assortments:
            products = [product for product in self._catalogue if not skus or product.sku in skus]
            self._assortments[skus] = Assortment(products)
        return self._assortments[skus]

    def _new_cart(self) -> Cart:
        lowest, largest = self.profile.cart_size
        return Cart(self.key.random("cart", self.orders_placed).randint(lowest, largest), largest)

    def _visits_left(self, pace: float) -> int:
        """Page visits that the budget still gives at this pace, the next one included, to the nearest whole one."""
        return int(max(0.0, self._budget) / pace + 0.5 + 1e-9)

    def _spend(self, now_s: float, pace: float) -> float:
        """Takes one visit at `pace` from the budget, sets `due_s`, and returns the pause until then.

        Every visit consumes `pace` of the budget and gets that part of the time left: late answers are caught up, and
        both the length and the number of visits hold. After the last visit the session dwells to its end.
        """
        left_s = max(0.0, self.length_s - now_s)
        last = self._visits_left(pace) <= 1
        jitter = self._timing.uniform(*GAP_JITTER)
        gap_s = left_s if last else min(left_s, left_s * pace / self._budget * jitter)
        self._budget -= pace
        self.due_s = now_s + gap_s
        return gap_s

    def _owes_a_visit(self) -> bool:
        """Whether the intent still needs a visit of its own."""
        if self.intent is Intent.PURCHASE:
            return self.orders_paid == 0
        return self.intent is Intent.ABANDON and self.cart_adds == 0

    def _forced(self, now_s: float, pace: float, left: int, gap_s: float) -> str | None:
        """The user action that the intent forces on this visit: the last one that can still do it."""
        if not self._owes_a_visit():
            return None
        purchase = self.intent is Intent.PURCHASE
        needed_s = self._visit_takes_s(ORDER_REQUESTS if purchase else CART_REQUESTS, pace)
        step_s = max(gap_s, self._visit_takes_s(CART_REQUESTS, pace) / SLOWER_THAN_SO_FAR)
        if left <= 1 or now_s + step_s + needed_s > self.length_s:
            self._last_forced = left <= 1
            return "order" if purchase else "cart"
        if purchase and not self.cart.lines and (left == 2 or now_s + 2.0 * step_s + needed_s > self.length_s):
            return "cart"
        return None

    def _visit_takes_s(self, requests: int, pace: float) -> float:
        """How long a visit of so many requests takes at worst: longest pauses, answers slower than so far."""
        return (requests - 1) * self.profile.think_time_s[1] * pace + requests * SLOWER_THAN_SO_FAR * self._request_s


def _between(ends: tuple[float, float], quantile: float) -> float:
    return ends[0] + quantile * (ends[1] - ends[0])

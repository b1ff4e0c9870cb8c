"""Runs sessions without network and clock: a small shop in memory and a time that is only added up."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from profiles import journeys, shop
from profiles.answers import Answer, Failure
from profiles.session import Session, SessionKey, Visit
from scenario.load import load_file
from scenario.model import Address, Product, Scenario

CONFIG = Path(__file__).parents[2] / "configs" / "comprehensive_rl_training_config.yaml"
ACCOUNT = shop.Credentials("a@shoppers.example", "Pw1-secret", "A", "B")
WEIGHTS: Mapping[str, float] = {"browse": 60.0, "search": 25.0, "cart": 10.0, "order": 3.0, "profile": 2.0}


@cache
def comprehensive() -> Scenario:
    return load_file(CONFIG).scenario(None)


class MemoryShop:
    """What the shop does with a step, as far as sessions can tell."""

    def __init__(self, leftover: Mapping[str, int] | None = None) -> None:
        self.cart: Counter[str] = Counter(leftover or {})
        self.orders: list[shop.OrderSeen] = []
        self.ordered_units: list[int] = []
        self.payments = 0

    def answer(self, step: shop.Step) -> Answer:
        return Answer(max(step.endpoint.accepts), 0, None, "", self._do(step))

    def _do(self, step: shop.Step) -> object:
        body = dict(step.body or {})
        match step.endpoint:
            case shop.LOGIN:
                return shop.SignedIn("token", "7")
            case shop.SUMMARY:
                return self.cart.total()
            case shop.CART:
                return self._seen()
            case shop.ADD:
                assert 1 <= body["quantity"] <= 100
                self.cart[body["productId"]] += body["quantity"]
                return self._seen()
            case shop.CHANGE:
                assert body["productId"] in self.cart
                self.cart[body["productId"]] = body["quantity"]
                return self._seen()
            case shop.EMPTY:
                self.cart.clear()
            case shop.PLACE:
                assert self.cart.total() > 0, "an order from an empty cart"
                self.ordered_units.append(self.cart.total())
                self.cart.clear()
                self.orders.append(shop.OrderSeen(len(self.orders) + 1, 9.5, 1, body["notes"], None, None))
                return self.orders[-1]
            case shop.PAY:
                self.payments += 1
                return shop.PaymentSeen(went_through=True)
            case shop.ORDERS:
                return self.orders
        return None

    def _seen(self) -> shop.CartSeen:
        return shop.CartSeen(dict(self.cart), 9.5)


class Made(NamedTuple):
    """A page visit that was made, without its generator: thousands of sessions are kept."""

    page: int
    user_action: str
    forced: bool
    product: str
    query: str
    opened: tuple[Product, ...]
    change_u: float
    address: Address

    @classmethod
    def of(cls, visit: Visit) -> "Made":
        product, query = visit.product.sku, visit.query
        return cls(
            visit.page, visit.user_action, visit.forced, product, query, visit.opens, visit.change_u, visit.address
        )


@dataclass
class Run:
    """What came of one simulated session."""

    session: Session
    shop: MemoryShop
    end_s: float = 0.0
    visits: list[Made] = field(default_factory=list)
    starts_s: list[float] = field(default_factory=list)
    calls: dict[str, Counter[str]] = field(default_factory=dict)  # kind of visit -> endpoint -> calls
    kinds: Counter[str] = field(default_factory=Counter)
    cut: int = 0  # visits that the end of the session's time cut short


Phases = Callable[[float], tuple[float, Mapping[str, float]]]  # nominal seconds -> pace, weights


def simulate(
    session: Session,
    *,
    pace: float = 1.0,
    phases: Phases | None = None,
    request_s: Callable[[], float] = lambda: 0.0,
    fails: Callable[[shop.Step], bool] = lambda step: False,
    leftover: Mapping[str, int] | None = None,
) -> Run:
    """Runs `session` as a user does. `request_s`: how long each request takes. `fails`: which of them fail for good."""
    run = Run(session, MemoryShop(leftover))
    now_s = 0.0
    at = phases or (lambda _: (pace, WEIGHTS))

    def send(step: shop.Step) -> Answer:
        nonlocal now_s
        took_s = request_s()
        now_s += took_s
        session.request_took(took_s)
        counter[step.endpoint.key] += 1
        if fails(step):
            return Answer(500, 0, Failure.STATUS, "status 500")
        return run.shop.answer(step)

    def think() -> None:
        nonlocal now_s
        assert visit is not None
        now_s = min(now_s + visit.think_s(session.profile), max(now_s, session.length_s))

    def is_over() -> bool:
        return session.is_over(now_s)

    counter: Counter[str]
    visit: Visit | None = None
    while True:
        now_s = max(now_s, session.due_s)
        if is_over():
            run.end_s = now_s
            return run
        pace_now, weights = at(now_s)
        counter = Counter()
        if session.user_id is None:
            journeys.run(journeys.sign_in(session, ACCOUNT, True), send, lambda: None, is_over)
            if session.user_id is None:
                session.skip_visit(now_s, pace_now)
                continue
        counter = Counter()
        visit = session.next_visit(now_s, pace_now, weights)
        if visit is None:
            continue
        run.starts_s.append(now_s)
        run.visits.append(Made.of(visit))
        kind = _kind(session, visit)
        journeys.run(journeys.page_visit(session, visit), send, think, is_over)
        if counter[shop.SUMMARY.key]:
            run.calls.setdefault(kind, Counter()).update(counter)
            run.kinds[kind] += 1
        else:
            run.cut += 1


def _kind(session: Session, visit: Visit) -> str:
    """The visit's row in the table of calls of `scenario.visits`."""
    if visit.user_action == "cart" and session.cart.holds_target:
        return "cart_full"
    if visit.user_action == "order" and session.intent.value == "abandon":
        return "checkout_only"
    if visit.user_action == "order" and not session.cart.lines:
        return "order_empty_cart"
    return visit.user_action


def sessions(profile: str, count: int, seed: int = 1) -> list[Session]:
    scenario = comprehensive()
    return [
        Session(
            scenario.profiles[profile],
            SessionKey(seed, profile, n % 40, n // 40),
            scenario.catalogue,
            scenario.addresses,
        )
        for n in range(count)
    ]


def slow(seed: int, mean_s: float) -> Callable[[], float]:
    """Requests that take an exponentially distributed time."""
    draws = Random(seed)
    return lambda: draws.expovariate(1.0 / mean_s)

"""The whole model on the virtual clock: shoppers that do everything, in all weathers."""

import json
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from rl_hooks.decision import ACTIONS, SERVICES
from sandbox.balancer import Exchange
from sandbox.clock import VirtualClock
from sandbox.metrics import prometheus, state
from sandbox.shop.calls import Request, Response
from sandbox.world import World

ADDRESS = {"street": "1 Main St", "city": "Troy", "state": "NY", "country": "US", "zipCode": "12180"}


class Shoppers:
    """Poisson traffic of logged-in users with all six actions mixed; some go away before their answer."""

    def __init__(self, world: World, clock: VirtualClock, seed: int, users: int = 10) -> None:
        self.world, self.clock, self.rng = world, clock, Random(seed)
        self.answers: list[Exchange] = []
        self.gone = 0
        self.tokens = [self._sign_up(number) for number in range(users)]

    def _sign_up(self, number: int) -> str:
        account = {"email": f"u{number}@example.org", "password": "correct horse"}
        shop = self.world.shop
        shop.handle(
            "user-service",
            Request("POST", "/api/users/register", {}, {**account, "firstName": "U", "lastName": "X"}),
        )
        answer = shop.handle("user-service", Request("POST", "/api/users/login", {}, account))
        assert isinstance(answer, Response) and answer.body is not None
        return str(json.loads(answer.body)["token"])

    def call(self, service: str, method: str, path: str, body: Any = None, query: dict[str, str] | None = None) -> None:
        request = Request(method, path, query or {}, body, self.rng.choice(self.tokens))
        action = self.rng.choice(ACTIONS)
        exchange = self.world.send(service, request, self.answers.append, action=action)
        if self.rng.random() < 0.02 and not exchange.finished:
            self.clock.call_later(self.rng.random() * 0.05, lambda: self._go_away(exchange))

    def _go_away(self, exchange: Exchange) -> None:
        if not exchange.finished:
            exchange.cancel()
            self.gone += 1

    def anything(self) -> None:
        sku = self.rng.choice(("BOOK-001", "HOME-001", "SPRT-002"))
        item = {"productId": sku, "productName": "x", "price": 2.5, "quantity": self.rng.randint(1, 9)}
        pay = {"userId": "1", "amount": 5, "currency": "USD", "paymentMethod": "COD", "orderId": 1}
        calls: list[tuple[Any, ...]] = [
            ("inventory-service", "GET", f"/api/inventory/products/{sku}"),
            ("inventory-service", "GET", "/api/inventory/search", None, {"query": "Book"}),
            ("cart-service", "GET", "/api/cart/summary"),
            ("cart-service", "POST", "/api/cart/items", item),
            ("cart-service", "POST", "/api/cart/items", item),
            ("order-service", "POST", "/api/orders", {"items": [], "shippingAddress": ADDRESS}),
            ("payment-service", "POST", "/api/payments", pay),
            ("user-service", "GET", "/api/users/me"),
            ("order-service", "GET", "/api/orders/user"),
        ]
        self.call(*self.rng.choice(calls))

    def run(self, rate: float, duration_s: float, each: Callable[[], None] = lambda: None) -> None:
        end = self.clock.now() + duration_s
        while (gap := self.rng.expovariate(rate)) + self.clock.now() < end:
            self.clock.run_for(gap)
            self.anything()
            each()
        self.clock.run_until(end)


def check_books(world: World) -> None:
    """What has to hold at every moment."""
    for balancer in world.balancers.values():
        assert balancer.received == balancer.answered + balancer.in_flight
        for backend in balancer.backends:
            instance = backend.instance
            assert backend.in_flight >= 0
            done = sum(instance.ended.values()) + instance.abandoned_in_queue
            assert instance.submitted == done + instance.in_flight
            assert sum(backend.histogram) == backend.requests_total == sum(backend.codes.values())
    for sku, stock in world.shop.inventory.stock.items():
        assert min(stock.available, stock.reserved, stock.sold) >= 0
        assert stock.available + stock.reserved + stock.sold == 10_000 + stock.delivered, sku


def check_orders(world: World) -> None:
    """No order without stock, no stock lost, when nothing is under way."""
    ordered: Counter[str] = Counter()
    for order in world.shop.orders._by_id.values():
        assert order.items and order.total_items == sum(int(str(item["quantity"])) for item in order.items)
        for item in order.items:
            ordered[str(item["productId"])] += int(str(item["quantity"]))
    for sku, stock in world.shop.inventory.stock.items():
        assert stock.reserved == 0 and stock.sold == ordered[sku]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_books_balance_through_weather_crashes_timeouts_and_clients_that_go_away(
    make_world: Callable[..., World], clock: VirtualClock, seed: int
) -> None:
    world = make_world(seed=seed, time_scale=10.0, weather=True, target=1.1, request_timeout_s=4.0, hang_s=8.0)
    shoppers = Shoppers(world, clock, seed)

    def mischief() -> None:
        check_books(world)
        if shoppers.rng.random() < 0.02:
            kind = shoppers.rng.choice(("crash", "restart", "errors", "timeouts", "latency", "capacity", "antagonist"))
            value = {} if kind in ("crash", "restart") else {"value": 3.0 if kind == "latency" else 0.6}
            where = {"service": shoppers.rng.choice(SERVICES)}
            if shoppers.rng.random() < 0.7:
                where["instance"] = f"{where['service']}-{shoppers.rng.randint(1, 3)}"
            world.faults.inject({**where, "kind": kind, **value, "duration_s": 0.3 * shoppers.rng.random() + 0.01})

    shoppers.run(300.0, 15.0, mischief)
    clock.run_for(60.0)
    check_books(world)
    check_orders(world)
    assert all(balancer.in_flight == 0 for balancer in world.balancers.values())
    assert all(instance.in_flight == 0 for some in world.instances.values() for instance in some)
    assert shoppers.gone > 20 and len(world.shop.orders._by_id) > 20
    codes = {code for balancer in world.balancers.values() for b in balancer.backends for _, code in b.codes}
    assert codes >= {200, 201, 400, 499, 500, 502, 503, 504}


def test_a_healthy_sandbox_serves_everything_with_every_action(
    make_world: Callable[..., World], clock: VirtualClock
) -> None:
    # The expected load of these shoppers at 400 calls/s, of which a ninth goes to each kind.
    each = 400.0 / 9
    expected = {
        "inventory-service GET /a": 2 * each,
        "cart-service GET /a": each,
        "cart-service POST /api/cart/items": 2 * each,
        "order-service POST /api/orders": each,
        "order-service GET /a": each,
        "payment-service POST /a": each,
        "user-service GET /a": each,
    }
    world = make_world(expected=expected, time_scale=10.0, target=0.5)
    shoppers = Shoppers(world, clock, 3, users=200)
    for action in ACTIONS:
        world.set_actions(dict.fromkeys(SERVICES, action))
        shoppers.run(400.0, 5.0)
    clock.run_for(5.0)
    assert len(shoppers.answers) + shoppers.gone > 11_000
    bad = Counter((one.code, one.flags) for one in shoppers.answers if one.code >= 500)
    assert not bad
    # What is not served is refused by the rules of the shop: an empty cart, 100 of a product.
    assert {one.code for one in shoppers.answers} <= {200, 201, 400, 409}


def test_the_same_seed_gives_the_same_world_and_another_does_not(make_world: Callable[..., World]) -> None:
    def run(seed: int) -> str:
        clock = VirtualClock()
        world = make_world(seed=seed, time_scale=10.0, weather=True, on=clock)
        Shoppers(world, clock, seed=5).run(150.0, 10.0)
        return json.dumps(state(world, 0, 0)) + prometheus(world) + json.dumps(sorted(world.shop.accounts._tokens))

    assert run(1) == run(1) != run(2)


def test_fan_out_goes_through_the_balancer_under_the_control_action(
    make_world: Callable[..., World], clock: VirtualClock
) -> None:
    world = make_world()
    world.set_actions({"inventory-service": "weighted_capacity"})
    shoppers = Shoppers(world, clock, 1)
    item = {"productId": "BOOK-001", "productName": "x", "price": 1.0, "quantity": 1}
    request = Request("POST", "/api/cart/items", {}, item, shoppers.tokens[0])
    world.send("cart-service", request, lambda _: None, action="least_loaded")
    clock.run_for(10.0)
    counts: Counter[str] = Counter()
    for backend in world.balancers["inventory-service"].backends:
        for (action, code), count in backend.codes.items():
            counts[f"{action} {code}"] += count
    assert counts == {"weighted_capacity 200": 2}


@pytest.mark.parametrize("behind", ["inventory-service", "payment-service", "cart-service"])
def test_a_call_whose_fan_out_fails_fails_and_changes_nothing(
    make_world: Callable[..., World], clock: VirtualClock, behind: str
) -> None:
    world = make_world()
    shoppers = Shoppers(world, clock, 1)
    token = shoppers.tokens[0]

    def call(service: str, method: str, path: str, body: object) -> Exchange:
        exchange = world.send(service, Request(method, path, {}, body, token), lambda _: None)
        clock.run_for(30.0)
        return exchange

    item = {"productId": "BOOK-001", "productName": "x", "price": 1.0, "quantity": 4}
    assert call("cart-service", "POST", "/api/cart/items", item).code == 201
    world.faults.inject({"service": behind, "kind": "errors", "value": 1})
    order = call("order-service", "POST", "/api/orders", {"items": [], "shippingAddress": ADDRESS})
    assert order.code == 502 and isinstance(order.response, Response)
    assert order.response.body == f'{{"error":"{behind} did not answer"}}'
    world.faults.lift_all()
    check_orders(world)
    assert '"totalItems":4' in str(getattr(call("cart-service", "GET", "/api/cart", None).response, "body", ""))
    assert call("order-service", "POST", "/api/orders", {"items": [], "shippingAddress": ADDRESS}).code == 201
    check_orders(world)


def test_a_lost_answer_of_an_order_took_effect_nevertheless(
    make_world: Callable[..., World], clock: VirtualClock
) -> None:
    world = make_world()
    shoppers = Shoppers(world, clock, 1)
    token = shoppers.tokens[0]
    item = {"productId": "BOOK-001", "productName": "x", "price": 1.0, "quantity": 4}
    world.send("cart-service", Request("POST", "/api/cart/items", {}, item, token), lambda _: None)
    clock.run_for(30.0)
    body = {"items": [], "shippingAddress": ADDRESS}
    answers: list[Exchange] = []
    order = world.send("order-service", Request("POST", "/api/orders", {}, body, token), answers.append)
    clock.run_for(0.001)
    order.cancel()
    clock.run_for(30.0)
    assert not answers and len(world.shop.orders._by_id) == 1
    check_orders(world)


def test_stock_that_is_reserved_after_the_order_was_given_up_is_not_lost(
    make_world: Callable[..., World], clock: VirtualClock
) -> None:
    world = make_world()
    shoppers = Shoppers(world, clock, 1)
    token = shoppers.tokens[0]
    item = {"productId": "BOOK-001", "productName": "x", "price": 1.0, "quantity": 4}
    world.send("cart-service", Request("POST", "/api/cart/items", {}, item, token), lambda _: None)
    clock.run_for(30.0)
    # The reservation takes longer than the balancer waits for it, and is made all the same.
    world.faults.inject({"service": "inventory-service", "kind": "latency", "value": 1000, "duration_s": 5})
    body = {"items": [], "shippingAddress": ADDRESS}
    order = world.send("order-service", Request("POST", "/api/orders", {}, body, token), lambda _: None)
    clock.run_for(200.0)
    instances = [backend.instance for backend in world.balancers["inventory-service"].backends]
    assert order.code in (502, 504) and all(instance.in_flight == 0 for instance in instances)
    assert not world.shop.orders._by_id
    check_orders(world)


def test_two_orders_of_one_cart_at_once_make_one(make_world: Callable[..., World], clock: VirtualClock) -> None:
    world = make_world()
    shoppers = Shoppers(world, clock, 1)
    token = shoppers.tokens[0]
    item = {"productId": "BOOK-001", "productName": "x", "price": 1.0, "quantity": 4}
    world.send("cart-service", Request("POST", "/api/cart/items", {}, item, token), lambda _: None)
    clock.run_for(30.0)
    body = {"items": [], "shippingAddress": ADDRESS}
    both = [world.send("order-service", Request("POST", "/api/orders", {}, body, token), lambda _: None) for _ in "ab"]
    clock.run_for(30.0)
    assert sorted(one.code for one in both) in ([201, 400], [201, 409])
    assert len(world.shop.orders._by_id) == 1
    check_orders(world)


def test_actions_are_set_all_or_none(make_world: Callable[..., World]) -> None:
    world = make_world()
    with pytest.raises(ValueError, match="cart-service: fastest"):
        world.set_actions({"user-service": "least_loaded", "cart-service": "fastest"})
    assert world.balancers["user-service"].action == "round_robin"

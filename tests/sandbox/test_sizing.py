import json
from collections.abc import Callable
from random import Random

import pytest

from rl_hooks.decision import SERVICES
from sandbox.clock import VirtualClock
from sandbox.shop.calls import Request
from sandbox.sizing import FAN_OUT, ExpectError, read_expectation, service_rates, size
from sandbox.world import World

SHOP = {
    "user-service GET /api/users/me": 20.0,
    "inventory-service GET /api/inventory/products": 300.0,
    "cart-service GET /api/cart": 150.0,
    "cart-service POST /api/cart/items": 40.0,
    "order-service POST /api/orders": 8.0,
    "payment-service POST /api/payments": 8.0,
}


def utilizations(sizing_input: dict[str, float] | None, time_scale: float, target: float) -> dict[str, float]:
    return {one.service: one.utilization for one in size(sizing_input, time_scale, target).services}


def test_fan_out_is_added() -> None:
    rates = service_rates(SHOP)
    assert rates["inventory-service"] == 300 + 2 * 40 + 2 * 8
    assert rates["cart-service"] == 150 + 40 + 2 * 8
    assert rates["payment-service"] == 8 + 8


@pytest.mark.parametrize("target", [0.5, 0.85, 1.3])
@pytest.mark.parametrize(("factor", "time_scale"), [(1, 10), (3.7, 10), (0.1, 1), (20, 45)])
def test_the_busiest_service_meets_the_target_and_the_others_stay_below(
    target: float, factor: float, time_scale: float
) -> None:
    sizing = size({key: factor * rps for key, rps in SHOP.items()}, time_scale, target)
    assert max(one.utilization for one in sizing.services) == pytest.approx(target)
    assert all(one.utilization <= target + 1e-9 and one.mean_service_s >= 0.005 for one in sizing.services)
    tables = (0.040, 0.050, 0.060, 0.100, 0.120)
    ratios = {
        round(one.mean_service_s / table, 9)
        for one, table in zip(sizing.services, tables, strict=True)
        if not one.at_floor
    }
    assert len(ratios) == 1, "service times are in proportion to the table"


def test_what_a_person_reads() -> None:
    lines = size(SHOP, 60.0, 0.85).describe()
    assert lines[0].split() == ["service", "calls/s", "workers", "mean", "service", "utilization"]
    assert lines[2].split() == ["inventory-service", "396.0", "2+1+1", "8.59", "ms", "0.85"]
    assert len(lines) == 6


def test_the_floor_is_told_and_holds() -> None:
    sizing = size({"inventory-service GET /x": 1360.0, "user-service GET /x": 1.0}, 10.0, 0.85)
    user = sizing.services[0]
    assert user.mean_service_s == 0.005 and user.at_floor
    assert sizing.describe()[1].endswith("(floor of 5 ms)")
    assert not sizing.services[1].at_floor


def test_at_low_rates_service_times_are_not_stretched_without_end_and_that_is_told() -> None:
    sizing = size({"cart-service GET /api/cart": 1.0}, 1.0, 0.85)
    assert sizing.services[2].mean_service_s == pytest.approx(0.180)
    assert sizing.describe()[-1] == (
        "utilization 0.85 is not reached: the expected load keeps the smallest instances at 0.04,"
        " and service times are at most 3 times the table's"
    )


def test_the_default_load_gives_small_instances_with_service_times_close_to_the_table() -> None:
    for time_scale in (1.0, 10.0, 45.0):
        sizing = size(None, time_scale, 0.85)
        assert max(one.utilization for one in sizing.services) == pytest.approx(0.85)
        assert 0.7 < sizing.stretch < 1.4 and all(sum(one.workers) == 4 for one in sizing.services)


def test_an_expectation_is_read_and_all_its_problems_are_told() -> None:
    assert read_expectation(json.dumps(SHOP)) == SHOP
    with pytest.raises(ExpectError) as caught:
        read_expectation('{"chart-service GET /a": 1, "cart-service /a": -2, "cart-service GET /a": NaN}')
    assert caught.value.problems == (
        f"'chart-service GET /a': must be \"<service> <METHOD> </path>\" with one of {', '.join(SERVICES)}",
        f"'cart-service /a': must be \"<service> <METHOD> </path>\" with one of {', '.join(SERVICES)}",
        "'cart-service /a': must be calls per second, from 0 to 1000000",
        "'cart-service GET /a': must be calls per second, from 0 to 1000000",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON: "),
        ("[]", "must be a JSON object like"),
        ("{}", "must be a JSON object like"),
        ('{"cart-service GET /a": 0}', "all rates are 0: there is nothing to size for"),
    ],
)
def test_expectations_that_are_none(text: str, message: str) -> None:
    with pytest.raises(ExpectError, match=message):
        read_expectation(text)


@pytest.mark.parametrize("target", [0.5, 0.85])
def test_the_utilization_is_reached(target: float, make_world: Callable[..., World], clock: VirtualClock) -> None:
    # Plain reads, so that the load is exactly the expected one; 60 s at the weights of the instances. The standard
    # error of the busy time is about 0.6 % of it (some 19000 demands with a coefficient of variation of 0.66).
    expected = {"inventory-service GET /a": 300.0, "cart-service GET /a": 100.0}
    world, rng = make_world(expected=expected, time_scale=10.0, target=target), Random(7)
    for service, rate in (("inventory-service", 300.0), ("cart-service", 100.0)):
        moment = 0.0
        while (moment := moment + rng.expovariate(rate)) < 60.0:
            clock.call_later(
                moment,
                lambda service=service: world.send(
                    service, Request("GET", "/a"), lambda _: None, action="weighted_capacity"
                ),
            )
    clock.run_until(61.0)
    for one in world.sizing.services[1:3]:
        busy_s = sum(instance.worker_seconds() for instance in world.instances[one.service])
        assert busy_s / 60.0 / sum(one.workers) == pytest.approx(one.utilization, rel=0.03)


def test_the_table_of_fan_out_is_what_the_shop_does(make_world: Callable[..., World], clock: VirtualClock) -> None:
    world = make_world()

    def call(service: str, method: str, path: str, body: object, token: str | None) -> dict[str, int]:
        before = {name: balancer.received for name, balancer in world.balancers.items()}
        answers: list[object] = []
        exchange = world.send(service, Request(method, path, {}, body, token), answers.append)
        clock.run_for(30.0)
        assert exchange.code in (200, 201)
        after = {name: balancer.received - before[name] for name, balancer in world.balancers.items()}
        after[service] -= 1
        return {name: count for name, count in after.items() if count}

    account = {"email": "a@b.cd", "password": "12345678"}
    call("user-service", "POST", "/api/users/register", {**account, "firstName": "A", "lastName": "B"}, None)
    world.send("user-service", Request("POST", "/api/users/login", {}, account), lambda _: None)
    clock.run_for(30.0)
    token = next(iter(world.shop.accounts._tokens))
    for sku in ("BOOK-001", "BOOK-002"):  # two lines, as the table assumes
        item = {"productId": sku, "productName": "x", "price": 1, "quantity": 1}
        fan_out = call("cart-service", "POST", "/api/cart/items", item, token)
        assert fan_out == FAN_OUT["cart-service POST /api/cart/items"]
    address = {"street": "s", "city": "c", "state": "s", "country": "US", "zipCode": "12345"}
    order = {"items": [], "shippingAddress": address}
    assert call("order-service", "POST", "/api/orders", order, token) == FAN_OUT["order-service POST /api/orders"]

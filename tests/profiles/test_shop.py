import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from profiles import shop
from scenario.model import Address, Product
from scenario.visits import CALLS

ROOT = Path(__file__).parents[2]
PRODUCT = Product("A-1", "Thing One", "Home & Garden/Big", "B", 12.5, 1.0)
ADDRESS = Address("1 Road", "Town", "WA", "98101-1234", "USA", "+12065550100")
CART = shop.CartSeen({"A-1": 2}, 25.0)


def order(number: int, **known: object) -> shop.OrderSeen:
    values = {"amount": 25.0, "units": 2, "notes": None, "payment_id": None, "payment_status": None} | known
    return shop.OrderSeen(id=number, **values)  # type: ignore[arg-type]


def test_every_call_of_the_plan_has_its_endpoint() -> None:
    ours = {value.key for value in vars(shop).values() if isinstance(value, shop.Endpoint)}
    assert {key for calls in CALLS.values() for key in calls} <= ours


def test_names_are_quoted_into_one_path_segment() -> None:
    assert shop.list_category(PRODUCT.category).path == (
        "/inventory-service/api/inventory/products/category/Home%20%26%20Garden%2FBig"
    )
    assert shop.search("a&b=c d").path == "/inventory-service/api/inventory/search?query=a%26b%3Dc%20d"
    assert shop.open_product("../x").path == "/inventory-service/api/inventory/products/..%2Fx"
    assert shop.view_order(7).path == "/order-service/api/orders/7"


def test_bodies_keep_the_rules_of_the_services() -> None:
    register = json.loads(shop.register(shop.credentials("quick", 3)).payload or "")
    assert set(register) == {"email", "password", "firstName", "lastName"}
    assert len(register["password"]) >= 8
    placed = json.loads(shop.place_order(ADDRESS, "n", CART, set()).payload or "")
    assert set(placed) == {"items", "shippingAddress", "notes"} and placed["items"] == []
    assert re.fullmatch(r"\d{5}(-\d{4})?", placed["shippingAddress"]["zipCode"])
    without_phone = shop.place_order(Address("s", "c", "s", "12345", "USA", None), "n", CART, set())
    assert "phone" not in json.loads(without_phone.payload or "")["shippingAddress"]
    paid = json.loads(shop.pay(4, 25.0, None, "7").payload or "")
    assert paid == {"userId": "7", "amount": 25.0, "currency": "USD", "paymentMethod": "CREDIT_CARD", "orderId": 4}
    assert shop.view_cart().payload is None


@pytest.mark.parametrize("name", ["quick_validation", "X" * 64, "-"])
def test_an_account_has_an_address_that_services_accept(name: str) -> None:
    first, again, other = shop.credentials(name, 1), shop.credentials(name, 1), shop.credentials(name, 11)
    assert first == again and first.email != other.email and first.password != other.password
    assert len(first.email.split("@")[0]) <= 64
    assert re.fullmatch(r"[a-z0-9_.-]+@shoppers\.example", first.email)


def test_a_lost_order_is_found_by_its_notes() -> None:
    step = shop.place_order(ADDRESS, "mine-4", CART, {1})
    assert step.lookup is not None
    assert step.lookup.step.endpoint is shop.ORDERS
    assert step.lookup.find([order(1, notes="old"), order(2, notes="mine-4"), order(3, notes="other")]).id == 2
    assert step.lookup.find([order(3, notes="other")]) is None
    assert step.lookup.find([]) is None


@pytest.mark.parametrize("other", [{"amount": 24.9}, {"units": 3}, {"payment_id": "p"}])
def test_without_notes_an_order_must_be_new_unpaid_and_like_the_cart(other: dict[str, object]) -> None:
    lookup = shop.place_order(ADDRESS, "mine-4", CART, {1}).lookup
    assert lookup is not None
    assert lookup.find([order(1), order(2, **other)]) is None
    assert lookup.find([order(1), order(5), order(4)]).id == 5
    assert lookup.find([order(6, units=None)]).id == 6


def test_a_lost_payment_is_found_in_its_order() -> None:
    lookup = shop.pay(4, 25.0, "before", "7").lookup
    assert lookup is not None
    assert lookup.find(order(4)) is None
    assert lookup.find(order(4, payment_id="before", payment_status="PENDING")) is None
    assert lookup.find(order(4, payment_id="p1", payment_status="PAID")) == shop.PaymentSeen(True)
    assert lookup.find(order(4, payment_id="p1", payment_status="FAILED")) == shop.PaymentSeen(False)


def test_a_lost_addition_is_found_when_the_line_has_grown_enough() -> None:
    lookup = shop.add_to_cart(PRODUCT, 2, {"A-1": 3}).lookup
    assert lookup is not None
    assert lookup.find(shop.CartSeen({"A-1": 4}, 1.0)) is None
    assert lookup.find(shop.CartSeen({}, 0.0)) is None
    assert lookup.find(shop.CartSeen({"A-1": 5}, 1.0)) == shop.CartSeen({"A-1": 5}, 1.0)


def test_only_a_payment_is_sent_when_the_time_is_over() -> None:
    assert shop.pay(4, 25.0, None, "7").finishes
    assert not shop.place_order(ADDRESS, "n", CART, set()).finishes


@pytest.mark.parametrize("module", ["choice", "cart", "session", "shop", "answers", "journeys", "seats"])
def test_the_pure_half_loads_neither_locust_nor_gevent(module: str) -> None:
    program = f"import sys, profiles.{module}; print({{'locust', 'gevent'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("set()\n", "")

"""Every call of the shop, its rules and its status codes, without the balancer in front."""

import json
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from sandbox.clock import VirtualClock
from sandbox.parameters import Parameters
from sandbox.shop.calls import FanOut, Request, Response
from sandbox.shop.catalogue import DEFAULT_CATALOGUE, CatalogueError, Product, read_catalogue
from sandbox.shop.payments import PAYMENT_LIMIT
from sandbox.shop.shop import Shop

ACCOUNT = {"email": "Ann@example.org", "password": "correct horse", "firstName": "Ann", "lastName": "Lee"}
ADDRESS = {"street": "1 Main St", "city": "Troy", "state": "NY", "country": "US", "zipCode": "12180"}
ITEM = {"productId": "BOOK-001", "productName": "Paperback Novel", "price": 12.5, "quantity": 2}
PAYMENT = {"userId": "1", "amount": 25.0, "currency": "USD", "paymentMethod": "CREDIT_CARD", "orderId": 1}


class Client:
    """Calls the shop; calls between services are made at once."""

    def __init__(self, clock: VirtualClock, products: Sequence[Product] = DEFAULT_CATALOGUE, **changes: Any) -> None:
        parameters = replace(Parameters(), **changes)
        self.shop = Shop(Random(1), clock.now, parameters, products=products, start_unix_s=1_700_000_000.0)
        self.token: str | None = None
        assert self("user-service", "POST", "/api/users/register", ACCOUNT)[0] == 201
        self.token = self("user-service", "POST", "/api/users/login", ACCOUNT)[1]["token"]

    def __call__(self, service: str, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]:
        reply = self.shop.handle(service, Request(method, path, query, body, self.token, "visit-1"))
        while isinstance(reply, FanOut):
            reply = reply.then([call.run() for call in reply.calls])
        assert isinstance(reply, Response)
        return reply.status, None if reply.body is None else json.loads(reply.body)

    def error(self, *call: Any, **query: str) -> tuple[int, str]:
        status, body = self(*call, **query)
        return status, body["error"]


@pytest.fixture
def client(clock: VirtualClock) -> Client:
    return Client(clock)


def test_register_login_and_me(client: Client) -> None:
    user = {
        "id": 1,
        "email": "ann@example.org",
        "firstName": "Ann",
        "lastName": "Lee",
        "phoneNumber": None,
        "status": "ACTIVE",
    }
    assert client("user-service", "GET", "/api/users/me") == (200, user)
    status, body = client("user-service", "POST", "/api/users/login", ACCOUNT)
    assert (status, body["type"], body["user"]) == (200, "Bearer", user) and len(body["token"]) == 64
    assert client.error("user-service", "POST", "/api/users/register", ACCOUNT)[0] == 409
    wrong = {**ACCOUNT, "password": "wrong horse"}
    assert client.error("user-service", "POST", "/api/users/login", wrong) == (401, "wrong e-mail address or password")
    assert client.error("user-service", "POST", "/api/users/login", {"email": "x@y.zz"}) == (
        400,
        "password: must be text, not blank",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"email": "ann"}, "email: must be an e-mail address"),
        ({"password": "short"}, "password: must have 8 characters or more"),
        ({"firstName": "  "}, "firstName: must be text, not blank"),
        ({"lastName": None}, "lastName: must be text, not blank"),
        ({"phoneNumber": 5}, "phoneNumber: must be text"),
        ({"admin": True}, "admin: unknown field"),
    ],
)
def test_register_refuses(client: Client, change: dict[str, Any], message: str) -> None:
    body = {**ACCOUNT, "email": "new@example.org", **change}
    assert client.error("user-service", "POST", "/api/users/register", body) == (400, message)


@pytest.mark.parametrize("body", [None, [], "text", 5])
def test_a_body_has_to_be_an_object(client: Client, body: Any) -> None:
    for path in ("/api/users/register", "/api/users/login"):
        assert client.error("user-service", "POST", path, body) == (400, "the body must be a JSON object")


EVERY_CALL = [
    ("user-service", "GET", "/api/users/me"),
    ("inventory-service", "GET", "/api/inventory/products"),
    ("inventory-service", "GET", "/api/inventory/products/BOOK-001"),
    ("inventory-service", "GET", "/api/inventory/products/category/books"),
    ("inventory-service", "GET", "/api/inventory/search"),
    ("inventory-service", "GET", "/api/inventory/product/BOOK-001"),
    ("cart-service", "GET", "/api/cart"),
    ("cart-service", "GET", "/api/cart/summary"),
    ("cart-service", "POST", "/api/cart/items"),
    ("cart-service", "PUT", "/api/cart/items"),
    ("cart-service", "DELETE", "/api/cart/items/BOOK-001"),
    ("cart-service", "DELETE", "/api/cart"),
    ("order-service", "POST", "/api/orders"),
    ("order-service", "GET", "/api/orders/1"),
    ("order-service", "GET", "/api/orders/user"),
    ("payment-service", "POST", "/api/payments"),
    ("payment-service", "GET", "/api/payments/1"),
]


@pytest.mark.parametrize("token", [None, "", "nonsense"])
@pytest.mark.parametrize("call", EVERY_CALL)
def test_every_call_but_register_and_login_needs_a_token(client: Client, call: Any, token: str | None) -> None:
    client.token = token
    assert client.error(*call) == (401, "a valid token is needed: log in")


def test_a_token_lasts_a_day_and_an_account_keeps_its_last_fifty(client: Client, clock: VirtualClock) -> None:
    first = client.token
    for _ in range(49):
        client.token = client("user-service", "POST", "/api/users/login", ACCOUNT)[1]["token"]
    client.token, last = first, client.token
    assert client("user-service", "GET", "/api/users/me")[0] == 200
    client("user-service", "POST", "/api/users/login", ACCOUNT)
    assert client("user-service", "GET", "/api/users/me")[0] == 401
    client.token = last
    clock.run_until(86_399.0)
    assert client("user-service", "GET", "/api/users/me")[0] == 200
    clock.run_until(86_400.0)
    assert client("user-service", "GET", "/api/users/me")[0] == 401


def test_unknown_calls_and_services_of_others(client: Client) -> None:
    assert client.error("user-service", "GET", "/api/cart") == (404, "no such call")
    assert client("cart-service", "PUT", "/api/cart")[0] == 404
    assert client("inventory-service", "GET", "/api/inventory/products/")[0] == 404


def test_products(client: Client) -> None:
    status, everything = client("inventory-service", "GET", "/api/inventory/products")
    assert status == 200 and [one["sku"] for one in everything] == [one.sku for one in DEFAULT_CATALOGUE]
    status, product = client("inventory-service", "GET", "/api/inventory/products/BOOK-002")
    assert (status, product) == (
        200,
        {
            "id": 2,
            "sku": "BOOK-002",
            "name": "Cookery Book",
            "description": "Cookery Book by Northwind",
            "category": "books",
            "brand": "Northwind",
            "price": 28.0,
            "weight": 1.0,
            "status": "ACTIVE",
            "createdAt": "2023-11-14T22:13:20.000Z",
            "updatedAt": "2023-11-14T22:13:20.000Z",
        },
    )
    assert client.error("inventory-service", "GET", "/api/inventory/products/NO-1") == (404, "no such product")
    category = client("inventory-service", "GET", "/api/inventory/products/category/books")[1]
    assert [one["sku"] for one in category] == ["BOOK-001", "BOOK-002", "BOOK-003"]
    assert client("inventory-service", "GET", "/api/inventory/products/category/Books") == (200, [])


def test_search_is_case_sensitive_and_needs_a_query(client: Client) -> None:
    def skus(query: str) -> list[str]:
        status, found = client("inventory-service", "GET", "/api/inventory/search", query=query)
        assert status == 200
        return [one["sku"] for one in found]

    assert skus("Book") == ["BOOK-002"] and skus("book") == [] and len(skus("")) == len(DEFAULT_CATALOGUE)
    assert client.error("inventory-service", "GET", "/api/inventory/search") == (400, "query: is required")


def test_stock_of_a_product(client: Client) -> None:
    assert client("inventory-service", "GET", "/api/inventory/product/BOOK-001") == (
        200,
        {
            "productSku": "BOOK-001",
            "availableQuantity": 10_000,
            "reservedQuantity": 0,
            "totalQuantity": 10_000,
            "lowStock": False,
            "outOfStock": False,
        },
    )
    assert client("inventory-service", "GET", "/api/inventory/product/NO-1") == (404, None)


def test_a_cart_from_beginning_to_end(client: Client) -> None:
    assert client("cart-service", "GET", "/api/cart/summary")[1] == {
        "cartId": 1,
        "totalItems": 0,
        "totalAmount": 0,
        "status": "ACTIVE",
    }
    status, cart = client("cart-service", "POST", "/api/cart/items", {**ITEM, "productImage": "a.png"})
    assert (status, cart["userId"], cart["sessionId"], cart["totalItems"], cart["totalAmount"]) == (
        201,
        "1",
        "visit-1",
        2,
        25.0,
    )
    assert cart["items"] == [
        {
            "productId": "BOOK-001",
            "productName": "Paperback Novel",
            "productImage": "a.png",
            "price": 12.5,
            "quantity": 2,
            "subtotal": 25.0,
            "addedAt": "2023-11-14T22:13:20.000Z",
        }
    ]
    assert client("cart-service", "POST", "/api/cart/items", ITEM)[1]["totalItems"] == 4
    change = {"productId": "BOOK-001", "quantity": 7}
    assert client("cart-service", "PUT", "/api/cart/items", change)[1]["totalAmount"] == 87.5
    assert client("cart-service", "GET", "/api/cart")[1]["totalItems"] == 7
    assert client("cart-service", "PUT", "/api/cart/items", {**change, "quantity": 0})[1]["items"] == []
    assert client.error("cart-service", "PUT", "/api/cart/items", change) == (404, "the product is not in the cart")
    assert client("cart-service", "DELETE", "/api/cart/items/BOOK-001") == (204, None)
    assert client("cart-service", "DELETE", "/api/cart") == (204, None)
    for call in (("PUT", "/api/cart/items", change), ("DELETE", "/api/cart"), ("DELETE", "/api/cart/items/BOOK-001")):
        assert client.error("cart-service", *call) == (404, "no cart")


def test_a_cart_belongs_to_its_user(client: Client) -> None:
    client("cart-service", "POST", "/api/cart/items", ITEM)
    other = {**ACCOUNT, "email": "bob@example.org"}
    client("user-service", "POST", "/api/users/register", other)
    client.token = client("user-service", "POST", "/api/users/login", other)[1]["token"]
    assert client("cart-service", "GET", "/api/cart")[1]["totalItems"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantity": 0}, "quantity: must be a whole number from 1 to 100"),
        ({"quantity": 101}, "quantity: must be a whole number from 1 to 100"),
        ({"quantity": 1.5}, "quantity: must be a whole number from 1 to 100"),
        ({"quantity": True}, "quantity: must be a whole number from 1 to 100"),
        ({"price": 0}, "price: must be a number above 0"),
        ({"price": "9"}, "price: must be a number above 0"),
        ({"price": float("inf")}, "price: must be a number above 0"),
        ({"productName": ""}, "productName: must be text, not blank"),
        ({"productId": None}, "productId: must be text, not blank"),
        ({"productImage": 1}, "productImage: must be text"),
        ({"productId": "NO-1"}, "productId: no such product"),
    ],
)
def test_cart_items_are_refused(client: Client, change: dict[str, Any], message: str) -> None:
    assert client.error("cart-service", "POST", "/api/cart/items", {**ITEM, **change}) == (400, message)


def test_a_cart_holds_at_most_a_hundred_of_a_product(client: Client) -> None:
    client("cart-service", "POST", "/api/cart/items", {**ITEM, "quantity": 99})
    assert client.error("cart-service", "POST", "/api/cart/items", ITEM) == (
        400,
        "quantity: a cart holds at most 100 of a product",
    )


def test_an_order_takes_the_cart_and_the_stock_and_is_paid_later(client: Client) -> None:
    client("cart-service", "POST", "/api/cart/items", ITEM)
    body = {"items": [], "shippingAddress": {**ADDRESS, "phone": "+14155550100"}, "notes": "ring twice"}
    status, order = client("order-service", "POST", "/api/orders", body)
    assert status == 201
    seen = {key: order[key] for key in ("id", "orderNumber", "userId", "userEmail", "totalAmount", "totalItems")}
    assert seen == {
        "id": 1,
        "orderNumber": "ORD-00000001",
        "userId": "1",
        "userEmail": "ann@example.org",
        "totalAmount": 25.0,
        "totalItems": 2,
    }
    assert (order["status"], order["paymentId"], order["paymentStatus"]) == ("PENDING", None, "PENDING")
    assert client("cart-service", "GET", "/api/cart")[1]["items"] == []
    assert client("inventory-service", "GET", "/api/inventory/product/BOOK-001")[1]["totalQuantity"] == 9_998
    status, payment = client("payment-service", "POST", "/api/payments", PAYMENT)
    assert (status, payment["status"], payment["paymentId"], payment["orderId"]) == (201, "COMPLETED", 1, 1)
    assert client("payment-service", "GET", "/api/payments/1") == (200, payment)
    status, paid = client("order-service", "GET", "/api/orders/1")
    assert (status, paid["status"], paid["paymentId"], paid["paymentStatus"]) == (200, "CONFIRMED", 1, "COMPLETED")
    assert client("order-service", "GET", "/api/orders/user") == (200, [paid])


def test_orders_and_payments_of_others_do_not_exist(client: Client) -> None:
    client("cart-service", "POST", "/api/cart/items", ITEM)
    client("order-service", "POST", "/api/orders", {"items": [], "shippingAddress": ADDRESS})
    client("payment-service", "POST", "/api/payments", PAYMENT)
    other = {**ACCOUNT, "email": "bob@example.org"}
    client("user-service", "POST", "/api/users/register", other)
    client.token = client("user-service", "POST", "/api/users/login", other)[1]["token"]
    assert client.error("order-service", "GET", "/api/orders/1") == (404, "no such order")
    assert client.error("payment-service", "GET", "/api/payments/1") == (404, "no such payment")
    assert client("order-service", "GET", "/api/orders/user") == (200, [])


@pytest.mark.parametrize("number", ["0", "2", "-1", "x", "1e3", "\u0661", "9" * 30])
def test_order_and_payment_numbers_that_name_nothing(client: Client, number: str) -> None:
    assert client("order-service", "GET", f"/api/orders/{number}")[0] == 404
    assert client("payment-service", "GET", f"/api/payments/{number}")[0] == 404


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": None}, "items: must be a list; it may be empty, the order is built from the cart"),
        ({"notes": "x" * 501}, "notes: must be text of at most 500 characters"),
        ({"coupon": "X"}, "coupon: unknown field"),
        (
            {"shippingAddress": "home"},
            "shippingAddress: must be an address with street, city, state, country, zipCode",
        ),
        ({"shippingAddress": {**ADDRESS, "city": ""}}, "shippingAddress: city: must be text, not blank"),
        (
            {"shippingAddress": {**ADDRESS, "zipCode": "1218"}},
            "shippingAddress: zipCode: must be like 12345 or 12345-6789",
        ),
        ({"shippingAddress": {**ADDRESS, "phone": "0"}}, "shippingAddress: phone: must be like +14155550100"),
    ],
)
def test_orders_are_refused(client: Client, change: dict[str, Any], message: str) -> None:
    client("cart-service", "POST", "/api/cart/items", ITEM)
    body = {"items": [], "shippingAddress": ADDRESS, **change}
    assert client.error("order-service", "POST", "/api/orders", body) == (400, message)
    assert client("order-service", "GET", "/api/orders/user") == (200, [])


def test_an_empty_cart_cannot_be_ordered(client: Client) -> None:
    body = {"items": [ITEM], "shippingAddress": ADDRESS}
    assert client.error("order-service", "POST", "/api/orders", body) == (400, "the cart is empty")
    client("cart-service", "GET", "/api/cart")
    assert client.error("order-service", "POST", "/api/orders", body) == (400, "the cart is empty")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amount": 0.001}, "amount: must be at least 0.01"),
        ({"amount": float("nan")}, "amount: must be at least 0.01"),
        ({"currency": "CHF"}, "currency: must be one of INR, USD, EUR, GBP, AUD, OTHER"),
        ({"userId": ""}, "userId: must be text, not blank"),
        ({"orderId": "1"}, "orderId: must be a number"),
        ({"tip": 1}, "tip: unknown field"),
    ],
)
def test_payments_are_refused(client: Client, change: dict[str, Any], message: str) -> None:
    assert client.error("payment-service", "POST", "/api/payments", {**PAYMENT, **change}) == (400, message)


def test_a_payment_above_the_limit_is_made_and_failed(client: Client) -> None:
    at_limit = {**PAYMENT, "amount": PAYMENT_LIMIT}
    assert client("payment-service", "POST", "/api/payments", at_limit)[1]["status"] == "COMPLETED"
    status, payment = client("payment-service", "POST", "/api/payments", {**PAYMENT, "amount": PAYMENT_LIMIT + 0.01})
    assert (status, payment["status"]) == (201, "FAILED")


def test_stock_runs_out_and_is_delivered_again(clock: VirtualClock) -> None:
    client = Client(clock, stock_units=10, restock_below_units=5, restock_delay_s=60.0)
    body = {"items": [], "shippingAddress": ADDRESS}

    def stock() -> Any:
        return client("inventory-service", "GET", "/api/inventory/product/BOOK-001")[1]

    client("cart-service", "POST", "/api/cart/items", {**ITEM, "quantity": 10})
    assert client("order-service", "POST", "/api/orders", body)[0] == 201
    assert (stock()["outOfStock"], stock()["lowStock"], stock()["availableQuantity"]) == (True, True, 0)
    assert client.error("cart-service", "POST", "/api/cart/items", ITEM) == (400, "quantity: not enough in stock")
    clock.run_until(60.0)
    assert (stock()["outOfStock"], stock()["availableQuantity"]) == (False, 10)
    assert client("cart-service", "POST", "/api/cart/items", ITEM)[0] == 201
    assert client.error("cart-service", "PUT", "/api/cart/items", {"productId": "BOOK-001", "quantity": 11}) == (
        400,
        "quantity: not enough in stock",
    )


def test_an_order_for_which_the_stock_does_not_suffice_changes_nothing(clock: VirtualClock) -> None:
    client = Client(clock, stock_units=10, restock_below_units=0)
    client("cart-service", "POST", "/api/cart/items", {**ITEM, "quantity": 10})
    client("cart-service", "POST", "/api/cart/items", {**ITEM, "productId": "BOOK-002", "quantity": 1})
    client.shop.inventory.stock["BOOK-001"].available = 9
    body = {"items": [], "shippingAddress": ADDRESS}
    assert client.error("order-service", "POST", "/api/orders", body) == (409, "not enough in stock")
    assert client.shop.inventory.stock["BOOK-002"].available == 10
    assert client.shop.inventory.stock["BOOK-002"].reserved == 0
    assert client("cart-service", "GET", "/api/cart")[1]["totalItems"] == 11


def test_a_catalogue_is_read_and_sold(clock: VirtualClock) -> None:
    text = '[{"sku": "A-1", "name": "Kettle", "category": "kitchen", "brand": "Fuma", "price": 30}]'
    products = read_catalogue(text)
    assert products == (Product("A-1", "Kettle", "kitchen", "Fuma", 30),)
    client = Client(clock, products)
    assert client("inventory-service", "GET", "/api/inventory/products/A-1")[1]["name"] == "Kettle"
    assert client("inventory-service", "GET", "/api/inventory/products/BOOK-001")[0] == 404


def test_all_problems_of_a_catalogue_are_told() -> None:
    good = {"sku": "A-1", "name": "Kettle", "category": "kitchen", "brand": "Fuma", "price": 30}
    with pytest.raises(CatalogueError) as caught:
        read_catalogue(json.dumps([good, good, {**good, "price": -1, "colour": "red"}, {**good, "name": ""}, 5]))
    assert caught.value.problems == (
        "[2].price: must be a number above 0",
        "[2].colour: unknown field",
        "[3].name: must be text of 1 to 200 characters",
        "[4]: must be an object with sku, name, category, brand, price",
        "sku 'A-1' stands there 2 times",
    )


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not JSON: "), ("{}", "must be a list of 1 to 10000"), ("[]", "must be a list of 1")]
)
def test_catalogues_that_are_none(text: str, message: str) -> None:
    with pytest.raises(CatalogueError, match=message):
        read_catalogue(text)

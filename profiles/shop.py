"""The shop's HTTP API: the only file that knows its paths and payloads.

Pure. `Step` is one request that a shopper wants to make, `Endpoint` what is known of all requests of its kind: which
statuses are fine and how to read the body. Sending is `profiles.client`'s business, judging `profiles.answers`'.

Bodies come from the network: a reader checks what it takes and raises ValueError, KeyError or TypeError otherwise.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any
from urllib.parse import quote

from scenario import visits
from scenario.model import Address, Product

CATALOGUE_STEPS = 4096
"""Steps of a kind that are kept for the next time: there are as many as products, categories or words."""


@dataclass(frozen=True, eq=False)
class Endpoint:
    """One kind of call; there is one object for each."""

    key: str  # "<service> <METHOD> <path template>", as in `scenario.visits`
    expects: str  # in words, for messages
    read: Callable[[Any], Any]  # from the parsed body to what the session learns
    with_content: frozenset[int] = frozenset({200})  # fine, with a body to read
    also: frozenset[int] = frozenset()  # fine, whatever the body is
    service: str = field(init=False)
    method: str = field(init=False)
    call: str = field(init=False)  # "<METHOD> <path template>"
    template: str = field(init=False)
    accepts: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        service, method, template = self.key.split(" ")
        for name, value in (
            ("service", service),
            ("method", method),
            ("call", f"{method} {template}"),
            ("template", template),
        ):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "accepts", self.with_content | self.also)


@dataclass(frozen=True, slots=True)
class Step:
    """One request that a shopper wants to make."""

    endpoint: Endpoint
    path: str  # with the service: "/cart-service/api/cart"
    body: Mapping[str, Any] | None = None
    lookup: "Lookup | None" = None
    finishes: bool = False  # completes what was begun, so it is sent even when the session's time is over
    account_known: bool = False  # the shop knows the account, so its 401 is a failure like any other and no answer

    @property
    def payload(self) -> str | None:
        """The body as it is sent: JSON in ASCII."""
        return None if self.body is None else json.dumps(self.body)


@dataclass(frozen=True, slots=True)
class Lookup:
    """How to find out whether a request took effect whose answer was lost: it must not be sent twice."""

    step: Step
    find: Callable[[Any], Any | None]  # from what `step` learned to what the lost answer would have told; None: no


@dataclass(frozen=True, slots=True)
class SignedIn:
    token: str
    user_id: str


@dataclass(frozen=True, slots=True)
class CartSeen:
    lines: Mapping[str, int]  # sku -> units
    amount: float

    @property
    def units(self) -> int:
        return sum(self.lines.values())


@dataclass(frozen=True, slots=True)
class OrderSeen:
    id: int
    amount: float
    units: int | None  # None: the shop did not say
    notes: str | None  # None: the shop did not say
    payment_id: str | None
    payment_status: str | None


@dataclass(frozen=True, slots=True)
class PaymentSeen:
    went_through: bool


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one of the scenario's accounts registers and logs in with."""

    email: str
    password: str
    first_name: str
    last_name: str


def credentials(scenario_name: str, account: int) -> Credentials:
    """The account's own, the same in every process and run. The local part of an address has at most 64 characters."""
    secret = hashlib.sha256(f"{scenario_name}/{account}".encode()).hexdigest()[:20]
    return Credentials(
        f"{scenario_name[:48].lower()}.{account}@shoppers.example", f"Pw1-{secret}", "Shopper", f"No {account}"
    )


def register(account: Credentials) -> Step:
    body = {
        "email": account.email,
        "password": account.password,
        "firstName": account.first_name,
        "lastName": account.last_name,
    }
    return Step(REGISTER, _path(REGISTER), body)


def login(account: Credentials, known: bool) -> Step:
    """Logs in. `known`: the shop said just now that it has the account."""
    return Step(LOGIN, _path(LOGIN), {"email": account.email, "password": account.password}, account_known=known)


@cache
def me() -> Step:
    return Step(ME, _path(ME))


@lru_cache(CATALOGUE_STEPS)
def list_category(category: str) -> Step:
    return Step(CATEGORY, _path(CATEGORY, category=category))


def list_products() -> Step:
    """All of them. No shopper asks for that."""
    return Step(PRODUCTS, _path(PRODUCTS))


@lru_cache(CATALOGUE_STEPS)
def open_product(sku: str) -> Step:
    return Step(PRODUCT, _path(PRODUCT, sku=sku))


@lru_cache(CATALOGUE_STEPS)
def search(query: str) -> Step:
    return Step(SEARCH, f"{_path(SEARCH)}?query={quote(query, safe='')}")


@cache
def view_cart() -> Step:
    return Step(CART, _path(CART))


@cache
def mini_cart() -> Step:
    return Step(SUMMARY, _path(SUMMARY))


def add_to_cart(product: Product, quantity: int, lines: Mapping[str, int]) -> Step:
    """Adds to a cart that holds `lines` so far. When the answer is lost, the cart tells whether it worked."""
    expected = lines.get(product.sku, 0) + quantity

    def find(cart: CartSeen) -> CartSeen | None:
        return cart if cart.lines.get(product.sku, 0) >= expected else None

    body = {"productId": product.sku, "productName": product.name, "price": product.price, "quantity": quantity}
    return Step(ADD, _path(ADD), body, Lookup(view_cart(), find))


def change_quantity(sku: str, quantity: int) -> Step:
    return Step(CHANGE, _path(CHANGE), {"productId": sku, "quantity": quantity})


def empty_cart() -> Step:
    return Step(EMPTY, _path(EMPTY))


def place_order(address: Address, notes: str, cart: CartSeen, known_orders: set[int]) -> Step:
    """Orders what is in the server-side cart, last seen as `cart`. When the answer is lost, the account's orders tell.

    A shop that shows an order's notes names ours by them. One that does not: it is the newest unpaid order that is
    new to the session and has what the cart had.
    """

    def find(orders: list[OrderSeen]) -> OrderSeen | None:
        ours = [order for order in orders if order.notes == notes]
        if not ours:
            ours = [order for order in orders if order.notes is None and _may_be(order, cart, known_orders)]
        return max(ours, key=lambda order: order.id, default=None)

    shipping = {
        "street": address.street,
        "city": address.city,
        "state": address.state,
        "zipCode": address.zip_code,
        "country": address.country,
    }
    if address.phone is not None:
        shipping["phone"] = address.phone
    body = {"items": [], "shippingAddress": shipping, "notes": notes}
    return Step(PLACE, _path(PLACE), body, Lookup(list_orders(), find))


def pay(order_id: int, amount: float, payment_id: str | None, user_id: str) -> Step:
    """Pays an order that has `payment_id` so far. When the answer is lost, the order tells whether it is paid."""

    def find(order: OrderSeen) -> PaymentSeen | None:
        if order.payment_id is None or order.payment_id == payment_id:
            return None
        return PaymentSeen(went_through=order.payment_status not in _NOT_PAID)

    body = {
        "userId": user_id,
        "amount": amount,
        "currency": "USD",
        "paymentMethod": "CREDIT_CARD",
        "orderId": order_id,
    }
    return Step(PAY, _path(PAY), body, Lookup(view_order(order_id), find), finishes=True)


def view_order(order_id: int) -> Step:
    return Step(ORDER, _path(ORDER, id=order_id))


@cache
def list_orders() -> Step:
    return Step(ORDERS, _path(ORDERS))


_NOT_PAID = frozenset({"FAILED", "DECLINED", "CANCELLED"})


def _may_be(order: OrderSeen, cart: CartSeen, known_orders: set[int]) -> bool:
    return (
        order.id not in known_orders
        and order.payment_id is None
        and order.units in (None, cart.units)
        and math.isclose(order.amount, cart.amount, abs_tol=0.005)
    )


def _path(endpoint: Endpoint, **values: object) -> str:
    safe = {name: quote(str(value), safe="") for name, value in values.items()}
    return f"/{endpoint.service}{endpoint.template.format_map(safe)}"


def _read_object(body: Any) -> None:
    if not isinstance(body, dict):
        raise TypeError


def _read_list(body: Any) -> None:
    if not isinstance(body, list):
        raise TypeError


def _read_products(body: Any) -> list[dict[str, Any]]:
    """Each with what a scenario's catalogue says of it."""
    return [
        {
            **{name: _text(product[name]) for name in ("sku", "name", "category", "brand")},
            "price": _amount(product["price"]),
        }
        for product in body
    ]


def _read_sign_in(body: Any) -> SignedIn:
    return SignedIn(_token(body["token"]), str(_word(body["user"]["id"])))


def _read_cart(body: Any) -> CartSeen:
    lines: dict[str, int] = {}
    for item in body["items"]:
        sku = _text(item["productId"])
        lines[sku] = lines.get(sku, 0) + _count(item["quantity"])
    return CartSeen(lines, _amount(body["totalAmount"]))


def _read_units(body: Any) -> int:
    return _count(body["totalItems"])


def _read_order(body: Any) -> OrderSeen:
    _read_object(body)
    units, notes, payment_id, payment_status = (
        body.get(name) for name in ("totalItems", "notes", "paymentId", "paymentStatus")
    )
    return OrderSeen(
        id=_count(body["id"]),
        amount=_amount(body["totalAmount"]),
        units=None if units is None else _count(units),
        notes=None if notes is None else _text(notes),
        payment_id=None if payment_id is None else str(_word(payment_id)),
        payment_status=None if payment_status is None else _text(payment_status),
    )


def _read_orders(body: Any) -> list[OrderSeen]:
    _read_list(body)
    return [_read_order(order) for order in body]


def _read_payment(body: Any) -> PaymentSeen:
    return PaymentSeen(went_through=_text(body["status"]) not in _NOT_PAID)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _token(value: Any) -> str:
    """A token that may stand in a header."""
    text = _text(value)
    if not text or not text.isascii() or not text.isprintable():
        raise ValueError
    return text


def _word(value: Any) -> str | int:
    """An id: text that may stand in a header, or a number."""
    return _count(value) if isinstance(value, int) else _token(value)


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError
    return value


def _amount(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError
    if not 0.0 <= value < 1e12:  # also refuses NaN, which Python's JSON reader lets through
        raise ValueError
    return float(value)


_CREATED = frozenset({201})

REGISTER = Endpoint(visits.REGISTER, "an account", _read_object, _CREATED, also=frozenset({409}))  # 409: it exists
LOGIN = Endpoint(visits.LOGIN, "a token and a user", _read_sign_in)
ME = Endpoint(visits.ME, "an account", _read_object)
CATEGORY = Endpoint(visits.CATEGORY, "a list of products", _read_list)
PRODUCT = Endpoint(visits.PRODUCT, "a product", _read_object)
PRODUCTS = Endpoint("inventory-service GET /api/inventory/products", "a list of whole products", _read_products)
SEARCH = Endpoint(visits.SEARCH, "a list of products", _read_list)
CART = Endpoint(visits.CART, "a cart", _read_cart)
SUMMARY = Endpoint(visits.CART_SUMMARY, "a number of items", _read_units)
ADD = Endpoint(visits.CART_ADD, "a cart", _read_cart, _CREATED)
CHANGE = Endpoint(visits.CART_CHANGE, "a cart", _read_cart)
EMPTY = Endpoint("cart-service DELETE /api/cart", "nothing", _read_object, frozenset(), also=frozenset({204, 404}))
PLACE = Endpoint(visits.ORDER_PLACE, "an order", _read_order, _CREATED)
ORDER = Endpoint(visits.ORDER, "an order", _read_order)
ORDERS = Endpoint(visits.ORDERS, "a list of orders", _read_orders)
PAY = Endpoint(visits.PAY, "a payment", _read_payment, _CREATED)

"""order-service: from a cart to an order.

    POST /api/orders -> read the cart -> reserve stock (a call per item) -> authorise payment -> clear cart -> commit

Until the commit nothing has changed but the reservation, which is released when any step fails: no order without stock,
no stock lost, no cart emptied for nothing. The authorisation is load on payment-service only; the order is paid by the
client's own POST /api/payments.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.shop import rules
from sandbox.shop.accounts import User
from sandbox.shop.calls import Call, FanOut, Reply, Request, Response, error, json_response, upstream_failed
from sandbox.shop.carts import Cart, Carts, Line
from sandbox.shop.inventory import Inventory, Reservation


@dataclass(slots=True)
class Order:
    """One order that was placed."""

    id: int
    user: User
    items: tuple[dict[str, object], ...]
    total_amount: float
    total_items: int
    shipping_address: object
    notes: object
    created_at: str
    payment_id: int | None = None
    payment_status: str = "PENDING"

    def as_json(self) -> dict[str, object]:
        """As the API shows it."""
        return {
            "id": self.id,
            "orderNumber": f"ORD-{self.id:08d}",
            "userId": str(self.user.id),
            "userEmail": self.user.email,
            "items": self.items,
            "totalAmount": self.total_amount,
            "totalItems": self.total_items,
            "status": "CONFIRMED" if self.payment_status == "COMPLETED" else "PENDING",
            "paymentId": self.payment_id,
            "paymentStatus": self.payment_status,
            "shippingAddress": self.shipping_address,
            "notes": self.notes,
            "createdAt": self.created_at,
        }


class Orders:
    """All orders."""

    def __init__(self, carts: Carts, inventory: Inventory, wall_clock: Callable[[], str]) -> None:
        self._carts = carts
        self._inventory = inventory
        self._wall_clock = wall_clock
        self._by_id: dict[int, Order] = {}
        self._of_user: dict[int, list[Order]] = {}

    def find(self, order_id: int, user: User) -> Order | None:
        """An order of this account."""
        order = self._by_id.get(order_id)
        return order if order is not None and order.user.id == user.id else None

    def view(self, user: User, order_id: str) -> Response:
        """GET /api/orders/{id}; orders of others do not exist."""
        number = int(order_id) if order_id.isascii() and order_id.isdigit() and len(order_id) < 16 else 0
        order = self.find(number, user)
        return error(404, "no such order") if order is None else json_response(200, order.as_json())

    def of_user(self, user: User) -> Response:
        """GET /api/orders/user, oldest first."""
        return json_response(200, [order.as_json() for order in self._of_user.get(user.id, ())])

    def place(self, user: User, request: Request) -> Reply:
        """POST /api/orders"""
        body = request.body
        problems = rules.problems(body, rules.ORDER, refuse_unknown=True)
        if problems or not isinstance(body, dict):
            return error(400, "; ".join(problems))
        placing = _Placing(self, user, body)
        return FanOut((Call("cart-service", "GET", placing.read_cart),), placing.reserve, placing.give_up)

    def commit(self, user: User, body: dict[str, Any], lines: Sequence[Line], total: float) -> Response:
        """The order exists from here on."""
        order = Order(
            id=len(self._by_id) + 1,
            user=user,
            items=tuple(line.as_json() for line in lines),
            total_amount=total,
            total_items=sum(line.quantity for line in lines),
            shipping_address=body["shippingAddress"],
            notes=body.get("notes"),
            created_at=self._wall_clock(),
        )
        self._by_id[order.id] = order
        self._of_user.setdefault(user.id, []).append(order)
        return json_response(201, order.as_json())

    @property
    def carts(self) -> Carts:
        """Where orders come from."""
        return self._carts

    @property
    def inventory(self) -> Inventory:
        """Where their units come from."""
        return self._inventory


class _Placing:
    """One order on its way; a step per method."""

    def __init__(self, orders: Orders, user: User, body: dict[str, Any]) -> None:
        self._orders = orders
        self._user = user
        self._body = body
        self._reservation = Reservation()
        self._cart: Cart | None = None
        self._version = 0
        self._lines: tuple[Line, ...] = ()

    def read_cart(self) -> Response:
        """Runs at cart-service."""
        self._cart = self._orders.carts.find(self._user)
        if self._cart is not None:
            self._version = self._cart.version
            self._lines = tuple(self._cart.lines.values())
        return Response(200)

    def reserve(self, answers: Sequence[Response | None]) -> Reply:
        """The cart is known: hold its units."""
        if answers[0] is None:
            return self._failed("cart-service")
        if not self._lines:
            return error(400, "the cart is empty")
        inventory, held = self._orders.inventory, self._reservation
        calls = [_reserving(inventory, held, line.product_id, line.quantity) for line in self._lines]
        return FanOut(calls, self.authorise, self.give_up)

    def authorise(self, answers: Sequence[Response | None]) -> Reply:
        """The units are held: ask for the money."""
        if None in answers:
            return self._failed("inventory-service")
        if any(answer is not None and answer.status != 200 for answer in answers):
            self.give_up()
            return error(409, "not enough in stock")
        return FanOut((Call("payment-service", "POST", lambda: Response(201)),), self.clear_cart, self.give_up)

    def clear_cart(self, answers: Sequence[Response | None]) -> Reply:
        """The money is there: the cart is cleared by the commit, so that a lost answer cannot empty it for nothing."""
        if answers[0] is None:
            return self._failed("payment-service")
        return FanOut((Call("cart-service", "DELETE", lambda: Response(204)),), self.commit, self.give_up)

    def commit(self, answers: Sequence[Response | None]) -> Reply:
        """Everybody agreed."""
        cart = self._orders.carts.find(self._user)
        if answers[0] is None:
            return self._failed("cart-service")
        if cart is None or cart is not self._cart or cart.version != self._version:
            self.give_up()
            return error(409, "the cart changed while the order was placed")
        total = cart.total_amount
        self._orders.inventory.ship(self._reservation)
        self._orders.carts.empty(cart)
        return self._orders.commit(self._user, self._body, self._lines, total)

    def give_up(self) -> None:
        """Nothing was ordered."""
        self._orders.inventory.release(self._reservation)

    def _failed(self, service: str) -> Response:
        self.give_up()
        return upstream_failed(service)


def _reserving(inventory: Inventory, held: Reservation, sku: str, units: int) -> Call:
    return Call("inventory-service", "POST", lambda: inventory.reserve(held, sku, units))

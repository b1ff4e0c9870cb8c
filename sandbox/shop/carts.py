"""cart-service: one cart per account."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sandbox.shop import rules
from sandbox.shop.accounts import User
from sandbox.shop.calls import Call, FanOut, Reply, Request, Response, error, json_response, upstream_failed
from sandbox.shop.inventory import Inventory


@dataclass(slots=True)
class Line:
    """One product in a cart. Name and price are the client's, as in the real service."""

    product_id: str
    product_name: str
    product_image: str | None
    price: float
    quantity: int
    added_at: str

    def as_json(self) -> dict[str, object]:
        """As the API shows it; orders show their items alike."""
        return {
            "productId": self.product_id,
            "productName": self.product_name,
            "productImage": self.product_image,
            "price": self.price,
            "quantity": self.quantity,
            "subtotal": round(self.price * self.quantity, 2),
            "addedAt": self.added_at,
        }


@dataclass(slots=True)
class Cart:
    """The cart of one account. `version` changes with every change of its lines."""

    id: int
    user_id: int
    session_id: str | None
    created_at: str
    updated_at: str
    lines: dict[str, Line] = field(default_factory=dict)
    version: int = 0

    @property
    def total_items(self) -> int:
        """Units of all products."""
        return sum(line.quantity for line in self.lines.values())

    @property
    def total_amount(self) -> float:
        """Price of everything."""
        return round(sum(line.price * line.quantity for line in self.lines.values()), 2)


class Carts:
    """All carts."""

    def __init__(self, inventory: Inventory, wall_clock: Callable[[], str]) -> None:
        self._inventory = inventory
        self._wall_clock = wall_clock
        self._by_user: dict[int, Cart] = {}
        self._made = 0

    def find(self, user: User) -> Cart | None:
        """The account's cart, if it has one."""
        return self._by_user.get(user.id)

    def view(self, user: User, request: Request) -> Response:
        """GET /api/cart; makes one when there is none."""
        return self._answer(200, self._get_or_make(user, request))

    def summary(self, user: User, request: Request) -> Response:
        """GET /api/cart/summary; makes one when there is none."""
        cart = self._get_or_make(user, request)
        return json_response(
            200,
            {
                "cartId": cart.id,
                "totalItems": cart.total_items,
                "totalAmount": cart.total_amount,
                "status": "ACTIVE",
            },
        )

    def add(self, user: User, request: Request) -> Reply:
        """POST /api/cart/items: asks inventory for the product and its stock, then adds it."""
        body = request.body
        problems = rules.problems(body, rules.CART_ITEM)
        if problems or not isinstance(body, dict):
            return error(400, "; ".join(problems))
        sku: str = body["productId"]
        inventory = self._inventory

        def then(answers: Sequence[Response | None]) -> Reply:
            product, stock = answers
            if product is None or stock is None:
                return upstream_failed("inventory-service")
            if product.status != 200:
                return error(400, "productId: no such product")
            return self._add_line(user, request, body)

        return FanOut(
            (
                Call("inventory-service", "GET", lambda: inventory.product(sku)),
                Call("inventory-service", "GET", lambda: inventory.stock_of(sku)),
            ),
            then,
        )

    def change(self, user: User, request: Request) -> Response:
        """PUT /api/cart/items; a quantity of 0 removes the line."""
        problems = rules.problems(request.body, rules.CART_CHANGE)
        if problems or not isinstance(request.body, dict):
            return error(400, "; ".join(problems))
        cart = self.find(user)
        if cart is None:
            return error(404, "no cart")
        line = cart.lines.get(request.body["productId"])
        if line is None:
            return error(404, "the product is not in the cart")
        quantity: int = request.body["quantity"]
        if quantity > self._inventory.available(line.product_id):
            return error(400, "quantity: not enough in stock")
        if quantity == 0:
            del cart.lines[line.product_id]
        else:
            line.quantity = quantity
        self._touch(cart)
        return self._answer(200, cart)

    def remove(self, user: User, product_id: str) -> Response:
        """DELETE /api/cart/items/{productId}; 204 also when the product was not in the cart."""
        cart = self.find(user)
        if cart is None:
            return error(404, "no cart")
        if cart.lines.pop(product_id, None) is not None:
            self._touch(cart)
        return Response(204)

    def delete(self, user: User) -> Response:
        """DELETE /api/cart"""
        if self._by_user.pop(user.id, None) is None:
            return error(404, "no cart")
        return Response(204)

    def empty(self, cart: Cart) -> None:
        """All lines were ordered."""
        cart.lines = {}
        self._touch(cart)

    def _add_line(self, user: User, request: Request, body: dict[str, Any]) -> Response:
        cart = self._get_or_make(user, request)
        sku = body["productId"]
        line = cart.lines.get(sku)
        quantity = body["quantity"] + (line.quantity if line is not None else 0)
        if quantity > rules.MAX_QUANTITY:
            return error(400, f"quantity: a cart holds at most {rules.MAX_QUANTITY} of a product")
        if quantity > self._inventory.available(sku):
            return error(400, "quantity: not enough in stock")
        cart.lines[sku] = Line(
            product_id=sku,
            product_name=body["productName"],
            product_image=body.get("productImage"),
            price=body["price"],
            quantity=quantity,
            added_at=self._wall_clock() if line is None else line.added_at,
        )
        self._touch(cart)
        return self._answer(201, cart)

    def _get_or_make(self, user: User, request: Request) -> Cart:
        cart = self._by_user.get(user.id)
        if cart is None:
            self._made += 1
            now = self._wall_clock()
            cart = self._by_user[user.id] = Cart(self._made, user.id, request.session_id, now, now)
        return cart

    def _touch(self, cart: Cart) -> None:
        cart.version += 1
        cart.updated_at = self._wall_clock()

    def _answer(self, status: int, cart: Cart) -> Response:
        return json_response(
            status,
            {
                "cartId": cart.id,
                "userId": str(cart.user_id),
                "sessionId": cart.session_id,
                "items": [line.as_json() for line in cart.lines.values()],
                "totalAmount": cart.total_amount,
                "totalItems": cart.total_items,
                "status": "ACTIVE",
                "createdAt": cart.created_at,
                "updatedAt": cart.updated_at,
            },
        )

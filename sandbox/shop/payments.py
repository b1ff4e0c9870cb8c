"""payment-service: payments, accepted up to a limit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sandbox.shop import rules
from sandbox.shop.accounts import User
from sandbox.shop.calls import Request, Response, error, json_response
from sandbox.shop.orders import Orders

PAYMENT_LIMIT = 100_000.0
"""A larger amount is answered with 201 and status FAILED, as the real service does."""


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment, whatever became of it."""

    id: int
    owner_id: int
    body: dict[str, Any]
    status: str
    created_at: str

    def as_json(self) -> dict[str, object]:
        """As the API shows it."""
        return {
            "paymentId": self.id,
            "orderId": self.body["orderId"],
            "userId": self.body["userId"],
            "amount": self.body["amount"],
            "currency": self.body["currency"],
            "method": self.body["paymentMethod"],
            "status": self.status,
            "createdAt": self.created_at,
        }


class Payments:
    """All payments."""

    def __init__(self, orders: Orders, wall_clock: Callable[[], str]) -> None:
        self._orders = orders
        self._wall_clock = wall_clock
        self._by_id: dict[int, Payment] = {}

    def pay(self, user: User, request: Request) -> Response:
        """POST /api/payments; notes the payment at the order if it is one of this account."""
        body = request.body
        problems = rules.problems(body, rules.PAYMENT, refuse_unknown=True)
        if problems or not isinstance(body, dict):
            return error(400, "; ".join(problems))
        status = "COMPLETED" if body["amount"] <= PAYMENT_LIMIT else "FAILED"
        payment = Payment(len(self._by_id) + 1, user.id, body, status, self._wall_clock())
        self._by_id[payment.id] = payment
        order = self._orders.find(int(body["orderId"]), user)
        if order is not None and order.payment_status != "COMPLETED":
            order.payment_id = payment.id
            order.payment_status = status
        return json_response(201, payment.as_json())

    def view(self, user: User, payment_id: str) -> Response:
        """GET /api/payments/{paymentId}; payments of others do not exist."""
        number = int(payment_id) if payment_id.isascii() and payment_id.isdigit() and len(payment_id) < 16 else 0
        payment = self._by_id.get(number)
        if payment is None or payment.owner_id != user.id:
            return error(404, "no such payment")
        return json_response(200, payment.as_json())

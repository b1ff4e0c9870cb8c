"""The shop behind the balancer: five services over one state, and which call is which.

The three instances of a service share its state, as instances in front of one database do.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from random import Random

from sandbox.parameters import Parameters
from sandbox.shop.accounts import Accounts, User
from sandbox.shop.calls import Reply, Request, error
from sandbox.shop.carts import Carts
from sandbox.shop.catalogue import DEFAULT_CATALOGUE, Product
from sandbox.shop.inventory import Inventory
from sandbox.shop.orders import Orders
from sandbox.shop.payments import Payments

Handler = Callable[[User, Request, str], Reply]
"""An endpoint: the account, the request, and the last part of a path that ends in a parameter."""


class Shop:
    """All state of the shop. `now` is the model's clock; `start_unix_s` is the time of day at its zero."""

    def __init__(
        self,
        rng: Random,
        now: Callable[[], float],
        parameters: Parameters,
        *,
        products: Sequence[Product] = DEFAULT_CATALOGUE,
        start_unix_s: float = 0.0,
    ) -> None:
        def wall_clock() -> str:
            moment = datetime.fromtimestamp(start_unix_s + now(), UTC)
            return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

        self.accounts = Accounts(rng, now)
        self.inventory = Inventory(products, parameters, now, wall_clock())
        self.carts = Carts(self.inventory, wall_clock)
        self.orders = Orders(self.carts, self.inventory, wall_clock)
        self.payments = Payments(self.orders, wall_clock)
        self._open: dict[tuple[str, str, str], Callable[[Request], Reply]] = {
            ("user-service", "POST", "/api/users/register"): self.accounts.register,
            ("user-service", "POST", "/api/users/login"): self.accounts.login,
        }
        self._exact: dict[tuple[str, str, str], Handler] = {
            ("user-service", "GET", "/api/users/me"): lambda user, _, __: self.accounts.me(user),
            ("inventory-service", "GET", "/api/inventory/products"): lambda _, __, ___: self.inventory.list_all(),
            ("inventory-service", "GET", "/api/inventory/search"): lambda _, req, __: self.inventory.search(req),
            ("cart-service", "GET", "/api/cart"): lambda user, req, _: self.carts.view(user, req),
            ("cart-service", "GET", "/api/cart/summary"): lambda user, req, _: self.carts.summary(user, req),
            ("cart-service", "POST", "/api/cart/items"): lambda user, req, _: self.carts.add(user, req),
            ("cart-service", "PUT", "/api/cart/items"): lambda user, req, _: self.carts.change(user, req),
            ("cart-service", "DELETE", "/api/cart"): lambda user, _, __: self.carts.delete(user),
            ("order-service", "POST", "/api/orders"): lambda user, req, _: self.orders.place(user, req),
            ("order-service", "GET", "/api/orders/user"): lambda user, _, __: self.orders.of_user(user),
            ("payment-service", "POST", "/api/payments"): lambda user, req, _: self.payments.pay(user, req),
        }
        self._with_parameter: dict[tuple[str, str, str], Handler] = {
            ("inventory-service", "GET", "/api/inventory/products"): lambda _, __, sku: self.inventory.product(sku),
            ("inventory-service", "GET", "/api/inventory/products/category"): lambda _, __, category: (
                self.inventory.category(category)
            ),
            ("inventory-service", "GET", "/api/inventory/product"): lambda _, __, sku: self.inventory.stock_of(sku),
            ("cart-service", "DELETE", "/api/cart/items"): lambda user, _, sku: self.carts.remove(user, sku),
            ("order-service", "GET", "/api/orders"): lambda user, _, number: self.orders.view(user, number),
            ("payment-service", "GET", "/api/payments"): lambda user, _, number: self.payments.view(user, number),
        }

    def handle(self, service: str, request: Request) -> Reply:
        """The answer of `service`, or the calls it makes before it answers. 401 comes before 404."""
        key = (service, request.method, request.path)
        without_token = self._open.get(key)
        if without_token is not None:
            return without_token(request)
        user = self.accounts.user_of(request.token)
        if user is None:
            return error(401, "a valid token is needed: log in")
        handler = self._exact.get(key)
        if handler is not None:
            return handler(user, request, "")
        parent, _, parameter = request.path.rpartition("/")
        handler = self._with_parameter.get((service, request.method, parent))
        if handler is None or not parameter:
            return error(404, "no such call")
        return handler(user, request, parameter)

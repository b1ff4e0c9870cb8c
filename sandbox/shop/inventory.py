"""inventory-service: products and stock.

Stock is real: an order reserves its units, they leave when it is placed or come back when it is not. When half of a
shelf is sold a delivery is ordered, which fills it again a little later, so that a long run does not run dry.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sandbox.parameters import Parameters
from sandbox.shop.calls import Request, Response, encode_json, error, json_response
from sandbox.shop.catalogue import Product


@dataclass(slots=True)
class Stock:
    """The shelf of one product."""

    available: int
    reserved: int = 0
    sold: int = 0
    delivered: int = 0  # by all deliveries so far
    delivery_s: float | None = None  # when the one under way arrives


class Reservation:
    """The units that one order holds while it is placed. Closed once: they are shipped, or they come back."""

    __slots__ = ("is_open", "lines")

    def __init__(self) -> None:
        self.is_open = True
        self.lines: list[tuple[str, int]] = []


class Inventory:
    """All products with their stock. Texts of products never change, so their JSON is made once."""

    def __init__(
        self, products: Sequence[Product], parameters: Parameters, now: Callable[[], float], created_at: str
    ) -> None:
        self.products = {product.sku: product for product in products}
        self.stock = {product.sku: Stock(parameters.stock_units) for product in products}
        self._p = parameters
        self._now = now
        self._created_at = created_at
        self._json = {
            product.sku: encode_json(self._as_json(number, product)) for number, product in enumerate(products, 1)
        }
        self._categories: dict[str, Response] = {}
        for category in {product.category for product in products}:
            self._categories[category] = self._list([p for p in products if p.category == category])
        self._all = self._list(products)

    def list_all(self) -> Response:
        """GET /api/inventory/products"""
        return self._all

    def product(self, sku: str) -> Response:
        """GET /api/inventory/products/{sku}"""
        text = self._json.get(sku)
        return error(404, "no such product") if text is None else Response(200, text)

    def category(self, category: str) -> Response:
        """GET /api/inventory/products/category/{category}; an unknown one is an empty list."""
        return self._categories.get(category) or Response(200, "[]")

    def search(self, request: Request) -> Response:
        """GET /api/inventory/search?query="""
        words = request.query.get("query")
        if words is None:
            return error(400, "query: is required")
        return self._list([product for product in self.products.values() if words in product.name])

    def stock_of(self, sku: str) -> Response:
        """GET /api/inventory/product/{sku}; 404 without a body."""
        stock = self._current(sku)
        if stock is None:
            return Response(404)
        return json_response(
            200,
            {
                "productSku": sku,
                "availableQuantity": stock.available,
                "reservedQuantity": stock.reserved,
                "totalQuantity": stock.available + stock.reserved,
                "lowStock": stock.available < self._p.restock_below_units,
                "outOfStock": stock.available == 0,
            },
        )

    def available(self, sku: str) -> int:
        """Units that can be sold now; 0 for an unknown product."""
        stock = self._current(sku)
        return 0 if stock is None else stock.available

    def reserve(self, reservation: Reservation, sku: str, units: int) -> Response:
        """Hold units for an order; 409 without effect when there are not enough or the order was given up."""
        stock = self._current(sku)
        if not reservation.is_open:
            return error(409, "the order was given up")
        if stock is None or stock.available < units:
            return error(409, f"{sku}: not enough in stock")
        stock.available -= units
        stock.reserved += units
        reservation.lines.append((sku, units))
        return json_response(200, {"productSku": sku, "reserved": units})

    def ship(self, reservation: Reservation) -> None:
        """The order is placed: its units leave."""
        for sku, units in self._close(reservation):
            stock = self.stock[sku]
            stock.reserved -= units
            stock.sold += units
            if stock.available < self._p.restock_below_units and stock.delivery_s is None:
                stock.delivery_s = self._now() + self._p.restock_delay_s

    def release(self, reservation: Reservation) -> None:
        """The order is not placed: its units come back, and none can be held for it any more."""
        for sku, units in self._close(reservation):
            self.stock[sku].reserved -= units
            self.stock[sku].available += units

    def _close(self, reservation: Reservation) -> list[tuple[str, int]]:
        reservation.is_open = False
        lines, reservation.lines = reservation.lines, []
        return lines

    def _current(self, sku: str) -> Stock | None:
        stock = self.stock.get(sku)
        if stock is not None and stock.delivery_s is not None and self._now() >= stock.delivery_s:
            stock.delivery_s = None
            stock.delivered += self._p.stock_units - stock.available
            stock.available = self._p.stock_units
        return stock

    def _list(self, products: Sequence[Product]) -> Response:
        return Response(200, "[" + ",".join(self._json[product.sku] for product in products) + "]")

    def _as_json(self, number: int, product: Product) -> dict[str, object]:
        return {
            "id": number,
            "sku": product.sku,
            "name": product.name,
            "description": f"{product.name} by {product.brand}",
            "category": product.category,
            "brand": product.brand,
            "price": product.price,
            "weight": 1.0,
            "status": "ACTIVE",
            "createdAt": self._created_at,
            "updatedAt": self._created_at,
        }

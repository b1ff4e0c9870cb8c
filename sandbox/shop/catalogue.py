"""What the shop sells: a small assortment of its own, or the products of a file."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

MAX_PRODUCTS = 10_000


@dataclass(frozen=True, slots=True)
class Product:
    """One product."""

    sku: str
    name: str
    category: str
    brand: str
    price: float  # of one unit


class CatalogueError(ValueError):
    """A catalogue that cannot be sold; `problems` are all that is wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


DEFAULT_CATALOGUE = (
    Product("BOOK-001", "Paperback Novel", "books", "Northwind", 12.50),
    Product("BOOK-002", "Cookery Book", "books", "Northwind", 28.00),
    Product("BOOK-003", "City Travel Guide", "books", "Meridian", 18.90),
    Product("ELEC-001", "Wireless Headphones", "electronics", "Sonora", 89.00),
    Product("ELEC-002", "Phone Charger", "electronics", "Voltline", 19.99),
    Product("ELEC-003", "Tablet Stand", "electronics", "Voltline", 24.50),
    Product("HOME-001", "Table Lamp", "home", "Lumen", 45.00),
    Product("HOME-002", "Cotton Towel Set", "home", "Harbour", 32.00),
    Product("HOME-003", "Coffee Mug", "home", "Harbour", 9.50),
    Product("SPRT-001", "Running Shoes", "sports", "Stride", 75.00),
    Product("SPRT-002", "Yoga Mat", "sports", "Stride", 27.00),
    Product("SPRT-003", "Water Bottle", "sports", "Alpine", 14.00),
)
"""Sold when no catalogue is given; 100 units of the dearest are within the payment limit."""


def read_catalogue(text: str) -> tuple[Product, ...]:
    """A list of `{"sku", "name", "category", "brand", "price"}` as JSON; other fields are refused."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CatalogueError([f"not JSON: {error}"]) from error
    return check_catalogue(given)


def check_catalogue(given: object) -> tuple[Product, ...]:
    """The same from a value; raises CatalogueError with all problems."""
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_PRODUCTS:
        raise CatalogueError([f"must be a list of 1 to {MAX_PRODUCTS} products"])
    problems: list[str] = []
    products = [_product(item, f"[{position}]", problems) for position, item in enumerate(given)]
    skus = [product.sku for product in products if product is not None]
    problems += [
        f"sku {sku!r} stands there {skus.count(sku)} times" for sku in sorted({s for s in skus if skus.count(s) > 1})
    ]
    if problems:
        raise CatalogueError(problems)
    return tuple(product for product in products if product is not None)


def _product(item: object, place: str, problems: list[str]) -> Product | None:
    if not isinstance(item, dict):
        problems.append(f"{place}: must be an object with sku, name, category, brand, price")
        return None
    before = len(problems)
    for name in ("sku", "name", "category", "brand"):
        value = item.get(name)
        if not isinstance(value, str) or not value.strip() or len(value) > 200:
            problems.append(f"{place}.{name}: must be text of 1 to 200 characters")
    price = item.get("price")
    if not isinstance(price, int | float) or isinstance(price, bool) or not math.isfinite(price) or price <= 0:
        problems.append(f"{place}.price: must be a number above 0")
    known = ("sku", "name", "category", "brand", "price")
    problems += [f"{place}.{str(key)[:40]}: unknown field" for key in item if key not in known]
    if len(problems) > before:
        return None
    return Product(*(item[name] for name in known))

"""The rules of request bodies. Every function returns all problems of a body, in words; none means it is good."""

import math
import re
from collections.abc import Callable, Mapping

Check = Callable[[object], str | None]
"""A value (None when absent) to what is wrong with it."""

MAX_TEXT = 2_000

_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s.]+(\.[^@\s.]+)+", re.ASCII)
_ZIP = re.compile(r"\d{5}(-\d{4})?", re.ASCII)
_PHONE = re.compile(r"\+?[1-9]\d{1,14}", re.ASCII)

CURRENCIES = ("INR", "USD", "EUR", "GBP", "AUD", "OTHER")
PAYMENT_METHODS = ("CREDIT_CARD", "DEBIT_CARD", "UPI", "NET_BANKING", "WALLET", "PAYPAL", "BANK_TRANSFER", "COD")
MAX_QUANTITY = 100


def text(value: object) -> str | None:
    """A string that is not blank."""
    return None if isinstance(value, str) and value.strip() and len(value) <= MAX_TEXT else "must be text, not blank"


def identifier(value: object) -> str | None:
    """Text, or a whole number that stands for one."""
    return None if isinstance(value, int) and not isinstance(value, bool) else text(value)


def optional(check: Check) -> Check:
    """Absent (or null), or as `check` says."""
    return lambda value: None if value is None else check(value)


def is_number(value: object) -> bool:
    """A finite JSON number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: object) -> str | None:
    """Any number."""
    return None if is_number(value) else "must be a number"


def at_least(low: float) -> Check:
    """A number of at least `low`."""
    return lambda value: (
        None if isinstance(value, int | float) and is_number(value) and value >= low else f"must be at least {low:g}"
    )


def positive(value: object) -> str | None:
    """A number above 0."""
    good = isinstance(value, int | float) and is_number(value) and value > 0
    return None if good else "must be a number above 0"


def quantity(low: int) -> Check:
    """A whole number from `low` to 100."""
    return lambda value: (
        None
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= MAX_QUANTITY
        else f"must be a whole number from {low} to {MAX_QUANTITY}"
    )


def one_of(*allowed: str) -> Check:
    """One of a few words."""
    return lambda value: None if value in allowed else f"must be one of {', '.join(allowed)}"


def any_text(value: object) -> str | None:
    """A string, also an empty one."""
    return None if isinstance(value, str) and len(value) <= MAX_TEXT else "must be text"


def _matches(pattern: re.Pattern[str], words: str) -> Check:
    return lambda value: None if isinstance(value, str) and pattern.fullmatch(value) else words


def _password(value: object) -> str | None:
    good = isinstance(value, str) and 8 <= len(value) <= MAX_TEXT
    return None if good else "must have 8 characters or more"


def _notes(value: object) -> str | None:
    return None if isinstance(value, str) and len(value) <= 500 else "must be text of at most 500 characters"


def _items(value: object) -> str | None:
    return None if isinstance(value, list) else "must be a list; it may be empty, the order is built from the cart"


def _address(value: object) -> str | None:
    if not isinstance(value, dict):
        return "must be an address with street, city, state, country, zipCode"
    return "; ".join(problems(value, ADDRESS)) or None


ADDRESS: Mapping[str, Check] = {
    "street": text,
    "city": text,
    "state": text,
    "country": text,
    "zipCode": _matches(_ZIP, "must be like 12345 or 12345-6789"),
    "phone": optional(_matches(_PHONE, "must be like +14155550100")),
}
REGISTER: Mapping[str, Check] = {
    "email": _matches(_EMAIL, "must be an e-mail address"),
    "password": _password,
    "firstName": text,
    "lastName": text,
    "phoneNumber": optional(any_text),
}
LOGIN: Mapping[str, Check] = {"email": text, "password": text}
CART_ITEM: Mapping[str, Check] = {
    "productId": text,
    "productName": text,
    "price": positive,
    "quantity": quantity(1),
    "productImage": optional(any_text),
}
CART_CHANGE: Mapping[str, Check] = {"productId": text, "quantity": quantity(0)}
ORDER: Mapping[str, Check] = {"items": _items, "shippingAddress": _address, "notes": optional(_notes)}
PAYMENT: Mapping[str, Check] = {
    "userId": identifier,
    "amount": at_least(0.01),
    "currency": one_of(*CURRENCIES),
    "paymentMethod": one_of(*PAYMENT_METHODS),
    "orderId": number,
}


def problems(body: object, checks: Mapping[str, Check], *, refuse_unknown: bool = False) -> list[str]:
    """Everything that is wrong with `body`.

    >>> problems({"productId": "A-1", "quantity": 101}, CART_CHANGE)
    ['quantity: must be a whole number from 0 to 100']
    """
    if not isinstance(body, dict):
        return ["the body must be a JSON object"]
    found = [f"{name}: {wrong}" for name, check in checks.items() if (wrong := check(body.get(name))) is not None]
    if refuse_unknown:
        found += [f"{str(name)[:40]}: unknown field" for name in body if name not in checks]
    return found

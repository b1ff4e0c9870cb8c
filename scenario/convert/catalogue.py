"""Products and shipping addresses of old files."""

import re
from collections.abc import Mapping
from typing import Any

from scenario.convert.old import Found, Old
from scenario.convert.report import Report, at, said, same
from scenario.convert.values import number_of, plain_key
from scenario.schema import PHONE, SKU, ZIP_CODE

Tree = dict[str, Any]

_SELLS = "the target has to sell it so"
_ADDRESS_KEYS = ("street", "city", "state", "zip_code", "country", "phone")


def convert_catalogue(found: list[Found], shipped: list[Tree], report: Report) -> list[Tree]:
    """The products of the file; the shipped ones when it has none."""
    entries = [entry for one in found for entry in _entries(one, report)]
    products: list[Tree] = []
    places: dict[str, str] = {}
    for place, entry in entries:
        product = _product(entry, place, report)
        if product is None:
            continue
        if product["sku"] in places and product in products:
            report.dropped(place, entry, f"{places[product['sku']]} is the same product")
            continue
        places.setdefault(product["sku"], place)
        products.append(product)
    if not found:
        reason = "default: the shipped catalogue; the target has to sell these products, the sandbox sells any"
        report.filled("product_catalogue", f"{len(shipped)} products, {shipped[0]['sku']} and others", reason)
        return shipped
    if not entries and not report.refusals:
        report.refuse(found[0].place, "has no products", "Add one, or remove the key to use the shipped catalogue")
    return products


def _entries(found: Found, report: Report) -> list[tuple[str, Any]]:
    """Place and content of each product: of a list, of a mapping id -> product, or of category -> list."""
    value = found.value
    if isinstance(value, list):
        return [(at(found.place, index), item) for index, item in enumerate(value)]
    if not isinstance(value, Mapping):
        report.refuse(found.place, f"{said(value)} is not a list of products", "Write its products as a list")
        return []
    if {plain_key(key) for key in value} & {"products", "items"} and len(value) == 1:
        (key, inner), *_ = value.items()
        report.note(at(found.place, key), "a list", found.key, "one list of products")
        return _entries(Found(found.key, at(found.place, key), inner), report)
    entries: list[tuple[str, Any]] = []
    for key, item in value.items():
        place = at(found.place, key)
        if isinstance(item, list):
            report.note(place, "products by category", f"category {said(key)}", "each product names its category")
            inside = [(at(place, index), one) for index, one in enumerate(item)]
            entries += [
                (p, {"category": key, **one} if isinstance(one, Mapping) else {"category": key, "sku": one})
                for p, one in inside
            ]
        elif isinstance(item, Mapping):
            named = {plain_key(inner) for inner in item} & {"sku", "id", "product_id", "code"}
            if not named:
                report.note(place, "a product by its id", f"sku {said(key)}", "products are a list")
            entries.append((place, item if named else {"sku": key, **item}))
        else:
            report.refuse(
                place, f"{said(item)} is not a product", "Write a mapping with sku, name, category, brand and price"
            )
    return entries


def _product(entry: Any, place: str, report: Report) -> Tree | None:
    if isinstance(entry, str | int) and not isinstance(entry, bool):
        entry = {"sku": entry}
    if not isinstance(entry, Mapping):
        report.refuse(
            place, f"{said(entry)} is not a product", "Write a mapping with sku, name, category, brand and price"
        )
        return None
    old, refused = Old(entry, place, report), len(report.refusals)
    sku_found = old.take("sku") or old.take("product_sku", "sku_code", "product_id", "product_code", "code", "id")
    sku = old.converted(sku_found, "sku", _sku, "1 to 64 letters, digits, . _ and -", "it is the SKU")
    if sku_found is None:
        report.refuse(place, "has no sku", "Add the target's SKU")
    name = old.convert("name", ("title", "product_name"), _label, "text")
    category = old.convert("category", ("product_category", "department", "type"), _label, "text")
    brand = old.convert("brand", ("manufacturer", "maker", "vendor"), _label, "text")
    price = old.convert("price", ("unit_price", "cost", "price_usd"), _price, "a price above 0")
    weight = old.convert("weight", ("popularity", "popularity_weight"), _above_zero, "a number above 0")
    old.drop_all("the plan needs nothing else of a product")
    if len(report.refusals) > refused:
        return None
    filled = {
        "name": str(sku).replace("-", " ").replace("_", " "),
        "category": "General",
        "brand": "Unknown",
        "price": 20.0,
    }
    product = {"sku": sku, "name": name, "category": category, "brand": brand, "price": price}
    for key, value in filled.items():
        if product[key] is None:
            product[key] = value
            report.filled(at(place, key), said(value), f"default; {_SELLS}")
    return product | ({} if weight is None else {"weight": weight})


def convert_addresses(found: list[Found], shipped: list[Tree], report: Report) -> list[Tree]:
    """The addresses of the file; the shipped ones when it has none."""
    if not found:
        report.filled("shipping_addresses", f"{len(shipped)} addresses", "default: the shipped addresses")
        return shipped
    addresses: list[Tree] = []
    for one in found:
        value = one.value
        if isinstance(value, Mapping):
            is_one = any(not isinstance(item, Mapping) for item in value.values())
            report.note(one.place, "a mapping", "a list of addresses", "addresses are a list")
            entries = [(one.place, value)] if is_one else [(at(one.place, key), item) for key, item in value.items()]
        elif isinstance(value, list):
            entries = [(at(one.place, index), item) for index, item in enumerate(value)]
        else:
            entries = [(one.place, value)]
        read = [_address(entry, place, report) for place, entry in entries]
        addresses += [address for address in read if address is not None]
    if not addresses and not report.refusals:
        report.refuse(found[0].place, "has no addresses", "Add one, or remove the key to use the shipped addresses")
    return addresses


def _address(entry: Any, place: str, report: Report) -> Tree | None:
    if not isinstance(entry, Mapping):
        report.refuse(place, f"{said(entry)} is not an address", f"Write a mapping with {', '.join(_ADDRESS_KEYS)}")
        return None
    old, refused = Old(entry, place, report), len(report.refusals)
    names = {
        "street": ("address", "street_address", "address_line_1", "address_line1", "address1", "line1"),
        "city": ("town",),
        "state": ("region", "province", "state_code"),
    }
    address: Tree = {key: old.convert(key, others, _label, "text") for key, others in names.items()}
    zips = ("zip", "zipcode", "postal_code", "postalcode", "postcode", "post_code", "zip_postal_code")
    why = "zip codes are text of 5 or 5+4 digits"
    address["zip_code"] = old.convert("zip_code", zips, _zip, 'a zip code such as "12345" or "12345-6789"', why)
    address["country"] = old.convert("country", ("country_code",), _label, "text")
    phone = old.convert(
        "phone", ("phone_number", "telephone", "tel"), _phone, "a phone number of digits", "digits only"
    )
    old.drop_all("an order needs nothing else of an address")
    for key in ("street", "city", "state", "zip_code"):
        if address[key] is None and len(report.refusals) == refused:
            report.refuse(place, f"has no {key}", f"Add {key}")
    if len(report.refusals) > refused:
        return None
    if address["country"] is None:
        address["country"] = "USA"
        report.filled(at(place, "country"), "USA", "default")
    return address | ({} if phone is None else {"phone": phone})


def sku_named(products: list[Tree], value: Any) -> str | None:
    """The SKU that an old file means by a SKU, a number, a name or a mapping with one of them."""
    if isinstance(value, Mapping):
        by_key = {plain_key(key): item for key, item in value.items()}
        value = next((by_key[key] for key in ("sku", "product_id", "id", "name") if key in by_key), None)
    for product in products:
        if same(str(value), product["sku"]) or value == product["name"]:
            return str(product["sku"])
    return None


def _sku(value: Any) -> str | None:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return text if isinstance(text, str) and re.fullmatch(SKU, text) else None


def _label(value: Any) -> str | None:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return text if isinstance(text, str) and text.strip() and len(text) <= 100 else None


def _price(value: Any) -> Any:
    text = value.replace("$", "").replace("USD", "").strip() if isinstance(value, str) else value
    return _above_zero(text)


def _above_zero(value: Any) -> Any:
    read = number_of(value)
    return read if read is not None and 0 < read <= 1_000_000 else None


def _zip(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**9:
        digits = f"{value:05d}" if value < 10**5 else f"{value:09d}"
        value = digits if len(digits) == 5 else f"{digits[:5]}-{digits[5:]}"
    if isinstance(value, str):
        value = value.strip()
        if re.fullmatch(r"\d{9}", value):
            value = f"{value[:5]}-{value[5:]}"
        return value if re.fullmatch(ZIP_CODE, value) else None
    return None


def _phone(value: Any) -> str | None:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        return None
    plain = re.sub(r"[\s().-]", "", text)
    return plain if re.fullmatch(PHONE, plain) else None

"""Does the shop sell what shoppers will ask for? A catalogue is the user's word about a shop that we do not know."""

from profiles import shop
from profiles.reader import Reader
from scenario.model import Scenario

REFERENCE = "reader"
TIMEOUT_S = 5.0
NOT_FOUND = 404
_SHOWN = 5


class NothingSoldError(Exception):
    """The shop has no product of the catalogue; the message says what to do."""


def look(host: str, scenario: Scenario, timeout_s: float = TIMEOUT_S) -> list[str]:
    """Open every product of the catalogue once, signed in: what a person should know before the run, one fact a line.

    Raises NothingSoldError when the shop says of each that it does not exist. A look that comes to nothing for another
    reason is told, and no reason not to run: whatever it is, the run will show it.
    """
    reader, name, total = Reader(host, scenario.name, REFERENCE, timeout_s), scenario.name, len(scenario.catalogue)
    signed_in = reader.sign_in()
    if not signed_in.ok:
        return [f"products: not looked for, as {shop.LOGIN.key} failed ({signed_in.reason})"]
    missing, unclear = [], []
    for product in scenario.catalogue:
        answer = reader.ask(shop.open_product(product.sku))
        if answer.meant_status == NOT_FOUND:
            missing.append(product.sku)
        elif not answer.ok:
            unclear.append(f"{product.sku}: {answer.reason}")
        if not answer.meant_status:
            break  # whoever does not answer is not waited for once more for every product
    lines = [f"products: not known whether all of them are sold ({unclear[0]})"] if unclear else []
    if not missing:
        return lines
    names = ", ".join([*missing[:_SHOWN], *(["..."] if len(missing) > _SHOWN else [])])
    what = f"{len(missing)} of the {total} products in product_catalogue of {name} do not exist at {host}: {names}"
    if len(missing) < total:
        return [f"products: {what}; shoppers who choose one fail to open or buy it", *lines]
    raise NothingSoldError(
        f"{what}\n  Nothing could be bought. List what the shop sells: it answers GET "
        f"{host}/inventory-service/api/inventory/products, and docs/scenarios.md shows how a catalogue is written."
    )

"""Does the shop sell what shoppers will ask for? A catalogue is the user's word about a shop that we do not know.

    python -m profiles.products --host URL

prints what a shop sells as the catalogue of a scenario file.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from profiles import shop
from profiles.answers import Answer
from profiles.reader import Reader
from scenario.model import Scenario

REFERENCE = "reader"
TIMEOUT_S = 5.0
NOT_FOUND = 404
_SHOWN = 5


class NothingSoldError(Exception):
    """The shop has no products for a scenario; the message says what to do."""


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
        f"{what}\n  Nothing could be bought. Put what the shop sells into the scenario file; "
        f"python -m profiles.products --host {host} prints it."
    )


def catalogue(host: str, timeout_s: float = TIMEOUT_S) -> list[str]:
    """Lines of a scenario file: `product_catalogue` with all that the shop sells. Raises NothingSoldError."""
    reader = Reader(host, "catalogue", REFERENCE, timeout_s)
    _checked(host, shop.LOGIN, reader.sign_in())
    answer = _checked(host, shop.PRODUCTS, reader.ask(shop.list_products()))
    if not answer.learned:
        raise NothingSoldError(f"--host {host}: the shop sells nothing; give it products first")
    # JSON is YAML too, whatever a name has in it.
    return ["product_catalogue:", *(f"  - {json.dumps(product, ensure_ascii=False)}" for product in answer.learned)]


def _checked(host: str, endpoint: shop.Endpoint, answer: Answer) -> Answer:
    if answer.ok:
        return answer
    text = f"--host {host}: {endpoint.key} failed ({answer.reason})"
    raise NothingSoldError(f"{text}; give what stands before /<service>/, and look whether the shop is up")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: printed; 2: refused, with one message."""
    parser = argparse.ArgumentParser(
        prog="python -m profiles.products", description="Print what a shop sells as the catalogue of a scenario file."
    )
    parser.add_argument("--host", required=True, metavar="URL", help="the target, as a run is given it")
    try:
        print("\n".join(catalogue(parser.parse_args(arguments).host)))
    except NothingSoldError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

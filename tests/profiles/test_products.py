"""What a shop is asked before a run, against the real sandbox with other products than the scenario's."""

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from operator import itemgetter
from pathlib import Path

import pytest
import yaml

from profiles.products import NothingSoldError, look, main
from scenario.model import Product
from tests.processes import Sandbox, sandbox_started
from tests.profiles.scripted_shop import ShopState, serve
from tests.profiles.simulator import comprehensive

SOLD = comprehensive().catalogue


@pytest.fixture
def selling(tmp_path: Path) -> Iterator[Callable[[Sequence[Product]], Sandbox]]:
    """Starts a shop that sells these products."""
    with ExitStack() as stack:

        def start(products: Sequence[Product]) -> Sandbox:
            fields = ("sku", "name", "category", "brand", "price")
            file = tmp_path / "catalogue.json"
            file.write_text(json.dumps([{name: getattr(product, name) for name in fields} for product in products]))
            return stack.enter_context(sandbox_started("--healthy", "--catalogue", str(file)))

        yield start


@contextmanager
def shop_that(answers: dict[str, list[str]]) -> Iterator[str]:
    """A shop that sells whatever is asked for, but for these answers."""
    server = serve(ShopState(answers))
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_of_a_shop_that_sells_everything_there_is_nothing_to_say(selling: Callable[..., Sandbox]) -> None:
    sandbox = selling(SOLD)
    assert look(f"{sandbox.host}/", comprehensive()) == []
    assert sandbox.client_requests() == 2 + len(SOLD)
    assert look(sandbox.host, comprehensive()) == []  # the account is there by then


def test_products_that_do_not_exist_are_named(selling: Callable[..., Sandbox]) -> None:
    host = selling(SOLD[:-2]).host
    assert look(host, comprehensive()) == [
        (
            f"products: 2 of the {len(SOLD)} products in product_catalogue of comprehensive_rl_training do not exist "
            f"at {host}: {SOLD[-2].sku}, {SOLD[-1].sku}; shoppers who choose one fail to open or buy it"
        )
    ]


def test_a_shop_with_none_of_the_products_is_refused_with_the_way_out() -> None:
    with sandbox_started("--healthy") as sandbox, pytest.raises(NothingSoldError) as refused:
        look(sandbox.host, comprehensive())
    count, first = len(SOLD), ", ".join(product.sku for product in SOLD[:5])
    assert str(refused.value).splitlines() == [
        (
            f"{count} of the {count} products in product_catalogue of comprehensive_rl_training do not exist at "
            f"{sandbox.host}: {first}, ..."
        ),
        (
            "  Nothing could be bought. Put what the shop sells into the scenario file; python -m profiles.products "
            f"--host {sandbox.host} prints it."
        ),
    ]


def test_a_shop_that_lets_nobody_in_is_not_looked_at_and_no_reason_not_to_run() -> None:
    assert look("http://127.0.0.1:9/proxy", comprehensive()) == [
        "products: not looked for, as user-service POST /api/users/login failed (connection: ConnectionError)"
    ]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"http://127.0.0.1:{silent.getsockname()[1]}/proxy"
        assert look(host, comprehensive(), 0.2) == [
            "products: not looked for, as user-service POST /api/users/login failed (timeout: none within 0.2 s)"
        ]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("500", "status 500"),
        ("502:500", "status 502 (backend 500)"),
        ("garbage", "content: not a product"),
        ("drop", "connection: ConnectionError"),
    ],
)
def test_an_answer_that_does_not_tell_is_told(word: str, reason: str) -> None:
    first = f"GET /inventory-service/api/inventory/products/{SOLD[0].sku}"
    with shop_that({first: [word]}) as host:
        assert look(host, comprehensive()) == [
            f"products: not known whether all of them are sold ({SOLD[0].sku}: {reason})"
        ]


def test_a_balancer_that_tells_the_404_of_its_service_in_words_is_understood() -> None:
    calls = {f"GET /inventory-service/api/inventory/products/{product.sku}": ["502:404"] for product in SOLD}
    with shop_that(calls) as host, pytest.raises(NothingSoldError, match=f"^{len(SOLD)} of the {len(SOLD)} products"):
        look(host, comprehensive())


def test_what_a_shop_sells_is_printed_as_a_catalogue_that_a_scenario_can_have(
    selling: Callable[..., Sandbox], capsys: pytest.CaptureFixture[str]
) -> None:
    odd = Product("ODD-1", 'Mug: "blue" # 12', "Küche", "O'Neill", 12.5, 1.0)
    assert main(["--host", selling([*SOLD[:2], odd]).host]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    fields = ("sku", "name", "category", "brand", "price")
    expected = [{name: getattr(product, name) for name in fields} for product in (*SOLD[:2], odd)]
    assert sorted(printed["product_catalogue"], key=itemgetter("sku")) == sorted(expected, key=itemgetter("sku"))


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"POST /user-service/api/users/login": ["500"]}, "user-service POST /api/users/login failed (status 500)"),
        (
            {"GET /inventory-service/api/inventory/products": ["502:503"]},
            "inventory-service GET /api/inventory/products failed (status 502 (backend 503))",
        ),
    ],
)
def test_a_catalogue_that_cannot_be_had_is_one_message(
    answers: dict[str, list[str]], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with shop_that(answers) as host:
        assert main(["--host", host]) == 2
    way_out = "give what stands before /<service>/, and look whether the shop is up"
    assert capsys.readouterr().err == f"--host {host}: {reason}; {way_out}\n"


def test_a_shop_without_products_is_told_what_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    with shop_that({}) as host:
        assert main(["--host", host]) == 2
    assert capsys.readouterr().err == f"--host {host}: the shop sells nothing; give it products first\n"

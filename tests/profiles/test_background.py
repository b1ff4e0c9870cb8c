"""Light traffic between two scenarios: its rate, its answers, its end, against the real sandbox."""

import json
import socket
import time
from collections.abc import Iterator

import pytest

from profiles.background import AT_ONCE, rest
from tests.processes import Sandbox, sandbox_started
from tests.profiles.simulator import comprehensive


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """One that sells the products of the scenario."""
    catalogue = tmp_path_factory.mktemp("sandbox") / "catalogue.json"
    fields = ("sku", "name", "category", "brand", "price")
    products = [{name: getattr(product, name) for name in fields} for product in comprehensive().catalogue]
    catalogue.write_text(json.dumps(products))
    with sandbox_started("--healthy", "--catalogue", str(catalogue)) as running:
        yield running


def test_so_many_requests_are_sent_and_answered_as_the_rate_says(sandbox: Sandbox) -> None:
    before = sandbox.client_requests()
    came = rest(sandbox.host, comprehensive(), 2.0, 20.0, 5.0, lambda: False)
    assert came.duration_s >= 2.0
    # Due are one at once and then one every 50 ms; those of the last moment may come too late.
    assert 36 <= came.sent <= 41
    assert (came.ok, came.not_sent) == (came.sent, 0)
    assert came.mean_ms is not None
    assert came.mean_ms > 0
    assert sandbox.client_requests() - before == came.sent + 2  # it registers and logs in


def test_a_rate_of_nothing_is_a_rest_without_a_request(sandbox: Sandbox) -> None:
    before = sandbox.client_requests()
    came = rest(sandbox.host, comprehensive(), 0.3, 0.0, 5.0, lambda: False)
    assert (came.sent, came.mean_ms, sandbox.client_requests()) == (0, None, before)
    assert came.duration_s >= 0.3


def test_it_ends_when_it_is_told_to(sandbox: Sandbox) -> None:
    until = time.monotonic() + 0.3
    came = rest(sandbox.host, comprehensive(), 60.0, 10.0, 5.0, lambda: time.monotonic() > until)
    assert came.duration_s < 30


def test_a_target_that_is_gone_gives_failures_and_no_error() -> None:
    came = rest("http://127.0.0.1:9/proxy", comprehensive(), 0.5, 10.0, 1.0, lambda: False)
    assert (came.sent > 0, came.ok) == (True, 0)


def test_what_cannot_be_sent_in_time_is_counted() -> None:
    """Nothing is read from this socket, so every request hangs until its timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"http://127.0.0.1:{silent.getsockname()[1]}/proxy"
        came = rest(host, comprehensive(), 1.0, 100.0, 0.4, lambda: False)
    assert came.not_sent > 0
    assert came.sent >= AT_ONCE
    assert came.ok == 0

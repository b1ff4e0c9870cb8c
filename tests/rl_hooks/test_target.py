"""What a user reads when the target is not ready."""

import http.server
import json
from collections.abc import Iterator
from typing import ClassVar

import pytest

from rl_hooks.decision import SERVICES
from rl_hooks.target import TargetError, check_target, root_of
from tests.processes import serving


class Health(http.server.BaseHTTPRequestHandler):
    """Answers health requests; `answers` says how for each service that is not simply up."""

    answers: ClassVar[dict[str, tuple[int, str]]] = {}

    def do_GET(self) -> None:
        service = self.path.split("/")[2]
        status, body = self.answers.get(service, (200, json.dumps({"status": "UP"})))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Nothing: the test reads what matters."""


@pytest.fixture
def host() -> Iterator[str]:
    with serving(Health) as root:
        yield f"{root}/proxy"
        Health.answers = {}


def test_a_target_whose_services_are_all_up_is_ready(host: str) -> None:
    check_target(host)


def test_every_service_that_is_not_ready_is_named_with_what_it_answered(host: str) -> None:
    Health.answers = {
        "cart-service": (503, "{}"),
        "order-service": (200, '{"status": "DOWN"}'),
        "user-service": (200, "<html>"),
        "payment-service": (200, "[]"),
    }
    with pytest.raises(TargetError) as caught:
        check_target(host)
    assert str(caught.value).splitlines() == [
        f"target {host}: 4 of 5 services are not ready",
        f"  user-service: GET {host}/user-service/actuator/health: answered 200, but not with a health report",
        f"  cart-service: GET {host}/cart-service/actuator/health: answered 503",
        f"  order-service: GET {host}/order-service/actuator/health: says status 'DOWN', not 'UP'",
        f"  payment-service: GET {host}/payment-service/actuator/health: answered 200, but not with a health report",
        "  Wait until these services are up, or look at their instances; then start again.",
    ]


def test_a_path_that_leads_nowhere_is_suspected(host: str) -> None:
    Health.answers = dict.fromkeys(SERVICES, (404, "{}"))
    with pytest.raises(TargetError) as caught:
        check_target(host)
    assert str(caught.value).splitlines()[-1] == (
        "  Is the path right? --host is the URL before /<service>/; for the sandbox it ends with /proxy."
    )


def test_a_target_where_nothing_listens_says_how_to_get_one() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Health) as server:
        free = f"http://127.0.0.1:{server.server_port}/proxy"
    with pytest.raises(TargetError) as caught:
        check_target(free)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"target {free}: 5 of 5 services are not ready"
    assert lines[1] == f"  user-service: GET {free}/user-service/actuator/health: no connection"
    assert lines[-1] == (
        "  Nothing listens there. Start the target, correct --host, or start the sandbox: make sandbox"
    )


@pytest.mark.parametrize("host", ["localhost:8080", "ftp://x/proxy", "http://", "http://x:port/proxy", ""])
def test_what_is_no_url_is_refused(host: str) -> None:
    with pytest.raises(TargetError, match="give one like http://localhost:8080/proxy"):
        root_of(host)


def test_the_root_is_where_the_balancers_own_pages_are() -> None:
    assert root_of("http://h:8080/proxy") == "http://h:8080"
    assert root_of("https://shop.example/a/b?c=d") == "https://shop.example"

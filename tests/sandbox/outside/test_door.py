"""An instance as an HTTP server, without sockets and in virtual time."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from sandbox.clock import VirtualClock
from sandbox.outside.calls import Calls
from sandbox.outside.door import Door
from sandbox.proxy import HttpReply, HttpRequest
from sandbox.shop.calls import Call, Response
from sandbox.stage import Load, Stage
from sandbox.world import World

TRACE = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def stage(make_world: Callable[..., World]) -> Stage:
    return Stage(lambda load: make_world(), Load())


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def ask(stage: Stage, calls: Calls, clock: VirtualClock) -> Callable[..., Any]:
    """Ask user-service-1 and let time pass; the answers, or what can be cancelled when `run_s` is 0."""
    door = Door(stage, calls, "user-service", 0)

    def ask(path: str, method: str = "GET", body: bytes = b"", run_s: float = 100.0) -> Any:
        answers: list[HttpReply | None] = []
        visit = door.open(HttpRequest(method, path, b"", [(b"x-trace-id", TRACE)], body), answers.append)
        if run_s == 0.0:
            return visit, answers
        clock.run_for(run_s)
        return answers

    return ask


def told(reply: HttpReply) -> tuple[int, dict[bytes, bytes], Any]:
    return reply.status, dict(reply.headers), json.loads(reply.body)


def test_a_status_of_the_shop_is_passed_through_with_the_load_of_the_instance(ask: Callable[..., Any]) -> None:
    (reply,) = ask("/api/users/me")
    status, headers, body = told(reply)
    assert (status, body) == (401, {"error": "a valid token is needed: log in"})
    assert headers[b"x-trace-id"] == TRACE and float(headers[b"x-service-ms"]) > 0.0
    form, _, text = headers[b"endpoint-load-metrics"].partition(b" ")
    load = json.loads(text)
    assert form == b"JSON" and load["named_metrics"]["workers"] == 2 and load["application_utilization"] == 0.0


def test_health_does_not_touch_the_model(ask: Callable[..., Any], stage: Stage) -> None:
    (reply,) = ask("/actuator/health", run_s=1e-9)
    assert told(reply)[2] == {"status": "UP", "service": "user-service", "instance": "user-service-1"}
    assert stage.world.instances["user-service"][0].submitted == stage.client_requests == 0


@pytest.mark.parametrize(
    ("method", "body", "status", "text"),
    [("PATCH", b"", 405, "Method not allowed"), ("POST", b"{", 400, "Malformed JSON body")],
)
def test_what_is_no_request_of_the_shop_is_refused(
    ask: Callable[..., Any], method: str, body: bytes, status: int, text: str
) -> None:
    (reply,) = ask("/api/users/login", method, body)
    assert told(reply)[0] == status and told(reply)[2]["error"].startswith(text)


def test_a_full_queue_and_a_failure_have_the_statuses_of_a_service(ask: Callable[..., Any], stage: Stage) -> None:
    stage.world.faults.inject({"service": "user-service", "kind": "errors", "value": 1.0})
    instance = stage.world.instances["user-service"][0]
    answers = [ask("/api/users/me", run_s=0.0)[1] for _ in range(instance.workers + instance.queue_limit + 1)]
    status, _, body = told(answers[-1][0])
    assert (status, body) == (503, {"error": "user-service-1: queue full"})
    (reply,) = ask("/api/users/me") or answers[0]
    assert answers[0] and told(answers[0][0])[0] == 500
    backend = stage.world.balancers["user-service"].backends[0]
    assert backend.errors_total == backend.requests_total and reply is not None


def test_an_instance_that_dies_answers_nothing(ask: Callable[..., Any], stage: Stage) -> None:
    _, answers = ask("/api/users/me", run_s=0.0)
    stage.world.instances["user-service"][0].crash()
    assert answers == [None]
    assert stage.world.balancers["user-service"].failed == 1


def test_whoever_goes_away_leaves_the_queue(ask: Callable[..., Any], stage: Stage) -> None:
    instance = stage.world.instances["user-service"][0]
    visits = [ask("/api/users/me", run_s=0.0) for _ in range(instance.workers + 1)]
    assert instance.queue_depth == 1
    visits[-1][0].cancel()
    assert instance.queue_depth == 0


def test_a_call_between_services_is_load_and_does_what_was_left_for_it(
    ask: Callable[..., Any], calls: Calls, stage: Stage
) -> None:
    ran: list[int] = []

    def work() -> Response:
        ran.append(1)
        return Response(200, '{"a":1}')

    path = calls.begin(Call("user-service", "GET", work))
    assert told(ask(path)[0])[2] == {"a": 1} and ran == [1]
    calls.end(path)
    assert told(ask(path)[0])[0] == 404 and ran == [1] and len(calls) == 0
    assert stage.client_requests == 0 and stage.world.instances["user-service"][0].submitted == 2

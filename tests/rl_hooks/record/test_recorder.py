"""The recorder: a row says what was sent and what came of it, and the listener never raises."""

import math
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from geventhttpclient.header import Headers

from rl_hooks.decision import ACTION_INDEX, SERVICES, Served, write_response
from rl_hooks.record.recorder import InForce, Recorder
from rl_hooks.row import MISSING_U8, MISSING_U32, Failure, Intent, Outcome, UserAction
from rl_hooks.run_folder import RunWriter, create_run_folder
from rl_hooks.run_reader import Run, read_run

SERVED = Served("round_robin", "cart-service-2", 8123, 312)


@dataclass
class Visit:
    profile: str = "quick_browser"
    phase: str = "morning"
    slot: int = 3
    session: int = 2
    account: int = 41
    page: int = 7
    user_action: str = "cart"
    note: bytes | None = None


@dataclass
class Call:
    """What the shop client hands over, as far as the recorder looks at it."""

    visit: Visit = field(default_factory=Visit)
    service: str = "cart-service"
    method: str = "GET"
    endpoint: str = "GET /api/cart"
    attempt: int = 1
    trace_hi: int = 2**63 + 1
    trace_lo: int = 5
    ok: bool = True
    failure: str | None = None
    status: int = 200
    backend_status: int = 0
    place: int | None = None
    start_ns: int = 0
    tick: int | None = None
    action: str | None = None
    propensity: float | None = None


class Desk:
    """A recorder on a fresh run folder; `end` fires what Locust fires when a request ends."""

    def __init__(self, folder: Path, places: int = 4) -> None:
        self.folder = folder
        self.faults: list[str] = []
        create_run_folder(folder, {"run_id": "run"})
        self.in_force = InForce()
        self.recorder = Recorder(RunWriter(folder, "local", places), self.in_force, self.faults.append)

    def end(self, call: Any, headers: Any = None, response_time: float = 12.5) -> None:
        self.recorder.on_request(
            request_type="GET",
            name="x",
            response_time=response_time,
            response_length=77,
            response=SimpleNamespace(headers=headers),
            context={"call": call},
            exception=None,
            start_time=0.0,
            url=None,
        )

    def read(self) -> Run:
        return read_run(self.folder)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "run")


def test_a_row_says_what_was_sent_and_what_came_of_it(desk: Desk) -> None:
    desk.in_force.set(9, [(index, 2, 0.25) for index in range(len(SERVICES))])
    call = Call()
    assert desk.recorder.begin(call) == {"X-RL-Action": "round_robin"}
    desk.end(call, Headers(write_response(SERVED)))
    run = desk.read()
    (row,) = run.requests
    known = {name: row[name].item() for name in run.requests.dtype.names}
    kinds = ("endpoint", "instance", "profile", "phase", "policy")
    names = {kind: run.names.get(kind, ("",))[known.pop(f"{kind}_ref")] for kind in kinds}
    assert names == {
        "policy": "",
        "endpoint": "GET /api/cart",
        "instance": "cart-service-2",
        "profile": "quick_browser",
        "phase": "morning",
    }
    assert known.pop("start_ns") == call.start_ns > 1e18
    assert known == {
        "incarnation": 0,
        "decision_tick": 9,
        "propensity": 0.25,
        "trace_hi": 2**63 + 1,
        "trace_lo": 5,
        "account": 41,
        "slot": 3,
        "session": 2,
        "page": 7,
        "service": SERVICES.index("cart-service"),
        "method": 1,
        "user_action": UserAction.CART,
        "action_requested": ACTION_INDEX["round_robin"],
        "attempt": 1,
        "duration_us": 12500,
        "response_bytes": 77,
        "upstream_us": 8123,
        "queue_us": 312,
        "status": 200,
        "backend_status": 0,
        "stated_decision": MISSING_U32,
        "action_applied": ACTION_INDEX["round_robin"],
        "ok": 1,
        "failure": Failure.NONE,
        "seq": 1,
    }


def test_without_a_decision_nothing_is_asked_for_and_nothing_is_invented(desk: Desk) -> None:
    call = Call()
    assert desk.recorder.begin(call) == {}
    desk.end(call, None)
    (row,) = desk.read().requests
    assert row["decision_tick"] == MISSING_U32
    assert math.isnan(row["propensity"])
    assert (row["action_requested"], row["action_applied"], row["instance_ref"]) == (MISSING_U8, MISSING_U8, 0)
    assert (row["upstream_us"], row["queue_us"]) == (MISSING_U32, MISSING_U32)


def test_a_row_keeps_the_decision_it_was_sent_under(desk: Desk) -> None:
    desk.in_force.set(1, [(index, 0, 0.5) for index in range(len(SERVICES))])
    call = Call()
    desk.recorder.begin(call)
    desk.in_force.set(2, [(index, 5, 0.1) for index in range(len(SERVICES))])
    desk.end(call)
    (row,) = desk.read().requests
    assert (row["decision_tick"], row["action_requested"], row["propensity"]) == (1, 0, 0.5)


@pytest.mark.parametrize(
    ("headers", "instance", "action", "upstream_us", "queue_us"),
    [
        ({}, "", None, None, None),
        ({"X-LB-Action": "mine", "X-LB-Instance": "-"}, "", None, None, None),
        ({"X-LB-Action": "round_robin", "X-LB-Instance": "a-1"}, "a-1", "round_robin", None, None),
        ({"X-LB-Instance": "a-1", "X-LB-Upstream-Us": "soon", "X-LB-Queue-Ms": "1.5"}, "a-1", None, None, 1500),
        ({"X-LB-Upstream-Us": "-5", "X-LB-Queue-Ms": "nan"}, "", None, None, None),
        ({"X-LB-Upstream-Us": "9" * 30, "X-LB-Queue-Ms": "1e300"}, "", None, None, None),
        ({"X-LB-Instance": "x" * 1000}, "", None, None, None),
        ({"X-LB-Instance": ["a-1", "a-2"], "X-LB-Action": ["round_robin", "backpressure"]}, "", None, None, None),
    ],
)
def test_what_the_balancer_does_not_say_well_is_missing(
    desk: Desk,
    headers: dict[str, Any],
    instance: str,
    action: str | None,
    upstream_us: int | None,
    queue_us: int | None,
) -> None:
    call = Call()
    desk.recorder.begin(call)
    desk.end(call, Headers(headers))
    run = desk.read()
    (row,) = run.requests
    assert run.names["instance"][row["instance_ref"]] == instance
    assert row["action_applied"] == (MISSING_U8 if action is None else ACTION_INDEX[action])
    assert row["upstream_us"] == (MISSING_U32 if upstream_us is None else upstream_us)
    assert row["queue_us"] == (MISSING_U32 if queue_us is None else queue_us)
    assert desk.faults == []


@pytest.mark.parametrize("doubled", sorted(write_response(SERVED)))
def test_a_header_given_twice_with_one_value_says_it(desk: Desk, doubled: str) -> None:
    """A gateway that adds what the balancer has set already: the conformance test counts it as kept."""
    headers = Headers(write_response(SERVED))
    headers.add(doubled, write_response(SERVED)[doubled])
    for given in (Headers(write_response(SERVED)), headers):
        call = Call()
        desk.recorder.begin(call)
        desk.end(call, given)
    once, twice = desk.read().requests[["action_applied", "instance_ref", "upstream_us", "queue_us"]]
    assert once == twice
    assert desk.faults == []


@pytest.mark.parametrize("doubled", sorted(write_response(SERVED)))
def test_a_header_given_twice_with_two_values_says_nothing_and_spoils_nothing_else(desk: Desk, doubled: str) -> None:
    """Fails when the fast reading takes geventhttpclient's list of two for a value."""
    headers = Headers(write_response(SERVED))
    headers.add(doubled, f"{write_response(SERVED)[doubled]}1")
    call = Call()
    desk.recorder.begin(call)
    desk.end(call, headers)
    (row,) = desk.read().requests
    missing = [row["action_applied"] == MISSING_U8, row["instance_ref"] == 0]
    missing += [row["upstream_us"] == MISSING_U32, row["queue_us"] == MISSING_U32]
    assert sum(missing) == 1
    assert desk.faults == []


def test_the_usual_answer_is_read_the_fast_way(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should geventhttpclient keep its headers otherwise one day, rows stay right but cost more; this says so."""
    monkeypatch.setattr(desk.recorder, "_served_as_far_as_told", None)
    call = Call()
    desk.recorder.begin(call)
    desk.end(call, Headers(write_response(SERVED)))
    assert desk.faults == []


def test_the_listener_reports_the_first_fault_once_and_never_raises(desk: Desk) -> None:
    for status in (-1, 10**9):
        call = Call(status=status)
        desk.recorder.begin(call)
        desk.end(call)
    assert desk.recorder.rows_lost == 2
    assert len(desk.faults) == 1
    assert desk.faults[0].startswith("a request row could not be written: error: ")
    good = Call()
    desk.recorder.begin(good)
    desk.end(good)
    assert len(desk.read().requests) == 1


def test_a_full_board_is_reported_and_the_request_goes_on(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "run", places=1)
    desk.recorder.begin(Call(Visit(slot=1)))
    assert desk.recorder.begin(Call(Visit(slot=2))) == {}
    assert desk.faults == [
        "a request in flight could not be noted: IndexError: the board has 1 places, and all are taken"
    ]


def test_requests_of_others_are_counted_and_left_alone(desk: Desk) -> None:
    desk.end(None)
    assert desk.recorder.foreign_requests == 1
    assert len(desk.read().requests) == 0


def test_what_is_in_flight_is_on_the_board_until_it_ends(desk: Desk) -> None:
    one, two = Call(Visit(slot=1), trace_lo=11), Call(Visit(slot=2), trace_lo=12)
    desk.recorder.begin(one)
    desk.recorder.begin(two)
    assert sorted(desk.read().in_flight["trace_lo"]) == [11, 12]
    desk.end(one)
    run = desk.read()
    assert (list(run.requests["trace_lo"]), list(run.in_flight["trace_lo"])) == ([11], [12])


def test_a_session_row_has_what_the_shopper_did(desk: Desk) -> None:
    kinds = Enum("Intent", "BROWSE_ONLY ABANDON PURCHASE"), Enum("Outcome", "ENDED TRUNCATED FAILED")
    desk.recorder.session_ended(
        SimpleNamespace(
            start_ns=7,
            duration_us=10,
            planned_us=11,
            slot=1,
            session=2,
            account=3,
            profile="bulk_buyer",
            phase="morning",
            pages_planned=50,
            pages=48,
            visits={"browse": 40, "cart": 7, "order": 1},
            cart_adds=5,
            orders_placed=1,
            orders_paid=1,
            intent=kinds[0]["PURCHASE"],
            outcome=kinds[1]["TRUNCATED"],
        )
    )
    run = desk.read()
    (row,) = run.sessions
    assert (run.names["profile"][row["profile_ref"]], row["intent"], row["outcome"]) == (
        "bulk_buyer",
        Intent.PURCHASE,
        Outcome.TRUNCATED,
    )
    assert [row[name].item() for name in ("browse", "search", "cart", "order", "profile")] == [40, 0, 7, 1, 0]
    assert desk.faults == []

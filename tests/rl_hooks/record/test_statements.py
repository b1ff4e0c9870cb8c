"""What is read of answers beside the usual: only what was asked for, never more than there is room for."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from geventhttpclient.header import Headers

from profiles.base import VisitInfo
from rl_hooks.decision import SERVICES, Served, write_response
from rl_hooks.parts import PartError
from rl_hooks.record.recorder import InForce, Recorder
from rl_hooks.record.statements import (
    LONGEST_LOAD,
    MOST_INSTANCES,
    MOST_POLICIES,
    FedSource,
    Reading,
    ReadingRecorder,
    checksum,
    make_recorder,
)
from rl_hooks.row import MISSING_U8, MISSING_U32
from rl_hooks.run_folder import RunWriter, create_run_folder
from rl_hooks.run_reader import Run, read_run
from rl_hooks.sources.named import make_source

STATED = {"X-LB-Propensity": "0.125", "X-LB-Policy": "sticky:0.5", "X-LB-Decision-Id": "cart-service/7"}
LOAD = '{"cpu_utilization": 0.5}'


class Desk:
    """A recorder on a fresh run folder, of a run that observes."""

    def __init__(self, folder: Path, reading: Reading) -> None:
        self.folder = folder
        self.faults: list[str] = []
        create_run_folder(folder, {"run_id": "run"})
        in_force = InForce()
        in_force.set(3, [(service, MISSING_U8, math.nan) for service in range(len(SERVICES))])
        writer = RunWriter(folder, "local", 4)
        self.recorder = make_recorder(reading, writer, in_force, self.faults.append, lambda: 5)
        self.call = SimpleNamespace(
            visit=VisitInfo("quick_browser", "morning", 0, 0, 1, 1, "cart"),
            service="cart-service",
            endpoint="GET /api/cart",
            attempt=1,
            trace_hi=1,
            trace_lo=2,
            ok=True,
            failure=None,
            status=200,
            backend_status=0,
            place=None,
        )

    def answered(self, extra: Any, instance: str = "cart-service-2") -> dict[str, str]:
        """Send a request and let it be answered; the headers it was sent with."""
        asked = dict(self.recorder.begin(self.call))
        headers = Headers({**write_response(Served("round_robin", instance, 1, 2)), **extra})
        self.recorder.on_request(
            request_type="GET",
            name="x",
            response_time=1.0,
            response_length=1,
            response=SimpleNamespace(headers=headers),
            context={"call": self.call},
            exception=None,
            start_time=0.0,
            url=None,
        )
        return asked

    def read(self) -> Run:
        return read_run(self.folder)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "run", Reading(statements=True, loads=True))


def test_a_row_has_what_the_balancer_states_and_nothing_is_asked_of_it(desk: Desk) -> None:
    assert desk.answered(STATED) == {}
    run = desk.read()
    (row,) = run.requests
    assert (row["propensity"], run.names["policy"][row["policy_ref"]]) == (0.125, "sticky:0.5")
    assert row["stated_decision"] == checksum("cart-service/7") != MISSING_U32
    assert (row["action_requested"], row["decision_tick"], row["action_applied"]) == (MISSING_U8, 3, 2)
    assert desk.faults == []


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"X-LB-Propensity": "0", "X-LB-Policy": "", "X-LB-Decision-Id": ""},
        {"X-LB-Propensity": "1.01", "X-LB-Policy": "a\x00b", "X-LB-Decision-Id": "x" * 300},
        {"X-LB-Propensity": "inf", "X-LB-Policy": "p" * 129},
        {"X-LB-Propensity": "often", "X-LB-Policy": "| a table |"},
    ],
)
def test_what_makes_no_sense_was_not_stated(desk: Desk, stated: dict[str, str]) -> None:
    desk.answered(STATED)
    desk.answered(stated)
    row = desk.read().requests[-1]
    assert math.isnan(row["propensity"])
    assert (row["policy_ref"], row["stated_decision"]) == (0, MISSING_U32)
    assert desk.faults == []


def test_what_is_stated_twice_with_one_value_is_stated_and_with_two_is_not(desk: Desk) -> None:
    desk.answered({name: [value, value] for name, value in STATED.items()})
    desk.answered({name: [value, f"{value}1"] for name, value in STATED.items()})
    first, second = desk.read().requests
    assert (first["propensity"], first["stated_decision"]) == (0.125, checksum("cart-service/7"))
    assert first["policy_ref"] > 0
    assert math.isnan(second["propensity"])
    assert (second["policy_ref"], second["stated_decision"]) == (0, MISSING_U32)


def test_a_balancer_that_names_ever_new_policies_does_not_fill_the_dictionary(desk: Desk) -> None:
    for number in range(MOST_POLICIES + 20):
        desk.answered({**STATED, "X-LB-Policy": f"policy-{number}"})
    run = desk.read()
    assert len(run.names["policy"]) == MOST_POLICIES + 1
    assert (run.requests["policy_ref"] == 0).sum() == 20
    assert [event["text"] for event in run.events] == [
        f"the balancer named {MOST_POLICIES} policies; more count as none"
    ]


def test_the_newest_report_of_each_instance_is_kept_until_it_is_taken(desk: Desk) -> None:
    reading = desk.recorder
    assert isinstance(reading, ReadingRecorder)
    desk.answered({"endpoint-load-metrics": "old"})
    desk.answered({"endpoint-load-metrics": LOAD})
    desk.answered({"endpoint-load-metrics": "other"}, "cart-service-1")
    assert reading.take_loads() == [(2, "cart-service-2", LOAD, 5), (2, "cart-service-1", "other", 5)]
    assert reading.take_loads() == []


def test_reports_that_are_too_long_too_many_or_of_nobody_are_not_kept(desk: Desk) -> None:
    reading = desk.recorder
    assert isinstance(reading, ReadingRecorder)
    desk.answered({"endpoint-load-metrics": "x" * (LONGEST_LOAD + 1)})
    desk.answered({"endpoint-load-metrics": LOAD}, "")
    assert reading.take_loads() == []
    for number in range(MOST_INSTANCES + 5):
        reading._note_load("cart-service", {"endpoint-load-metrics": LOAD, "X-LB-Instance": f"pod-{number}"})
    assert len(reading.take_loads()) == MOST_INSTANCES


def test_an_ordinary_run_has_the_ordinary_recorder_and_each_reads_only_what_it_was_asked_for(tmp_path: Path) -> None:
    assert type(Desk(tmp_path / "a", Reading()).recorder) is Recorder
    loads = Desk(tmp_path / "b", Reading(loads=True))
    loads.answered({**STATED, "endpoint-load-metrics": LOAD})
    (row,) = loads.read().requests
    assert (row["policy_ref"], row["stated_decision"], math.isnan(row["propensity"])) == (0, MISSING_U32, True)
    statements = Desk(tmp_path / "c", Reading(statements=True)).recorder
    assert isinstance(statements, ReadingRecorder)
    assert statements.take_loads() == []


def test_a_fault_in_reading_stops_the_run_once_and_keeps_the_row(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunWriter, "ref", no_room)
    desk.recorder._instances["cart-service-2"] = 0
    desk.recorder._endpoints["cart-service", "GET /api/cart"] = bytes(10)
    desk.call.visit.note = bytes(17)
    desk.answered(STATED)
    desk.answered(STATED)
    assert desk.faults == ["an answer could not be read: OSError: [Errno 28] No space left on device"]
    assert len(desk.read().requests) == 2


class Orca:
    """A source that lives on reports."""

    reads_responses = True

    def __init__(self, root: str = "") -> None:
        self.given: list[Any] = []

    def describe(self) -> str:
        return "orca"

    def push_reports(self, reports: list[tuple[int, str, str, int]]) -> None:
        self.given += reports

    def sample(self) -> Any:
        return len(self.given)


def test_a_source_is_given_the_reports_before_it_is_asked() -> None:
    reports = [(0, "a", LOAD, 1), (1, "b", LOAD, 2)]
    source = FedSource(Orca(), lambda: reports)
    assert (source.describe(), source.sample()) == ("orca", 2)


def test_a_source_that_reads_responses_has_to_take_them() -> None:
    assert make_source("--metrics-source", f"{__name__}:Orca", "http://x").describe() == "orca"
    text = "--metrics-source .*:Deaf: reads responses .*, but lacks push_reports to be given them"
    with pytest.raises(PartError, match=text):
        make_source("--metrics-source", f"{__name__}:Deaf", "http://x")


class Deaf:
    reads_responses = True

    def __init__(self, root: str) -> None: ...

    def describe(self) -> str:
        return "deaf"

    def sample(self) -> None: ...

"""From the access log to rows and to the window: what was in flight, what ended, what nobody knows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl_hooks.control import Decision, Sample
from rl_hooks.decision import ACTION_INDEX, SERVICES
from rl_hooks.observation import FEATURE_INDEX, FEATURES, Spans
from rl_hooks.row import MISSING_U8, MISSING_U32, Failure, Method
from rl_hooks.run_folder import RunWriter, create_run_folder
from rl_hooks.run_reader import Run, read_run
from rl_hooks.sources.access_log import AccessLogFollower, Line
from training.serving import rows as serving_rows
from training.serving.rows import RequestRows
from training.serving.window import ServingWindow

S = 10**9
T0 = 1_767_225_600 * S
GIVE_UP_NS = 10 * S


def line(ended: bool, start_s: float, number: int = 1, **special: Any) -> Line:
    about = (T0 + round(start_s * S), special.pop("service", 2), Method.GET, special.pop("endpoint", "GET /api/cart"))
    end = {"duration_us": 500_000, "status": 200, "action": 1, "instance": "cart-1"} if ended else {}
    return Line(ended, *about, (7, number) if number else (0, 0), **{**end, **special})


class Queue(AccessLogFollower):
    """A log whose lines are handed over directly."""

    def __init__(self, tmp_path: Path) -> None:
        super().__init__(tmp_path / "access.log")
        self.waiting: list[Line] = []

    def poll(self) -> list[Line]:
        found, self.waiting = self.waiting, []
        return found


class Desk:
    """Rows and window of one process, as `training.serve` puts them together."""

    def __init__(self, tmp_path: Path, with_log: bool = True) -> None:
        self.folder = tmp_path / "run"
        create_run_folder(self.folder, {"scenario": "serving", "started_unix_ns": T0, "run_id": "run"})
        self.writer = RunWriter(self.folder, "local", serving_rows.BOARD_PLACES)
        self.rows = RequestRows(self.writer, "serving", GIVE_UP_NS)
        self.log = Queue(tmp_path)
        self.closed = False
        self.judged: list[int] = []
        spans = Spans.of_seconds(60.0, 2.0)
        log = self.log if with_log else None
        self.window = ServingWindow(spans, GIVE_UP_NS, self.rows, log, lambda t_ns, _: self.judged.append(t_ns))

    def observe(self, t_s: float, *lines: Line, sample: Sample | None = None) -> dict[str, float]:
        """What is known of the cart service at `t_s`."""
        self.log.waiting += lines
        values = self.window.observe(T0 + round(t_s * S), sample)[2]
        return {name: float(values[index]) for name, index in FEATURE_INDEX.items()}

    def read(self) -> Run:
        self.close()
        return read_run(self.folder)

    def close(self) -> None:
        self.log.close()
        if not self.closed:
            self.closed = True
            self.writer.close(left_in_flight=True)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


def decisions(tick: int, action: str, propensity: float) -> list[Decision]:
    rest = (1 - propensity) / 5
    probabilities = tuple(propensity if index == ACTION_INDEX[action] else rest for index in range(6))
    return [Decision(tick, service, ACTION_INDEX[action], probabilities, "p", True) for service in range(len(SERVICES))]


def test_a_request_is_in_flight_from_its_start_to_its_end(desk: Desk) -> None:
    assert desk.observe(1, line(False, 0.5))["in_flight"] == 1
    assert desk.observe(2)["in_flight"] == 1
    known = desk.observe(3, line(True, 0.5))
    assert (known["in_flight"], known["response_time_mean_ms"]) == (0, 500)
    assert known["request_rate_rps"] == pytest.approx(1 / 60)
    assert len(desk.judged) == 3


def test_a_request_whose_both_lines_come_at_once_counts_once(desk: Desk) -> None:
    known = desk.observe(2, line(False, 0.5), line(True, 0.5))
    assert (known["in_flight"], known["error_rate"]) == (0, 0)


def test_a_log_without_starts_leaves_in_flight_unknown_and_the_rest_known(desk: Desk) -> None:
    known = desk.observe(2, line(True, 0.5, number=0))
    assert np.isnan(known["in_flight"]) and np.isnan(known["others_in_flight"])
    assert (known["response_time_mean_ms"], known["others_request_rate_rps"]) == (500, 0)


def test_without_a_log_every_feature_of_requests_is_missing_and_no_other(tmp_path: Path) -> None:
    desk = Desk(tmp_path, with_log=False)
    known = desk.observe(2)
    of_clients = {feature.name for feature in FEATURES if feature.source == "client"}
    assert {name for name in of_clients if not np.isnan(known[name])} == set()
    assert known["service_cart-service"] == 1
    desk.close()


def test_an_end_that_is_never_told_is_not_in_flight_for_ever_and_its_request_is_kept_as_unknown(desk: Desk) -> None:
    assert desk.observe(1, line(False, 0.5), line(False, 0.6, number=2))["in_flight"] == 2
    desk.observe(11)  # here they are given up
    assert [desk.observe(t_s)["in_flight"] for t_s in (12, 14)] == [0, 0]
    assert desk.observe(16, line(True, 0.6, number=2))["in_flight"] == 0  # too late for the window, not for its row
    run = desk.read()
    assert [int(low) for low in run.in_flight["trace_lo"]] == [1]
    assert [int(low) for low in run.requests["trace_lo"]] == [2]


def test_a_row_has_the_decision_that_was_in_force_when_the_request_came(desk: Desk) -> None:
    desk.observe(0, line(True, -1, number=0))
    desk.window.decided(T0, decisions(0, "least_loaded", 0.5))
    desk.window.decided(T0 + 2 * S, decisions(1, "backpressure", 0.75))
    desk.observe(4, line(True, 1.9), line(True, 2.0, number=2, status=503), line(True, 3.9, number=3, action=None))
    rows = desk.read().requests
    assert rows["decision_tick"].tolist() == [MISSING_U32, 0, 1, 1]
    requested = [MISSING_U8, 0, 5, 5]
    assert rows["action_requested"].tolist() == requested
    assert rows["propensity"].tolist()[1:] == [0.5, 0.75, 0.75]
    assert np.isnan(rows["propensity"][0])
    assert rows["action_applied"].tolist() == [1, 1, 1, MISSING_U8]
    assert rows["user_action"].tolist() == [MISSING_U8] * 4


@pytest.mark.parametrize(
    ("status", "backend_status", "stored", "failure"),
    [
        (200, 0, 200, Failure.NONE),
        (304, 304, 304, Failure.NONE),
        (404, 0, 404, Failure.STATUS),
        (502, 401, 502, Failure.STATUS),
        (503, 0, 503, Failure.STATUS),
        (499, 0, 0, Failure.TIMEOUT),
        (0, 0, 0, Failure.TIMEOUT),
    ],
)
def test_what_counts_as_a_failure(desk: Desk, status: int, backend_status: int, stored: int, failure: Failure) -> None:
    desk.observe(2, line(True, 0.5, status=status, backend_status=backend_status, upstream_us=3, queue_us=None))
    (row,) = desk.read().requests
    assert (row["status"], row["backend_status"]) == (stored, backend_status)
    assert (row["failure"], row["ok"]) == (failure, failure is Failure.NONE)
    assert (row["upstream_us"], row["queue_us"]) == (3, MISSING_U32)


def test_more_requests_in_flight_than_places_are_counted_and_their_rows_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_rows, "BOARD_PLACES", 2)
    desk = Desk(tmp_path)
    assert desk.observe(1, *(line(False, 0.5, number=number) for number in (1, 2, 3)))["in_flight"] == 2
    assert desk.rows.not_noted == 1
    desk.observe(2, *(line(True, 0.5, number=number) for number in (1, 2, 3)))
    assert desk.observe(3, line(False, 2.5, number=4))["in_flight"] == 1  # places are used again
    assert len(desk.read().requests) == 3


def test_names_without_end_share_one(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_rows, "MOST_NAMES", 3)
    desk.observe(2, *(line(True, 0.5, number=0, endpoint=f"GET /{letter}") for letter in "abcdea"))
    run = desk.read()
    names = [run.names["endpoint"][ref] for ref in run.requests["endpoint_ref"]]
    assert names == ["GET /a", "GET /b", "GET /c", "{other}", "{other}", "GET /a"]

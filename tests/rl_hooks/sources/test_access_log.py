"""An access log as balancers write it: every form of a line, and all that happens to a file while it is read."""

import doctest
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rl_hooks.control import SourceError
from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.row import Method
from rl_hooks.sources import access_log
from rl_hooks.sources.access_log import MAX_LINE_BYTES, AccessLogFollower, Line, LineError, parse_line

START_NS = 1_767_225_600_123_456_789
ID = "00000000000000010000000000000002"


def line(**special: Any) -> dict[str, Any]:
    """The end of a request, with everything that can be told."""
    usual = {
        "event": "end",
        "start_ns": START_NS,
        "service": "cart-service",
        "method": "GET",
        "path": "/api/cart",
        "duration_us": 1500,
        "status": 200,
        "action": "round_robin",
        "instance": "cart-service-2",
        "upstream_us": 900,
        "queue_us": 30,
        "backend_status": 200,
        "request_id": ID,
    }
    return {name: value for name, value in {**usual, **special}.items() if value is not ...}


def encoded(**special: Any) -> bytes:
    return json.dumps(line(**special)).encode()


# -- a line -----------------------------------------------------------------------------------------------------------


def test_a_line_says_what_it_says() -> None:
    assert parse_line(encoded()) == Line(
        ended=True,
        start_ns=START_NS,
        service=SERVICES.index("cart-service"),
        method=Method.GET,
        endpoint="GET /api/cart",
        request_id=(1, 2),
        duration_us=1500,
        status=200,
        backend_status=200,
        action=ACTIONS.index("round_robin"),
        instance="cart-service-2",
        upstream_us=900,
        queue_us=30,
    )


@pytest.mark.parametrize(
    ("told", "start_ns"),
    [
        ({"start_us": START_NS // 1000}, START_NS // 1000 * 1000),
        ({"start_ms": f"{START_NS // 10**6}"}, START_NS // 10**6 * 10**6),
        ({"start_ns": f"{START_NS}"}, START_NS),
        ({"start": "2026-01-01T00:00:00.123456Z"}, START_NS // 1000 * 1000),
        ({"start": "2026-01-01T02:00:00.123456+02:00"}, START_NS // 1000 * 1000),
    ],
)
def test_the_start_is_told_in_any_unit_or_in_iso_8601(told: dict[str, Any], start_ns: int) -> None:
    found = parse_line(encoded(**{"start_ns": ..., **told}))
    assert found is not None
    assert found.start_ns == start_ns


def test_lengths_in_milliseconds_and_numbers_as_text_are_the_same() -> None:
    other = encoded(duration_us=..., duration_ms="1.5", upstream_us=..., upstream_ms=0.9, queue_us="30", status="200")
    assert parse_line(other) == parse_line(encoded())


@pytest.mark.parametrize("nothing", [..., None, "-", -1, "x"])
def test_what_is_not_told_about_the_instance_is_missing_and_never_zero(nothing: Any) -> None:
    found = parse_line(encoded(upstream_us=nothing, queue_us=nothing, instance=nothing, action=nothing))
    assert found is not None
    assert (found.upstream_us, found.queue_us, found.action) == (None, None, None)
    assert found.instance in ("", "x")  # an instance may have any name


def test_a_start_needs_an_id_and_nothing_of_the_end() -> None:
    names = ("duration_us", "status", "action", "instance", "upstream_us", "queue_us", "backend_status")
    without = dict.fromkeys(names, ...)
    uuid = "00000000-0000-0001-0000-000000000002"
    found = parse_line(encoded(**without, event="start", request_id=uuid))
    assert found is not None
    assert (found.ended, found.request_id, found.moment_ns) == (False, (1, 2), START_NS)
    with pytest.raises(LineError, match="request_id is not there, so its end could not be found"):
        parse_line(encoded(**without, event="start", request_id=...))


@pytest.mark.parametrize(
    "special",
    [{"service": "search-service"}, {"service": None}, {"service": "-"}, {"method": "OPTIONS"}],
)
def test_lines_of_other_services_and_methods_are_none_of_ours(special: dict[str, Any]) -> None:
    assert parse_line(encoded(**special)) is None


@pytest.mark.parametrize(
    ("special", "complaint"),
    [
        ({"event": "middle"}, "event is neither start nor end"),
        ({"service": ...}, "service is not there"),
        ({"path": 5}, "path is not a text"),
        ({"start_ns": ...}, "start is not there"),
        ({"start_ns": ..., "start": "yesterday"}, "start is not a time in ISO 8601"),
        ({"start_ns": ..., "start": "2026-01-01T00:00:00"}, "start has no time zone"),
        ({"start_ns": 5}, "its start is not a time of this century or the next"),
        ({"start_ns": "x"}, "start_ns is not a number"),
        ({"start_ns": True}, "start_ns is not a number"),
        ({"start_ns": "\N{SUPERSCRIPT TWO}"}, "start_ns is not a number"),
        ({"duration_us": ...}, "duration_us is not there"),
        ({"duration_us": -1}, "duration_us is below 0"),
        ({"duration_us": 5_000_000_000}, "duration_us is longer than 71 minutes"),
        ({"duration_us": float("inf")}, "duration_us is not a number"),
        ({"status": ...}, "status is not there"),
        ({"status": 1000}, "status is not an HTTP status"),
        ({"status": 200.5}, "status is not an HTTP status"),
        ({"request_id": "abc"}, "request_id is not 32 hex digits or a UUID"),
    ],
)
def test_a_line_that_cannot_be_says_why(special: dict[str, Any], complaint: str) -> None:
    with pytest.raises(LineError) as caught:
        parse_line(encoded(**special))
    assert str(caught.value) == complaint


@pytest.mark.parametrize("text", [b"GET / 200", b"\xff\xfe", b"[" * 9000, b'{"status": ' + b"9" * 5000 + b"}"])
def test_what_is_not_json_is_said_to_be_so(text: bytes) -> None:
    with pytest.raises(LineError, match="is not JSON"):
        parse_line(text)
    with pytest.raises(LineError, match="is not a JSON object"):
        parse_line(b"[]")


def test_a_balancer_may_write_no_answer_as_minus_one() -> None:
    found = parse_line(encoded(status=-1, backend_status="-", instance="<NOSRV>"))
    assert found is not None
    assert (found.status, found.backend_status, found.instance) == (0, 0, "")


def test_endpoints_stay_few_whatever_is_asked_for() -> None:
    paths = [f"/api/orders/{number}/items?page={number}" for number in range(50)]
    paths += [f"/api/orders/{letter * 40}/items" for letter in "abcdef"]
    assert {access_log.template(path) for path in paths} == {"/api/orders/{}/items"}
    assert len(access_log.template("/ab" * 5000)) < 110


def test_the_examples_in_the_text_are_true() -> None:
    result = doctest.testmod(access_log)
    assert (result.attempted > 0, result.failed) == (True, 0)


# -- a file -----------------------------------------------------------------------------------------------------------


class Log:
    """A file that is written as balancers do, and numbers that say which lines came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self.follower: AccessLogFollower | None = None

    def follow(self) -> AccessLogFollower:
        self.follower = AccessLogFollower(self.path)
        return self.follower

    def text(self, count: int = 1) -> bytes:
        first, self.number = self.number, self.number + count
        return b"".join(encoded(duration_us=first + one) + b"\n" for one in range(count))

    def write(self, content: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(content)


@pytest.fixture
def later(tmp_path: Path) -> Iterator[Log]:
    """One that is not there yet."""
    log = Log(tmp_path / "access.log")
    yield log
    if log.follower is not None:
        log.follower.close()


@pytest.fixture
def log(later: Log) -> Log:
    later.write(later.text(5))
    return later


def numbers(follower: AccessLogFollower) -> list[int]:
    return [line.duration_us for line in follower.poll()]


def test_only_what_is_added_from_now_on_is_read_and_each_line_once(log: Log) -> None:
    follower = log.follow()
    assert numbers(follower) == []
    log.write(log.text(3))
    assert numbers(follower) == [5, 6, 7]
    assert numbers(follower) == []
    assert (follower.lines, follower.unreadable, follower.trouble) == (3, 0, None)


def test_a_torn_last_line_waits_for_the_rest_of_it(log: Log) -> None:
    follower = log.follow()
    text = log.text(2)
    for cut in range(0, len(text), 7):
        log.write(text[cut : cut + 7])
        found = numbers(follower)
        assert found == ([5] if cut + 7 > len(text) // 2 > cut else [6] if cut + 7 >= len(text) else [])
    assert follower.unreadable == 0


def test_a_line_whose_beginning_was_not_seen_is_no_line(log: Log) -> None:
    log.write(encoded()[:40])
    follower = log.follow()
    log.write(encoded()[40:] + b"\n" + log.text())
    assert numbers(follower) == [5]
    assert follower.unreadable == 0


def test_a_log_that_is_renamed_is_read_to_its_end_before_the_new_one(log: Log) -> None:
    follower = log.follow()
    log.write(log.text(2))
    log.path.rename(log.path.with_suffix(".1"))
    with log.path.with_suffix(".1").open("ab") as old:
        old.write(log.text())
    log.write(log.text(2))
    assert numbers(follower) == [5, 6, 7, 8, 9]
    assert follower.unreadable == 0


def test_a_line_written_between_the_last_reading_and_the_renaming_is_read(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = log.follow()
    looks = follower._has_successor

    def renamed_meanwhile() -> bool:
        monkeypatch.undo()
        log.write(log.text())
        log.path.rename(log.path.with_suffix(".1"))
        log.write(log.text())
        return looks()

    monkeypatch.setattr(follower, "_has_successor", renamed_meanwhile)
    assert numbers(follower) == [5, 6]


def test_while_a_renamed_log_has_no_successor_the_old_one_is_followed(log: Log) -> None:
    follower = log.follow()
    moved = log.path.rename(log.path.with_suffix(".1"))
    with moved.open("ab") as old:
        old.write(log.text())
    assert numbers(follower) == [5]
    log.write(log.text())
    assert numbers(follower) == [6]


def test_a_log_that_is_cut_to_nothing_goes_on(log: Log) -> None:
    follower = log.follow()
    log.write(log.text())
    assert numbers(follower) == [5]
    os.truncate(log.path, 0)
    log.write(log.text())
    assert numbers(follower) == [6]


@pytest.mark.parametrize("how", ["renamed", "cut"])
def test_a_line_that_lost_its_end_is_counted_and_told(log: Log, how: str) -> None:
    follower = log.follow()
    log.write(encoded()[:50])
    assert numbers(follower) == []
    if how == "renamed":
        log.path.rename(log.path.with_suffix(".1"))
    else:
        os.truncate(log.path, 0)
    log.write(log.text())
    assert numbers(follower) == [5]
    assert follower.unreadable == 1
    assert follower.first_unreadable is not None
    assert follower.first_unreadable.startswith(f'has no end, the log was {how} within it: \'{{"event": "end"')


def test_lines_that_cannot_be_read_are_counted_and_the_first_is_shown(log: Log) -> None:
    follower = log.follow()
    log.write(b"GET /api/cart 200\n\n" + log.text() + b"{}\n" + encoded(service="search-service") + b"\n")
    assert numbers(follower) == [5]
    assert (follower.lines, follower.others, follower.unreadable) == (4, 1, 2)
    assert follower.first_unreadable == "is not JSON: 'GET /api/cart 200'"


@pytest.mark.parametrize("pieces", [1, 40])
def test_a_line_without_end_takes_no_more_than_its_share_of_memory(log: Log, pieces: int) -> None:
    follower = log.follow()
    for _ in range(pieces):
        log.write(b"x" * (MAX_LINE_BYTES + 1))
        assert numbers(follower) == []
        assert len(follower._rest) <= MAX_LINE_BYTES
    log.write(b"\n" + log.text())
    assert numbers(follower) == [5]
    assert follower.unreadable == 1
    assert follower.first_unreadable is not None
    assert follower.first_unreadable.startswith(f"is longer than {MAX_LINE_BYTES} bytes: 'xxxxx")


def test_many_lines_at_once_are_all_read(log: Log) -> None:
    follower = log.follow()
    log.write(log.text(20_000))
    assert numbers(follower) == list(range(5, 20_005))


def test_a_log_that_comes_later_is_read_from_its_beginning(later: Log) -> None:
    follower = later.follow()
    assert numbers(follower) == []
    assert follower.trouble == f"{later.path}: there is no such file yet"
    later.write(later.text(2))
    assert numbers(follower) == [0, 1]
    assert follower.trouble is None


def test_what_can_never_be_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not a file; name the balancer's access log"):
        AccessLogFollower(tmp_path)
    with pytest.raises(SourceError, match="there is no folder "):
        AccessLogFollower(tmp_path / "no" / "access.log")

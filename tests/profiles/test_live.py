"""Real users of a real Locust runner against a shop that loses, refuses, hangs and lies."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ADD, PLACE, PAY = (
    "POST /cart-service/api/cart/items",
    "POST /order-service/api/orders",
    "POST /payment-service/api/payments",
)
REGISTER, LOGIN = "POST /user-service/api/users/register", "POST /user-service/api/users/login"
CART, ORDERS, ORDER = (
    "GET /cart-service/api/cart",
    "GET /order-service/api/orders/user",
    "GET /order-service/api/orders/1",
)
SUMMARY, EMPTY = "GET /cart-service/api/cart/summary", "DELETE /cart-service/api/cart"
LOST = ("lose", "swallow", "drip", "garbage", "packed", "cut")
NOT_DONE = {"hang": "timeout", "drop": "connection", "reset": "connection"}  # word -> failure
ODD = ("chunked", "chunked-twice")  # ways of answering that are no failure

EXPERIMENTS: dict[str, dict[str, Any]] = {
    "healthy": {},
    "two sessions": {"sessions": 2, "accounts": 1},
    **{f"order {word}": {"script": {PLACE: [word]}} for word in (*LOST, *NOT_DONE)},
    **{f"payment {word}": {"script": {PAY: [word]}} for word in (*LOST, *NOT_DONE)},
    **{f"add {word}": {"script": {ADD: [word]}} for word in (*LOST, *NOT_DONE)},
    "order lost, notes hidden": {"script": {PLACE: ["lose"]}, "show_notes": False, "prepare": "old_cart"},
    "order lost, look-up fails": {"script": {PLACE: ["lose"], ORDERS: ["502:500"] * 3}},
    "order lost, look-up fails once": {"script": {PLACE: ["lose"], ORDERS: ["502:500"]}},
    "order refused": {"script": {PLACE: ["502:400"]}},
    "payment fails three times": {"script": {PAY: ["502:500"] * 3}},
    "old cart": {"prepare": "old_cart"},
    "registered already": {"script": {REGISTER: ["502:409"]}, "sessions": 1},
    "registered already, plain": {"script": {REGISTER: ["409"]}, "sessions": 1},
    "token expires": {"script": {PLACE: ["502:401"]}},
    "token expires, plain": {"script": {SUMMARY: ["401"]}},
    "accounts forgotten": {"script": {SUMMARY: ["forget"]}},
    "shed with Retry-After": {"script": {SUMMARY: ["503:2"]}},
    **{f"everything {word}": {"otherwise": word, "sessions": 2, "accounts": 1} for word in ODD},
    "everything fails": {"otherwise": "502:500"},
    "get overlong": {"script": {SUMMARY: ["overlong", "ok", "overlong"]}},
    "get reset": {"script": {SUMMARY: ["reset"]}},
    "get dropped": {"script": {SUMMARY: ["drop"]}},
    "get hangs": {"script": {SUMMARY: ["hang"]}},
    "get not found": {"script": {SUMMARY: ["502:404"]}},
    "get down": {"script": {SUMMARY: ["502:500"] * 3}},
    "redirect": {"script": {SUMMARY: ["302"]}},
    "login fails twice": {"script": {LOGIN: ["502:500", "500"]}},
    "login refused twice": {"script": {LOGIN: ["502:401", "401"]}},
    "register fails once": {"script": {REGISTER: ["502:500"]}},
    "later login refused twice": {"script": {LOGIN: ["ok", "401", "401"]}, "sessions": 2, "accounts": 1},
    "later login fails once": {"script": {LOGIN: ["ok", "502:500"]}, "sessions": 2, "accounts": 1},
    "sign-in fails at first": {"script": {LOGIN: ["502:500"] * 3}},
    "nobody there": {"host": "http://127.0.0.1:9"},
    "stop in dwell": {"profile": "dawdler", "users": 3, "act": "stop_in_dwell"},
    "stop in think": {"profile": "thinker", "users": 1, "act": "stop_in_think"},
    "stop in flight": {"profile": "browser", "users": 2, "act": "stop_in_flight", "prepare": "hold_summary"},
    "stop in backoff": {"profile": "browser", "act": "stop_in_backoff", "script": {SUMMARY: ["503:9"]}},
    "kill in flight": {
        "profile": "browser", "users": 2, "act": "kill_in_flight", "prepare": "hold_summary", "stop_timeout": 0.0,
    },
    "stop while waiting for an account": {"profile": "dawdler", "users": 2, "accounts": 1, "act": "stop_in_dwell"},
}  # fmt: skip


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    """All experiments, in one process that is not this one."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("live.py"))],
        input=json.dumps(list(EXPERIMENTS.values())),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(EXPERIMENTS, json.loads(done.stdout), strict=True))


def tries(result: dict[str, Any], endpoint: str) -> list[tuple[int, str | None]]:
    """The tries of the calls of one kind as (attempt, failure), in order."""
    return [(c["attempt"], c["failure"]) for c in result["calls"] if f"{c['service']} {c['endpoint']}" == endpoint]


def counted(result: dict[str, Any]) -> Counter[str]:
    return Counter(kind for kind, _ in result["seen"])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_request_the_shop_saw_has_one_event_with_its_trace_id(results: dict[str, Any], name: str) -> None:
    result = results[name]
    assert result["reached"]
    assert result["errors"] == []
    seen = Counter(trace for _, trace in result["seen"])
    assert max(seen.values(), default=0) <= 1
    reported = Counter(call["trace"] for call in result["calls"])
    assert max(reported.values(), default=1) == 1
    cut_off = 2 if name == "kill in flight" else 0
    if name != "nobody there":
        assert len(seen.keys() - reported.keys()) == cut_off
        assert reported.keys() <= seen.keys()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_seat_and_account_is_given_back(results: dict[str, Any], name: str) -> None:
    result = results[name]
    assert result["next_seat"]["slot"] == 0
    assert result["free_accounts"] == EXPERIMENTS[name].get("accounts", 500)


def test_a_healthy_session_registers_logs_in_buys_and_ends_on_time(results: dict[str, Any]) -> None:
    result = results["healthy"]
    assert all(call["ok"] for call in result["calls"])
    assert [call["endpoint"] for call in result["calls"]][:2] == ["POST /api/users/register", "POST /api/users/login"]
    session = result["sessions"][0]
    assert (session["intent"], session["outcome"]) == ("PURCHASE", "ENDED")
    assert session["planned_us"] == 2_000_000
    assert session["duration_us"] >= session["planned_us"]
    assert session["pages"] == session["pages_planned"] == sum(session["visits"].values()) == 4
    assert (session["cart_adds"], session["orders_placed"], session["orders_paid"]) == (1, 1, 1)
    assert [payment["orderId"] for payment in result["payments"]] == [1]


def test_requests_carry_the_identity_and_events_a_bounded_set_of_names(results: dict[str, Any]) -> None:
    result = results["healthy"]
    first, last = result["headers"][0], result["headers"][-1]
    assert "Authorization" not in first
    assert last["Authorization"].startswith("Bearer t-live.")
    assert last["X-User-ID"] == "7"
    assert first["X-Session-ID"] == last["X-Session-ID"] != ""
    trace = last["X-Trace-Id"]
    assert len(trace) == 32 and trace == trace.lower() and int(trace, 16) > 0
    assert "GET inventory-service GET /api/inventory/products/{sku}" in result["stats"]
    pages = [call["page"] for call in result["calls"]]
    assert pages == sorted(pages) and pages[0] == 0 and pages[-1] == 4
    assert {call["user_action"] for call in result["calls"] if call["page"] == 0} == {"session"}


def test_sessions_follow_each_other_and_an_account_is_registered_once(results: dict[str, Any]) -> None:
    result = results["two sessions"]
    assert [session["session"] for session in result["sessions"]] == [0, 1]
    assert {session["account"] for session in result["sessions"]} == {0}
    assert counted(result)[REGISTER] == 1
    assert [h.rsplit("-", 1)[0] for h in dict.fromkeys(h["X-Session-ID"] for h in result["headers"])] == [
        "buyer-0-0",
        "buyer-0-1",
    ]


@pytest.mark.parametrize("word", LOST)
def test_an_order_whose_answer_is_lost_is_found_and_not_placed_again(results: dict[str, Any], word: str) -> None:
    result = results[f"order {word}"]
    assert len(result["orders"]) == 1
    assert len(result["payments"]) == 1
    assert counted(result)[PLACE] == 1
    assert counted(result)[ORDERS] == 1
    session = result["sessions"][0]
    assert (session["outcome"], session["orders_placed"], session["orders_paid"]) == ("ENDED", 1, 1)


@pytest.mark.parametrize("word", NOT_DONE)
def test_an_order_that_did_not_take_effect_is_looked_up_and_sent_again(results: dict[str, Any], word: str) -> None:
    result = results[f"order {word}"]
    assert len(result["orders"]) == len(result["payments"]) == 1
    assert tries(result, "order-service POST /api/orders") == [(1, NOT_DONE[word]), (2, None)]
    assert counted(result)[ORDERS] == 1


@pytest.mark.parametrize("word", LOST)
def test_a_payment_whose_answer_is_lost_is_found_and_not_made_again(results: dict[str, Any], word: str) -> None:
    result = results[f"payment {word}"]
    assert len(result["payments"]) == 1
    assert counted(result)[ORDER] == 2  # the look-up, and the check that ends the visit
    assert result["sessions"][0]["orders_paid"] == 1


@pytest.mark.parametrize("word", NOT_DONE)
def test_a_payment_that_did_not_take_effect_is_made_again(results: dict[str, Any], word: str) -> None:
    result = results[f"payment {word}"]
    assert len(result["payments"]) == 1
    assert [attempt for attempt, _ in tries(result, "payment-service POST /api/payments")] == [1, 2]
    assert result["sessions"][0]["orders_paid"] == 1


@pytest.mark.parametrize("word", LOST)
def test_a_lost_answer_to_an_addition_leaves_one_line_in_the_order(results: dict[str, Any], word: str) -> None:
    result = results[f"add {word}"]
    assert counted(result)[ADD] == 1
    assert [order["totalItems"] for order in result["orders"]] == [1]
    assert result["sessions"][0]["cart_adds"] == 1


@pytest.mark.parametrize("word", NOT_DONE)
def test_an_addition_that_did_not_take_effect_is_sent_again(results: dict[str, Any], word: str) -> None:
    result = results[f"add {word}"]
    assert counted(result)[ADD] == 2
    assert [order["totalItems"] for order in result["orders"]] == [1]


def test_the_kind_of_failure_is_told_apart(results: dict[str, Any]) -> None:
    first = {word: tries(results[f"order {word}"], "order-service POST /api/orders")[0] for word in LOST}
    assert first == {
        "lose": (1, "connection"),
        "swallow": (1, "timeout"),
        "drip": (1, "timeout"),  # the whole answer has to come within the timeout, not only its next byte
        "garbage": (1, "content"),
        "packed": (1, "content"),
        "cut": (1, "connection"),
    }
    broken = next(call for call in results["order drip"]["calls"] if call["failure"])
    assert broken["status"] == 201  # it was seen, only the body did not come


def test_an_order_is_found_by_what_it_holds_when_the_shop_hides_notes(results: dict[str, Any]) -> None:
    result = results["order lost, notes hidden"]
    assert counted(result)[PLACE] == 1
    assert [payment["orderId"] for payment in result["payments"]] == [2]  # not the old order of the account


def test_nothing_is_sent_again_when_the_look_up_fails(results: dict[str, Any]) -> None:
    result = results["order lost, look-up fails"]
    assert counted(result)[PLACE] == 1
    assert counted(result)[ORDERS] == 3
    assert result["payments"] == []
    assert result["sessions"][0]["outcome"] == "FAILED"


def test_a_look_up_is_tried_again_like_any_request(results: dict[str, Any]) -> None:
    result = results["order lost, look-up fails once"]
    assert counted(result)[PLACE] == 1
    assert tries(result, "order-service GET /api/orders/user") == [(1, "status"), (2, None)]
    assert result["sessions"][0]["outcome"] == "ENDED"


def test_an_order_that_is_refused_is_not_sent_again(results: dict[str, Any]) -> None:
    result = results["order refused"]
    assert tries(result, "order-service POST /api/orders") == [(1, "status")]
    assert counted(result)[ORDERS] == 0
    assert result["sessions"][0]["outcome"] == "FAILED"


def test_a_payment_that_keeps_failing_leaves_an_order_placed_and_not_paid(results: dict[str, Any]) -> None:
    result = results["payment fails three times"]
    assert [attempt for attempt, _ in tries(result, "payment-service POST /api/payments")] == [1, 2, 3]
    session = result["sessions"][0]
    assert (session["orders_placed"], session["orders_paid"], session["outcome"]) == (1, 0, "FAILED")


def test_what_an_earlier_session_left_in_the_cart_is_not_ordered(results: dict[str, Any]) -> None:
    result = results["old cart"]
    assert counted(result)[EMPTY] == 1
    assert [order["totalItems"] for order in result["orders"][1:]] == [1]


@pytest.mark.parametrize("name", ["registered already", "registered already, plain"])
def test_an_account_that_exists_is_no_failure(results: dict[str, Any], name: str) -> None:
    call = results[name]["calls"][0]
    assert (call["endpoint"], call["ok"], call["failure"]) == ("POST /api/users/register", True, None)
    assert (call["status"], call["backend_status"]) == ((502, 409) if name == "registered already" else (409, 0))
    assert "status 409" not in results[name]["exceptions"]


@pytest.mark.parametrize(
    ("name", "endpoint"),
    [
        ("token expires", "order-service POST /api/orders"),
        ("token expires, plain", "cart-service GET /api/cart/summary"),
    ],
)
def test_a_token_that_is_not_accepted_is_renewed_and_the_request_sent_again(
    results: dict[str, Any], name: str, endpoint: str
) -> None:
    result = results[name]
    assert tries(result, endpoint)[:2] == [(1, "status"), (2, None)]
    assert counted(result)[LOGIN] == 2
    assert counted(result)[REGISTER] == 1
    assert result["sessions"][0]["outcome"] == "ENDED"


def test_a_shop_that_forgot_the_accounts_gets_them_again(results: dict[str, Any]) -> None:
    result = results["accounts forgotten"]
    assert counted(result)[REGISTER] == 2
    assert tries(result, "user-service POST /api/users/login")[:3] == [(1, None), (1, "status"), (1, None)]
    assert result["sessions"][0]["outcome"] == "ENDED"


def test_retry_after_is_honoured_in_the_time_of_the_run(results: dict[str, Any]) -> None:
    calls = [c for c in results["shed with Retry-After"]["calls"] if c["endpoint"] == "GET /api/cart/summary"]
    assert [(c["attempt"], c["status"]) for c in calls[:2]] == [(1, 503), (2, 200)]
    assert calls[1]["start_ns"] - calls[0]["start_ns"] >= 0.2e9  # 2 s at the system's own scale of 10


@pytest.mark.parametrize(
    ("name", "failure"), [("get dropped", "connection"), ("get reset", "connection"), ("get hangs", "timeout")]
)
def test_a_read_that_fails_is_tried_again_visibly(results: dict[str, Any], name: str, failure: str) -> None:
    assert tries(results[name], "cart-service GET /api/cart/summary")[:2] == [(1, failure), (2, None)]


@pytest.mark.parametrize("word", ODD)
def test_an_odd_way_of_answering_is_no_failure(results: dict[str, Any], word: str) -> None:
    """Some balancers send the header Transfer-Encoding: chunked twice."""
    result = results[f"everything {word}"]
    assert all(call["ok"] for call in result["calls"])
    assert [session["outcome"] for session in result["sessions"]] == ["ENDED", "ENDED"]
    assert [session["orders_paid"] for session in result["sessions"]] == [1, 1]


def test_bytes_behind_an_answer_are_never_read_as_the_next(results: dict[str, Any]) -> None:
    """They come with the answer, which then is broken, or after it, and then the connection is given up."""
    result = results["get overlong"]
    assert {call["failure"] for call in result["calls"]} <= {None, "connection"}
    assert set(result["exceptions"]) <= {"connection: HTTPParseError"}
    assert [(s["outcome"], s["orders_paid"]) for s in result["sessions"]] == [("ENDED", 1)]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_shop_is_sent_nothing_but_http(results: dict[str, Any], name: str) -> None:
    """Bytes out of place on a shared or broken connection are what servers report as an unknown HTTP method "T"."""
    assert results[name]["nonsense"] == []


def test_other_4xx_are_not_tried_again(results: dict[str, Any]) -> None:
    result = results["get not found"]
    assert tries(result, "cart-service GET /api/cart/summary")[:2] == [(1, "status"), (1, None)]
    first = next(call for call in result["calls"] if call["failure"])
    assert (first["status"], first["backend_status"]) == (502, 404)
    assert result["exceptions"] == ["status 502 (backend 404)"]


def test_tries_are_limited_and_pauses_grow(results: dict[str, Any]) -> None:
    calls = [c for c in results["get down"]["calls"] if c["endpoint"] == "GET /api/cart/summary"]
    assert [(c["attempt"], c["failure"]) for c in calls[:4]] == [(1, "status"), (2, "status"), (3, "status"), (1, None)]
    assert calls[1]["start_ns"] - calls[0]["start_ns"] >= 0.5 * 0.02e9
    assert calls[2]["start_ns"] - calls[1]["start_ns"] >= 0.5 * 0.04e9


def test_redirects_are_not_followed(results: dict[str, Any]) -> None:
    call = next(c for c in results["redirect"]["calls"] if not c["ok"])
    assert (call["status"], call["failure"]) == (302, "status")


@pytest.mark.parametrize("name", ["login fails twice", "login refused twice"])
def test_a_login_that_fails_is_tried_again_with_growing_pauses(results: dict[str, Any], name: str) -> None:
    """An account that was just registered is known: 401 is then a failure like any other, and not an answer."""
    result = results[name]
    calls = [call for call in result["calls"] if call["endpoint"] == "POST /api/users/login"]
    assert [(c["attempt"], c["failure"]) for c in calls] == [(1, "status"), (2, "status"), (3, None)]
    assert calls[1]["start_ns"] - calls[0]["start_ns"] >= 0.5 * 0.02e9
    assert calls[2]["start_ns"] - calls[1]["start_ns"] >= 0.5 * 0.04e9
    assert counted(result)[REGISTER] == 1
    session = result["sessions"][0]
    assert (session["outcome"], session["pages"]) == ("ENDED", session["pages_planned"])


def test_a_registration_that_fails_is_tried_again(results: dict[str, Any]) -> None:
    result = results["register fails once"]
    assert tries(result, "user-service POST /api/users/register") == [(1, "status"), (2, None)]
    assert counted(result)[LOGIN] == 1


def test_a_later_login_that_is_refused_is_tried_again_after_the_account_was_asked_for(results: dict[str, Any]) -> None:
    """The account may have been forgotten, so it is registered first; it exists, so the login is tried again."""
    result = results["later login refused twice"]
    logins = [(1, None), (1, "status"), (1, "status"), (2, None)]
    assert tries(result, "user-service POST /api/users/login") == logins
    assert counted(result)[REGISTER] == 2
    assert [session["pages"] for session in result["sessions"]] == [4, 4]


def test_a_later_login_that_fails_is_tried_again(results: dict[str, Any]) -> None:
    result = results["later login fails once"]
    assert tries(result, "user-service POST /api/users/login") == [(1, None), (1, "status"), (2, None)]
    assert counted(result)[REGISTER] == 1


def test_sessions_fail_in_their_own_time_when_everything_fails(results: dict[str, Any]) -> None:
    result = results["everything fails"]
    session = result["sessions"][0]
    assert (session["outcome"], session["pages"]) == ("FAILED", 0)
    assert session["duration_us"] >= session["planned_us"]
    assert {(c["failure"], c["status"], c["backend_status"]) for c in result["calls"]} == {("status", 502, 500)}


def test_a_shopper_that_cannot_sign_in_tries_again_at_its_next_page(results: dict[str, Any]) -> None:
    result = results["sign-in fails at first"]
    session = result["sessions"][0]
    assert session["outcome"] == "ENDED"
    assert session["pages"] == session["pages_planned"] - 1


def test_sessions_fail_in_their_own_time_when_nobody_is_there(results: dict[str, Any]) -> None:
    result = results["nobody there"]
    session = result["sessions"][0]
    assert (session["outcome"], session["pages"]) == ("FAILED", 0)
    assert session["duration_us"] >= session["planned_us"]
    assert {(c["failure"], c["status"]) for c in result["calls"]} == {("connection", 0)}
    assert set(result["exceptions"]) == {"connection: ConnectionRefusedError"}


@pytest.mark.parametrize("name", ["stop in dwell", "stop in think", "stop in backoff"])
def test_a_user_told_to_stop_wakes_from_any_pause(results: dict[str, Any], name: str) -> None:
    """The pauses are of minutes, but for the last: there the next thing to happen would be another try."""
    result = results[name]
    assert len(result["sessions"]) == EXPERIMENTS[name].get("users", 1)
    assert {session["outcome"] for session in result["sessions"]} == {"TRUNCATED"}
    assert result["aborted"] == 0
    assert not any("Not all users finished" in line for line in result["log"])  # within the stop timeout of 10 s
    assert {call["attempt"] for call in result["calls"]} == {1}


def test_a_user_told_to_stop_ends_the_request_in_flight_and_not_the_page(results: dict[str, Any]) -> None:
    result = results["stop in flight"]
    assert result["aborted"] == 0
    last = [c for c in result["calls"] if c["endpoint"] == "GET /api/cart/summary"]
    assert [c["ok"] for c in last] == [True, True]
    assert [s["outcome"] for s in result["sessions"]] == ["TRUNCATED", "TRUNCATED"]


def test_a_killed_user_still_reports_its_session(results: dict[str, Any]) -> None:
    result = results["kill in flight"]
    assert [s["outcome"] for s in result["sessions"]] == ["TRUNCATED", "TRUNCATED"]
    assert not any(c["endpoint"] == "GET /api/cart/summary" for c in result["calls"])


def test_a_user_without_an_account_has_no_session(results: dict[str, Any]) -> None:
    result = results["stop while waiting for an account"]
    assert len(result["sessions"]) == 1
    message = "A dawdler waits for an account: all 1 accounts are in use; raise total_users in the scenario."
    assert message in result["log"]

import json

import pytest

from profiles import shop
from profiles.answers import Answer, Failure, judge, no_answer

FORWARDED = b'{"error": "Failed to forward request: 409 CONFLICT"}'


def test_a_good_answer_is_read() -> None:
    body = {"items": [{"productId": "A", "quantity": 2}, {"productId": "A", "quantity": 1}], "totalAmount": 12}
    answer = judge(shop.CART, 200, json.dumps(body).encode())
    assert answer == Answer(200, 0, None, "", shop.CartSeen({"A": 3}, 12.0))
    assert answer.ok and not answer.worth_retrying and not answer.refused


def test_the_status_behind_a_502_counts() -> None:
    exists = judge(shop.REGISTER, 502, FORWARDED)
    assert exists.ok and (exists.status, exists.backend_status) == (502, 409)
    conflict = judge(shop.PLACE, 502, FORWARDED)
    assert (conflict.failure, conflict.reason) == (Failure.STATUS, "status 502 (backend 409)")
    assert conflict.refused and not conflict.worth_retrying


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, FORWARDED), (502, b""), (502, b"\xff\xfe"), (502, b"Failed to forward request: timeout"), (503, FORWARDED)],
)
def test_a_backend_status_is_only_read_where_the_balancer_writes_it(status: int, body: bytes) -> None:
    answer = judge(shop.CART, status, body)
    assert (answer.status, answer.backend_status, answer.reason) == (status, 0, f"status {status}")


@pytest.mark.parametrize(
    ("status", "worth_retrying", "refused"),
    [
        (400, False, True),
        (401, True, True),
        (404, False, True),
        (408, True, False),
        (409, False, True),
        (429, True, True),
        (500, True, False),
        (502, True, False),
        (503, True, True),
        (504, True, False),
        (302, True, False),
        (204, True, False),
    ],
)
def test_what_a_status_means_for_another_try(status: int, worth_retrying: bool, refused: bool) -> None:
    answer = judge(shop.PLACE, status, b"{}")
    assert (answer.worth_retrying, answer.refused) == (worth_retrying, refused)


@pytest.mark.parametrize("failure", [Failure.TIMEOUT, Failure.CONNECTION, Failure.CONTENT])
def test_a_lost_answer_is_worth_another_try_and_may_have_worked(failure: Failure) -> None:
    answer = no_answer(failure, "SomeError", 200)
    assert (answer.status, answer.reason) == (200, f"{failure.value}: SomeError")
    assert answer.worth_retrying and not answer.refused


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("2", 2.0),
        ("120", 120.0),
        (None, 0.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
        ("-1", 0.0),
        ("1e9", 0.0),
        ("9" * 10, 0.0),
        ("\u0662", 0.0),
    ],
)
def test_retry_after_is_read_as_seconds_or_not_at_all(header: str | None, seconds: float) -> None:
    assert judge(shop.CART, 503, b"", header).retry_after_s == seconds


GOOD = {
    shop.LOGIN: {"token": "abc", "user": {"id": 7}},
    shop.CART: {"items": [{"productId": "A", "quantity": 1}], "totalAmount": 1.5},
    shop.SUMMARY: {"totalItems": 0},
    shop.PLACE: {"id": 4, "totalAmount": 1.5, "totalItems": 1, "notes": "n", "paymentId": "p", "paymentStatus": "PAID"},
    shop.ORDERS: [{"id": 4, "totalAmount": 1.5}],
    shop.PAY: {"status": "COMPLETED"},
    shop.ME: {},
    shop.SEARCH: [],
}
NONSENSE = [
    b"",
    b"null",
    b"[",
    b"[1, 2]",
    b'"text"',
    b"7",
    b"true",
    b"{}",
    b"\xff",
    b"[" * 100_000,
    b'{"token": "a\\nb", "user": {"id": 7}}',
    b'{"token": "", "user": {"id": 7}}',
    b'{"token": "a", "user": {"id": null}}',
    b'{"items": [{"productId": 1, "quantity": 1}], "totalAmount": 1}',
    b'{"items": 3, "totalAmount": 1}',
    b'{"items": [{"productId": "A", "quantity": -1}], "totalAmount": 1}',
    b'{"items": [], "totalAmount": NaN}',
    b'{"items": [], "totalAmount": "1"}',
    b'{"totalItems": 1.5}',
    b'{"totalItems": true}',
    b'{"id": "4", "totalAmount": 1}',
    b'{"id": 4, "totalAmount": Infinity}',
    b'{"id": 4, "totalAmount": 1, "notes": 3}',
    b'{"status": null}',
    b'[{"id": 4}]',
    b"[[]]",
]


@pytest.mark.parametrize("endpoint", GOOD, ids=lambda endpoint: endpoint.key)
def test_no_body_from_the_network_raises(endpoint: shop.Endpoint) -> None:
    status = max(endpoint.with_content)
    assert judge(endpoint, status, json.dumps(GOOD[endpoint]).encode()).ok
    refused = [judge(endpoint, status, body) for body in NONSENSE]
    assert {answer.failure for answer in refused} <= {None, Failure.CONTENT}
    assert sum(not answer.ok for answer in refused) >= (len(NONSENSE) - 20 if endpoint is shop.ME else 9)
    assert {answer.reason for answer in refused if not answer.ok} == {f"content: not {endpoint.expects}"}


def test_a_broken_body_of_each_kind_is_refused_by_its_own_endpoint() -> None:
    broken = {
        shop.LOGIN: b'{"token": "a\\nb", "user": {"id": 7}}',  # would split the header it is put into
        shop.CART: b'{"items": [], "totalAmount": NaN}',
        shop.SUMMARY: b'{"totalItems": true}',
        shop.PLACE: b'{"id": "4", "totalAmount": 1}',
        shop.ORDERS: b'[{"id": 4}]',
        shop.PAY: b'{"status": null}',
        shop.ME: b"[]",
        shop.SEARCH: b"{}",
    }
    for endpoint, body in broken.items():
        assert judge(endpoint, max(endpoint.with_content), body).failure is Failure.CONTENT, endpoint.key

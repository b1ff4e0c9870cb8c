from dataclasses import replace

import pytest

from sandbox.breaker import CLOSED, HALF_OPEN, OPEN, UNCOUNTED, Breaker, RetryBudget
from sandbox.parameters import Parameters

P = Parameters()


def opened() -> Breaker:
    """A breaker that opened at 0."""
    breaker = Breaker(P)
    for _ in range(5):
        breaker.record(breaker.watch(0.0), False, 0.0)
    return breaker


def test_five_failures_in_a_row_open_it_and_a_success_between_them_does_not() -> None:
    breaker = Breaker(P)
    for ok in (False, False, False, False, True, False, False, False, False):
        breaker.record(breaker.watch(0.0), ok, 0.0)
    assert breaker.state(0.0) == CLOSED
    breaker.record(breaker.watch(0.0), False, 0.0)
    assert breaker.state(0.0) == OPEN and not breaker.allows(0.0)


def test_half_of_twenty_recent_failures_open_it_and_fewer_requests_do_not() -> None:
    breaker = Breaker(P)
    for number in range(19):
        breaker.record(breaker.watch(0.0), number % 2 == 1, 0.0)
    assert breaker.state(0.0) == CLOSED
    breaker.record(breaker.watch(0.0), False, 0.0)
    assert breaker.state(0.0) == OPEN


def test_old_failures_are_forgotten() -> None:
    breaker = Breaker(P)
    for second in range(400):  # two failures of three, once a minute: never 20 recent ones
        breaker.record(breaker.watch(60.0 * second), second % 3 == 0, 60.0 * second)
    assert breaker.state(60.0 * 400) == CLOSED


def test_after_its_time_it_probes_one_at_a_time_and_three_good_ones_close_it() -> None:
    breaker = opened()
    assert breaker.state(P.breaker_open_s - 0.01) == OPEN
    now = P.breaker_open_s
    assert breaker.state(now) == HALF_OPEN
    for _ in range(3):
        assert breaker.allows(now)
        probe = breaker.admit(now)
        assert not breaker.allows(now)
        breaker.record(probe, True, now)
    assert breaker.state(now) == CLOSED


def test_a_bad_probe_opens_it_for_twice_as_long_up_to_a_limit() -> None:
    breaker, now, lengths = opened(), 0.0, []
    for _ in range(6):
        start = now
        while not breaker.allows(now):
            now += 1.0
        lengths.append(now - start)
        breaker.record(breaker.admit(now), False, now)
    assert lengths == [10.0, 20.0, 40.0, 80.0, 80.0, 80.0]


def test_a_probe_whose_client_went_away_makes_room_for_the_next() -> None:
    breaker = opened()
    probe = breaker.admit(20.0)
    breaker.forget(probe)
    assert breaker.allows(20.0)


@pytest.mark.parametrize("ok", [True, False])
def test_results_of_requests_sent_in_another_state_do_not_count(ok: bool) -> None:
    breaker = Breaker(P)
    early = breaker.watch(0.0)
    for _ in range(5):
        breaker.record(breaker.watch(0.0), False, 0.0)
    assert breaker.watch(20.0) == UNCOUNTED
    for _ in range(10):
        breaker.record(early, ok, 20.0)
        breaker.record(UNCOUNTED, ok, 20.0)
    assert breaker.state(20.0) == HALF_OPEN


def test_the_retry_budget_is_a_fifth_of_the_requests_and_at_most_ten() -> None:
    budget = RetryBudget(replace(P, retry_earn=0.25))
    assert [budget.spend() for _ in range(11)] == [True] * 10 + [False]
    for _ in range(4):
        budget.earn()
    assert [budget.spend() for _ in range(2)] == [True, False]
    for _ in range(1000):
        budget.earn()
    assert [budget.spend() for _ in range(11)] == [True] * 10 + [False]

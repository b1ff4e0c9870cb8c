"""Clocks of several processes: laws of the steady clock and of the measured offset."""

import doctest
from random import Random

import pytest

from rl_hooks import clock
from rl_hooks.clock import Anchor, Offset, OffsetEstimate, SteadyClock, between

SECOND = 1_000_000_000


class Hands:
    """A wall clock and a monotonic one that the test moves."""

    def __init__(self) -> None:
        self.monotonic_ns = 5 * SECOND
        self.wall_ns = 1_767_225_600 * SECOND

    def pass_(self, ns: int) -> None:
        self.monotonic_ns += ns
        self.wall_ns += ns


def test_the_examples_hold() -> None:
    assert doctest.testmod(clock).failed == 0
    assert doctest.testmod(clock).attempted > 0


def test_a_steady_clock_goes_on_when_the_wall_clock_is_set() -> None:
    hands = Hands()
    steady = SteadyClock(lambda: hands.wall_ns, lambda: hands.monotonic_ns)
    began = steady.now_ns()
    assert began == hands.wall_ns
    for step in (90 * SECOND, -3600 * SECOND):
        hands.wall_ns += step
        hands.pass_(SECOND)
    assert steady.now_ns() - began == 2 * SECOND
    assert steady.step_ns() == (90 - 3600) * SECOND


def test_a_process_that_loses_its_processor_between_two_reads_sees_no_step() -> None:
    hands, busy = Hands(), iter([3, 0, 0])

    def wall_ns() -> int:
        if next(busy, 0):
            hands.pass_(3 * SECOND)
        return hands.wall_ns

    steady = SteadyClock(wall_ns, lambda: hands.monotonic_ns)
    assert steady.step_ns() == 0


@pytest.mark.parametrize("seed", range(20))
def test_the_true_offset_lies_within_the_uncertainty(seed: int) -> None:
    """Any delays on both ways, and clocks that drift apart as fast as they may."""
    random = Random(seed)
    true_ns, drift = random.randrange(-(10**12), 10**12), random.uniform(-clock.DRIFT, clock.DRIFT)
    estimate, now_ns = OffsetEstimate(), 0

    def there(here_ns: int) -> int:
        return here_ns + true_ns + round(drift * here_ns)

    for _ in range(200):
        asked_ns = now_ns
        arrived_ns = asked_ns + int(random.expovariate(1 / 2e6))
        heard_ns = arrived_ns + int(random.expovariate(1 / 2e6))
        estimate.add("master", asked_ns, there(arrived_ns), heard_ns)
        found = estimate.at(heard_ns)
        assert found is not None
        assert abs(found.offset_ns - (there(heard_ns) - heard_ns)) <= found.uncertainty_ns + 2  # rounding
        now_ns = heard_ns + 2 * SECOND
    assert found.uncertainty_ns < 2_000_000


def test_another_master_is_another_clock() -> None:
    estimate = OffsetEstimate()
    assert estimate.at(0) is None
    estimate.add("one", 0, 1_000_000, 10)
    estimate.add("two", 20, 5, 2_000_020)
    assert estimate.at(2_000_020) == Offset(5 - 1_000_020, 1_000_050)


def test_an_answer_that_came_before_its_question_says_nothing() -> None:
    estimate = OffsetEstimate()
    estimate.add("master", asked_ns=10, stated_ns=0, heard_ns=9)
    assert estimate.at(10) is None


def test_recorded_times_are_moved_by_what_lies_between_the_clocks() -> None:
    """Both processes state the same moment; after the move they state the same time."""
    mine, others = Anchor(700, 10), Anchor(9_000, 2_000_000)
    monotonic = Offset(1_999_500, 7)  # our 10 is their 1,999,510
    offset = between(mine, others, monotonic)
    moment = 60  # by our monotonic clock
    assert mine.wall_at(moment) + offset.offset_ns == others.wall_at(moment + monotonic.offset_ns)
    assert offset.uncertainty_ns == 7

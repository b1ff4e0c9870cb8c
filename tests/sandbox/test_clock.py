import pytest

from sandbox.clock import EventHeap, VirtualClock
from sandbox.gauges import FadingCount, SlidingMean, TimeoutLine


def test_events_run_at_their_time_in_order_and_ties_in_the_order_of_asking(clock: VirtualClock) -> None:
    seen: list[tuple[float, str]] = []
    for delay, name in ((2.0, "late"), (1.0, "first"), (1.0, "second"), (-5.0, "at once")):
        clock.call_later(delay, lambda name=name: seen.append((clock.now(), name)))
    clock.run_until(1.5)
    assert seen == [(0.0, "at once"), (1.0, "first"), (1.0, "second")]
    assert clock.now() == 1.5
    clock.run_until(10.0)
    assert seen[-1] == (2.0, "late")


def test_a_cancelled_event_does_not_run(clock: VirtualClock) -> None:
    ran: list[int] = []
    clock.call_later(1.0, lambda: ran.append(1)).cancel()
    clock.run_until(2.0)
    assert ran == [] and clock.step() is False


def test_popping_a_cancelled_event_says_what_was_forgotten() -> None:
    heap = EventHeap()
    heap.push(1.0, lambda: None).cancel()
    with pytest.raises(LookupError, match="the next event was cancelled: ask next_due_s first"):
        heap.pop()


def test_a_sliding_mean_forgets_what_is_older_than_its_window() -> None:
    mean = SlidingMean(0.0, window_s=1.0)
    mean.set(0.0, 1.0)
    assert mean.mean(0.5) == pytest.approx(1.0)
    mean.set(2.0, 0.0)
    assert mean.mean(2.5) == pytest.approx(0.5, abs=0.06)
    assert mean.mean(3.2) == pytest.approx(0.0, abs=1e-9)


def test_a_sliding_mean_of_many_steps_is_the_mean_of_the_steps_in_the_window() -> None:
    mean = SlidingMean(0.0, window_s=1.0)
    for step in range(1000):
        mean.set(step / 100, float(step % 2))
    assert mean.mean(10.0) == pytest.approx(0.5, abs=0.02)
    assert len(mean._marks) <= 13, "what is older than the window is forgotten"


def test_a_fading_count_halves_per_half_life_and_knows_a_steady_rate() -> None:
    count = FadingCount(half_life_s=2.0)
    count.add(0.0, 8.0)
    assert count.value(4.0) == pytest.approx(2.0)
    for step in range(4000):
        count.add(100 + step / 100, 1.0)
    assert count.rate(140.0) == pytest.approx(100.0, rel=0.01)


def test_timeouts_expire_in_turn_at_their_time_and_cancelled_ones_never(clock: VirtualClock) -> None:
    line = TimeoutLine(clock, 5.0)
    expired: list[tuple[float, str]] = []
    deadlines = {}
    for start, name in ((0.0, "a"), (1.0, "b"), (2.0, "c"), (9.0, "d")):
        clock.run_until(start)
        deadlines[name] = line.start(lambda name=name: expired.append((clock.now(), name)))
        if name == "b":
            deadlines["b"].cancel()
    clock.run_until(100.0)
    assert expired == [(5.0, "a"), (7.0, "c"), (14.0, "d")]


def test_a_timeout_that_begins_while_another_expires_does_not_delay_those_before_it() -> None:
    clock = VirtualClock()
    line = TimeoutLine(clock, 5.0)
    expired: list[tuple[str, float]] = []

    def first() -> None:
        expired.append(("first", clock.now()))
        line.start(lambda: None)

    line.start(first)
    clock.run_until(1.0)
    line.start(lambda: expired.append(("second", clock.now())))
    clock.run_until(20.0)
    assert expired == [("first", 5.0), ("second", 6.0)]

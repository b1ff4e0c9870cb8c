from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from sandbox.clock import VirtualClock
from sandbox.instance import Effect, Ended, Instance, Job, combine

Make = Callable[..., Instance]


class Log:
    """What happened to requests: (name, how it ended, when)."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.ends: list[tuple[Any, Ended, float]] = []

    def submit(self, instance: Instance, name: object = "r", work: Callable[[Job], None] | None = None) -> Job:
        return instance.submit(lambda _, ended: self.ends.append((name, ended, round(self.clock.now(), 6))), work)

    def of(self, ended: Ended) -> int:
        return sum(end is ended for _, end, _ in self.ends)


@pytest.fixture
def log(clock: VirtualClock) -> Log:
    return Log(clock)


def test_requests_wait_in_order_for_a_worker(clock: VirtualClock, make_instance: Make, log: Log) -> None:
    instance = make_instance(workers=2, queue_timeout_s=100.0)
    for name in range(5):
        log.submit(instance, name)
    assert (instance.busy, instance.queue_depth, instance.in_flight) == (2, 3, 5)
    clock.run_until(10.0)
    served = Ended.SERVED
    assert log.ends == [(0, served, 1.0), (1, served, 1.0), (2, served, 2.0), (3, served, 2.0), (4, served, 3.0)]
    assert instance.worker_seconds() == pytest.approx(5.0)
    assert instance.in_flight == 0


def test_a_full_queue_refuses_and_one_that_waited_too_long_leaves(
    clock: VirtualClock, make_instance: Make, log: Log
) -> None:
    instance = make_instance(queue_per_worker=3, queue_timeout_s=1.5)
    for name in range(5):
        log.submit(instance, name)
    assert log.ends == [(4, Ended.FULL, 0.0)]
    clock.run_until(1.6)
    assert log.ends[1:] == [(0, Ended.SERVED, 1.0), (2, Ended.EXPIRED, 1.5), (3, Ended.EXPIRED, 1.5)]
    assert instance.queue_depth == 0 and instance.busy == 1


def test_an_abandoned_request_leaves_the_queue_but_runs_on_in_a_worker(
    clock: VirtualClock, make_instance: Make, log: Log
) -> None:
    instance = make_instance()
    first, second, third = (log.submit(instance, name) for name in range(3))
    instance.abandon(first)
    instance.abandon(second)
    assert (instance.busy, instance.queue_depth) == (1, 1)
    clock.run_until(1.5)
    assert instance.busy == 1 and instance.queue_depth == 0 and third.queue_s == pytest.approx(1.0)
    clock.run_until(9.0)
    assert log.ends == [(2, Ended.SERVED, 2.0)]


def test_half_of_the_work_waits_for_io_and_takes_no_cpu(clock: VirtualClock, make_instance: Make, log: Log) -> None:
    instance = make_instance(workers=1, cpu_share=0.25, gauge_window_s=0.75)
    log.submit(instance)
    clock.run_until(0.75)
    assert instance.cpu() == pytest.approx(0.0)
    clock.run_until(1.0)
    assert instance.cpu() == pytest.approx(1 / 3, abs=0.05) and log.of(Ended.SERVED) == 1


def test_an_antagonist_slows_the_computing_only(clock: VirtualClock, make_instance: Make, log: Log) -> None:
    instance = make_instance(cpu_share=0.5)
    instance.set_effect("x", Effect(antagonist=0.5))
    log.submit(instance)
    clock.run_until(9.0)
    assert log.ends == [("r", Ended.SERVED, 1.5)]
    assert instance.cpu() == pytest.approx(0.5, abs=0.01)
    instance.remove_effect("x")
    instance.remove_effect("x")
    log.submit(instance)
    clock.run_until(19.0)
    assert log.ends[1] == ("r", Ended.SERVED, 10.0)


def test_a_pause_stops_every_answer_and_nothing_is_lost(clock: VirtualClock, make_instance: Make, log: Log) -> None:
    instance = make_instance(workers=2, cpu_share=0.5)
    log.submit(instance)
    clock.run_until(0.25)
    instance.pause(5.0)
    instance.pause(1.0)  # a shorter one inside changes nothing
    log.submit(instance)
    clock.run_until(5.2)
    assert log.ends == [] and instance.cpu() == pytest.approx(1.0)
    clock.run_until(9.0)
    # I/O went on meanwhile; both still have their whole computing of half a second to do.
    assert log.ends == [("r", Ended.SERVED, 5.75), ("r", Ended.SERVED, 5.75)]


def test_a_crash_resets_what_is_inside_and_refuses_until_the_start(
    clock: VirtualClock, make_instance: Make, log: Log
) -> None:
    instance = make_instance(workers=1)
    for name in range(3):
        log.submit(instance, name)
    calling: list[Job] = []
    clock.run_until(0.5)
    instance.crash()
    instance.crash()
    assert log.ends == [(1, Ended.RESET, 0.5), (2, Ended.RESET, 0.5), (0, Ended.RESET, 0.5)]
    assert (instance.up, instance.in_flight, instance.busy, instance.health()) == (False, 0, 0, 0.0)
    log.submit(instance, 4)
    assert log.ends[-1] == (4, Ended.REFUSED, 0.5)
    instance.start()
    log.submit(instance, 5, calling.append)
    clock.run_until(50.0)
    assert len(calling) == 1 and instance.in_flight == 1 and instance.busy == 0
    instance.crash()
    assert log.ends[-1] == (5, Ended.RESET, 50.0) and calling[0].over
    instance.reply(calling[0], "too late")
    assert len(log.ends) == 5


def test_after_a_start_it_is_cold_and_warms_up(clock: VirtualClock, make_instance: Make, log: Log) -> None:
    instance = make_instance(cpu_share=1.0, slow_start_s=30.0, slow_start_factor=3.0)
    instance.crash()
    instance.start()
    log.submit(instance, "cold")
    clock.run_until(15.0)
    log.submit(instance, "half")
    clock.run_until(30.0)
    log.submit(instance, "warm")
    clock.run_until(60.0)
    assert [end[2] for end in log.ends] == [3.0, 17.0, 31.0]


def test_failing_is_fast_and_hanging_holds_its_worker(clock: VirtualClock, make_instance: Make, log: Log) -> None:
    instance = make_instance(workers=1, failed_share=0.1, cpu_share=0.5, hang_s=7.0)
    instance.set_effect("x", Effect(error_rate=1.0))
    log.submit(instance)
    clock.run_until(1.0)
    assert log.ends == [("r", Ended.FAILED, 0.05)]
    instance.set_effect("x", Effect(timeout_rate=1.0))
    log.submit(instance)
    clock.run_until(7.9)
    assert instance.busy == 1 and len(log.ends) == 1
    clock.run_until(8.1)
    assert instance.busy == 0 and log.ends[1] == ("r", Ended.FAILED, 8.0)


def test_error_rate_and_latency_factor_act_as_they_say(clock: VirtualClock, make_instance: Make, log: Log) -> None:
    instance = make_instance(workers=5000, cpu_share=0.5)
    instance.set_effect("x", Effect(error_rate=0.3, latency_factor=4.0))
    for name in range(5000):
        log.submit(instance, name)
    clock.run_until(10.0)
    assert {end[2] for end in log.ends} == {0.2, 4.0}
    assert 1414 <= log.of(Ended.FAILED) <= 1586  # 99.2 % of a binomial(5000, 0.3) lie inside


def test_less_capacity_means_fewer_workers_and_less_cpu(clock: VirtualClock, make_instance: Make, log: Log) -> None:
    instance = make_instance(workers=4, cpu_share=1.0)
    instance.set_effect("x", Effect(capacity=0.5))
    for name in range(4):
        log.submit(instance, name)
    assert instance.busy == 2
    instance.remove_effect("x")
    assert instance.busy == 4 and instance.queue_depth == 0
    instance.set_effect("x", Effect(capacity=0.01))
    clock.run_until(1000.0)
    log.submit(instance)
    assert instance.busy == 1


def test_effects_combine() -> None:
    both = combine(
        [Effect(latency_factor=2.0, error_rate=0.5), Effect(3.0, 0.5, 0.1, 0.5, 0.9), Effect(antagonist=0.9)]
    )
    assert both == Effect(6.0, 0.75, pytest.approx(0.1), 0.5, 0.95)


def test_health_falls_with_errors_and_queue_and_recovers(clock: VirtualClock, make_instance: Make, log: Log) -> None:
    instance = make_instance(queue_per_worker=10, queue_timeout_s=100.0, rate_half_life_s=5.0)
    assert instance.health() == 1.0
    for _ in range(6):
        log.submit(instance)
    assert instance.health() == pytest.approx(0.5)
    clock.run_until(60.0)
    assert instance.health() == pytest.approx(1.0)
    instance.set_effect("x", Effect(error_rate=1.0))
    for _ in range(10):
        log.submit(instance)
    clock.run_until(62.0)
    assert instance.health() < 0.2
    clock.run_until(150.0)
    assert instance.health() > 0.98


def test_memory_rises_with_requests_and_falls_with_a_collection(
    clock: VirtualClock, make_instance: Make, log: Log
) -> None:
    instance = make_instance(workers=1, mean_service_s=0.01)
    empty = instance.memory()
    for _ in range(100):
        log.submit(instance)
        clock.run_for(0.1)
    assert empty < instance.memory() < 1.0
    instance.pause(0.1)
    clock.run_for(1.0)
    assert instance.memory() == pytest.approx(empty)


def test_one_worker_is_the_queue_of_pollaczek_and_khinchine(clock: VirtualClock, make_instance: Make) -> None:
    # M/G/1, first in first out: E[wait] = lambda E[S^2] / (2 (1 - rho)); log-normal: E[S^2] = E[S]^2 exp(sigma^2).
    rho, sigma = 0.7, 0.6
    instance = make_instance(demand_sigma=sigma, queue_per_worker=10**6, queue_timeout_s=1e9, cpu_share=0.6)
    waits: list[float] = []
    rng = Random(5)
    for _ in range(40_000):
        clock.run_for(rng.expovariate(rho))
        instance.submit(lambda job, _: waits.append(job.queue_s))
    clock.run_for(1e4)
    expected = rho * 2.718281828 ** (sigma**2) / (2 * (1 - rho))
    assert len(waits) == 40_000
    assert sum(waits) / len(waits) == pytest.approx(expected, rel=0.1)
    assert instance.worker_seconds() / clock.now() == pytest.approx(40_000 / clock.now(), rel=0.02)


def test_every_request_ends_once_whatever_happens(clock: VirtualClock, make_instance: Make, log: Log) -> None:
    instance = make_instance(
        workers=3, demand_sigma=0.6, queue_per_worker=4, queue_timeout_s=3.0, hang_s=9.0, slow_start_s=20.0
    )
    rng = Random(11)
    jobs: list[Job] = []
    replies: list[Job] = []
    for step in range(5000):
        clock.run_for(rng.expovariate(2.6))
        jobs.append(log.submit(instance, step, replies.append if rng.random() < 0.3 else None))
        happening = rng.random()
        if happening < 0.05:
            instance.abandon(rng.choice(jobs[-8:]))
        elif happening < 0.10 and replies:
            instance.reply(replies.pop(), "ok")
        elif happening < 0.11:
            instance.crash()
        elif happening < 0.15:
            instance.start()
        elif happening < 0.17:
            instance.pause(rng.random() * 2)
        elif happening < 0.19:
            instance.set_effect("x", Effect(error_rate=0.3, timeout_rate=0.1, capacity=0.6, antagonist=0.3))
        elif happening < 0.21:
            instance.remove_effect("x")
        done = sum(instance.ended.values()) + instance.abandoned_in_queue
        assert instance.submitted == done + instance.in_flight
        assert 0 <= instance.busy <= 3 and 0 <= instance.queue_depth <= instance.queue_limit
        assert 0.0 <= instance.cpu() <= 1.0 and 0.0 <= instance.memory() <= 1.0 and 0.0 <= instance.health() <= 1.0
    instance.start()
    clock.run_for(1000.0)
    while replies:
        instance.reply(replies.pop(), "ok")
    clock.run_for(1000.0)
    assert instance.in_flight == 0 and instance.busy == 0 and instance.queue_depth == 0
    assert {ended for _, ended, _ in log.ends} == set(Ended)
    assert len({name for name, _, _ in log.ends}) == len(log.ends)

"""Each strategy against its definition, on backends in states made by hand."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from rl_hooks.decision import ACTIONS
from sandbox.backend import Backend
from sandbox.balancer import Balancer
from sandbox.parameters import Parameters
from sandbox.strategies import (
    STRATEGIES,
    Backpressure,
    CircuitBreaker,
    FastestResponse,
    LeastLoaded,
    RoundRobin,
    WeightedCapacity,
    make_strategies,
)

P = Parameters()


@pytest.fixture
def backends(make_balancer: Callable[..., Balancer]) -> tuple[Backend, ...]:
    """Three backends with 2, 1 and 1 workers, all seen just now."""
    some = make_balancer().backends
    for backend in some:
        backend.seen_s = 0.0
    return some


def picks(strategy: Any, backends: tuple[Backend, ...], times: int, now_s: float = 0.0) -> list[int]:
    return [strategy.choose(backends, now_s).index for _ in range(times)]


def test_there_is_a_strategy_for_every_action_in_their_order() -> None:
    assert tuple(STRATEGIES) == ACTIONS == tuple(make_strategies(P))


def test_round_robin_takes_turns_and_goes_on_when_one_is_missing(backends: tuple[Backend, ...]) -> None:
    strategy = RoundRobin(P)
    assert picks(strategy, backends, 4) == [0, 1, 2, 0]
    assert picks(strategy, (backends[0], backends[2]), 3) == [2, 0, 2]


def test_least_loaded_takes_the_fewest_in_flight_and_rotates_among_equals(backends: tuple[Backend, ...]) -> None:
    strategy = LeastLoaded(P)
    backends[0].in_flight = 3
    assert picks(strategy, backends, 4) == [1, 2, 1, 2]
    backends[1].in_flight = 1
    assert picks(strategy, backends, 3) == [2, 2, 2]


def test_fastest_takes_the_least_peak_ewma_times_in_flight_plus_one(backends: tuple[Backend, ...]) -> None:
    strategy = FastestResponse(P)
    for backend, latency_s in zip(backends, (0.1, 0.25, 0.4), strict=True):
        backend.observe_latency(0.0, latency_s)
    assert picks(strategy, backends, 2) == [0, 0]
    backends[0].in_flight = 2  # 0.3 against 0.25
    assert picks(strategy, backends, 1) == [1]
    backends[1].in_flight = 1  # 0.3, 0.5, 0.4
    assert picks(strategy, backends, 1) == [0]


def test_a_latency_peak_counts_at_once_and_lower_ones_sink_in_with_time(backends: tuple[Backend, ...]) -> None:
    backend = backends[0]
    backend.observe_latency(0.0, 0.1)
    backend.observe_latency(1.0, 0.9)
    assert backend.peak_ewma_s == 0.9
    backend.observe_latency(1.0, 0.1)
    assert backend.peak_ewma_s == pytest.approx(0.9)
    backend.observe_latency(11.0, 0.1)  # one decay time later: 1/e of the old is left
    assert backend.peak_ewma_s == pytest.approx(0.1 + 0.8 / 2.718281828)


def test_fastest_probes_once_what_it_has_not_seen_for_a_second(backends: tuple[Backend, ...]) -> None:
    strategy = FastestResponse(P)
    for backend, latency_s in zip(backends, (0.1, 0.2, 5.0), strict=True):
        backend.observe_latency(0.0, latency_s)
    backends[0].seen_s = backends[1].seen_s = 0.9
    assert picks(strategy, backends, 1, now_s=0.99) == [0]
    assert picks(strategy, backends, 1, now_s=1.0) == [2]
    backends[2].seen_s = 1.0  # being sent the probe counts
    assert picks(strategy, backends, 1, now_s=1.0) == [0]


def test_one_that_never_answered_is_tried_when_idle_and_avoided_while_asked(backends: tuple[Backend, ...]) -> None:
    strategy = FastestResponse(P)
    for backend in backends[:2]:
        backend.observe_latency(0.0, 0.1)
    assert picks(strategy, backends, 1) == [2]
    backends[2].in_flight = 1
    assert picks(strategy, backends, 2) == [0, 1]


def test_weighted_shares_match_the_declared_capacity_without_bursts(backends: tuple[Backend, ...]) -> None:
    chosen = picks(WeightedCapacity(P), backends, 400)
    assert Counter(chosen) == {0: 200, 1: 100, 2: 100}
    assert not any(a == b == c == 0 for a, b, c in zip(chosen, chosen[1:], chosen[2:], strict=False))


def test_circuit_breaker_takes_turns_among_closed_ones_and_refuses_when_none_is(backends: tuple[Backend, ...]) -> None:
    strategy = CircuitBreaker(P)
    for _ in range(5):
        backends[1].breaker.record(backends[1].breaker.watch(0.0), False, 0.0)
    assert picks(strategy, backends, 4) == [0, 2, 0, 2]
    for backend in (backends[0], backends[2]):
        for _ in range(5):
            backend.breaker.record(backend.breaker.watch(0.0), False, 0.0)
    assert strategy.choose(backends, 0.0) is None
    assert strategy.refusal == "breaker_open"
    assert sorted(picks(strategy, backends, 3, now_s=10.0)) == [0, 1, 2]


def test_backpressure_takes_the_least_pressure_per_worker(backends: tuple[Backend, ...]) -> None:
    strategy = Backpressure(P)
    backends[0].in_flight, backends[1].in_flight, backends[2].in_flight = 3, 2, 2  # 1.5, 2, 2 per worker
    assert picks(strategy, backends, 2) == [0, 0]
    backends[0].reported_queue = 2  # (3 + 2) / 2
    assert picks(strategy, backends, 2) == [1, 2]


def test_backpressure_sheds_only_when_all_queues_are_full(backends: tuple[Backend, ...]) -> None:
    strategy = Backpressure(P)
    short = P.short_queue_per_worker
    for backend in backends:
        backend.in_flight = (short + 1) * backend.workers  # exactly full by what is in flight beyond the workers
    assert strategy.choose(backends, 0.0) is None and strategy.refusal == "shed"
    for backend in backends:
        backend.in_flight -= 1
        assert picks(strategy, backends, 1) == [backend.index]
        backend.in_flight += 1


def test_a_reported_queue_is_believed_only_as_far_as_requests_are_still_there(backends: tuple[Backend, ...]) -> None:
    backend = backends[0]
    backend.reported_queue, backend.in_flight = 50, 1
    assert backend.queue == 1
    backend.reported_queue, backend.in_flight = 0, 7
    assert backend.queue == 5
    backend.reported_queue, backend.in_flight = 6, 7
    assert backend.queue == 6

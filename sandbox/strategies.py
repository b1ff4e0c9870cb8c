"""The six strategies. Each chooses among the backends it is given; all read the same `Backend` objects.

`choose(backends, now_s)` gets the healthy backends in the order of their index, at least one, and returns one of them
or None when the strategy rather refuses; `refusal` then says why. What only a strategy itself needs (whose turn it is)
it keeps itself; everything about an instance is in the shared state, so mixing actions never splits what is known.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from rl_hooks.decision import ACTIONS
from sandbox.backend import Backend
from sandbox.parameters import Parameters


class Strategy(Protocol):
    """How one action chooses."""

    refusal: str  # the flag when it chose none

    def choose(self, backends: Sequence[Backend], now_s: float) -> Backend | None:
        """The backend for the next request, or None to refuse it."""


class Turn:
    """Whose turn it is among backends that come and go."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = -1

    def take(self, backends: Sequence[Backend]) -> Backend:
        """The first one after the last taken, by index, around the circle."""
        chosen = next((backend for backend in backends if backend.index > self._last), backends[0])
        self._last = chosen.index
        return chosen

    def least(self, backends: Sequence[Backend], cost: Callable[[Backend], float]) -> Backend:
        """The one of least cost; among equals the one whose turn it is."""
        costs = [cost(backend) for backend in backends]
        low = min(costs)
        return self.take([backend for backend, value in zip(backends, costs, strict=True) if value == low])


class RoundRobin:
    """In turn."""

    refusal = ""

    def __init__(self, parameters: Parameters) -> None:
        del parameters  # it has none
        self._turn = Turn()

    def choose(self, backends: Sequence[Backend], now_s: float) -> Backend | None:
        """See `Strategy`."""
        return self._turn.take(backends)


class LeastLoaded:
    """The fewest requests in flight, as the balancer counts them; ties in rotation."""

    refusal = ""

    def __init__(self, parameters: Parameters) -> None:
        del parameters  # it has none
        self._turn = Turn()

    def choose(self, backends: Sequence[Backend], now_s: float) -> Backend | None:
        """See `Strategy`."""
        return self._turn.least(backends, lambda backend: backend.in_flight)


class FastestResponse:
    """Least peak-EWMA latency x (in flight + 1); one that was neither chosen nor heard of for 1 s gets one probe."""

    refusal = ""

    def __init__(self, parameters: Parameters) -> None:
        self._probe_after_s = parameters.probe_after_s
        self._turn = Turn()

    def choose(self, backends: Sequence[Backend], now_s: float) -> Backend | None:
        """See `Strategy`. Being chosen counts as being seen (the balancer notes it), so it stays at one probe."""
        unseen_since_s = now_s - self._probe_after_s
        unseen = [backend for backend in backends if backend.seen_s <= unseen_since_s]
        if unseen:
            return min(unseen, key=lambda backend: backend.seen_s)
        return self._turn.least(backends, lambda backend: backend.peak_cost_s)


class WeightedCapacity:
    """Smooth weighted round robin over declared capacity (nginx's method: no bursts to the heavy one)."""

    refusal = ""

    def __init__(self, parameters: Parameters) -> None:
        del parameters  # it has none

    def choose(self, backends: Sequence[Backend], now_s: float) -> Backend | None:
        """See `Strategy`."""
        total = 0.0
        for backend in backends:
            backend.turn_weight += backend.capacity
            total += backend.capacity
        chosen = max(backends, key=lambda backend: backend.turn_weight)
        chosen.turn_weight -= total
        return chosen


class CircuitBreaker:
    """Round robin over the backends whose breaker is closed, or half open and waiting for a probe; else refuses."""

    refusal = "breaker_open"

    def __init__(self, parameters: Parameters) -> None:
        del parameters  # those of the breakers are in the breakers
        self._turn = Turn()

    def choose(self, backends: Sequence[Backend], now_s: float) -> Backend | None:
        """See `Strategy`."""
        allowed = [backend for backend in backends if backend.breaker.allows(now_s)]
        return self._turn.take(allowed) if allowed else None


class Backpressure:
    """Least (in flight + reported queue) / workers among those whose queue is short; refuses when all are full."""

    refusal = "shed"

    def __init__(self, parameters: Parameters) -> None:
        self._short_per_worker = parameters.short_queue_per_worker
        self._turn = Turn()

    def choose(self, backends: Sequence[Backend], now_s: float) -> Backend | None:
        """See `Strategy`."""
        short = [backend for backend in backends if backend.queue < self._short_per_worker * backend.workers]
        return self._turn.least(short, _pressure) if short else None


def _pressure(backend: Backend) -> float:
    return (backend.in_flight + min(backend.reported_queue, backend.in_flight)) / backend.workers


STRATEGIES: Mapping[str, Callable[[Parameters], Strategy]] = {
    "least_loaded": LeastLoaded,
    "fastest_response": FastestResponse,
    "round_robin": RoundRobin,
    "weighted_capacity": WeightedCapacity,
    "circuit_breaker": CircuitBreaker,
    "backpressure": Backpressure,
}
"""Action to strategy."""

DEFAULT_ACTION = "round_robin"
"""What a service does until somebody asks for something else."""


def make_strategies(parameters: Parameters) -> dict[str, Strategy]:
    """One strategy per action, for one service, in the order of `ACTIONS`."""
    return {action: STRATEGIES[action](parameters) for action in ACTIONS}

"""What a balancer knows about one instance: the state that all six strategies share."""

import math
from bisect import bisect_left

from sandbox.breaker import Breaker
from sandbox.gauges import FadingCount
from sandbox.instance import Instance
from sandbox.parameters import Parameters

LATENCY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histogram's buckets, in seconds; the last bucket has none."""


class Backend:
    """One instance as seen from the balancer. The strategies read it; only the balancer and they write it."""

    __slots__ = (
        "_decay_s",
        "breaker",
        "capacity",
        "codes",
        "errors_total",
        "failed_checks",
        "healthy",
        "histogram",
        "in_flight",
        "index",
        "instance",
        "latency_sum_s",
        "name",
        "peak_at_s",
        "peak_ewma_s",
        "recent_errors",
        "recent_latency_s",
        "recent_total",
        "reported_queue",
        "requests_total",
        "seen_s",
        "turn_weight",
        "workers",
    )

    def __init__(self, index: int, instance: Instance, capacity: float, parameters: Parameters) -> None:
        self.index = index
        self.name = instance.name
        self.instance = instance
        self.capacity = capacity  # declared, relative to the other instances of the service
        self.workers = instance.workers  # declared
        self.healthy = True  # by the active health check
        self.failed_checks = 0
        self.in_flight = 0  # sent and not yet answered, given up or cancelled
        self.reported_queue = 0  # as the last answer said
        self.peak_ewma_s: float | None = None  # None until the first answer
        self.peak_at_s = 0.0
        self.seen_s = float("-inf")  # last time it was chosen or answered
        self.turn_weight = 0.0  # of smooth weighted round robin
        self.breaker = Breaker(parameters)
        self.codes: dict[tuple[str, int], int] = {}  # (action, code): answers
        self.histogram = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.latency_sum_s = 0.0
        self.requests_total = 0
        self.errors_total = 0
        self.recent_total = FadingCount(parameters.rate_half_life_s)
        self.recent_errors = FadingCount(parameters.rate_half_life_s)
        self.recent_latency_s = FadingCount(parameters.rate_half_life_s)
        self._decay_s = parameters.peak_ewma_decay_s

    @property
    def queue(self) -> int:
        """Requests of ours that wait there, at least: as reported, as far as they can still be there, and whatever
        is in flight beyond the workers. A queue that was reported once cannot outlive the requests in it."""
        return max(min(self.reported_queue, self.in_flight), self.in_flight - self.workers)

    @property
    def peak_cost_s(self) -> float:
        """Peak-EWMA latency x (in flight + 1); an instance that never answered is expected to be slow while asked."""
        if self.peak_ewma_s is None:
            return math.inf if self.in_flight else 0.0
        return self.peak_ewma_s * (self.in_flight + 1)

    def observe_latency(self, now_s: float, latency_s: float) -> None:
        """An answer after `latency_s`: a peak counts at once, everything lower sinks in with time (Finagle's rule)."""
        if self.peak_ewma_s is None or latency_s >= self.peak_ewma_s:
            self.peak_ewma_s = latency_s
        else:
            kept = math.exp(-(now_s - self.peak_at_s) / self._decay_s)
            self.peak_ewma_s = self.peak_ewma_s * kept + latency_s * (1.0 - kept)
        self.peak_at_s = now_s
        self.seen_s = now_s

    def count(self, now_s: float, action: str, code: int, latency_s: float) -> None:
        """One answer (or its absence, as a code) for the tables people look at. Client errors are no errors of ours."""
        key = (action, code)
        self.codes[key] = self.codes.get(key, 0) + 1
        self.requests_total += 1
        self.recent_total.add(now_s, 1.0)
        self.recent_latency_s.add(now_s, latency_s)
        self.histogram[bisect_left(LATENCY_BOUNDS_S, latency_s)] += 1
        self.latency_sum_s += latency_s
        if code >= 500:
            self.errors_total += 1
            self.recent_errors.add(now_s, 1.0)

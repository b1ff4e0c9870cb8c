"""Every number of the model, once, each with its reason. Times are *nominal* seconds: `scaled` divides them.

The numbers are those of ordinary services, taken from public defaults where there are any. They are fixed: no option
turns a single one, so that nobody tunes the world until a strategy wins.
"""

from dataclasses import dataclass, fields, replace

MAX_DYNAMICS_SCALE = 10.0
"""Service times have a floor of 5 ms (timers are not finer), which a 50 ms service meets at scale 10."""

CAPACITY_WEIGHTS = (2, 1, 1)
"""Declared capacity of the three instances of a service: one stands on a node twice as large.

The mildest whole-number difference. Round robin loads the small ones with 4/3 of the mean utilization: 0.67 where the
target is 0.5 (still 100 % success), 1.13 in the peak where it is 0.85. At 2:2:1 it would be 5/3, at 3:2:1 twice.
"""


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameter table. `_s` is nominal seconds; shares, rates and factors have no unit."""

    # Demand of one request: log-normal, its 99th percentile is four times the median, as in web services.
    demand_sigma: float = 0.6
    # Part of the demand that is computing; the rest waits for a database or disk and takes no CPU.
    cpu_share: float = 0.6
    # A failing handler raises early: a tenth of the computing and no waiting.
    failed_share: float = 0.1

    # Waiting places per worker, beyond which an instance refuses (503): 32 x 50 ms = 1.6 s, about the queue timeout.
    queue_per_worker: int = 32
    # An instance gives up on what waited longer; the shopper has other things to do.
    queue_timeout_s: float = 2.0
    # The balancer's timeout: below the shopper's own 10 s, so that the balancer can say what went wrong.
    request_timeout_s: float = 8.0
    # A hanging handler holds its worker this long (the timeout of the dependency it waits for).
    hang_s: float = 10.0

    # Antagonists: other tenants of the node, a quarter of the time, taking a fifth to three fifths of the CPU
    # (the picture of Prequal, section 2: bursts of seconds to minutes that the service cannot influence).
    antagonist_every_s: float = 60.0
    antagonist_for_s: float = 20.0
    antagonist_share_low: float = 0.2
    antagonist_share_high: float = 0.6

    # Stop-the-world pauses of a garbage collector: median 80 ms, 99th percentile about 400 ms, twice a minute.
    pause_every_s: float = 30.0
    pause_median_s: float = 0.08
    pause_sigma: float = 0.7

    # Incidents: a bad deployment, a lost connection pool. Every 20 minutes and instance, for about half a minute.
    incident_every_s: float = 1200.0
    incident_for_s: float = 30.0
    incident_error_rate: float = 0.5
    incident_latency_factor: float = 4.0

    # A restarted process is cold: three times the computing at first, falling to normal over half a minute.
    restart_down_s: float = 5.0
    slow_start_s: float = 30.0
    slow_start_factor: float = 3.0

    # Gauges: CPU over the last second; health and rates remember with a half-life of five.
    gauge_window_s: float = 1.0
    rate_half_life_s: float = 5.0

    # Active health checks of the balancer: every 2 s, out after two failures, in after one success (Kubernetes-like).
    health_check_every_s: float = 2.0
    health_check_failures: int = 2

    # fastest_response: peak EWMA with Finagle's decay of 10 s; an instance not seen for 1 s gets one probe.
    peak_ewma_decay_s: float = 10.0
    probe_after_s: float = 1.0

    # circuit_breaker: five failures in a row (Envoy's default) or half of at least 20 recent requests (Resilience4j's
    # default rate); open for 10 s, doubling up to 80 s, then one probe at a time and closed after three good ones.
    breaker_consecutive: int = 5
    breaker_error_rate: float = 0.5
    breaker_min_requests: float = 20.0
    breaker_window_half_life_s: float = 5.0
    breaker_open_s: float = 10.0
    breaker_open_max_s: float = 80.0
    breaker_probes: int = 3
    # Retries: every request earns a fifth of one (Envoy's and Finagle's 20 %), at most ten saved; one instance once.
    retry_earn: float = 0.2
    retry_saved_max: float = 10.0

    # backpressure: a queue is short below 8 waiting per worker (8 x 50 ms = 0.4 s), a quarter of the limit.
    short_queue_per_worker: int = 8
    # What a shed client is told, in real seconds: the header knows whole seconds only.
    retry_after: int = 1

    # Stock: a delivery fills the shelf again a while after half of it is sold.
    stock_units: int = 10_000
    restock_below_units: int = 5_000
    restock_delay_s: float = 5.0

    # Weather is antagonists, pauses and incidents together; a healthy sandbox has none.
    weather: bool = True

    def scaled(self, time_scale: float) -> "Parameters":
        """The same world `min(time_scale, 10)` times as fast: all times divided, everything else kept."""
        divisor = dynamics_scale(time_scale)
        times = {field.name: getattr(self, field.name) / divisor for field in fields(self) if field.name.endswith("_s")}
        return replace(self, **times)


def dynamics_scale(time_scale: float) -> float:
    """What the times of the model are divided by at a time scale: the scale itself, at most 10."""
    if not 0.0 < time_scale < float("inf"):
        raise ValueError(f"time scale must be a positive number, not {time_scale}")
    return min(time_scale, MAX_DYNAMICS_SCALE)

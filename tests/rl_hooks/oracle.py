"""Observation and rewards again, slowly and in plain Python, straight from their definitions."""

import math
from typing import Any

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.observation import THRESHOLDS
from rl_hooks.run_reader import Run

NAN = math.nan


def quantile(values: list[float], level: float) -> float:
    """Linear between the two neighbouring order statistics."""
    ordered = sorted(values)
    rank = (len(ordered) - 1) * level
    low = int(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (rank - low) * (ordered[high] - ordered[low])


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else NAN


class Oracle:
    """Looks at all facts of a run for every single question."""

    def __init__(self, run: Run, window_ns: int, interval_ns: int, timeout_ns: int = 0) -> None:
        self.window_ns = window_ns
        self.interval_ns = interval_ns
        names = ("service", "start_ns", "duration_us", "ok")
        self.requests = [dict(zip(names, row, strict=True)) for row in _plain(run.requests, names)]
        for request in self.requests:
            request["end_ns"] = request["start_ns"] + 1000 * request["duration_us"]
        self.unknown = [
            (service, start_ns, start_ns + timeout_ns)
            for service, start_ns in _plain(run.in_flight, ("service", "start_ns"))
        ]
        gauges = ("service", "t_ns", "received_ns", "cpu", "memory", "health", "queue_depth", "in_flight")
        self.samples = [dict(zip(gauges, row, strict=True)) for row in _plain(run.samples, gauges)]
        facts = ("service", "t_ns", "action", "actuated")
        self.decisions = [dict(zip(facts, row, strict=True)) for row in _plain(run.decisions, facts)]
        self.decisions.sort(key=lambda decision: decision["t_ns"])

    def observe(self, t_ns: int, service: int) -> dict[str, float]:
        seen: dict[str, float] = {}
        for prefix, length_ns in (
            ("", self.window_ns),
            ("last5_", 5 * self.interval_ns),
            ("last1_", self.interval_ns),
        ):
            ended = self._ended(t_ns, length_ns, {service})
            seen[f"{prefix}response_time_mean_ms"] = mean([request["duration_us"] / 1000 for request in ended])
            seen[f"{prefix}error_rate"] = mean([float(not request["ok"]) for request in ended])
            seen[f"{prefix}request_rate_rps"] = len(ended) / (length_ns / 1e9)
        times_ms = [request["duration_us"] / 1000 for request in self._ended(t_ns, self.window_ns, {service})]
        for name, level in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            seen[f"response_time_{name}_ms"] = quantile(times_ms, level) if times_ms else NAN
        seen["in_flight"] = self._in_flight(t_ns, {service})
        seen.update(self._gauges(t_ns, service))
        seen.update(self._previous(t_ns, service))
        pattern = self._pattern(t_ns)
        seen.update(
            {f"pattern_{name}": float(name == pattern) for name in ("idle", "steady", "rising", "falling", "burst")}
        )
        others = set(range(len(SERVICES))) - {service}
        ended = self._ended(t_ns, self.window_ns, others)
        seen["others_request_rate_rps"] = len(ended) / (self.window_ns / 1e9)
        seen["others_error_rate"] = mean([float(not request["ok"]) for request in ended])
        seen["others_in_flight"] = self._in_flight(t_ns, others)
        seen["others_queue_sum"] = sum(self._gauges(t_ns, other)["queue_sum"] for other in others)
        seen.update({f"service_{name}": float(index == service) for index, name in enumerate(SERVICES)})
        return seen

    def _ended(self, t_ns: int, length_ns: int, services: set[int]) -> list[dict[str, Any]]:
        return [
            request
            for request in self.requests
            if request["service"] in services and t_ns - length_ns <= request["end_ns"] < t_ns
        ]

    def _in_flight(self, t_ns: int, services: set[int]) -> float:
        known = [request for request in self.requests if request["start_ns"] < t_ns <= request["end_ns"]]
        unknown = [service for service, start_ns, given_up_ns in self.unknown if start_ns < t_ns <= given_up_ns]
        return float(sum(request["service"] in services for request in known) + sum(s in services for s in unknown))

    def _gauges(self, t_ns: int, service: int) -> dict[str, float]:
        known = [
            sample
            for sample in self.samples
            if sample["service"] == service and sample["t_ns"] <= t_ns and sample["received_ns"] <= t_ns
        ]
        newest = max((sample["t_ns"] for sample in known), default=0)
        last = [sample for sample in known if sample["t_ns"] == newest and newest >= t_ns - self.window_ns]

        def values(name: str) -> list[float]:
            return [sample[name] for sample in last if not math.isnan(sample[name])]

        def extreme(choose: Any, name: str) -> float:
            return float(choose(values(name), default=NAN))

        queue = values("queue_depth")
        return {
            "cpu_mean": mean(values("cpu")),
            "cpu_max": extreme(max, "cpu"),
            "memory_mean": mean(values("memory")),
            "memory_max": extreme(max, "memory"),
            "queue_sum": sum(queue) if last and len(queue) == len(last) else NAN,
            "queue_max": extreme(max, "queue_depth"),
            "health_min": extreme(min, "health"),
            "health_mean": mean(values("health")),
            "in_flight_spread": extreme(max, "in_flight") - extreme(min, "in_flight"),
        }

    def _previous(self, t_ns: int, service: int) -> dict[str, float]:
        mine = [decision for decision in self.decisions if decision["service"] == service and decision["t_ns"] < t_ns]
        actions = [decision["action"] if decision["actuated"] else None for decision in mine]
        if not actions or actions[-1] is None:
            return {**{f"previous_action_{name}": NAN for name in ACTIONS}, "previous_action_held": NAN}
        held = 0
        while held < len(actions) and actions[-1 - held] == actions[-1]:
            held += 1
        one_hot = {f"previous_action_{name}": float(index == actions[-1]) for index, name in enumerate(ACTIONS)}
        return {**one_hot, "previous_action_held": float(held)}

    def _pattern(self, t_ns: int) -> str:
        services = set(range(len(SERVICES)))
        recent_ns = 5 * self.interval_ns if 10 * self.interval_ns <= self.window_ns else self.interval_ns
        recent = len(self._ended(t_ns, recent_ns, services))
        in_window = len(self._ended(t_ns, self.window_ns, services))
        expected = in_window * recent_ns / self.window_ns
        if in_window < THRESHOLDS.idle_below_requests:
            return "idle"
        if abs(recent - expected) <= THRESHOLDS.sigmas * math.sqrt(expected):
            return "steady"
        ratio = recent / expected
        if ratio >= THRESHOLDS.burst_ratio:
            return "burst"
        if ratio >= THRESHOLDS.rising_ratio:
            return "rising"
        return "falling" if ratio <= THRESHOLDS.falling_ratio else "steady"


def reward_components(
    cohort: list[dict[str, Any]], slo_ms: float, expected: float, capacity: dict[int, float]
) -> dict[str, float]:
    """The five components of a cohort; `capacity` has the available instances, NaN for an unknown capacity."""
    if not cohort:
        return dict.fromkeys(("response_time", "error_rate", "throughput", "load_balance", "user_satisfaction"), NAN)
    times = [request["duration_us"] / 1000 if request["ok"] else 2 * slo_ms for request in cohort]
    ok = [request for request in cohort if request["ok"]]
    apdex = [
        1.0 if time <= slo_ms else 0.5 if time <= 4 * slo_ms else 0.0
        for time in (request["duration_us"] / 1000 for request in ok)
    ]
    capacity = {name: 1.0 if math.isnan(value) or value <= 0 else value for name, value in capacity.items()}
    served = [request["instance_ref"] for request in cohort if request["instance_ref"]]
    for name in served:
        capacity.setdefault(name, 1.0)
    loads = [served.count(name) / value for name, value in capacity.items()]
    fair = len(served) >= len(loads) > 0
    return {
        "response_time": 1 - min(mean(times) / slo_ms, 2) / 2,
        "error_rate": 1 - (len(cohort) - len(ok)) / len(cohort),
        "throughput": min(1.0, len(ok) / expected) if expected else 1.0,
        "load_balance": sum(loads) ** 2 / (len(loads) * sum(load**2 for load in loads)) if fair else NAN,
        "user_satisfaction": sum(apdex) / len(cohort),
    }


def _plain(table: Any, names: tuple[str, ...]) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].tolist() for name in names), strict=True))

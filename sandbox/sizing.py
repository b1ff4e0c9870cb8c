"""How large the services are: from the expected load to workers and service times.

*Utilization* of a service is the part of its workers' time that requests need: calls per second x mean service time /
workers, with the shop's own calls between services included, and without what weather and faults add. The busiest
service is brought to the target in whole workers first and then exactly by its service time; all other service times
follow in proportion, with as many workers as they need to stay at or below the target.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from rl_hooks.decision import SERVICES
from sandbox.parameters import CAPACITY_WEIGHTS, dynamics_scale

SERVICE_TIME_MS: Mapping[str, float] = {
    "user-service": 40.0,
    "inventory-service": 50.0,
    "cart-service": 60.0,
    "order-service": 100.0,
    "payment-service": 120.0,
}
"""Nominal mean service time (CPU and I/O) of one request, in milliseconds at time scale 1."""

MIN_SERVICE_TIME_MS = 5.0
"""Shorter ones are not honest: timers of an event loop are good to about a millisecond."""

MAX_STRETCH = 3.0
"""Service times are at most three times the table's. At low rates even the smallest instances would need longer ones to
be busy, and then no answer would be within its objective (five times the table); utilization stays below instead."""

LINES_PER_ORDER = 2.0
"""Products in a cart when it is ordered, on average; only for the load that orders put on inventory."""

FAN_OUT: Mapping[str, Mapping[str, float]] = {
    "cart-service POST /api/cart/items": {"inventory-service": 2.0},
    "order-service POST /api/orders": {
        "cart-service": 2.0,
        "inventory-service": LINES_PER_ORDER,
        "payment-service": 1.0,
    },
}
"""Calls that a call makes to other services; `shop` makes exactly these (a test counts them)."""

DEFAULT_SERVICE_RPS: Mapping[str, float] = {
    "user-service": 6.0,
    "inventory-service": 60.0,
    "cart-service": 36.0,
    "order-service": 4.0,
    "payment-service": 2.0,
}
"""Without an expectation: about 100 calls per second with fan-out, as some 300 shoppers at medium intensity make, times
min(time scale, 10). It gives instances of one or a few workers with service times close to the table."""


class ExpectError(ValueError):
    """An expectation that cannot be read; `problems` are all that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class ServiceSize:
    """One service. Times are real."""

    service: str
    workers: tuple[int, ...]  # per instance
    mean_service_s: float
    expected_rps: float  # with fan-out
    at_floor: bool  # the service time would be shorter, were it not for the floor

    @property
    def utilization(self) -> float:
        """Expected; see the module."""
        return self.expected_rps * self.mean_service_s / sum(self.workers)


@dataclass(frozen=True, slots=True)
class Sizing:
    """All services, in the order of `SERVICES`."""

    services: tuple[ServiceSize, ...]
    target: float  # utilization that the busiest service should have
    stretch: float  # of the table's service times

    def describe(self) -> list[str]:
        """Lines that a person reads at the start."""
        lines = ["service            calls/s  workers    mean service  utilization"]
        for size in self.services:
            workers = "+".join(str(count) for count in size.workers)
            floor = "  (floor of 5 ms)" if size.at_floor else ""
            lines.append(
                f"{size.service:18} {size.expected_rps:7.1f}  {workers:9}  {size.mean_service_s * 1000:9.2f} ms"
                f"  {size.utilization:11.2f}{floor}"
            )
        top = max(size.utilization for size in self.services)
        if top < 0.98 * self.target:
            lines.append(
                f"utilization {self.target:g} is not reached: the expected load keeps the smallest instances at"
                f" {top:.2f}, and service times are at most {MAX_STRETCH:g} times the table's"
            )
        return lines


def read_expectation(text: str) -> dict[str, float]:
    """Calls per second of real time by endpoint key (`cart-service POST /api/cart/items`), from JSON."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExpectError([f"not JSON: {error}"]) from error
    return check_expectation(given)


def check_expectation(given: object) -> dict[str, float]:
    """The same from a value; raises ExpectError with all problems."""
    if not isinstance(given, dict) or not given:
        raise ExpectError(['must be a JSON object like {"cart-service POST /api/cart/items": 12.3}'])
    problems = []
    for key, rate in given.items():
        parts = key.split(" ")
        if len(parts) != 3 or parts[0] not in SERVICES or not parts[2].startswith("/"):
            problems.append(f'{key[:80]!r}: must be "<service> <METHOD> </path>" with one of {", ".join(SERVICES)}')
        is_number = isinstance(rate, int | float) and not isinstance(rate, bool)
        if not is_number or not 0.0 <= rate < 1e6:
            problems.append(f"{key[:80]!r}: must be calls per second, from 0 to 1000000")
    if not problems and not any(given.values()):
        problems.append("all rates are 0: there is nothing to size for")
    if problems:
        raise ExpectError(problems)
    return {key: float(rate) for key, rate in given.items()}


def service_rates(endpoint_rps: Mapping[str, float]) -> dict[str, float]:
    """Calls per second and service, with the calls between services.

    >>> rates = service_rates({"cart-service POST /api/cart/items": 10.0})
    >>> rates["cart-service"], rates["inventory-service"]
    (10.0, 20.0)
    """
    rates = dict.fromkeys(SERVICES, 0.0)
    for endpoint, rps in endpoint_rps.items():
        rates[endpoint.split(" ")[0]] += rps
        for service, calls in FAN_OUT.get(endpoint, {}).items():
            rates[service] += calls * rps
    return rates


def size(expected: Mapping[str, float] | None, time_scale: float, target: float) -> Sizing:
    """Sizes for a load. `expected`: calls/s by endpoint key, without fan-out; None: the modest default."""
    scale = dynamics_scale(time_scale)
    if expected is None:
        rates = {service: rps * scale for service, rps in DEFAULT_SERVICE_RPS.items()}
    else:
        rates = service_rates(expected)
    table_s = {service: SERVICE_TIME_MS[service] / 1000.0 / scale for service in SERVICES}
    busiest = max(SERVICES, key=lambda service: rates[service] * table_s[service])
    stretch = _stretch(rates[busiest], table_s[busiest], target)
    floor_s = MIN_SERVICE_TIME_MS / 1000.0
    sizes = []
    for service in SERVICES:
        wanted_s = stretch * table_s[service]
        mean_s = max(floor_s, wanted_s)
        units = max(1, math.ceil(rates[service] * mean_s / (target * _UNIT) - 1e-9))
        workers = tuple(units * weight for weight in CAPACITY_WEIGHTS)
        sizes.append(ServiceSize(service, workers, mean_s, rates[service], at_floor=wanted_s < floor_s * (1 - 1e-9)))
    return Sizing(tuple(sizes), target, stretch)


_UNIT = sum(CAPACITY_WEIGHTS)  # workers of the smallest service


def _stretch(rps: float, table_s: float, target: float) -> float:
    """The factor on the table that brings the busiest service to the target with a whole number of units."""
    needed = rps * table_s / (target * _UNIT)
    units = max(1, round(needed))
    if units * target * _UNIT / rps < MIN_SERVICE_TIME_MS / 1000.0:
        units = math.ceil(rps * MIN_SERVICE_TIME_MS / 1000.0 / (target * _UNIT))
    return min(MAX_STRETCH, units / needed)

"""Light traffic while a system rests between two scenarios: a steady rate of reading requests by one shopper.

Nothing of it is recorded as data. It keeps caches and connections as warm as they are on an ordinary day, and its
response times say whether the system has come to rest. Requests leave on time whether or not earlier ones are answered.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from random import Random

from profiles import shop
from profiles.reader import Reader
from scenario.model import Scenario

AT_ONCE = 16  # requests in flight at most; what is due beyond them is not sent, and counted
POLL_S = 0.1
REFERENCE = "background"


@dataclass
class Rest:
    """What came of it."""

    duration_s: float = 0.0  # real
    sent: int = 0
    ok: int = 0
    not_sent: int = 0  # due while AT_ONCE were in flight
    latency_ms_sum: float = 0.0  # of all that were sent

    @property
    def mean_ms(self) -> float | None:
        return self.latency_ms_sum / self.sent if self.sent else None


def rest(
    host: str, scenario: Scenario, duration_s: float, rps: float, timeout_s: float, stopped: Callable[[], bool]
) -> Rest:
    """Rest for `duration_s` with `rps` requests per second (both real), or until `stopped()`; what came of it."""
    result, reader = Rest(), Reader(host, scenario.name, REFERENCE, timeout_s)
    began = time.monotonic()

    def passed() -> float:
        return time.monotonic() - began

    if rps > 0:
        reader.sign_in()
    steps, in_flight = _steps(scenario), list[Future[tuple[bool, float]]]()

    def collect(done: Iterable[Future[tuple[bool, float]]]) -> None:
        for future in done:
            ok, latency_ms = future.result()
            result.ok += ok
            result.latency_ms_sum += latency_ms

    with ThreadPoolExecutor(AT_ONCE) as pool:
        while passed() < duration_s and not stopped():
            done = [future for future in in_flight if future.done()]
            collect(done)
            in_flight = [future for future in in_flight if future not in done]
            due = int(passed() * rps) + 1 if rps > 0 else 0
            while result.sent + result.not_sent < due:
                if len(in_flight) >= AT_ONCE:
                    result.not_sent += 1
                else:
                    result.sent += 1
                    in_flight.append(pool.submit(_send, reader, next(steps)))
            time.sleep(max(0.0, min(POLL_S, 1 / rps if rps > 0 else POLL_S, duration_s - passed())))
    collect(in_flight)
    result.duration_s = passed()
    return result


def _steps(scenario: Scenario) -> Iterator[shop.Step]:
    """Looking around: lists, searches and products, in an order that is always the same."""
    draws = Random(REFERENCE)
    for number in count():
        product = draws.choice(scenario.catalogue)
        kinds = (shop.list_category(product.category), shop.open_product(product.sku), shop.mini_cart())
        yield kinds[number % len(kinds)]


def _send(reader: Reader, step: shop.Step) -> tuple[bool, float]:
    """(ok, latency in ms) of one request."""
    began = time.monotonic()
    ok = reader.ask(step).ok
    return ok, (time.monotonic() - began) * 1000

"""Whether the load generator keeps up: the CPU of a process and how late its event loop is.

A generator at its limit measures itself instead of the system. Every few seconds one event of kind `generator` says how
it was since the last one.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import gevent

from rl_hooks.run_folder import RunWriter

PROBE_S = 0.05  # real seconds between two looks at the loop
SAY_EVERY_S = 5.0


@dataclass
class Load:
    """What was seen since the last event. Times in seconds."""

    wall_s: float
    cpu_s: float
    lags_s: list[float] = field(default_factory=list)

    def summary(self, wall_s: float, cpu_s: float) -> dict[str, float]:
        """CPU as a share of one core (a process of users uses one), and the 99th percentile of the lags.

        >>> load = Load(wall_s=10.0, cpu_s=2.0, lags_s=[0.001] * 98 + [0.02, 0.5])
        >>> load.summary(wall_s=15.0, cpu_s=6.0)
        {'cpu': 0.8, 'lag_p99_s': 0.02}
        """
        cpu = (cpu_s - self.cpu_s) / max(wall_s - self.wall_s, 1e-9)
        ordered = sorted(self.lags_s)
        lag_s = ordered[max(0, -(-99 * len(ordered) // 100) - 1)] if ordered else 0.0
        return {"cpu": round(min(cpu, 1.0), 4), "lag_p99_s": round(lag_s, 6)}


def watch(writer: RunWriter, on_fault: Callable[[str], None]) -> None:
    """Run until killed; ends with `on_fault(message)` when an event cannot be written."""
    load = Load(time.monotonic(), time.process_time())
    while True:
        before = time.monotonic()
        gevent.sleep(PROBE_S)
        now = time.monotonic()
        load.lags_s.append(max(0.0, now - before - PROBE_S))
        if now - load.wall_s < SAY_EVERY_S:
            continue
        cpu_s = time.process_time()
        try:
            writer.event("generator", process=writer.incarnation, **load.summary(now, cpu_s))
        except OSError as error:
            on_fault(f"{writer.path}: an event could not be written ({error.strerror})")
            return
        load = Load(now, cpu_s)

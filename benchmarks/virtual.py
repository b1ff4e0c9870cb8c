"""How fast virtual time is: events per second, and how many times as fast as real time.

    python -m benchmarks.virtual

Records the 180 minutes of the comprehensive scenario with all users, on one core. The target is under 60 s of CPU time,
so that what else the machine does plays no part.
"""

import sys
import tempfile
import time
from pathlib import Path

from rl_hooks.policies.builtin import Uniform
from sandbox.virtual.recording import record
from sandbox.virtual.simulation import Conditions
from scenario.load import find_file, load_file
from scenario.plan import make_plan

TARGET_S = 60.0


def main() -> int:
    file = load_file(find_file("comprehensive_rl_training_config.yaml"))
    plan = make_plan(file.scenario(None), 1)
    with tempfile.TemporaryDirectory() as folder:
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        totals = record(plan, Path(folder) / "run", Uniform(), Conditions(), {"config_path": "", "config_sha256": ""})
        took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    print(
        f"{totals.requests} requests, {totals.events} events, {totals.decisions} decisions, {totals.duration_s:.0f} s"
    )
    print(f"{took_s:.1f} s, {cpu_s:.1f} s of CPU: {totals.events / cpu_s:.0f} events per second of CPU")
    print(f"virtual / real time: {totals.duration_s / took_s:.0f}")
    print(f"CPU time / target of {TARGET_S:g} s: {cpu_s / TARGET_S:.2f}")
    return 0 if cpu_s <= TARGET_S else 1


if __name__ == "__main__":
    sys.exit(main())

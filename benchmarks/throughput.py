"""Sandbox, load and recording together on this machine: requests per second at which everything still succeeds.

    python -m benchmarks.throughput [--time-scale 90] [--user-scale 0.35]

Runs the comprehensive scenario, strongly compressed, on a sandbox started with --healthy, and reads the run folder.
The target is 1,000 requests/s in the busiest phase with 100 % success on two cores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from rl_hooks.run_reader import Run, read_run
from scenario.plan import Plan

ROOT = Path(__file__).resolve().parents[1]
TARGET_RPS = 1000.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__.splitlines()[0])
    parser.add_argument("--time-scale", default="90")
    parser.add_argument("--user-scale", default="0.35")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "rl_training_executor.py"), "--mode", "custom", "--healthy"]
        command += ["--config", "comprehensive_rl_training_config.yaml", "--runs", folder, "--logs", f"{folder}/logs"]
        command += ["--time-scale", options.time_scale, "--user-scale", options.user_scale]
        before = os.times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        after = os.times()
        (run_folder,) = Path(folder).glob("comprehensive*")
        cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
        return _report(read_run(run_folder), cpu_s)  # requests are read when they are asked for


def _report(run: Run, cpu_s: float) -> int:
    plan = Plan.from_json(run.manifest["plan"])
    started_ns = run.manifest["started_unix_ns"]
    sent_s = (run.requests["start_ns"] - started_ns) / 1e9
    failed = int((run.requests["ok"] == 0).sum())
    print(f"{len(run.requests)} requests, {failed} failed, {1e6 * cpu_s / len(run.requests):.0f} us CPU a request")
    print("phase                    planned/s  measured/s  ratio  p50 ms  p99 ms")
    best = 0.0
    for phase in plan.phases:
        begin_s, end_s = phase.start_s + plan.ramp_s + 2, phase.end_s
        rows = run.requests[(sent_s >= begin_s) & (sent_s < end_s)]
        measured, planned = len(rows) / (end_s - begin_s), sum(plan.expected_rps(phase).values())
        p50, p99 = np.percentile(rows["duration_us"], [50, 99]) / 1000
        best = max(best, measured)
        print(f"{phase.name:<24} {planned:9.0f} {measured:11.0f} {measured / planned:6.2f} {p50:7.1f} {p99:7.1f}")
    print(f"busiest phase / target of {TARGET_RPS:.0f}: {best / TARGET_RPS:.2f}, failed {failed}")
    return 0 if best >= TARGET_RPS and failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())

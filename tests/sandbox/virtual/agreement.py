"""Whether a live run and runs in virtual time are draws from one distribution, by numbers of every service.

Both follow the same plan (the same sessions, products and user actions) in a world of the same seed, so every instance
draws the same demands in the order of arrival; what differs is when requests meet. The reference are NETWORKS runs in
virtual time that differ by nothing but a fraction of a millisecond of network time, after which they meet differently
too. Each number of the live run may differ from their mean by SIGMAS standard deviations of one more run, and by a
tolerance beside it for what a real machine adds: timers, sockets and a busy CPU.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.policies.builtin import Fixed
from rl_hooks.run_reader import Run, read_run
from sandbox.sizing import Sizing
from sandbox.virtual.recording import record
from sandbox.virtual.simulation import Conditions
from scenario.load import load_file
from scenario.plan import Plan, make_plan
from tests.sandbox.virtual.runs import CONFIG

SCENARIO_FILE = Path(__file__).parent / "agreement.yaml"
PLAN_SEED, UTILIZATION = 5, 0.6
FROM_S, TO_S = 15.0, 115.0  # without the ramp and the end
WORLD_SEED = 77
NETWORKS = [0.0010, 0.0012, 0.0014, 0.0016, 0.0018, 0.0020, 0.0022, 0.0024, 0.0026, 0.0028]
SIGMAS = 4.0
TOLERANCE_SHARE = 0.02
TOLERANCE = {"mean_ms": 2.0, "p50_ms": 2.0, "p95_ms": 5.0, "error_rate": 0.005, "in_flight": 0.05, "queue": 0.05}
"""Beside the share: what a number may be off anyway, in its own unit."""

Numbers = Mapping[tuple[str, str], float]  # (service, what) -> value


@dataclass(frozen=True)
class Slower(Conditions):
    """A world in which one service's requests take longer than the model says."""

    service: str = ""
    factor: float = 1.2

    def sizing(self, plan: Plan) -> Sizing:
        right = super().sizing(plan)
        wrong = tuple(
            replace(size, mean_service_s=size.mean_service_s * self.factor) if size.service == self.service else size
            for size in right.services
        )
        return replace(right, services=wrong)


def plan() -> Plan:
    return make_plan(load_file(SCENARIO_FILE).scenario(None), PLAN_SEED)


def numbers(run: Run) -> Numbers:
    """What is compared: of the requests sent, and of the samples taken, in the steady part of a run."""
    start_ns = next(int(e["t_ns"] - e["run_time_s"] * 1e9) for e in run.events if "run_time_s" in e)
    found: dict[tuple[str, str], float] = {}
    sent_s = (run.requests["start_ns"] - start_ns) / 1e9
    sampled_s = (run.samples["t_ns"] - start_ns) / 1e9
    for index, service in enumerate(SERVICES):
        rows = run.requests[(run.requests["service"] == index) & (sent_s >= FROM_S) & (sent_s < TO_S)]
        samples = run.samples[(run.samples["service"] == index) & (sampled_s >= FROM_S) & (sampled_s < TO_S)]
        took_ms = rows["duration_us"] / 1000
        instances = len(np.unique(samples["instance_ref"]))
        found[service, "mean_ms"] = float(took_ms.mean())
        found[service, "p50_ms"], found[service, "p95_ms"] = np.quantile(took_ms, [0.5, 0.95]).tolist()
        found[service, "error_rate"] = float(1 - rows["ok"].mean())
        found[service, "in_flight"] = float(samples["in_flight"].mean()) * instances
        found[service, "queue"] = float(samples["queue_depth"].mean()) * instances
    return found


def virtual_numbers(folder: Path, action: str, conditions: Conditions) -> Numbers:
    record(plan(), folder, Fixed(action), conditions, CONFIG)
    return numbers(read_run(folder))


def reference(folder: Path, action: str) -> list[Numbers]:
    return [
        virtual_numbers(folder / f"{action}-{index}", action, Conditions(True, UTILIZATION, WORLD_SEED, network_s))
        for index, network_s in enumerate(NETWORKS)
    ]


def differences(found: Numbers, expected: list[Numbers]) -> list[str]:
    """Every number of one run that the others do not explain."""
    return [
        f"{service} {what}: {found[service, what]:.4g}, expected {mean:.4g} +- {allowed:.3g}"
        for (service, what), mean, allowed in _allowed(expected)
        if abs(found[service, what] - mean) > allowed
    ]


def pooled(by_action: Mapping[str, Numbers]) -> Numbers:
    """The mean response time of each service over all strategies: the sharpest look at its service time."""
    return {
        (service, "mean_ms"): float(np.mean([by_action[action][service, "mean_ms"] for action in ACTIONS]))
        for service in SERVICES
    }


def _allowed(expected: list[Numbers]) -> Iterable[tuple[tuple[str, str], float, float]]:
    for key in expected[0]:
        values = np.array([one[key] for one in expected])
        mean, spread = float(values.mean()), float(values.std(ddof=1)) * (1 + 1 / len(values)) ** 0.5
        yield key, mean, SIGMAS * spread + TOLERANCE_SHARE * mean + TOLERANCE[key[1]]

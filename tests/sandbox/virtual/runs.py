"""Small scenarios for runs in virtual time."""

from dataclasses import replace
from functools import cache
from pathlib import Path

from rl_hooks.policies.builtin import Uniform
from sandbox.virtual.recording import Totals, record
from sandbox.virtual.simulation import Conditions
from scenario.load import load_file
from scenario.model import Fault, Scenario
from scenario.plan import Plan, make_plan

CONFIGS = Path(__file__).parents[3] / "configs"
CONFIG = {"config_path": "here", "config_sha256": "0" * 64}


@cache
def scenario(*, minutes: float = 2.0, users: int = 30, faults: tuple[Fault, ...] = ()) -> Scenario:
    """Two phases of the comprehensive scenario, the second with fewer users."""
    base = load_file(CONFIGS / "comprehensive_rl_training_config.yaml").scenario(None)
    phases = (
        replace(base.phases[4], start_min=0.0, duration_min=minutes, users=users, faults=faults),
        replace(base.phases[3], start_min=minutes, duration_min=minutes, users=users // 2),
    )
    return replace(base, name="small", phases=phases, ramp_s=5.0)


def plan(seed: int = 1, **changes: object) -> Plan:
    return make_plan(scenario(**changes), seed=seed)  # type: ignore[arg-type]


def run(folder: Path, seed: int = 1, conditions: Conditions | None = None, **changes: object) -> Totals:
    return record(plan(seed, **changes), folder, Uniform(), conditions or Conditions(), CONFIG)

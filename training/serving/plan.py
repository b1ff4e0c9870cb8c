"""The plan of a run that has no script: real traffic comes as it comes, and a policy serves it.

A run folder is exported with its plan (rl_hooks.export asks it for windows, SLOs and reward weights), so serving gets
one too: one phase named `serving`, without shoppers. A plan without shoppers expects no traffic, and the exporter takes
that as "nobody knows": the reward `throughput` is missing there, and the others share its weight.
"""

import math
from typing import Any

from rl_hooks.policy_schema import PolicySchema
from scenario.model import DEFAULTS, PACE, Phase, Scenario
from scenario.plan import Plan, PlanPhase, Segment

NAME = PHASE = "serving"
OPEN_END_S = 10 * 365 * 86_400.0  # serving has no planned end, and a plan has one
_INTENSITY = "variable"


def plan_of_schema(schema: PolicySchema, seed: int, duration_s: float) -> Plan:
    """The plan by what a trained policy was made for. `duration_s` inf: no end."""
    return _plan(
        seed,
        duration_s,
        window_s=schema.window_s,
        decision_interval_s=schema.decision_interval_s,
        episode_s=DEFAULTS["episode_seconds"],
        request_timeout_s=DEFAULTS["request_timeout_seconds"],
        service_slo_ms=schema.slo_ms,
        reward_weights=schema.reward_weights,
    )


def plan_of_scenario(scenario: Scenario, seed: int, duration_s: float) -> Plan:
    """The plan by a scenario's windows, SLOs and reward weights; its phases and shoppers are left out."""
    names = (
        *("window_s", "decision_interval_s", "episode_s", "request_timeout_s", "service_slo_ms"),
        *("reward_weights", "rewards"),
    )
    return _plan(seed, duration_s, **{name: getattr(scenario, name) for name in names})


def _plan(seed: int, duration_s: float, **facts: Any) -> Plan:
    length_s = duration_s if math.isfinite(duration_s) else OPEN_END_S
    scenario = _scenario(length_s, facts)
    pace = PACE[_INTENSITY]
    return Plan(
        scenario=scenario,
        seed=seed,
        time_scale=1.0,
        user_scale=1.0,
        phases=(PlanPhase(0, PHASE, 0.0, length_s, _INTENSITY, pace, 0, 0, {}, {}),),
        segments=(Segment(0, 0, PHASE, 0.0, length_s, 0.0, 0, {}, pace, {}, ()),),
        faults=(),
        without_faults=False,
        duration_s=length_s,
        decision_interval_s=scenario.decision_interval_s,
        decision_interval_asked_s=scenario.decision_interval_s,
        dynamics_scale=1.0,
        compressed=False,
        window_s=scenario.window_s,
        episode_s=scenario.episode_s,
        ramp_s=0.0,
        request_timeout_s=scenario.request_timeout_s,
        retry_delay_s=0.0,
        slo_ms=scenario.service_slo_ms,
        max_users_per_profile={},
        accounts=0,
    )


def _scenario(length_s: float, facts: dict[str, Any]) -> Scenario:
    description = "real traffic, served by a policy"
    phase = Phase(
        name=PHASE,
        description=description,
        start_min=0.0,
        duration_min=length_s / 60,
        intensity=_INTENSITY,
        users=0,
        distribution={},
        weights={},
        service_load_characteristics={},
        expected_service_stress={},
    )
    return Scenario(
        name=NAME,
        description=description,
        phases=(phase,),
        profiles={},
        catalogue=(),
        addresses=(),
        total_users=0,
        max_concurrent_users=0,
        ramp_s=0.0,
        retry_attempts=0,
        retry_delay_s=0.0,
        recovery_pause_min=0.0,
        background_rps=0.0,
        base_url=None,
        defaults=(),
        **facts,
    )

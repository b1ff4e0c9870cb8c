"""How a run stands, as one JSON document. The RL tab of the web UI and `python -m rl_hooks.watch` show the same.

    the leading process's own state --.
                                       >--> Standing --document--> JSON values: what is going on now
    the files of a run folder      --'

Pure: who fills in a `Standing`, and when, is elsewhere. What is not known is None, never zero.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rl_hooks.action_space import ActionSpace
from rl_hooks.decision import SERVICES
from rl_hooks.observation import PATTERNS, features_of
from rl_hooks.reward_so_far import RewardSoFar
from rl_hooks.row import MISSING_U8
from scenario.plan import Plan

HISTORY_POINTS = 240  # a picture of the whole run is not wider on a screen
_SHOWN = {  # in the document -> feature of the observation
    "latency_ms": "response_time_mean_ms",
    "p95_ms": "response_time_p95_ms",
    "error_rate": "error_rate",
    "request_rate_rps": "request_rate_rps",
    "in_flight": "in_flight",
    "cpu": "cpu_mean",
    "queue": "queue_sum",
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was decided for a service at the newest tick."""

    service: int
    action: str | None  # None: the balancer decides by itself
    propensity: float | None  # None: not known
    policy: str
    actuated: bool


class History:
    """Points of a run in order of time, at most HISTORY_POINTS.

    When it is full every second point is dropped, and from then on only every second one is taken: the points are
    always about equally far apart and reach from the start of the run until now.
    """

    def __init__(self) -> None:
        self.points: list[list[float | None]] = []
        self._every = 1
        self._seen = 0

    def note(self, *point: float | None) -> None:
        if self._seen % self._every == 0:
            self.points.append([_finite(value) for value in point])
        self._seen += 1
        if len(self.points) > HISTORY_POINTS:
            self.points = self.points[::2]
            self._every *= 2
            self._seen = (len(self.points) - 1) * self._every + 1


@dataclass(frozen=True)
class Standing:
    """All that is known of a run at one moment."""

    run: str
    state: str  # starting, running, ending, complete, interrupted
    facts: Mapping[str, Any]  # of the manifest
    plan: Plan
    run_time_s: float
    planned: Mapping[str, int]  # users per profile
    running: Mapping[str, int]
    failed: int | None  # requests, of the recorded ones; None: the rows of some process are elsewhere
    rows: int  # requests recorded, over all processes
    rows_lost: int | None  # None: not known before the run has ended
    decisions: int
    skipped: int | None  # decision intervals that were missed; None: not known
    now_ns: int
    sample_ns: int | None  # the time to which the newest metrics refer; None: there are none
    chosen: Sequence[Chosen]
    observation: Any  # float32 (services, features) of the newest decision; None: there is none yet
    trouble: str | None  # what does not work at the moment, or why the run was stopped
    faults: Sequence[str]  # in force
    reward: RewardSoFar
    history: Sequence[Sequence[float | None]]  # run time, planned users, running users, then each service's latency


def document(at: Standing) -> dict[str, Any]:
    """What is going on now, as JSON values."""
    phase = at.plan.phase_at(at.run_time_s)
    return {
        "run": at.run,
        "state": at.state,
        "scenario": at.plan.scenario.name,
        "target": at.facts["target"],
        "setup": _setup(at),
        "run_time_s": round(at.run_time_s, 1),
        "duration_s": at.plan.duration_s,
        "phase": None if phase is None else phase.name,
        "phases": [
            {
                "name": one.name,
                "start_s": one.start_s,
                "end_s": one.end_s,
                "users": one.users,
                "intensity": one.intensity,
            }
            for one in at.plan.phases
        ],
        "planned_users": _planned_users(at.plan),
        "planned_faults": [
            {"text": one.text, "start_s": one.start_s, "end_s": min(one.end_s, at.plan.duration_s)}
            for one in at.plan.faults
        ],
        "faults": list(at.faults),
        "users": [
            {"profile": name, "planned": at.planned.get(name, 0), "running": at.running.get(name, 0)}
            for name in sorted(at.planned.keys() | at.running.keys())
        ],
        "services": _services(at),
        "pattern": _pattern(at),
        "counts": {
            "requests": at.rows,
            "failed": at.failed,
            "rows_lost": at.rows_lost,
            "decisions": at.decisions,
            "skipped": at.skipped,
        },
        "telemetry_age_s": None if at.sample_ns is None else round(max(0.0, (at.now_ns - at.sample_ns) / 1e9), 2),
        "reward": {"mean": at.reward.mean(), "decisions": at.reward.decisions, "without": list(at.reward.without)},
        "trouble": at.trouble,
        "window_s": at.plan.window_s,
        "history": [list(point) for point in at.history],
    }


def latencies_ms(observation: Any, space: ActionSpace) -> list[float | None]:
    """Of each service over the window, for the history."""
    places = _places(space.labels)
    return [_value(observation, service, places["response_time_mean_ms"]) for service in range(len(SERVICES))]


def name_of(space: ActionSpace, service: int, action: int) -> str | None:
    """The name of an action by its number in the rows."""
    return None if action == MISSING_U8 else space.name(service, action)


@functools.cache
def _places(labels: tuple[str, ...]) -> Mapping[str, int]:
    """Where each feature is in an observation whose decisions are made among `labels`."""
    return {feature.name: place for place, feature in enumerate(features_of(labels))}


def _planned_users(plan: Plan) -> list[list[float]]:
    """Corners of the line of planned users over the run: a ramp and a level for every segment."""
    corners: list[list[float]] = []
    before = 0
    for one in plan.segments:
        level_s = one.start_s + min(one.ramp_s, one.duration_s)
        corners += [[one.start_s, before], [level_s, one.users], [one.start_s + one.duration_s, one.users]]
        before = one.users
    return corners


def _setup(at: Standing) -> dict[str, Any]:
    return {
        "seed": at.plan.seed,
        "time_scale": at.plan.time_scale,
        "user_scale": at.plan.user_scale,
        "decision_interval_s": at.plan.decision_interval_s,
        "logging_policy": at.facts["logging_policy"],
        "metrics_source": at.facts["source"],
        "actuator": at.facts["actuator"],
        "fault_injector": at.facts["faults"]["injector"],
        "without_faults": at.plan.without_faults,
        "compressed": at.plan.compressed,
    }


def _services(at: Standing) -> list[dict[str, Any]]:
    chosen = {one.service: one for one in at.chosen}
    places = _places(ActionSpace.of(at.facts).labels)
    services = []
    for index, name in enumerate(SERVICES):
        last = chosen.get(index)
        services.append(
            {
                "service": name,
                **{key: _value(at.observation, index, places[feature]) for key, feature in _SHOWN.items()},
                "slo_ms": at.plan.slo_ms[name],
                "action": last.action if last is not None else None,
                "propensity": _finite(last.propensity) if last is not None else None,
                "policy": last.policy if last is not None else None,
                "actuated": last.actuated if last is not None and last.action is not None else None,
                "reward": at.reward.mean_of(index),
            }
        )
    return services


def _pattern(at: Standing) -> str | None:
    """The class of the traffic, which all services share."""
    places = _places(ActionSpace.of(at.facts).labels)
    found = [name for name in PATTERNS if _value(at.observation, 0, places[f"pattern_{name}"]) == 1]
    return found[0] if found else None


def _value(observation: Any, service: int, place: int) -> float | None:
    return None if observation is None else _finite(float(observation[service][place]))


def _finite(value: float | None) -> float | None:
    """The value; None where JSON has no word for it."""
    return value if value is not None and math.isfinite(value) else None

"""Runs at scale with a known effect of every action, and what can be wrong with them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.export.dataset import assemble
from rl_hooks.report.evidence import Evidence, from_dataset
from rl_hooks.row import MISSING_U8, MISSING_U32, Intent, Outcome
from rl_hooks.run_reader import Run
from scenario.plan import Plan
from tests import builders

EFFECT_MS = (0.0, 30.0, 60.0, 90.0, 120.0, 150.0)  # what each action adds to a response time
PROFILES = builders.NAMES["profile"][1:]


def planned(minutes: float = 10.0, **special: Any) -> Plan:
    """Two phases of `minutes`, a decision of every service every 2 s, episodes of 100 s."""
    names = {"morning": minutes, "evening": minutes}
    return builders.plan(phases=names, **{"episode_s": 100.0, **special})


def constant(shape: tuple[int, int], rng: np.random.Generator, p: Sequence[float] = (1 / 6,) * 6) -> tuple[Any, Any]:
    """A policy with the same probabilities at every step."""
    return rng.choice(len(ACTIONS), shape, p=p), np.broadcast_to(np.array(p), (*shape, len(ACTIONS)))


def epsilon_greedy(eps: float) -> Callable[[tuple[int, int], np.random.Generator], tuple[Any, Any]]:
    """Action 0, but any action with probability `eps`."""
    return lambda shape, rng: constant(shape, rng, (1 - eps + eps / 6, *(eps / 6,) * 5))


def sticky(shape: tuple[int, int], rng: np.random.Generator, keep: float = 0.5) -> tuple[Any, Any]:
    """The action before is kept with probability `keep`, else any is drawn."""
    action = np.zeros(shape, np.int64)
    p = np.full((*shape, len(ACTIONS)), 1 / len(ACTIONS))
    for tick in range(shape[0]):
        if tick:
            p[tick] = (1 - keep) / len(ACTIONS) + keep * np.eye(len(ACTIONS))[action[tick - 1]]
        action[tick] = (rng.random((shape[1], 1)) > np.cumsum(p[tick], axis=1)[:, :-1]).sum(axis=1)
    return action, p


def made_run(
    minutes: float = 10.0,
    seed: int = 3,
    effect_ms: tuple[float, ...] = EFFECT_MS,
    lag_effect_ms: tuple[tuple[float, ...], ...] = (),
    policy: Callable[[tuple[int, int], np.random.Generator], tuple[Any, Any]] = constant,
    requests_per_step: int = 5,
    drop_service: str | None = None,
    episode_s: float = 100.0,
    **special: Any,
) -> Run:
    """A complete run with uniform logging, in which the action of a step adds `effect_ms` to its requests' times.

    `lag_effect_ms` adds that of 1, 2 ... steps before. `policy` gives, for (ticks, services), the actions and the
    probabilities (ticks, services, actions) they were drawn with. `special` replaces tables, events or the manifest.
    """
    plan, rng = planned(minutes, episode_s=episode_s), np.random.default_rng(seed)
    decided = builders.decisions(plan, rng)
    shape = (int(decided["tick"].max()) + 1, len(SERVICES))
    action, p = policy(shape, rng)
    set_actions(decided, action, p)
    requests = _requests(plan, decided, rng, action, (effect_ms, *lag_effect_ms), requests_per_step)
    if drop_service is not None:
        index = SERVICES.index(drop_service)
        decided, requests = decided[decided["service"] != index], requests[requests["service"] != index]
    tables: dict[str, Any] = {
        "decisions": decided,
        "requests": requests,
        "samples": builders.samples(plan, rng),
        "sessions": sessions(plan, rng),
        "events": [{"t_ns": builders.START_NS, "kind": "phase", "phase": "morning", "run_time_s": 0.0}, *counts(plan)],
    }
    return builders.run(plan, **{**tables, **special})


def set_actions(decided: Any, action: Any, p: Any) -> None:
    """Put (ticks, services) actions and (ticks, services, actions) probabilities into a decision table."""
    tick, service = decided["tick"], decided["service"]
    decided["action"] = action[tick, service]
    for number in range(len(ACTIONS)):
        decided[f"prob_{number}"] = p[tick, service, number]
    decided["propensity"] = p[tick, service, decided["action"]]


def observed(run: Run, *, states: bool = True, factor: float = 1.0) -> Run:
    """The same run of a balancer that decided by itself, and stated propensities (`factor` times the true ones)."""
    decided, requests = run.decisions.copy(), run.requests.copy()
    p = np.full((int(decided["tick"].max()) + 1, len(SERVICES)), np.nan)
    p[decided["tick"], decided["service"]] = decided["propensity"]
    number = requests["decision_tick"] * len(SERVICES) + requests["service"]
    requests["propensity"] = factor * p[requests["decision_tick"], requests["service"]] if states else np.nan
    requests["policy_ref"], requests["stated_decision"] = states, number if states else MISSING_U32
    requests["action_requested"] = decided["action"] = MISSING_U8
    decided["actuated"] = decided["policy_ref"] = 0
    for name in ("propensity", *(f"prob_{index}" for index in range(len(ACTIONS)))):
        decided[name] = np.nan
    return replace(run, decisions=decided, requests=requests)


def evidence(run: Run) -> Evidence:
    return from_dataset(assemble([run]))


def as_recorded(evidence: Evidence, **tables: Any) -> Evidence:
    """The same data set with other facts in its run folder."""
    return with_run(evidence, replace(evidence.recorded[0].run, **tables))


def with_run(evidence: Evidence, run: Run) -> Evidence:
    """The same data set behind another run folder of the same plan."""
    return replace(evidence, recorded=(replace(evidence.recorded[0], run=run),))


def _requests(
    plan: Plan,
    decided: Any,
    rng: np.random.Generator,
    action: Any,
    effects: tuple[tuple[float, ...], ...],
    per_step: int,
) -> Any:
    count = len(decided) * per_step
    interval_ns = round(plan.decision_interval_s * 1e9)
    start_ns = builders.START_NS + np.sort(rng.integers(0, round(plan.duration_s * 1e9), count))
    tick = (start_ns - builders.START_NS) // interval_ns
    service = rng.integers(0, len(SERVICES), count)
    taken_ms = rng.gamma(2.0, 40.0, count) + 20
    for lag, effect_ms in enumerate(effects):
        taken_ms += np.where(tick >= lag, np.array(effect_ms)[action[np.maximum(tick - lag, 0), service]], 0.0)
    number = rng.integers(0, 40, count)
    session = tick // 30
    return builders.rows(
        "requests",
        {
            "start_ns": start_ns,
            "duration_us": np.round(taken_ms * 1000).astype(np.int64),
            "decision_tick": tick,
            "trace_hi": rng.integers(0, 2**63, count),
            "trace_lo": rng.integers(0, 2**63, count),
            "service": service,
            "instance_ref": 1 + 3 * service + rng.integers(0, 3, count),
            "profile_ref": 1 + number % 2,
            "phase_ref": np.where(tick * plan.decision_interval_s < plan.phases[1].start_s, 1, 2),
            "slot": number,
            "session": session,
            "action_requested": action[tick, service],
            "action_applied": action[tick, service],
            "ok": rng.random(count) > 0.02,
        },
    )


def sessions(plan: Plan, rng: np.random.Generator, count: int = 2000, conversion: float | None = None) -> Any:
    """Sessions whose intents are drawn from their profiles' rates; `conversion` replaces all of them."""
    profile = rng.integers(0, len(PROFILES), count)
    known = [plan.scenario.profiles[name] for name in PROFILES]
    buy = np.array([item.conversion_rate if conversion is None else conversion for item in known])[profile]
    leave = np.array([item.abandon_rate for item in known])[profile]
    draw = rng.random(count)
    paid, left = draw < buy, (draw >= buy) & (draw < buy + leave)
    intent = np.where(paid, Intent.PURCHASE, np.where(left, Intent.ABANDON, Intent.BROWSE_ONLY))
    return builders.rows(
        "sessions",
        {
            "start_ns": builders.START_NS + np.sort(rng.integers(0, round(plan.duration_s * 1e9), count)),
            "session": np.arange(count),
            "profile_ref": profile + 1,
            "cart_adds": (paid | left) * 2,
            "orders_placed": paid,
            "orders_paid": paid,
            "intent": intent,
            "outcome": np.where(rng.random(count) < 0.05, Outcome.TRUNCATED, Outcome.ENDED),
        },
    )


def counts(plan: Plan, off: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
    """A count of the users every second, on plan, or `off` by so many."""
    found = []
    for second in range(1, int(plan.duration_s)):
        mix = {name: users + (off or {}).get(name, 0) for name, users in plan.mix_at(float(second)).items()}
        event = {"t_ns": builders.at(second), "kind": "users", "run_time_s": float(second), "counts": mix}
        found.append(event)
    return found

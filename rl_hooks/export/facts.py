"""What happened in a run, counted: sessions, conversion, outcomes. Shared by the bundle's dataset.json and logs/."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rl_hooks.action_space import STRATEGIES, ActionSpace
from rl_hooks.decision import SERVICES
from rl_hooks.export.align import plan_start_ns
from rl_hooks.faults.schedule import in_force
from rl_hooks.row import MISSING_U8, Failure, Outcome
from rl_hooks.run_reader import Loss, Run
from scenario.plan import Plan

if TYPE_CHECKING:
    import pandas as pd

    from rl_hooks.export.dataset import RunSteps

Array = npt.NDArray[Any]

_OF_A_CHANGE = ("what", "fault", "phase", "service", "instances", "fault_kind", "value", "planned_s", "why")


def iso_utc(unix_ns: int) -> str:
    """The moment in UTC, to the microsecond: 2026-01-31T12:00:00.000000Z."""
    seconds, rest_ns = divmod(unix_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def request_counts(run: Run) -> dict[str, Any]:
    """How many requests there were and how they ended."""
    service, ok = np.zeros(len(SERVICES), np.int64), 0
    failure, attempt = np.zeros(256, np.int64), np.zeros(256, np.int64)
    for batch in run.batches():
        sent_to, well, why, number = batch.columns("service", "ok", "failure", "attempt")
        ok += int((well == 1).sum())
        service += np.bincount(sent_to, minlength=len(service))
        failure += np.bincount(why, minlength=256)
        attempt += np.bincount(number, minlength=256)
    return {
        "requests": run.request_count + len(run.in_flight),
        "ok": ok,
        "failed": run.request_count - ok,
        "unfinished": len(run.in_flight),
        "retries": int(attempt[2:].sum()),
        "failures": {kind.name.lower(): int(failure[kind]) for kind in Failure if kind is not Failure.NONE},
        "by_service": {name: int(service[index]) for index, name in enumerate(SERVICES)},
    }


def told(loss: Loss) -> str:
    """What is missing, and from when to when."""
    bounds = (("after", loss.from_ns), ("before", loss.to_ns))
    when = " and ".join(f"{word} {iso_utc(t_ns)}" for word, t_ns in bounds if t_ns is not None)
    return f"{loss.text}; they were written {when}" if when else loss.text


def clocks(run: Run) -> list[dict[str, Any]]:
    """What is known of the clocks of the processes that compared theirs with the leading process's, or were set."""
    return [
        {
            "process": who.name,
            "offset_s": float(clock.offset_ns[-1]) / 1e9 if len(clock.offset_ns) else None,
            "uncertainty_s": float(clock.uncertainty_ns.max()) / 1e9 if len(clock.offset_ns) else None,
            "corrected": clock.corrects,
            "steps_s": list(clock.steps_s),
        }
        for who, clock in zip(run.incarnations, run.clocks, strict=False)
        if len(clock.offset_ns) or clock.steps_s
    ]


def session_counts(run: Run) -> dict[str, int]:
    """Sessions by how they ended."""
    outcome = run.sessions["outcome"]
    return {"sessions": len(outcome), **{kind.name.lower(): int((outcome == kind).sum()) for kind in Outcome}}


def conversion(run: Run, plan: Plan) -> dict[str, dict[str, Any]]:
    """Planned and actual share of sessions with a paid order per profile, over those that ended by themselves."""
    sessions = run.sessions
    by_itself = sessions["outcome"] != Outcome.TRUNCATED
    found = {}
    for name in plan.max_users_per_profile:
        mine = np.array(run.names["profile"], object)[sessions["profile_ref"]] == name
        ended = int((mine & by_itself).sum())
        paid = int((mine & by_itself & (sessions["orders_paid"] > 0)).sum())
        found[name] = {
            "planned": plan.scenario.profiles[name].conversion_rate,
            "actual": paid / ended if ended else None,
            "sessions": ended,
            "with_paid_order": paid,
            "cut_short": int((mine & ~by_itself).sum()),
        }
    return found


def action_shares(steps: "pd.DataFrame", space: ActionSpace) -> dict[str, float | None]:
    """How often each action that exists was applied, of the steps whose action is known; an instance among the steps
    of its service."""
    steps = steps[steps["action"] >= 0]
    if space.kind == STRATEGIES:
        return {name: _share(steps["action_name"] == name) for name in space.choices(0).there}
    found: dict[str, float | None] = {}
    for service, names in zip(SERVICES, space.names, strict=True):
        mine = steps.loc[steps["service"] == service, "action_name"]
        found.update({name: _share(mine == name) for name in names})
    return found


def _share(chosen: "pd.Series") -> float | None:
    return float(chosen.mean()) if len(chosen) else None


def decision_gaps(run: Run) -> dict[str, int]:
    """Intervals without a decision because the process was busy, and decisions whose metrics source did not answer."""
    ticks = np.unique(run.decisions["tick"])
    skipped = int(ticks[-1] - ticks[0]) + 1 - len(ticks) if len(ticks) else 0
    unanswered = int((run.decisions["sample_ns"] == 0).sum()) if run.manifest["source"] != "none" else 0
    return {"skipped_intervals": skipped, "without_sample": unanswered}


def not_applied(run: Run) -> dict[str, Any]:
    """The decisions that the balancer did not take, by service, and from when until when there were any.

    A span ends with the first decision that was applied everywhere again; `until` None: it lasted to the last one.
    """
    decisions = run.decisions
    missed = (decisions["actuated"] == 0) & (decisions["action"] != MISSING_U8)
    ticks, tick_of = np.unique(decisions["tick"], return_inverse=True)
    count = np.bincount(tick_of, weights=missed, minlength=len(ticks)).astype(np.int64)
    t_ns = np.zeros(len(ticks), np.int64)
    t_ns[tick_of] = decisions["t_ns"]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], count > 0, [0]]).astype(np.int8)))
    service = np.bincount(decisions["service"][missed], minlength=len(SERVICES))
    return {
        "decisions": int(missed.sum()),
        "by_service": {name: int(service[index]) for index, name in enumerate(SERVICES) if service[index]},
        "spans": [
            {
                "from": iso_utc(int(t_ns[first])),
                "until": iso_utc(int(t_ns[end])) if end < len(ticks) else None,
                "decisions": int(count[first:end].sum()),
            }
            for first, end in edges.reshape(-1, 2)
        ],
    }


def faults(run: Run) -> dict[str, Any]:
    """What was planned to go wrong inside the services, and what really did."""
    told: Mapping[str, Any] = run.manifest.get("faults") or {}
    changes = [event for event in run.events if event["kind"] == "fault"]
    start_ns = plan_start_ns(run)

    def count(what: str) -> int:
        return sum(event["what"] == what for event in changes)

    return {
        "injector": told.get("injector", "none"),
        "without_faults": bool(told.get("without_faults", False)),
        "planned": int(told.get("planned", 0)),
        **{what: count(what) for what in ("applied", "lifted", "not_applied", "not_lifted")},
        "in_force_at_the_end": len(in_force(changes)),
        "changes": [
            {"t_s": (event["t_ns"] - start_ns) / 1e9, **{key: event.get(key) for key in _OF_A_CHANGE}}
            for event in changes
        ],
    }


def fault_texts(run: Run, plan: Plan, t_ns: Array) -> Array:
    """The faults in force at each moment by the run's own record, "" for none."""
    changes = [event for event in run.events if event["kind"] == "fault" and event["what"] in ("applied", "lifted")]
    texts = {fault.index: fault.text for fault in plan.faults}
    moments, states, acting = [], [""], dict[int, str]()
    for event in changes:
        if event["what"] == "applied":
            acting[event["fault"]] = texts[event["fault"]]
        else:
            acting.pop(event["fault"], None)
        moments.append(int(event["t_ns"]))
        states.append("; ".join(acting[index] for index in sorted(acting)))
    found: Array = np.array(states, object)[np.searchsorted(np.array(moments, np.int64), t_ns, side="right")]
    return found


def rows_lost(run: Run) -> int:
    """Rows known to be missing. 0 with a non-empty `run.losses`: damage of a size that nobody knows."""
    return sum(loss.missing_rows for loss in run.losses)


def provenance(part: "RunSteps") -> dict[str, Any]:
    """What a run was made of and by."""
    manifest: Mapping[str, Any] = part.run.manifest
    names = (
        *("scenario", "config_sha256", "seed", "versions", "target", "balancer", "balancer_details", "logging_policy"),
        *("source", "actuator", "started_unix_ns", "ended_unix_ns"),
    )
    return {
        "run_id": part.run_id,
        **{name: manifest.get(name) for name in names},
        "config_file": Path(str(manifest.get("config_path", ""))).name,
        "virtual": manifest.get("virtual") is True,
        "serving": manifest.get("serving"),  # policy, exploration and fallback beside a balancer; null: a scenario ran
        "healthy": manifest.get("healthy"),  # of a run in virtual time; null: not known
        "utilization": manifest.get("utilization"),
        # A run that was killed could not say so: whatever is not complete was interrupted, as far as the data goes.
        "state": "complete" if manifest["state"] == "complete" else "interrupted",
        "time_scale": part.plan.time_scale,
        "user_scale": part.plan.user_scale,
        "compressed": part.plan.compressed,
        "fault": manifest.get("fault"),
    }

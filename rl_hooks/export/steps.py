"""The steps of one run: one row per service and decision, with everything but its episode and its side of the split."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rl_hooks.action_space import ActionSpace
from rl_hooks.decision import SERVICES
from rl_hooks.export import align, facts, rewards, split, stated
from rl_hooks.export.backfill import Backfill
from rl_hooks.export.own_features import Named, own_values
from rl_hooks.export.own_rewards import own_rewards
from rl_hooks.export.sent import SentTable
from rl_hooks.run_reader import Run
from scenario.plan import Plan

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Intervals:
    """When each step of a run was in force."""

    line: align.Timeline

    def step_of(self, service: Array, start_ns: Array) -> Ints:
        """The step in whose interval each request was sent, -1: none."""
        kept = self.line.complete
        place = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)  # the last entry answers for -1
        found: Ints = place[align.cohort_of(service, start_ns, self.line)]
        return found


@dataclass(frozen=True)
class Steps:
    """n steps in order of service and time; `frame` row i belongs to row i of the two matrices."""

    frame: pd.DataFrame
    observation: npt.NDArray[np.float32]  # (n, features)
    next_observation: npt.NDArray[np.float32]  # (n, features)
    all_rows: npt.NDArray[np.float32]  # (n, features) the observation with every row of every worker known
    intervals: Intervals
    spans: split.RequestSpans
    incomplete: int  # decisions without a step: their interval was not over when the run ended


def build(
    run: Run, plan: Plan, *, exact_quantiles: bool, backfill: Backfill | None = None, own: Sequence[Named] = ()
) -> Steps:
    """The steps of `run`, with metrics fetched after it where it has none.

    Raises ExportError when it has no usable decision.
    """
    line = align.timeline(run, plan)
    found = align.tally(run, plan, line, exact_quantiles=exact_quantiles)
    seen = align.observe(run, plan, line, found, backfill)
    unfinished = align.cohort_of(run.in_flight["service"], run.in_flight["start_ns"], line)
    frame = _when(run, plan, line)
    frame = frame.assign(
        **_labels(run, plan, line, frame["t_s"].to_numpy()),
        **_actions(run, line, found.sent),
        **_rewards(run, plan, line, found.sent, seen.sample_ns, unfinished),
        user_count=_users(run, line.t_ns),
        sample_unix_ns=seen.sample_ns,
        sample_age_s=np.where(seen.sample_ns > 0, (line.t_ns - seen.sample_ns) / 1e9, np.nan),
        metrics_backfilled=seen.backfilled,
        warmup=line.t_ns < line.t_ns.min() + align.spans_of(plan).horizon_ns,
    )
    window_ns = align.spans_of(plan).window_ns
    at, after = (own_values(run, window_ns, own, line.service, t_ns) for t_ns in (line.t_ns, line.next_ns))
    return Steps(
        frame=frame[line.complete].reset_index(drop=True),
        observation=np.hstack((seen.at, at))[line.complete],
        next_observation=np.hstack((seen.after, after))[line.complete],
        all_rows=np.hstack((seen.all_rows, at))[line.complete],
        intervals=Intervals(line),
        spans=_spans(run, plan, found),
        incomplete=int((~line.complete).sum()),
    )


def _spans(run: Run, plan: Plan, found: align.Tallies) -> split.RequestSpans:
    last_end_ns = found.sent.last_end_ns.copy()
    lost = run.in_flight["start_ns"].astype(np.int64)
    np.maximum.at(last_end_ns, found.moments_ns.searchsorted(lost, "right"), align.given_up_ns(run, plan))
    until_ns = np.maximum.accumulate(last_end_ns)[:-1]  # of all that were sent before each moment
    return split.RequestSpans(found.moments_ns, until_ns, align.spans_of(plan).horizon_ns)


def script_pattern(plan: Plan, t_s: float) -> str:
    """What the script does with the traffic at `t_s`: rising or falling on the way to other users, else steady."""
    segment = plan.segment_at(t_s)
    if segment is None or not plan.in_ramp(t_s):
        return "steady"
    before = plan.segments[segment.index - 1].users if segment.index else 0
    return "rising" if segment.users > before else "falling" if segment.users < before else "steady"


def _when(run: Run, plan: Plan, line: align.Timeline) -> pd.DataFrame:
    decisions = run.decisions[line.row]
    return pd.DataFrame(
        {
            "run_id": str(run.manifest["run_id"]),
            "service": np.array(SERVICES, object)[line.service],
            "service_index": line.service,
            "decision_tick": decisions["tick"].astype(np.int64),
            "t_unix_ns": line.t_ns,
            "t_s": (line.t_ns - align.plan_start_ns(run)) / 1e9,
            "dt_s": (line.next_ns - line.t_ns) / 1e9,
            "next_unix_ns": line.next_ns,
            "followed": line.followed,
        }
    )


def _labels(run: Run, plan: Plan, line: align.Timeline, t_s: Floats) -> dict[str, Array]:
    phase = np.array(run.names["phase"], object)[run.decisions["phase_ref"][line.row]]
    intensity = {phase.name: phase.intensity for phase in plan.phases}
    return {
        "phase": phase,
        "pattern": np.array([script_pattern(plan, moment) for moment in t_s.tolist()], object),
        "intensity": np.array([intensity.get(name, "") for name in phase], object),
        "faults": facts.fault_texts(run, plan, line.t_ns),
    }


def _actions(run: Run, line: align.Timeline, sent: SentTable) -> dict[str, Any]:
    if stated.is_observed(run):
        return stated.columns(run, line)
    decisions = run.decisions[line.row]
    applied, space = align.applied(run, line, sent), ActionSpace.of(run.manifest)
    policies = run.names["policy"]
    kinds = np.array([re.split(r"[:(]", name)[0] for name in policies], object)
    return {
        "action": applied.action,
        "action_name": _names(space)[line.service, applied.action],
        "propensity": np.where(applied.valid, decisions["propensity"], np.nan).astype(np.float32),
        **{f"prob_{index}": decisions[f"prob_{index}"] for index in range(space.size)},
        "logging_policy": kinds[decisions["policy_ref"]],
        "policy_version": np.array(policies, object)[decisions["policy_ref"]],
        "action_requested": decisions["action"].astype(np.int64),
        "applied_share": applied.share.astype(np.float32),
        "action_differs": ~applied.valid,
        "observed": False,  # the balancer decided, see `stated`
        "why_not": "",
    }


def _names(space: ActionSpace) -> Array:
    """(services, actions) each service's own names."""
    table = np.full((len(SERVICES), space.size), "", object)
    for service, names in enumerate(space.names):
        table[service, : len(names)] = names
    return table


def _rewards(
    run: Run, plan: Plan, line: align.Timeline, sent: SentTable, sample_ns: Ints, unfinished: Ints
) -> dict[str, Array]:
    cohorts = align.cohorts(run, plan, line, sent, sample_ns)
    own, weights = own_rewards(plan.scenario.rewards), plan.scenario.reward_weights
    table = rewards.components(cohorts, own)
    columns = {f"reward_{name}": table[:, index] for index, name in enumerate(rewards.names_of(weights))}
    return {
        "reward": rewards.weighted_sum(table, weights),
        **columns,
        "n_finished": cohorts.finished.astype(np.int64),
        "n_errors": cohorts.failed.astype(np.int64),
        **_load(line, cohorts.finished.astype(np.int64), unfinished),
    }


def _load(line: align.Timeline, finished: Ints, unfinished: Ints) -> dict[str, Array]:
    unknown = np.bincount(unfinished[unfinished >= 0], minlength=len(finished))
    return {
        "n_requests": finished + unknown,
        "n_unfinished": unknown,
        "offered_rps": (finished + unknown) / ((line.next_ns - line.t_ns) / 1e9),
    }


def _users(run: Run, t_ns: Ints) -> Floats:
    """Users at each moment by the last count before it; NaN before the first."""
    events = [event for event in run.events if event["kind"] == "users"]
    counted_ns = np.array([event["t_ns"] for event in events], np.int64)
    counts = np.array([np.nan, *(sum(event["counts"].values()) for event in events)], np.float64)
    return counts[np.searchsorted(counted_ns, t_ns, side="left")]

"""Runs in which the balancer decided by itself: what its answers state, brought to our intervals.

    answers of an interval -->  action applied to most, and its share of those that tell
                           -->  propensity: of the decision that nearly all of them belong to

Intervals are ours, decisions are not: around a border some requests are still answered under the decision before. An
interval is that of one action when at least CLEAR_SHARE of its answers tell it; below, several actions were at work.

Where answers name their decision, the propensity is that of a decision with at least CLEAR_SHARE of the answers, at its
first interval only: a decision that goes on was drawn once. Whether a step has a propensity then does not depend on
which action was drawn. Where they do not, it is the one that all answers with the action state.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rl_hooks.decision import ACTIONS
from rl_hooks.export import align
from rl_hooks.export.split import OBSERVED_REASONS
from rl_hooks.row import MISSING_U8, MISSING_U32
from rl_hooks.run_reader import Run

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CLEAR_SHARE = 0.8
"""Ours and the balancer's clocks agree to some 10 ms, which is a twentieth of the shortest interval; the rest is for
intervals with a handful of requests."""
UNKNOWN = "unknown"
UNTOLD, MIXED, UNSTATED = OBSERVED_REASONS

_KEYS = ["cohort", "action", "propensity", "policy", "decision"]


def is_observed(run: Run) -> bool:
    """Whether nobody of ours decided in this run."""
    return bool(len(run.decisions)) and bool((run.decisions["action"] == MISSING_U8).all())


@dataclass(frozen=True)
class Stated:
    """One entry per decision of a timeline."""

    action: Ints  # (n,) the one applied to most; -1: no answer tells
    share: Floats  # (n,) of the answers that tell, those with `action`; NaN where none tells
    propensity: Floats  # (n,) NaN: not stated, or not by one decision
    policy_ref: Ints  # (n,) of those with `action`, the one that most name; 0: unknown
    why_not: Array  # (n,) the reason why it is for no split, "" where there is none


def stated(run: Run, line: align.Timeline) -> Stated:
    """What the balancer of an observed run applied and stated under each of our decisions."""
    answers = _counted(run, line)
    count = len(line.t_ns)
    by_action = _largest(answers, ["cohort", "action"], count)
    told = np.bincount(answers["cohort"], answers["n"], count)
    action, most = by_action["action"], by_action["n"]
    share = np.divide(most, told, out=np.full(count, np.nan), where=told > 0)
    mine = answers[answers["action"] == action[answers["cohort"]]]
    named = _largest(mine[mine["policy"] > 0], ["cohort", "policy"], count)["policy"]
    propensity = np.where(share >= CLEAR_SHARE, _agreed(mine, count), np.nan)
    decision = _largest(answers[answers["decision"] != MISSING_U32], ["cohort", "decision"], count)
    has_id = decision["n"] > 0
    whole = (decision["n"] >= CLEAR_SHARE * told) & ~_goes_on(line, decision["decision"])
    of_decision = answers[answers["decision"] == decision["decision"][answers["cohort"]]]
    propensity = np.where(has_id, np.where(whole, _agreed(of_decision, count), np.nan), propensity)
    why_not = np.where(told == 0, UNTOLD, np.where(share < CLEAR_SHARE, MIXED, "")).astype(object)
    # One that is stated at most steps and not at this one is not known here. Where it is mostly silent it tells nothing
    # about the steps, and they are good for what needs no propensity.
    silent = (why_not == "") & np.isnan(propensity)
    if silent.sum() <= (why_not == "").sum() / 2:
        why_not[silent] = UNSTATED
    return Stated(action, share, propensity, np.maximum(named, 0), why_not)


def columns(run: Run, line: align.Timeline) -> dict[str, Any]:
    """The columns of the steps that say who decided what."""
    found = stated(run, line)
    names = np.array([UNKNOWN, *run.names.get("policy", ("",))[1:]], object)
    kinds = np.array([name.partition(":")[0].partition("(")[0] for name in names], object)
    probabilities = np.full((len(found.action), len(ACTIONS)), np.nan)
    known = np.flatnonzero(found.action >= 0)
    probabilities[known, found.action[known]] = found.propensity[known]
    return {
        "action": found.action,
        "action_name": np.array([*ACTIONS, ""], object)[found.action],
        "propensity": found.propensity.astype(np.float32),
        **{f"prob_{index}": probabilities[:, index].astype(np.float32) for index in range(len(ACTIONS))},
        "logging_policy": kinds[found.policy_ref],
        "policy_version": names[found.policy_ref],
        "action_requested": np.full(len(found.action), -1),
        "applied_share": found.share.astype(np.float32),
        "action_differs": np.zeros(len(found.action), bool),
        "observed": np.ones(len(found.action), bool),
        "why_not": found.why_not,
    }


def _counted(run: Run, line: align.Timeline) -> pd.DataFrame:
    """How many answers that tell an action there are of each kind, a row per kind."""
    parts = [pd.DataFrame({name: np.empty(0, np.int64) for name in (*_KEYS, "n")})]
    for batch in run.batches():
        service, start_ns, *told = batch.columns(
            "service", "start_ns", "action_applied", "propensity", "policy_ref", "stated_decision"
        )
        cohort = align.cohort_of(service, start_ns, line)
        rows = pd.DataFrame(dict(zip(_KEYS, (cohort, *told), strict=True)))
        rows = rows[(rows["cohort"] >= 0) & (rows["action"] < len(ACTIONS))]
        parts.append(rows.groupby(_KEYS, dropna=False).size().reset_index(name="n"))
    found = pd.concat(parts, ignore_index=True).groupby(_KEYS, dropna=False)["n"].sum().reset_index()
    whole = {name: np.int64 for name in (*_KEYS, "n") if name != "propensity"}
    return found.astype({**whole, "propensity": np.float64})


def _largest(answers: pd.DataFrame, keys: list[str], count: int) -> dict[str, Ints]:
    """Per cohort the value of the second key that most answers have, and how many: -1 and 0 where there is none."""
    sums = answers.groupby(keys)["n"].sum().reset_index()
    first = sums.sort_values(["cohort", "n", keys[1]], ascending=[True, False, True]).drop_duplicates("cohort")
    found = {keys[1]: np.full(count, -1, np.int64), "n": np.zeros(count, np.int64)}
    for name, values in found.items():
        values[first["cohort"].to_numpy()] = first[name].to_numpy()
    return found


def _agreed(answers: pd.DataFrame, count: int) -> Floats:
    """Per cohort the propensity that all its answers state; NaN where one is silent or they differ."""
    least, most = np.full(count, np.nan), np.full(count, np.nan)
    grouped = answers.groupby("cohort")["propensity"]
    cohort = grouped.min().index.to_numpy(np.int64)
    least[cohort], most[cohort] = grouped.min().to_numpy(), grouped.max().to_numpy()
    silent = np.bincount(answers["cohort"], answers["propensity"].isna(), count) > 0
    agreed: Floats = np.where((least == most) & ~silent, least, np.nan)
    return agreed


def _goes_on(line: align.Timeline, decision: Ints) -> Array:
    """Whether a decision was already the main one of the service's interval before."""
    before = np.zeros(len(decision), bool)
    before[1:] = (decision[1:] == decision[:-1]) & (line.service[1:] == line.service[:-1])
    return before & (decision >= 0)

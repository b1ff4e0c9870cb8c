"""Whether the tables hold together: steps that follow each other, rewards that add up, splits that share nothing."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from rl_hooks.export import rewards, split
from rl_hooks.report.evidence import Array, Evidence, Ints
from rl_hooks.report.state import Case
from rl_hooks.report.verdict import Finding, Verdict, not_applicable, worst

_TOLERANCE = 1e-5  # rewards are stored as float32


def transitions_hold(case: Case) -> Finding:
    evidence = case.evidence
    episode, steps = evidence.episode, evidence.steps
    inner = np.flatnonzero(episode[1:] == episode[:-1])
    same = _equal(evidence.next_observation[inner], evidence.observation[inner + 1])
    ends = np.append(episode[1:] != episode[:-1], True)
    truncated, terminated = steps["truncated"].to_numpy(bool), steps["terminated"].to_numpy(bool)
    counts = {
        "next_observation_differs": int((~same).sum()),
        "end_flags_wrong": int(((truncated | terminated) != ends).sum() + (truncated & terminated).sum()),
        "reward_is_not_the_weighted_sum": int((~_sums(evidence)).sum()),
    }
    wrong = {name: count for name, count in counts.items() if count}
    text = ", ".join(f"{count} steps: {name.replace('_', ' ')}" for name, count in wrong.items())
    return Finding(
        Verdict.FAIL if wrong else Verdict.PASS,
        f"{text}." if wrong else f"All {len(steps)} steps follow from each other and their rewards add up.",
        counts,
    )


def _equal(one: Array, other: Array) -> Array:
    same: Array = ((one == other) | (np.isnan(one) & np.isnan(other))).all(axis=1)
    return same


def _sums(evidence: Evidence) -> Array:
    """Whether the reward is the weighted sum of its components; a filled one needs not be."""
    steps = evidence.steps
    weights = evidence.facts["reward_weights"]
    table = steps[[f"reward_{name}" for name in rewards.names_of(weights)]].to_numpy(np.float64)
    total = rewards.weighted_sum(table, weights)
    filled = steps["reward_filled"].to_numpy(bool)
    fits: Array = filled | (np.abs(total - evidence.reward) <= _TOLERANCE)
    return fits


def reward(case: Case) -> Finding:
    evidence = case.evidence
    values = evidence.reward[evidence.usable]
    if len(values) == 0:
        return not_applicable("there is no usable step")
    finite = np.isfinite(values)
    outside = int((finite & ((values < -_TOLERANCE) | (values > 1 + _TOLERANCE))).sum())
    measured = evidence.reward[evidence.judged]
    measured = measured[np.isfinite(measured)]
    constant = len(measured) == 0 or bool(measured.max() == measured.min())
    common, count = _most_common(measured)
    share = count / len(measured) if len(measured) else 1.0
    bad = constant or outside > 0 or not finite.all()
    text = f"mean {measured.mean():.3f}, spread {measured.std():.3f}" if len(measured) else "none measured"
    said = [
        *(["every reward is the same"] if constant else []),
        *([f"{int((~finite).sum())} are not numbers"] if not finite.all() else []),
        *([f"{outside} lie outside 0 to 1"] if outside else []),
        f"{text}, the most common value {common:.3f} has a share of {share:.0%}.",
    ]
    sentence = "; ".join(said)
    return Finding(
        worst([Verdict.FAIL if bad else Verdict.PASS, case.limits.reward_one_value.judge(share)]),
        sentence[0].upper() + sentence[1:],
        {"not_finite": int((~finite).sum()), "outside": outside, "constant": constant, "most_common_share": share},
    )


def _most_common(values: Array) -> tuple[float, int]:
    if len(values) == 0:
        return float("nan"), 0
    found, counts = np.unique(values, return_counts=True)
    return float(found[counts.argmax()]), int(counts.max())


def leakage(case: Case) -> Finding:
    evidence = case.evidence
    steps = evidence.steps
    kept = steps[steps["split"] != split.EXCLUDED]
    torn = int((kept.groupby("episode_id", observed=True)["split"].nunique() > 1).sum())
    shared = sum(_shared_requests(evidence, str(run["run_id"])) for run in evidence.facts["runs"])
    return Finding(
        Verdict.FAIL if torn or shared else Verdict.PASS,
        f"{shared} requests are seen by both sides of the split, {torn} episodes are in both.",
        {"requests": shared, "episodes": torn},
    )


def _shared_requests(evidence: Evidence, run_id: str) -> int:
    """Requests of a run that a step of train and a step of validation saw, in a cohort or in a window.

    A request whose end is unknown counts as long as the longest of the run.
    """
    steps = evidence.steps[evidence.steps["run_id"] == run_id]
    rows = evidence.requests[evidence.requests["run_id"] == run_id]
    start_ns = rows["start_unix_ns"].to_numpy(np.int64)
    took_us = rows["duration_us"].to_numpy(np.float64)
    longest = float(np.nanmax(took_us)) if np.isfinite(took_us).any() else 0.0
    horizon_s = max(evidence.facts["windows_s"].values())
    gone_ns = start_ns + (np.nan_to_num(took_us, nan=longest) * 1000).astype(np.int64) + round(horizon_s * 1e9)
    seen = [_seen(steps, side, start_ns, gone_ns) for side in (split.TRAIN, split.VALIDATION)]
    return int((seen[0] & seen[1]).sum())


def _seen(steps: pd.DataFrame, side: str, start_ns: Ints, gone_ns: Ints) -> Array:
    """A step [t, t + dt) sees a request that was sent before its end and not gone from the windows at its start."""
    mine = steps[steps["split"] == side]
    begins = np.sort(mine["t_unix_ns"].to_numpy(np.int64))
    ends = np.sort(mine["t_unix_ns"].to_numpy(np.int64) + np.round(mine["dt_s"].to_numpy() * 1e9).astype(np.int64))
    seen: Array = np.searchsorted(begins, gone_ns, side="right") > np.searchsorted(ends, start_ns, side="right")
    return seen


def dead_features(case: Case) -> Finding:
    """A feature that the metrics source does not give is the business of `missing_telemetry`."""
    evidence = case.evidence
    if len(evidence.usable) == 0:
        return not_applicable("there is no usable step")
    measured = {source: _measured(evidence, source) for source in ("client", "balancer")}
    if all(run.get("source") == "none" for run in evidence.facts["runs"]):
        del measured["balancer"]
    else:
        measured["balancer"] = _ever_known(evidence, measured["balancer"]) or measured["balancer"]
    counted = {name for names in measured.values() for name in names}
    found = {name: why for name, why in dead_or_frozen(case).items() if name in counted}
    shares = {source: sum(name in found for name in names) / len(names) for source, names in measured.items()}
    verdict = worst([case.limits.dead_features.judge(share) for share in shares.values()])
    listed = ", ".join(f"{name} ({why})" for name, why in found.items())
    return Finding(
        verdict,
        f"{len(found)} features say nothing: {listed}." if found else "Every measurement changes.",
        {"features": found, "share_by_source": shares},
    )


def dead_or_frozen(case: Case) -> dict[str, str]:
    """Measurements that never change or are never known, and those that stand still for long away from their limits."""
    evidence, limits = case.evidence, case.limits
    rows = evidence.usable
    found: dict[str, str] = {}
    for index, feature in enumerate(evidence.features):
        values = evidence.observation[rows, index]
        known = values[~np.isnan(values)]
        if feature["unit"] == "one-hot":
            continue
        if len(known) == 0:
            found[str(feature["name"])] = "never known"
        elif known.min() == known.max():
            found[str(feature["name"])] = f"always {known[0]:g}"
        elif feature["unit"] in ("share", "ms", "requests/s"):
            share = _frozen_share(values, evidence.service[rows], feature, limits.frozen_stretch_steps)
            if share > limits.frozen_share:
                found[str(feature["name"])] = f"frozen in {share:.0%} of the steps"
    return found


def _ever_known(evidence: Evidence, names: Sequence[str]) -> list[str]:
    rows = evidence.observation[evidence.usable]
    places = {str(feature["name"]): index for index, feature in enumerate(evidence.features)}
    return [name for name in names if not np.isnan(rows[:, places[name]]).all()]


def _measured(evidence: Evidence, source: str) -> list[str]:
    """The features that are measurements of a source, not classes and not counts of the policy's own actions."""
    return [
        str(feature["name"])
        for feature in evidence.features
        if feature["source"] == source and feature["unit"] not in ("one-hot", "intervals")
    ]


def _frozen_share(values: Array, service: Ints, feature: Mapping[str, object], least: int) -> float:
    """The share of steps in stretches, `least` long or longer, of one value that is not a limit of the feature."""
    changes = np.ones(len(values), bool)
    changes[1:] = (values[1:] != values[:-1]) | (service[1:] != service[:-1])  # NaN differs from itself
    stretch = np.cumsum(changes) - 1
    length = np.bincount(stretch)[stretch]
    at_limit = (values == feature["low"]) | (values == feature["high"])
    return float(((length >= least) & ~at_limit).mean())

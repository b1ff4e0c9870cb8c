"""rl_experiences.jsonl, the lines that a Q-learning trainer of pods reads: one request a line.

    {"state": {"timestamp", "metrics": {"<pod>": {...}}}, "action": "<pod>", "reward", "next_state": {...}, "metadata"}

`state` is what was known about the service's pods when the request began; `action` is the pod that served it;
`next_state` is what was known at the first metrics sample that was taken after it had ended. `reward` judges this
request alone, by those components that one request has: response time, error and satisfaction, with the scenario's
weights. A line with a hole would ruin that trainer's whole file, so a request of which anything is not known has no
line, and is counted with the reason in format.json. Values are physical, not normalized.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rl_hooks.export import rewards
from rl_hooks.export.facts import iso_utc
from rl_hooks.export.formats.pods import METRICS, Pods, PodState
from rl_hooks.export.formats.source import Bundle
from rl_hooks.export.split import TRAIN, VALIDATION

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

FILE = "rl_experiences.jsonl"
REASONS = {
    "not_in_split": "their decision is in neither train nor validation",
    "unfinished": "their end is not known",
    "no_instance": "nobody told which pod served them",
    "no_sample": "there is no metrics sample within the window before them",
    "no_later_sample": "there is no metrics sample within the window after them",
    "instance_down": "the pod that served them was not up in the sample before or after",
    "metric_missing": "a metric of a pod that was up is not known; without requests in the window it has no mean time",
}
"""Why a request has no line; the first that applies counts."""

_SIGNIFICANT = 6
_BATCH = 10_000  # rows: as Python objects they take a hundred times the room


def write(bundle: Bundle, folder: Path) -> dict[str, Any]:
    """<part>/rl_experiences.jsonl, in order of run and start."""
    requests, samples = (bundle.table(name).to_pandas() for name in ("requests", "samples"))
    window_s = max(bundle.facts["windows_s"].values())
    requests = requests.assign(reward=request_rewards(requests, bundle), reason="", group=-1, place=-1)
    groups: list[Moments] = []
    for _, mine in requests.groupby(["run_id", "service"], observed=True, sort=False):
        run_id, service = mine["run_id"].iloc[0], mine["service"].iloc[0]
        known = samples[(samples["run_id"] == run_id) & (samples["service"] == service)]
        pods = Pods(known, mine[mine["duration_us"].notna()], round(window_s * 1e9))
        reason = _reason_of_request(mine)
        rest = mine[reason == ""]
        moments = moments_of(rest, pods)
        reason[rest.index] = moments.reason
        requests.loc[mine.index, "reason"] = reason
        requests.loc[rest.index, "group"] = len(groups)
        requests.loc[rest.index, "place"] = np.arange(len(rest))
        groups.append(moments)
    parts = {name: _write_part(requests, groups, folder, name) for name in bundle.parts}
    left_out = requests["reason"].value_counts()
    return {
        "parts": parts,
        "left_out": {reason: int(left_out.get(reason, 0)) for reason in REASONS},
        "reasons": REASONS,
        "reward": "weighted mean of response_time, error_rate and user_satisfaction of the one request",
        "metrics_window_s": window_s,
        "uptimeSeconds": "since when the pod has been up without a break, as far as the samples of the run show",
    }


def request_rewards(requests: pd.DataFrame, bundle: Bundle) -> Floats:
    """Each request's own reward, NaN where its end is not known. One request has no throughput and no fairness."""
    weights, slo_ms = bundle.facts["reward_weights"], requests["service"].astype(str).map(bundle.facts["slo_ms"])
    ok = requests["ok"].fillna(False).to_numpy(bool)
    took_ms = requests["duration_us"].to_numpy(np.float64, na_value=np.nan) / 1000
    known = np.isfinite(took_ms)
    slo = slo_ms.to_numpy(np.float64)
    nothing = np.zeros((len(requests), 0))
    each = rewards.Cohorts(
        finished=known.astype(float),
        failed=(known & ~ok).astype(float),
        ok_ms=np.where(ok, took_ms, 0.0),
        satisfied=(ok & (took_ms <= slo)).astype(float),
        tolerated=(ok & (took_ms > slo) & (took_ms <= rewards.TOLERATED_SLO * slo)).astype(float),
        slo_ms=slo,
        expected=np.zeros(len(requests)),
        instance_requests=nothing,
        instance_capacity=nothing,
    )
    table = rewards.components(each)
    table[:, list(rewards.REWARDS).index("throughput")] = np.nan
    return rewards.weighted_sum(table, {name: weights[name] for name in rewards.REWARDS})


@dataclass(frozen=True)
class Moments:
    """n requests of one run and service: what was known before and after each, and why it has no line, if so."""

    pods: tuple[str, ...]
    start_ns: Array  # (n,)
    state: PodState
    next_ns: Array  # (n,)
    next_state: PodState
    reason: Array  # (n,) "": it has a line

    def states(self, place: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """State and next state of one request."""
        return (
            _state(self.pods, int(self.start_ns[place]), self.state, place),
            _state(self.pods, int(self.next_ns[place]), self.next_state, place),
        )


def moments_of(requests: pd.DataFrame, pods: Pods) -> Moments:
    """For requests with a known end and pod."""
    start_ns = requests["start_unix_ns"].to_numpy(np.int64)
    end_ns = start_ns + requests["duration_us"].to_numpy(np.int64) * 1000
    first, second = pods.before(start_ns), pods.after(end_ns)
    next_ns = np.maximum(pods.known_at(second), end_ns)
    state, after = pods.state(start_ns, first), pods.state(next_ns, second)
    served = requests["instance"].astype(str).to_numpy()[:, np.newaxis] == np.array(pods.names, object)
    up = np.any(served & state.listed, axis=1) & np.any(served & after.listed, axis=1)
    reason = np.full(len(requests), "", object)
    reason[state.incomplete | after.incomplete] = "metric_missing"
    reason[~up] = "instance_down"
    reason[second < 0] = "no_later_sample"
    reason[first < 0] = "no_sample"
    return Moments(pods.names, start_ns, state, next_ns, after, reason)


def _reason_of_request(requests: pd.DataFrame) -> pd.Series:
    """What can be said of a request without looking at the pods."""
    reason = pd.Series("", index=requests.index, dtype=object)
    reason[requests["instance"].isna()] = "no_instance"
    reason[requests["duration_us"].isna()] = "unfinished"
    reason[~requests["split"].isin([TRAIN, VALIDATION])] = "not_in_split"
    return reason


def _write_part(requests: pd.DataFrame, groups: list[Moments], folder: Path, part: str) -> dict[str, Any]:
    chosen = requests[(requests["split"] == part) & (requests["reason"] == "")]
    (folder / part).mkdir()
    with (folder / part / FILE).open("w", encoding="utf-8") as file:
        for begin in range(0, len(chosen), _BATCH):
            rows = chosen.iloc[begin : begin + _BATCH].to_dict("records")
            file.writelines(f"{_line(row, *groups[row['group']].states(row['place']))}\n" for row in rows)
    return {"file": f"{part}/{FILE}", "rows": len(chosen)}


def _state(names: tuple[str, ...], t_ns: int, state: PodState, place: int) -> dict[str, Any]:
    pods = zip(names, state.values[place].tolist(), state.listed[place].tolist(), strict=True)
    metrics = {
        name: {metric: _short(value) for metric, value in zip(METRICS, values, strict=True)}
        for name, values, listed in pods
        if listed
    }
    return {"timestamp": iso_utc(t_ns), "metrics": metrics}


def _line(row: dict[str, Any], state: dict[str, Any], next_state: dict[str, Any]) -> str:
    metadata = {
        **{name: row[name] for name in ("run_id", "episode_id", "trace_id", "service", "endpoint", "action_applied")},
        "status": int(row["status"]),
        "ok": bool(row["ok"]),
        "duration_ms": _short(row["duration_us"] / 1000),
    }
    content = {
        "state": state,
        "action": row["instance"],
        "reward": _short(row["reward"]),
        "next_state": next_state,
        "metadata": {name: value for name, value in metadata.items() if not pd.isna(value)},
    }
    return json.dumps(content, allow_nan=False, ensure_ascii=False)


def _short(value: float) -> float:
    """Six significant digits, more than any of the sources has."""
    return float(f"{value:.{_SIGNIFICANT}g}")

"""rl_experiences.jsonl, the lines that a Q-learning trainer of pods reads: one request a line.

    {"state": {"timestamp", "metrics": {"<pod>": {...}}}, "action": "<pod>", "reward", "next_state": {...}, "metadata"}

`state` is what was known about the service's pods when the request began; `action` is the pod that served it;
`next_state` is what was known at the first metrics sample that was taken after it had ended. `reward` judges this
request alone, by those components that one request has: response time, error and satisfaction, with the scenario's
weights. A line with a hole would ruin that trainer's whole file, so a request of which anything is not known has no
line, and is counted with the reason in format.json. Values are physical, not normalized.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

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


def write(bundle: Bundle, folder: Path) -> dict[str, Any]:
    """<part>/rl_experiences.jsonl, in order of run and start."""
    requests, samples = (bundle.table(name).to_pandas() for name in ("requests", "samples"))
    requests = requests.assign(reward=request_rewards(requests, bundle), reason="", line="")
    for _, mine in requests.groupby(["run_id", "service"], observed=True, sort=False):
        run_id, service = mine["run_id"].iloc[0], mine["service"].iloc[0]
        known = samples[(samples["run_id"] == run_id) & (samples["service"] == service)]
        _fill(requests, mine, known, round(max(bundle.facts["windows_s"].values()) * 1e9))
    parts = {name: _write_part(requests[_has_line(requests, name)], folder, name) for name in bundle.parts}
    left_out = requests["reason"].value_counts()
    return {
        "parts": parts,
        "left_out": {reason: int(left_out.get(reason, 0)) for reason in REASONS},
        "reasons": REASONS,
        "reward": "weighted mean of response_time, error_rate and user_satisfaction of the one request",
        "metrics_window_s": max(bundle.facts["windows_s"].values()),
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
    return rewards.weighted_sum(table, weights)


def _fill(requests: pd.DataFrame, mine: pd.DataFrame, samples: pd.DataFrame, window_ns: int) -> None:
    """Set `line` or `reason` of the requests `mine`, all of one run and service."""
    ended = mine[mine["duration_us"].notna()]
    pods = Pods(samples, ended, window_ns)
    reason = pd.Series("", index=mine.index)
    reason[mine["instance"].isna()] = "no_instance"
    reason[mine["duration_us"].isna()] = "unfinished"
    reason[~mine["split"].isin([TRAIN, VALIDATION])] = "not_in_split"
    rest = mine[reason == ""]
    if len(rest) and len(pods.sample_ns) == 0:
        reason[rest.index] = "no_sample"
    elif len(rest):
        found, lines = _lines(rest, pods)
        reason[rest.index] = found
        requests.loc[rest.index, "line"] = lines
    requests.loc[mine.index, "reason"] = reason


def _lines(rest: pd.DataFrame, pods: Pods) -> tuple[Array, Array]:
    """Reason and line of each request; one of both is empty."""
    start_ns = rest["start_unix_ns"].to_numpy(np.int64)
    end_ns = start_ns + rest["duration_us"].to_numpy(np.int64) * 1000
    first, second = pods.before(start_ns), pods.after(end_ns)
    next_ns = np.maximum(pods.known_ns[second], end_ns)
    state, after = pods.state(start_ns, first), pods.state(next_ns, second)
    names = np.array(pods.names, object)
    served = rest["instance"].astype(str).to_numpy()[:, np.newaxis] == names
    up = np.any(served & state.listed, axis=1) & np.any(served & after.listed, axis=1)
    reason = np.full(len(rest), "", object)
    reason[_holes(state) | _holes(after)] = "metric_missing"
    reason[~up] = "instance_down"
    reason[second < 0] = "no_later_sample"
    reason[first < 0] = "no_sample"
    lines = np.full(len(rest), "", object)
    chosen = np.flatnonzero(reason == "")
    before, later = (
        _states(pods.names, moments[chosen], at, chosen) for moments, at in ((start_ns, state), (next_ns, after))
    )
    for index, row, one, other in zip(chosen, rest.iloc[chosen].to_dict("records"), before, later, strict=True):
        lines[index] = _line(row, one, other)
    return reason, lines


def _holes(state: PodState) -> npt.NDArray[np.bool_]:
    unknown = np.isnan(state.values).any(axis=2)
    return np.array((unknown & state.listed).any(axis=1), bool)


def _states(names: tuple[str, ...], t_ns: Array, state: PodState, chosen: Array) -> Iterator[dict[str, Any]]:
    for moment, values, listed in zip(t_ns.tolist(), state.values[chosen], state.listed[chosen], strict=True):
        metrics = {
            name: {metric: _short(value) for metric, value in zip(METRICS, pod, strict=True)}
            for name, pod, there in zip(names, values.tolist(), listed, strict=True)
            if there
        }
        yield {"timestamp": iso_utc(moment), "metrics": metrics}


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


def _has_line(requests: pd.DataFrame, part: str) -> Any:
    return (requests["split"] == part) & (requests["line"] != "")


def _write_part(requests: pd.DataFrame, folder: Path, part: str) -> dict[str, Any]:
    (folder / part).mkdir()
    with (folder / part / FILE).open("w", encoding="utf-8") as file:
        _write_lines(file, requests["line"])
    return {"file": f"{part}/{FILE}", "rows": len(requests)}


def _write_lines(file: TextIO, lines: Any) -> None:
    file.writelines(f"{line}\n" for line in lines)

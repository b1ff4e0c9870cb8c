"""rl_experiences.jsonl: what a line says, that no line has a hole, and that what has no line is counted."""

import json
import math
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from rl_hooks.export.errors import ExportError
from rl_hooks.export.formats.experiences import REASONS
from rl_hooks.export.formats.pods import METRICS
from rl_hooks.export.formats.table import find_writers, write_formats
from rl_hooks.row import MISSING_U8
from rl_hooks.run_reader import Run
from tests import builders

PARTS = ("train", "validation")


def written(run: Run, folder: Path) -> Path:
    write_bundle(assemble([run]), folder / "bundle", find_writers("jsonl"))
    return folder / "bundle"


def experiences(bundle: Path, part: str) -> list[dict[str, Any]]:
    text = (bundle / "formats" / "jsonl" / part / "rl_experiences.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [
        json.loads(line, parse_constant=lambda name: pytest.fail(f"a line holds {name}")) for line in text.splitlines()
    ]


def requests_of(bundle: Path) -> pd.DataFrame:
    return pd.read_parquet(bundle / "data/requests/requests.parquet").set_index("trace_id")


def left_out(bundle: Path) -> dict[str, int]:
    facts = json.loads((bundle / "formats" / "jsonl" / "format.json").read_text())
    return {reason: count for reason, count in facts["left_out"].items() if count}


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run whose metrics are all there, with enough requests that hardly a pod is ever without."""
    return written(builders.random_run(count=12000, missing=0.0), tmp_path_factory.mktemp("jsonl"))


@pytest.fixture(scope="module")
def lines(complete: Path) -> list[dict[str, Any]]:
    return [line for part in PARTS for line in experiences(complete, part)]


def test_every_line_is_whole(lines: list[dict[str, Any]]) -> None:
    assert len(lines) > 1000
    for line in lines:
        assert list(line) == ["state", "action", "reward", "next_state", "metadata"]
        assert line["action"] in line["state"]["metrics"]
        assert line["action"] in line["next_state"]["metrics"]
        for state in (line["state"], line["next_state"]):
            assert len(state["metrics"]) == 3
            for metrics in state["metrics"].values():
                assert tuple(metrics) == METRICS
                assert all(isinstance(value, float) and math.isfinite(value) for value in metrics.values())
        assert 0 <= line["reward"] <= 1
        assert None not in line["metadata"].values()


def test_only_pods_of_the_requests_own_service_in_one_order(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        pods = list(line["state"]["metrics"])
        assert pods == sorted(pods) == list(line["next_state"]["metrics"])
        assert all(pod.startswith(line["metadata"]["service"]) for pod in pods)


def test_the_action_is_the_pod_that_served_and_the_parts_are_those_of_the_requests(complete: Path) -> None:
    requests = requests_of(complete)
    for part in PARTS:
        found = experiences(complete, part)
        mine = requests.loc[[line["metadata"]["trace_id"] for line in found]]
        assert (mine["split"] == part).all()
        assert mine["instance"].tolist() == [line["action"] for line in found]
        assert mine["start_unix_ns"].is_monotonic_increasing
        assert mine["ok"].tolist() == [line["metadata"]["ok"] for line in found]


def test_a_request_has_a_line_or_is_counted(complete: Path, lines: list[dict[str, Any]]) -> None:
    assert len(lines) + sum(left_out(complete).values()) == len(requests_of(complete))
    assert set(left_out(complete)) <= set(REASONS)


def test_the_next_state_is_a_later_one(lines: list[dict[str, Any]], complete: Path) -> None:
    duration_us = requests_of(complete)["duration_us"]
    for line in lines:
        begin, after = (datetime.fromisoformat(line[name]["timestamp"]) for name in ("state", "next_state"))
        took_us = (after - begin).total_seconds() * 1e6
        assert took_us >= duration_us[line["metadata"]["trace_id"]] - 1
        assert line["next_state"]["metrics"] != line["state"]["metrics"]


def test_a_state_is_what_was_known_when_the_request_began(complete: Path, lines: list[dict[str, Any]]) -> None:
    """Counted here by hand for some lines."""
    requests = requests_of(complete)
    samples = pd.read_parquet(complete / "data/samples/samples.parquet")
    window_ns = 10_000_000_000
    end_ns = requests["start_unix_ns"] + requests["duration_us"].astype("int64") * 1000
    for line in lines[:: len(lines) // 40]:
        request = requests.loc[line["metadata"]["trace_id"]]
        start_ns = request["start_unix_ns"]
        for pod, metrics in line["state"]["metrics"].items():
            known = samples[(samples["instance"] == pod) & (samples["received_unix_ns"] <= start_ns)]
            last = known.sort_values("t_unix_ns").iloc[-1]
            assert metrics["cpuUsagePercent"] == pytest.approx(100 * last["cpu"], rel=1e-5)
            assert metrics["jvmMemoryUsagePercent"] == pytest.approx(100 * last["memory"], rel=1e-5)
            first = samples.loc[samples["instance"] == pod, "t_unix_ns"].min()
            assert metrics["uptimeSeconds"] == pytest.approx((start_ns - first) / 1e9, rel=1e-5)
            mine = (requests["instance"] == pod) & (end_ns >= start_ns - window_ns) & (end_ns < start_ns)
            served = requests[mine]
            assert metrics["requestRatePerSecond"] == pytest.approx(len(served) / 10)
            assert metrics["avgResponseTimeMs"] == pytest.approx(served["duration_us"].mean() / 1000, rel=1e-5)
            failed = 1 - served["ok"].astype(float).mean()
            assert metrics["errorRatePercent"] == pytest.approx(100 * failed, rel=1e-5, abs=1e-9)


def test_the_reward_is_that_of_the_request_alone(complete: Path, lines: list[dict[str, Any]]) -> None:
    facts = json.loads((complete / "dataset.json").read_text())
    weights = {name: facts["reward_weights"][name] for name in ("response_time", "error_rate", "user_satisfaction")}
    for line in lines[:500]:
        slo_ms, took_ms = facts["slo_ms"][line["metadata"]["service"]], line["metadata"]["duration_ms"]
        parts = {"response_time": 0.0, "error_rate": 0.0, "user_satisfaction": 0.0}
        if line["metadata"]["ok"]:
            satisfied = 1.0 if took_ms <= slo_ms else 0.5 if took_ms <= 4 * slo_ms else 0.0
            fast = 1 - min(took_ms / slo_ms, 2) / 2
            parts = {"response_time": fast, "error_rate": 1.0, "user_satisfaction": satisfied}
        expected = sum(weights[name] * parts[name] for name in parts) / sum(weights.values())
        assert line["reward"] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_no_request_is_seen_by_lines_of_both_parts(complete: Path) -> None:
    """A line sees the requests of its service that ended from one window before its state up to its next state."""
    requests = requests_of(complete)
    end_ns = (requests["start_unix_ns"] + requests["duration_us"].astype("int64") * 1000).to_numpy()
    seen = {}
    for part in PARTS:
        found = experiences(complete, part)
        begin, after = (
            pd.to_datetime([line[name]["timestamp"] for line in found]).as_unit("ns").asi8
            for name in ("state", "next_state")
        )
        service = np.array([line["metadata"]["service"] for line in found])
        seen[part] = np.zeros(len(requests), bool)
        for name in np.unique(service):
            since, until = begin[service == name] - 10_000_000_000, after[service == name]
            inside = (np.sort(since)[:, np.newaxis] <= end_ns).sum(0) - (np.sort(until)[:, np.newaxis] <= end_ns).sum(0)
            seen[part] |= (inside > 0) & (requests["service"] == name).to_numpy()
    assert seen["train"].sum() > seen["validation"].sum() > 100
    assert not (seen["train"] & seen["validation"]).any()


def test_what_is_not_known_gives_no_line_but_a_count(tmp_path: Path) -> None:
    run = builders.random_run(count=12000, missing=0.0, manifest={"actuator": "sandbox"})
    unknown = run.requests["instance_ref"] == 0
    run.requests["action_applied"][:] = MISSING_U8
    run.samples["cpu"][run.samples["service"] == 1] = np.nan
    run.samples["up"][(run.samples["service"] == 2) & (run.samples["instance_ref"] == 7)] = 0
    gone = (run.samples["service"] == 3) & (run.samples["t_ns"] > builders.at(30))
    run.samples["instance_ref"][(run.samples["service"] == 4) & (run.samples["instance_ref"] == 13)] = 0  # of nobody
    lost = builders.rows("in_flight", [{"start_ns": builders.at(100.5), "service": 0, "trace_hi": 1, "trace_lo": 1}])
    run = replace(run, samples=run.samples[~gone], in_flight=lost)
    bundle = written(run, tmp_path)
    found = [line for part in PARTS for line in experiences(bundle, part)]
    requests = requests_of(bundle)
    assert len(found) + sum(left_out(bundle).values()) == len(requests) == 12001
    assert set(left_out(bundle)) == set(REASONS)
    kept = requests[requests["split"].isin(PARTS) & requests["ok"].notna()]
    assert left_out(bundle)["no_instance"] == kept["instance"].isna().sum() < unknown.sum()
    assert {line["metadata"]["service"] for line in found} >= {"user-service", "cart-service"}
    services = [line["metadata"]["service"] for line in found]
    assert "inventory-service" not in services  # its CPU is never known
    assert all("action_applied" not in line["metadata"] for line in found)
    carts = [line["state"]["metrics"] for line in found if line["metadata"]["service"] == "cart-service"]
    assert {len(metrics) for metrics in carts} == {2}  # the pod that is down is not listed
    late = [line for line in found if line["metadata"]["service"] == "order-service"]
    assert all(requests.loc[line["metadata"]["trace_id"], "t_s"] < 40 for line in late)


def test_uptime_begins_again_after_a_pod_was_down_or_restarted(tmp_path: Path) -> None:
    run = builders.random_run(count=12000, missing=0.0)
    one, other = run.samples["instance_ref"] == 4, run.samples["instance_ref"] == 5
    run.samples["up"][one & (np.abs(run.samples["t_ns"] - builders.at(60)) < 3e9)] = 0
    run.samples["requests_total"][other] = np.where(run.samples["t_ns"][other] < builders.at(100), 500, 3)
    found = [line for part in PARTS for line in experiences(written(run, tmp_path), part)]
    begin = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    since_s = {"inventory-service-1": 63.99, "inventory-service-2": 101.99, "inventory-service-3": -0.01}
    seen = dict.fromkeys(since_s, 0)
    for line in found:
        t_s = (datetime.fromisoformat(line["state"]["timestamp"]) - begin).total_seconds()
        for pod, metrics in line["state"]["metrics"].items():
            if pod in seen and t_s > 110:
                assert metrics["uptimeSeconds"] == pytest.approx(t_s - since_s[pod], rel=1e-5)
                seen[pod] += 1
    assert min(seen.values()) > 0


def test_a_bundle_without_samples_is_refused(complete: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    for path in complete.rglob("*"):
        place = path.relative_to(complete)
        if path.is_file() and place.parts[0] != "formats" and "samples" not in place.parts:
            (old / place).parent.mkdir(parents=True, exist_ok=True)
            (old / place).symlink_to(path)
    with pytest.raises(ExportError, match=r"samples\.parquet: there is none; export the run folder again$"):
        write_formats(old, find_writers("jsonl"))


def test_without_a_metrics_source_there_is_no_line_and_that_is_said(tmp_path: Path) -> None:
    run = builders.random_run(missing=0.0)
    bundle = written(replace(run, samples=run.samples[:0]), tmp_path)
    for part in PARTS:
        assert (bundle / "formats" / "jsonl" / part / "rl_experiences.jsonl").read_bytes() == b""
    assert set(left_out(bundle)) == {"not_in_split", "no_instance", "no_sample"}
    assert sum(left_out(bundle).values()) == len(run.requests)

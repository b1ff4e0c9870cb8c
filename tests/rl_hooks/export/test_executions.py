"""What an executor remembers: what can be resumed and what cannot, and when a gate is not passed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rl_hooks.export.executions import Execution, ResumeError, gates, resume
from rl_hooks.export.summary import ScenarioResult

ASKED = {"host": None, "time_scale": 20.0}


def result(scenario: str, state: str = "complete", exit_code: int = 0, **run: Any) -> ScenarioResult:
    facts = {"requests": 100, "unfinished": 0, "ok": 90, "losses": [], **run}
    return ScenarioResult(scenario, "x.yaml", state, exit_code, f"runs/{scenario}", "b", ("a line",), facts, {})


def saved(logs: Path, stamp: str, *results: ScenarioResult, **special: Any) -> Execution:
    execution = Execution("comprehensive", stamp, ASKED, ("a", "b", "c"), scenarios=list(results), **special)
    execution.save(logs)
    return execution


def resumed(logs: Path, **asked: Any) -> Execution:
    return resume("comprehensive", "new", {**ASKED, **asked}, ["a", "b", "c"], logs)


def test_complete_scenarios_are_kept_and_the_others_are_left_to_do(tmp_path: Path) -> None:
    pause = {"after": "a", "before": "b", "duration_s": 1.0, "sent": 2, "ok": 2, "not_sent": 0, "mean_ms": 3.0}
    first, failed = result("a"), result("b", exit_code=1)
    saved(tmp_path, "20260101T000000Z", first, failed, result("c", "interrupted", 1), pauses=[pause])
    found = resumed(tmp_path)
    assert found.scenarios == [first]  # as it was, tuples and all
    assert (found.done, found.resumed_from, found.started_utc) == ({"a"}, "20260101T000000Z", "new")
    assert (found.state, found.pauses, found.planned) == ("running", [pause], ("a", "b", "c"))


def test_the_newest_of_the_same_mode_counts(tmp_path: Path) -> None:
    saved(tmp_path, "20260101T000000Z", result("a"))
    saved(tmp_path, "20260102T000000Z", result("a"), result("b"))
    replace(saved(tmp_path, "20260103T000000Z"), mode="custom").save(tmp_path)
    assert resumed(tmp_path).done == {"a", "b"}


def test_what_cannot_be_resumed_is_said_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="holds no execution of mode comprehensive to resume; start one without"):
        resumed(tmp_path)
    saved(tmp_path, "20260101T000000Z", result("a"))
    with pytest.raises(ResumeError, match=r"other options \(time_scale was 20\.0\); give the same, or start anew"):
        resumed(tmp_path, time_scale=10.0)
    saved(tmp_path, "20260102T000000Z", result("a"), result("b"), result("c"))
    with pytest.raises(ResumeError, match="all its scenarios are complete, there is nothing to resume; start anew"):
        resumed(tmp_path)
    (tmp_path / "rl_training_execution_results_20260103T000000Z.json").write_text("{cut")
    with pytest.raises(ResumeError, match=r"cannot be read \(.*\); move it away to go on with an older one"):
        resumed(tmp_path)


def test_saving_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    execution = saved(tmp_path, "20260101T000000Z", result("a"))
    execution.scenarios.append(result("b"))
    path = execution.save(tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    assert [entry["scenario"] for entry in json.loads(path.read_text())["scenarios"]] == ["a", "b"]


def test_gates() -> None:
    lost = [{"missing_rows": 3, "text": "x"}]
    assert gates(result("a"), 0.9, 0) == []
    assert gates(result("a"), 0.91, 0) == ["90.0% of the requests succeeded, less than --min-success 0.91 asks for"]
    assert gates(result("a", losses=lost), 0.5, 3) == []
    assert gates(result("a", losses=lost), 0.5, 2) == ["at least 3 rows are lost, and --max-rows-lost allows 2"]
    unknown = [{"missing_rows": 0, "text": "damaged"}]  # nobody knows how many it held
    assert gates(result("a", losses=unknown), 0.5, 99) == ["at least 0 rows are lost, and --max-rows-lost allows 99"]
    assert len(gates(result("a", requests=0, ok=0), 0.5, 0)) == 1
    assert gates(replace(result("a"), run=None), 1.0, 0) == []

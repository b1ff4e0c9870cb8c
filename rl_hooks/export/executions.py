"""The executor's memory: what an execution was asked to do, what came of each scenario, and where to go on.

rl_training_execution_results_<start>.json in logs/, replaced after every scenario, so that one that was killed can be
resumed too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rl_hooks.export.summary import ScenarioResult

NAME = "rl_training_execution_results_{}.json"
RUNNING, FINISHED, INTERRUPTED = "running", "finished", "interrupted"


class ResumeError(Exception):
    """There is nothing to go on with; the message says why and what to do."""


@dataclass
class Execution:
    """One call of the executor."""

    mode: str
    started_utc: str
    asked: Mapping[str, Any]  # what decides about the runs; only an execution with the same can be resumed
    planned: tuple[str, ...]  # scenarios, in order
    resumed_from: str | None = None  # start of the execution that this one goes on with
    scenarios: list[ScenarioResult] = field(default_factory=list)
    pauses: list[dict[str, Any]] = field(default_factory=list)
    state: str = RUNNING

    @property
    def done(self) -> set[str]:
        """Scenarios that need not be run again: complete, and not failed."""
        return {result.scenario for result in self.scenarios if result.state == "complete" and result.exit_code == 0}

    def save(self, logs: Path) -> Path:
        """Write the file, replacing an earlier one of this execution. OSError when there is no room."""
        path = logs / NAME.format(self.started_utc)
        beside = path.with_suffix(".new")
        text = json.dumps(asdict(self), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
        return path


def resume(mode: str, started_utc: str, asked: Mapping[str, Any], planned: Sequence[str], logs: Path) -> Execution:
    """An execution that goes on with the newest one of the same mode in `logs`. Raises ResumeError."""
    files = sorted(logs.glob(NAME.format("*")), reverse=True)
    for file in files:
        content = _read(file)
        if content.get("mode") != mode:
            continue
        differing = sorted(name for name in asked if content.get("asked", {}).get(name) != asked[name])
        if differing:
            told = ", ".join(f"{name} was {content.get('asked', {}).get(name)}" for name in differing)
            raise ResumeError(f"{file}: cannot be resumed with other options ({told}); give the same, or start anew")
        earlier = Execution(mode, content["started_utc"], asked, tuple(planned))
        earlier.scenarios = [_result(entry) for entry in content["scenarios"]]
        kept = [result for result in earlier.scenarios if result.scenario in earlier.done]
        if len(kept) == len(planned):
            raise ResumeError(f"{file}: all its scenarios are complete, there is nothing to resume; start anew")
        return Execution(mode, started_utc, asked, tuple(planned), earlier.started_utc, kept, list(content["pauses"]))
    raise ResumeError(f"{logs}: holds no execution of mode {mode} to resume; start one without --resume")


def gates(result: ScenarioResult, min_success: float, max_rows_lost: int) -> list[str]:
    """Which gates a scenario that was exported did not pass, as sentences."""
    run = result.run
    if run is None:
        return []
    failed = []
    ended, lost = run["requests"] - run["unfinished"], sum(loss["missing_rows"] for loss in run["losses"])
    success = run["ok"] / ended if ended else 0.0
    if success < min_success:
        failed.append(f"{success:.1%} of the requests succeeded, less than --min-success {min_success:g} asks for")
    if lost > max_rows_lost or any(loss["missing_rows"] == 0 for loss in run["losses"]):
        failed.append(f"at least {lost} rows are lost, and --max-rows-lost allows {max_rows_lost}")
    return failed


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResumeError(f"{file}: cannot be read ({error}); move it away to go on with an older one") from error
    return content if isinstance(content, dict) else {}


def _result(entry: Mapping[str, Any]) -> ScenarioResult:
    return ScenarioResult(**{**entry, "tally": tuple(entry["tally"]), "gates": tuple(entry["gates"])})

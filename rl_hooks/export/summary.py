"""The report on one execution: what came of each scenario, in the Markdown that a person reads.

rl_training_summary_report_<start>.md
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ScenarioResult:
    """What came of one scenario."""

    scenario: str
    config: str  # the scenario file
    state: str  # complete | interrupted | not started
    exit_code: int
    run_folder: str
    bundle: str | None
    tally: tuple[str, ...]  # what the export printed
    run: Mapping[str, Any] | None  # its entry under `runs` in the bundle's dataset.json
    counts: Mapping[str, Any] | None  # `counts` there
    gates: tuple[str, ...] = ()  # gates that it did not pass, as sentences


def read_result(
    folder: Path, scenario: str, config: str, state: str, exit_code: int, tally: Sequence[str]
) -> ScenarioResult:
    """The result of the run in `folder`, with what its bundle says where there is one."""
    bundle = folder / "bundle"
    if not bundle.is_dir():
        return ScenarioResult(scenario, config, state, exit_code, str(folder), None, tuple(tally), None, None)
    facts = json.loads((bundle / "dataset.json").read_text(encoding="utf-8"))
    run, counts = facts["runs"][0], facts["counts"]
    return ScenarioResult(scenario, config, state, exit_code, str(folder), str(bundle), tuple(tally), run, counts)


def write_report(
    logs: Path,
    mode: str,
    started_utc: str,
    results: Sequence[ScenarioResult],
    pauses: Sequence[Mapping[str, Any]],
    others: Sequence[Path],
) -> Path:
    """Write the report; `others` are named in it. Returns its path; OSError when there is no room."""
    report = logs / f"rl_training_summary_report_{started_utc}.md"
    report.write_text(summary_report(mode, started_utc, results, pauses, others), encoding="utf-8")
    return report


def summary_report(
    mode: str,
    started_utc: str,
    results: Sequence[ScenarioResult],
    pauses: Sequence[Mapping[str, Any]],
    logs: Sequence[Path],
) -> str:
    """One section per scenario; `logs` are the files about the whole execution."""
    lines = [f"# Summary of {mode}, started {started_utc}", ""]
    for result in results:
        failed = [f"- gate not passed: {text}" for text in result.gates]
        lines += [
            f"## {result.scenario}: {result.state}",
            "",
            *_section(result),
            "",
            *failed,
            *([""] if failed else []),
        ]
    if pauses:
        lines += ["## Pauses between scenarios", "", *_table(_PAUSE, [_pause(pause) for pause in pauses]), ""]
    return "\n".join([*lines, "## Logs", "", *(f"- `{path}`" for path in logs)]) + "\n"


_PAUSE = ("after", "seconds", "background requests", "ok", "mean")


def _pause(pause: Mapping[str, Any]) -> tuple[str, ...]:
    mean = "" if pause["mean_ms"] is None else f"{pause['mean_ms']:.0f} ms"
    return (pause["after"], f"{pause['duration_s']:.0f}", f"{pause['sent']:,}", f"{pause['ok']:,}", mean)


def _section(result: ScenarioResult) -> list[str]:
    if result.run is None or result.counts is None:
        facts = [("state", result.state), ("scenario file", result.config), ("exit code", str(result.exit_code))]
        again = f"`python -m rl_hooks.export {result.run_folder}`"
        return [*_table(("", ""), facts), "", f"There is no bundle. This makes one of what was recorded: {again}"]
    run, counts = result.run, result.counts
    profiles = [(name, *_conversion(found)) for name, found in run["conversion"].items()]
    actions = [(name, "" if share is None else f"{share:.1%}") for name, share in counts["action_shares"].items()]
    excluded = [(name, str(why["rows"]), why["meaning"]) for name, why in counts["excluded"].items() if why["rows"]]
    return [
        *_table(("", ""), [*_setting(result, run), *_outcome(run, counts), *_verdict(result)]),
        *("", "Conversion, over the sessions that ended by themselves:", ""),
        *_table(("profile", "planned", "actual", "sessions", "with a paid order", "cut short"), profiles),
        *("", "Actions, as a share of the decisions:", ""),
        *_table(("action", "share"), actions),
        *(["", "Left out of both splits:", "", *_table(("reason", "rows", "meaning"), excluded)] if excluded else []),
        *("", "Where things are:", ""),
        *(f"- {name}: `{path}`" for name, path in (("run folder", result.run_folder), ("bundle", result.bundle))),
        *(f"- log: `{path}`" for path in _told(result, "log")),
        *(f"- report card: `{path}`" for path in _told(result, "report card")),
    ]


def _verdict(result: ScenarioResult) -> list[tuple[str, str]]:
    return [("verdict", text) for text in _told(result, "verdict")]


def _told(result: ScenarioResult, name: str) -> list[str]:
    """What the tally says behind a name."""
    return [line.removeprefix(name).strip() for line in result.tally if line.startswith(f"{name} ")]


def _setting(result: ScenarioResult, run: Mapping[str, Any]) -> list[tuple[str, str]]:
    scale = f"time scale {run['time_scale']:g}, user scale {run['user_scale']:g}"
    return [
        ("state", f"{result.state}, exit code {result.exit_code}"),
        ("scenario file", result.config),
        ("scales", f"{scale}{' (compressed)' if run['compressed'] else ''}"),
        ("duration", _duration(run)),
        ("target", f"{run['target']} ({run['balancer']})"),
        ("logging policy", f"{run['logging_policy']}, seed {run['seed']}"),
    ]


def _outcome(run: Mapping[str, Any], counts: Mapping[str, Any]) -> list[tuple[str, str]]:
    ended, parts = run["requests"] - run["unfinished"], counts["transitions"]
    ok = f"{run['ok'] / ended:.2%} ok" if ended else "none ended"
    unknown = f", {run['unfinished']} with unknown end" if run["unfinished"] else ""
    sessions = run["sessions_by_outcome"]
    outcomes = ", ".join(f"{sessions[name]:,} {name}" for name in ("ended", "truncated", "failed"))
    lost = sum(loss["missing_rows"] for loss in run["losses"])
    return [
        ("requests", f"{run['requests']:,}, {ok}{unknown}, {run['retries']:,} retries"),
        ("sessions", f"{sessions['sessions']:,}: {outcomes}"),
        ("decisions", f"{run['decisions']:,}"),
        ("rows lost", f"at least {lost:,}" if run["losses"] else "0"),
        ("transitions", ", ".join(f"{name} {rows:,}" for name, rows in parts.items())),
        *([("faults", _faults(run["faults"]))] if _faults(run["faults"]) else []),
    ]


def _faults(faults: Mapping[str, Any]) -> str:
    if faults["without_faults"]:
        return "left out on request (--no-faults)"
    names = ("planned", "applied", "lifted", "not_applied", "not_lifted")
    counts = ", ".join(f"{faults[name]} {name.replace('_', ' ')}" for name in names if faults[name])
    return f"{counts} (by {faults['injector']})" if counts else ""


def _conversion(found: Mapping[str, Any]) -> tuple[str, ...]:
    actual = "no session ended" if found["actual"] is None else f"{found['actual']:.1%}"
    numbers = (found[name] for name in ("sessions", "with_paid_order", "cut_short"))
    return (f"{found['planned']:.1%}", actual, *(f"{number:,}" for number in numbers))


def _duration(run: Mapping[str, Any]) -> str:
    if run["ended_unix_ns"] is None:
        return "not known, it was killed"
    seconds = round((run["ended_unix_ns"] - run["started_unix_ns"]) / 1e9)
    return f"{seconds // 60} min {seconds % 60} s of real time"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---" for _ in head], *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]

"""The same traffic in front of three balancers: a bundle and a report card of each, and a table of all.

    python -m benchmarks.balancers [--out runs/balancers] [--scenario NAME --config FILE] [--time-scale 45] ...

Same scenario, seed and scales; the sandbox's instances are the same model with the same seed behind each balancer. The
runs follow each other, never two at a time. Writes `comparison.md` and `comparison.json` beside the runs. Measures
nothing that could be missed, so it has no target; it fails when a run does.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psutil  # Locust depends on it

from rl_hooks.decision import ACTIONS

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("sandbox", "envoy", "haproxy")
READY = "sandbox ready: "
NOT_KNOWN = "-"

Facts = dict[str, Any]


@dataclass(frozen=True)
class Running:
    """A sandbox that runs."""

    host: str
    process: psutil.Process

    def cpu_s(self) -> tuple[float, float]:
        """CPU time so far of the sandbox's own process, and of the balancer's when that is another one."""
        return _cpu_s(self.process), sum(_cpu_s(child) for child in self.process.children())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.balancers", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/balancers"))
    parser.add_argument("--config", default="comprehensive_rl_training_config.yaml")
    parser.add_argument("--scenario", default="comprehensive_rl_training")
    parser.add_argument("--time-scale", default="45")
    parser.add_argument("--user-scale", default="0.2")
    parser.add_argument("--seed", default="42")
    parser.add_argument("--balancer", choices=KINDS, action="append", help="only these; may be repeated")
    options = parser.parse_args()
    columns = {kind: _record(kind, options) for kind in options.balancer or KINDS}
    table = comparison_table(columns)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "comparison.json").write_text(json.dumps(columns, indent=2) + "\n", encoding="utf-8")
    (options.out / "comparison.md").write_text("\n".join([*_head(options), "", *table]) + "\n", encoding="utf-8")
    print("\n".join(table))
    print(f"\n{options.out / 'comparison.md'}")
    return 0 if all(facts["exit_code"] == 0 for facts in columns.values()) else 1


# -- A run -------------------------------------------------------------------------------------------------------------


def _record(kind: str, options: argparse.Namespace) -> Facts:
    """A run against one balancer, and what is told about it."""
    runs = options.out / kind
    before = set(runs.glob("*/manifest.json"))
    command = [sys.executable, str(ROOT / "rl_training_executor.py"), "--mode", "custom", "--config", options.config]
    command += ["--scenario", options.scenario, "--time-scale", options.time_scale, "--user-scale", options.user_scale]
    command += ["--seed", options.seed, "--runs", str(runs), "--logs", str(runs / "logs")]
    print(f"\n{kind}", flush=True)
    with _sandbox(kind, options.seed) as sandbox:
        began = sandbox.cpu_s()
        done = subprocess.run([*command, "--host", sandbox.host], check=False)
        ended = sandbox.cpu_s()
    (manifest,) = set(runs.glob("*/manifest.json")) - before
    cpu_s = [after - earlier for earlier, after in zip(began, ended, strict=True)]
    return {"exit_code": done.returncode, **bundle_facts(manifest.parent / "bundle"), "cpu_s": cpu_s}


@contextmanager
def _sandbox(kind: str, seed: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "sandbox", "--port", "0", "--balancer", kind, "--seed", seed]
    command += ["--parent", str(os.getpid())]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = next((line for line in process.stdout if line.startswith(READY)), None)
        if ready is None:
            raise SystemExit(f"the sandbox behind {kind} did not start, see above")
        try:
            yield Running(ready.removeprefix(READY).split()[0], psutil.Process(process.pid))
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


# -- What a bundle says ------------------------------------------------------------------------------------------------


def bundle_facts(bundle: Path) -> Facts:
    """The numbers of the table, from the bundle's files and its report card."""
    requests = pd.read_parquet(bundle / "data/requests/requests.parquet")
    steps = pd.concat(pd.read_parquet(path) for path in _step_files(bundle))
    counts = json.loads((bundle / "dataset.json").read_text(encoding="utf-8"))["counts"]
    card = json.loads((bundle / "report_card.json").read_text(encoding="utf-8"))
    latency_ms = requests["duration_us"] / 1000
    measured = steps[~steps["reward_filled"].astype(bool) & (steps["n_requests"] > 0)]
    by_action = measured.groupby("action_name", observed=True)["reward"]
    checks = {check["name"]: check for check in card["checks"]}
    return {
        "requests": len(requests),
        "success": float(requests["ok"].mean()),
        "latency_mean_ms": float(latency_ms.mean()),
        "latency_p50_ms": float(latency_ms.quantile(0.5)),
        "latency_p95_ms": float(latency_ms.quantile(0.95)),
        "statuses": {str(status): int(count) for status, count in requests["status"].value_counts().items()},
        "applied_share": _applied_share(requests),
        "decisions": counts["decisions"],
        "transitions": counts["transitions"],
        "action_differs": counts["action_differs"],
        "action_shares": counts["action_shares"],
        "reward_by_action": {str(action): float(value) for action, value in by_action.mean().items()},
        "reward_error_by_action": {str(action): float(value) for action, value in by_action.sem().items()},
        "missing_telemetry": checks["missing_telemetry"]["numbers"].get("share"),
        "verdict": card["verdict"],
        "decided_by": card["decided_by"],
    }


def _step_files(bundle: Path) -> list[Path]:
    """Those with transitions of both splits, and with what is in neither."""
    return sorted(
        path for folder in ("transitions", "excluded") for path in (bundle / "data" / folder).glob("*.parquet")
    )


def _applied_share(requests: pd.DataFrame) -> float:
    """Of the requests that asked for an action and were answered: those the balancer says it served by it."""
    asked = requests["action_requested"].astype(object)
    applied = requests["action_applied"].astype(object)
    answered = asked.notna() & (requests["status"] > 0)
    return float((asked[answered] == applied[answered]).mean())


# -- The table ---------------------------------------------------------------------------------------------------------


def comparison_table(columns: dict[str, Facts]) -> list[str]:
    """Markdown; a row per fact, a column per balancer."""
    rows: list[tuple[str, list[str]]] = []

    def row(name: str, texts: Iterator[str]) -> None:
        rows.append((name, list(texts)))

    facts = columns.values()
    row("requests", (f"{one['requests']}" for one in facts))
    row("success", (f"{one['success']:.2%}" for one in facts))
    row("latency mean / p50 / p95, ms", (_latencies(one) for one in facts))
    row("applied as requested", (f"{one['applied_share']:.2%}" for one in facts))
    row("decisions", (f"{one['decisions']}" for one in facts))
    row("transitions train / validation / excluded", (_transitions(one) for one in facts))
    row("excluded because another action was applied", (f"{one['action_differs']}" for one in facts))
    row("telemetry missing", (_measured(one["missing_telemetry"]) for one in facts))
    for action in ACTIONS:
        row(f"share of decisions, {action}", (f"{one['action_shares'].get(action, 0.0):.1%}" for one in facts))
    for action in ACTIONS:
        row(f"reward (standard error), {action}", (_reward(one, action) for one in facts))
    row("CPU of sandbox / balancer, us a request", (_cpu(one) for one in facts))
    row("verdict", (f"{one['verdict']} ({', '.join(one['decided_by']) or 'no check'})" for one in facts))
    head = [_line(["", *columns]), _line(["---"] * (1 + len(columns)))]
    return head + [_line([name, *texts]) for name, texts in rows]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _latencies(facts: Facts) -> str:
    return " / ".join(f"{facts[f'latency_{name}_ms']:.1f}" for name in ("mean", "p50", "p95"))


def _transitions(facts: Facts) -> str:
    return " / ".join(str(facts["transitions"][name]) for name in ("train", "validation", "excluded"))


def _measured(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:.2%}"


def _reward(facts: Facts, action: str) -> str:
    if action not in facts["reward_by_action"]:
        return NOT_KNOWN
    return f"{facts['reward_by_action'][action]:.3f} ({facts['reward_error_by_action'][action]:.3f})"


def _cpu(facts: Facts) -> str:
    own, balancer = (1e6 * cpu_s / facts["requests"] for cpu_s in facts["cpu_s"])
    return f"{own:.0f} / {f'{balancer:.0f}' if balancer else 'the same process'}"


def _head(options: argparse.Namespace) -> list[str]:
    scales = f"time scale {options.time_scale}, user scale {options.user_scale}"
    machine = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    return [f"Scenario {options.scenario}, seed {options.seed}, {scales}; {machine}."]


if __name__ == "__main__":
    sys.exit(main())

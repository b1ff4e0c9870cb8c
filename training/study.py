"""`python -m training.study`: which logging policy makes data that trains a good policy, and does the card know.

Every logging policy records the same days. Of each bundle: the report card's verdict, and the policy that the default
algorithm learns from it, compared in virtual time with the best fixed strategy, in the same worlds for all.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rl_hooks.decision import ACTIONS
from rl_hooks.export.bundle import write_json
from rl_hooks.export.errors import ExportError
from rl_hooks.policies.builtin import PolicyError
from rl_hooks.run_folder import RunFolderError
from scenario.errors import ScenarioError
from training.comparison import Difference, paired
from training.errors import TrainingError
from training.proof import FIRST_EVALUATED, Proof, collect, keep_to, proof_of, train
from training.settings import ALGORITHMS
from training.virtual import Job, World, run_all

EXIT_OK, EXIT_REFUSED = 0, 2
REPORT = "study.json"
LOGGED_BY = ("uniform", "sticky:0.5", "epsilon:0.3:backpressure", "epsilon:0.1:backpressure")


@dataclass(frozen=True)
class Row:
    """One logging policy and what its data was worth."""

    logging_policy: str
    verdict: str
    decided_by: Sequence[str]
    steps: int
    best_fixed: str
    difference: Difference  # in reward, the trained policy less the best fixed strategy

    def to_json(self) -> dict[str, Any]:
        one = self.difference
        numbers = {"value": one.value, "low": one.low, "high": one.high}
        return {
            "logging_policy": self.logging_policy,
            "verdict": self.verdict,
            "decided_by": list(self.decided_by),
            "transitions": self.steps,
            "best_fixed": self.best_fixed,
            "less_best_fixed": numbers,
        }

    def line(self) -> str:
        one = self.difference
        return (
            f"{self.logging_policy:<26} {self.verdict:<42} {one.value:+.4f} ({one.low:+.4f} to {one.high:+.4f})"
            f"  {', '.join(self.decided_by) or '-'}"
        )


def study(proof: Proof, logging_policies: Sequence[str], runs: Path) -> list[Row]:
    """Record, judge and train for each, then compare all in the same worlds. `runs`: where results are kept."""
    parts = {name: replace(proof, out=proof.out / _folder(name), logging_policy=name) for name in logging_policies}
    for part in parts.values():
        keep_to(part)
        train(part, collect(part), ALGORITHMS[:1])
    seeds = range(FIRST_EVALUATED, FIRST_EVALUATED + proof.seeds)
    trained = {name: f"onnx:{part.policy}" for name, part in parts.items()}
    world = World(proof.scenario_file, proof.scenario, proof.time_scale, 1.0)
    jobs = [Job(text, seed) for seed in seeds for text in (*trained.values(), *ACTIONS)]
    found = run_all(jobs, world, runs, proof.processes, lambda text: print(text, flush=True))
    rewards = {
        text: np.array([found[Job(text, seed)]["measures"]["reward"] for seed in seeds])
        for text in (*trained.values(), *ACTIONS)
    }
    best = max(ACTIONS, key=lambda name: float(rewards[name].mean()))
    return [_row(name, part, best, paired(rewards[trained[name]], rewards[best])) for name, part in parts.items()]


def _row(name: str, part: Proof, best: str, difference: Difference) -> Row:
    card: Mapping[str, Any] = json.loads((part.out / "bundle" / "report_card.json").read_text(encoding="utf-8"))
    facts = json.loads((part.out / "bundle" / "dataset.json").read_text(encoding="utf-8"))
    steps = sum(facts["counts"]["transitions"][side] for side in ("train", "validation"))
    return Row(name, card["verdict"], card["decided_by"], steps, best, difference)


def _folder(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: done; 2: refused or failed, with one message."""
    options = _parser().parse_args(arguments)
    try:
        asked = {name: value for name, value in vars(options).items() if name != "runs"}
        proof = proof_of({**asked, "logging_policy": "", "live_seeds": 0})
        rows = study(proof, options.logging_policy or LOGGED_BY, options.runs or options.out / "runs")
    except (TrainingError, ScenarioError, PolicyError, ExportError, RunFolderError, OSError) as error:
        print(f"study: {error}", file=sys.stderr)
        return EXIT_REFUSED
    write_json(options.out / REPORT, {"best_fixed": rows[0].best_fixed, "rows": [row.to_json() for row in rows]})
    head = f"{'logged by':<26} {'report card':<42} {f'reward less {rows[0].best_fixed}':<30}  decided by"
    print("\n".join(["", head, *(row.line() for row in rows), "", f"written  {options.out / REPORT}"]))
    return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.study", description="Compare logging policies.")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("study"), help="(default: %(default)s)")
    parser.add_argument("--logging-policy", metavar="P", action="append", help=f"repeatable ({', '.join(LOGGED_BY)})")
    parser.add_argument(
        "--runs", metavar="DIR", type=Path, help="results to go on from, as those of a proof (OUT/runs)"
    )
    parser.add_argument("--scenario-file", default="comprehensive_rl_training_config.yaml", metavar="FILE")
    parser.add_argument("--scenario", metavar="NAME")
    parser.add_argument("--time-scale", type=float, default=10.0, help="(default: %(default)s)")
    parser.add_argument("--days", type=int, default=2, help="recorded by each (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="compared with (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="runs at a time (%(default)s)")
    parser.add_argument("--config", metavar="FILE", type=Path, help="settings of training, as `python -m training`")
    return parser


if __name__ == "__main__":
    sys.exit(main())

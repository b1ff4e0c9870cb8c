"""`make proof`: what the data is worth. Record, train, judge off policy, deploy, compare with every fixed strategy.

    collect     days in virtual time, logged by an exploring policy --> bundle and report card
    train       cql, awac, cloning --> policies
    judge       the cql policy from the validation part of the bundle alone
    evaluate    the policies in worlds of other seeds, each fixed strategy in the same, paired by seed
    live        the policy and all fixed strategies take turns on the running sandbox
    claims      what was to be shown, and whether it was

Every step is a command that anybody can give alone; it is printed. What a step has left in the folder is not made
again, so an interrupted proof goes on where it was.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_hooks.decision import ACTIONS
from scenario.errors import ScenarioError
from scenario.load import find_file, load_file
from training import claims
from training.errors import TrainingError
from training.settings import ALGORITHMS

EXIT_DONE, EXIT_FAILED, EXIT_REFUSED = 0, 1, 2
REPORT, OPTIONS = "proof.json", "options.json"
FIT_FOR_TRAINING = (0, 1)  # exit codes of the report card: whatever its verdict is, it is part of the proof


@dataclass(frozen=True)
class Proof:
    """What is proven where."""

    out: Path
    scenario_file: str
    scenario: str
    time_scale: float
    days: int
    seeds: int
    live_seeds: int
    logging_policy: str
    processes: int
    config: Path | None

    @property
    def policy(self) -> Path:
        return self.out / ALGORITHMS[0] / "policy.onnx"

    @property
    def worlds(self) -> list[str]:
        """As the commands of virtual time take them."""
        scale = f"{self.time_scale:g}"
        return ["--scenario-file", self.scenario_file, "--scenario", self.scenario, "--time-scale", scale]


FEW = 3
"""Seeds with which the other algorithms are compared: they are no claim."""

FIRST_SEED, FIRST_EVALUATED, FIRST_LIVE = 1, 2001, 3001
"""Seeds of collection, evaluation and live runs: no world is in two of them."""


def proof_of(options: Mapping[str, Any]) -> Proof:
    """What options by the names of Proof's fields ask for. TrainingError names every one that makes no proof."""
    problems = [
        f"--{name.replace('_', '-')}: must be {least} or more"
        for name, least in (("days", 1), ("seeds", 2), ("live_seeds", 0), ("processes", 1))
        if options[name] < least
    ]
    if options["config"] is not None and not options["config"].is_file():
        problems.append(f"--config: there is no file {options['config']}")
    if problems:
        raise TrainingError("\n  ".join(problems))
    scenario = load_file(find_file(options["scenario_file"])).scenario(options["scenario"])
    return Proof(**{**options, "scenario": scenario.name})


def keep_to(proof: Proof) -> None:
    """Write down what the folder is made with. TrainingError when it was made with something else."""
    left_out = ("out", "live_seeds", "processes", "config")
    config = None if proof.config is None else proof.config.read_text(encoding="utf-8")
    asked = {name: value for name, value in vars(proof).items() if name not in left_out} | {"config": config}
    kept = proof.out / OPTIONS
    if not kept.is_file():
        proof.out.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")
        return
    there = json.loads(kept.read_text(encoding="utf-8"))
    differing = [
        f"{name} ({there.get(name)!r}, now {value!r})" for name, value in asked.items() if there.get(name) != value
    ]
    if differing:
        text = f"{proof.out}: was made with other options, {', '.join(differing)}"
        raise TrainingError(f"{text}; choose another folder with --out, or remove it")


def collect(proof: Proof) -> Path:
    """Record the days, some at a time, and make one bundle of them with its report card."""
    bundle, days = proof.out / "bundle", proof.out / "days"

    def record(seed: int) -> Path:
        folder = days / f"day_{seed}"
        if not _has_ended(folder):
            command = ["sandbox.virtual", *proof.worlds, "--policy", proof.logging_policy, "--seed", str(seed)]
            _remove_unfinished(folder)
            _run([*command, "--run-folder", str(folder)])
        return folder

    with ThreadPoolExecutor(proof.processes) as pool:
        folders = [str(one) for one in pool.map(record, range(FIRST_SEED, FIRST_SEED + proof.days))]
    if not (bundle / "dataset.json").is_file():
        _run(["rl_hooks.export", *folders, "--out", str(bundle), "--logs", str(proof.out / "logs")])
    if not (bundle / "report_card.json").is_file():
        _run(["rl_hooks.report", str(bundle), *folders], good=FIT_FOR_TRAINING)
    return bundle


def train(proof: Proof, bundle: Path, algorithms: Sequence[str] = ALGORITHMS) -> None:
    """A policy by each algorithm."""
    for algorithm in algorithms:
        out = proof.out / algorithm
        if not (out / "policy.onnx").is_file():
            config = [] if proof.config is None else ["--config", str(proof.config)]
            _run(["training", str(bundle), "--algorithm", algorithm, "--out", str(out), *config])


def judge(proof: Proof, bundle: Path) -> None:
    """Off policy, from steps that no network was fitted to."""
    if not (proof.out / "judge.json").is_file():
        _run(["training.judge", str(proof.policy), str(bundle), "--out", str(proof.out)])


def evaluate(proof: Proof) -> None:
    """In virtual time: the policy with all seeds, and those of the other two algorithms with the first few."""
    for algorithm, seeds, place in ((ALGORITHMS[0], proof.seeds, "evaluation"), (ALGORITHMS[1], FEW, "algorithms")):
        out = proof.out / place
        if not (out / "evaluation.json").is_file():
            others = [f"onnx:{proof.out / name / 'policy.onnx'}" for name in ALGORITHMS if place == "algorithms"]
            command = ["training.evaluate", str(proof.out / algorithm / "policy.onnx"), *proof.worlds]
            command += ["--seeds", str(min(seeds, proof.seeds)), "--first-seed", str(FIRST_EVALUATED)]
            command += [argument for name in others for argument in ("--also", name)]
            command += ["--out", str(out), "--runs", str(proof.out / "runs"), "--processes", str(proof.processes)]
            _run(command)


def live(proof: Proof) -> None:
    """On the running sandbox, with Locust: one run per seed."""
    runs = []
    turns = ",".join((f"onnx:{proof.policy}", *ACTIONS, "uniform"))
    for seed in range(FIRST_LIVE, FIRST_LIVE + proof.live_seeds):
        place = proof.out / "live" / f"seed_{seed}"
        if not (ended := [folder for folder in place.glob("*") if _has_ended(folder)]):
            command = ["rl_training_executor.py", "--mode", "custom", "--config", proof.scenario_file]
            command += ["--scenario", proof.scenario, "--time-scale", f"{proof.time_scale:g}", "--seed", str(seed)]
            command += ["--logging-policy", f"turns:{turns}", "--runs", str(place), "--logs", str(proof.out / "logs")]
            _run(command)
            ended = [folder for folder in place.glob("*") if _has_ended(folder)]
        runs += [str(folder) for folder in ended]
    compared = proof.out / "live.json"
    names = sorted(Path(run).name for run in runs)
    if runs and not (compared.is_file() and sorted(json.loads(compared.read_text(encoding="utf-8"))["runs"]) == names):
        _run(["training.live", *runs, "--out", str(proof.out)])


def _run(command: Sequence[str], good: Sequence[int] = (0,)) -> None:
    """A step, in a process of its own: a module of ours or a script. Raises TrainingError when it fails."""
    how = [command[0]] if command[0].endswith(".py") else ["-m", command[0]]
    print(f"\n$ python {' '.join((*how, *command[1:]))}", flush=True)
    code = subprocess.run([sys.executable, *how, *command[1:]], check=False).returncode
    if code not in good:
        raise TrainingError(f"{command[0]} ended with exit code {code}; mend it and start again, what is done is kept")


def _has_ended(folder: Path) -> bool:
    manifest = folder / "manifest.json"
    return manifest.is_file() and json.loads(manifest.read_text(encoding="utf-8")).get("state") == "complete"


def _remove_unfinished(folder: Path) -> None:
    """A recording in virtual time that was interrupted; the same seed gives the same again."""
    if folder.exists():
        shutil.rmtree(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: done, whether or not the claims hold; 1: a step failed; 2: refused."""
    options = _parser().parse_args(arguments)
    try:
        proof = proof_of(vars(options))
        keep_to(proof)
    except (ScenarioError, TrainingError, OSError) as error:
        print(f"proof: {error}", file=sys.stderr)
        return EXIT_REFUSED
    try:
        bundle = collect(proof)
        train(proof, bundle)
        judge(proof, bundle)
        evaluate(proof)
        live(proof)
        found = claims.read(proof.out)
    except TrainingError as error:
        print(f"proof: {error}", file=sys.stderr)
        return EXIT_FAILED
    (proof.out / REPORT).write_text(json.dumps(found.to_json(), indent=1) + "\n", encoding="utf-8")
    print("\n".join(["", *found.lines(), "", f"written  {proof.out / REPORT}; tables and pictures beside it"]))
    return EXIT_DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.proof", description="Show what the data is worth.")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("proof"), help="(default: %(default)s)")
    parser.add_argument("--scenario-file", default="comprehensive_rl_training_config.yaml", metavar="FILE")
    parser.add_argument("--scenario", metavar="NAME")
    parser.add_argument("--time-scale", type=float, default=10.0, help="of all of it (default: %(default)s)")
    parser.add_argument("--days", type=int, default=8, help="that are recorded to learn from (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=10, help="that policies are compared with (default: %(default)s)")
    parser.add_argument("--live-seeds", type=int, default=1, help="runs on the sandbox (default: %(default)s)")
    parser.add_argument("--logging-policy", default="uniform", help="that the days are recorded with (%(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="runs at a time (%(default)s)")
    parser.add_argument("--config", metavar="FILE", type=Path, help="settings of training, as `python -m training`")
    return parser


if __name__ == "__main__":
    sys.exit(main())

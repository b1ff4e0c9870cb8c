"""Policies against each other in virtual time: every policy runs the whole scenario, in the same worlds.

A seed fixes shoppers and weather, so what two policies differ by is paired by seed. Each run is a process of its own
(`python -m sandbox.virtual`), is measured as an exporter would judge it, and its folder is removed again. What came of
it stays in the work folder: whoever goes on after an interruption, or adds a policy, runs only what is missing.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.decision import ACTIONS
from rl_hooks.policies.named import make_policy
from rl_hooks.version import VERSION
from training.comparison import Comparison, paired
from training.errors import TrainingError
from training.outcome import Outcome, read_outcome

Floats = npt.NDArray[np.float64]

OTHERS = (*ACTIONS, "uniform")
"""What a policy is compared with: every fixed strategy, and uniform."""


@dataclass(frozen=True)
class World:
    """What all runs have in common."""

    scenario_file: str
    scenario: str | None
    time_scale: float
    user_scale: float

    def options(self) -> list[str]:
        """As `python -m sandbox.virtual` takes them."""
        named = [] if self.scenario is None else ["--scenario", self.scenario]
        scales = ["--time-scale", f"{self.time_scale:g}", "--user-scale", f"{self.user_scale:g}"]
        return ["--scenario-file", self.scenario_file, *named, *scales]


@dataclass(frozen=True)
class Job:
    """One run: a policy as `make_policy` names it, in the world of one seed."""

    policy: str
    seed: int


def run_all(
    jobs: Sequence[Job], world: World, work: Path, processes: int, tell: Callable[[str], None]
) -> dict[Job, Mapping[str, Any]]:
    """What came of every job, some at a time. `tell` hears of each that has ended.

    Raises PolicyError for a policy that does not exist and TrainingError when a run fails; what is done by then stays.
    """
    work.mkdir(parents=True, exist_ok=True)
    names = {job.policy: make_policy(job.policy).describe() for job in jobs}
    lock, done = threading.Lock(), 0

    def one(job: Job) -> Mapping[str, Any]:
        nonlocal done
        found = _run(job, names[job.policy], world, work)
        with lock:
            done += 1
            tell(
                f"{done} of {len(jobs)}: {names[job.policy]}, seed {job.seed}: reward {found['measures']['reward']:.4f}"
            )
        return found

    with ThreadPoolExecutor(processes) as pool:
        try:
            return dict(zip(jobs, pool.map(one, jobs), strict=True))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # what has begun ends; nothing else begins
            raise


def _run(job: Job, name: str, world: World, work: Path) -> Mapping[str, Any]:
    """The result of a job: kept from before where it is of the same policy, world and version."""
    key = {"policy": name, "seed": job.seed, "version": VERSION, **asdict(world)}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    kept = work / f"{_safe(name)}_{job.seed}_{digest}.json"
    if kept.is_file():
        found: Mapping[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    folder = kept.with_suffix(".run")
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "sandbox.virtual", "--policy", job.policy, "--seed", str(job.seed)]
    ended = subprocess.run(
        [*command, *world.options(), "--run-folder", str(folder)], capture_output=True, text=True, check=False
    )
    if ended.returncode != 0:
        raise TrainingError(f"the run of {name} with seed {job.seed} failed: {ended.stderr.strip()}")
    result = {"key": key, **summary(read_outcome(folder))}
    beside = kept.with_suffix(f".{os.getpid()}.tmp")
    beside.write_text(json.dumps(result, indent=1), encoding="utf-8")
    beside.replace(kept)
    shutil.rmtree(folder)
    return result


def summary(outcome: Outcome) -> dict[str, Any]:
    """Measures of the whole run and of every phase, and the shares of the actions per phase."""
    decisions = outcome.decisions
    by_phase = {
        str(phase): outcome.of_ticks(rows["decision_tick"].unique())
        for phase, rows in decisions.groupby("phase", sort=False)
    }
    return {
        "measures": outcome.measures(),
        "phases": {phase: part.measures() for phase, part in by_phase.items()},
        "actions": {phase: part.action_shares() for phase, part in by_phase.items()},
    }


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)[:80]


def compare(policy: str, seeds: Sequence[int], found: Mapping[Job, Mapping[str, Any]], world: World) -> Comparison:
    """The policy against all others that ran the same seeds, paired by seed."""
    texts = list(dict.fromkeys(job.policy for job in found))
    measures = _measures(found)
    names = {text: str(found[Job(text, seeds[0])]["key"]["policy"]) for text in texts}

    def values(text: str, measure: str) -> Floats:
        return np.array([found[Job(text, seed)]["measures"][measure] for seed in seeds])

    return Comparison(
        chosen=names[policy],
        values={names[text]: {name: float(values(text, name).mean()) for name in measures} for text in texts},
        differences={
            names[text]: {name: paired(values(policy, name), values(text, name)) for name in measures}
            for text in texts
            if text != policy
        },
        about={
            "compared": "in virtual time, every policy alone in the worlds of all seeds, paired by seed",
            "scenario": f"{world.scenario_file}, time scale {world.time_scale:g}, user scale {world.user_scale:g}",
            "seeds": f"{seeds[0]} to {seeds[-1]}",
        },
        shares={names[text]: _shares([found[Job(text, seed)]["actions"] for seed in seeds]) for text in texts},
    )


def _measures(found: Mapping[Job, Mapping[str, Any]]) -> list[str]:
    """Those that every run has; ones that were kept from an earlier time may have fewer."""
    runs = [run["measures"] for run in found.values()]
    return [name for name in runs[0] if all(name in run for run in runs)]


def _shares(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Floats]:
    """phase -> (actions,), the mean over the runs."""
    return {phase: np.mean([[run[phase][name] for name in ACTIONS] for run in runs], axis=0) for phase in runs[0]}

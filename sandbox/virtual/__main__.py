"""`python -m sandbox.virtual`: runs of a scenario in virtual time, one after the other, as run folders."""

import argparse
import gc
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rl_hooks.parts import PartError, find_rewards
from rl_hooks.policies.builtin import PolicyError
from rl_hooks.policies.named import RUN_FORMS, make_run_policy
from rl_hooks.run_folder import RunFolderError
from sandbox.virtual.recording import Totals, record
from sandbox.virtual.simulation import Conditions
from scenario.errors import ScenarioError
from scenario.load import find_file, load_file
from scenario.plan import make_plan

EXIT_OK, EXIT_BAD_INPUT, EXIT_FAILED = 0, 2, 1
GC_THRESHOLD = 50_000  # allocations; nearly nothing that is made here is a cycle


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: all runs are complete; 1: a run could not be written to its end; 2: nothing was begun."""
    options = _parser().parse_args(arguments)
    try:
        if options.days < 1:
            raise ValueError("--days: must be 1 or more")
        file = load_file(find_file(options.scenario_file))
        scenario = file.scenario(options.scenario)
        plans = [
            make_plan(
                scenario,
                seed,
                options.time_scale,
                options.user_scale,
                options.decision_interval,
                faults=not options.no_faults,
            )
            for seed in range(options.seed, options.seed + options.days)
        ]
        find_rewards(scenario.rewards)
        policies = [make_run_policy(options.policy, plan) for plan in plans]
        conditions = _conditions(options)
        folders = [_folder(options, scenario.name, policies[0].describe(), plan.seed) for plan in plans]
        taken = [str(folder) for folder in folders if folder.exists() and any(folder.iterdir())]
        if taken:
            raise RunFolderError(f"{', '.join(taken)}: there already and not empty; remove it or choose --run-folder")
    except (ScenarioError, PartError, PolicyError, RunFolderError, ValueError) as error:
        print(f"sandbox.virtual: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    config = {"config_path": str(file.path), "config_sha256": file.text_sha256}
    for plan, policy, folder in zip(plans, policies, folders, strict=True):
        print(
            f"{scenario.name}, seed {plan.seed}, policy {policy.describe()}: {plan.duration_s / 60:g} minutes",
            flush=True,
        )
        began_s = time.perf_counter()
        try:
            totals = record(plan, folder, policy, conditions, config)
        except RunFolderError as error:
            print(f"sandbox.virtual: {error}", file=sys.stderr)
            return EXIT_FAILED
        print(f"  {_tally(totals, time.perf_counter() - began_s)}", flush=True)
    out = "" if len(folders) == 1 else " --out DIR"
    print(f"export with: python -m rl_hooks.export {' '.join(map(str, folders))}{out}")
    return EXIT_OK


def _conditions(options: argparse.Namespace) -> Conditions:
    utilization: float | None = options.utilization
    if utilization is not None and not 0.01 <= utilization <= 3.0:
        raise ValueError("--utilization: must be from 0.01 to 3, for example 0.85")
    return Conditions(options.healthy, utilization)


def _folder(options: argparse.Namespace, scenario: str, policy: str, seed: int) -> Path:
    if options.run_folder is not None and options.days == 1:
        return Path(options.run_folder)
    if options.run_folder is not None:
        return Path(f"{options.run_folder}_{seed}")
    safe = "".join(letter if letter.isalnum() else "-" for letter in policy)
    return Path("runs") / f"{scenario}_virtual_{safe}_{seed}"


def _tally(totals: Totals, took_s: float) -> str:
    speed = totals.duration_s / took_s if took_s > 0 else math.inf
    return (
        f"{totals.folder}: {totals.requests} requests ({totals.failed} failed), {totals.sessions} sessions, "
        f"{totals.decisions} decisions; {took_s:.1f} s, {speed:.0f} times as fast as real time"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.virtual",
        description="Run a scenario against the sandbox in virtual time and leave a run folder per day.",
    )
    parser.add_argument(
        "--scenario-file",
        default="comprehensive_rl_training_config.yaml",
        metavar="FILE",
        help="YAML or JSON; a bare name is also looked up in configs/ (default: %(default)s)",
    )
    parser.add_argument("--scenario", metavar="NAME", help="scenario of the file; not needed when it holds only one")
    parser.add_argument(
        "--policy",
        default="uniform",
        help=f"who decides: {RUN_FORMS} (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1, help="fixes everything in the run (default: %(default)s)")
    parser.add_argument("--days", type=int, default=1, metavar="N", help="N runs with the seeds from --seed on")
    parser.add_argument("--time-scale", type=float, default=1.0, help="divides every duration of the run")
    parser.add_argument("--user-scale", type=float, default=1.0, help="multiplies the users of every phase")
    parser.add_argument("--decision-interval", type=float, metavar="SECONDS", help="instead of the scenario's")
    parser.add_argument("--no-faults", action="store_true", help="leave the scenario's faults out; the data says so")
    parser.add_argument("--healthy", action="store_true", help="no weather, utilization 0.5: everything succeeds")
    parser.add_argument("--utilization", type=float, metavar="U", help="of the busiest service at the expected load")
    parser.add_argument(
        "--run-folder", metavar="PATH", help="folder of the run; with --days PATH_SEED (default: under runs/)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

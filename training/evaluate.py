"""`python -m training.evaluate POLICY`: the policy against every fixed strategy and uniform, in virtual time.

Every policy runs the whole scenario with every seed; differences are paired by seed. For a comparison on a running
balancer, where policies take turns, see `python -m training.live` (docs/evaluate.md).
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rl_hooks.decision import ACTIONS
from rl_hooks.export.bundle import write_json
from rl_hooks.export.errors import ExportError
from rl_hooks.policies.builtin import PolicyError
from rl_hooks.run_folder import RunFolderError
from training import pictures, tables
from training.comparison import Comparison
from training.errors import TrainingError
from training.virtual import OTHERS, Job, World, compare, run_all

EXIT_OK, EXIT_REFUSED = 0, 2
REPORT, PICTURE = "evaluation.json", "evaluation.svg"


def evaluate(
    policy: str, also: Sequence[str], seeds: Sequence[int], world: World, out: Path, runs: Path, processes: int
) -> Comparison:
    """Run what has not been run yet, and write table and picture into `out`. `runs`: where results are kept."""
    jobs = [Job(text, seed) for seed in seeds for text in dict.fromkeys((policy, *OTHERS, *also))]
    found = run_all(jobs, world, runs, processes, lambda text: print(text, flush=True))
    out.mkdir(parents=True, exist_ok=True)
    comparison = compare(policy, seeds, found, world)
    write_json(out / REPORT, tables.to_json(comparison))
    (out / PICTURE).write_text(pictures.differences(comparison, "reward"), encoding="utf-8")
    return comparison


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: compared; 2: refused, with one message."""
    options = _parser().parse_args(arguments)
    world = World(options.scenario_file, options.scenario, options.time_scale, options.user_scale)
    named = options.policy in ACTIONS or ":" in options.policy
    policy = options.policy if named else f"onnx:{options.policy}"
    try:
        if options.seeds < 2 or options.processes < 1:
            raise TrainingError("--seeds: must be 2 or more, --processes: 1 or more")
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        runs = options.runs or options.out / "runs"
        found = evaluate(policy, options.also, seeds, world, options.out, runs, options.processes)
    except (TrainingError, PolicyError, ExportError, RunFolderError) as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{options.out}: cannot be written ({error.strerror or error}); choose another place with --out")
    print("\n".join(["", *tables.lines(found), "", f"written  {options.out / REPORT}, {options.out / PICTURE}"]))
    return EXIT_OK


def _refuse(message: str) -> int:
    print(f"evaluate: {message}", file=sys.stderr)
    return EXIT_REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description="Compare policies.")
    parser.add_argument("policy", metavar="POLICY", help="the file of an ONNX policy, or a policy as --policy names it")
    parser.add_argument("--also", metavar="POLICY", action="append", default=[], help="to compare with; repeatable")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="where tables and picture are written")
    parser.add_argument("--runs", metavar="DIR", type=Path, help="results of runs, kept to go on from (OUT/runs)")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="(default: %(default)s)")
    parser.add_argument(
        "--first-seed", type=int, default=2001, help="none that the policy was trained on (default: %(default)s)"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="runs at a time (%(default)s)")
    parser.add_argument("--scenario-file", default="comprehensive_rl_training_config.yaml", metavar="FILE")
    parser.add_argument("--scenario", metavar="NAME")
    parser.add_argument("--time-scale", type=float, default=10.0, help="that of the policy's data (%(default)s)")
    parser.add_argument("--user-scale", type=float, default=1.0)
    return parser


if __name__ == "__main__":
    sys.exit(main())

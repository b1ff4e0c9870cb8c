"""`python -m rl_hooks.export.verify RUN`: did a run do what was planned? A table, a verdict per line and over all."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rl_hooks.export.verify.coverage import coverage_lines
from rl_hooks.export.verify.faults import fault_lines
from rl_hooks.export.verify.line import Line, Verdict, table
from rl_hooks.export.verify.load import load_lines
from rl_hooks.export.verify.shoppers import CONFIDENCE, session_lines
from rl_hooks.export.verify.timeline import user_lines
from rl_hooks.run_folder import RunFolderError
from rl_hooks.run_reader import Run, read_run
from rl_hooks.stores.fetch import run_folders
from rl_hooks.stores.store import StoreError
from scenario.errors import ScenarioError
from scenario.plan import Plan

EXIT_MET, EXIT_MISSED, EXIT_UNREADABLE = 0, 1, 2
_NEEDED = ("run_id", "scenario", "plan", "started_unix_ns", "state")  # of a manifest


class VerifyError(Exception):
    """A folder that cannot be compared with its plan; the message says what is missing."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: all met; 1: something missed; 2: the folder cannot be read, with one message."""
    options = _parser().parse_args(arguments)
    try:
        with run_folders([options.run], options.cache) as (folder,):
            run = read_run(folder)
            lines = verify(run)
    except (RunFolderError, ScenarioError, StoreError, VerifyError) as error:
        print(f"verify: {error}", file=sys.stderr)
        return EXIT_UNREADABLE
    print("\n".join([*_head(run), "", *table(lines), "", *_conclusion(lines)]))
    return EXIT_MISSED if any(line.verdict is Verdict.MISSED for line in lines) else EXIT_MET


def verify(run: Run) -> list[Line]:
    """Everything the plan promised about a run. Raises VerifyError or ScenarioError when there is no plan to read."""
    lacking = [name for name in _NEEDED if name not in run.manifest]
    if lacking:
        raise VerifyError(f"{run.path}: its manifest.json lacks {', '.join(lacking)}; restore it as it was written")
    plan = Plan.from_json(run.manifest["plan"])
    if not plan.max_users_per_profile:
        raise VerifyError(
            f"{run.path}: a policy served real traffic here, so no traffic was planned; python -m rl_hooks.report "
            "judges its data"
        )
    return [
        *user_lines(run, plan),
        *session_lines(run, plan),
        *coverage_lines(run, plan),
        *load_lines(run, plan),
        *fault_lines(run, plan),
    ]


def _head(run: Run) -> list[str]:
    plan = run.manifest["plan"]
    scales = f"seed {plan['seed']}, time scale {plan['time_scale']:g}, user scale {plan['user_scale']:g}"
    return [
        f"run        {run.manifest['run_id']}",
        f"scenario   {run.manifest['scenario']}, {scales}",
        f"intervals  of intent, conversion, abandonment: exact, Holm-corrected, {CONFIDENCE:.0%} confidence together",
    ]


def _conclusion(lines: Sequence[Line]) -> list[str]:
    missed = [line for line in lines if line.verdict is Verdict.MISSED]
    met = sum(line.verdict is Verdict.MET for line in lines)
    told = len(lines) - len(missed) - met
    verdict = f"MISSED: {len(missed)} of {len(missed) + met} lines" if missed else f"MET: all {met} lines"
    named = [
        f"  {' '.join(filter(None, (line.what, line.where)))}: planned {line.planned}, actual {line.actual}"
        for line in missed
    ]
    return [f"{verdict}; {told} more are for information", *named]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rl_hooks.export.verify",
        description="Compare a run with its plan.",
        epilog="exit codes: 0 all met; 1 something missed; 2 cannot be read",
    )
    parser.add_argument("run", metavar="RUN", help="the folder of a run, or s3://bucket/prefix/run_id")
    parser.add_argument("--cache", metavar="DIR", type=Path, help="keeps runs of s3:// (default: a temporary folder)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

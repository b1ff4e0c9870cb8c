"""`python -m scenario FILE [NAME]` prints the plan of a scenario and runs nothing; `python -m scenario schema` prints
the JSON Schema of scenario files. Problems go to stderr, with exit code 2."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from scenario.errors import ScenarioError
from scenario.load import find_file, load_file
from scenario.plan import make_plan
from scenario.schema import json_schema

EXIT_PROBLEMS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _print_schema(given[1:]) if given[:1] == ["schema"] else _print_plan(given)
    except ScenarioError as error:
        print(error, file=sys.stderr)
        return EXIT_PROBLEMS


def _print_plan(arguments: Sequence[str]) -> int:
    options = _plan_options().parse_args(arguments)
    path = find_file(options.file)
    scenario = load_file(path).scenario(options.name)
    plan = make_plan(scenario, options.seed, options.time_scale, options.user_scale, options.decision_interval)
    print(f"File {path}")
    print("\n".join(plan.describe()))
    return 0


def _print_schema(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scenario schema", description="Print the schema of scenario files."
    )
    parser.add_argument("--output", metavar="PATH", type=Path, help="write it to PATH instead")
    options = parser.parse_args(arguments)
    text = json.dumps(json_schema(), indent=2) + "\n"
    if options.output is None:
        print(text, end="")
    else:
        options.output.write_text(text, encoding="utf-8")
        print(f"wrote {options.output}")
    return 0


def _plan_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scenario",
        description="Print the plan of a scenario and run nothing.",
        epilog="python -m scenario schema prints the JSON Schema of scenario files (--output PATH writes it).",
    )
    parser.add_argument("file", metavar="FILE", help="a scenario file; a bare name is also looked up in configs/")
    parser.add_argument("name", metavar="NAME", nargs="?", help="the scenario; may be left out when there is only one")
    parser.add_argument("--seed", type=int, default=0, help="fixes every choice of every session (default 0)")
    parser.add_argument("--time-scale", type=float, default=1.0, metavar="S", help="divides every duration (default 1)")
    parser.add_argument("--user-scale", type=float, default=1.0, metavar="U", help="multiplies users (default 1)")
    parser.add_argument(
        "--decision-interval",
        type=float,
        metavar="SECONDS",
        help="nominal seconds instead of the file's; divided by the time scale, raised to 0.2 s of real time",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

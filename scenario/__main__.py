"""`python -m scenario FILE [NAME]` prints the plan of a scenario and runs nothing; `python -m scenario schema` prints
the JSON Schema of scenario files; `python -m scenario convert OLD` turns an old file into one that loads. Problems go
to stderr, with exit code 2."""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scenario import text
from scenario.convert.file import convert_text
from scenario.errors import Problem, ScenarioError
from scenario.load import CONFIGS, find_file, load_file, read_file
from scenario.plan import make_plan
from scenario.schema import json_schema

EXIT_PROBLEMS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command = _COMMANDS.get(given[0]) if given else None
        return _print_plan(given) if command is None else command(given[1:])
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
    content = json.dumps(json_schema(), indent=2) + "\n"
    if options.output is None:
        print(content, end="")
    else:
        options.output.write_text(content, encoding="utf-8")
        print(f"wrote {options.output}")
    return 0


def _convert(arguments: Sequence[str]) -> int:
    options = _convert_options().parse_args(arguments)
    target: Path | None = options.to
    if target is not None:
        _can_be_written(target, Path(options.old), options.force)
    converted = convert_text(read_file(options.old), options.old, shipped())
    if target is None:
        print(converted.yaml, end="")
        print(converted.report(), file=sys.stderr)
        return 0
    try:
        _write(target, converted.yaml)
    except OSError as error:
        raise ScenarioError(
            str(target), [Problem("", f"cannot be written: {error.strerror}", "Choose another")]
        ) from None
    print(converted.report())
    print(f"wrote {target}")
    return 0


def _can_be_written(target: Path, old: Path, force: bool) -> None:
    if target.suffix.lower() not in (".yaml", ".yml"):
        raise ScenarioError(str(target), [Problem("", "does not end in .yaml", "Name the new file with .yaml")])
    if target.exists() and old.exists() and target.samefile(old):
        raise ScenarioError(str(target), [Problem("", "is the old file itself", "Name another file")])
    if target.exists() and not (force and target.is_file()):
        way_out = "Name another file, or overwrite it with --force" if target.is_file() else "Name another file"
        raise ScenarioError(str(target), [Problem("", "is there already", way_out)])


def _write(target: Path, content: str) -> None:
    """Whole or not at all: a file that is there stays as it is until the new one is complete."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=target.parent, suffix=".part", delete=False) as file:
        part = Path(file.name)
        try:
            file.write(content)
            file.close()
            part.chmod(0o644)
            part.replace(target)
        except OSError:
            part.unlink()
            raise


def shipped() -> dict[str, Any]:
    """What fills up an old file: all shipped profiles, products and addresses."""
    suite: dict[str, Any] = {}
    for name in ("stress_test_rl_config.yaml", "comprehensive_rl_training_config.yaml"):
        tree, _ = text.parse(read_file(CONFIGS / name), name)
        for section, content in tree[text.ROOT].items():
            suite[section] = suite.get(section, {}) | content if isinstance(content, dict) else content
    return suite


def _convert_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scenario convert",
        description="Turn an old scenario file into one that loads, and print every change and decision.",
        epilog="What has no meaning is refused, all at once, with exit code 2; then nothing is written.",
    )
    parser.add_argument("old", metavar="OLD", help="the old file, JSON or YAML")
    parser.add_argument("--to", metavar="NEW", type=Path, help="write it there, and the report to stdout")
    parser.add_argument("--force", action="store_true", help="overwrite NEW when it is there")
    return parser


def _plan_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scenario",
        description="Print the plan of a scenario and run nothing.",
        epilog="python -m scenario schema prints the JSON Schema of scenario files (--output PATH writes it); "
        "python -m scenario convert OLD turns an old file into one that loads.",
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


_COMMANDS = {"schema": _print_schema, "convert": _convert}


if __name__ == "__main__":
    sys.exit(main())

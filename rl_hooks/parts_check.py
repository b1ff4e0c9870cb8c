"""`python -m rl_hooks.parts_check KIND NAME`: does a part do what its kind has to do? For built-ins and for your own.

What a part is asked is harmless, with one exception: an actuator is told every action once, and the last one stays.
"""

import argparse
import json
import math
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rl_hooks.actuators.named import make_actuator
from rl_hooks.control import ActuatorError, Sample, SourceError
from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.export.errors import ExportError
from rl_hooks.export.formats.source import read_bundle
from rl_hooks.export.formats.table import find_writers
from rl_hooks.export.own_features import find_features
from rl_hooks.export.own_rewards import own_rewards
from rl_hooks.faults.injector import InjectorError, make_injector
from rl_hooks.observation import FEATURES
from rl_hooks.parts import PartError, where
from rl_hooks.policies.builtin import PolicyError
from rl_hooks.policies.named import make_policy
from rl_hooks.sources.named import make_source
from rl_hooks.target import TargetError, root_of
from scenario.errors import ScenarioError
from scenario.faults import PlanFault
from scenario.model import FAULT_KINDS

EXIT_GOOD, EXIT_NOT, EXIT_BAD_INPUT = 0, 1, 2
NOT_MADE = (ExportError, InjectorError, PartError, PolicyError, ScenarioError, TargetError)
FAULT_S = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: it does; 1: it does not, with every reason; 2: it was not asked, for a fault of the command."""
    options = _parser().parse_args(arguments)
    lacking = [name for name in NEEDS.get(options.kind, ()) if getattr(options, name) is None]
    if lacking:
        print(f"parts_check: {options.kind} needs --{lacking[0]}", file=sys.stderr)
        return EXIT_BAD_INPUT
    try:
        problems = CHECKS[options.kind](options)
    except NOT_MADE as error:
        problems = str(error).splitlines()
    except Exception as error:  # noqa: BLE001  (somebody else's code: whatever it raises is said)
        problems = [f"failed{where(error)} ({type(error).__name__}: {error})"]
    for problem in problems:
        print(f"parts_check: {options.kind} {options.name}: {_said(problem, options.name)}", file=sys.stderr)
    if not problems:
        print(f"{options.kind} {options.name}: does what it has to")
    return EXIT_NOT if problems else EXIT_GOOD


def _said(problem: str, name: str) -> str:
    """A problem without its place, which is the part's name here: the parts themselves name the option.

    >>> _said("--feature nonsense: names nothing", "nonsense"), _said("  reward own (a:b): failed", "a:b")
    ('names nothing', 'failed')
    """
    return re.sub(rf"(--?)?[a-z -]*\(?{re.escape(name)}\)?: ", "", problem.strip(), count=1)


def check_policy(policy: Any) -> list[str]:
    """Six probabilities that sum to 1, the same for the same question."""
    problems = _describes(policy)
    unknown, idle = (np.full(len(FEATURES), value, np.float32) for value in (np.nan, 0.0))
    for previous in (None, *range(len(ACTIONS))):
        for observation in (unknown, idle):
            one, again = (tuple(policy.probabilities(previous, observation.copy())) for _ in range(2))
            proper = len(one) == len(ACTIONS) and min(one) >= 0 and math.isclose(sum(one), 1, abs_tol=1e-9)
            if not proper:
                return [*problems, f"{one} is no distribution over the {len(ACTIONS)} actions (previous {previous})"]
            if one != again:
                return [*problems, "two answers to one question differ; draw nothing in a policy, state probabilities"]
    return problems


def check_source(source: Any) -> list[str]:
    """A sample of known services, each value in its range or missing, not from the future, never older than before."""
    problems = _describes(source)
    try:
        samples = [source.sample() for _ in range(2)]
    except SourceError as error:
        return [*problems, str(error)]
    if samples == [None, None]:
        return problems
    if not all(isinstance(sample, Sample) for sample in samples):
        return [*problems, f"sample() returned {samples[0]!r}; a rl_hooks.control.Sample is needed, or always None"]
    first, second = samples
    if not first.instances:
        problems.append("names no instance; where nothing is known, raise SourceError")
    if first.t_ns > first.received_ns:
        problems.append("t_ns is after received_ns; t_ns is when the values held, by the clock of this machine")
    if second.t_ns < first.t_ns:
        problems.append("a later sample is of an earlier moment")
    return problems + [text for one in first.instances for text in _instance_problems(one)]


def check_actuator(actuator: Any) -> list[str]:
    """Every action is taken, for all services at once."""
    problems = _describes(actuator)
    missing: frozenset[str] = getattr(actuator, "missing_actions", frozenset())
    for action in () if getattr(actuator, "observes", False) else ACTIONS:
        try:
            if action not in missing:
                actuator.apply(dict.fromkeys(SERVICES, action))
        except ActuatorError as error:
            problems.append(f"{action}: {error}")
    return problems


def check_injector(injector: Any) -> list[str]:
    """It says of every kind of fault whether it could make it. Nothing is made."""
    problems = _describes(injector)
    for kind in FAULT_KINDS.values():
        fault = PlanFault(0, "phase", SERVICES[0], kind, None if kind == "crash" else 0.5, (), 0.0, FAULT_S, kind)
        said = injector.problems([fault])
        if not isinstance(said, list) or not all(isinstance(text, str) and text for text in said):
            problems.append(f"problems() returned {said!r} for {kind}; a list of reasons is needed, empty where it can")
    return problems


def check_format(writer: Callable[..., Mapping[str, Any]], path: Path) -> list[str]:
    """It writes something, says how many rows each part has, and what it says is JSON. The bundle stays as it is."""
    bundle = read_bundle(path)
    with tempfile.TemporaryDirectory() as folder:
        facts = writer(bundle, Path(folder))
        written = [one for one in Path(folder).rglob("*") if one.is_file()]
    problems = [] if written else ["wrote no file"]
    try:
        json.dumps(facts, allow_nan=False)
        rows = {name: int(part["rows"]) for name, part in facts["parts"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return [*problems, f'has to return {{"parts": {{PART: {{"rows": N}}}}}} as JSON values ({error!r})']
    left_out, reasons = facts.get("left_out", {}), facts.get("reasons", {})
    if set(left_out) - set(reasons):
        problems.append(f"left out {', '.join(sorted(set(left_out) - set(reasons)))} without saying in `reasons` why")
    if not left_out and rows != {name: len(part) for name, part in bundle.parts.items()}:
        told = ", ".join(f"{name} {len(part)}" for name, part in bundle.parts.items())
        problems.append(f"has {rows}, the bundle {told}, and `left_out` does not say what is missing")
    return problems


def _describes(part: Any) -> list[str]:
    said = part.describe()
    return [] if isinstance(said, str) and said.strip() else [f"describe() returned {said!r}; a name is needed"]


_RANGES = {
    **dict.fromkeys(("cpu", "memory", "health"), 1.0),
    **dict.fromkeys(("queue_depth", "in_flight", "capacity"), math.inf),
}


def _instance_problems(one: Any) -> list[str]:
    where = f"instance {one.instance}"
    problems = (
        [] if one.service in range(len(SERVICES)) else [f"{where}: service {one.service!r} is no index of SERVICES"]
    )
    for name, high in _RANGES.items():
        value = getattr(one, name)
        if not (isinstance(value, float) and (math.isnan(value) or 0 <= value <= high)):
            problems.append(f"{where}: {name} is {value!r}; a float from 0 to {high:g} is needed, NaN where not known")
    if one.up is not None and not isinstance(one.up, bool):
        problems.append(f"{where}: up is {one.up!r}; True, False or None is needed")
    return problems


def _check_reward(options: argparse.Namespace) -> list[str]:
    own_rewards({"own": options.name})
    return []


def _check_feature(options: argparse.Namespace) -> list[str]:
    find_features([options.name])
    return []


def _check_format(options: argparse.Namespace) -> list[str]:
    (writer,) = find_writers(options.name).values()
    return check_format(writer, options.bundle)


CHECKS: Mapping[str, Callable[[argparse.Namespace], list[str]]] = {
    "reward": _check_reward,
    "feature": _check_feature,
    "policy": lambda options: check_policy(make_policy(options.name)),
    "source": lambda options: check_source(make_source("source", options.name, root_of(options.host))),
    "actuator": lambda options: check_actuator(make_actuator("actuator", options.name, root_of(options.host))),
    "injector": lambda options: check_injector(make_injector(options.name, root_of(options.host))),
    "format": _check_format,
}
NEEDS = {"source": ("host",), "actuator": ("host",), "injector": ("host",), "format": ("bundle",)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rl_hooks.parts_check", description="Try a part, of the suite or of your own."
    )
    parser.add_argument("kind", metavar="KIND", choices=CHECKS, help=", ".join(CHECKS))
    parser.add_argument("name", metavar="NAME", help="short name of a built-in, or module:attribute")
    parser.add_argument("--host", metavar="URL", help="of a target, for a source, an actuator or an injector")
    parser.add_argument("--bundle", metavar="DIR", type=Path, help="a bundle, for a format")
    return parser


if __name__ == "__main__":
    sys.exit(main())

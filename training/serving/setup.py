"""From the options of `python -m training.serve` to everything that is decided before the first decision."""

import argparse
import math
import platform
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rl_hooks.action_space import ALL_STRATEGIES, ActionSpace
from rl_hooks.actuators.named import make_actuator, space_of
from rl_hooks.control import Actuator, Source, SourceError
from rl_hooks.decision import SERVICES
from rl_hooks.observation import FEATURES, OF_METRICS
from rl_hooks.parts import PartError, find_rewards
from rl_hooks.policies.builtin import EpsilonGreedy, Fixed, LoggingPolicy, PolicyError, by_service
from rl_hooks.policies.named import check_fit, make_policy
from rl_hooks.sources.access_log import AccessLogFollower
from rl_hooks.sources.named import make_source
from rl_hooks.target import TargetError, root_of
from rl_hooks.version import VERSION
from scenario.errors import ScenarioError
from scenario.load import ScenarioFile, find_file, load_file
from scenario.model import REWARD_COMPONENTS
from scenario.plan import Plan
from training.serving.guard import Limits
from training.serving.plan import NAME, plan_of_scenario, plan_of_schema

STALE_INTERVALS = 3.0


class ServeError(Exception):
    """What was asked for cannot be served; the message lists every reason with its way out."""


@dataclass(frozen=True)
class Setup:
    """Everything that is decided before the first decision."""

    plan: Plan
    policy: LoggingPolicy  # as it was named, without exploration and fallback
    source: Source
    actuator: Actuator
    follower: AccessLogFollower | None
    limits: Limits
    fallback: Fixed
    explore: float
    folder: Path
    space: ActionSpace
    facts: dict[str, Any]  # for the manifest

    def explored(self, policy: LoggingPolicy) -> LoggingPolicy:
        choices = self.space.choices(0)  # the strategies are the same for every service
        return EpsilonGreedy(policy, self.explore, choices=choices) if self.explore else policy

    def describe(self) -> list[str]:
        """What a person should know before it starts, one fact a line."""
        log = self.follower
        every, window = f"every {self.plan.decision_interval_s:g} s", f"window {self.plan.window_s:g} s"
        ways = f"metrics source {self.source.describe()}, actuator {self.actuator.describe()}"
        return [
            f"serving {self.explored(self.policy).describe()}, {every}, {window}, seed {self.plan.seed}",
            f"target: {self.facts['target']} ({ways})",
            f"requests: {log.describe()}" if log else "requests: no access log, features of requests are not known",
            *self.space.describe(),
            f"by telemetry older than {self.limits.stale_after_s:g} s: {self.explored(self.fallback).describe()}",
            f"run folder: {self.folder}",
        ]


def make_setup(options: argparse.Namespace) -> Setup:
    """Decide everything. Raises ServeError with all that is wrong."""
    problems = _wrong_numbers(options)
    seed = secrets.randbelow(1 << 31) if options.seed is None else options.seed
    root = _attempt(problems, lambda: root_of(options.host))
    actuator = _attempt(problems, lambda: _actuator(options.actuator, root))
    space = _attempt(problems, lambda: space_of(f"--actuator {options.actuator}", actuator)) if actuator else None
    known = space or ALL_STRATEGIES
    policy = _attempt(problems, lambda: make_policy(options.policy, known))
    fallback = _attempt(problems, lambda: _fallback(options.fallback, known))
    file = _attempt(problems, lambda: load_file(find_file(options.scenario_file)) if options.scenario_file else None)
    duration_s = math.inf if options.duration is None else options.duration
    plan = None
    if policy is not None and (file is not None or not options.scenario_file):
        plan = _attempt(problems, lambda: _plan(policy, file, options.scenario, seed, duration_s, known))
    source = _attempt(problems, lambda: _source(options.source, root))
    follower = _attempt(problems, lambda: AccessLogFollower(Path(options.requests)) if options.requests else None)
    if policy is not None:
        _attempt(problems, lambda: _check_telemetry(policy, options))
    if problems or plan is None or policy is None or source is None or actuator is None or space is None:
        raise ServeError("\n".join(problems))
    assert fallback is not None
    limits = Limits(
        options.stale_after or STALE_INTERVALS * plan.decision_interval_s,
        samples=options.source != "none",
        requests=follower is not None,
    )
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    folder = Path(options.run_folder or Path("runs") / f"{NAME}_{stamp}")
    decides = by_service(policy, space)[0]
    setup = Setup(plan, decides, source, actuator, follower, limits, fallback, options.explore, folder, space, {})
    setup.facts.update(_facts(setup, options, file))
    return setup


def _wrong_numbers(options: argparse.Namespace) -> list[str]:
    checks: tuple[tuple[str, float | None, Callable[[float], bool], str], ...] = (
        ("--explore", options.explore, lambda value: 0 <= value <= 1, "from 0 to 1, for example 0.1"),
        ("--stale-after", options.stale_after, lambda value: 0 < value < math.inf, "above 0, for example 6"),
        ("--duration", options.duration, lambda value: 0 < value < math.inf, "above 0, for example 3600"),
        ("--metrics-port", options.metrics_port, lambda value: 0 <= value <= 65535, "from 0 (a free one) to 65535"),
    )
    return [
        f"{option} {value:g}: must be {right}"
        for option, value, is_right, right in checks
        if value is not None and not is_right(value)
    ]


def _plan(
    policy: LoggingPolicy,
    file: ScenarioFile | None,
    name: str | None,
    seed: int,
    duration_s: float,
    space: ActionSpace,
) -> Plan:
    schema = getattr(policy, "schema", None)
    if file is not None:
        plan = plan_of_scenario(file.scenario(name), seed, duration_s)
        check_fit(policy, plan.window_s, plan.decision_interval_s, space)
        find_rewards(plan.scenario.rewards)
        return plan
    if schema is None:
        raise ServeError(
            f"policy {policy.describe()}: was not trained, so it does not say how often to decide and what the SLOs "
            "are; name a scenario that does with --scenario-file FILE"
        )
    check_fit(policy, schema.window_s, schema.decision_interval_s, space)
    lacking = [name for name in SERVICES if name not in schema.slo_ms]
    lacking += [name for name in REWARD_COMPONENTS if name not in schema.reward_weights]
    if lacking:
        raise ServeError(
            f"policy {policy.describe()}: its schema has no SLO or reward weight of {', '.join(lacking)}; "
            "name a scenario that does with --scenario-file FILE"
        )
    own = [name for name in schema.reward_weights if name not in REWARD_COMPONENTS]
    if own:
        raise ServeError(
            f"policy {policy.describe()}: was trained with rewards of one's own ({', '.join(own)}), and its schema has "
            "no functions; name the scenario that has them with --scenario-file FILE"
        )
    return plan_of_schema(schema, seed, duration_s)


def _actuator(name: str, root: str | None) -> Actuator:
    if name == "header":
        raise ServeError("--actuator header: there are no requests of ours to carry one; name what tells the balancer")
    actuator = make_actuator("--actuator", name, root)
    if getattr(actuator, "observes", False):
        raise ServeError(
            f"--actuator {name}: tells the balancer nothing, so no policy of ours can decide; name another"
        )
    return actuator


def _source(name: str, root: str | None) -> Source:
    source = make_source("--source", name, root)
    if getattr(source, "reads_responses", False):
        raise ServeError(f"--source {name}: lives on the answers to requests of ours, and there are none; name another")
    return source


def _fallback(action: str, space: ActionSpace) -> Fixed:
    try:
        return Fixed(action, choices=space.choices(0))
    except PolicyError as error:
        raise ServeError(f"--fallback {action}: {error}") from error


def _check_telemetry(policy: LoggingPolicy, options: argparse.Namespace) -> None:
    """Raises ServeError where a trained policy would miss, always, what it had when it was trained."""
    schema = getattr(policy, "schema", None)
    if schema is None:
        return
    of_requests = [feature.name for feature in FEATURES if feature.source == "client"]
    missing = []
    for needed, is_there, way_out in (
        (of_requests, options.requests, "give the balancer's access log with --requests FILE (docs/serving.md)"),
        (OF_METRICS, options.source != "none", "name a metrics source with --source"),
    ):
        known = [name for name in needed if schema.knew(name)]
        if known and not is_there:
            shown = f"{', '.join(known[:3])} and {len(known) - 3} more" if len(known) > 3 else ", ".join(known)
            missing.append(f"policy {policy.describe()} was trained with {shown}, which would be missing; {way_out}")
    if missing:
        raise ServeError("\n".join(missing))


def _facts(setup: Setup, options: argparse.Namespace, file: ScenarioFile | None) -> dict[str, Any]:
    none: list[Any] = []
    return {
        "run_id": setup.folder.name,
        "scenario": NAME,
        "plan": setup.plan.to_json(),
        "config_path": "" if file is None else str(file.path),
        "config_sha256": None if file is None else file.text_sha256,
        "seed": setup.plan.seed,
        "versions": _versions(),
        "target": options.host,
        "balancer": "unknown",
        "action_space": setup.space.to_json(),
        "logging_policy": setup.explored(setup.policy).describe(),
        "source": setup.source.describe(),
        "actuator": setup.actuator.describe(),
        "serving": {
            "policy": setup.policy.describe(),
            "explore": setup.explore,
            "fallback": setup.fallback.action,
            "stale_after_s": setup.limits.stale_after_s,
            "access_log": setup.follower is not None,
        },
        "faults": {"injector": "none", "planned": 0, "without_faults": False, "list": none},
        "started_unix_ns": time.time_ns(),
        "ended_unix_ns": None,
        "state": "running",
    }


def _versions() -> dict[str, str]:
    found = {"suite": VERSION, "python": platform.python_version()}
    for name in ("onnxruntime", "prometheus-client"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a policy need not come from an ONNX file
            continue
    return found


def _attempt(problems: list[str], make: Callable[[], Any]) -> Any:
    """The result of `make`, or None with its complaint added to `problems`."""
    try:
        return make()
    except (ServeError, PolicyError, PartError, ScenarioError, SourceError, TargetError) as error:
        problems.append(str(error))
        return None

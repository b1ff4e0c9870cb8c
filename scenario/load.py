"""Scenario files: found, read safely, checked completely, and turned into the types of `scenario.model`."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from scenario import schema, text
from scenario.checks import check
from scenario.errors import Problem, ScenarioError, show, suggestion
from scenario.model import (
    DEFAULTS,
    FAULT_KINDS,
    SERVICES,
    USER_ACTIONS,
    Address,
    Chaos,
    Fault,
    Phase,
    Product,
    Profile,
    Scenario,
    one_name,
    one_service,
    value_text,
)
from scenario.structure import check_structure

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


_TIMES: Mapping[str, str] = {
    "decision_interval_s": "data_collection_interval_seconds",
    "window_s": "window_seconds",
    "episode_s": "episode_seconds",
    "ramp_s": "ramp_seconds",
    "request_timeout_s": "request_timeout_seconds",
    "retry_attempts": "retry_attempts",
    "retry_delay_s": "retry_delay_seconds",
    "recovery_pause_min": "recovery_pause_minutes",
    "background_rps": "background_requests_per_second",
}
"""Field of `Scenario` -> key of a file, for the settings that have a default."""


@dataclass(frozen=True, slots=True)
class ScenarioFile:
    """One file that was read without a problem."""

    path: str  # as it was opened, or the origin given for a text
    text_sha256: str  # of its bytes
    scenarios: Mapping[str, Scenario]
    profiles: Mapping[str, Profile]

    def scenario(self, name: str | None = None) -> Scenario:
        """The scenario called `name`; None: the only one. Raises ScenarioError that lists those there are."""
        if name is None:
            if len(self.scenarios) == 1:
                return next(iter(self.scenarios.values()))
            names = ", ".join(sorted(self.scenarios))
            raise ScenarioError(
                self.path,
                [Problem("training_scenarios", f"has {len(self.scenarios)} scenarios", f"Name one of them: {names}")],
            )
        if name not in self.scenarios:
            text = f"there is no scenario {show(name)}"
            raise ScenarioError(self.path, [Problem("training_scenarios", text, suggestion(name, self.scenarios))])
        return self.scenarios[name]


def find_file(name: str | os.PathLike[str], configs_dir: Path = CONFIGS) -> Path:
    """The file a user means by `name`: as it stands, then in `configs_dir`; a .json that is not there finds .yaml.

    Raises ScenarioError with what was tried.
    """
    asked = Path(name)
    folders = [Path()] if asked.is_absolute() or len(asked.parts) > 1 else [Path(), configs_dir]
    endings = [asked.suffix, ".yaml", ".yml"] if asked.suffix.lower() == ".json" else [asked.suffix]
    tried = [folder / asked.with_suffix(ending) for ending in endings for folder in folders] if asked.name else []
    for path in tried:
        if path.is_file():
            return path
    there = sorted(path.name for path in configs_dir.glob("*config*.*")) if configs_dir.is_dir() else []
    what = "no such file" + (f" (tried {', '.join(str(path) for path in tried)})" if tried else "")
    raise ScenarioError(str(name), [Problem("", what, suggestion(asked.name, there))])


def load_file(path: str | os.PathLike[str]) -> ScenarioFile:
    """Everything of the file at `path`. Raises ScenarioError with every problem there is."""
    return _load(read_file(path), str(path))


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file, not many more than are allowed. Raises ScenarioError when it cannot be read."""
    where = Path(path)
    if not where.is_file():
        raise ScenarioError(str(path), [Problem("", "is not a file", "Name a scenario file, such as one of configs/")])
    try:
        with where.open("rb") as file:
            return file.read(text.LARGEST_BYTES + 1)
    except OSError as error:
        raise ScenarioError(str(path), [Problem("", f"cannot be read: {error.strerror}", "Make it readable")]) from None


def load_text(content: str, origin: str = "<text>") -> ScenarioFile:
    """Everything of a file's text. JSON when `origin` ends in .json, else YAML. Raises ScenarioError like load_file."""
    return _load(content.encode("utf-8", "surrogatepass"), origin)


def _load(raw: bytes, origin: str) -> ScenarioFile:
    tree, problems = text.parse(raw, origin)
    node, well_formed, wrong = check_structure(tree)
    problems += wrong
    problems += check(well_formed.get(text.ROOT, {}), {problem.place for problem in problems})
    if problems or node is None:
        raise ScenarioError(origin, problems)
    suite = node.rl_training_scenarios
    profiles = {name: _profile(name, profile) for name, profile in suite.user_behavior_profiles.items()}
    scenarios = {name: _scenario(name, one, suite, profiles) for name, one in suite.training_scenarios.items()}
    return ScenarioFile(
        path=origin,
        text_sha256=hashlib.sha256(raw).hexdigest(),
        scenarios=MappingProxyType(scenarios),
        profiles=MappingProxyType(profiles),
    )


def _profile(name: str, node: schema.ProfileNode) -> Profile:
    return Profile(
        name=name,
        description=_one_line(node.description),
        conversion_rate=node.conversion_rate,
        cart_abandonment_rate=node.cart_abandonment_rate,
        session_duration_min=node.session_duration_range,
        pages=node.pages_per_session,
        think_time_s=node.think_time_range,
        user_actions=_listed(node.action_probabilities.model_dump()),
        cart_size=node.cart_size or DEFAULTS["cart_size"],
    )


def _scenario(name: str, node: schema.ScenarioNode, suite: schema.Suite, profiles: Mapping[str, Profile]) -> Scenario:
    settings = _Settings(suite.base_config, node)
    times = {field: settings.get(key) for field, key in _TIMES.items()}
    slo_node, weights_node = settings.own("service_slo_ms"), settings.own("reward_weights")
    slo_ms = _listed(slo_node.model_dump(by_alias=True)) if slo_node is not None else {}
    left_out = {service: slo for service, slo in DEFAULTS["service_slo_ms"].items() if service not in slo_ms}
    if left_out:
        settings.defaults.append(f"service_slo_ms {value_text(left_out)}")
    if weights_node is None:
        settings.note("reward_weights")
    own = settings.own("rewards") or {}
    used = {one_name(profile) for phase in node.traffic_patterns for profile in phase.user_behavior_distribution}
    settings.defaults += [
        f"user_behavior_profiles.{profile}.cart_size {value_text(DEFAULTS['cart_size'])}"
        for profile, profile_node in suite.user_behavior_profiles.items()
        if profile_node.cart_size is None and one_name(profile) in used
    ]
    return Scenario(
        name=name,
        description=_one_line(node.description),
        phases=_phases(node.traffic_patterns, profiles, settings),
        profiles=profiles,
        catalogue=tuple(_product(product) for product in suite.product_catalogue),
        addresses=tuple(Address(**address.model_dump()) for address in suite.shipping_addresses),
        total_users=settings.own("total_users"),
        max_concurrent_users=settings.own("max_concurrent_users"),
        **times,
        base_url=suite.base_config.base_url,
        service_slo_ms={service: {**left_out, **slo_ms}[service] for service in SERVICES},
        reward_weights={
            **(weights_node.model_dump() if weights_node is not None else DEFAULTS["reward_weights"]),
            **{reward: node.weight for reward, node in own.items()},
        },
        rewards={reward: node.function for reward, node in own.items()},
        defaults=tuple(settings.defaults),
    )


class _Settings:
    """A scenario's settings: its own, else the file's, else the default, which is noted."""

    def __init__(self, base: schema.Settings, own: schema.Settings) -> None:
        self._base = base
        self._own = own
        self.defaults: list[str] = []

    def own(self, key: str) -> Any:
        value = getattr(self._own, key)
        return value if value is not None else getattr(self._base, key)

    def get(self, key: str) -> Any:
        value = self.own(key)
        if value is not None:
            return value
        self.note(key)
        return DEFAULTS[key]

    def note(self, key: str) -> None:
        self.defaults.append(f"{key} {value_text(DEFAULTS[key])}")


def _phases(nodes: list[schema.PhaseNode], profiles: Mapping[str, Profile], settings: _Settings) -> tuple[Phase, ...]:
    defined = {one_name(name): name for name in profiles}
    phases: list[Phase] = []
    start_min = 0.0
    for node in nodes:
        phases.append(
            Phase(
                name=node.name,
                description=_one_line(node.description),
                start_min=start_min,
                duration_min=node.duration_minutes,
                intensity=node.intensity,
                users=node.concurrent_users,
                distribution={defined[one_name(n)]: share for n, share in node.user_behavior_distribution.items()},
                weights={
                    action: weight
                    for action in USER_ACTIONS
                    if (weight := getattr(node.scenario_weights, f"{action}_weight")) is not None
                },
                service_load_characteristics=_by_service(node.service_load_characteristics),
                expected_service_stress=_by_service(node.expected_service_stress),
                ramp_s=node.ramp_up_time_seconds,
                faults=_faults(node),
                chaos=_chaos(node, settings),
                target_products=tuple(node.target_products or ()),
            )
        )
        start_min += node.duration_minutes
    return tuple(phases)


def _faults(node: schema.PhaseNode) -> tuple[Fault, ...]:
    """All faults of a phase, one for each condition, in order of their start."""
    faults = [
        fault
        for service, conditions in (node.simulated_conditions or {}).items()
        for fault in _each(service, conditions, 0.0, node.duration_minutes)
    ]
    for entry in node.failure_timeline or ():
        faults += _each(entry.service, entry, entry.minute, entry.duration_minutes)
    return tuple(sorted(faults, key=lambda fault: fault.start_min))


def _each(name: str, conditions: schema.Conditions, start_min: float, duration_min: float) -> list[Fault]:
    service, instances = one_service(name), tuple(conditions.instances or ())
    assert service is not None  # checked in scenario.checks
    given = {condition: getattr(conditions, condition) for condition in FAULT_KINDS}
    return [
        Fault(service, kind, None if kind == "crash" else given[condition], instances, start_min, duration_min)
        for condition, kind in FAULT_KINDS.items()
        if given[condition] is not None
    ]


def _chaos(node: schema.PhaseNode, settings: _Settings) -> Chaos | None:
    given = node.chaos_parameters
    if given is None:
        return None
    every_s = given.change_every_seconds
    if every_s is None:
        every_s = DEFAULTS["change_every_seconds"]
        settings.defaults.append(f"{node.name}.chaos_parameters.change_every_seconds {value_text(every_s)}")
    return Chaos(
        user_variance=given.user_variance or 0.0,
        think_time_variance=given.think_time_variance or 0.0,
        action_randomness=given.action_randomness or 0.0,
        change_every_s=every_s,
    )


def _by_service(levels: Mapping[str, str] | None) -> dict[str, str]:
    return {service: level for name, level in (levels or {}).items() if (service := one_service(name)) is not None}


def _product(node: schema.ProductNode) -> Product:
    return Product(
        sku=node.sku,
        name=node.name,
        category=node.category,
        brand=node.brand,
        price=node.price,
        weight=1.0 if node.weight is None else node.weight,
    )


def _listed(values: Mapping[str, float | None]) -> dict[str, float]:
    return {key: value for key, value in values.items() if value is not None}


def _one_line(description: str) -> str:
    return " ".join(description.split())

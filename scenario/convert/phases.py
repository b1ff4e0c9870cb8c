"""Phases of old files: what each says for itself. When they are is in `scenario.convert.timeline`."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from scenario.checks import SUM_TOLERANCE
from scenario.convert import faults
from scenario.convert.catalogue import sku_named
from scenario.convert.chaos import chaos
from scenario.convert.faults import Timed
from scenario.convert.old import MINUTE_S, SECOND_S, Found, Old
from scenario.convert.profiles import Profiles, action_parts
from scenario.convert.prose import service_of
from scenario.convert.report import Report, at, said, same
from scenario.convert.values import Number, name_of, number_of, parts_of, plain_key, tidy, to_sum_one, whole_of
from scenario.errors import suggestion
from scenario.model import LEVELS, PACE

Tree = dict[str, Any]

_INTENSITIES: Mapping[str, str] = {
    **{name: name for name in PACE},
    **dict.fromkeys(("normal", "moderate", "average", "steady", "baseline"), "medium"),
    **dict.fromkeys(("light", "very_low", "minimal", "idle"), "low"),
    **dict.fromkeys(("heavy", "medium_high"), "high"),
    **dict.fromkeys(("peak", "intense", "very_heavy"), "very_high"),
    **dict.fromkeys(("maximum", "max", "burst"), "extreme"),
    **dict.fromkeys(("random", "chaotic", "varying", "mixed"), "variable"),
    "moderate_low": "medium_low",
}  # fmt: skip
_LEVELS: Mapping[str, str] = {
    **{name: name for name in LEVELS},
    **dict.fromkeys(("normal", "moderate", "average"), "medium"),
    **dict.fromkeys(("minimal", "none", "idle"), "very_low"),
    **dict.fromkeys(("light",), "low"),
    **dict.fromkeys(("heavy", "medium_high"), "high"),
    **dict.fromkeys(("peak", "severe", "critical"), "very_high"),
    **dict.fromkeys(("maximum", "max", "overload"), "extreme"),
}
_USERS = (
    "users", "user_count", "num_users", "number_of_users", "concurrent_user_count", "target_users", "virtual_users",
    "vus", "peak_users", "active_users",
)  # fmt: skip
_DISTRIBUTION = (
    "user_distribution", "profile_distribution", "behavior_distribution", "behaviour_distribution",
    "user_behaviour_distribution", "user_profile_distribution", "user_mix", "profile_mix", "user_behavior_mix",
    "distribution", "user_profiles", "profiles", "user_types",
)  # fmt: skip
_WEIGHTS = ("weights", "action_weights", "task_weights", "action_distribution", "action_mix", "actions")
_LISTED_SHARES = ("share", "percentage", "weight", "ratio", "probability", "percent", "fraction")
NEUTRAL_WEIGHTS = {"browse_weight": 1, "search_weight": 1, "cart_weight": 1, "order_weight": 1}
KNOWN = (
    "name", "description", "start_minute", "duration_minutes", "intensity", "concurrent_users",
    "user_behavior_distribution", "scenario_weights", "ramp_up_time_seconds", "target_products",
    "simulated_conditions", "failure_timeline", "chaos_parameters", "service_load_characteristics",
    "expected_service_stress",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """What a phase, or a scenario for all its phases, says. None: nothing."""

    place: str
    content: Tree  # key of the new file -> value
    timed: list[Timed] = field(default_factory=list)
    spawn_rate: Number | None = None  # users per second


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase of the old file; its times are minutes of the scenario, as far as the file says them."""

    part: Part
    name: str
    start_min: Number | None
    duration_min: Number | None
    end_min: Number | None
    start_place: str

    def lasting(self, duration_min: Number) -> "Phase":
        return replace(self, duration_min=duration_min)


def take_part(old: Old, profiles: Profiles, products: list[Tree]) -> Part:
    """All that phases and scenarios say alike."""
    report, out = old.report, Tree()
    out["intensity"] = old.convert(
        "intensity",
        ("load_level", "load_intensity", "traffic_intensity", "level"),
        _intensity,
        f"one of {', '.join(PACE)}",
    )
    out["concurrent_users"] = old.convert("concurrent_users", _USERS, _users, "a whole number above 0")
    out["user_behavior_distribution"] = _distribution(old, profiles)
    out["scenario_weights"] = _weights(old)
    spawn = old.take("spawn_rate", "hatch_rate", "users_per_second")
    rate = number_of(spawn.value) if spawn else None
    if spawn is not None and (rate is None or rate <= 0):
        report.refuse(spawn.place, f"{said(spawn.value)} is not a number above 0", "Write users per second, such as 5")
        rate = None
    elif spawn is not None:
        report.dropped(spawn.place, spawn.value, "written as ramp_up_time_seconds of the phases: users / rate")
    out["target_products"] = _targets(old, products)
    conditions = old.take("simulated_conditions", "simulated_condition", "conditions", "faults", "service_conditions",
                          "degradation", "service_degradation", "failure_conditions")  # fmt: skip
    out["simulated_conditions"] = faults.simulated(conditions, report) if conditions else None
    timeline = old.take("failure_timeline", "failures", "failure_events", "failure_schedule", "fault_timeline")
    timed = faults.timeline(timeline, report) if timeline else []
    out["chaos_parameters"] = chaos(old)
    for key, names in (
        ("service_load_characteristics", ("service_load", "service_loads", "load_characteristics")),
        ("expected_service_stress", ("service_stress", "expected_stress")),
    ):
        out[key] = _levels(old.take(key, *names), key, report)
    given = {key: value for key, value in out.items() if value is not None}
    return Part(old.place, given, timed, rate)


def take_phase(old: Old, index: int, key_name: str | None, profiles: Profiles, products: list[Tree]) -> Phase:
    """One phase; `key_name` is its name when the old file has phases by name."""
    report = old.report
    named = old.take("name", "phase_name", "phase", "pattern", "pattern_name", "id")
    name = _phase_name(named, key_name, index, old.place, report)
    description = old.convert("description", ("desc", "summary"), _text, "text")
    span = old.take("minutes", "time_range", "minute_range") if _has_span(old) else None
    start_place, unit_s = at(old.place, "start_minute"), old.unit_of_minutes()
    start = old.time(
        "start_minute",
        ("start", "start_minute", "start_time", "starts_at", "begin", "offset"),
        MINUTE_S,
        MINUTE_S,
        True,
    )
    duration = old.time("duration_minutes", ("duration", "length", ""), MINUTE_S, unit_s)
    end = old.time("end_minute", ("end", "end_minute", "end_time"), MINUTE_S, MINUTE_S, True)
    if span is not None:
        start, end = _span(span, report)
    ramp = old.time(
        "ramp_up_time_seconds",
        ("ramp", "ramp_up", "ramp_up_time", "ramp_time", "ramp_up_duration"),
        SECOND_S,
        SECOND_S,
        True,
    )
    part = take_part(old, profiles, products)
    own = {"description": description, "ramp_up_time_seconds": ramp}
    part.content.update({key: value for key, value in own.items() if value is not None})
    old.finish(KNOWN)
    return Phase(part, name, start, duration, end, start_place)


def _phase_name(named: Found | None, key_name: str | None, index: int, place: str, report: Report) -> str:
    old_name = named.value if named is not None else key_name
    name = name_of(str(old_name)) if isinstance(old_name, str | int) and not isinstance(old_name, bool) else ""
    if not name:
        name = f"phase_{index + 1}"
        if named is None:
            report.filled(at(place, "name"), name, "default: its number")
        else:
            report.note(named.place, said(named.value), name, "its number: there are no letters or digits in it")
    elif named is None:
        report.note(place, "a phase by its name", f"name {name}", "phases are a list")
    elif named.key != "name" or name != old_name:
        report.note(named.place, said(old_name), f"name {name}", "names are letters, digits, _ and -")
    return name


def _has_span(old: Old) -> bool:
    return any(plain_key(key) in ("minutes", "time_range", "minute_range") and _ends(old.peek(key)) for key in old.keys)


def _ends(value: Any) -> tuple[Number, Number] | None:
    parts = re.split("\\s*(?:-|\u2013|to)\\s*", value.strip()) if isinstance(value, str) else value
    if not isinstance(parts, list) or len(parts) != 2:
        return None
    first, last = number_of(parts[0]), number_of(parts[1])
    return None if first is None or last is None else (first, last)


def _span(found: Found, report: Report) -> tuple[Number | None, Number | None]:
    ends = _ends(found.value)
    if ends is None or not 0 <= ends[0] < ends[1]:
        report.refuse(
            found.place, f"{said(found.value)} is not a stretch of minutes", "Write start_minute and duration_minutes"
        )
        return None, None
    written = f"start_minute {said(ends[0])}, duration_minutes {said(tidy(ends[1] - ends[0]))}"
    report.note(found.place, said(found.value), written, "a stretch as start and duration")
    return ends


# Who the users are and what they do


def _distribution(old: Old, profiles: Profiles) -> Tree | None:
    found = old.take("user_behavior_distribution", *_DISTRIBUTION)
    if found is None:
        return None
    report, refused = old.report, len(old.report.refusals)
    shares: dict[str, Number] = {}
    spelled: Tree = {}
    listed = _listed(found, report)
    for (place, old_name, value), read in zip(listed, parts_of([value for _, _, value in listed]), strict=True):
        name = profiles.named(old_name)
        if read is None:
            report.refuse(place, f"{said(value)} is not a share of at least 0", "Write one such as 0.4")
        elif name is None:
            text = f"the profile {said(old_name)} is defined nowhere"
            report.refuse(
                place, text, f"Define it under user_behavior_profiles. {suggestion(old_name, profiles.content)}"
            )
        else:
            key = old_name if name_of(old_name) == old_name else name
            if any(profiles.named(other) == name for other in shares):
                report.refuse(place, f"the profile {said(name)} has a share already", "Keep one of them")
            shares[key], spelled[key] = read, value
    if len(report.refusals) > refused:
        return None
    total = math.fsum(shares.values())
    if total <= 0:
        report.refuse(found.place, "has no share above 0", "Give at least one profile a share")
        return None
    written = shares if abs(total - 1) <= SUM_TOLERANCE else to_sum_one(shares)
    if found.key != "user_behavior_distribution" or not same(written, found.value):
        reason = "shares of the profiles" if written is shares else f"they add up to {said(tidy(total))}; scaled to 1"
        report.note(found.place, said(found.value), f"user_behavior_distribution {said(written)}", reason)
    return written


def _listed(found: Found, report: Report) -> list[tuple[str, str, Any]]:
    """Place, profile and share of a distribution: a mapping, a list of mappings, or a list of names in equal parts."""
    value = found.value
    if isinstance(value, Mapping):
        return [
            (at(found.place, name), name, _inner_share(item) if isinstance(item, Mapping) else item)
            for name, item in value.items()
        ]
    entries: list[tuple[str, str, Any]] = []
    if not isinstance(value, list):
        report.refuse(found.place, f"{said(value)} is not a mapping", "Write profile: share")
        return entries
    for index, item in enumerate(value):
        place = at(found.place, index)
        if isinstance(item, str):
            entries.append((place, item, 1))
        elif isinstance(item, Mapping) and (name := _inner_name(item)) is not None:
            entries.append((place, name, _inner_share(item)))
        else:
            report.refuse(place, f"{said(item)} is not a profile and its share", "Write profile: share")
    return entries


def _inner_name(item: Mapping[str, Any]) -> str | None:
    names = [
        value
        for key, value in item.items()
        if plain_key(key) in ("profile", "name", "type", "profile_name", "user_type")
    ]
    return names[0] if len(names) == 1 and isinstance(names[0], str) else None


def _inner_share(item: Mapping[str, Any]) -> Any:
    """The share of an entry that says nothing else: what else it said would be lost."""
    shares = [value for key, value in item.items() if plain_key(key) in _LISTED_SHARES]
    names = 1 if _inner_name(item) is not None else 0
    return shares[0] if len(shares) == 1 and len(item) == 1 + names else item


def _weights(old: Old) -> Tree | None:
    found = old.take("scenario_weights", *_WEIGHTS)
    flat = [key for key in old.keys if plain_key(key).endswith("_weight")]
    if found is None and not flat:
        return None
    report = old.report
    if found is None:
        found = Found("", old.place, {key: old.take_key(key).value for key in flat})
    if not isinstance(found.value, Mapping):
        report.refuse(
            found.place, f"{said(found.value)} is not a mapping", "Write browse_weight and so on with numbers"
        )
        return None
    parts = action_parts(found.value, found.place, report, "_weight")
    if parts is None:
        return None
    if not any(parts.values()):
        report.refuse(found.place, "all weights are 0", "Give at least one user action a weight above 0")
        return None
    written = {f"{action}_weight": weight for action, weight in parts.items()}
    if not found.key:
        for key, value in found.value.items():
            report.note(
                at(found.place, key), said(value), f"scenario_weights {said(written)}", "weights are one mapping"
            )
    elif found.key != "scenario_weights" or not same(written, found.value):
        report.note(found.place, said(found.value), f"scenario_weights {said(written)}", "weights of the user actions")
    return written


def _targets(old: Old, products: list[Tree]) -> list[str] | None:
    found = old.take("target_products", "target_product", "hot_products", "featured_products", "product_focus")
    if found is None:
        return None
    given = found.value if isinstance(found.value, list) else [found.value]
    skus: list[str] = []
    for index, value in enumerate(given):
        sku = sku_named(products, value)
        if sku is None:
            known = [str(product["sku"]) for product in products]
            old.report.refuse(
                at(found.place, index), f"{said(value)} is not a product of the file", suggestion(str(value), known)
            )
        elif sku not in skus:
            skus.append(sku)
    if found.key != "target_products" or not same(skus, found.value):
        old.report.note(
            found.place, said(found.value), f"target_products {said(skus)}", "SKUs of the products, each once"
        )
    return skus or None


def _levels(found: Found | None, key: str, report: Report) -> Tree | None:
    """Service -> level. What cannot be read is dropped: it changes no traffic."""
    if found is None:
        return None
    out: Tree = {}
    entries = found.value.items() if isinstance(found.value, Mapping) else ()
    for name, value in entries:
        service, plain = service_of(str(name)), plain_key(value) if isinstance(value, str) else ""
        level = _LEVELS.get(plain, _LEVELS.get(re.sub(r"_(load|stress|traffic|usage)$", "", plain)))
        if service is None or level is None or service in out:
            reason = f"only tells people something; {key} are levels by service ({', '.join(LEVELS)})"
            report.dropped(at(found.place, str(name)), value, reason)
        else:
            out[service] = level
    if not entries:
        report.dropped(found.place, found.value, "only tells people something")
    elif out and (found.key != key or not same(out, found.value)):
        report.note(found.place, said(found.value), f"{key} {said(out)}", "levels by service")
    return out or None


def _intensity(value: Any) -> str | None:
    return _INTENSITIES.get(plain_key(value)) if isinstance(value, str) else None


def _users(value: Any) -> int | None:
    read = whole_of(value)
    return read if read is not None and read > 0 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None

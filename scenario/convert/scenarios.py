"""Scenarios of old files: their settings, their phases, and what phases inherit from them."""

import math
from collections.abc import Mapping
from typing import Any

from scenario import chaos
from scenario.convert.keys import BASE, PHASES
from scenario.convert.old import Found, Old
from scenario.convert.phases import KNOWN, NEUTRAL_WEIGHTS, Part, Phase, take_part, take_phase
from scenario.convert.profiles import Profiles
from scenario.convert.report import Report, at, said
from scenario.convert.settings import ORDER, add_settings, take_settings
from scenario.convert.timeline import Slot, arrange, place_faults
from scenario.convert.values import tidy, to_sum_one
from scenario.model import DEFAULTS

Tree = dict[str, Any]

_INHERITED = (
    "intensity", "concurrent_users", "user_behavior_distribution", "scenario_weights", "target_products",
    "simulated_conditions", "chaos_parameters", "service_load_characteristics", "expected_service_stress",
)  # fmt: skip


def convert_scenario(
    old: Old, name: str, base: Part, base_settings: Tree, profiles: Profiles, products: list[Tree]
) -> Tree:
    """One scenario of the new file. `base` and `base_settings` are what base_config says for all of them."""
    report = old.report
    named = old.take("name", "scenario_name", "id")
    if named is not None:
        report.dropped(named.place, named.value, f"it is called {name}, as its key is")
    description = old.convert("description", ("desc", "summary"), _text, "text")
    listed = _phase_list(old)
    settings = take_settings(old)
    for key in [key for key in old.keys if key in BASE and isinstance(old.peek(key), Mapping)]:
        found = old.take_key(key)
        nested = Old(found.value, found.place, report)
        add_settings(settings, take_settings(nested), found.place, report)
        nested.finish(ORDER)
        report.note(found.place, said(found.value), f"settings of {name}", "settings stand in the scenario itself")
    own = take_part(old, profiles, products)
    old.finish(("description", "traffic_patterns", *ORDER, *KNOWN))
    phases = [
        take_phase(Old(content, place, report), index, key, profiles, products)
        for index, (place, key, content) in enumerate(listed)
    ]
    total = settings.get("test_duration_minutes", base_settings.get("test_duration_minutes"))
    if not listed:
        report.filled(at(old.place, "traffic_patterns"), f"one phase {name}", "there is no list of phases")
        phases = [Phase(Part(old.place, {}), name, None, total, None, old.place)]
        if total is None:
            report.refuse(
                old.place, "has neither phases nor a duration", "Add traffic_patterns, or test_duration_minutes"
            )
            return {}
    slots = arrange(_unique(phases, report), total, report)
    if not slots:
        return {}
    timelines = place_faults(slots, own.timed, report)
    written = [
        _phase(slot, timeline, own, base, profiles, report) for slot, timeline in zip(slots, timelines, strict=True)
    ]
    _settle(settings, base_settings, base.place, written, old.place, report)
    head = {} if description is None else {"description": description}
    return head | {key: settings[key] for key in ORDER if key in settings} | {"traffic_patterns": written}


def most_users(scenario: Tree) -> int:
    """The users that a scenario comes to at most, with chaos."""
    return max(
        (
            chaos.most_users(phase["concurrent_users"], phase.get("chaos_parameters", {}).get("user_variance", 0.0))
            for phase in scenario.get("traffic_patterns", ())
            if "concurrent_users" in phase
        ),
        default=0,
    )


def _phase_list(old: Old) -> list[tuple[str, str | None, Mapping[str, Any]]]:
    """Place, name by key and content of each phase."""
    report = old.report
    lists = [found for name in PHASES if (found := old.take(name)) is not None]
    for other in lists[1:]:
        report.refuse(other.place, f"stands beside {lists[0].key}", "Write the phases into one list, in their order")
    if not lists:
        return []
    found = lists[0]
    if found.key != "traffic_patterns":
        report.note(found.place, found.key, "traffic_patterns", "renamed")
    entries = _entries(found, report)
    out: list[tuple[str, str | None, Mapping[str, Any]]] = []
    for place, key, content in entries:
        if isinstance(content, Mapping):
            out.append((place, key, content))
        else:
            report.refuse(place, f"{said(content)} is not a phase", "Write it as a mapping")
    if not entries:
        report.refuse(found.place, "has no phases", "Add one")
    return out


def _entries(found: Found, report: Report) -> list[tuple[str, str | None, Any]]:
    value = found.value
    if isinstance(value, list):
        return [(at(found.place, index), None, item) for index, item in enumerate(value)]
    if isinstance(value, Mapping) and value and all(isinstance(item, Mapping) for item in value.values()):
        return [(at(found.place, key), key, item) for key, item in value.items()]
    if isinstance(value, Mapping):
        report.note(found.place, "one phase", "a list of one phase", "phases are a list")
        return [(found.place, None, value)]
    report.refuse(found.place, f"{said(value)} is not a list of phases", "Write the phases as a list")
    return []


def _unique(phases: list[Phase], report: Report) -> list[Phase]:
    """Phases whose names differ."""
    names: set[str] = set()
    out = []
    for phase in phases:
        name = free_name(phase.name, names)
        if name != phase.name:
            report.note(at(phase.part.place, "name"), phase.name, name, "an earlier phase has this name")
        names.add(name)
        out.append(Phase(phase.part, name, phase.start_min, phase.duration_min, phase.end_min, phase.start_place))
    return out


def free_name(name: str, taken: set[str]) -> str:
    """The name, with _2, _3 and so on where it is taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name[: 64 - len(str(number)) - 1]}_{number}"
    return free


def _phase(slot: Slot, timeline: list[Tree], own: Part, base: Part, profiles: Profiles, report: Report) -> Tree:
    phase, place = slot.phase, slot.phase.part.place
    content = dict(phase.part.content)
    for key in _INHERITED:
        outer = own if key in own.content else base
        if key not in content and key in outer.content:
            content[key] = outer.content[key]
            where = "the scenario" if outer is own else base.place
            report.note(
                at(outer.place, key), said(content[key]), f"{phase.name}.{key} {said(content[key])}",
                f"{where} says it for phases that do not",
            )  # fmt: skip
    is_told = any(problem.place.startswith(f"{place}.") for problem in report.refusals)  # it may be what was refused
    if "concurrent_users" not in content and not is_told:
        report.refuse(place, "concurrent_users is missing", "Add it to the phase or to its scenario")
    _fill(content, place, profiles, report)
    _ramp(content, slot, own, base, report)
    if timeline:
        content["failure_timeline"] = timeline
    head = {"name": phase.name}
    times: Tree = {"duration_minutes": slot.duration_min}
    if phase.start_min is not None:
        times = {"start_minute": slot.start_min} | times
    return {key: value for key in KNOWN if (value := (head | times | content).get(key)) is not None}


def _fill(content: Tree, place: str, profiles: Profiles, report: Report) -> None:
    if "intensity" not in content:
        content["intensity"] = "medium"
        report.filled(at(place, "intensity"), "medium", "default: the pace of the profiles as they stand")
    if "scenario_weights" not in content:
        content["scenario_weights"] = dict(NEUTRAL_WEIGHTS)
        reason = "default: equal weights leave the action_probabilities of the profiles as they are"
        report.filled(at(place, "scenario_weights"), said(NEUTRAL_WEIGHTS), reason)
    if "user_behavior_distribution" not in content and profiles.content:
        weights = {name: profiles.weights.get(name, 1) for name in profiles.content}
        if not any(weights.values()):
            weights = dict.fromkeys(weights, 1)
        shares = to_sum_one(weights)
        content["user_behavior_distribution"] = shares
        how = "by the weights of the profiles" if profiles.weights else "equal shares of all profiles"
        report.filled(at(place, "user_behavior_distribution"), said(shares), f"default: {how}")


def _ramp(content: Tree, slot: Slot, own: Part, base: Part, report: Report) -> None:
    """A spawn rate as the time that the phase's users take."""
    rates = (slot.phase.part.spawn_rate, own.spawn_rate, base.spawn_rate)
    rate = next((one for one in rates if one is not None), None)
    if rate is None or "ramp_up_time_seconds" in content or "concurrent_users" not in content:
        return
    ramp_s = tidy(min(content["concurrent_users"] / rate, slot.duration_min * 30))
    content["ramp_up_time_seconds"] = ramp_s
    reason = f"users / spawn_rate {said(rate)}, at most half of the phase"
    report.filled(at(slot.phase.part.place, "ramp_up_time_seconds"), said(ramp_s), reason)


def _settle(settings: Tree, base: Tree, base_place: str, phases: list[Tree], place: str, report: Report) -> None:
    """Settings that depend on the phases. What the phases say decides."""
    total = tidy(math.fsum(phase["duration_minutes"] for phase in phases))
    wanted = settings.get("test_duration_minutes", base.get("test_duration_minutes"))
    if wanted is not None and abs(wanted - total) > 1e-6:
        where = place if "test_duration_minutes" in settings else base_place
        reason = f"the phases add up to {said(total)}"
        written = f"{at(place, 'test_duration_minutes')} {said(total)}"
        report.note(at(where, "test_duration_minutes"), said(wanted), written, reason)
        settings["test_duration_minutes"] = total
    shortest_s = min(phase["duration_minutes"] for phase in phases) * 60
    if "ramp_seconds" not in settings and "ramp_seconds" not in base and shortest_s <= DEFAULTS["ramp_seconds"]:
        settings["ramp_seconds"] = tidy(shortest_s / 2)
        reason = f"the default of {said(DEFAULTS['ramp_seconds'])} s does not fit a phase of {said(tidy(shortest_s))} s"
        report.filled(at(place, "ramp_seconds"), said(settings["ramp_seconds"]), reason)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None

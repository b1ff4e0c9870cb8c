"""A whole old file as a tree of the new schema."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scenario.convert.catalogue import convert_addresses, convert_catalogue
from scenario.convert.keys import ROOT
from scenario.convert.old import Old
from scenario.convert.phases import Part, take_part
from scenario.convert.profiles import Profiles, convert_profiles
from scenario.convert.report import Note, Report, at, said, same
from scenario.convert.scenarios import convert_scenario, free_name, most_users
from scenario.convert.sections import Named, Sections, find_sections
from scenario.convert.settings import ORDER, add_settings, take_base_url, take_for_profiles, take_settings
from scenario.convert.values import name_of
from scenario.errors import Problem
from scenario.model import one_name

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Conversion:
    """The tree is only worth something when nothing was refused."""

    tree: Tree
    notes: list[Note]
    refusals: list[Problem]


def convert(tree: Any, shipped: Tree, report: Report | None = None) -> Conversion:
    """An old file as a new one, with every change and decision, and all that is refused.

    `shipped` gives user_behavior_profiles, product_catalogue and shipping_addresses for what a file leaves out.
    """
    report = report or Report()
    sections = find_sections(tree, report)
    base_settings, for_profiles, base_olds = _base(sections, report)
    products = convert_catalogue(sections.catalogue, shipped["product_catalogue"], report)
    profiles = convert_profiles(sections.profiles, for_profiles, shipped["user_behavior_profiles"], report)
    base_part = _base_part(base_olds, profiles, products, report)
    scenarios: Tree = {}
    named = _unique(sections.scenarios, report)
    for place, name, content in named:
        old = Old(content, place, report)
        scenarios[name] = convert_scenario(old, name, base_part, base_settings, profiles, products)
    if not sections.profiles:
        report.refuse(
            "user_behavior_profiles", "there are no profiles", "Add user_behavior_profiles; configs/ has examples"
        )
    if not sections.scenarios:
        report.refuse("training_scenarios", "there are no scenarios", "Add training_scenarios with traffic_patterns")
    if not report.refusals:
        places = {name: place for place, name, _ in named}
        _enough_users(base_settings, base_part.place, scenarios, places, report)
        _unused(profiles, scenarios, report)
    suite = {
        "base_config": {key: base_settings[key] for key in ORDER if key in base_settings},
        "user_behavior_profiles": profiles.content,
        "training_scenarios": scenarios,
        "product_catalogue": products,
        "shipping_addresses": convert_addresses(sections.addresses, shipped["shipping_addresses"], report),
    }
    return Conversion({ROOT: suite}, report.notes, report.refusals)


def _base(sections: Sections, report: Report) -> tuple[Tree, Tree, list[Old]]:
    """Settings of base_config, what it says for profiles, and what is left of it."""
    settings: Tree = {}
    for_profiles: Tree = {}
    olds: list[Old] = []
    for found in [*sections.base, *sections.loose]:
        if not isinstance(found.value, Mapping):
            report.refuse(found.place, f"{said(found.value)} is not a mapping", "Write settings with their values")
            continue
        old = Old(found.value, found.place, report)
        olds.append(old)
        url = take_base_url(old)
        taken = take_settings(old) | ({} if url is None else {"base_url": url})
        add_settings(settings, taken, found.place, report)
        for key, value in taken.items() if not found.key else ():
            report.note(at(found.place, key), said(value), f"base_config.{key}", "moved")
        add_settings(for_profiles, take_for_profiles(old), found.place, report)
    return settings, for_profiles, olds


def _base_part(olds: list[Old], profiles: Profiles, products: list[Tree], report: Report) -> Part:
    content: Tree = {}
    rate = None
    for old in olds:
        part = take_part(old, profiles, products)
        add_settings(content, part.content, old.place, report)
        rate = part.spawn_rate if rate is None else rate
        for timed in part.timed:
            report.refuse(timed.place, "says of no scenario when it is", "Move it into its scenario or phase")
        named = old.take("name", "description")
        if named is not None:
            report.dropped(named.place, named.value, "only tells people something")
        old.finish(("base_config", "user_behavior_profiles", "training_scenarios", "product_catalogue", *ORDER))
    return Part(olds[0].place if olds and olds[0].place else "base_config", content, [], rate)


def _unique(found: list[Named], report: Report) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Scenarios whose names differ: of two with one name and one content one is kept, else the second is renamed."""
    out: list[tuple[str, str, Mapping[str, Any]]] = []
    for place, old_name, content in found:
        if not isinstance(content, Mapping):
            report.refuse(place, f"{said(content)} is not a scenario", "Write a mapping with traffic_patterns")
            continue
        name = name_of(old_name) or "scenario"
        twin = next((other for other in out if other[1] == name and same(other[2], content)), None)
        if twin is not None:
            report.dropped(place, content, f"{twin[0]} is the same scenario")
            continue
        free = free_name(name, {other for _, other, _ in out})
        if free != old_name:
            reason = (
                "names are letters, digits, _ and -"
                if free == name
                else "another scenario has this name; both are kept"
            )
            report.note(place, said(old_name), free, reason)
        out.append((place, free, content))
    return out


def _enough_users(base: Tree, base_place: str, scenarios: Tree, places: Mapping[str, str], report: Report) -> None:
    """Raise max_concurrent_users and total_users to what the phases need: they only limit, so no traffic changes."""
    for key in ("max_concurrent_users", "total_users"):
        common = 0
        for name, scenario in scenarios.items():
            need = most_users(scenario)
            if key not in scenario:
                common = max(common, need)
            elif scenario[key] < need:
                report.note(
                    at(places[name], key), said(scenario[key]), f"{key} {need}", "a phase has so many users, with chaos"
                )
                scenario[key] = need
        if key not in base and common:
            base[key] = max(common, base.get("max_concurrent_users", 0) if key == "total_users" else 0)
            report.filled(at(base_place, key), said(base[key]), "default: the most users of a phase, with chaos")
        elif key in base and base[key] < common:
            report.note(
                at(base_place, key), said(base[key]), f"{key} {common}", "a phase has so many users, with chaos"
            )
            base[key] = common


def _unused(profiles: Profiles, scenarios: Tree, report: Report) -> None:
    used = {
        one_name(name)
        for scenario in scenarios.values()
        for phase in scenario["traffic_patterns"]
        for name, share in phase["user_behavior_distribution"].items()
        if share > 0
    }
    for name in profiles.content:
        if one_name(name) not in used:
            report.note(at("user_behavior_profiles", name), "used by no phase", "kept", "it does no harm")

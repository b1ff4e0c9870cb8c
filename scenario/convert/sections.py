"""Where the parts of an old file are: profiles, scenarios, products and so on, under whatever they stand."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scenario.convert.keys import (
    ADDRESSES,
    BASE,
    CATALOGUE,
    CONTAINERS,
    DESCRIBING,
    PHASES,
    PROFILES,
    ROOT,
    is_scenarios,
    is_section,
)
from scenario.convert.old import Found
from scenario.convert.report import Report, at, said
from scenario.convert.values import plain_key

Named = tuple[str, str, Any]  # place, name, content
_DEEPEST = 6


@dataclass(frozen=True, slots=True)
class Sections:
    base: list[Found] = field(default_factory=list)
    profiles: list[Named] = field(default_factory=list)
    scenarios: list[Named] = field(default_factory=list)
    catalogue: list[Found] = field(default_factory=list)
    addresses: list[Found] = field(default_factory=list)
    loose: list[Found] = field(default_factory=list)  # mappings of keys that belong to no section


def find_sections(tree: Any, report: Report) -> Sections:
    """All sections of a file, in their order."""
    finder = _Finder(report)
    if isinstance(tree, Mapping):
        finder.walk(tree, "", within_root=False, depth=0)
    else:
        report.refuse("", f"{said(tree)} is not a mapping", "Convert a file with profiles and scenarios")
    return finder.sections


class _Finder:
    def __init__(self, report: Report) -> None:
        self._report = report
        self.sections = Sections()

    def walk(self, mapping: Mapping[str, Any], place: str, within_root: bool, depth: int) -> None:
        loose: dict[str, Any] = {}
        for key, value in mapping.items():
            here = at(place, key)
            if key == ROOT and isinstance(value, Mapping) and not place:
                self.walk(value, "", within_root=True, depth=depth + 1)
            elif value is not None and is_section(key):
                self._section(key, value, here, within_root and not place)
            elif isinstance(value, Mapping) and depth < _DEEPEST and _is_container(key, value):
                self._report.note(here, f"a container {key}", f"its parts under {ROOT}", "every file has one root")
                self.walk(value, here, within_root=False, depth=depth + 1)
            elif isinstance(value, Mapping) and _is_scenario(value):
                self._report.note(
                    here, f"a scenario {key}", f"training_scenarios.{key}", "scenarios stand in one section"
                )
                self.sections.scenarios.append((here, key, value))
            elif key == "$schema" and not place:
                self._report.dropped(here, value, "the schema of the old file")
            else:
                loose[key] = value
        if loose:
            self.sections.loose.append(Found("", place, loose))

    def _section(self, key: str, value: Any, here: str, in_place: bool) -> None:
        plain, parts = plain_key(key), self.sections
        if is_scenarios(key):
            name = "training_scenarios"
            parts.scenarios.extend(self._named(value, here, "scenario"))
        elif plain in PROFILES:
            name = "user_behavior_profiles"
            parts.profiles.extend(self._named(value, here, "profile"))
        else:
            name, into = next(
                (name, into)
                for name, names, into in (
                    ("base_config", BASE, parts.base),
                    ("product_catalogue", CATALOGUE, parts.catalogue),
                    ("shipping_addresses", ADDRESSES, parts.addresses),
                )
                if plain in names
            )
            into.append(Found(key, here, value))
        if key != name or not in_place:
            self._report.note(here, key, f"{ROOT}.{name}", "renamed" if in_place else "moved")

    def _named(self, value: Any, place: str, what: str) -> list[Named]:
        """Place, name and content of each entry: of a mapping by name, or of a list of entries with names."""
        entries: list[Named] = []
        if isinstance(value, list):
            self._report.note(place, "a list", "a mapping by name", f"every {what} has its name as key")
            for index, item in enumerate(value):
                here = at(place, index)
                keys = (
                    [key for key in item if plain_key(key) in ("name", f"{what}_name", "id")]
                    if isinstance(item, Mapping)
                    else []
                )
                if keys and isinstance(item[keys[0]], str):
                    rest = {key: one for key, one in item.items() if key != keys[0]}
                    entries.append((here, item[keys[0]], rest))
                else:
                    self._report.refuse(here, f"{said(item)} has no name", "Add a name")
            return entries
        if not isinstance(value, Mapping):
            self._report.refuse(
                place, f"{said(value)} is not a mapping", f"Write the name of each {what} and its content"
            )
            return entries
        for key, item in value.items():
            here, plain = at(place, key), plain_key(key)
            if item is None or (
                not isinstance(item, Mapping | list) and (DESCRIBING.fullmatch(plain) or plain == "description")
            ):
                self._report.dropped(here, item, "only tells people something")
            elif what == "scenario" and is_scenarios(key):
                self._report.note(here, key, "training_scenarios", "scenarios stand in one section")
                entries += self._named(item, here, what)
            else:
                entries.append((here, key, item))
        return entries


def _is_container(key: str, value: Mapping[str, Any]) -> bool:
    return plain_key(key) in CONTAINERS or any(is_section(inner) for inner in value)


def _is_scenario(value: Mapping[str, Any]) -> bool:
    keys = {plain_key(key) for key in value}
    return bool(keys & set(PHASES)) or (any("duration" in key for key in keys) and any("users" in key for key in keys))

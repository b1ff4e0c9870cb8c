"""Faults of old files: simulated_conditions and failure_timeline, as numbers or in words."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from scenario.convert import prose
from scenario.convert.old import MINUTE_S, Found, Old
from scenario.convert.report import Report, at, said, same
from scenario.convert.values import number_of, percent_of, plain_key, tidy
from scenario.errors import suggestion
from scenario.model import SERVICES

Tree = dict[str, Any]

CONDITION_NAMES: Mapping[str, tuple[str, ...]] = {
    "latency_factor": (
        "latency_multiplier", "response_time_multiplier", "slowdown", "slowdown_factor", "delay_factor", "latency",
        "response_time", "response_times", "response_time_factor",
    ),
    "error_rate": ("failure_rate", "errors", "failures", "error_percentage", "error_percent", "error_probability"),
    "timeout_rate": ("timeouts", "timeout_percentage", "timeout_percent", "timeout_probability"),
    "capacity": ("capacity_left", "capacity_factor", "remaining_capacity"),
    "antagonist": ("antagonist_cpu", "cpu_antagonist"),
    "crash": ("down", "outage", "unavailable", "crashed"),
}  # fmt: skip
_UNCLEAR = {"latency", "response_time", "response_times", "errors", "failures", "timeouts"}
"""Names behind which a bare number could be milliseconds, or a count."""
_INCREASES = ("latency_increase", "response_time_increase")
_LIMITS = {
    "latency_factor": ("a factor above 1", 1.0, 1000.0),
    "error_rate": ("a share above 0, at most 1", 0.0, 1.0),
    "timeout_rate": ("a share above 0, at most 1", 0.0, 1.0),
    "capacity": ("a share between 0 and 1", 0.0, 1.0),
    "antagonist": ("a share above 0, at most 0.95", 0.0, 0.95),
}
_PROSE_WAY_OUT = (
    'Write what happens with its numbers, such as "5x normal response time" or "30% of requests fail", '
    "or remove it if nothing happens"
)
_ONLY_TEXT = ("description", "severity")
_TEXT_KEYS = ("impact", "effect", "condition", "conditions", "behavior", "behaviour", "details", *_ONLY_TEXT)
_KIND_KEYS = ("failure_type", "type", "event", "fault", "failure", "kind", "fault_type", "action")
_SERVICE_KEYS = (
    "service", "target_service", "affected_service", "services", "affected_services", "target", "component",
)  # fmt: skip
_ENTRY_KEYS = ("minute", "duration_minutes", "service", "impact", *CONDITION_NAMES)


@dataclass(frozen=True, slots=True)
class Timed:
    """An entry of an old failure_timeline, in minutes of what it stands in."""

    place: str
    services: tuple[str, ...]
    start_min: float
    duration_min: float | None  # None: not said
    conditions: Tree  # empty: from here on all is well
    raw: Any  # the entry as the old file has it

    def entries(self, minute: float, duration_min: float) -> list[Tree]:
        """As a failure_timeline has it, from `minute` of its phase on."""
        when = {"minute": tidy(minute), "duration_minutes": tidy(duration_min)}
        return [when | {"service": service} | self.conditions for service in self.services]


# What holds for a whole phase


def simulated(found: Found, report: Report) -> Tree | None:
    """Service -> conditions. None: nothing goes wrong, or it was refused."""
    value, out = found.value, dict[str, Tree]()
    if isinstance(value, list):
        for index, entry in enumerate(value):
            _add_listed(out, entry, at(found.place, index), report)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _add_named(out, str(key), item, at(found.place, str(key)), report)
    elif isinstance(value, str):
        _add_listed(out, value, found.place, report)
    else:
        report.refuse(found.place, f"{said(value)} names no service", "Write it as service: conditions")
    if out and (found.key != "simulated_conditions" or not same(out, value)):
        report.note(found.place, said(value), f"simulated_conditions {said(out)}", "conditions as numbers, by service")
    elif not out and not isinstance(value, bool):
        report.note(found.place, said(value), None, "nothing goes wrong there")
    return out or None


def _add_named(out: dict[str, Tree], key: str, value: Any, place: str, report: Report) -> None:
    if value is None:
        report.dropped(place, None, "nothing stands behind the key")
        return
    hint: str | None = None
    service = prose.service_of(key)
    if service is None:
        service, hint = _service_and_hint(key)
    if service is None:
        way_out = f"Write it under a service. {suggestion(key, SERVICES)}"
        report.refuse(place, f"{said(key)} is not one of the five services", way_out)
        return
    conditions = _conditions(value, place, service, hint, report)
    if conditions:
        _merge(out, service, conditions, place, report)


def _add_listed(out: dict[str, Tree], value: Any, place: str, report: Report) -> None:
    service: str | None
    if isinstance(value, Mapping):
        entry = Old(value, place, report)
        services = _services(entry)
        conditions = _entry_conditions(entry, services)
        entry.finish(_ENTRY_KEYS)
        if conditions and _names_a_service(entry, services, conditions):
            for service in services:
                _merge(out, service, conditions, place, report)
        return
    service, rest = prose.service_in(value) if isinstance(value, str) else (None, "")
    told = prose.conditions_of(rest) if service else prose.conditions_of(value) if isinstance(value, str) else None
    if told == {}:
        return
    if service is None or told is None:
        report.refuse(place, f"{said(value)} is not understood", f"{_PROSE_WAY_OUT}; name the service before a colon")
    elif _allowed(told, place, report):
        _merge(out, service, told, place, report)


def _merge(out: dict[str, Tree], service: str, conditions: Tree, place: str, report: Report) -> None:
    _add(out.setdefault(service, {}), conditions, place, report)


def _add(there: Tree, conditions: Tree, place: str, report: Report) -> None:
    """Put conditions beside others; the same one with two values is refused."""
    for key, value in conditions.items():
        if there.setdefault(key, value) != value:
            report.refuse(
                place, f"says {key} {said(value)}, but {said(there[key])} stands beside it", "Keep one of them"
            )


def _service_and_hint(key: str) -> tuple[str | None, str | None]:
    """cart_service_error_rate is about the cart service and its error rate."""
    service, hint = _service_before(key), prose.hint_of(key)
    return (service, hint) if service and hint else (None, None)


def _service_before(key: str) -> str | None:
    """The service that a name such as cart_service_slowdown begins with."""
    plain = plain_key(key)
    return next((one for one in SERVICES if plain.startswith(f"{one.removesuffix('-service')}_")), None)


# Conditions


def _conditions(value: Any, place: str, service: str, hint: str | None, report: Report) -> Tree | None:
    """The conditions that stand behind a service; {} when all is well, None when refused."""
    if isinstance(value, Mapping):
        entry = Old(value, place, report)
        conditions = _entry_conditions(entry, (service,))
        entry.finish(list(CONDITION_NAMES))
        return conditions
    out: Tree = {}
    for part in value if isinstance(value, list) else [value]:
        told = _understood(part, hint, (service,)) if isinstance(part, str) else None
        if told is None and hint is not None and not isinstance(part, list | Mapping):
            single = prose.value_of(hint, part)
            told = None if single is None else {hint: single}
        if told is None:
            report.refuse(place, f"{said(part)} is not understood", _PROSE_WAY_OUT)
            return None
        _add(out, told, place, report)
    return out if _allowed(out, place, report) else None


def _understood(text: str, hint: str | None, services: tuple[str, ...]) -> Tree | None:
    """What a text tells of these services. None: it is not understood, or is about another one."""
    told = prose.conditions_of(text, hint)
    if told is None:
        service, rest = prose.service_in(text)
        told = prose.conditions_of(rest, hint) if service in services else None
    return told


def _entry_conditions(entry: Old, services: tuple[str, ...]) -> Tree | None:
    """The conditions in the keys and the words of a mapping about `services`."""
    report, out, refused = entry.report, Tree(), len(entry.report.refusals)
    for key, names in CONDITION_NAMES.items():
        found = entry.take(key, *names)
        if found is not None and plain_key(found.key) in _UNCLEAR and (number_of(found.value) or 0) > 1:
            report.refuse(found.place, f"{said(found.value)} has no unit", f"Write it as {key}")
        elif found is not None and (value := prose.value_of(key, found.value)) is None:
            report.refuse(found.place, f"{said(found.value)} is not understood as {key}", _PROSE_WAY_OUT)
        elif found is not None and value is not False and not (value == 0 and key != "capacity"):
            out[key] = value
    for name in _INCREASES:
        found = entry.take(name)
        if found is not None and (share := percent_of(found.value)) is not None:
            _add(out, {"latency_factor": tidy(1 + share)}, found.place, report)
        elif found is not None:
            report.refuse(found.place, f"{said(found.value)} is not a percentage", 'Write it such as "300%"')
    instances = entry.take("instances", "instance", "affected_instances")
    if instances is not None:
        out["instances"] = instances.value if isinstance(instances.value, list) else [instances.value]
    _words(entry, services, out)
    if len(report.refusals) > refused or not _allowed(out, entry.place, report):
        return None
    return out


def _words(entry: Old, services: tuple[str, ...], out: Tree) -> None:
    """What the texts of an entry tell. A text beside conditions in numbers only describes them."""
    report, kind = entry.report, entry.take(*_KIND_KEYS)
    hint = prose.hint_of(kind.value) if kind and isinstance(kind.value, str) else None
    _value(entry, hint, out)
    is_end = kind is not None and isinstance(kind.value, str) and prose.conditions_of(kind.value) == {}
    told_any = is_end or any(key != "instances" for key in out)
    for name in _TEXT_KEYS:
        found = entry.take(name)
        if found is None:
            continue
        if name in _ONLY_TEXT and told_any:
            report.dropped(found.place, found.value, "only tells people something")
            continue
        told = _told(found, hint, services, report)
        if told is not None:
            told_any = True
            _add(out, told, found.place, report)
    if kind is not None and not told_any:
        out |= _told(kind, hint, services, report) or {}
    elif kind is not None and not is_end:
        report.dropped(kind.place, kind.value, "the conditions say it")


def _value(entry: Old, hint: str | None, out: Tree) -> None:
    """A number whose meaning the kind of the entry tells: type error_rate, value 0.3."""
    found = entry.take("value", "rate", "factor", "multiplier", "percentage", "magnitude")
    if found is None:
        return
    value = None if hint is None else prose.value_of(hint, found.value)
    if value is None or hint is None:
        text = f"{said(found.value)} is not understood" + ("" if hint is None else f" as {hint}")
        entry.report.refuse(found.place, text, f"Write it as one of {', '.join(CONDITION_NAMES)}")
    else:
        _add(out, {hint: value}, found.place, entry.report)


def _told(found: Found, hint: str | None, services: tuple[str, ...], report: Report) -> Tree | None:
    if isinstance(found.value, Mapping):
        nested = Old(found.value, found.place, report)
        conditions = _entry_conditions(nested, services)
        nested.finish(list(CONDITION_NAMES))
        return conditions
    told = _understood(found.value, hint, services) if isinstance(found.value, str) else None
    if told is None:
        report.refuse(found.place, f"{said(found.value)} is not understood", _PROSE_WAY_OUT)
    return told


def _allowed(conditions: Tree, place: str, report: Report) -> bool:
    good = True
    for key, value in conditions.items():
        if key in _LIMITS:
            what, low, high = _LIMITS[key]
            if not (low < value <= high) or (key == "capacity" and value == 1):
                report.refuse(place, f"{key} {said(value)} is not {what}", f"Write {key} as {what}")
                good = False
    return good


# What holds for a while


def timeline(found: Found, report: Report) -> list[Timed]:
    """The entries of a failure_timeline, with the minutes that the old file counts."""
    if not isinstance(found.value, list):
        report.refuse(found.place, f"{said(found.value)} is not a list", "Write its entries as a list")
        return []
    entries = []
    for index, entry in enumerate(found.value):
        place = at(found.place, index)
        if isinstance(entry, Mapping):
            timed = _timed(Old(entry, place, report), entry)
            entries += [timed] if timed else []
        else:
            report.refuse(
                place, f"{said(entry)} is not a mapping", "Write minute, duration_minutes, service and conditions"
            )
    return _with_durations(entries, report)


def _timed(entry: Old, raw: Any) -> Timed | None:
    report, refused = entry.report, len(entry.report.refusals)
    unit_s = entry.unit_of_minutes()
    start = entry.time(
        "minute",
        ("", "start", "at", "minute", "start_minute", "at_minute", "start_time", "time"),
        MINUTE_S,
        MINUTE_S,
        True,
    )
    duration = entry.time("duration_minutes", ("duration",), MINUTE_S, unit_s)
    services = _services(entry)
    conditions = _entry_conditions(entry, services)
    _names_a_service(entry, services, conditions)
    entry.finish(_ENTRY_KEYS)
    if start is None and len(report.refusals) == refused:
        report.refuse(entry.place, "does not say when it begins", "Add minute")
    if len(report.refusals) > refused or conditions is None:
        return None
    return Timed(entry.place, services, start, duration, conditions, raw)


def _services(entry: Old) -> tuple[str, ...]:
    """The services that an entry names under a key or in its words; to be asked before the words are taken."""
    found = entry.take(*_SERVICE_KEYS)
    if found is None:
        words = [entry.peek(key) for key in entry.keys if plain_key(key) in _TEXT_KEYS + _KIND_KEYS]
        named = [prose.service_in(text)[0] or _service_before(text) for text in words if isinstance(text, str)]
        return tuple(dict.fromkeys(service for service in named if service is not None))
    names = found.value if isinstance(found.value, list) else [found.value]
    if names in (["all"], ["all_services"]):
        return SERVICES
    services = [prose.service_of(name) if isinstance(name, str) else None for name in names]
    for name, service in zip(names, services, strict=True):
        if service is None:
            text = f"{said(name)} is not one of the five services"
            entry.report.refuse(found.place, text, suggestion(str(name), SERVICES))
    return tuple(service for service in services if service is not None)


def _names_a_service(entry: Old, services: tuple[str, ...], conditions: Tree | None) -> bool:
    if conditions and not services:
        entry.report.refuse(entry.place, "names no service", f"Add service: one of {', '.join(SERVICES)}")
    return bool(services)


def _with_durations(entries: list[Timed], report: Report) -> list[Timed]:
    """Entries that go wrong; without a duration they last until the next of their services, or until all is well."""
    out = []
    for entry in entries:
        if not entry.conditions:
            report.dropped(entry.place, entry.raw, "all is well from there on; faults end by themselves")
            continue
        ends = [
            other.start_min
            for other in entries
            if other.start_min > entry.start_min and (not other.services or set(other.services) & set(entry.services))
        ]
        if entry.duration_min is None and ends:
            entry = replace(entry, duration_min=min(ends) - entry.start_min)
        out.append(entry)
    return out

"""What concerns several values of one phase besides its users: faults, chaos, products and services it names.

Like `scenario.checks`, whose part this is: works on the well-formed part of a file, one list of problems out.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from scenario.errors import Problem, number, show, suggestion
from scenario.model import DEFAULTS, FAULT_KINDS, SERVICES, one_service
from scenario.structure import place_of

Tree = Mapping[str, Any]
IsWhole = Callable[[str], bool]
_TOLERANCE_MIN = 1e-6


def check_phase(
    place: str, phase: Tree, skus: Mapping[str, int], ramp_s: float | None, is_whole: IsWhole
) -> list[Problem]:
    """Problems of the phase at `place`.

    `skus` are those of the catalogue; `ramp_s` is the scenario's ramp, None when it is not known; `is_whole(place)`
    says that nothing at or below a place was reported already.
    """
    return [
        *_faults(place, phase, is_whole),
        *_chaos(f"{place}.chaos_parameters", phase, ramp_s, is_whole),
        *_ramp(f"{place}.ramp_up_time_seconds", phase),
        *_products(f"{place}.target_products", phase.get("target_products") or (), skus, is_whole),
        *_services(place, phase),
    ]


def _faults(place: str, phase: Tree, is_whole: IsWhole) -> Iterator[Problem]:
    named: list[tuple[str, str, Tree]] = [
        (f"{place}.simulated_conditions.{place_of((name,))}", name, conditions)
        for name, conditions in (phase.get("simulated_conditions") or {}).items()
    ]
    yield from _one_key_each(f"{place}.simulated_conditions", [name for _, name, _ in named])
    for index, entry in enumerate(phase.get("failure_timeline") or ()):
        where = f"{place}.failure_timeline[{index}]"
        if "service" in entry:
            named.append((where, entry["service"], entry))
        yield from _ends_in_time(where, entry, phase)
    for where, name, conditions in named:
        if one_service(name) is None:
            yield Problem(where, f"there is no service {show(name)}", suggestion(name, SERVICES))
        if is_whole(where) and not any(condition in conditions for condition in FAULT_KINDS):
            yield Problem(where, "says nothing of what goes wrong", f"Give at least one of {', '.join(FAULT_KINDS)}")
        instances = conditions.get("instances") or ()
        if len(set(instances)) < len(instances):
            yield Problem(f"{where}.instances", "names an instance twice", "Name each one once")


def _ends_in_time(where: str, entry: Tree, phase: Tree) -> Iterator[Problem]:
    values = (entry.get("minute"), entry.get("duration_minutes"), phase.get("duration_minutes"))
    minute, lasts, phase_lasts = values
    if minute is None or lasts is None or phase_lasts is None:
        return
    if minute + lasts > phase_lasts + _TOLERANCE_MIN:
        text = f"ends at minute {number(minute + lasts)} of a phase of {number(phase_lasts)} minutes"
        yield Problem(where, text, "Shorten it, or write the rest into the next phase")


def _chaos(where: str, phase: Tree, ramp_s: float | None, is_whole: IsWhole) -> Iterator[Problem]:
    chaos: Tree | None = phase.get("chaos_parameters")
    if chaos is None or not is_whole(where):
        return
    variances = ("user_variance", "think_time_variance", "action_randomness")
    if not any(chaos.get(name) for name in variances):
        yield Problem(where, "randomizes nothing", f"Give one of {', '.join(variances)} a value above 0")
    every_s = chaos.get("change_every_seconds", DEFAULTS["change_every_seconds"])
    takes_s = phase.get("ramp_up_time_seconds", ramp_s)
    if takes_s is not None and every_s <= takes_s:
        text = f"is {number(every_s)} s, but users take {number(takes_s)} s to change"
        yield Problem(f"{where}.change_every_seconds", text, "Use a larger one, or a shorter ramp")


def _ramp(where: str, phase: Tree) -> Iterator[Problem]:
    ramp_s, minutes = phase.get("ramp_up_time_seconds"), phase.get("duration_minutes")
    if ramp_s is not None and minutes is not None and ramp_s >= minutes * 60:
        text = f"is {number(ramp_s)} s, but the phase lasts only {number(minutes * 60)} s"
        yield Problem(where, text, "Use a shorter ramp or a longer phase")


def _products(where: str, targets: Any, skus: Mapping[str, int], is_whole: IsWhole) -> Iterator[Problem]:
    if not is_whole(where):
        return
    for index, sku in enumerate(targets):
        if skus and sku not in skus:
            yield Problem(f"{where}[{index}]", f"{show(sku)} is not in product_catalogue", suggestion(sku, skus))
        if sku in targets[:index]:
            yield Problem(f"{where}[{index}]", f"{show(sku)} stands there already", "Name each product once")


def _services(place: str, phase: Tree) -> Iterator[Problem]:
    for key in ("service_load_characteristics", "expected_service_stress"):
        names = list(phase.get(key) or {})
        for name in names:
            if one_service(name) is None:
                text = f"there is no service {show(name)}"
                yield Problem(f"{place}.{key}", text, suggestion(name, SERVICES))
        yield from _one_key_each(f"{place}.{key}", names)


def _one_key_each(where: str, names: list[str]) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for name in names:
        service = one_service(name)
        if service is not None and first.setdefault(service, name) != name:
            yield Problem(where, f"{show(name)} and {show(first[service])} name the same service", "Keep one of them")

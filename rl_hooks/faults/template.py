"""A file that says how each kind of fault is made in a target, with places for what differs from fault to fault.

```yaml
timeout_seconds: 5                 # for one call; left out: 10
normal_ms: {cart-service: 40}      # usual response times; needed where {delay_ms} stands
faults:
  latency:
    apply: POST /api/degradation/latency/start?delayMs={delay_ms}
    lift: POST /api/degradation/latency/stop
```

| place | what stands there |
|---|---|
| {service}, {kind}, {index} | cart-service, latency, 0 |
| {instance} | one instance; the call is made once for each that the fault names |
| {value}, {percent} | 0.2, 20; the factor, rate or share |
| {delay_ms} | (factor - 1) x normal_ms of the service, whole milliseconds |
| {duration_s} | how long the fault lasts, real seconds |
| {handle} | in `lift`: what `apply` got back |
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rl_hooks.faults.injector import InjectorError
from rl_hooks.places import fill, places_of, texts_of
from scenario.errors import ScenarioError
from scenario.faults import PlanFault
from scenario.model import FAULT_KINDS
from scenario.text import read_document

PLACES = ("service", "kind", "index", "instance", "value", "percent", "delay_ms", "duration_s", "handle")
DEFAULT_TIMEOUT_S = 10.0
_NUMBERS = ("{value}", "{percent}", "{delay_ms}", "{duration_s}")
_KEYS = ("timeout_seconds", "normal_ms", "headers", "faults")


@dataclass(frozen=True)
class Way:
    """How one kind of fault is made and taken back; `Text` is a str or a list of str, with places."""

    apply: Any
    lift: Any
    body: Any  # JSON sent with `apply`; None: none
    handle: str | None  # key of the answer to `apply` that `lift` needs

    def texts(self) -> list[str]:
        return [*texts_of(self.apply), *texts_of(self.lift), *texts_of(self.body)]


@dataclass(frozen=True)
class Templates:
    """A file of templates that was read without a problem."""

    file: str
    timeout_s: float
    normal_ms: Mapping[str, float]
    headers: Mapping[str, str]
    ways: Mapping[str, Way]  # kind -> way

    def problems(self, faults: Sequence[PlanFault]) -> list[str]:
        """Which of `faults` the file cannot make, each with the way out."""
        found = [
            f"{self.file}: says nothing of {kind}; add faults.{kind} with apply and lift"
            for kind in sorted({fault.kind for fault in faults} - self.ways.keys())
        ]
        for fault in faults:
            places = self._places(fault.kind)
            if fault.instances and fault.kind in self.ways and "instance" not in places:
                way_out = f"use {{instance}} in faults.{fault.kind}, or name no instances in the scenario"
                found.append(f"{self.file}: cannot make {fault.text} in single instances; {way_out}")
            if not fault.instances and "instance" in places:
                found.append(f"{self.file}: faults.{fault.kind} is for one instance; name instances for {fault.text}")
            if "delay_ms" in places and fault.service not in self.normal_ms:
                found.append(f"{self.file}: {{delay_ms}} needs normal_ms.{fault.service}, its usual response time")
        return list(dict.fromkeys(found))

    def values(self, fault: PlanFault, instance: str, handle: str = "") -> dict[str, str]:
        """Place -> what stands there."""
        value = fault.value or 0.0
        delay_ms = (value - 1) * self.normal_ms.get(fault.service, 0.0)
        return {
            "service": fault.service,
            "kind": fault.kind,
            "index": str(fault.index),
            "instance": instance,
            "value": f"{value:g}",
            "percent": f"{100 * value:g}",
            "delay_ms": str(round(delay_ms)),
            "duration_s": f"{fault.duration_s:g}",
            "handle": handle,
        }

    def _places(self, kind: str) -> set[str]:
        way = self.ways.get(kind)
        return set() if way is None else {place for text in way.texts() for place in places_of(text)}


def fill_json(template: Any, values: Mapping[str, str]) -> Any:
    """Like `fill`, for a body: a text that is nothing but the place of a number becomes that number."""
    if isinstance(template, dict):
        return {fill(key, values): fill_json(part, values) for key, part in template.items()}
    if isinstance(template, list):
        return [fill_json(part, values) for part in template]
    if isinstance(template, str) and template in _NUMBERS:
        return float(values[template[1:-1]])
    return fill(template, values)


def read_templates(file: str, check_call: Callable[[Any], str | None]) -> Templates:
    """Read a file. `check_call(call)` says what is wrong with one call. Raises InjectorError with all problems."""
    content = _parse(file)
    problems: list[str] = []
    if not isinstance(content, dict) or not isinstance(content.get("faults"), dict) or not content["faults"]:
        raise InjectorError(f"{file}: must be a mapping with `faults`: kind -> apply and lift")
    problems += [f"unknown key {key!r}; known are {', '.join(_KEYS)}" for key in content if key not in _KEYS]
    timeout_s = content.get("timeout_seconds", DEFAULT_TIMEOUT_S)
    if not _is_positive(timeout_s):
        problems.append(f"timeout_seconds: {timeout_s!r} is not a number above 0")
    normal_ms, headers = content.get("normal_ms") or {}, content.get("headers") or {}
    if not isinstance(normal_ms, dict) or not all(_is_positive(value) for value in normal_ms.values()):
        problems.append("normal_ms: must give each service a number above 0")
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        problems.append("headers: must give each name a text")
    ways = {}
    for kind, node in content["faults"].items():
        if kind not in FAULT_KINDS.values():
            problems.append(f"faults: {kind!r} is no kind of fault; known are {', '.join(FAULT_KINDS.values())}")
        elif not isinstance(node, dict) or set(node) - {"apply", "lift", "body", "handle"}:
            problems.append(f"faults.{kind}: must hold apply and lift, and may hold body and handle")
        else:
            ways[kind] = Way(node.get("apply"), node.get("lift"), node.get("body"), node.get("handle"))
            problems += [f"faults.{kind}.{text}" for text in _wrong(ways[kind], check_call)]
    if problems:
        raise InjectorError("\n  ".join([f"{file}: {len(problems)} problems", *problems]))
    return Templates(file, float(timeout_s), normal_ms, headers, ways)


def _parse(file: str) -> Any:
    try:
        return read_document(file)
    except OSError as error:
        raise InjectorError(f"{file}: cannot be read ({error.strerror})") from error
    except ScenarioError as error:
        raise InjectorError(str(error)) from error


def _wrong(way: Way, check_call: Callable[[Any], str | None]) -> list[str]:
    found = [
        f"{name}: {problem}"
        for name, call in (("apply", way.apply), ("lift", way.lift))
        if (problem := "is missing" if call is None else check_call(call)) is not None
    ]
    for text in way.texts():
        try:
            unknown = sorted(places_of(text) - set(PLACES))
        except ValueError as error:
            found.append(f"{text!r}: {error}")
            continue
        if unknown:
            known = ", ".join(f"{{{place}}}" for place in PLACES)
            found.append(f"{text!r}: {{{unknown[0]}}} is no place; known are {known}")
    return found


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")

"""Faults that people and scenarios inject: inside an instance or all instances of a service, for a time.

A fault is described by JSON: `{"service", "instance"?, "kind", "value"?, "duration_s"?}`; durations are real seconds.

| kind | value | acts |
|---|---|---|
| latency | factor, 0.01 to 1000 | on the whole demand of requests that begin under it |
| errors | rate, (0, 1] | that part of the requests fails early with 500 |
| timeouts | rate, (0, 1] | that part of the requests hangs |
| capacity | part left, (0, 1] | on workers (at least one is left) and CPU |
| antagonist | share, (0, 0.95] | somebody else takes that share of the CPU |
| crash | - | connections are refused until it is lifted or over; then it starts, cold |
| restart | - | down for `duration_s` (or 5 nominal seconds), then it starts, cold |
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sandbox.clock import Clock, Handle
from sandbox.instance import MAX_ANTAGONIST, Effect, Instance
from sandbox.parameters import Parameters

MAX_DURATION_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault: the range of its value and what it does to an instance."""

    low: float  # for kinds with a value: its range, in which `low` itself is allowed only where it is positive
    high: float
    effect: Callable[[float], Effect] | None  # None: the instance goes down


KINDS: Mapping[str, Kind] = {
    "latency": Kind(0.01, 1000.0, lambda value: Effect(latency_factor=value)),
    "errors": Kind(0.0, 1.0, lambda value: Effect(error_rate=value)),
    "timeouts": Kind(0.0, 1.0, lambda value: Effect(timeout_rate=value)),
    "capacity": Kind(0.0, 1.0, lambda value: Effect(capacity=value)),
    "antagonist": Kind(0.0, MAX_ANTAGONIST, lambda value: Effect(antagonist=value)),
    "crash": Kind(0.0, 0.0, None),
    "restart": Kind(0.0, 0.0, None),
}
"""Kind of fault by name."""


class FaultError(ValueError):
    """A fault that cannot be; `problems` are all that is wrong with it."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that acts."""

    id: str
    service: str
    instances: tuple[str, ...]
    kind: str
    value: float | None
    duration_s: float | None  # real seconds; None: until it is lifted
    since_s: float  # of the model's clock

    def describe(self, now_s: float) -> dict[str, object]:
        """As JSON, for `GET /control/faults`."""
        left = None if self.duration_s is None else round(max(0.0, self.since_s + self.duration_s - now_s), 3)
        return {
            "id": self.id,
            "service": self.service,
            "instances": list(self.instances),
            "kind": self.kind,
            "value": self.value,
            "duration_s": self.duration_s,
            "remaining_s": left,
        }


class Faults:
    """All faults that act now. An instance that several faults keep down starts when the last one is over."""

    def __init__(self, instances: Mapping[str, Sequence[Instance]], clock: Clock, parameters: Parameters) -> None:
        self._instances = instances
        self._clock = clock
        self._restart_down_s = parameters.restart_down_s
        self._active: dict[str, tuple[Fault, Handle | None]] = {}
        self._down: dict[str, set[str]] = {}  # instance -> ids of faults that keep it down
        self._injected = 0

    def active(self) -> list[dict[str, object]]:
        """All faults that act now, oldest first."""
        now_s = self._clock.now()
        return [fault.describe(now_s) for fault, _ in self._active.values()]

    def inject(self, wanted: object) -> str:
        """A fault begins; its id. `FaultError` when it cannot be."""
        service, names, kind, value, duration_s = self._check(wanted)
        if kind == "restart" and duration_s is None:
            duration_s = self._restart_down_s
        self._injected += 1
        fault = Fault(f"f{self._injected}", service, names, kind, value, duration_s, self._clock.now())
        timer = None if duration_s is None else self._clock.call_later(duration_s, lambda: self._end(fault.id))
        self._active[fault.id] = (fault, timer)
        effect = KINDS[kind].effect
        for instance in self._of(fault):
            if effect is None:
                self._down.setdefault(instance.name, set()).add(fault.id)
                instance.crash()
            else:
                instance.set_effect(fault.id, effect(value or 0.0))
        return fault.id

    def lift(self, fault_id: str) -> bool:
        """The fault ends now; False when there is none of this id."""
        if fault_id not in self._active:
            return False
        self._end(fault_id)
        return True

    def lift_all(self) -> int:
        """All faults end now; how many there were."""
        ids = list(self._active)
        for fault_id in ids:
            self._end(fault_id)
        return len(ids)

    def _end(self, fault_id: str) -> None:
        fault, timer = self._active.pop(fault_id)
        if timer is not None:
            timer.cancel()
        for instance in self._of(fault):
            if KINDS[fault.kind].effect is not None:
                instance.remove_effect(fault_id)
                continue
            down = self._down[instance.name]
            down.discard(fault_id)
            if not down:
                instance.start()

    def _of(self, fault: Fault) -> list[Instance]:
        return [instance for instance in self._instances[fault.service] if instance.name in fault.instances]

    def _check(self, wanted: object) -> tuple[str, tuple[str, ...], str, float | None, float | None]:
        if not isinstance(wanted, dict):
            raise FaultError(
                ["a fault is a JSON object with service, kind, and where needed instance, value, duration_s"]
            )
        problems = [
            f"unknown field {str(key)[:40]!r}: known are service, instance, kind, value, duration_s"
            for key in wanted
            if key not in ("service", "instance", "kind", "value", "duration_s")
        ]
        service, kind = wanted.get("service"), wanted.get("kind")
        names: tuple[str, ...] = ()
        if not isinstance(service, str) or service not in self._instances:
            problems.append(f"service: must be one of {', '.join(self._instances)}")
        else:
            names = tuple(instance.name for instance in self._instances[service])
            instance = wanted.get("instance")
            if instance is not None and instance not in names:
                problems.append(f"instance: must be one of {', '.join(names)}, or left out for all")
            elif instance is not None:
                names = (str(instance),)
        value = None
        if not isinstance(kind, str) or kind not in KINDS:
            problems.append(f"kind: must be one of {', '.join(KINDS)}")
        else:
            value = _value_of(kind, wanted.get("value"), problems)
        duration_s = wanted.get("duration_s")
        if duration_s is not None and not (_is_number(duration_s) and 0.0 < duration_s <= MAX_DURATION_S):
            problems.append(f"duration_s: must be real seconds, more than 0 and at most {MAX_DURATION_S:.0f}")
        if problems:
            raise FaultError(problems)
        return str(service), names, str(kind), value, None if duration_s is None else float(duration_s)


def _value_of(kind: str, value: object, problems: list[str]) -> float | None:
    limits = KINDS[kind]
    if limits.effect is None:
        if value is not None:
            problems.append(f"value: {kind} has none")
        return None
    if isinstance(value, int | float) and _is_number(value):
        above = value >= limits.low if limits.low > 0.0 else value > 0.0
        if above and value <= limits.high:
            return float(value)
    at_least = f"at least {limits.low:g}" if limits.low > 0.0 else "more than 0"
    problems.append(f"value: {kind} needs a number, {at_least} and at most {limits.high:g}")
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

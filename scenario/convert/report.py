"""What a conversion did, one line for every change and decision, and what it refuses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scenario.errors import Problem, number, show

_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Note:
    """One change or decision."""

    place: str  # in the old file; in the new one when there was nothing
    found: str  # "" when there was nothing
    written: str  # "" when nothing was written
    reason: str

    def __str__(self) -> str:
        found, written = self.found or "not there", self.written or "dropped"
        return f"{self.place or 'the whole file'}: {found} -> {written} ({self.reason})"


class Report:
    """Collects notes and refusals, in the order in which they come up."""

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self.refusals: list[Problem] = []

    def note(self, place: str, found: Any, written: Any, reason: str) -> None:
        """Found and written as they shall be printed: text as it is, other values as in a file, None for nothing."""
        self.notes.append(Note(place, _text(found), _text(written), reason))

    def filled(self, place: str, written: Any, reason: str) -> None:
        self.note(place, None, written, reason)

    def dropped(self, place: str, found: Any, reason: str) -> None:
        self.note(place, said(found), None, reason)

    def refuse(self, place: str, text: str, way_out: str) -> None:
        self.refusals.append(Problem(place, text, way_out))


def said(value: Any) -> str:
    """A value as a short text, much as a YAML file has it in one line."""
    text = _flow(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def same(one: Any, other: Any) -> bool:
    """Whether two values mean the same and are of the same kind: 80 and 80.0 are not."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and bool(one == other)


def at(place: str, *keys: str | int) -> str:
    """The place of a key, or of an entry of a list, below a place: at("a", "b", 2) is a.b[2]."""
    for key in keys:
        if isinstance(key, int):
            place += f"[{key}]"
        else:
            safe = key if key.replace("-", "_").isidentifier() and len(key) <= 64 else show(key)
            place += f".{safe}" if place else safe
    return place


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else said(value)


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow_key(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return str(value) if isinstance(value, int) and len(str(value)) < 20 else number(value)
    return show(value)


def _flow_key(key: Any) -> str:
    return key if isinstance(key, str) and key.isprintable() and len(key) <= 64 else show(key)

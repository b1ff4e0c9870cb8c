"""A mapping of an old file, from which rules take what they understand."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from scenario.convert.keys import CONNECTIONS, DESCRIBING, RECORDING
from scenario.convert.report import Report, at, said, same
from scenario.convert.values import Number, number_of, pair_of, plain_key, time_of, unit_of, whole_of
from scenario.errors import show, suggestion

SECOND_S, MINUTE_S = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Found:
    """One value of the old file."""

    key: str  # as the file spells it
    place: str
    value: Any


class Old:
    """What is taken is gone; `finish` says what becomes of the rest. So no key is ever overlooked."""

    def __init__(self, content: Mapping[str, Any], place: str, report: Report) -> None:
        self.place = place
        self.report = report
        self._left: dict[str, Any] = {}
        for key, value in content.items():
            if value is None:
                report.dropped(at(place, key), None, "nothing stands behind the key")
            else:
                self._left[key] = value

    @property
    def keys(self) -> list[str]:
        return list(self._left)

    def peek(self, key: str) -> Any:
        return self._left[key]

    def take_key(self, key: str) -> Found:
        """The value of a key that is there, as it is spelled."""
        return Found(key, at(self.place, key), self._left.pop(key))

    def take(self, *names: str) -> Found | None:
        """The value of the key that has one of these names. The same thing under two names has to be the same."""
        found = [key for name in names for key in self._left if plain_key(key) == name]
        return self._one([self.take_key(key) for key in dict.fromkeys(found)])

    def _one(self, found: list[Found]) -> Found | None:
        for other in found[1:]:
            if same(other.value, found[0].value):
                self.report.dropped(other.place, other.value, f"{found[0].key} says the same")
            else:
                text = (
                    f"is {said(other.value)}, but {found[0].key} beside it means the same and is {said(found[0].value)}"
                )
                self.report.refuse(other.place, text, "Keep one of them")
        return found[0] if found else None

    def unit_of_minutes(self) -> float | None:
        """Seconds of a minute when a key speaks of minutes: then a duration beside it is meant in them, too."""
        return MINUTE_S if any("minute" in plain_key(key) for key in self._left) else None

    # Values that are written under a key of the new file

    def convert(self, key: str, names: Iterable[str], read: Callable[[Any], Any], what: str, reason: str = "") -> Any:
        """The value for the new `key`: noted when it changes, refused (None) when `read` cannot make it out."""
        return self.converted(self.take(key, *names), key, read, what, reason)

    def converted(self, found: Found | None, key: str, read: Callable[[Any], Any], what: str, reason: str = "") -> Any:
        if found is None:
            return None
        value = read(found.value)
        if value is None:
            self.report.refuse(found.place, f"{said(found.value)} is not {what}", f"Write {key} as {what}")
            return None
        value = list(value) if isinstance(value, tuple) else value
        if found.key != key or not same(value, found.value):
            why = reason or ("renamed" if same(value, found.value) else f"{key} is {what}")
            self.report.note(found.place, said(found.value), f"{key} {said(value)}", why)
        return value

    def time(self, key: str, stems: Collection[str], to_s: float, unit_s: float | None, zero: bool = False) -> Any:
        """A time whose unit is in its key or in its text; `unit_s` is that of a key without one (None: refused)."""
        found = self._find_time(stems)
        if found is None or self._lacks_unit(found, unit_s):
            return None
        read = _at_least_zero if zero else _above_zero
        return self.converted(found, key, lambda value: read(_timed(found, value, to_s, unit_s)), _unit(to_s))

    def time_pair(self, key: str, stems: Collection[str], to_s: float, unit_s: float | None) -> list[Number] | None:
        """A range of times, like `time`; also from two keys such as min_think_time and max_think_time."""
        found = self._find_ends(stems) or self._find_time(stems)
        if found is None or self._lacks_unit(found, unit_s):
            return None

        def read(value: Any) -> Any:
            return _ordered(pair_of(value, lambda end: _at_least_zero(_timed(found, end, to_s, unit_s))))

        pair: list[Number] | None = self.converted(found, key, read, f"[smallest, largest], {_unit(to_s)}")
        return pair

    def whole_pair(self, key: str, stems: Collection[str]) -> list[int] | None:
        """A range of whole numbers above 0."""
        found = self._find_ends(stems) or self.take(key, *stems, *(f"{stem}_range" for stem in stems))

        def read(value: Any) -> Any:
            return _ordered(pair_of(value, lambda end: _above_zero(whole_of(end))))

        pair: list[int] | None = self.converted(found, key, read, "[smallest, largest] in whole numbers above 0")
        return pair

    def _find_time(self, stems: Collection[str]) -> Found | None:
        return self._one([self.take_key(key) for key in self.keys if _split(key)[0] in stems])

    def _find_ends(self, stems: Collection[str]) -> Found | None:
        """min_x and max_x, or x_min and x_max, as one range."""
        for stem in stems:
            lows = [key for key in self._left if _split(key)[0] == f"min_{stem}"]
            highs = [key for key in self._left if _split(key)[0] == f"max_{stem}"]
            if lows and highs and _split(lows[0])[1] == _split(highs[0])[1]:
                return self._both(lows[0], highs[0], lows[0])
            by_plain = {plain_key(key): key for key in self._left}
            if f"{stem}_min" in by_plain and f"{stem}_max" in by_plain:
                return self._both(by_plain[f"{stem}_min"], by_plain[f"{stem}_max"], stem)
        return None

    def _both(self, low: str, high: str, shown: str) -> Found:
        first, last = self.take_key(low), self.take_key(high)
        self.report.note(last.place, said(last.value), f"the end of a range with {low}", "two keys for one range")
        return Found(shown, first.place, [first.value, last.value])

    def _lacks_unit(self, found: Found, unit_s: float | None) -> bool:
        ends = found.value if isinstance(found.value, list) else [found.value]
        if unit_s is not None or _split(found.key)[1] is not None or all(number_of(end) is None for end in ends):
            return False
        text = f"{said(found.value)} has no unit"
        self.report.refuse(found.place, text, f"Rename the key to {found.key}_minutes or {found.key}_seconds")
        return True

    # The rest

    def drop(self, pattern: Any, reason: str) -> None:
        for key in [key for key in self._left if pattern.fullmatch(plain_key(key))]:
            self.report.dropped(at(self.place, key), self._left.pop(key), reason)

    def drop_all(self, reason: str) -> None:
        for key in self.keys:
            self.report.dropped(at(self.place, key), self._left.pop(key), reason)

    def finish(self, known: Collection[str]) -> None:
        """Drop what changes no traffic, refuse what nobody understands."""
        self.drop(DESCRIBING, "only tells people something")
        self.drop(RECORDING, "what is recorded and exported is the same for every scenario")
        self.drop(CONNECTIONS, "every shopper has a connection of its own, there is no pool")
        for key in [key for key, value in self._left.items() if plain_key(key) == "enabled" and value is True]:
            self.report.dropped(at(self.place, key), self._left.pop(key), "what is there holds")
        for key in self._left:
            text = f"unknown key {show(key)} with {said(self._left[key])}"
            self.report.refuse(self.place, text, f"Remove or rename it. {suggestion(key, known)}")
        self._left.clear()


def _split(key: str) -> tuple[str, float | None]:
    """Stem and unit of a key: session_duration_range_minutes is session_duration and 60."""
    return unit_of(plain_key(key).replace("_range", ""))


def _timed(found: Found, value: Any, to_s: float, unit_s: float | None) -> Number | None:
    in_key = _split(found.key)[1]
    return time_of(value, in_key if in_key is not None else unit_s, to_s)


def _unit(to_s: float) -> str:
    return "a number of minutes" if to_s == MINUTE_S else "a number of seconds"


def _above_zero(value: Any) -> Any:
    return value if value is not None and value > 0 else None


def _at_least_zero(value: Any) -> Any:
    return value if value is not None and value >= 0 else None


def _ordered(pair: Any) -> Any:
    return None if pair is None else tuple(sorted(pair))

"""Numbers, shares, times and pairs as people write them. None: cannot be read as one."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Number = int | float
T = TypeVar("T")

_UNITS: Mapping[str, float] = {
    **dict.fromkeys(("ms", "millis", "millisecond", "milliseconds"), 0.001),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
}
"""Unit -> seconds."""

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,3})?")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}([,_]\d{3})+(\.\d*)?")
_WITH_UNIT = re.compile(r"(.+?)\s*([a-z]+)")
_DASH_PAIR = re.compile("\\s*([^-\u2013]+?)\\s*(?:-|\u2013|\\.\\.|to)\\s*([^-\u2013]+?)\\s*")
_LONGEST = 40
_LARGEST = 1e15
_DIGITS = 6


def plain_key(key: str) -> str:
    """One spelling for concurrentUsers, concurrent-users, Concurrent Users and concurrent_users."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key[:200])
    return re.sub(r"[^a-z0-9]+", "_", snake.lower()).strip("_")


def number_of(value: Any) -> Number | None:
    """A number of a size that can mean something, as one or as text: 25, "25", "1,000"."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value if abs(value) <= _LARGEST else None  # so nan is none, too
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    text = value.strip()
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "").replace("_", "")
    if not _NUMBER.fullmatch(text):
        return None
    return tidy(float(text)) if abs(float(text)) <= _LARGEST else None


def whole_of(value: Any) -> int | None:
    """A whole number, also as 80.0, "80" and "80 users"."""
    if isinstance(value, str):
        value = re.sub(r"\s*(concurrent |virtual )?(users?|accounts?|pages?|items?|units?)\s*$", "", value.strip())
    read = number_of(value)
    return int(read) if read is not None and read == int(read) else None


def percent_of(value: Any) -> Number | None:
    """What stands before a percent sign, as a share: "60%" is 0.6, "300%" is 3."""
    if not isinstance(value, str):
        return None
    match = re.fullmatch(r"\s*(?:±|\+/-)?\s*(.+?)\s*(%|percent|per cent)\s*", value)
    read = number_of(match[1]) if match else None
    return None if read is None else tidy(read / 100)


def parts_of(values: Sequence[Any]) -> list[Number | None]:
    """Parts of one whole. Beside numbers above 1 a percentage is meant as such a number.

    >>> parts_of(["60%", 0.4]), parts_of(["60%", 40])
    ([0.6, 0.4], [60, 40])
    """
    in_percent = any((number_of(value) or 0) > 1 for value in values)
    parts: list[Number | None] = []
    for value in values:
        share = percent_of(value)
        part = number_of(value) if share is None else tidy(share * 100) if in_percent else share
        parts.append(part if part is not None and part >= 0 else None)
    return parts


def share_of(value: Any) -> Number | None:
    """A share from 0 to 1, also as a percentage: 0.35, "35%", 35. Between 1 and 2 it could be either, so it is none.

    >>> share_of(0.35), share_of("35%"), share_of(35), share_of(1.5), share_of(-1)
    (0.35, 0.35, 0.35, None, None)
    """
    share = percent_of(value)
    if share is None:
        share = number_of(value)
        if share is not None and share >= 2:
            share = tidy(share / 100)
    return share if share is not None and 0 <= share <= 1 else None


def unit_of(key: str) -> tuple[str, float | None]:
    """A plain key as stem and seconds of its unit: duration_minutes is duration and 60; None without a unit."""
    stem, _, unit = key.rpartition("_")
    if unit in _UNITS:
        return stem.removesuffix("_in"), _UNITS[unit]
    return key, None


def time_of(value: Any, unit_s: float | None, to_s: float) -> Number | None:
    """A time in units of `to_s` seconds, from a number in units of `unit_s` or from a text with a unit: "5 min"."""
    if isinstance(value, str) and len(value) <= _LONGEST:
        match = _WITH_UNIT.fullmatch(value.strip().lower())
        if match and match[2] in _UNITS:
            read = number_of(match[1])
            return None if read is None else tidy(read * _UNITS[match[2]] / to_s)
    read = number_of(value)
    if read is None or unit_s is None:
        return None
    return read if unit_s == to_s else tidy(read * unit_s / to_s)


def pair_of(value: Any, one: Callable[[Any], T | None]) -> tuple[T, T] | None:
    """A range: [2, 5], {min: 2, max: 5}, "2-5", or one value that is both ends."""
    ends: tuple[Any, Any] | None = None
    if isinstance(value, list) and len(value) in (1, 2):
        ends = value[0], value[-1]
    elif isinstance(value, Mapping) and len(value) == 2:
        by_key = {plain_key(key): item for key, item in value.items()}
        for low, high in (("min", "max"), ("from", "to"), ("low", "high"), ("minimum", "maximum")):
            if low in by_key and high in by_key:
                ends = by_key[low], by_key[high]
    elif isinstance(value, str) and (match := _DASH_PAIR.fullmatch(value[:100])):
        ends = match[1], match[2]
        unit = re.search(r"[a-z]+$", match[2])  # "2-5 min": the unit is said once
        if unit and not re.search(r"[a-z]+$", match[1]):
            ends = f"{match[1]} {unit[0]}", match[2]
    else:
        ends = value, value
    if ends is None:
        return None
    low_end, high_end = one(ends[0]), one(ends[1])
    return None if low_end is None or high_end is None else (low_end, high_end)


def tidy(value: float) -> Number:
    """A computed number as a person would write it: 25 and not 25.0, 0.3 and not 0.30000000000000004."""
    rounded = round(value, _DIGITS)
    return int(rounded) if rounded == int(rounded) else rounded


def to_sum_one(parts: Mapping[str, Number]) -> dict[str, Number]:
    """Parts in the same proportions that add up to 1, with six digits each. The sum has to be above 0.

    What rounding leaves over goes to those that lost most by it.

    >>> to_sum_one({"a": 1, "b": 1, "c": 1})
    {'a': 0.333334, 'b': 0.333333, 'c': 0.333333}
    """
    total, steps = math.fsum(parts.values()), 10**_DIGITS
    exact = {key: part / total * steps for key, part in parts.items()}
    whole = {key: math.floor(part) for key, part in exact.items()}
    left = steps - sum(whole.values())
    for key in sorted(exact, key=lambda key: whole[key] - exact[key])[:left]:
        whole[key] += 1
    return {key: tidy(count / steps) for key, count in whole.items()}


def name_of(text: str) -> str:
    """A text as a name of letters, digits, _ and -; empty when there is none in it."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text.strip()).strip("_")[:64]

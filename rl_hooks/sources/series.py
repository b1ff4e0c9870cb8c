"""What time series say about the instances, at any moments. Pure: the series may come from anywhere.

    series -> by selector -> by service and instance -> the newest value of each that was known at the moment -> sum

Live there is one moment, now. Back-fill has the moment of every decision of a run, and here the same code decides what
was known then. A value counts from its own time on (plus the time its scrape took), never before, and no longer than
`Field.stale_ns`: then it is missing. An instance that some series still tells about keeps its place, with all its
values missing; so whoever reads a sum over instances knows that it is not whole.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.control import InstanceSample, Sample
from rl_hooks.decision import NO_INSTANCE, SERVICE_INDEX, SERVICES

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

RANGES: Mapping[str, tuple[float, float]] = {
    "cpu": (0, 1),
    "memory": (0, 1),
    "health": (0, 1),
    "queue_depth": (0, 1e6),
    "in_flight": (0, 1e6),
    "capacity": (0, 1e9),
    "requests_total": (0, 2.0**53),
    "errors_total": (0, 2.0**53),
    "up": (0, 1),
}
"""The fields of an instance, and what their values can be; a value outside is missing."""

FORGET = 2
"""An instance without a value for so many times `stale_ns` is not there any more: it was replaced or scaled away."""

_NEVER_NS = np.iinfo(np.int64).max
_SELECTOR = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)?\s*(?:\{(.*)\})?\s*", re.DOTALL)
_MATCHER = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')


class SeriesError(ValueError):
    """A selector, or what it found, is not something to make metrics of; the text says what helps."""


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one name with one set of labels."""

    name: str
    labels: Mapping[str, str]
    t_ns: Ints  # (n,) each value's own time, increasing
    known_ns: Ints  # (n,) from when on each was known
    values: Floats  # (n,)


@dataclass(frozen=True, slots=True)
class Selector:
    """Which series: those a Prometheus vector selector would find."""

    text: str
    matchers: tuple[tuple[str, str, str], ...]  # label (`__name__`: the name), operator, value

    @staticmethod
    def parse(text: str) -> "Selector":
        """Raises SeriesError.

        >>> Selector.parse('jvm_memory_used_bytes{area="heap", job=~"shop.*"}').matchers
        (('__name__', '=', 'jvm_memory_used_bytes'), ('area', '=', 'heap'), ('job', '=~', 'shop.*'))
        """
        found = _SELECTOR.fullmatch(text)
        if found is None or not text.strip():
            raise SeriesError(
                f'{text!r} is no selector; write name{{label="value"}}, without functions and without a range: '
                "raw values are what is read"
            )
        name, rest = found[1], (found[2] or "").strip()
        matchers = [("__name__", "=", name)] if name else []
        while rest:
            one = _MATCHER.match(rest)
            if one is None:
                raise SeriesError(f'{text!r}: {rest!r} is no matcher; write label="value", or =~, != and !~')
            value = re.sub(r"\\(.)", r"\1", one[3])
            if "~" in one[2]:
                compiled(value)
            matchers.append((one[1], one[2], value))
            rest = rest[one.end() :].strip()
        if not any(label == "__name__" for label, _, _ in matchers):
            raise SeriesError(f'{text!r} names no metric; write name{{...}} or {{__name__=~"..."}}')
        return Selector(text.strip(), tuple(matchers))

    def is_for(self, name: str) -> bool:
        """Whether series of that name can match."""
        return all(_holds(operator, value, name) for label, operator, value in self.matchers if label == "__name__")

    def matches(self, series: Series) -> bool:
        """An absent label is an empty one, and regular expressions match whole values, as in Prometheus."""
        return self.is_for(series.name) and all(
            _holds(operator, value, series.labels.get(label, ""))
            for label, operator, value in self.matchers
            if label != "__name__"
        )


def _holds(operator: str, wanted: str, value: str) -> bool:
    same = re.fullmatch(wanted, value) is not None if "~" in operator else value == wanted
    return same if operator in ("=", "=~") else not same


def compiled(pattern: str) -> "re.Pattern[str]":
    """Raises SeriesError for what is no regular expression."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise SeriesError(f"{pattern!r} is no regular expression ({error})") from error


@dataclass(frozen=True, slots=True)
class Label:
    """Which label names something, and what of it: the pattern's first group, or all that it matches."""

    labels: tuple[str, ...]  # the first that a series has
    pattern: str = ".*"

    def read(self, labels: Mapping[str, str]) -> str | None:
        """None where the series has no such label or the pattern does not match all of it.

        >>> Label(("pod",), r"(.+-[0-9]+)-[a-z0-9]+").read({"pod": "cart-service-1-x7k2p"})
        'cart-service-1'
        """
        value = next((labels[label] for label in self.labels if labels.get(label)), None)
        found = None if value is None else re.fullmatch(self.pattern, value)
        if found is None:
            return None
        return str(found[1] or "") if found.re.groups else str(found[0])


@dataclass(frozen=True, slots=True)
class Naming:
    """How the labels of a series name a service of ours and one of its instances."""

    # Prometheus calls labels that a target has of its own exported_* where its own discovery uses the same name.
    service: Label = Label(("exported_service", "service", "application"))
    instance: Label = Label(("exported_pod", "pod", "pod_name"))

    def of(self, labels: Mapping[str, str]) -> tuple[int, str] | None:
        """Number of the service and name of the instance; None: it is about nothing of ours.

        A service that no label names is the one that the instance's name begins with.

        >>> Naming().of({"pod": "cart-service-7d9f-abcde"})
        (2, 'cart-service-7d9f-abcde')
        """
        instance = self.instance.read(labels)
        if not instance or instance == NO_INSTANCE:
            return None
        service = SERVICE_INDEX.get(self.service.read(labels) or "", service_of(instance))
        return None if service is None else (service, instance)


def service_of(name: str) -> int | None:
    """The service that a name begins with.

    >>> service_of("order-service-2"), service_of("orders")
    (3, None)
    """
    return next((index for index, one in enumerate(SERVICES) if re.match(rf"{one}(?![a-zA-Z0-9])", name)), None)


@dataclass(frozen=True, slots=True)
class Field:
    """Where one field of an instance comes from."""

    name: str  # one of RANGES
    selector: Selector
    of: Selector | None = None  # a limit: the value is the part of it; a limit of 0 or -1 means none and is left out
    rate: bool = False  # the change per second between the two newest values
    scale: float = 1.0
    low: float = 0.0
    high: float = math.inf
    stale_ns: int = 15_000_000_000

    @property
    def selectors(self) -> tuple[Selector, ...]:
        return (self.selector,) if self.of is None else (self.selector, self.of)


Found = Mapping[str, Sequence[Series]]
"""Text of a selector -> the series it finds."""


@dataclass(frozen=True, slots=True)
class Told:
    """What was known about each of m instances at n moments."""

    instances: tuple[tuple[int, str], ...]  # (m,) service and name
    listed: Bools  # (n, m) something was known of it not long before
    values: Mapping[str, Floats]  # each (n, m), NaN: missing
    oldest_ns: Ints  # (n,) own time of the oldest value used, 0: nothing is known
    known_ns: Ints  # (n,) when the last of them became known

    def samples(self, row: int) -> tuple[InstanceSample, ...]:
        """The instances at one moment."""
        values = {name: table[row].tolist() for name, table in self.values.items()}
        return tuple(
            _instance(service, name, {field: values[field][place] for field in values})
            for place, (service, name) in enumerate(self.instances)
            if self.listed[row, place]
        )


def _instance(service: int, name: str, values: Mapping[str, float]) -> InstanceSample:
    def count(field: str) -> int | None:
        value = values.get(field, math.nan)
        return None if math.isnan(value) else int(value)

    gauges: dict[str, Any] = {
        field: values.get(field, math.nan)
        for field in ("cpu", "memory", "health", "queue_depth", "in_flight", "capacity")
    }
    up = values.get("up", math.nan)
    return InstanceSample(
        service=service,
        instance=name,
        **gauges,
        requests_total=count("requests_total"),
        errors_total=count("errors_total"),
        up=None if math.isnan(up) else up > 0,
    )


def tell(fields: Sequence[Field], naming: Naming, found: Found, moments_ns: Ints) -> Told:
    """What `found` says at each of `moments_ns` (n,).

    Where several of `fields` have one name, the first counts that finds anything. SeriesError when series of two jobs,
    or of two names, would be added up.
    """
    grouped = {field: _groups(field, naming, found) for field in _used(fields, naming, found)}
    instances = sorted({key for groups in grouped.values() for key in groups})
    shape = (len(moments_ns), len(instances))
    listed = np.zeros(shape, bool)
    values = {field.name: np.full(shape, np.nan) for field in grouped}
    oldest, known = np.full(len(moments_ns), _NEVER_NS), np.zeros(len(moments_ns), np.int64)
    for field, groups in grouped.items():
        for place, key in enumerate(instances):
            if key not in groups:
                continue
            one = _combined(field, *groups[key], moments_ns)
            listed[:, place] |= one.listed
            values[field.name][:, place] = one.value
            used = ~np.isnan(one.value)
            oldest[used] = np.minimum(oldest[used], one.oldest_ns[used])
            known[used] = np.maximum(known[used], one.known_ns[used])
    return Told(tuple(instances), listed, values, np.where(oldest == _NEVER_NS, 0, oldest), known)


def _used(fields: Sequence[Field], naming: Naming, found: Found) -> list[Field]:
    used: dict[str, Field] = {}
    for field in fields:
        if field.name not in used and any(naming.of(one.labels) for one in found.get(field.selector.text, ())):
            used[field.name] = field
    return list(used.values())


_Groups = dict[tuple[int, str], tuple[list[Series], list[Series]]]


def _groups(field: Field, naming: Naming, found: Found) -> _Groups:
    """The series of each instance: those of the value, and those of its limit."""
    groups: _Groups = {}
    for place, selector in enumerate(field.selectors):
        for one in found.get(selector.text, ()):
            if (key := naming.of(one.labels)) is not None:
                groups.setdefault(key, ([], []))[place].append(one)
    for (_, instance), sums in groups.items():
        for series in sums:
            _check_one_origin(field, instance, series)
    return groups


def _check_one_origin(field: Field, instance: str, series: Iterable[Series]) -> None:
    """Two jobs that scrape one thing would count it twice."""
    origins: dict[str, set[str]] = {"__name__": set(), "job": set()}
    for one in series:
        origins["__name__"].add(one.name)
        origins["job"].add(one.labels.get("job", ""))
    for label, values in origins.items():
        if len(values) > 1:
            what = "jobs" if label == "job" else "names"
            shown = ", ".join(sorted(value or "none" for value in values))
            raise SeriesError(
                f"{field.name} of {instance}: series of several {what} would be added up ({shown}); "
                f'choose one with {label}="..." in the selector of fields.{field.name}, in a file'
            )


@dataclass(frozen=True, slots=True)
class _One:
    """One field of one instance at n moments."""

    value: Floats
    listed: Bools
    oldest_ns: Ints
    known_ns: Ints


def _combined(field: Field, parts: Sequence[Series], limits: Sequence[Series], moments_ns: Ints) -> _One:
    """The sum of what is fresh; missing where nothing is, or where one part lies outside the field's range."""
    total, limit = np.zeros(len(moments_ns)), np.zeros(len(moments_ns))
    fresh_parts, sound = np.zeros(len(moments_ns), np.int64), np.ones(len(moments_ns), bool)
    listed = np.zeros(len(moments_ns), bool)
    oldest, known = np.full(len(moments_ns), _NEVER_NS), np.zeros(len(moments_ns), np.int64)
    for one, is_limit in [*((one, False) for one in parts), *((one, True) for one in limits)]:
        value, t_ns, known_ns, seen = _at(one, moments_ns, field.rate and not is_limit, field.stale_ns)
        fresh = seen & (moments_ns - t_ns <= field.stale_ns)
        listed |= seen & (moments_ns - t_ns <= FORGET * field.stale_ns)
        if is_limit:
            fresh &= value > 0  # NaN is not
            limit += np.where(fresh, value, 0.0)
        else:
            value = value * field.scale
            low, high = (field.low, field.high) if field.of is None else (0.0, math.inf)
            sound &= ~fresh | ((value >= low) & (value <= high) & np.isfinite(value))
            fresh_parts += fresh
            total += np.where(fresh & np.isfinite(value), value, 0.0)
        oldest = np.where(fresh, np.minimum(oldest, t_ns), oldest)
        known = np.where(fresh, np.maximum(known, known_ns), known)
    if field.of is not None:
        total = np.divide(total, limit, out=np.full(len(total), np.nan), where=limit > 0)
    sound &= (fresh_parts > 0) & (total >= field.low) & (total <= field.high)
    return _One(np.where(sound, total, np.nan), listed, oldest, known)


def _at(one: Series, moments_ns: Ints, rate: bool, stale_ns: int) -> tuple[Floats, Ints, Ints, Bools]:
    """The newest value known at each moment, its own time, since when it was known, and whether there is one."""
    if len(one.t_ns) == 0:
        nothing = np.zeros(len(moments_ns), np.int64)
        return np.full(len(moments_ns), np.nan), nothing, nothing, np.zeros(len(moments_ns), bool)
    known_ns = np.maximum.accumulate(np.maximum(one.known_ns, one.t_ns))
    place = known_ns.searchsorted(moments_ns, "right") - 1
    seen, here = place >= 0, np.maximum(place, 0)
    values = one.values
    if rate:
        took_ns = np.append(0, np.diff(one.t_ns))
        change = np.append(np.nan, np.diff(values))
        usable = (took_ns > 0) & (took_ns <= stale_ns) & (change >= 0)  # a counter that fell back began anew
        values = np.divide(change * 1e9, took_ns, out=np.full(len(values), np.nan), where=usable)
    return values[here], one.t_ns[here], known_ns[here], seen


class SampleClock:
    """Gives samples of one source times of their own.

    A sample's time is that of the oldest value in it. Where that value is the same as in the sample before, only others
    being newer, a nanosecond is added: samples are told apart by their times.
    """

    def __init__(self) -> None:
        self._last_ns = 0

    def sample(self, told: Told, row: int, received_ns: int) -> Sample | None:
        """None when nothing was known."""
        if told.oldest_ns[row] == 0:
            return None
        self._last_ns = max(int(told.oldest_ns[row]), self._last_ns + 1)
        return Sample(self._last_ns, received_ns, told.samples(row))

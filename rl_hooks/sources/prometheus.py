"""Metrics of a Prometheus, by its HTTP API.

`sample` looks at the raw values of the last few scrape intervals; `history` at those of a whole run, for back-fill.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from rl_hooks.control import Sample, SourceError
from rl_hooks.sources.asking import Asked, Session, problem_of_url
from rl_hooks.sources.fields import Reading, is_url, read_file, stale_ns, usual
from rl_hooks.sources.prometheus_api import parse_intervals, parse_jobs, parse_range, range_query
from rl_hooks.sources.series import FORGET, Found, SampleClock, Selector, Series, SeriesError, tell

TIMEOUT_S = 1.0
HISTORY_TIMEOUT_S = 30.0
HISTORY_STEP_NS = 300_000_000_000  # of a run that are asked for at once
_LATELY_NS = 300_000_000_000
_ID = tuple[str, tuple[tuple[str, str], ...]]

T = TypeVar("T")


class PrometheusSource:
    """Reads a Prometheus whose URL, or the file that names it, is `argument`."""

    def __init__(self, root: str | None, argument: str) -> None:
        """Raises SourceError for an argument that is neither, without asking anything yet."""
        del root  # the interface of all sources; a Prometheus has an address of its own
        if is_url(argument):
            if (problem := problem_of_url(argument)) is not None:
                raise SourceError(problem)
            self._named = usual(argument, argument)
        else:
            self._named = read_file(argument, "prometheus")
        self._reading = self._named  # of the usual names, those that there are
        self._url = str(self._reading.url).rstrip("/")
        self._limit_s = self._reading.timeout_s or TIMEOUT_S
        self._session = Session(self._reading.authorization)
        self._scraped: frozenset[tuple[str, str]] = frozenset()  # name and job of what the usual names found
        self._asked: Asked[tuple[int, Found]] = Asked(self._url, self._ask)
        self._clock = SampleClock()

    def describe(self) -> str:
        return f"prometheus:{self._reading.place}"

    def limit(self, seconds: float) -> None:
        """A sample may take no longer."""
        self._limit_s = min(self._limit_s, seconds)

    def sample(self) -> Sample:
        """The newest values, none of them of a time to come. Raises SourceError."""
        until_s = time.monotonic() + self._limit_s
        self._asked.begin()
        now_ns, found = self._asked.take(until_s)
        try:
            told = tell(self._reading.fields, self._reading.naming, found, np.array([now_ns]))
        except SeriesError as error:
            raise SourceError(f"{self._reading.place}: {error}") from error
        sample = self._clock.sample(told, 0, time.time_ns())
        if sample is None:
            raise SourceError(_nothing(self._reading, self._url, found, now_ns))
        return sample

    def history(self, from_ns: int, to_ns: int) -> tuple[Reading, Found]:
        """The raw values of a stretch of time, each known from the end of its scrape on. Raises SourceError."""
        self._resolve(to_ns, to_ns - from_ns, HISTORY_TIMEOUT_S)
        before_ns = FORGET * max(field.stale_ns for field in self._reading.fields)
        found = {one.text: self._long(one, from_ns - before_ns, to_ns) for one in _all_in_one(self._named).values()}
        found = _by_selector(self._reading, found)
        jobs = sorted({one.labels.get("job", "") for series in found.values() for one in series} - {""})
        quoted = "|".join(job.replace("\\", r"\\").replace('"', r"\"") for job in map(_escaped, jobs))
        scrapes = Selector.parse(f'scrape_duration_seconds{{job=~"{quoted}"}}')
        ends = {_target(one): one for one in self._long(scrapes, from_ns - before_ns, to_ns)} if jobs else {}
        later_ns = {field.selector.text: field.stale_ns for field in self._reading.fields}
        known = {
            text: [_known(one, ends.get(_target(one)), later_ns.get(text, before_ns)) for one in series]
            for text, series in found.items()
        }
        return self._reading, known

    # -- in the thread that asks --------------------------------------------------------------------------------------

    def _ask(self) -> tuple[int, Found]:
        """The moment asked for, and what was found."""
        now_ns = time.time_ns()
        if not self._scraped:
            self._resolve(now_ns, _LATELY_NS, self._limit_s)
        length_ns = FORGET * max(field.stale_ns for field in self._reading.fields)
        found = {
            one.text: self._range(one, length_ns, now_ns, self._limit_s) for one in _all_in_one(self._named).values()
        }
        # A balancer has no series of a pod before it sends the pod a request, so some names come during the run.
        if {(one.name, one.labels.get("job", "")) for series in found.values() for one in series} - self._scraped:
            self._resolve(now_ns, _LATELY_NS, self._limit_s)
        return now_ns, _by_selector(self._reading, found)

    def _resolve(self, at_ns: int, back_ns: int, timeout_s: float) -> None:
        """Find out how often the jobs are scraped that have the usual names, and read only what there is."""
        if self._named.scrape_interval_s is not None:
            return
        (every,) = _all_in_one(self._named).values()
        query = f"count by (__name__, job) (last_over_time({every.text}[{max(1, back_ns // 10**6)}ms]))"
        params = {"query": query, "time": f"{at_ns / 1e9:.3f}"}
        jobs = self._parsed(parse_jobs, "/api/v1/query", timeout_s, params)
        intervals = self._parsed(parse_intervals, "/api/v1/targets", timeout_s, {"state": "active"})
        fields = []
        for field in self._named.fields:
            scraping = {job for name, some in jobs.items() if field.selector.is_for(name) for job in some}
            if unknown := sorted(scraping - intervals.keys()):
                way_out = "use a file with `scrape_interval_seconds`"
                raise SourceError(f"{self._url}: does not say how often job {unknown[0]!r} is scraped; {way_out}")
            if scraping:
                fields.append(replace(field, stale_ns=stale_ns(max(intervals[job] for job in scraping))))
        if not fields:
            raise SourceError(f"{self._url}: has no series of the usual names; name others in a file")
        self._reading = replace(self._named, fields=tuple(fields))
        self._scraped = frozenset((name, job) for name, some in jobs.items() for job in some)

    def _range(self, selector: Selector, length_ns: int, end_ns: int, timeout_s: float) -> list[Series]:
        return self._parsed(parse_range, "/api/v1/query", timeout_s, range_query(selector, length_ns, end_ns))

    def _long(self, selector: Selector, from_ns: int, to_ns: int) -> list[Series]:
        """Many answers as one: a Prometheus limits how much it gives at once."""
        parts: dict[_ID, list[Series]] = {}
        for end_ns in [*range(from_ns + HISTORY_STEP_NS, to_ns, HISTORY_STEP_NS), to_ns]:
            length_ns = min(HISTORY_STEP_NS, end_ns - from_ns)
            for one in self._range(selector, length_ns, end_ns, HISTORY_TIMEOUT_S):
                parts.setdefault((one.name, tuple(sorted(one.labels.items()))), []).append(one)
        return [_joined(some) for some in parts.values()]

    def _parsed(self, parse: Callable[[bytes], T], path: str, timeout_s: float, params: dict[str, str]) -> T:
        body = self._session.get(f"{self._url}{path}", timeout_s, params)
        try:
            return parse(body)
        except ValueError as error:
            raise SourceError(f"GET {self._url}{path} {params.get('query', '')}: {error}") from error


def _all_in_one(reading: Reading) -> dict[str, Selector]:
    """What to ask for: one question where all selectors are mere names, else one for each.

    The usual names are asked for together, by name only, and picked apart here: one round trip instead of ten.
    """
    if reading.scrape_interval_s is not None:
        return {one.text: one for one in reading.selectors()}
    names = "|".join(value for one in reading.selectors() for label, _, value in one.matchers if label == "__name__")
    every = Selector.parse(f'{{__name__=~"{names}"}}')
    return {every.text: every}


def _by_selector(reading: Reading, found: Found) -> dict[str, list[Series]]:
    """What each selector finds in the answers."""
    if reading.scrape_interval_s is not None:
        return {text: list(series) for text, series in found.items()}
    (together,) = found.values()
    return {one.text: [series for series in together if one.matches(series)] for one in reading.selectors()}


def _nothing(reading: Reading, url: str, found: Found, now_ns: int) -> str:
    """Why there is no sample, and what helps."""
    newest = max((int(one.t_ns[-1]) for some in found.values() for one in some if len(one.t_ns)), default=None)
    if newest is None:
        return f"{url}: no selector of {reading.place} found a value of the last scrape intervals; look at its targets"
    if now_ns - newest > min(field.stale_ns for field in reading.fields):
        return f"{url}: the newest value is {(now_ns - newest) / 1e9:.1f} s old; look at its targets and its clock"
    return (
        f"{url}: what the selectors of {reading.place} find names no instance of our services, or lies outside its "
        "range; set `labels` and `valid` in a file"
    )


def _escaped(job: str) -> str:
    return "".join(f"\\{letter}" if letter in ".+*?()[]{}|^$\\" else letter for letter in job)


def _target(one: Series) -> tuple[str, str]:
    return one.labels.get("job", ""), one.labels.get("instance", "")


def _joined(parts: list[Series]) -> Series:
    """Parts in order of time; the value at a border is in both."""
    t_ns, first = np.unique(np.concatenate([part.t_ns for part in parts]), return_index=True)
    values = np.concatenate([part.values for part in parts])[first]
    return Series(parts[0].name, parts[0].labels, t_ns, t_ns, values)


def _known(one: Series, scrapes: Series | None, later_ns: int) -> Series:
    """A value is known when the first scrape at or after its own time has ended.

    That scrape is the one that brought it, unless the target states times of its own; then one before it cannot have.
    Where no scrape is known, it counts as late as a value may be old.
    """
    if scrapes is None or len(scrapes.t_ns) == 0:
        return replace(one, known_ns=one.t_ns + later_ns)
    place = scrapes.t_ns.searchsorted(one.t_ns)
    here = np.minimum(place, len(scrapes.t_ns) - 1)
    took_ns = np.ceil(np.where(scrapes.values[here] >= 0, scrapes.values[here], np.inf) * 1e9)
    ended = scrapes.t_ns[here] + np.where(np.isfinite(took_ns), took_ns, later_ns).astype(np.int64)
    return replace(one, known_ns=np.where(place < len(scrapes.t_ns), ended, one.t_ns + later_ns))

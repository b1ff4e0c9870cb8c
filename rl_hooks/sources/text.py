"""Metrics in the text format of Prometheus, scraped directly: of a balancer, of Envoy, of each pod of a service."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from rl_hooks.control import Sample, SourceError
from rl_hooks.sources.asking import Asked, Session, problem_of_url
from rl_hooks.sources.exposition import parse_text
from rl_hooks.sources.fields import Target, is_url, read_file, target_of, usual
from rl_hooks.sources.series import Found, SampleClock, Series, SeriesError, tell

TIMEOUT_S = 1.0


class TextSource:
    """Reads the targets whose URLs, with commas between them, or the file that names them, are `argument`.

    All are asked at once. What one told before that does not answer now is missing; without any answer there is no
    sample.
    """

    def __init__(self, root: str | None, argument: str) -> None:
        """Raises SourceError for an argument that is neither, without asking anything yet."""
        del root  # the interface of all sources; the targets have addresses of their own
        if is_url(argument):
            urls = argument.split(",")
            if wrong := [problem for url in urls if (problem := problem_of_url(url)) is not None]:
                raise SourceError("\n  ".join(wrong))
            self._reading = usual(argument, None, tuple(target_of(url) for url in urls))
        else:
            self._reading = read_file(argument, "text")
        self._limit_s = self._reading.timeout_s or TIMEOUT_S
        self._selectors = self._reading.selectors()
        self._asked = [
            Asked(target.url, partial(self._scrape, target, Session(self._reading.authorization)))
            for target in self._reading.targets
        ]
        self._last: list[list[Series]] = [[] for _ in self._asked]  # what each target told last
        self._clock = SampleClock()

    def describe(self) -> str:
        return f"text:{self._reading.place}"

    def limit(self, seconds: float) -> None:
        """A sample may take no longer."""
        self._limit_s = min(self._limit_s, seconds)

    def sample(self) -> Sample:
        """What the targets tell. Raises SourceError when none does, with the reason of each."""
        asked_ns, until_s = time.time_ns(), time.monotonic() + self._limit_s
        for asked in self._asked:
            asked.begin()
        wrong = []
        for place, asked in enumerate(self._asked):
            try:
                self._last[place] = _with_values_before(self._last[place], asked.take(until_s))
            except SourceError as error:
                self._last[place] = [_missing(one, asked_ns) for one in self._last[place]]
                wrong.append(str(error))
        if len(wrong) == len(self._asked):
            raise SourceError("; ".join(wrong))
        every = [one for series in self._last for one in series]
        found = {one.text: [series for series in every if one.matches(series)] for one in self._selectors}
        received_ns = time.time_ns()
        try:
            told = tell(self._reading.fields, self._reading.naming, found, np.array([received_ns]))
        except SeriesError as error:
            raise SourceError(f"{self._reading.place}: {error}") from error
        sample = self._clock.sample(told, 0, received_ns)
        if sample is None:
            raise SourceError(f"{self._reading.place}: {self._why_nothing(found)}")
        return sample

    def _why_nothing(self, found: Found) -> str:
        naming = self._reading.naming
        if any(naming.of(one.labels) is not None for series in found.values() for one in series):
            return (
                "what there is of the names that are looked for is too old, of a time to come or outside its range; "
                "look at the times it states, at its clock, and at `valid` in a file"
            )
        return (
            "nothing there has a name that is looked for and tells of an instance of our services; name others in a "
            "file"
        )

    def _scrape(self, target: Target, session: Session) -> list[Series]:
        """In a thread of its own."""
        t_ns = time.time_ns()
        body = session.get(target.url, self._limit_s)
        try:
            return parse_text(body, self._selectors, t_ns, target.labels)
        except ValueError as error:
            raise SourceError(f"GET {target.url}: {error}") from error


def _with_values_before(before: Sequence[Series], now: Sequence[Series]) -> list[Series]:
    """What was told now, each series with its value before: a page has one, and a rate is made of two."""
    older = {_identity(one): one for one in before}
    return [_joined(older.get(_identity(one)), one) for one in now]


def _joined(before: Series | None, now: Series) -> Series:
    if before is None:
        return now
    last = np.flatnonzero(before.t_ns < now.t_ns[0])[-1:]
    t_ns, known_ns, values = (
        np.append(getattr(before, name)[last], getattr(now, name)) for name in ("t_ns", "known_ns", "values")
    )
    return replace(now, t_ns=t_ns, known_ns=known_ns, values=values)


def _identity(one: Series) -> tuple[str, frozenset[tuple[str, str]]]:
    return one.name, frozenset(one.labels.items())


def _missing(one: Series, t_ns: int) -> Series:
    now = np.array([t_ns])
    return replace(one, t_ns=now, known_ns=now, values=np.array([np.nan]))

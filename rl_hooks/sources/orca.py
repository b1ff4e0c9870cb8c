"""Load reports that services put into their answers: the header `endpoint-load-metrics` of ORCA. No HTTP in here.

    endpoint-load-metrics: {"cpu_utilization": 0.3, "mem_utilization": 0.5, "named_metrics": {"queue_depth": 4}}
    endpoint-load-metrics: JSON {"cpu_utilization": 0.3}
    endpoint-load-metrics: TEXT cpu_utilization=0.3,mem_utilization=0.5,named_metrics.queue_depth=4

Whoever reads the answers hands the headers in; the source keeps the newest report of each instance. The form `BIN`
(base64 of a protocol buffer) is counted as not readable: its services can send one of the others.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rl_hooks.control import Sample, SourceError
from rl_hooks.decision import RESPONSE_LOAD, SERVICES
from rl_hooks.sources.series import RANGES, Field, Label, Naming, SampleClock, Selector, Series, tell

HEADER = RESPONSE_LOAD
FRESH_S = 5.0
LARGEST_CHARACTERS = 16 * 1024

# Field -> where a report may say it, the first counts; below `named_metrics` are the service's own names.
_WHERE: Mapping[str, tuple[str, ...]] = {
    "cpu": ("cpu_utilization",),
    "memory": ("mem_utilization",),
    "health": ("named_metrics.health",),
    "queue_depth": ("named_metrics.queue_depth", "named_metrics.queue"),
    "in_flight": ("named_metrics.in_flight", "named_metrics.inflight"),
    "capacity": ("named_metrics.capacity",),
}
_CAMEL = {"cpuUtilization": "cpu_utilization", "memUtilization": "mem_utilization", "namedMetrics": "named_metrics"}


class OrcaSource:
    """The newest load report of each instance; one older than `fresh_s` says nothing about now and is missing."""

    reads_responses = True

    def __init__(
        self, root: str | None = None, fresh_s: float = FRESH_S, now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        del root  # the interface of all sources; there is nothing to ask
        self._fresh_ns = round(fresh_s * 1e9)
        self._now_ns = now_ns
        self._reports: dict[tuple[int, str], tuple[int, dict[str, float]]] = {}  # -> received_ns, field -> value
        self._clock = SampleClock()
        self._naming = Naming(Label(("service",)), Label(("instance",)))
        self._fields = tuple(
            Field(name, Selector.parse(name), low=RANGES[name][0], high=RANGES[name][1], stale_ns=self._fresh_ns)
            for name in _WHERE
        )
        self.reports = 0
        self.unreadable = 0
        self._first_unreadable: str | None = None

    def describe(self) -> str:
        return "orca"

    def push_reports(self, reports: Sequence[tuple[int, str, str, int]]) -> None:
        """Headers of answers: index of the service, instance, the header's text, and when the answer was received."""
        for service, instance, text, received_ns in reports:
            self.reports += 1
            try:
                values = parse_report(text)
            except (ValueError, RecursionError) as error:
                self.unreadable += 1
                self._first_unreadable = self._first_unreadable or f"{text[:60]!r}: {error}"
                continue
            before = self._reports.get((service, instance))
            if before is None or before[0] <= received_ns:
                self._reports[service, instance] = (received_ns, values)

    def sample(self) -> Sample:
        """The reports that are fresh. Raises SourceError without any, and says what is wrong with those that came."""
        now_ns = self._now_ns()
        found: dict[str, list[Series]] = {name: [] for name in _WHERE}
        for (service, instance), (received_ns, values) in list(self._reports.items()):
            labels, t_ns = {"service": SERVICES[service], "instance": instance}, np.array([received_ns])
            for name in _WHERE:
                value = np.array([values.get(name, math.nan)])
                found[name].append(Series(name, labels, t_ns, t_ns, value))
        sample = self._clock.sample(tell(self._fields, self._naming, found, np.array([now_ns])), 0, now_ns)
        if sample is None:
            raise SourceError(self._nothing())
        return sample

    def _nothing(self) -> str:
        if self.unreadable:
            return (
                f"{self.unreadable} of {self.reports} load reports cannot be read; the first: {self._first_unreadable}"
            )
        if self.reports:
            return f"no answer of the last {self._fresh_ns / 1e9:g} s had a load report with a value within its range"
        return f"no answer had the header {HEADER} yet; do the services send it, and does the balancer let it pass?"


def parse_report(text: str) -> dict[str, float]:
    """The fields that a header states. Raises ValueError for what is no report.

    >>> parse_report("TEXT cpu_utilization=0.3,named_metrics.queue_depth=4")
    {'queue_depth': 4.0, 'cpu': 0.3}
    >>> parse_report('JSON {"mem_utilization": 0.5, "named_metrics": {"inflight": 2}}')
    {'in_flight': 2.0, 'memory': 0.5}
    """
    if len(text) > LARGEST_CHARACTERS:
        raise ValueError(f"is longer than {LARGEST_CHARACTERS} characters")
    form, _, rest = text.strip().partition(" ")
    if form == "TEXT":
        metrics = _of_text(rest)
    elif form == "JSON":
        metrics = _of_json(rest)
    elif form == "BIN":
        raise ValueError("the binary form is not read; let the services send JSON or TEXT")
    elif form.startswith("{"):
        metrics = _of_json(text)
    else:
        raise ValueError("is neither JSON nor TEXT")
    stated = [(field, place) for field, places in _WHERE.items() for place in places if place in metrics]
    return {field: metrics[place] for field, place in reversed(stated)}  # of several places the first counts


def _of_text(text: str) -> dict[str, float]:
    metrics = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{part[:40]!r} is not name=value")
        metrics[name.strip()] = float(value)
    return metrics


def _of_json(text: str) -> dict[str, float]:
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("is no JSON object")  # noqa: TRY004  (of the text, not of an argument)
    metrics: dict[str, float] = {}
    for key, value in content.items():
        name = str(_CAMEL.get(key, key))
        named: dict[str, Any] = value if name == "named_metrics" and isinstance(value, dict) else {}
        for place, number in [(name, value), *((f"{name}.{own}", number) for own, number in named.items())]:
            if isinstance(number, int | float) and not isinstance(number, bool):
                metrics[place] = float(number)
    return metrics

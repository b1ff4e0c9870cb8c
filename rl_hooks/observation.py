"""The observation: what was known about a service strictly before a decision, as numbers with names and units.

    push_starts, push_completions,                observe(T)
    push_samples, push_decisions     -->  window  ----------->  Observation (services, features)

One class serves a live process, which pushes facts as they come, and the exporter, which pushes a whole run: what lies
at or after T waits until a later observation. So both give the same numbers, and nothing from after T can get in.

Known at T: completions in [T - window, T); requests in flight at T (sent before T, not ended before T); the last
metrics sample with t_ns <= T and received_ns <= T; decisions made before T. A value that is not known is NaN, never
zero; a count or a rate of nothing is the fact 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks import histogram
from rl_hooks.action_space import are_instances
from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.timed_facts import TimedFacts, WaitingFacts

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

PATTERNS = ("idle", "steady", "rising", "falling", "burst")
QUANTILE_LEVELS = np.array([0.5, 0.95, 0.99])
OF_EACH = ("cpu", "health", "queue_depth", "in_flight")  # gauges that are features of each instance
GAUGES = ("cpu", "memory", "health", "queue_depth", "in_flight")  # of a metrics sample, per instance
UNKNOWN_ACTION = -1


# -- the features, with what they mean --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Feature:
    """One number of the observation. `window`: window, last5 or last1 (intervals), or now."""

    name: str
    unit: str
    low: float
    high: float | None  # None: no upper limit
    window: str
    source: str  # client: from our own requests; balancer: from its metrics or its own decisions
    missing_when: str


def _of_requests(prefix: str, window: str) -> tuple[Feature, ...]:
    nothing = f"no request of the service ended in {window}"
    return (
        Feature(f"{prefix}response_time_mean_ms", "ms", 0, None, window, "client", nothing),
        Feature(f"{prefix}error_rate", "share", 0, 1, window, "client", nothing),
        Feature(f"{prefix}request_rate_rps", "requests/s", 0, None, window, "client", "never"),
    )


_NO_SAMPLE = "no metrics sample within the window, or none with this value"
_NOT_ALL = "no metrics sample within the window, or one instance without this value"
_NOT_OF_IT = "no metrics sample of the instance within the window, or none with this value"
_NO_DECISION = "no decision before, or it could not be applied"

PREVIOUS = "previous_action_"

_BEFORE: tuple[Feature, ...] = (
    *_of_requests("", "window"),
    *(
        Feature(f"response_time_{level}_ms", "ms", 0, None, "window", "client", "no request ended in window")
        for level in ("p50", "p95", "p99")
    ),
    Feature("in_flight", "requests", 0, None, "now", "client", "never"),
    *_of_requests("last5_", "last5"),
    *_of_requests("last1_", "last1"),
    Feature("cpu_mean", "share", 0, 1, "now", "balancer", _NO_SAMPLE),
    Feature("cpu_max", "share", 0, 1, "now", "balancer", _NO_SAMPLE),
    Feature("memory_mean", "share", 0, 1, "now", "balancer", _NO_SAMPLE),
    Feature("memory_max", "share", 0, 1, "now", "balancer", _NO_SAMPLE),
    Feature("queue_sum", "requests", 0, None, "now", "balancer", _NOT_ALL),
    Feature("queue_max", "requests", 0, None, "now", "balancer", _NO_SAMPLE),
    Feature("health_min", "score", 0, 1, "now", "balancer", _NO_SAMPLE),
    Feature("health_mean", "score", 0, 1, "now", "balancer", _NO_SAMPLE),
    Feature("in_flight_spread", "requests", 0, None, "now", "balancer", _NO_SAMPLE),
)
_AFTER: tuple[Feature, ...] = (
    Feature("previous_action_held", "intervals", 1, None, "now", "balancer", _NO_DECISION),
    *(Feature(f"pattern_{name}", "one-hot", 0, 1, "window", "client", "never") for name in PATTERNS),
    Feature("others_request_rate_rps", "requests/s", 0, None, "window", "client", "never"),
    Feature("others_error_rate", "share", 0, 1, "window", "client", "no request of another service ended in window"),
    Feature("others_in_flight", "requests", 0, None, "now", "client", "never"),
    Feature("others_queue_sum", "requests", 0, None, "now", "balancer", "queue_sum of another service is missing"),
    *(Feature(f"service_{name}", "one-hot", 0, 1, "now", "balancer", "never") for name in SERVICES),
)


def features_of(labels: Sequence[str]) -> tuple[Feature, ...]:
    """The features where decisions are made among `labels` (`ActionSpace.labels`), in the order of the columns."""
    previous = (Feature(f"{PREVIOUS}{name}", "one-hot", 0, 1, "now", "balancer", _NO_DECISION) for name in labels)
    instances = labels if are_instances(labels) else ()
    return (*_BEFORE, *previous, *_AFTER, *(one for name in instances for one in _of_instance(name)))


def _of_instance(label: str) -> tuple[Feature, ...]:
    """What whoever chooses among instances has to know of each; missing where the service has fewer."""
    return (
        Feature(f"{label}_cpu", "share", 0, 1, "now", "balancer", _NOT_OF_IT),
        Feature(f"{label}_health", "score", 0, 1, "now", "balancer", _NOT_OF_IT),
        Feature(f"{label}_queue_depth", "requests", 0, None, "now", "balancer", _NOT_OF_IT),
        Feature(f"{label}_in_flight", "requests", 0, None, "now", "balancer", _NOT_OF_IT),
    )


FEATURES: tuple[Feature, ...] = features_of(ACTIONS)
"""Those where decisions are made among the strategies."""


def of_metrics(labels: Sequence[str]) -> tuple[int, ...]:
    """The columns of `features_of(labels)` that are missing where there are no metrics samples."""
    wanted = (_NO_SAMPLE, _NOT_ALL, _NOT_OF_IT)
    features = enumerate(features_of(labels))
    return tuple(index for index, one in features if one.missing_when in wanted or one.name == "others_queue_sum")


OF_METRICS = tuple(FEATURES[index].name for index in of_metrics(ACTIONS))
"""Their names where decisions are made among the strategies."""

FEATURE_INDEX = {feature.name: index for index, feature in enumerate(FEATURES)}


# -- what features are made of ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PatternThresholds:
    """When the traffic of all services together counts as idle, rising, falling or a burst; steady otherwise.

    Compared are the newest intervals (five, or one where five do not fit twice into the window) with the whole window.
    `sigmas` keeps Poisson noise out: the newest count has to be that many roots away from what the window predicts.
    """

    idle_below_requests: float = 5.0  # in the window
    rising_ratio: float = 1.25
    falling_ratio: float = 0.75
    burst_ratio: float = 2.0
    sigmas: float = 2.0

    def classify(self, recent: float, expected: float, in_window: float) -> str:
        """The class for `recent` requests where the window's rate predicts `expected`.

        >>> rules = PatternThresholds()
        >>> rules.classify(recent=44, expected=40, in_window=240)
        'steady'
        >>> rules.classify(recent=90, expected=40, in_window=240)
        'burst'
        """
        if in_window < self.idle_below_requests:
            return "idle"
        if abs(recent - expected) <= self.sigmas * expected**0.5:
            return "steady"
        if recent >= self.burst_ratio * expected:
            return "burst"
        if recent >= self.rising_ratio * expected:
            return "rising"
        return "falling" if recent <= self.falling_ratio * expected else "steady"


THRESHOLDS = PatternThresholds()


@dataclass(frozen=True, slots=True)
class Spans:
    """The lengths of the windows, in real nanoseconds."""

    window_ns: int
    interval_ns: int

    @staticmethod
    def of_seconds(window_s: float, interval_s: float) -> "Spans":
        return Spans(round(window_s * 1e9), round(interval_s * 1e9))

    @property
    def lengths_ns(self) -> tuple[int, int, int]:
        """window, last5, last1"""
        return self.window_ns, 5 * self.interval_ns, self.interval_ns

    @property
    def horizon_ns(self) -> int:
        """How far back the longest window reaches; in a compressed run five intervals can be longer than the window."""
        return max(self.lengths_ns)


@dataclass(frozen=True, slots=True)
class Observation:
    """What was known at `t_ns` about every service."""

    t_ns: int
    values: npt.NDArray[np.float32]  # (services, features), NaN: not known
    sample_ns: npt.NDArray[np.int64]  # (services,) time of the metrics sample used, 0: none

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """True where a value was known."""
        return ~np.isnan(self.values)


@dataclass(frozen=True, slots=True)
class Known:
    """What features are made of. The leading dimensions are those of the moments: none for one, (n,) for n of them."""

    count: Floats  # (..., windows, services) completions
    failed: Floats  # (..., windows, services)
    sum_us: Floats  # (..., windows, services) of their durations
    quantiles_us: Floats  # (..., services, levels) of the durations in the longest window, NaN: none
    in_flight: Floats  # (..., services)
    gauges: Mapping[str, Floats]  # each (..., services)
    previous: npt.NDArray[Any]  # (..., services) action of the last decision or UNKNOWN_ACTION
    held: Floats  # (..., services) decisions in a row with that action


# -- from what is known to numbers ------------------------------------------------------------------------------------


def features(
    known: Known, spans: Spans, thresholds: PatternThresholds = THRESHOLDS, labels: Sequence[str] = ACTIONS
) -> npt.NDArray[np.float32]:
    """The features (..., services, features), in the order of `features_of(labels)`: their one definition."""
    columns, wanted = _columns(known, spans, thresholds, labels), features_of(labels)
    values = np.empty((*known.in_flight.shape, len(wanted)), np.float32)
    for index, feature in enumerate(wanted):
        values[..., index] = columns[feature.name]
    return values


def _columns(
    known: Known, spans: Spans, thresholds: PatternThresholds, labels: Sequence[str]
) -> dict[str, Floats | float]:
    columns: dict[str, Floats | float] = {}
    for window, prefix in enumerate(("", "last5_", "last1_")):
        count = known.count[..., window, :]
        columns[f"{prefix}response_time_mean_ms"] = _ratio(known.sum_us[..., window, :] / 1000, count)
        columns[f"{prefix}error_rate"] = _ratio(known.failed[..., window, :], count)
        columns[f"{prefix}request_rate_rps"] = count / (spans.lengths_ns[window] / 1e9)
    for index, level in enumerate(("p50", "p95", "p99")):
        columns[f"response_time_{level}_ms"] = known.quantiles_us[..., index] / 1000
    columns["in_flight"] = known.in_flight
    columns.update(known.gauges)
    columns.update(_previous_action(known, labels))
    pattern = _pattern(known, spans, thresholds)
    columns.update({f"pattern_{name}": pattern == index for index, name in enumerate(PATTERNS)})
    count, failed = known.count[..., 0, :], known.failed[..., 0, :]
    others = _total(count) - count
    columns["others_request_rate_rps"] = others / (spans.window_ns / 1e9)
    columns["others_error_rate"] = _ratio(_total(failed) - failed, others)
    columns["others_in_flight"] = _total(known.in_flight) - known.in_flight
    columns["others_queue_sum"] = np.where(_IDENTITY == 1, 0.0, known.gauges["queue_sum"][..., None, :]).sum(axis=-1)
    columns.update({f"service_{name}": _IDENTITY[index] for index, name in enumerate(SERVICES)})
    return columns


def _previous_action(known: Known, labels: Sequence[str]) -> dict[str, Floats | float]:
    made = known.previous != UNKNOWN_ACTION
    columns: dict[str, Floats | float] = {
        f"{PREVIOUS}{name}": np.where(made, known.previous == index, np.nan) for index, name in enumerate(labels)
    }
    columns["previous_action_held"] = np.where(made, known.held, np.nan)
    return columns


def _pattern(known: Known, spans: Spans, thresholds: PatternThresholds) -> Array:
    """The index in PATTERNS, (..., 1): all services have the same."""
    window_ns, last5_ns, last1_ns = spans.lengths_ns
    recent, recent_ns = (1, last5_ns) if 2 * last5_ns <= window_ns else (2, last1_ns)
    in_window, newest = _total(known.count[..., 0, :]), _total(known.count[..., recent, :])
    expected = in_window * recent_ns / window_ns
    counts = zip(newest.ravel().tolist(), expected.ravel().tolist(), in_window.ravel().tolist(), strict=True)
    return np.array([PATTERNS.index(thresholds.classify(*count)) for count in counts]).reshape(in_window.shape)


def _total(values: Floats) -> Floats:
    """The sum over the services, (..., 1)."""
    total: Floats = values.sum(axis=-1, keepdims=True)
    return total


# -- the window -------------------------------------------------------------------------------------------------------


class ObservationWindow:
    """Facts in, observations out. Facts may be pushed at any time and in any order; observations go forward in time.

    A fact that arrives after the observation it belonged to (a worker's row, late on the network) counts from the next
    observation on, which is what a deciding process can know.
    """

    def __init__(
        self,
        spans: Spans,
        *,
        exact_quantiles: bool = False,
        thresholds: PatternThresholds = THRESHOLDS,
        labels: Sequence[str] = ACTIONS,
    ) -> None:
        """`labels`: what decisions are made among (`ActionSpace.labels`)."""
        self._spans = spans
        self._labels = labels
        self._exact = exact_quantiles
        self._thresholds = thresholds
        self._now = np.iinfo(np.int64).min // 2
        lengths = len(spans.lengths_ns)
        self._counts = np.zeros((lengths, len(SERVICES)))
        self._failed = np.zeros((lengths, len(SERVICES)))
        self._sum_us = np.zeros((lengths, len(SERVICES)))  # whole numbers below 2**53: sums and differences are exact
        self._histogram = np.zeros(len(SERVICES) * histogram.BUCKETS, np.int64)
        self._left = [0] * lengths
        self._released = 0  # completions before `now`, of those kept
        self._ended = TimedFacts(service=np.int64, duration_us=np.float64, failed=np.float64, key=np.int64)
        self._flow = WaitingFacts(service=np.int64, change=np.float64)
        self._in_flight = np.zeros(len(SERVICES))
        self._decisions = WaitingFacts(service=np.int64, action=np.int64)
        self._previous = np.full(len(SERVICES), UNKNOWN_ACTION)
        self._held = np.zeros(len(SERVICES))
        self._gauges = _Gauges(labels if are_instances(labels) else ())

    def push_starts(self, service: Array, start_ns: Array) -> None:
        """Requests that were sent."""
        self._push_flow(service, start_ns, 1.0)

    def push_completions(self, service: Array, end_ns: Array, duration_us: Array, ok: Array) -> None:
        """Requests that ended, well or not; each was pushed as a start too."""
        key = np.asarray(service, np.int64) * histogram.BUCKETS + histogram.bucket_of(duration_us)
        columns = {
            "service": service,
            "duration_us": duration_us,
            "failed": 1.0 - np.asarray(ok, np.float64),
            "key": key,
        }
        place = self._ended.push(end_ns, **columns)
        late = place[self._ended["t_ns"][place] < self._now]
        if len(late):
            self._put_late_in_place(late)
        self._push_flow(service, end_ns, -1.0)

    def push_lost(self, service: Array, given_up_ns: Array) -> None:
        """Requests whose end nobody will ever know: not in flight any more from `given_up_ns` on."""
        self._push_flow(service, given_up_ns, -1.0)

    def push_samples(self, rows: Array, number: Array | None = None) -> None:
        """Rows of the samples table; `number` (n,) is that of the instance among its service's actions, -1: none."""
        self._gauges.push(rows, np.full(len(rows), -1) if number is None else number)

    def push_decisions(self, service: Array, t_ns: Array, action: Array, actuated: Array) -> None:
        """Decisions of the controller, in force from `t_ns` on."""
        known = np.where(np.asarray(actuated) != 0, np.asarray(action, np.int64), UNKNOWN_ACTION)
        self._decisions.push(t_ns, service=service, action=known)

    def observe(self, t_ns: int) -> Observation:
        """The observation for a decision at `t_ns`. ValueError when time goes backwards."""
        if t_ns < self._now:
            raise ValueError(f"observations go forward in time: {t_ns} comes after {self._now}")
        self._slide(t_ns)
        flow = self._flow.release(t_ns)
        self._in_flight += np.bincount(flow["service"], flow["change"], len(SERVICES))
        decided = self._decisions.release(t_ns)
        for service, action in zip(decided["service"].tolist(), decided["action"].tolist(), strict=True):
            self._held[service] = self._held[service] + 1 if self._previous[service] == action else 1
            self._previous[service] = action
        self._gauges.advance(t_ns, t_ns - self._spans.window_ns)
        self._now = t_ns
        known = Known(
            count=self._counts,
            failed=self._failed,
            sum_us=self._sum_us,
            quantiles_us=self._quantiles_us(),
            in_flight=self._in_flight,
            gauges=self._gauges.columns(),
            previous=self._previous,
            held=self._held,
        )
        return Observation(
            t_ns, features(known, self._spans, self._thresholds, self._labels), self._gauges.sample_ns.copy()
        )

    def _push_flow(self, service: Array, t_ns: Array, change: float) -> None:
        self._flow.push(t_ns, service=service, change=np.full(len(service), change))

    def _slide(self, t_ns: int) -> None:
        """Move the windows to [t_ns - length, t_ns): add what ended since, take away what is too old."""
        ended = self._ended
        after = ended.position(t_ns)
        for window, length in enumerate(self._spans.lengths_ns):
            self._add(window, self._released, after, 1)
            left = ended.position(t_ns - length)
            self._add(window, self._left[window], left, -1)
            self._left[window] = left
        self._released = after
        if ended.worth_dropping(oldest := min(self._left)):
            ended.drop(oldest)
            self._released -= oldest
            self._left = [left - oldest for left in self._left]

    def _add(self, window: int, begin: int, end: int, sign: int) -> None:
        if begin == end:
            return
        service = self._ended["service"][begin:end]
        self._counts[window] += sign * np.bincount(service, minlength=len(SERVICES))
        self._failed[window] += sign * np.bincount(service, self._ended["failed"][begin:end], len(SERVICES))
        self._sum_us[window] += sign * np.bincount(service, self._ended["duration_us"][begin:end], len(SERVICES))
        if window == 0 and not self._exact:
            np.add.at(self._histogram, self._ended["key"][begin:end], sign)

    def _put_late_in_place(self, late: Array) -> None:
        """Add completions that belong before the last observation; `late` are their positions among the facts."""
        self._released = self._ended.position(self._now)
        for window, length in enumerate(self._spans.lengths_ns):
            self._left[window] = self._ended.position(self._now - length)
            for position in late[late >= self._left[window]].tolist():
                self._add(window, position, position + 1, 1)

    def _quantiles_us(self) -> Floats:
        if not self._exact:
            return histogram.quantiles(self._histogram.reshape(len(SERVICES), -1), QUANTILE_LEVELS)
        inside = slice(self._left[0], self._released)
        service, duration_us = self._ended["service"][inside], self._ended["duration_us"][inside]
        found = np.full((len(SERVICES), len(QUANTILE_LEVELS)), np.nan)
        for index in np.flatnonzero(self._counts[0]):
            found[index] = np.quantile(duration_us[service == index], QUANTILE_LEVELS)
        return found


_IDENTITY = np.eye(len(SERVICES))


def _ratio(part: Floats, whole: Floats) -> Floats:
    """part / whole, NaN where the whole is 0."""
    result: Floats = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return result


# -- metrics samples --------------------------------------------------------------------------------------------------


class _Gauges:
    """The last metrics sample of each service: all rows of the service with the newest time that had been received."""

    def __init__(self, labels: Sequence[str]) -> None:
        """`labels`: of the instances that have features of their own."""
        self.sample_ns = np.zeros(len(SERVICES), np.int64)
        self._labels = labels
        whole = dict.fromkeys(("service", "sample_ns", "number"), np.int64)
        self._waiting = WaitingFacts(**whole, **dict.fromkeys(GAUGES, np.float64))
        # Each (gauges, instances); the last row of each says which instance it is.
        self._held: list[Floats] = [_NOTHING_HELD] * len(SERVICES)
        self._columns: dict[str, Floats] | None = None

    def push(self, rows: Array, number: Array) -> None:
        ready_ns = np.maximum(rows["t_ns"], rows["received_ns"])
        columns = {"service": rows["service"], "sample_ns": rows["t_ns"], "number": number}
        self._waiting.push(ready_ns, **columns, **{name: rows[name] for name in GAUGES})

    def advance(self, t_ns: int, oldest_ns: int) -> None:
        """Take the samples known at `t_ns`; one older than `oldest_ns` says nothing about now and is dropped."""
        new = self._waiting.release(t_ns + 1)  # a sample of exactly t_ns counts
        for service in np.unique(new["service"]).tolist():
            mine = new["service"] == service
            newest = int(new["sample_ns"][mine].max())
            if newest < self.sample_ns[service]:
                continue
            chosen = mine & (new["sample_ns"] == newest)
            values = np.array([new[name][chosen] for name in (*GAUGES, "number")], np.float64)
            same = newest == self.sample_ns[service]
            self._held[service] = np.hstack((self._held[service], values)) if same else values
            self.sample_ns[service] = newest
            self._columns = None
        for service in np.flatnonzero((self.sample_ns != 0) & (self.sample_ns < oldest_ns)).tolist():
            self._held[service] = _NOTHING_HELD
            self.sample_ns[service] = 0
            self._columns = None

    def columns(self) -> dict[str, Floats]:
        if self._columns is None:
            self._columns = self._summarize()
        return self._columns

    def _summarize(self) -> dict[str, Floats]:
        instances = np.array([held.shape[1] for held in self._held])
        values = np.full((len(GAUGES) + 1, len(SERVICES), max(int(instances.max()), 1)), np.nan)
        for service, held in enumerate(self._held):
            values[:, service, : held.shape[1]] = held
        found = summarize(values[:-1], instances)
        return {**found, **each_instance(values[:-1], values[-1], self._labels)}


_NOTHING_HELD: Floats = np.empty((len(GAUGES) + 1, 0))


def each_instance(values: Floats, number: Floats, labels: Sequence[str]) -> dict[str, Floats]:
    """The features of each instance in n samples from their gauges (GAUGES, n, width) and its numbers (n, width).

    >>> gauges = np.array([0.25, np.nan, 1.0, 3.0, 2.0]).reshape(5, 1, 1)
    >>> found = each_instance(gauges, np.array([[1.0]]), ("instance_1", "instance_2"))
    >>> found["instance_1_cpu"], found["instance_2_cpu"], found["instance_2_in_flight"]
    (array([nan]), array([0.25]), array([2.]))
    """
    found = {}
    for place, label in enumerate(labels):
        mine = np.where(number == place, values, np.nan)
        for name in OF_EACH:
            found[f"{label}_{name}"] = np.fmax.reduce(mine[GAUGES.index(name)], axis=-1)
    return found


def summarize(values: Floats, instances: npt.NDArray[Any]) -> dict[str, Floats]:
    """The features of n samples from their gauges (GAUGES, n, width), NaN behind the `instances` of each."""
    known = ~np.isnan(values)
    count = known.sum(axis=2)
    total = np.where(known, values, 0.0).sum(axis=2)
    highest, lowest = np.fmax.reduce(values, axis=2), np.fmin.reduce(values, axis=2)
    cpu, memory, health, queue, in_flight = range(len(GAUGES))
    all_known = (instances > 0) & (count[queue] == instances)
    return {
        "cpu_mean": _ratio(total[cpu], count[cpu]),
        "cpu_max": highest[cpu],
        "memory_mean": _ratio(total[memory], count[memory]),
        "memory_max": highest[memory],
        "queue_sum": np.where(all_known, total[queue], np.nan),
        "queue_max": highest[queue],
        "health_min": lowest[health],
        "health_mean": _ratio(total[health], count[health]),
        "in_flight_spread": highest[in_flight] - lowest[in_flight],
    }

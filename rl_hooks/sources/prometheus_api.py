"""Answers of the Prometheus HTTP API as series. Pure.

Asked is `/api/v1/query` with a range behind a selector, `x[10s]`: that gives the raw values, each with its own time. An
instant query would give the time of the query instead, and query_range a grid of interpolated moments.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from rl_hooks.http_call import readable
from rl_hooks.sources.series import Selector, Series

_LAST_S = 1e11  # far beyond any time in seconds; milliseconds by mistake lie beyond it


def range_query(selector: Selector, length_ns: int, end_ns: int) -> dict[str, str]:
    """Parameters of a query for the raw values in the `length_ns` before `end_ns`.

    Prometheus counts milliseconds; the end is rounded down, so that no value lies behind it.

    >>> range_query(Selector.parse('up{job="a"}'), 3_000_000_000, 5_123_456_789)
    {'query': 'up{job="a"}[3000ms]', 'time': '5.123'}
    """
    end_ms = end_ns // 1_000_000
    return {
        "query": f"{selector.text}[{max(1, length_ns // 1_000_000)}ms]",
        "time": f"{end_ms // 1000}.{end_ms % 1000:03d}",
    }


def parse_range(body: bytes) -> list[Series]:
    """The series of an answer to a `range_query`. Raises ValueError for what is none."""
    found = []
    for one in _result(body, "matrix"):
        labels = _labels(one)
        points = [_point(point) for point in one.get("values", [])]
        t_ns = np.array([t for t, _ in points], np.int64)
        if (np.diff(t_ns) <= 0).any():
            raise ValueError(f"the values of {labels} are not in order of time")
        name = labels.pop("__name__", "")
        found.append(Series(name, labels, t_ns, t_ns, np.array([value for _, value in points], np.float64)))
    return found


def parse_jobs(body: bytes) -> dict[str, set[str]]:
    """Name -> jobs, of an answer to `count by (__name__, job) (...)`. Raises ValueError."""
    jobs: dict[str, set[str]] = {}
    for one in _result(body, "vector"):
        labels = _labels(one)
        jobs.setdefault(labels.get("__name__", ""), set()).add(labels.get("job", ""))
    return jobs


def parse_intervals(body: bytes) -> dict[str, float]:
    """Job -> the longest scrape interval of its targets in seconds, of `/api/v1/targets`. Raises ValueError."""
    intervals: dict[str, float] = {}
    try:
        for target in _data(body)["activeTargets"]:
            job, seconds = str(target["labels"]["job"]), seconds_of(str(target["scrapeInterval"]))
            intervals[job] = max(seconds, intervals.get(job, 0.0))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a list of targets ({type(error).__name__}: {error})") from error
    return intervals


_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(text: str) -> float:
    """A duration as Prometheus writes it. Raises ValueError.

    >>> seconds_of("1m30s"), seconds_of("500ms")
    (90.0, 0.5)
    """
    total, rest = 0.0, text
    while rest:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        rest = rest[len(digits) :]
        unit = next((unit for unit in _UNITS_S if rest.startswith(unit)), None)
        if not digits or unit is None:
            raise ValueError(f"{text!r} is no duration")
        total += int(digits) * _UNITS_S[unit]
        rest = rest[len(unit) :]
    return total


def _result(body: bytes, kind: str) -> list[Any]:
    data = _data(body)
    if not isinstance(data, dict) or data.get("resultType") != kind or not isinstance(data.get("result"), list):
        raise ValueError(f"not a {kind}; is this the API of a Prometheus?")
    result: list[Any] = data["result"]
    return result


def _data(body: bytes) -> Any:
    try:
        answer = json.loads(body)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"not JSON ({error}); is this the API of a Prometheus?") from error
    if not isinstance(answer, dict) or answer.get("status") != "success":
        said = answer.get("error") if isinstance(answer, dict) else None
        raise ValueError(readable(str(said or "no success was stated; is this the API of a Prometheus?")))
    return answer.get("data")


def _labels(one: Any) -> dict[str, str]:
    metric = one.get("metric") if isinstance(one, Mapping) else None
    if not isinstance(metric, dict) or not all(isinstance(value, str) for value in metric.values()):
        raise ValueError("a series has no labels")
    return dict(metric)


def _point(point: Any) -> tuple[int, float]:
    """Time in whole milliseconds, which is all that Prometheus keeps, and the value, which may be NaN or infinite."""
    try:
        t_s, text = point
        if isinstance(t_s, bool) or not 0 <= t_s < _LAST_S:
            raise ValueError
        return round(t_s * 1000) * 1_000_000, float(text)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{str(point)[:80]!r} is no time with a value") from error

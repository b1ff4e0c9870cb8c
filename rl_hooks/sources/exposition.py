"""The text that targets of Prometheus expose, as series. Pure; the parsing is prometheus-client's.

OpenMetrics, which some servers send to whoever asks, differs here in two things: exemplars, and times in seconds.

Only lines of wanted metrics reach the parser, at 20 us a line: a whole page of Envoy's has some thousand. They come
without their `# TYPE`, on purpose: by it the parser would rename counters that do not end in `_total`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from rl_hooks.sources.series import Selector, Series

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_SERIES = re.compile(r'[^{#\s]+\s*(?:\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?[^#]*')  # a line without its exemplar


def parse_text(body: bytes, selectors: Sequence[Selector], t_ns: int, more: Mapping[str, str]) -> list[Series]:
    """The series that one of `selectors` may want.

    `t_ns`: when it was asked for, the time of values that state none; `more`: labels that the target is given, where it
    has none of that name. Raises ValueError for what is no such text.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not text ({error})") from error
    # Only OpenMetrics has such an end, and its times are in seconds where the older text has milliseconds.
    unit_ms = 1000 if text.rstrip().endswith("\n# EOF") else 1
    wanted = "\n".join(_wanted(text, selectors))
    found: dict[tuple[str, frozenset[tuple[str, str]]], Series] = {}
    try:
        for family in text_string_to_metric_families(wanted + "\n"):
            for one in family.samples:
                key = (one.name, frozenset(one.labels.items()))
                if key in found:
                    raise ValueError(f"{one.name}{dict(one.labels)} is there twice")
                stated_ms = None if one.timestamp is None else round(float(one.timestamp) * 1000 * unit_ms)
                times = np.array([t_ns if stated_ms is None else stated_ms * 10**6])
                values = np.array([one.value], np.float64)
                found[key] = Series(one.name, {**more, **one.labels}, times, times, values)
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise ValueError(f"not the text format of Prometheus ({error or type(error).__name__})") from error
    return list(found.values())


def _wanted(text: str, selectors: Sequence[Selector]) -> Iterator[str]:
    """Lines of metrics that a selector may want. Raises ValueError where a line begins like none at all."""
    known: dict[str, bool] = {}
    for line in map(str.strip, text.split("\n")):  # a label may hold what Python takes for other ends of lines
        if not line or line.startswith("#"):
            continue
        begin = _NAME.match(line)
        if begin is None:
            if not line.startswith('{"'):
                raise ValueError(f"not the text format of Prometheus ({line[:60]!r})")
            continue
        name = begin[0]
        if name not in known:
            known[name] = any(selector.is_for(name) for selector in selectors)
        if known[name]:
            series = _SERIES.match(line)  # an exemplar behind it would be read as its time
            yield line if series is None else series[0]

"""The text that targets of Prometheus expose, as series. Pure; the parsing is prometheus-client's.

Only lines of wanted metrics reach the parser, at 20 us a line: a whole page of Envoy's has some thousand. They come
without their `# TYPE`, on purpose: by it the parser would rename counters that do not end in `_total`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from rl_hooks.sources.series import Selector, Series

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def parse_text(body: bytes, selectors: Sequence[Selector], t_ns: int, more: Mapping[str, str]) -> list[Series]:
    """The series that one of `selectors` may want.

    `t_ns`: when it was asked for, the time of values that state none; `more`: labels that the target is given, where it
    has none of that name. Raises ValueError for what is no such text.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not text ({error})") from error
    wanted = "\n".join(_wanted(text, selectors))
    found: dict[tuple[str, frozenset[tuple[str, str]]], Series] = {}
    try:
        for family in text_string_to_metric_families(wanted + "\n"):
            for one in family.samples:
                key = (one.name, frozenset(one.labels.items()))
                if key in found:
                    raise ValueError(f"{one.name}{dict(one.labels)} is there twice")
                times = np.array([t_ns if one.timestamp is None else round(float(one.timestamp) * 1000) * 10**6])
                values = np.array([one.value], np.float64)
                found[key] = Series(one.name, {**more, **one.labels}, times, times, values)
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise ValueError(f"not the text format of Prometheus ({error or type(error).__name__})") from error
    return list(found.values())


def _wanted(text: str, selectors: Sequence[Selector]) -> Iterator[str]:
    """Lines of metrics that a selector may want. Raises ValueError where a line begins like none at all."""
    known: dict[str, bool] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        begin = _NAME.match(line)
        if begin is None:
            if line.strip() and not line.lstrip().startswith(('{"', "#")):
                raise ValueError(f"not the text format of Prometheus ({line[:60]!r})")
            continue
        name = begin[0]
        if name not in known:
            known[name] = any(selector.is_for(name) for selector in selectors)
        if known[name]:
            yield line

"""Which series the fields of an instance are made of: by the usual names, or by a file.

```yaml
url: http://prometheus.monitoring:9090
scrape_interval_seconds: 5
labels:
  instance: {label: pod, pattern: '(.+)'}
fields:
  in_flight: 'lb_pod_active_requests{job="balancer"}'
  memory:
    selector: 'jvm_memory_used_bytes{job="pods",area="heap"}'
    of: 'jvm_memory_max_bytes{job="pods",area="heap"}'
```

docs/sources.md has every key.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rl_hooks.control import SourceError
from rl_hooks.sources.asking import Authorization, problem_of_url
from rl_hooks.sources.series import RANGES, Field, Label, Naming, Selector, SeriesError, compiled, service_of
from scenario.errors import ScenarioError
from scenario.text import read_document

SCRAPE_INTERVAL_S = 1.0  # of text that is scraped directly: by ourselves, at every decision
STALE_INTERVALS = 3.0
_ANY_PREFIX = "(?:[a-zA-Z0-9_:]+_)?"


@dataclass(frozen=True)
class Target:
    """One place whose text is scraped, and the labels that its series get where they have none of that name."""

    url: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Reading:
    """What is read and what it means."""

    place: str  # begins messages: the file, or the URL
    url: str | None  # of a Prometheus
    targets: tuple[Target, ...]
    fields: tuple[Field, ...]
    naming: Naming
    authorization: Authorization | None
    scrape_interval_s: float | None  # None: not stated
    timeout_s: float | None

    def selectors(self) -> tuple[Selector, ...]:
        """Every selector once."""
        return tuple({one.text: one for field in self.fields for one in field.selectors}.values())


def stale_ns(scrape_interval_s: float, intervals: float = STALE_INTERVALS) -> int:
    return round(scrape_interval_s * intervals * 1e9)


# -- the usual names --------------------------------------------------------------------------------------------------


def usual_fields() -> tuple[Field, ...]:
    """Names of the balancer's contract with any prefix, of the sandbox's instances, and of Spring's; the first counts.

    A balancer's own counts stand before those of services. Spring's heap is one series per pool, of which most have no
    limit of their own (-1).
    """
    requests, active = (f'__name__=~"{_ANY_PREFIX}lb_pod_{name}"' for name in ("requests_total", "active_requests"))
    heap = '{area="heap"}'
    table: tuple[tuple[str, str, str | None], ...] = (
        ("cpu", "sandbox_instance_cpu_utilization", None),
        ("cpu", "process_cpu_usage", None),
        ("memory", "sandbox_instance_memory_utilization", None),
        ("memory", f"jvm_memory_used_bytes{heap}", f"jvm_memory_max_bytes{heap}"),
        ("health", "sandbox_instance_health", None),
        ("queue_depth", "sandbox_instance_queue_depth", None),
        ("in_flight", f"{{{active}}}", None),
        ("requests_total", f"{{{requests}}}", None),
        ("errors_total", f'{{{requests},code=~"5.."}}', None),
        ("up", "sandbox_instance_up", None),
    )
    return tuple(_field(name, selector, of) for name, selector, of in table)


def _field(name: str, selector: str, of: str | None = None, **special: Any) -> Field:
    low, high = RANGES[name]
    limit = Selector.parse(of) if of is not None else None
    return Field(name, Selector.parse(selector), limit, **{"low": low, "high": high, **special})


def usual(place: str, url: str | None, targets: tuple[Target, ...] = ()) -> Reading:
    """Read by the usual names."""
    return Reading(place, url, targets, usual_fields(), Naming(), None, None, None)


def target_of(url: str) -> Target:
    """A target without labels of its own: a pod tells nothing of itself, but the name of its host may."""
    host = url.split("://", 1)[-1].split("/", 1)[0].split(".", 1)[0].split(":", 1)[0]
    return Target(url, {"pod": host} if service_of(host) is not None else {})


# -- a file -----------------------------------------------------------------------------------------------------------


def is_url(argument: str) -> bool:
    return argument.split(":", 1)[0] in ("http", "https")


def read_file(file: str, kind: str) -> Reading:
    """Read a file for the source `kind`, prometheus or text. Raises SourceError with all that is wrong."""
    content = _load(file)
    problems: list[str] = []
    known = {"prometheus": ("url",), "text": ("targets",)}[kind] + _COMMON
    problems += [f"unknown key {key!r}; known are {', '.join(known)}" for key in content if key not in known]
    url = content.get("url")
    targets: tuple[Target, ...] = ()
    if kind == "prometheus" and (problem := problem_of_url(url)) is not None:
        problems.append(f"url: {problem}")
    if kind == "text":
        targets = _targets(content.get("targets"), problems)
    interval_s = _number(content, "scrape_interval_seconds", problems)
    if kind == "prometheus" and "scrape_interval_seconds" not in content:
        problems.append("scrape_interval_seconds: is missing; how often Prometheus scrapes, for example 5")
    intervals = _number(content, "stale_after_intervals", problems) or STALE_INTERVALS
    reading = Reading(
        place=file,
        url=url if isinstance(url, str) else None,
        targets=targets,
        fields=_fields(content.get("fields"), interval_s or SCRAPE_INTERVAL_S, intervals, problems),
        naming=_naming(content.get("labels", {}), problems),
        authorization=_authorization(content.get("authorization"), problems),
        scrape_interval_s=interval_s or (SCRAPE_INTERVAL_S if kind == "text" else None),
        timeout_s=_number(content, "timeout_seconds", problems),
    )
    if problems:
        word = "problem" if len(problems) == 1 else "problems"
        raise SourceError("\n  ".join([f"{file}: {len(problems)} {word}", *problems]))
    return reading


_COMMON = ("scrape_interval_seconds", "stale_after_intervals", "timeout_seconds", "authorization", "labels", "fields")


def _load(file: str) -> dict[str, Any]:
    try:
        content = read_document(file)
    except OSError as error:
        raise SourceError(f"{file}: cannot be read ({error.strerror}); a URL begins with http://") from error
    except ScenarioError as error:
        raise SourceError(str(error)) from error
    if not isinstance(content, dict):
        raise SourceError(f"{file}: must be a mapping with `fields`: field -> selector")
    return content


def _number(content: Mapping[str, Any], key: str, problems: list[str]) -> float | None:
    value = content.get(key)
    if value is None:
        return None
    if not _is_number(value) or value <= 0:
        problems.append(f"{key}: {value!r} is not a number above 0")
        return None
    return float(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _targets(node: Any, problems: list[str]) -> tuple[Target, ...]:
    """A list of URLs, or of mappings with url and labels."""
    if not isinstance(node, list) or not node:
        problems.append("targets: must be a list of URLs, or of mappings with `url` and `labels`")
        return ()
    found = []
    for index, one in enumerate(node):
        one = {"url": one} if isinstance(one, str) else one
        if not isinstance(one, dict) or set(one) - {"url", "labels"}:
            problems.append(f"targets[{index}]: must be a URL, or a mapping with `url` and `labels`")
            continue
        labels = one.get("labels") or {}
        if (problem := problem_of_url(one.get("url"))) is not None:
            problems.append(f"targets[{index}].url: {problem}")
        elif not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
            problems.append(f"targets[{index}].labels: must give each label a text")
        else:
            found.append(Target(one["url"], {**target_of(one["url"]).labels, **labels}))
    return tuple(found)


def _fields(node: Any, interval_s: float, intervals: float, problems: list[str]) -> tuple[Field, ...]:
    if not isinstance(node, dict) or not node:
        problems.append(f"fields: must give selectors to some of {', '.join(RANGES)}")
        return ()
    found: list[Field] = []
    for name, one in node.items():
        one = {"selector": one} if isinstance(one, str) else one
        if name not in RANGES:
            problems.append(f"fields: {name!r} is no field; known are {', '.join(RANGES)}")
        elif not isinstance(one, dict) or not isinstance(one.get("selector"), str):
            problems.append(f"fields.{name}: must be a selector, or a mapping with `selector`")
        elif unknown := sorted(map(str, set(one) - set(_OF_A_FIELD))):
            problems.append(f"fields.{name}: unknown key {unknown[0]!r}; known are {', '.join(_OF_A_FIELD)}")
        else:
            checked = [*_wrong_in(one), *([_no_counter(name)] if one.get("rate") and name.endswith("_total") else [])]
            problems += [f"fields.{name}.{text}" for text in checked]
            if not checked:
                _take(found, name, one, interval_s, intervals, problems)
    return tuple(found)


_OF_A_FIELD = ("selector", "of", "rate", "scale", "valid", "scrape_interval_seconds")


def _no_counter(name: str) -> str:
    return f"rate: {name} is a count since the start of the instance; leave rate out"


def _wrong_in(one: Mapping[str, Any]) -> list[str]:
    checks: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
        ("of", lambda value: isinstance(value, str), "must be a selector"),
        ("rate", lambda value: isinstance(value, bool), "must be true or false"),
        ("scale", lambda value: _is_number(value) and value != 0, "must be a number other than 0, for example 0.01"),
        ("valid", _is_range, "must be two numbers, the lowest and the highest, for example [0, 1]"),
        ("scrape_interval_seconds", lambda value: _is_number(value) and value > 0, "must be a number above 0"),
    )
    return [f"{key}: {one[key]!r} {text}" for key, is_right, text in checks if key in one and not is_right(one[key])]


def _is_range(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)) and value[0] <= value[1]


def _take(
    found: list[Field], name: str, one: Mapping[str, Any], interval_s: float, intervals: float, problems: list[str]
) -> None:
    low, high = RANGES[name]
    own_low, own_high = one.get("valid", (low, high))
    if not low <= own_low <= own_high <= high:
        problems.append(
            f"fields.{name}.valid: {[own_low, own_high]} reaches beyond what {name} can be, {low} to {high:g}"
        )
        return
    try:
        found.append(
            _field(
                name,
                one["selector"],
                one.get("of"),
                rate=one.get("rate", False),
                scale=float(one.get("scale", 1.0)),
                low=float(own_low),
                high=float(own_high),
                stale_ns=stale_ns(float(one.get("scrape_interval_seconds", interval_s)), intervals),
            )
        )
    except SeriesError as error:
        problems.append(f"fields.{name}: {error}")


def _naming(node: Any, problems: list[str]) -> Naming:
    usual_naming = Naming()
    if not isinstance(node, dict) or set(node) - {"service", "instance"}:
        problems.append("labels: may say which label names the `service` and which the `instance`")
        return usual_naming
    found = {}
    for name in ("service", "instance"):
        one = node.get(name)
        one = {"label": one} if isinstance(one, str) else one
        if one is None:
            found[name] = getattr(usual_naming, name)
        elif not isinstance(one, dict) or set(one) - {"label", "pattern"} or not _are_texts(one) or "label" not in one:
            problems.append(f"labels.{name}: must be a label, or a mapping with `label` and `pattern`")
        else:
            try:
                compiled(one.get("pattern", ".*"))
                found[name] = Label((one["label"],), one.get("pattern", ".*"))
            except SeriesError as error:
                problems.append(f"labels.{name}.pattern: {error}")
    return Naming(**{"service": usual_naming.service, "instance": usual_naming.instance, **found})


def _are_texts(node: Mapping[str, Any]) -> bool:
    return all(isinstance(value, str) for value in node.values())


def _authorization(node: Any, problems: list[str]) -> Authorization | None:
    if node is None:
        return None
    keys = {"header", "scheme", "environment", "file"}
    if not isinstance(node, dict) or set(node) - keys or not _are_texts(node):
        problems.append(f"authorization: may hold {', '.join(sorted(keys))}, each a text")
        return None
    if ("environment" in node) == ("file" in node):
        problems.append("authorization: needs either `environment`, the name of a variable, or `file`, a path")
        return None
    if "environment" in node and not os.environ.get(node["environment"], "").strip():
        problems.append(f"authorization.environment: {node['environment']} is not set; export it before the run")
        return None
    return Authorization(**node)

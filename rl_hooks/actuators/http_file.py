"""A file that says by which HTTP call a balancer is told what to do.

```yaml
call: POST /api/benchmark/switch?algorithm={algorithm}
algorithms:                       # our action: the balancer's name for it; what is left out it does not have
  least_loaded: least-connections
  round_robin: round-robin
```

| key | meaning |
|---|---|
| call | `METHOD URL`; a URL that begins with / is one of the balancer's root |
| algorithms | what stands for {algorithm} |
| headers | name -> text, or `$NAME` of an environment variable |
| body | sent as JSON, with places |
| expect | the statuses that mean yes; left out: 200, 201, 202, 204 |
| timeout_seconds | for one call; left out: 2 |
| repeat_seconds | what has not changed is told again after this time, for a balancer that forgets; left out: 30 |

Places are {algorithm} and {service}. Without {service} the balancer has one switch for all services.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_hooks.decision import ACTIONS
from rl_hooks.http_call import header_value, holds_login, is_call
from rl_hooks.places import places_of, texts_of
from scenario.errors import Problem, ScenarioError, show, suggestion
from scenario.text import LARGEST_BYTES, parse

PLACES = ("algorithm", "service")
KEYS = ("call", "algorithms", "headers", "body", "expect", "timeout_seconds", "repeat_seconds")
EXPECTED = (200, 201, 202, 204)
TIMEOUT_S = 2.0
REPEAT_S = 30.0

_EXAMPLE = "for example: POST /api/benchmark/switch?algorithm={algorithm}"
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")  # of a header's name


@dataclass(frozen=True)
class SwitchFile:
    """A file that was read without a problem."""

    call: str
    algorithms: Mapping[str, str]  # action -> the balancer's name
    headers: Mapping[str, str]  # with the values of the environment; for the calls only
    body: Any  # None: none
    expect: tuple[int, ...]
    timeout_s: float
    repeat_s: float

    @property
    def missing_actions(self) -> frozenset[str]:
        return frozenset(ACTIONS) - self.algorithms.keys()

    @property
    def one_for_all(self) -> bool:
        return all("service" not in places_of(text) for text in (self.call, *texts_of(self.body)))


def read_switch_file(file: str) -> SwitchFile:
    """Read a file. Raises ScenarioError with all that is wrong with it."""
    try:
        with Path(file).open("rb") as opened:
            raw = opened.read(LARGEST_BYTES + 1)
    except OSError as error:
        text = f"cannot be read ({error.strerror})"
        raise ScenarioError(file, [Problem("", text, "Name a file such as configs/actuators/spring.yaml")]) from error
    content, problems = parse(raw, file)
    if not isinstance(content, dict):
        problems.append(Problem("", "is no mapping", f"Begin with `call`, {_EXAMPLE}"))
        raise ScenarioError(file, problems)
    problems += [
        Problem(show(key)[1:-1], "is no key of such a file", suggestion(key, KEYS))
        for key in content
        if key not in KEYS
    ]
    problems += [*_of_call(content), *_of_algorithms(content.get("algorithms")), *_of_expect(content.get("expect"))]
    headers, of_headers = _headers(content.get("headers"))
    problems += of_headers
    for key in ("timeout_seconds", "repeat_seconds"):
        if key in content and not _is_positive(content[key]):
            problems.append(Problem(key, f"{show(content[key])} is no number above 0", "Give seconds, for example 2"))
    if problems:
        raise ScenarioError(file, problems)
    return SwitchFile(
        call=content["call"],
        algorithms=content["algorithms"],
        headers=headers,
        body=content.get("body"),
        expect=tuple(content.get("expect", EXPECTED)),
        timeout_s=float(content.get("timeout_seconds", TIMEOUT_S)),
        repeat_s=float(content.get("repeat_seconds", REPEAT_S)),
    )


def _of_call(content: Mapping[str, Any]) -> list[Problem]:
    call, found, used = content.get("call"), [], set()
    if holds_login(call):
        found.append(Problem("call", "holds a user or a password", "Give it as a header whose value is $NAME"))
    elif not is_call(call):
        text = "is missing" if call is None else f"{show(call)} is no call"
        found.append(Problem("call", text, f"Write METHOD URL, {_EXAMPLE}"))
    for place, template in (("call", call), ("body", content.get("body"))):
        for text in texts_of(template):
            try:
                here = places_of(text)
            except ValueError as error:
                found.append(Problem(place, f"{show(text)}: {error}", "Write {{ and }} for braces that are no place"))
                continue
            used |= here
            found += [
                Problem(place, f"{{{name}}} is no place", suggestion(name, PLACES)) for name in sorted(here - {*PLACES})
            ]
    if is_call(call) and "algorithm" not in used:
        found.append(Problem("call", "never says which algorithm", "Put {algorithm} into call or body"))
    return found


def _of_algorithms(algorithms: Any) -> list[Problem]:
    place = "algorithms"
    if not isinstance(algorithms, dict) or not algorithms:
        return [Problem(place, "must map our actions to the balancer's names", "Write for example least_loaded: lc")]
    found = [
        Problem(f"{place}.{show(name)[1:-1]}", "is none of our actions", suggestion(name, ACTIONS))
        for name in algorithms
        if name not in ACTIONS
    ]
    first: dict[str, str] = {}
    for name, value in algorithms.items():
        if not isinstance(value, str) or not value:
            found.append(Problem(f"{place}.{name}", f"{show(value)} is no name", "Write the balancer's name as text"))
        elif value in first:
            text = f"{show(value)} is {first[value]} already"
            found.append(Problem(f"{place}.{name}", text, "Leave one out: two names for one thing teach nothing"))
        else:
            first[value] = name
    if len(algorithms) == 1:
        found.append(Problem(place, "one action leaves nothing to decide", "Name at least two"))
    return found


def _of_expect(expect: Any) -> list[Problem]:
    if expect is None:
        return []
    statuses = expect if isinstance(expect, list) else []
    if statuses and all(type(status) is int and 100 <= status <= 599 for status in statuses):
        return []
    return [Problem("expect", f"{show(expect)} is no list of statuses", "Write for example [200, 204]")]


def _headers(headers: Any) -> tuple[dict[str, str], list[Problem]]:
    if headers is None:
        return {}, []
    if not isinstance(headers, dict):
        return {}, [Problem("headers", "must give each name a text", "Write for example Authorization: $LB_TOKEN")]
    values, found = {}, []
    for name, text in headers.items():
        place = f"headers.{show(name)[1:-1]}"
        if not name or not set(name.lower()) <= _TOKEN:
            found.append(Problem(place, "is no name of a header", "Use letters, digits and hyphens"))
        elif not isinstance(text, str):
            found.append(Problem(place, "must be a text", "Put it into quotes, or write $NAME of a variable"))
        else:
            try:
                values[name] = header_value(text)
            except ValueError as error:
                what, _, way_out = str(error).partition("; ")
                found.append(Problem(place, what, way_out[:1].upper() + way_out[1:]))
    return values, found


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf

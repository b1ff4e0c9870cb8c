"""Faults by HTTP calls that a file of templates describes (`rl_hooks.faults.template`).

A call is `METHOD URL`. A URL that begins with / is one of the target's root. `headers` go with every call; a header
whose value is `$NAME` takes it from the environment, so that no secret stands in a file.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import requests

from rl_hooks.faults.injector import InjectorError
from rl_hooks.faults.template import Way, fill, fill_json, read_templates
from scenario.faults import PlanFault

_CALL = re.compile(r"(GET|POST|PUT|PATCH|DELETE) (https?://\S+|/\S*)")


class HttpInjector:
    def __init__(self, root: str, file: str) -> None:
        self._root = root
        self._templates = read_templates(file, _check_call)
        self._headers = {name: _from_environment(file, name, value) for name, value in self._templates.headers.items()}

    def describe(self) -> str:
        return f"http:{self._templates.file}"

    def problems(self, faults: Sequence[PlanFault]) -> list[str]:
        return self._templates.problems(faults)

    def apply(self, fault: PlanFault) -> str:
        way = self._templates.ways[fault.kind]
        return ",".join(self._begin(way, fault, instance) for instance in fault.instances or ("",))

    def lift(self, fault: PlanFault, handle: str) -> None:
        way = self._templates.ways[fault.kind]
        for instance, one in zip(fault.instances or ("",), handle.split(","), strict=True):
            self._call(way.lift, self._templates.values(fault, instance, one), None)

    def _begin(self, way: Way, fault: PlanFault, instance: str) -> str:
        answer = self._call(way.apply, self._templates.values(fault, instance), way.body)
        if way.handle is None:
            return ""
        try:
            return str(answer.json()[way.handle])
        except (ValueError, KeyError, TypeError) as error:
            raise InjectorError(f"{answer.url}: the answer has no {way.handle}: {answer.text[:200]}") from error

    def _call(self, template: str, values: Mapping[str, str], body: Any) -> requests.Response:
        method, url = template.split(" ", 1)
        filled = fill(url, {name: quote(value, safe="") for name, value in values.items()})
        where = f"{self._root}{filled}" if filled.startswith("/") else filled
        try:
            answer = requests.request(
                method, where, json=fill_json(body, values), headers=self._headers, timeout=self._templates.timeout_s
            )
        except requests.RequestException as error:
            raise InjectorError(f"{method} {where}: {error}") from error
        if not answer.ok:
            raise InjectorError(f"{method} {where}: answered {answer.status_code} {answer.text[:200]}")
        return answer


def _check_call(call: Any) -> str | None:
    if isinstance(call, str) and _CALL.fullmatch(call):
        return None
    return f"{call!r} is no call; write for example: POST /api/degradation/latency/start?delayMs={{delay_ms}}"


def _from_environment(file: str, name: str, value: str) -> str:
    if not value.startswith("$"):
        return value
    found = os.environ.get(value[1:])
    if found is None:
        raise InjectorError(f"{file}: headers.{name} is {value}, but there is no such environment variable; set it")
    return found

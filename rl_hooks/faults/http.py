"""Faults by HTTP calls (`rl_hooks.http_call`) that a file of templates describes (`rl_hooks.faults.template`).

`headers` go with every call.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import requests

from rl_hooks.faults.injector import InjectorError
from rl_hooks.faults.template import Way, fill_json, read_templates
from rl_hooks.http_call import (
    Answer,
    CallError,
    address_of,
    answered,
    header_value,
    holds_login,
    is_call,
    readable,
    send,
)
from scenario.faults import PlanFault


class HttpInjector:
    def __init__(self, root: str, file: str) -> None:
        self._root = root
        self._templates = read_templates(file, _check_call)
        self._headers = {name: _header(file, name, value) for name, value in self._templates.headers.items()}

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
            return str(json.loads(answer.text)[way.handle])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InjectorError(f"{way.apply}: the answer has no {way.handle}: {readable(answer.text)}") from error

    def _call(self, template: str, values: Mapping[str, str], body: Any) -> Answer:
        method, url = address_of(self._root, template, values)
        shown, about = f"{method} {url}", {"json": fill_json(body, values), "headers": self._headers}
        try:
            with requests.Session() as session:
                answer = send(session, method, url, self._templates.timeout_s, shown, **about)
            if answer.status // 100 != 2:
                raise answered(shown, answer)
        except CallError as error:
            raise InjectorError(str(error)) from error
        return answer


def _check_call(call: Any) -> str | None:
    if holds_login(call):
        return "holds a user or a password; give it as a header whose value is $NAME of an environment variable"
    if is_call(call):
        return None
    return f"{call!r} is no call; write for example: POST /api/degradation/latency/start?delayMs={{delay_ms}}"


def _header(file: str, name: str, text: str) -> str:
    try:
        return header_value(text)
    except ValueError as error:
        raise InjectorError(f"{file}: headers.{name} {error}") from error

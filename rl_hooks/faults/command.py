"""Faults by commands that a file of templates describes (`rl_hooks.faults.template`).

A command is a list: the program and its arguments, each with places. No shell reads it. What `apply` prints in its
first line is the {handle} of `lift`.
"""

import subprocess
from collections.abc import Sequence
from typing import Any

from rl_hooks.faults.injector import InjectorError
from rl_hooks.faults.template import read_templates
from rl_hooks.places import fill
from scenario.faults import PlanFault


class CommandInjector:
    def __init__(self, root: str, file: str) -> None:
        del root  # the interface of all injectors; a command knows by itself where to go
        self._templates = read_templates(file, _check_call)

    def describe(self) -> str:
        return f"command:{self._templates.file}"

    def problems(self, faults: Sequence[PlanFault]) -> list[str]:
        return self._templates.problems(faults)

    def apply(self, fault: PlanFault) -> str:
        way = self._templates.ways[fault.kind]
        instances = fault.instances or ("",)
        return "\n".join(self._run(way.apply, self._templates.values(fault, instance)) for instance in instances)

    def lift(self, fault: PlanFault, handle: str) -> None:
        way = self._templates.ways[fault.kind]
        for instance, one in zip(fault.instances or ("",), handle.split("\n"), strict=True):
            self._run(way.lift, self._templates.values(fault, instance, one))

    def _run(self, template: list[str], values: dict[str, str]) -> str:
        command = fill(template, values)
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=self._templates.timeout_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InjectorError(f"{' '.join(command)}: {error}") from error
        if done.returncode != 0:
            raise InjectorError(f"{' '.join(command)}: ended with {done.returncode}: {done.stderr.strip()[:200]}")
        return done.stdout.strip().split("\n")[0]


def _check_call(call: Any) -> str | None:
    if isinstance(call, list) and call and all(isinstance(part, str) for part in call):
        return None
    return f"{call!r} is no command; write a list such as [kubectl, apply, -f, 'faults/{{service}}.yaml']"

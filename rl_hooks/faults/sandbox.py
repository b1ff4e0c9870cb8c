"""Faults in the embedded sandbox, by its control API."""

from collections.abc import Sequence
from typing import Any

import requests

from rl_hooks.faults.injector import InjectorError
from scenario.faults import PlanFault

TIMEOUT_S = 2.0
SPARE_S = 30.0
"""The sandbox lifts a fault by itself so long after its planned end, should nobody be left to do it."""


class SandboxInjector:
    def __init__(self, root: str) -> None:
        self._url = f"{root}/control/faults"
        self._services_url = f"{root}/api/services"

    def describe(self) -> str:
        return "sandbox"

    def problems(self, faults: Sequence[PlanFault]) -> list[str]:
        """Instances that a fault names and the sandbox does not have."""
        named = {(fault.service, name) for fault in faults for name in fault.instances}
        if not named:
            return []
        services = self._ask("GET", self._services_url).json()
        there = {(one["name"], instance["instanceName"]) for one in services for instance in one["instances"]}
        return [
            f"{service} has no instance {name}; there are {', '.join(sorted(n for s, n in there if s == service))}"
            for service, name in sorted(named - there)
        ]

    def apply(self, fault: PlanFault) -> str:
        wanted: dict[str, Any] = {
            "service": fault.service,
            "kind": fault.kind,
            "duration_s": fault.duration_s + SPARE_S,
        }
        if fault.value is not None:
            wanted["value"] = fault.value
        targets: Sequence[dict[str, str]] = [{"instance": name} for name in fault.instances] or [{}]
        return ",".join(self._ask("POST", self._url, {**wanted, **target}).json()["id"] for target in targets)

    def lift(self, fault: PlanFault, handle: str) -> None:
        for fault_id in handle.split(","):
            self._ask("DELETE", f"{self._url}/{fault_id}", gone_is_fine=True)

    def _ask(
        self, method: str, url: str, body: dict[str, Any] | None = None, *, gone_is_fine: bool = False
    ) -> requests.Response:
        try:
            answer = requests.request(method, url, json=body, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            raise InjectorError(f"{method} {url}: {error}") from error
        if not answer.ok and not (gone_is_fine and answer.status_code == 404):
            raise InjectorError(f"{method} {url}: answered {answer.status_code} {answer.text[:200]}")
        return answer

"""Faults for tests, all facts defaulted."""

from typing import Any

from scenario.faults import PlanFault


def fault(index: int = 0, **special: Any) -> PlanFault:
    facts: dict[str, Any] = {
        "phase": "morning",
        "service": "cart-service",
        "kind": "latency",
        "value": 5.0,
        "instances": (),
        "start_s": 0.0,
        "end_s": 60.0,
        **special,
    }
    value = "" if facts["value"] is None else f" {facts['value']:g}"
    return PlanFault(index=index, text=f"{facts['service']} {facts['kind']}{value}", **facts)

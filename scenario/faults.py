"""A fault of a plan: what the running parts, the fault agent and the data know of it.

In a file of its own, because the agent needs nothing else of a plan.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class PlanFault:
    """Something that goes wrong inside a service for a while; real seconds from the start of the run."""

    index: int  # position in the plan
    phase: str
    service: str
    kind: str  # a value of scenario.model.FAULT_KINDS
    value: float | None  # factor, rate or share; None for a crash
    instances: tuple[str, ...]  # empty: all instances of the service
    start_s: float
    end_s: float
    text: str  # what it is, for people and for the data

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "PlanFault":
        return PlanFault(**{**data, "instances": tuple(data["instances"])})

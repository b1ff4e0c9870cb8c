"""Which faults have to begin and to end when. Pure: times in, changes out.

fault 0        |=======|            applied at 60, lifted at 120
fault 1             |=======|       applied at 84, lifted at 140
changes       +0   +1  -0   -1
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scenario.faults import PlanFault

APPLIED, LIFTED, NOT_APPLIED, NOT_LIFTED = "applied", "lifted", "not_applied", "not_lifted"


@dataclass(frozen=True, slots=True)
class Change:
    """A fault begins or ends."""

    at_s: float
    begins: bool
    fault: PlanFault


def changes(faults: Iterable[PlanFault]) -> list[Change]:
    """All changes in order of time; at one moment what ends comes before what begins."""
    both = [Change(at_s, begins, fault) for fault in faults for at_s, begins in _ends(fault)]
    return sorted(both, key=lambda change: (change.at_s, change.begins, change.fault.index))


def in_force(events: Iterable[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """Fault index -> its `applied` event, of the faults that were applied and not lifted, by the events of a run."""
    found: dict[int, Mapping[str, Any]] = {}
    for event in events:
        if event.get("kind") != "fault":
            continue
        if event["what"] == APPLIED:
            found[event["fault"]] = event
        elif event["what"] == LIFTED:
            found.pop(event["fault"], None)
    return found


def _ends(fault: PlanFault) -> Sequence[tuple[float, bool]]:
    return (fault.start_s, True), (fault.end_s, False)

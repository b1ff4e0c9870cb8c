"""Which faults act in a run at the moment, as its fault agent has written it down."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rl_hooks.faults.schedule import NOT_APPLIED, NOT_LIFTED, in_force
from scenario.faults import PlanFault

ROLE = "faults"  # of an agent, with which the names of its files begin


def acting(events: Iterable[Mapping[str, Any]], faults: Iterable[PlanFault]) -> tuple[list[str], list[str]]:
    """The faults in force by the events of a run, and what could not be applied or lifted, as texts."""
    events = [event for event in events if event.get("kind") == "fault"]
    texts = {fault.index: fault.text for fault in faults}
    now = [texts[index] for index in sorted(in_force(events)) if index in texts]
    failed = [
        f"{texts[event['fault']]}: could not be {'applied' if event['what'] == NOT_APPLIED else 'lifted'}"
        for event in events
        if event["what"] in (NOT_APPLIED, NOT_LIFTED) and event["fault"] in texts
    ]
    return now, failed


def agent_events(folder: Path) -> Iterator[Mapping[str, Any]]:
    """What every fault agent of a run has written, in that order; a last line without its end is being written."""
    for file in sorted((folder / "events").glob(f"{ROLE}.*.jsonl")):
        *whole, _cut = file.read_bytes().split(b"\n")
        yield from (json.loads(line) for line in whole)

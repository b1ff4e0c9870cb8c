"""Faults of the scenario: applied and lifted when the plan says so, or not."""

from collections.abc import Mapping
from typing import Any

from rl_hooks.export.verify.line import Line, Verdict, met_if
from rl_hooks.export.verify.load import planned_faults
from rl_hooks.export.verify.shoppers import origin_ns
from rl_hooks.run_reader import Run

LATE_S = 2.0  # real; the injector is asked about once a second

Facts = Mapping[str, Any]


def fault_lines(run: Run) -> list[Line]:
    """One line per planned fault, one for the faults of a run that was told to leave them out; else none."""
    plan = run.manifest["plan"]
    if plan.get("without_faults"):
        return [Line("faults", "", "left out", "left out", "--no-faults", Verdict.TOLD)]
    events = [event for event in run.events if event["kind"] == "fault"]
    injector = (run.manifest.get("faults") or {}).get("injector", "unknown")
    return [_fault_line(run, fault, events, str(injector)) for fault in planned_faults(run)]


def _fault_line(run: Run, fault: Facts, events: list[Facts], injector: str) -> Line:
    mine = [event for event in events if event["fault"] == fault["index"]]
    changes = (("applied", fault["start_s"]), ("lifted", fault["end_s"]))
    found = [_change(run, mine, what, planned_s) for what, planned_s in changes]
    planned = f"applied at {fault['start_s']:g} s, lifted at {fault['end_s']:g} s"
    actual = ", ".join(text for text, _ in found) + f" (injector {injector})"
    where = f"{fault['phase']}, {fault['service']}: {_kind(fault)}"
    return Line("fault", where, planned, actual, f"within {LATE_S:g} s", met_if(all(fits for _, fits in found)))


def _change(run: Run, events: list[Facts], what: str, planned_s: float) -> tuple[str, bool]:
    """What became of one change of a fault, and whether it was in time."""
    done = next((event for event in events if event["what"] == what), None)
    if done is not None:
        off_s = (done["t_ns"] - origin_ns(run)) / 1e9 - planned_s
        return f"{what} {off_s:+.1f} s", abs(off_s) <= LATE_S
    refused = next((event for event in events if event["what"] == f"not_{what}"), None)
    why = f": {refused['why']}" if refused is not None and refused.get("why") else ""
    return f"not {what}{why}", False


def _kind(fault: Facts) -> str:
    value = fault.get("value")
    return str(fault["kind"]) if value is None else f"{fault['kind']} {value:g}"

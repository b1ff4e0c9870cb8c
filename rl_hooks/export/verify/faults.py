"""Faults of the scenario: applied and lifted when the plan says so, or not."""

from collections.abc import Mapping
from typing import Any

from rl_hooks.export.align import plan_start_ns
from rl_hooks.export.verify.line import Line, Verdict, met_if
from rl_hooks.faults.schedule import APPLIED, LIFTED, NOT_APPLIED, NOT_LIFTED
from rl_hooks.run_reader import Run
from scenario.faults import PlanFault
from scenario.plan import Plan

LATE_S = 2.0  # real

Facts = Mapping[str, Any]


def fault_lines(run: Run, plan: Plan) -> list[Line]:
    """One line per planned fault, one for the faults of a run that was told to leave them out; else none."""
    if plan.without_faults:
        return [Line("faults", "", "left out", "left out", "--no-faults", Verdict.TOLD)]
    events = [event for event in run.events if event["kind"] == "fault"]
    injector = (run.manifest.get("faults") or {}).get("injector", "unknown")
    return [_fault_line(run, fault, events, str(injector)) for fault in plan.faults]


def _fault_line(run: Run, fault: PlanFault, events: list[Facts], injector: str) -> Line:
    mine = [event for event in events if event["fault"] == fault.index]
    found = [
        _change(run, mine, APPLIED, NOT_APPLIED, fault.start_s),
        _change(run, mine, LIFTED, NOT_LIFTED, fault.end_s),
    ]
    planned = f"applied at {fault.start_s:g} s, lifted at {fault.end_s:g} s"
    actual = ", ".join(text for text, _ in found) + f" (injector {injector})"
    where, verdict = f"{fault.phase}, {fault.text}", met_if(all(fits for _, fits in found))
    return Line("fault", where, planned, actual, f"within {LATE_S:g} s", verdict)


def _change(run: Run, events: list[Facts], what: str, not_what: str, planned_s: float) -> tuple[str, bool]:
    """What became of one change of a fault, and whether it was in time."""
    done = next((event for event in events if event["what"] == what), None)
    if done is not None:
        off_s = (done["t_ns"] - plan_start_ns(run)) / 1e9 - planned_s
        return f"{what} {off_s:+.1f} s", abs(off_s) <= LATE_S
    refused = next((event for event in events if event["what"] == not_what), None)
    why = f": {refused['why']}" if refused is not None and refused.get("why") else ""
    return f"not {what}{why}", False

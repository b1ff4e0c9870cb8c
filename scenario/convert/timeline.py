"""When the phases of an old scenario are, and in which of them its faults fall.

Phases follow each other in the new file. Where an old file has gaps or overlaps, its durations hold and the starts are
rewritten; faults stay at the same minute of their phase.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from scenario.convert.faults import Timed
from scenario.convert.phases import Phase
from scenario.convert.report import Report, at, said
from scenario.convert.values import Number, tidy

_TOLERANCE_MIN = 1e-6


@dataclass(frozen=True, slots=True)
class Slot:
    """A phase on the timeline."""

    phase: Phase
    old_start_min: float  # where the old file has it
    old_end_min: float  # until the next one starts there
    start_min: Number
    duration_min: Number


def arrange(phases: Sequence[Phase], total_min: Number | None, report: Report) -> list[Slot]:
    """The phases in order of their start, without gap or overlap. Empty when a duration cannot be known."""
    phases = [_own_duration(phase, report) for phase in phases]
    phases = _in_order(phases, report)
    phases = _missing_durations(phases, total_min, report)
    slots: list[Slot] = []
    now: Number = 0
    old_end = 0.0
    for phase in phases:
        if phase.duration_min is None:
            return []
        old_start = old_end if phase.start_min is None else phase.start_min
        start = phase.start_min
        if start is not None and abs(start - now) > _TOLERANCE_MIN:
            what = "a gap" if start > now else "an overlap"
            size = said(tidy(abs(start - now)))
            reason = f"{what} of {size} min in all before it; phases follow each other and keep their durations"
            report.note(phase.start_place, said(start), f"start_minute {said(now)}", reason)
            start = now
        old_end = old_start + phase.duration_min
        slots.append(Slot(phase, old_start, old_end, now if start is None else start, phase.duration_min))
        now = tidy(now + phase.duration_min)
    return [_until_next(slot, after) for slot, after in itertools.pairwise(slots)] + slots[-1:]


def _until_next(slot: Slot, after: Slot) -> Slot:
    """A phase of the old file that ends, at the latest, where the next one starts."""
    if after.old_start_min <= slot.old_start_min:
        return slot
    return replace(slot, old_end_min=min(slot.old_end_min, after.old_start_min))


def _own_duration(phase: Phase, report: Report) -> Phase:
    """The duration of a phase that has an end."""
    start, end = phase.start_min, phase.end_min
    if end is None:
        return phase
    place = at(phase.part.place, "end_minute")
    if phase.duration_min is not None:
        reason = "duration_minutes says it"
        if start is not None and abs(start + phase.duration_min - end) > _TOLERANCE_MIN:
            reason = f"duration_minutes {said(phase.duration_min)} decides, although the end says something else"
        report.dropped(place, end, reason)
        return phase
    if start is None:
        return phase
    if end <= start:
        report.refuse(place, f"is {said(end)}, not after the start {said(start)}", "Write duration_minutes")
        return phase
    return phase.lasting(tidy(end - start))


def _in_order(phases: list[Phase], report: Report) -> list[Phase]:
    if any(phase.start_min is None for phase in phases):
        return phases
    ordered = sorted(phases, key=lambda phase: phase.start_min or 0)
    if ordered != phases:
        first = next(phase for phase, then in zip(phases, ordered, strict=True) if phase is not then)
        names = ", ".join(phase.name for phase in ordered)
        report.note(
            first.start_place, said(first.start_min), f"the order {names}", "phases are written in order of their start"
        )
    return ordered


def _missing_durations(phases: list[Phase], total_min: Number | None, report: Report) -> list[Phase]:
    """A duration that is not said: until the next start, or what is left of the whole."""
    out = list(phases)
    missing = [index for index, phase in enumerate(phases) if phase.duration_min is None]
    for index in missing:
        phase = phases[index]
        start, after = phase.start_min, phases[index + 1].start_min if index + 1 < len(phases) else total_min
        known = sum(other.duration_min or 0 for other in phases)
        duration: Any = None
        if start is not None and after is not None:
            duration, reason = after - start, "until the next one starts, or the scenario ends"
        elif len(missing) == 1 and total_min is not None:
            duration, reason = total_min - known, f"what the others leave of {said(total_min)} minutes"
        if duration is not None and duration > 0:
            out[index] = phase.lasting(tidy(duration))
            report.filled(at(phase.part.place, "duration_minutes"), said(tidy(duration)), reason)
        else:
            report.refuse(phase.part.place, "does not say how long it lasts", "Add duration_minutes")
    return out


# Faults


def place_faults(slots: list[Slot], timed: list[Timed], report: Report) -> list[list[dict[str, Any]]]:
    """The failure_timeline of each phase: of its own entries and of those of the scenario (`timed`)."""
    lists: list[list[dict[str, Any]]] = [[] for _ in slots]
    for index, slot in enumerate(slots):
        for fault in slot.phase.part.timed:
            lists[index] += _in_phase(fault, slot, report)
    end = max((slot.old_end_min for slot in slots), default=0.0)
    for fault in timed:
        fault_end = end if fault.duration_min is None else fault.start_min + fault.duration_min
        told = []
        for index, slot in enumerate(slots):
            start, stop = max(fault.start_min, slot.old_start_min), min(fault_end, slot.old_end_min)
            if stop - start > _TOLERANCE_MIN:
                entries = fault.entries(start - slot.old_start_min, stop - start)
                lists[index] += entries
                told.append(f"{slot.phase.name}.failure_timeline {said(entries)}")
        if not told:
            report.refuse(
                fault.place, f"begins at minute {said(tidy(fault.start_min))}, where no phase is", "Correct its minute"
            )
            continue
        reason = "minutes count from the start of the phase"
        reason += "; it lasts until the end" if fault.duration_min is None else ""
        reason += (
            f"; cut at minute {said(tidy(end))}, where the scenario ends" if fault_end > end + _TOLERANCE_MIN else ""
        )
        report.note(fault.place, said(fault.raw), "; ".join(told), reason)
    return lists


def _in_phase(fault: Timed, slot: Slot, report: Report) -> list[dict[str, Any]]:
    """An entry in its phase: its minutes count from there, or, when that cannot be, from the scenario's start."""
    start, reasons = fault.start_min, []
    if start >= slot.duration_min and slot.old_start_min <= start < slot.old_end_min:
        start -= slot.old_start_min
        reasons.append("the minute counted from the start of the scenario")
    if start >= slot.duration_min:
        text = f"begins at minute {said(tidy(start))} of a phase of {said(slot.duration_min)} minutes"
        report.refuse(fault.place, text, "Correct its minute; it counts from the start of the phase")
        return []
    lasts = slot.duration_min - start if fault.duration_min is None else fault.duration_min
    if fault.duration_min is None:
        reasons.append("it lasts until the end of the phase")
    if start + lasts > slot.duration_min + _TOLERANCE_MIN:
        lasts = slot.duration_min - start
        reasons.append("cut where the phase ends")
    entries = fault.entries(start, lasts)
    if entries != [fault.raw]:
        reason = "; ".join(reasons) or "conditions as numbers, by service"
        report.note(fault.place, said(fault.raw), f"failure_timeline {said(entries)}", reason)
    return entries

"""Faults as they really were, and how long a service took to be as it had been before each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rl_hooks.decision import SERVICE_INDEX
from rl_hooks.report.evidence import Array, Floats, Recorded
from rl_hooks.report.thresholds import Thresholds
from scenario.errors import number

_LEAST_REQUESTS = 5  # in a point; fewer say nothing about a p95
_LEAST_POINTS = 3  # before the fault
_MOST_POINTS = 20
_TOGETHER_S = 0.5


@dataclass(frozen=True)
class FaultSpan:
    """One fault as it was applied. Times in seconds of the plan."""

    run_id: str
    service: str
    kind: str
    value: float | None
    phase: str
    start_s: float
    end_s: float | None  # None: nobody said that it was lifted

    @property
    def text(self) -> str:
        value = "" if self.value is None else f" {number(self.value)}"
        return f"{self.kind}{value} on {self.service} at {self.start_s:.0f} s"


@dataclass(frozen=True)
class Recovery:
    """`seconds` from the end of the fault until p95 and error rate were in the band; None with the reason why not."""

    fault: FaultSpan
    seconds: float | None
    why: str
    late: bool  # there was time to recover, and the service did not

    def to_json(self) -> dict[str, Any]:
        fault = self.fault
        return {
            "run_id": fault.run_id,
            "service": fault.service,
            "kind": fault.kind,
            "phase": fault.phase,
            "start_s": fault.start_s,
            "end_s": fault.end_s,
            "recovered_after_s": self.seconds,
            "why_not": self.why or None,
        }


def fault_spans(recorded: Recorded) -> list[FaultSpan]:
    """The faults that were applied, in order of their start."""
    open_: dict[Any, tuple[Mapping[str, Any], float]] = {}
    found: list[FaultSpan] = []
    for event in recorded.events("fault"):
        key = event.get("fault")
        if event.get("what") == "applied":
            open_.setdefault(key, (event, recorded.at_s(event)))
        elif event.get("what") == "lifted" and key in open_:
            found.append(_span(recorded, *open_.pop(key), recorded.at_s(event)))
    found += [_span(recorded, event, start_s, None) for event, start_s in open_.values()]
    return sorted(found, key=lambda span: (span.start_s, span.service, span.kind))


def _span(recorded: Recorded, event: Mapping[str, Any], start_s: float, end_s: float | None) -> FaultSpan:
    value = event.get("value")
    return FaultSpan(
        run_id=recorded.run_id,
        service=str(event.get("service", "")),
        kind=str(event.get("fault_kind", "fault")),
        value=float(value) if isinstance(value, int | float) else None,
        phase=str(event.get("phase", "")),
        start_s=start_s,
        end_s=end_s,
    )


def recoveries(recorded: Recorded, limits: Thresholds) -> list[Recovery]:
    """How every fault of a run ended."""
    spans = fault_spans(recorded)
    point_s = max(1.0, limits.recovery_intervals * recorded.plan.decision_interval_s)
    requests = recorded.run.requests
    t_s = (requests["start_ns"].astype(np.int64) - recorded.start_ns) / 1e9
    return [_recovery(recorded, span, spans, requests, t_s, point_s) for span in spans]


def _recovery(
    recorded: Recorded, span: FaultSpan, spans: list[FaultSpan], requests: Array, t_s: Floats, point_s: float
) -> Recovery:
    plan = recorded.plan
    if span.service not in SERVICE_INDEX:
        return Recovery(span, None, "of no service that is known", False)
    if span.end_s is None:
        return Recovery(span, None, "nobody said that it was lifted", False)
    others = [other for other in spans if other.service == span.service and other is not span]
    # One that lasts as long as its phase is over in the next; what is left of its own is no time to recover.
    phase = plan.phase_at(span.end_s + 2 * point_s)
    ends = [other.start_s for other in others if other.start_s > span.end_s]
    until_s = min([phase.end_s if phase is not None else span.end_s, *ends])
    if until_s - span.end_s < 2 * point_s or any(_acts(other, span.end_s) for other in others):
        return Recovery(span, None, "the run or another fault left no time to recover", False)
    mine = requests["service"] == SERVICE_INDEX[span.service]
    rows, at_s = requests[mine], t_s[mine]
    band = _before(rows, at_s, span, others, point_s)
    if len(band) < _LEAST_POINTS:
        return Recovery(span, None, "too little lies before it to compare with", False)
    after = _points(rows, at_s, span.end_s, until_s, point_s)
    within = (after <= band.max(axis=0)).all(axis=1)  # False where there were too few requests
    lasting = np.flatnonzero(within[:-1] & within[1:])
    if len(lasting):
        return Recovery(span, float(lasting[0] * point_s), "", False)
    before, now = (sum(plan.mix_at(moment).values()) for moment in (span.start_s - point_s, until_s - point_s))
    if now > before:
        return Recovery(span, None, f"not back in the band before it, but with {now} users and not {before}", False)
    return Recovery(span, None, "not back in the band before its phase ended", True)


def _before(rows: Array, at_s: Floats, span: FaultSpan, others: list[FaultSpan], point_s: float) -> Floats:
    """The last points before the fault that no other fault of the service touches, (points, 2)."""
    points = min(_MOST_POINTS, int(span.start_s // point_s))
    starts_s = span.start_s - (points - np.arange(points)) * point_s
    disturbed = np.zeros(points, bool)
    for other in others:
        ended_s = other.end_s if other.end_s is not None else np.inf
        disturbed |= (starts_s < ended_s) & (starts_s + point_s > other.start_s)
    before = _points(rows, at_s, span.start_s - points * point_s, span.start_s, point_s)
    kept: Floats = before[~disturbed & ~np.isnan(before[:, 0])]
    return kept


def _acts(fault: FaultSpan, t_s: float) -> bool:
    """Whether it acts at `t_s`; two faults that are lifted together are lifted within a fraction of a second."""
    return fault.start_s <= t_s and (fault.end_s is None or fault.end_s > t_s + _TOGETHER_S)


def _points(rows: Array, at_s: Floats, start_s: float, end_s: float, point_s: float) -> Floats:
    """(points, 2): p95 of the response time in ms and error rate; NaN with too few requests."""
    points = max(0, int((end_s - start_s + 1e-9) // point_s))
    place = np.floor((at_s - start_s) / point_s).astype(np.int64)
    values = np.full((points, 2), np.nan)
    for point in range(points):
        mine = rows[place == point]
        if len(mine) >= _LEAST_REQUESTS:
            values[point] = np.quantile(mine["duration_us"], 0.95) / 1000, (mine["ok"] == 0).mean()
    return values

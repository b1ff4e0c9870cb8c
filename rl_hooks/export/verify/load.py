"""Requests against the plan's expectation, how many succeeded, and how hard each service was pressed.

Expected requests and stress are informative: shoppers wait for their answers (closed loop), so a slow system gets fewer
requests than planned, and what an author expects of a service is no promise of this program.
"""

from typing import Any

import numpy as np

from rl_hooks.decision import SERVICES
from rl_hooks.export.align import plan_start_ns
from rl_hooks.export.verify.line import Line, Verdict, met_if, percent
from rl_hooks.export.verify.timeline import settling_s
from rl_hooks.run_reader import Run
from scenario.model import LEVELS
from scenario.plan import Plan, PlanPhase

RATE_TOLERANCE = 0.2
FEWEST_EXPECTED = 50  # requests; fewer say nothing within the tolerance
LEAST_OK = 0.98
# A level is the first whose bound is not reached; the worse of the two decides.
P95_BOUNDS = (0.25, 0.5, 1.0, 2.0, 4.0)  # p95 of the response time over the service's SLO
ERROR_BOUNDS = (0.001, 0.005, 0.02, 0.1, 0.3)  # share of failed requests


def load_lines(run: Run, plan: Plan) -> list[Line]:
    start_s = (run.requests["start_ns"] - plan_start_ns(run)) / 1e9
    lines = [_success(run, plan)]
    for phase in plan.phases:
        begin_s = min(phase.start_s + _ramp_s(plan, phase) + settling_s(run), phase.end_s)
        steady = run.requests[(start_s >= begin_s) & (start_s < phase.end_s)]
        lines += _rate_lines(plan, phase, steady, phase.end_s - begin_s)
        whole = run.requests[(start_s >= phase.start_s) & (start_s < phase.end_s)]
        lines += _stress_lines(plan, phase, whole)
    return lines


def _success(run: Run, plan: Plan) -> Line:
    total, ok = len(run.requests), int((run.requests["ok"] == 1).sum())
    if not total:
        return Line("success rate", "", "100 %", "no request", "", Verdict.MISSED)
    actual = f"{100 * ok / total:.2f} % of {total} requests"
    if plan.faults:
        return Line("success rate", "", "100 %", actual, "the scenario has faults", Verdict.TOLD)
    return Line("success rate", "", "100 %", actual, f"at least {percent(LEAST_OK)}", met_if(ok >= LEAST_OK * total))


def _ramp_s(plan: Plan, phase: PlanPhase) -> float:
    """How long the users take to change at the start of the phase."""
    first = plan.segment_at(phase.start_s)
    return 0.0 if first is None else first.ramp_s


def _rate_lines(plan: Plan, phase: PlanPhase, rows: Any, seconds: float) -> list[Line]:
    """First tries in the phase without its ramp, because the expectation is of the full mix without retries."""
    expected = plan.expected_service_rps(phase)
    lines = []
    for index, service in enumerate(SERVICES):
        sent = int(((rows["service"] == index) & (rows["attempt"] == 1)).sum())
        wanted = expected[service] * seconds
        if wanted < FEWEST_EXPECTED:
            actual, allowed = f"{sent} requests, {wanted:.0f} expected", "too few to compare"
        else:
            ratio = sent / wanted
            actual = f"{sent / seconds:.2f}/s, ratio {ratio:.2f}"
            low, high = 1 - RATE_TOLERANCE, 1 + RATE_TOLERANCE
            allowed = f"{'inside' if low <= ratio <= high else 'OUTSIDE'} {low:g} to {high:g}"
        planned = f"{expected[service]:.2f}/s"
        lines.append(Line("requests", f"{phase.name}, {service}", planned, actual, allowed, Verdict.TOLD))
    return lines


def _stress_lines(plan: Plan, phase: PlanPhase, rows: Any) -> list[Line]:
    """What the author expects of a service in this phase against what was measured."""
    lines = []
    for service, level in plan.scenario.phases[phase.index].expected_service_stress.items():
        mine = rows[rows["service"] == SERVICES.index(service)]
        actual, allowed = "no request", ""
        if len(mine):
            p95_ms = float(np.quantile(mine["duration_us"], 0.95)) / 1000
            errors = float((mine["ok"] == 0).mean())
            measured = stress_level(p95_ms / plan.slo_ms[service], errors)
            actual = f"{measured}: p95 {p95_ms:.0f} ms of {plan.slo_ms[service]:g} ms, {percent(errors)} failed"
            allowed = _compared(level, measured)
        lines.append(Line("service stress", f"{phase.name}, {service}", level, actual, allowed, Verdict.TOLD))
    return lines


def stress_level(p95_over_slo: float, error_rate: float) -> str:
    """How hard a service was pressed, from its slowest answers and its failures.

    >>> [stress_level(0.1, 0.0), stress_level(1.5, 0.0), stress_level(0.1, 0.2), stress_level(9.0, 0.5)]
    ['very_low', 'high', 'very_high', 'extreme']
    """
    slow = sum(p95_over_slo >= bound for bound in P95_BOUNDS)
    failing = sum(error_rate >= bound for bound in ERROR_BOUNDS)
    return LEVELS[max(slow, failing)]


def _compared(expected: str, measured: str) -> str:
    steps = LEVELS.index(measured) - LEVELS.index(expected)
    return "as expected" if steps == 0 else f"{abs(steps)} {'above' if steps > 0 else 'below'}"

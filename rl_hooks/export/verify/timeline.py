"""Users per phase and profile, and the profile mix: as planned, or not.

The timeline notes once a second who runs. A tick is compared when the plan has asked for the same users for so long
that they have to be there: a change is ordered at the next tick (up to 1 s later), carried out in half a second, and
where workers run the users, known 3 s later, when they have reported. Ticks within a ramp are not compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rl_hooks.export.verify.line import Line, Verdict, met_if
from rl_hooks.run_reader import Run
from scenario.plan import Plan, PlanPhase

ORDERED_S, CARRIED_OUT_S, REPORTED_S = 1.0, 0.5, 3.0
LEAST_COMPARED = 0.9  # of the ticks that a phase should have; below it was not there as a whole
MIX_TOLERANCE = 0.005
_MOMENTS = 9  # at which a stretch of the plan is looked at


@dataclass(frozen=True)
class _Tick:
    run_time_s: float
    counts: Mapping[str, int]


def user_lines(run: Run, plan: Plan) -> list[Line]:
    """One line per phase and profile, one per phase for the mix, and one on the ticks."""
    settle_s = settling_s(run)
    noted = [event for event in run.events if event["kind"] == "users" and "run_time_s" in event]
    ticks = [_Tick(event["run_time_s"], event["counts"]) for event in noted]
    lines: list[Line] = []
    compared = 0
    for phase in plan.phases:
        mine = [tick for tick in ticks if phase.start_s <= tick.run_time_s < phase.end_s]
        steady = [tick for tick in mine if is_steady(plan, tick.run_time_s, settle_s)]
        compared += len(steady)
        lines += _phase_lines(plan, phase, steady, _steady_seconds(plan, phase, settle_s))
    skipped = f"{len(ticks) - compared} in or just after a change"
    actual = f"{compared} of {len(ticks)} compared"
    return [Line("ticks", "", f"about {plan.duration_s:.0f}", actual, skipped, Verdict.TOLD), *lines]


def settling_s(run: Run) -> float:
    """How long after a planned change users may still differ."""
    has_workers = any(who.role == "worker" for who in run.incarnations)
    return ORDERED_S + CARRIED_OUT_S + (REPORTED_S if has_workers else 0.0)


def is_steady(plan: Plan, t_s: float, settle_s: float) -> bool:
    """Whether the plan asks for one and the same mix, outside any ramp, from `settle_s` before to `t_s`."""
    mix = dict(plan.mix_at(t_s))
    moments = np.linspace(t_s - settle_s, t_s, _MOMENTS)
    return not any(plan.in_ramp(moment) or dict(plan.mix_at(moment)) != mix for moment in moments.tolist())


def _steady_seconds(plan: Plan, phase: PlanPhase, settle_s: float) -> int:
    """How many ticks of the phase can be compared, at one a second."""
    return sum(is_steady(plan, t_s, settle_s) for t_s in np.arange(phase.start_s + 0.5, phase.end_s).tolist())


def _phase_lines(plan: Plan, phase: PlanPhase, ticks: list[_Tick], possible: int) -> list[Line]:
    planned = [dict(plan.mix_at(tick.run_time_s)) for tick in ticks]
    profiles = [name for name, users in phase.mix.items() if users]
    extra = sorted({name for tick in ticks for name, users in tick.counts.items() if users} - set(profiles))
    if not possible:
        never = "never long enough without a change"
        return [Line("users", phase.name, str(phase.users), never, "not compared", Verdict.TOLD)]
    enough = len(ticks) >= LEAST_COMPARED * possible
    lines = [_profile_line(phase, name, planned, ticks, possible, enough) for name in (*profiles, *extra)]
    if ticks:
        lines.append(_mix_line(phase, [*profiles, *extra], planned, ticks))
    return lines


def _profile_line(
    phase: PlanPhase, name: str, planned: list[dict[str, int]], ticks: list[_Tick], possible: int, enough: bool
) -> Line:
    pairs = [(mix.get(name, 0), tick.counts.get(name, 0)) for mix, tick in zip(planned, ticks, strict=True)]
    differing = sum(should != is_ for should, is_ in pairs)
    actual = f"{_range([is_ for _, is_ in pairs])} in {len(pairs)} of about {possible} ticks, {differing} differ"
    should = _range([should for should, _ in pairs]) if pairs else str(phase.mix.get(name, 0))
    verdict = met_if(enough and differing == 0)
    return Line("users", f"{phase.name}, {name}", should, actual, "every tick equal", verdict)


def _mix_line(phase: PlanPhase, profiles: list[str], planned: list[dict[str, int]], ticks: list[_Tick]) -> Line:
    """Shares of the user-ticks, in the order of the lines before: who was there, and how long."""
    should = _shares([sum(mix.get(name, 0) for mix in planned) for name in profiles])
    is_ = _shares([sum(tick.counts.get(name, 0) for tick in ticks) for name in profiles])
    off = float(np.abs(should - is_).max())
    texts = ["/".join(f"{100 * share:.1f}" for share in shares) + " %" for shares in (should, is_)]
    allowed = f"within {100 * MIX_TOLERANCE:g} percentage points"
    return Line("profile mix", phase.name, texts[0], texts[1], allowed, met_if(off <= MIX_TOLERANCE))


def _shares(counts: list[int]) -> Any:
    values = np.array(counts, float)
    return values / values.sum() if values.sum() else values


def _range(values: list[int]) -> str:
    if not values:
        return "none"
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"

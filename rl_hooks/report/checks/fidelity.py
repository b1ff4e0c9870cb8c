"""Whether the traffic was what the plan says: users, mix, conversion, abandonment, and recovery after faults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rl_hooks.export.verify.binomial import clopper_pearson
from rl_hooks.report import stats
from rl_hooks.report.evidence import GIVE_RUN, Mask, Recorded
from rl_hooks.report.state import Case
from rl_hooks.report.verdict import Finding, Verdict, not_applicable, worst
from rl_hooks.row import Intent, Outcome

_FROM_RUN = "planned and actual users and sessions are " + GIVE_RUN


def users(case: Case) -> Finding:
    counted = [
        (part, t_s, counts) for part in case.evidence.recorded for t_s, counts in counts_outside_ramps(case, part)
    ]
    if not counted:
        return not_applicable(_FROM_RUN if not case.evidence.recorded else "no users were counted outside ramps")
    limits = case.limits
    verdicts, worst_off, off_total, where = [], 0, 0, ""
    for part, t_s, counts in counted:
        planned = part.plan.mix_at(t_s)
        pairs = [(counts.get(name, 0), wanted) for name, wanted in planned.items()]
        pairs.append((sum(counts.values()), sum(planned.values())))
        off = max(abs(actual - wanted) for actual, wanted in pairs)
        verdicts.append(worst([_users_verdict(case, actual, wanted) for actual, wanted in pairs]))
        off_total += off > 0
        if off > worst_off:
            worst_off, where = off, f" (at {t_s:.0f} s)"
    return Finding(
        worst(verdicts),
        f"Outside ramps users were off the plan in {off_total} of {len(counted)} counts, by up to {worst_off}{where}.",
        {"counts": len(counted), "off": off_total, "largest": worst_off, "settle_s": limits.users_settle_s},
    )


def _users_verdict(case: Case, actual: int, wanted: int) -> Verdict:
    off, limits = abs(actual - wanted), case.limits
    if off == 0:
        return Verdict.PASS
    verdict = limits.users_off.judge(off / max(wanted, 1))
    return Verdict.WARN if verdict is Verdict.FAIL and off <= limits.users_tolerance else verdict


def counts_outside_ramps(case: Case, part: Recorded) -> list[tuple[float, Mapping[str, int]]]:
    """(seconds of the plan, profile -> users) of every count that was due to be on plan."""
    settle_s = case.limits.users_settle_s
    found: list[tuple[float, Mapping[str, int]]] = []
    for event in part.events("users"):
        t_s = float(event["run_time_s"]) if "run_time_s" in event else part.at_s(event)
        phase = part.plan.phase_at(t_s)
        # A ramp that has just ended counts as one: users are started by a loop that runs once a second.
        steady = phase is not None and not any(part.plan.in_ramp(moment) for moment in (t_s, t_s - settle_s))
        if steady and phase is not None and t_s - settle_s >= phase.start_s:
            found.append((t_s, {name: int(count) for name, count in event["counts"].items()}))
    return found


@dataclass(frozen=True)
class Rate:
    """Something planned as a share and counted."""

    name: str
    planned: float
    successes: int
    trials: int


def profile_mix(case: Case) -> Finding:
    rates = [rate for part in case.evidence.recorded for rate in _mix_rates(case, part)]
    return _rates(case, rates, "no users were counted outside ramps")


def conversion(case: Case) -> Finding:
    rates = [rate for part in case.evidence.recorded for rate in conversion_rates(part)]
    return _rates(case, rates, "no session ended by itself")


def abandonment(case: Case) -> Finding:
    rates = [rate for part in case.evidence.recorded for rate in abandonment_rates(part)]
    return _rates(case, rates, "no session with a cart ended by itself")


def _mix_rates(case: Case, part: Recorded) -> list[Rate]:
    """Per phase and profile the mean users outside ramps, held against that many draws from the planned mix then."""
    by_phase: dict[str, list[tuple[Mapping[str, int], Mapping[str, int]]]] = {}
    for t_s, counts in counts_outside_ramps(case, part):
        phase = part.plan.phase_at(t_s)
        by_phase.setdefault(phase.name if phase is not None else "", []).append((part.plan.mix_at(t_s), counts))
    rates = []
    for phase_name, seen in by_phase.items():
        planned = sum(sum(mix.values()) for mix, _ in seen)
        total = round(sum(sum(counts.values()) for _, counts in seen) / len(seen))
        for profile in part.plan.max_users_per_profile if planned and total else ():
            share = sum(mix[profile] for mix, _ in seen) / planned
            mean = sum(counts.get(profile, 0) for _, counts in seen) / len(seen)
            rates.append(Rate(f"{profile} in {phase_name}", share, min(total, round(mean)), total))
    return rates


def conversion_rates(part: Recorded) -> list[Rate]:
    """Sessions with a paid order, of those that were not cut short.

    Where the system kept a shopper from what it came for (outcome FAILED), what it came for counts: this is about the
    traffic; what the system did to it is in the rewards.
    """
    sessions = part.run.sessions
    whole = sessions["outcome"] != Outcome.TRUNCATED
    kept = sessions["outcome"] == Outcome.FAILED
    paid = np.where(kept, sessions["intent"] == Intent.PURCHASE, sessions["orders_paid"] > 0)
    return [
        Rate(name, part.plan.scenario.profiles[name].conversion_rate, int(paid[rows].sum()), int(rows.sum()))
        for name, rows in _by_profile(part, whole).items()
    ]


def abandonment_rates(part: Recorded) -> list[Rate]:
    """Sessions without an order, of those with a cart that were not cut short; the intent counts where they failed."""
    sessions = part.run.sessions
    kept = sessions["outcome"] == Outcome.FAILED
    filled = np.where(kept, sessions["intent"] != Intent.BROWSE_ONLY, sessions["cart_adds"] > 0)
    left = np.where(kept, sessions["intent"] == Intent.ABANDON, sessions["orders_placed"] == 0)
    whole = (sessions["outcome"] != Outcome.TRUNCATED) & filled
    return [
        Rate(name, part.plan.scenario.profiles[name].cart_abandonment_rate, int(left[rows].sum()), int(rows.sum()))
        for name, rows in _by_profile(part, whole).items()
    ]


def _by_profile(part: Recorded, chosen: Mask) -> dict[str, Mask]:
    profile = np.array(part.run.names["profile"], object)[part.run.sessions["profile_ref"]]
    return {name: chosen & (profile == name) for name in part.plan.max_users_per_profile}


def _rates(case: Case, rates: Sequence[Rate], nothing: str) -> Finding:
    if not case.evidence.recorded:
        return not_applicable(_FROM_RUN)
    counted = [rate for rate in rates if rate.trials]
    if not counted:
        return not_applicable(nothing)
    corrected = stats.holm([stats.binomial_p(rate.successes, rate.trials, rate.planned) for rate in counted])
    index = int(np.argmin(corrected))
    furthest = counted[index]
    return Finding(
        case.limits.traffic_rates.judge(corrected[index]),
        f"Furthest from the plan is {furthest.name}: planned {furthest.planned:.1%}, actual "
        f"{furthest.successes / furthest.trials:.1%} of {furthest.trials} (p {corrected[index]:.2g}, "
        f"{len(counted)} compared).",
        {
            "smallest_p_holm": corrected[index],
            "rates": [
                {
                    "name": rate.name,
                    "planned": rate.planned,
                    "actual": rate.successes / rate.trials,
                    "of": rate.trials,
                    "interval_95": list(clopper_pearson(rate.successes, rate.trials, 0.95)),
                    "p_holm": p,
                }
                for rate, p in zip(counted, corrected, strict=True)
            ],
        },
    )


def recovery(case: Case) -> Finding:
    if not case.evidence.recorded:
        return not_applicable("faults are " + GIVE_RUN)
    found = case.recoveries
    events = [event for part in case.evidence.recorded for event in part.events("fault")]
    unapplied = sum(event.get("what") == "not_applied" for event in events)
    if not found and not unapplied:
        return not_applicable("no fault was applied in the run")
    times = [recovery.seconds for recovery in found if recovery.seconds is not None]
    late = sum(recovery.late for recovery in found)
    longest = f", the slowest after {max(times):.0f} s" if times else ""
    return Finding(
        case.limits.recovery_left.judge(late + unapplied),
        f"After {len(times)} of {len(found)} faults the service was back in its band{longest}; {late} were not within "
        f"their phase, {len(found) - len(times) - late} cannot be judged, {unapplied} could not be applied.",
        {
            "faults": [recovery.to_json() for recovery in found],
            "not_within_phase": late,
            "not_applied": unapplied,
        },
    )

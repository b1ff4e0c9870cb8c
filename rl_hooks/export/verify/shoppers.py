"""Sessions against their profiles: intents, conversion, abandonment, length, page visits; how many accounts were used.

Conversion and abandonment are judged over the sessions that ended by themselves. One whose shopper was kept from what
it came for by the system's failures (FAILED) is one of them and counts as it ended; how many there are is said beside
it, because they push conversion down: purchase intents as planned beside a conversion that is missed mean that the
system kept shoppers from buying. Sessions cut short by a phase change or the end of the run are counted apart.

Shares of user actions are not compared: what an intent forces depends on the session, so the plan states no shares.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.export.align import plan_start_ns
from rl_hooks.export.verify import binomial
from rl_hooks.export.verify.line import Line, Verdict, met_if, percent
from rl_hooks.row import Intent, Outcome
from rl_hooks.run_reader import Run
from scenario.model import Profile
from scenario.plan import Plan
from scenario.visits import sessions_per_user_s

Array = npt.NDArray[Any]

CONFIDENCE = 0.99
"""With this probability no share of the table that is as planned is called missed."""
LONGER = 0.05  # a session ends with the request or the order that is under way: so much longer on average
SHORTER = 0.001  # clocks are read twice
PAGES_OFF = 0.05


@dataclass(frozen=True)
class _Group:
    """The sessions of one profile."""

    profile: Profile
    rows: Array
    start_s: Array  # real seconds from the start of the run
    by_itself: Array
    stay_min: float  # nominal minutes for which the plan has the profile without a break, at most

    @property
    def ended(self) -> Array:
        return self.rows[self.by_itself]

    @property
    def why_no_session(self) -> str | None:
        """Why it is no surprise that no session ended by itself, if it is none."""
        mean_min = sum(self.profile.session_duration_min) / 2
        if mean_min < self.stay_min:
            return None
        return f"a session takes {mean_min:g} minutes, the profile stays {self.stay_min:g}"

    @property
    def why_no_cart(self) -> str | None:
        """Why it is no surprise that none of the sessions that ended had a cart, if it is none."""
        if not len(self.ended):
            return self.why_no_session
        with_cart = self.profile.conversion_rate + self.profile.abandon_rate
        if (1 - with_cart) ** len(self.ended) < 1 - CONFIDENCE:
            return None
        return f"{len(self.ended)} sessions ended, {percent(with_cart)} of them have a cart"


def session_lines(run: Run, plan: Plan) -> list[Line]:
    groups = [_group(run, plan, name) for name in plan.max_users_per_profile]
    return [
        _accounts(run, plan),
        *_share_lines(groups),
        *(_length(group, plan) for group in groups),
        *(_pages(group, plan) for group in groups),
    ]


def _group(run: Run, plan: Plan, name: str) -> _Group:
    names = np.array(run.names["profile"], object)
    rows = run.sessions[names[run.sessions["profile_ref"]] == name]
    start_s = (rows["start_ns"] - plan_start_ns(run)) / 1e9
    by_itself = rows["outcome"] != Outcome.TRUNCATED
    return _Group(plan.scenario.profiles[name], rows, start_s, by_itself, _stay_min(plan, name))


def _stay_min(plan: Plan, name: str) -> float:
    longest = stay_s = 0.0
    for phase in plan.phases:
        stay_s = stay_s + phase.duration_s if phase.mix[name] else 0.0
        longest = max(longest, stay_s)
    return longest * plan.time_scale / 60


def _accounts(run: Run, plan: Plan) -> Line:
    """Accounts are leased in turn, so all of them come up as soon as there are as many sessions."""
    used = len(np.unique(run.sessions["account"]))
    profiles = plan.scenario.profiles
    expected = sum(
        users * sessions_per_user_s(profiles[name]) * phase.duration_s * plan.time_scale
        for phase in plan.phases
        for name, users in phase.mix.items()
    )
    actual = f"{used} in {len(run.sessions)} sessions"
    if expected < plan.accounts:
        why = f"the plan makes about {expected:.0f} sessions"
        return Line("distinct users", "", str(plan.accounts), actual, why, Verdict.TOLD)
    return Line("distinct users", "", str(plan.accounts), actual, "all", met_if(used >= plan.accounts))


def _share_lines(groups: list[_Group]) -> list[Line]:
    """Purchase intents, conversion and abandonment of every profile, judged as one table."""
    counted = [("purchase intent", group, group.profile.conversion_rate, _intent(group.ended)) for group in groups]
    counted += [("conversion", group, group.profile.conversion_rate, _conversion(group.ended)) for group in groups]
    counted += [
        ("abandonment", group, group.profile.cart_abandonment_rate, _abandonment(group.ended)) for group in groups
    ]
    shares = binomial.judged([(planned, *found) for _, _, planned, found in counted], CONFIDENCE)
    return [_share_line(what, group, share) for (what, group, _, _), share in zip(counted, shares, strict=True)]


def _intent(ended: Array) -> tuple[int, int]:
    return int((ended["intent"] == Intent.PURCHASE).sum()), len(ended)


def _conversion(ended: Array) -> tuple[int, int]:
    return int((ended["orders_paid"] > 0).sum()), len(ended)


def _abandonment(ended: Array) -> tuple[int, int]:
    """Carts without an order, of all carts."""
    with_cart = ended[ended["cart_adds"] > 0]
    return int((with_cart["orders_placed"] == 0).sum()), len(with_cart)


def _share_line(what: str, group: _Group, share: binomial.Share) -> Line:
    failed = int((group.ended["outcome"] == Outcome.FAILED).sum())
    cut = len(group.rows) - len(group.ended)
    of = "carts" if what == "abandonment" else "sessions"
    beside = f", {failed} failed, {cut} more cut short" if what == "conversion" else ""
    found = percent(share.hits / share.count) if share.count else "none"
    planned, name = percent(share.planned), group.profile.name
    actual = f"{found} ({share.hits} of {share.count} {of}{beside})"
    why = group.why_no_cart if what == "abandonment" else group.why_no_session
    if not share.count and why is not None:
        return Line(what, name, planned, actual, why, Verdict.TOLD)
    low, high = share.interval
    allowed = f"interval {100 * low:.1f} to {percent(high)}"
    # Without a single session where there should be some there is no evidence, and that is not what was planned.
    return Line(what, name, planned, actual, allowed, met_if(share.fits and share.count > 0))


def _length(group: _Group, plan: Plan) -> Line:
    """A session is as long as was drawn, and what was drawn lies in the profile's range."""
    ended, name = group.ended, group.profile.name
    low, high = (60e6 * minutes / plan.time_scale for minutes in group.profile.session_duration_min)
    allowed = f"drawn from {low / 1e6:g} to {high / 1e6:g} s, none shorter, mean at most {percent(LONGER)} longer"
    if not len(ended):
        why = group.why_no_session
        verdict = Verdict.MISSED if why is None else Verdict.TOLD
        return Line("session length", name, "as drawn", "no session ended", why or allowed, verdict)
    drawn = group.rows["planned_us"]
    outside = int(((drawn < low - 1) | (drawn > high + 1)).sum())
    planned_s, actual_s = ended["planned_us"].mean() / 1e6, ended["duration_us"].mean() / 1e6
    short = int((ended["duration_us"] < (1 - SHORTER) * ended["planned_us"]).sum())
    actual = f"mean {actual_s:.2f} s of {len(ended)} ended, {short} shorter than drawn, {outside} drawn outside"
    verdict = met_if(not outside and not short and actual_s <= (1 + LONGER) * planned_s)
    return Line("session length", name, f"mean {planned_s:.2f} s", actual, allowed, verdict)


def _pages(group: _Group, plan: Plan) -> Line:
    """Page visits of sessions that ended by themselves within one phase: as drawn, at the phase's pace.

    A session ends on time whether or not its visits are made, so slow answers cost visits. That is a miss where answers
    take their planned part of it: not in a compressed run, in which they take more, and not beside faults.
    """
    name, planned, made, counted = group.profile.name, 0, 0, 0
    for phase, nominal in zip(plan.phases, plan.scenario.phases, strict=True):
        if nominal.chaos is not None:
            continue  # the pace wanders within the phase
        end_s = group.start_s + group.rows["duration_us"] / 1e6
        whole = group.rows[group.by_itself & (group.start_s >= phase.start_s) & (end_s < phase.end_s)]
        planned += int(np.floor(whole["pages_planned"] / phase.pace + 0.5 + 1e-9).sum())
        made += int(whole["pages"].sum())
        counted += len(whole)
    if not planned:
        return Line("page visits", name, "as drawn", "no session lies within one phase", "not compared", Verdict.TOLD)
    actual = f"{made} ({made / planned - 1:+.1%}) in {counted} sessions within one phase"
    allowed, fits = f"within {percent(PAGES_OFF)}", abs(made / planned - 1) <= PAGES_OFF
    excuse = "compressed" if plan.compressed else "the scenario has faults" if plan.faults else None
    if excuse is not None and not fits:
        return Line("page visits", name, str(planned), actual, f"{allowed}, but {excuse}", Verdict.TOLD)
    return Line("page visits", name, str(planned), actual, allowed, met_if(fits))

"""The plan in words: what a person reads before a run, and what `python -m scenario` prints."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from scenario.errors import number
from scenario.model import LEVELS, SERVICES

if TYPE_CHECKING:
    from scenario.plan import Plan, PlanPhase


def describe(plan: "Plan", host: str | None = None) -> list[str]:
    """Lines of plain text: the scenario, its phases, times, expected requests, and all that is not as the file says.

    `host`: the target of the run; None: the one that the file names.
    """
    return [
        *_head(plan, host),
        "",
        *_phases(plan),
        "",
        *_times(plan),
        "",
        *_requests(plan),
        *_block("Faults, real times", _faults(plan)),
        *_block("Chaos, as it was drawn from the seed", _chaos(plan)),
        *_block("Expected by the author of the file", _expectations(plan)),
        *_block("Defaults, because the file does not say", plan.scenario.defaults),
        *_block("Differs from the file", _differences(plan)),
        *_block("Warnings", _warnings(plan)),
    ]


def _head(plan: "Plan", host: str | None) -> list[str]:
    scenario = plan.scenario
    name = f"{scenario.name}: {scenario.description}" if scenario.description else scenario.name
    sizes = f"products {len(scenario.catalogue)}, addresses {len(scenario.addresses)}, accounts {plan.accounts}"
    return [
        f"Scenario {name}",
        f"  seed {plan.seed}, time scale {number(plan.time_scale)}, user scale {number(plan.user_scale)}",
        f"  {number(scenario.duration_min)} nominal minutes, {_duration(plan.duration_s)} of real time",
        f"  {sizes}; target {host or scenario.base_url or 'named on the command line'}",
    ]


def _phases(plan: "Plan") -> list[str]:
    profiles = list(plan.max_users_per_profile)
    head = ["phase", "minutes", "real", "intensity", "users", *profiles, "weights"]
    rows = [
        [
            phase.name,
            f"{number(nominal.start_min)}-{number(nominal.start_min + nominal.duration_min)}",
            f"{_clock(phase.start_s)}-{_clock(phase.end_s)}",
            phase.intensity,
            str(phase.users),
            *(str(phase.mix[name]) for name in profiles),
            "/".join(f"{action} {number(weight)}" for action, weight in phase.weights.items()),
        ]
        for phase, nominal in zip(plan.phases, plan.scenario.phases, strict=True)
    ]
    lines = ["Phases and users per profile", *_table([head, *rows])]
    described = [f"  {phase.name}: {phase.description}" for phase in plan.scenario.phases if phase.description]
    narrowed = [
        f"  {phase.name}: shoppers look only at {', '.join(phase.target_products)}"
        for phase in plan.scenario.phases
        if phase.target_products
    ]
    return [*lines, *described, *narrowed]


def _times(plan: "Plan") -> list[str]:
    interval = f"{_short(plan.decision_interval_s)} s"
    if plan.decision_interval_s > plan.decision_interval_asked_s:
        interval += f" (raised from {_short(plan.decision_interval_asked_s)} s: timers are not finer)"
    ticks = int(plan.duration_s / plan.decision_interval_s + 1e-9)
    dynamics = f"divided by {number(plan.dynamics_scale)}"
    slos = ", ".join(f"{service} {_short(slo_ms)}" for service, slo_ms in plan.slo_ms.items())
    rewards = ", ".join(f"{name} {number(weight)}" for name, weight in plan.scenario.reward_weights.items())
    lines = [
        "Times, real",
        f"  decision interval {interval}: about {ticks} intervals, {ticks * len(SERVICES)} decisions",
        f"  window {_short(plan.window_s)} s, episode {_short(plan.episode_s)} s, ramp {_short(plan.ramp_s)} s",
        f"  request timeout {_short(plan.request_timeout_s)} s ({dynamics})",
        f"  {plan.scenario.retry_attempts} retries, the first after {_short(plan.retry_delay_s)} s ({dynamics})",
        f"  response times to keep, ms ({dynamics}): {slos}",
        f"  reward weights: {rewards}",
    ]
    if plan.compressed:
        lines.append(
            f"  compressed: time scale {number(plan.time_scale)} is above {number(plan.dynamics_scale)}, "
            "so queues behave differently from real time"
        )
    return lines


def _requests(plan: "Plan") -> list[str]:
    head = ["phase", "requests/s", *SERVICES]
    rows = [
        [
            phase.name,
            f"{sum(plan.expected_service_rps(phase).values()):.1f}",
            *(f"{per:.2f}" for per in _per_decision(plan, phase)),
        ]
        for phase in plan.phases
    ]
    return ["Expected requests per second, and per decision of each service", *_table([head, *rows])]


def _per_decision(plan: "Plan", phase: "PlanPhase") -> list[float]:
    rates = plan.expected_service_rps(phase)
    return [rates[service] * plan.decision_interval_s for service in SERVICES]


def _faults(plan: "Plan") -> list[str]:
    if plan.without_faults:
        return ["left out on request (--no-faults); the data says so"]
    return [
        f"{_clock(fault.start_s)}-{_clock(fault.end_s)} {fault.phase}: {fault.text}, "
        f"{_short(fault.end_s - fault.start_s)} s"
        for fault in plan.faults
    ]


def _chaos(plan: "Plan") -> list[str]:
    lines = []
    for phase, nominal in zip(plan.phases, plan.scenario.phases, strict=True):
        mine = [segment for segment in plan.segments if segment.phase_index == phase.index]
        if nominal.chaos is None:
            continue
        users, pace = [one.users for one in mine], [one.pace for one in mine]
        lines.append(
            f"{phase.name}: {len(mine)} stretches of {_short(mine[0].duration_s)} s, "
            f"users {min(users)}-{max(users)}, pace {_short(min(pace))}-{_short(max(pace))}, "
            f"action randomness {number(nominal.chaos.action_randomness)}"
        )
    return lines


def _expectations(plan: "Plan") -> list[str]:
    lines = []
    for phase in plan.scenario.phases:
        for what, values in (
            ("service load", phase.service_load_characteristics),
            ("service stress", phase.expected_service_stress),
        ):
            if values:
                lines.append(f"{phase.name}, {what}: {', '.join(f'{key} {value}' for key, value in values.items())}")
    return lines


def _differences(plan: "Plan") -> list[str]:
    lines = [
        f"{phase.name}: users raised from {phase.users_asked} to {phase.users}, one for every profile with a share"
        for phase in plan.phases
        if phase.users > phase.users_asked
    ]
    for phase, nominal in zip(plan.phases, plan.scenario.phases, strict=True):
        for name, share in nominal.distribution.items():
            if 0 < share * phase.users_asked < 0.5:
                expected = number(round(share * phase.users_asked, 2))
                lines.append(f"{phase.name}: {name} has 1 user instead of {expected}, the least for a share")
    if plan.accounts != plan.scenario.total_users:
        lines.append(f"total_users {plan.scenario.total_users} raised to {plan.accounts}, as many as the users need")
    most = max(phase.users for phase in plan.phases)
    if most > plan.scenario.max_concurrent_users:
        lines.append(f"{most} users at once, above max_concurrent_users {plan.scenario.max_concurrent_users}")
    return lines


def _warnings(plan: "Plan") -> list[str]:
    lines = []
    for phase in plan.phases:
        few = [
            f"{service} {per:.2f}" for service, per in zip(SERVICES, _per_decision(plan, phase), strict=True) if per < 1
        ]
        if few:
            lines.append(f"{phase.name}: less than 1 request per decision of {', '.join(few)}")
    return [*lines, *_contradictions(plan), *_without_chaos(plan), *_without_recovery(plan)]


def _contradictions(plan: "Plan") -> list[str]:
    """Where a service that the author expects to get more requests than another one gets fewer."""
    lines = []
    for phase, nominal in zip(plan.phases, plan.scenario.phases, strict=True):
        rates, levels = plan.expected_service_rps(phase), nominal.service_load_characteristics
        for more, high in levels.items():
            for less, low in levels.items():
                if LEVELS.index(high) > LEVELS.index(low) and rates[more] < rates[less]:
                    lines.append(
                        f"{phase.name}: {more} is expected to have {high} load and {less} {low}, but the plan sends "
                        f"{rates[more]:.1f} and {rates[less]:.1f} requests/s"
                    )
    return lines


def _without_chaos(plan: "Plan") -> list[str]:
    return [
        f"{phase.name}: intensity variable without chaos_parameters is paced like medium"
        for phase in plan.scenario.phases
        if phase.intensity == "variable" and phase.chaos is None
    ]


def _without_recovery(plan: "Plan") -> list[str]:
    """Faults that last until the end: what comes after them is not in the data."""
    return [
        f"{fault.phase}: {fault.text} lasts until the end of the scenario, so its recovery is not in the data"
        for fault in plan.faults
        if fault.end_s > plan.duration_s - plan.window_s
    ]


def _block(title: str, lines: Iterable[str]) -> list[str]:
    listed = [f"  {line}" for line in lines]
    return ["", title, *listed] if listed else []


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _short(value: float) -> str:
    return f"{value:.4g}"


def _duration(seconds: float) -> str:
    return f"{number(round(seconds, 1))} s" if seconds < 120 else f"{number(round(seconds / 60, 1))} minutes"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"

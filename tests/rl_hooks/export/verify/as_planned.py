"""A run that did exactly what was planned; a test states only what is broken in it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.row import Intent, Outcome
from rl_hooks.run_reader import Run
from scenario.plan import Plan
from tests import builders

PROFILES = ("quick_browser", "careful_shopper")
PHASES = ("morning", "evening")
SESSIONS = 600  # of each profile
US = 1_000_000


def plan(**special: Any) -> Plan:
    """Two phases of three minutes with 20 users and 100 accounts, time scale 10."""
    return builders.plan(time_scale=10, **{"phases": {"morning": 30.0, "evening": 30.0}, "total_users": 100, **special})


def run(planned: Plan | None = None, **special: Any) -> Run:
    planned = planned or plan()
    made = {
        "decisions": decisions(planned),
        "requests": requests(planned),
        "sessions": sessions(planned),
        "events": users(planned),
        **special,
    }
    return builders.run(planned, **made)


def users(planned: Plan) -> list[dict[str, Any]]:
    """Ticks once a second, always exactly as planned."""
    return [
        {"t_ns": builders.at(t_s), "kind": "users", "run_time_s": t_s, "counts": dict(planned.mix_at(t_s))}
        for t_s in np.arange(0.5, planned.duration_s).tolist()
    ]


def decisions(planned: Plan) -> Any:
    """Every service at every interval, the actions in turn."""
    table = builders.decisions(planned, np.random.default_rng(1))
    table["action"] = (table["tick"] + table["service"]) % len(ACTIONS)
    return table


def requests(planned: Plan) -> Any:
    """First tries at exactly the expected rate of every phase and service, by both profiles, all well."""
    rows: list[dict[str, Any]] = []
    for phase in planned.phases:
        for index, service in enumerate(SERVICES):
            count = round(planned.expected_service_rps(phase)[service] * phase.duration_s)
            times = phase.start_s + (np.arange(count) + 0.5) * phase.duration_s / count
            rows += [
                {
                    "start_ns": builders.at(t_s),
                    "service": index,
                    "profile_ref": 1 + number % 2,
                    "phase_ref": 1 + phase.index,
                }
                for number, t_s in enumerate(times.tolist())
            ]
    return builders.rows("requests", rows)


def sessions(planned: Plan) -> Any:
    """Both profiles with exactly their conversion and abandonment, each session within the first phase."""
    rows: list[dict[str, Any]] = []
    for ref, name in enumerate(PROFILES, 1):
        profile = planned.scenario.profiles[name]
        paid = round(profile.conversion_rate * SESSIONS)
        carts = round(paid / (1 - profile.cart_abandonment_rate))
        low, high = (60 * US * minutes / planned.time_scale for minutes in profile.session_duration_min)
        rows += [
            {
                "start_ns": builders.at(3 + number * 0.05),
                "planned_us": round(low + (high - low) * number / SESSIONS),
                "duration_us": round(low + (high - low) * number / SESSIONS) + 10_000,
                "profile_ref": ref,
                "account": number % planned.accounts,
                "pages_planned": 30,
                "pages": 30,
                "cart_adds": int(number < carts),
                "orders_placed": int(number < paid),
                "orders_paid": int(number < paid),
                "intent": Intent.PURCHASE
                if number < paid
                else Intent.ABANDON
                if number < carts
                else Intent.BROWSE_ONLY,
                "outcome": Outcome.ENDED,
            }
            for number in range(SESSIONS)
        ]
    return builders.rows("sessions", rows)


def changed(events: Sequence[Mapping[str, Any]], at_s: float, **counts: int) -> list[dict[str, Any]]:
    """The same events, with other counts at the tick after `at_s`."""
    index = next(number for number, event in enumerate(events) if event["run_time_s"] >= at_s)
    broken = {**events[index], "counts": {**events[index]["counts"], **counts}}
    return [*map(dict, events[:index]), broken, *map(dict, events[index + 1 :])]

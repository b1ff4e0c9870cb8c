"""Runs shoppers against the shop at argv[1] for a few sessions; writes what happened as JSON."""

import json
import sys
from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import gevent
import gevent.event
from locust.env import Environment

from profiles import seating
from profiles.base import Runtime
from profiles.session import SessionSummary
from profiles.shoppers import user_classes
from scenario.plan import make_plan
from tests.profiles.simulator import comprehensive

SESSIONS = 20
USERS = 4
TIME_SCALE = 60.0


def main() -> None:
    """Every session fills a cart, half of them leave it; an account's next session finds what was left."""
    base = comprehensive()
    half = {
        name: replace(
            profile, conversion_rate=0.5, cart_abandonment_rate=0.5, session_duration_min=(1.5, 2.5), pages=(8, 12)
        )
        for name, profile in base.profiles.items()
    }
    evening = replace(base.phases[4], start_min=0.0)
    scenario = replace(base, name="against", phases=(evening,), profiles=half)
    plan = make_plan(scenario, seed=4, time_scale=TIME_SCALE)
    environment = Environment(user_classes=list(user_classes(scenario.profiles)), host=sys.argv[1], stop_timeout=10.0)
    calls: list[dict[str, Any]] = []
    errors: list[str] = []
    sessions: list[SessionSummary] = []
    enough = gevent.event.Event()

    def on_request(context: dict[str, Any], **_: object) -> None:
        call = context["call"]
        calls.append({"endpoint": f"{call.service} {call.endpoint}", "ok": call.ok, "status": call.status})

    def on_session_end(summary: SessionSummary) -> None:
        sessions.append(summary)
        if len(sessions) == SESSIONS:
            enough.set()

    environment.events.request.add_listener(on_request)
    environment.events.user_error.add_listener(lambda exception, **_: errors.append(repr(exception)))
    runner = environment.create_local_runner()
    seats, accounts = seating.install(environment).open(USERS + 1)
    environment.rl_runtime = Runtime(plan, lambda: 1.0, seats, accounts, on_session_end=on_session_end)  # type: ignore[attr-defined]
    runner.start(USERS, spawn_rate=100)
    reached = enough.wait(60.0)
    runner.quit()
    rows = [
        {**asdict(one), "intent": one.intent.name, "outcome": one.outcome.name, "visits": dict(one.visits)}
        for one in sessions
    ]
    failed = Counter(f"{call['endpoint']} {call['status']}" for call in calls if not call["ok"])
    endpoints = sorted({call["endpoint"] for call in calls})
    told = {"reached": reached, "failed": failed, "errors": errors, "sessions": rows, "endpoints": endpoints}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()

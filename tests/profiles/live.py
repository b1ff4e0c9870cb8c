"""Runs real users of a real local runner against the scripted shop, in a process of its own: importing Locust replaces
the sockets and threads of the whole process. Reads a list of experiments (JSON) from stdin, writes their results.
"""

import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import gevent
import gevent.event
import gevent.pool
from locust.env import Environment
from locust.exception import StopUser

from profiles import seating
from profiles.base import Call, Runtime
from profiles.session import SessionSummary
from profiles.shoppers import user_classes
from scenario.model import Profile, Scenario
from scenario.plan import make_plan
from tests.profiles.scripted_shop import ShopState, serve
from tests.profiles.simulator import comprehensive

TIME_SCALE = 60.0  # a minute is a second, and the system's own times are divided by 10
BUYER = Profile("buyer", "", 1.0, 0.0, (2.0, 2.0), (4, 4), (0.1, 0.2), {"browse": 1.0}, (2, 2))
PROFILES: Mapping[str, Profile] = {
    "buyer": BUYER,
    "browser": replace(BUYER, name="browser", conversion_rate=0.0),
    "dawdler": replace(BUYER, name="dawdler", conversion_rate=0.0, session_duration_min=(600.0, 600.0), pages=(2, 2)),
    "thinker": replace(
        BUYER, name="thinker", conversion_rate=0.0, session_duration_min=(600.0, 600.0), think_time_s=(9000.0, 9000.0)
    ),
}


def scenario(profile: str) -> Scenario:
    """One phase for one profile. Real: request timeout 0.3 s, first retry after about 20 ms."""
    base = comprehensive()
    phase = replace(
        base.phases[0],
        start_min=0.0,
        duration_min=600.0,
        intensity="medium",
        users=2,
        distribution={profile: 1.0},
        weights={"browse": 1.0},
    )
    return replace(
        base,
        name="live",
        phases=(phase,),
        profiles=PROFILES,
        request_timeout_s=3.0,
        retry_attempts=2,
        retry_delay_s=0.2,
        decision_interval_s=2.0,
    )


class Recorder(logging.Handler):
    """Everything that is reported about one run."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.calls: list[dict[str, Any]] = []
        self.exceptions: list[str] = []
        self.sessions: list[dict[str, Any]] = []
        self.log: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.log.append(record.getMessage())

    def on_request(self, context: Mapping[str, Any], exception: object, **_: object) -> None:
        call: Call = context["call"]
        row = {name: getattr(call, name) for name in Call.__slots__ if name != "visit"}
        self.calls.append({**row, "trace": f"{call.trace_hi:016x}{call.trace_lo:016x}", **asdict(call.visit)})
        if exception is not None:
            self.exceptions.append(str(exception))

    def on_session_end(self, summary: SessionSummary) -> None:
        self.sessions.append(
            {
                **asdict(summary),
                "intent": summary.intent.name,
                "outcome": summary.outcome.name,
                "visits": dict(summary.visits),
            }
        )


def run(experiment: dict[str, Any]) -> dict[str, Any]:
    """One run: until `sessions` are over, or what `act` does."""
    state = ShopState(experiment.get("script"), experiment.get("otherwise", "ok"))
    state.show_notes = experiment.get("show_notes", True)
    server = serve(state)
    recorder = Recorder()
    logging.getLogger().handlers = [recorder]
    logging.getLogger().setLevel(logging.INFO)
    plan = make_plan(scenario(experiment.get("profile", "buyer")), seed=3, time_scale=TIME_SCALE)
    host = experiment.get("host") or f"http://127.0.0.1:{server.server_address[1]}"
    classes = [cls for cls in user_classes(PROFILES) if cls.profile_name == experiment.get("profile", "buyer")]
    environment = Environment(user_classes=list(classes), host=host, stop_timeout=experiment.get("stop_timeout", 10.0))
    environment.events.request.add_listener(recorder.on_request)
    errors: list[str] = []
    environment.events.user_error.add_listener(lambda exception, **_: errors.append(repr(exception)))
    runner = environment.create_local_runner()
    seats, accounts = seating.install(environment).open(experiment.get("accounts", plan.accounts))
    enough = gevent.event.Event()

    def on_session_end(summary: SessionSummary) -> None:
        recorder.on_session_end(summary)
        if "act" not in experiment and len(recorder.sessions) == experiment.get("sessions", 1):
            enough.set()
            raise StopUser  # no request of a next session shall be in what is counted

    environment.rl_runtime = Runtime(  # type: ignore[attr-defined]
        plan=plan, run_time_s=lambda: 1.0, seats=seats, accounts=accounts, on_session_end=on_session_end
    )
    if "prepare" in experiment:
        PREPARE[experiment["prepare"]](state)
    runner.start(experiment.get("users", 1), spawn_rate=100)
    reached = ACT[experiment["act"]](state, recorder, runner) if "act" in experiment else enough.wait(20.0)
    runner.quit()
    state.over.set()
    state.gate.set()
    server.shutdown()
    server.server_close()
    return {
        "reached": bool(reached),
        "calls": recorder.calls,
        "exceptions": recorder.exceptions,
        "sessions": recorder.sessions,
        "errors": errors,
        "stats": sorted(f"{method} {name}" for name, method in environment.stats.entries),
        "seen": state.seen,
        "headers": state.headers,
        "nonsense": state.nonsense,
        "orders": state.orders,
        "payments": state.payments,
        "carts": {user: dict(cart) for user, cart in state.carts.items()},
        "aborted": state.aborted,
        "log": recorder.log,
        "next_seat": asdict(seats.take(experiment.get("profile", "buyer"))),
        "free_accounts": sum(bool(accounts.lease_block(1)) for _ in range(plan.accounts)),
    }


def _wait_for(condition: Callable[[], bool]) -> bool:
    """Whether it became true within a generous time."""
    with gevent.Timeout(20.0, False):
        while not condition():
            gevent.sleep(0.005)
        return True
    return False


def _stop_in_dwell(state: ShopState, recorder: Recorder, runner: Any) -> bool:
    """Tells the users to stop when their first page visits are over and the second are minutes away.

    Users that wait for an account have said so.
    """

    def dwelling() -> bool:
        users = _users(runner)
        live = sum(user._live is not None for user in users)
        pages = sum("summary" in call["endpoint"] for call in recorder.calls)
        waiting = sum("waits for an account" in line for line in recorder.log)
        return 0 < live == pages and live + waiting == len(users)

    return _stop_when(runner, dwelling)


def _stop_in_think(state: ShopState, recorder: Recorder, runner: Any) -> bool:
    """Tells the user to stop between two requests of one page."""
    return _stop_when(runner, lambda: any(call["page"] == 1 for call in recorder.calls))


def _stop_in_backoff(state: ShopState, recorder: Recorder, runner: Any) -> bool:
    """Tells the user to stop while it waits to try again."""
    return _stop_when(runner, lambda: any(call["status"] == 503 for call in recorder.calls))


def _stop_when(runner: Any, condition: Callable[[], bool]) -> bool:
    reached = _wait_for(lambda: len(_users(runner)) > 0 and condition())
    runner.stop()
    return reached


def _users(runner: Any) -> list[Any]:
    return [greenlet.args[0] for greenlet in runner.user_greenlets]


def _stop_in_flight(state: ShopState, recorder: Recorder, runner: Any) -> bool:
    """Tells the users to stop while the shop holds a request back; the shop answers it a little later."""
    reached = _wait_for(lambda: state.holding == len(_users(runner)) == 2)
    stopping = gevent.spawn(runner.stop)
    while not all(greenlet.args[0]._stop_asked.is_set() for greenlet in runner.user_greenlets):
        gevent.sleep(0.001)
    state.gate.set()
    stopping.join()
    return reached


def _kill_in_flight(state: ShopState, recorder: Recorder, runner: Any) -> bool:
    """Without a stop timeout Locust kills users at once."""
    reached = _wait_for(lambda: state.holding == len(_users(runner)) == 2)
    runner.stop()
    return reached


ACT: Mapping[str, Callable[[ShopState, Recorder, Any], bool]] = {
    "stop_in_think": _stop_in_think,
    "stop_in_backoff": _stop_in_backoff,
    "stop_in_dwell": _stop_in_dwell,
    "stop_in_flight": _stop_in_flight,
    "kill_in_flight": _kill_in_flight,
}


def _old_cart(state: ShopState) -> None:
    """The account left something in its cart long ago, and ordered something."""
    user = "Bearer t-live.0@shoppers.example"
    state.carts[user] = Counter({"OLD": 40})
    state.orders.append(
        {
            "id": 1,
            "user": user,
            "totalItems": 2,
            "totalAmount": 20.0,
            "paymentId": "p0",
            "paymentStatus": "PAID",
            "notes": "old",
        }
    )


def _hold_summary(state: ShopState) -> None:
    state.held = "GET /cart-service/api/cart/summary"


PREPARE: Mapping[str, Callable[[ShopState], None]] = {"old_cart": _old_cart, "hold_summary": _hold_summary}

SIDE_BY_SIDE = 8

if __name__ == "__main__":
    experiments = list(enumerate(json.load(sys.stdin)))
    # Those that act on a runner want it, and the log, for themselves.
    results = dict(
        gevent.pool.Pool(SIDE_BY_SIDE).imap_unordered(
            lambda numbered: (numbered[0], run(numbered[1])), [one for one in experiments if "act" not in one[1]]
        )
    )
    results |= {number: run(experiment) for number, experiment in experiments if "act" in experiment}
    json.dump([results[number] for number, _ in experiments], sys.stdout)

"""What the live tests run: a locustfile, and a program that runs its timeline twice in one process.

    locust -f live.py --headless ...                 one run, local, as master or as worker
    python live.py local | master PORT               two runs: the first is stopped half-way, the second goes to its end

The environment variable TIMELINE_TEST holds the setup as JSON. In the folder it names,
ticks.jsonl gets what `on_tick` is told, and users-PID.jsonl ten times a second the users of that process as they are.
"""

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

import gevent
import locust.runners
from locust import FastHttpUser, constant, events, task
from locust.env import Environment
from locust.runners import MasterRunner

from scenario.model import Phase, Profile, Scenario
from scenario.plan import Plan, make_plan
from shapes.dispatch import install
from shapes.timeline import Timeline

SETUP = json.loads(os.environ["TIMELINE_TEST"])
FOLDER = Path(SETUP["folder"])


class Shopper(FastHttpUser):
    abstract = True
    host = SETUP["host"]
    wait_time = constant(0.05)
    requests_per_visit = 3

    @task
    def visit(self) -> None:
        for _ in range(self.requests_per_visit):
            self.client.get("/delay/0.25")


class Alpha(Shopper):
    profile_name = "alpha"
    requests_per_visit = 32  # 8 s: those of the third phase are still at it when the fifth wants alphas again


class Beta(Shopper):
    profile_name = "beta"


class Gamma(Shopper):
    profile_name = "gamma"


class Delta(Shopper):
    profile_name = "delta"


PROFILES = ("alpha", "beta", "gamma", "delta")


def build_plan() -> Plan:
    """Phases of SETUP, durations and ramp in real seconds: a minute of the scenario is a second."""
    start, phases = 0.0, []
    for index, (duration, mix) in enumerate(SETUP["phases"]):
        users = sum(mix.values())
        shares = {profile: n / users for profile, n in mix.items()}
        phases.append(Phase(f"phase-{index}", "", start, duration, "medium", users, shares, {"browse": 1.0}, {}, {}))
        start += duration
    profiles = {
        name: Profile(name, "", 0.1, 0.1, (1, 2), (1, 2), (0.1, 0.2), {"browse": 1.0}, (1, 1)) for name in PROFILES
    }
    scenario = Scenario(
        name="live",
        description="",
        phases=tuple(phases),
        profiles=profiles,
        catalogue=(),
        addresses=(),
        total_users=100,
        max_concurrent_users=100,
        decision_interval_s=12,
        window_s=60,
        episode_s=300,
        ramp_s=60 * SETUP["ramp_s"],
        request_timeout_s=30,
        retry_attempts=0,
        retry_delay_s=1,
        recovery_pause_min=0,
        background_rps=0,
        base_url=None,
        service_slo_ms={},
        reward_weights={},
        defaults=(),
    )
    return make_plan(scenario, time_scale=60.0)


def append(name: str, row: dict) -> None:
    with (FOLDER / name).open("a") as file:
        file.write(json.dumps(row) + "\n")


@events.init.add_listener
def wire(environment, **_) -> None:
    install(environment, stop_timeout_s=SETUP["stop_timeout_s"])
    runner = environment.runner
    if isinstance(runner, MasterRunner):
        # 60 s after a loss the master replaces its dispatcher; the test has no minute.
        locust.runners.HEARTBEAT_DEAD_INTERNAL = SETUP.get("dead_after", -60)
    else:
        gevent.spawn(watch_users, runner)
    timeline = environment.shape_class
    if timeline is not None:
        plan = build_plan()
        (FOLDER / "mixes.json").write_text(json.dumps([dict(phase.mix) for phase in plan.phases]))
        timeline.plan_for = lambda _: plan

        def on_tick(run_time_s, planned, actual) -> None:
            row = {"t": time.time(), "run_time_s": run_time_s, "planned": dict(planned), "actual": dict(actual)}
            append("ticks.jsonl", row | {"dispatcher": id(runner._users_dispatcher)})

        timeline.on_tick = on_tick
    count_parsers()


def watch_users(runner) -> None:
    name = f"users-{os.getpid()}.jsonl"
    while True:
        users = [greenlet.args[0] for greenlet in list(runner.user_greenlets) if greenlet.args]
        running = Counter(user.profile_name for user in users if user._state != "stopping")
        append(name, {"t": time.time(), "running": running, "stopping": len(users) - running.total()})
        gevent.sleep(0.1)


def count_parsers() -> None:
    """Count the argument parsers Locust builds after `init`: 55 for every spawn message when nothing is done."""
    original = locust.argument_parser.get_empty_argument_parser

    def counted(*args, **kwargs):
        append(f"parsers-{os.getpid()}.jsonl", {})
        return original(*args, **kwargs)

    locust.argument_parser.get_empty_argument_parser = counted


def run_twice(environment: Environment) -> None:
    runner = environment.runner
    events.init.fire(environment=environment, runner=runner, web_ui=None)
    for run in range(2):
        append("ticks.jsonl", {"run": run})
        runner.start_shape()
        shape = runner.shape_greenlet
        if run == 0:
            while not reached_first_mix():
                gevent.sleep(0.1)
            runner.stop()  # what the Stop button does
        else:
            shape.join()
    runner.quit()


def reached_first_mix() -> bool:
    rows = [json.loads(line) for line in (FOLDER / "ticks.jsonl").read_text().splitlines()]
    return any(row["actual"] == row["planned"] and any(row["planned"].values()) for row in rows if "actual" in row)


if __name__ == "__main__":
    env = Environment(user_classes=[Alpha, Beta, Gamma, Delta], shape_class=Timeline(), events=events)
    if sys.argv[1] == "master":
        env.create_master_runner("127.0.0.1", int(sys.argv[2]))
    else:
        env.create_local_runner()
    run_twice(env)

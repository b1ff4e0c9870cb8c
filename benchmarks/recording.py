"""What recording costs: CPU per request against bare Locust, the listener alone, and stalls of the event loop.

    python -m benchmarks.recording [--rounds 120]

Bare is a FastHttpUser that sends a shopper's headers and has no listener besides Locust's own statistics; recorded adds
the action's header, the note of what is in flight, and the row.

Everything is interleaved in one process: each round runs both ways for a quarter of a second in random order, against
the same server, with the same users, and the two are compared with each other. Absolute times of a shared machine mean
little; the ratios hold. Process CPU time is measured, so the server in its own process does not count.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
from geventhttpclient.header import Headers
from locust import FastHttpUser
from locust.env import Environment
from locust.event import EventHook

from benchmarks.answering import HEADERS
from profiles.base import Call, VisitInfo
from rl_hooks.decision import SERVICES
from rl_hooks.record import upkeep
from rl_hooks.record.recorder import InForce, Recorder
from rl_hooks.run_folder import RunWriter, create_run_folder

USERS, SEGMENT_S, STALL_MS = 8, 0.25, 5.0
SHOPPER = {"Authorization": "Bearer " + 40 * "x", "X-Session-ID": 16 * "a", "X-User-ID": "42", "X-Trace-Id": 32 * "0"}
TARGETS = {"CPU per request, recorded / bare": 1.03, "listener beyond an empty one, us": 2.0, "stalls over 5 ms": 0.0}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recording", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=120)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder, _Server() as port:
        create_run_folder(Path(folder) / "run", {})
        bench = Bench(Path(folder) / "run", port)
        measured = {
            "CPU per request, recorded / bare": bench.ratio(rounds),
            "listener beyond an empty one, us": bench.listener_us(),
            "stalls over 5 ms": bench.stalls(),
        }
    for name, value in measured.items():
        print(f"{name:<34} {value:7.3f}   target {TARGETS[name]:g}")
    return 0 if all(value <= TARGETS[name] for name, value in measured.items()) else 1


class Bench:
    """Users of one environment that either only send, or send and record."""

    def __init__(self, folder: Path, port: int) -> None:
        self.environment = Environment()
        self.writer = RunWriter(folder, "local", USERS)
        in_force = InForce()
        in_force.set(1, [(service, 2, 1 / 6) for service in range(len(SERVICES))])
        self.recorder = Recorder(self.writer, in_force, _stop)
        self.requests = 0
        self._recorded = False
        user_class = type("BenchUser", (FastHttpUser,), {"host": f"http://127.0.0.1:{port}"})
        self._users = [user_class(self.environment) for _ in range(USERS)]
        gevent.spawn(upkeep.keep, self.writer, _stop)
        for slot, user in enumerate(self._users):
            gevent.spawn(self._send_forever, user, slot)

    def ratio(self, rounds: int) -> float:
        """Median over rounds of CPU per request with recording over CPU per request without, of the same round."""
        rng, ratios, bare_us = random.Random(1), [], []
        self._segment(False), self._segment(True)
        for _ in range(rounds):
            order = [False, True]
            rng.shuffle(order)
            cost = {recorded: self._segment(recorded) for recorded in order}
            ratios.append(cost[True] / cost[False])
            bare_us.append(cost[False] * 1e6)
        spread = statistics.quantiles(ratios, n=4)
        error = 1.25 * statistics.stdev(ratios) / len(ratios) ** 0.5  # of a median
        print(f"bare: {statistics.median(bare_us):.0f} us CPU per request; {self.requests} requests, {rounds} rounds")
        print(f"ratio: quartiles {spread[0]:.3f} {spread[1]:.3f} {spread[2]:.3f}, standard error {error:.3f}")
        return statistics.median(ratios)

    def listener_us(self, repeats: int = 60, calls: int = 3000) -> float:
        """Median cost of firing the request event to our listener beyond firing it to one that does nothing."""
        empty, ours = EventHook(), EventHook()
        empty.add_listener(_nothing)
        ours.add_listener(self.recorder.on_request)
        call = _call(_visit(0))
        self.recorder.begin(call)
        about: dict[str, Any] = {
            "request_type": "GET",
            "name": "x",
            "response_time": 12.3,
            "response_length": 345,
            "response": SimpleNamespace(headers=Headers(HEADERS)),
            "context": {"call": call},
            "exception": None,
            "start_time": 1.0,
            "url": "http://127.0.0.1/x",
        }
        beyond = []
        for _ in range(repeats):
            cost = {hook: _cpu_ns(partial(_fire, hook, about, calls)) for hook in (empty, ours)}
            beyond.append((cost[ours] - cost[empty]) / calls / 1000)
            self.writer.maintain()
        return statistics.median(beyond)

    def stalls(self, calls: int = 100_000) -> float:
        """How many of so many rows, sealing and allocating between them, held the loop for more than 5 ms of CPU."""
        call, late, longest_ms = _call(_visit(0)), 0, 0.0
        for number in range(calls):
            began = time.thread_time_ns()
            self.recorder.begin(call)
            self.recorder.on_request("GET", "x", 12.3, 345, None, {"call": call}, None, 1.0, None)
            if number % 5000 == 0:
                self.writer.rotate()
            took_ms = (time.thread_time_ns() - began) / 1e6
            late, longest_ms = late + (took_ms > STALL_MS), max(longest_ms, took_ms)
            if number % 5000 == 0:
                gevent.get_hub().threadpool.apply(self.writer.maintain)
        print(f"longest call of the recorder in the loop: {longest_ms:.3f} ms CPU of {calls} calls")
        return float(late)

    def _segment(self, recorded: bool) -> float:
        """CPU seconds per request over one stretch of sending."""
        if recorded:
            self.environment.events.request.add_listener(self.recorder.on_request)
        self._recorded = recorded
        before, cpu = self.requests, time.process_time()
        gevent.sleep(SEGMENT_S)
        cpu, sent = time.process_time() - cpu, self.requests - before
        self._recorded = False
        gevent.sleep(0.01)  # requests that began under one way end before the other begins
        if recorded:
            self.environment.events.request.remove_listener(self.recorder.on_request)
        return cpu / sent

    def _send_forever(self, user: Any, slot: int) -> None:
        visit = _visit(slot)
        while True:
            if self._recorded:
                call = _call(visit)
                headers = {**SHOPPER, **self.recorder.begin(call)}
                user.client.get("/x", name="x", headers=headers, context={"call": call})
            else:
                user.client.get("/x", name="x", headers=SHOPPER)
            self.requests += 1


def _visit(slot: int) -> VisitInfo:
    return VisitInfo("quick_browser", "morning", slot, 1, slot, 1, "browse")


def _call(visit: VisitInfo) -> Call:
    call = Call(visit, "cart-service", "GET", "GET /api/cart", 1, 7, 9)
    call.ok, call.status = True, 200
    return call


def _cpu_ns(work: Callable[[], object]) -> int:
    began = time.process_time_ns()
    work()
    return time.process_time_ns() - began


def _fire(hook: EventHook, about: Mapping[str, Any], calls: int) -> None:
    for _ in range(calls):
        hook.fire(**about)


def _nothing(**_: Any) -> None:
    """The empty listener."""


def _stop(message: str) -> None:
    sys.exit(message)


class _Server:
    """A server in a process of its own, so that its CPU time is not ours."""

    def __enter__(self) -> int:
        command = [sys.executable, "-m", "benchmarks.answering"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


if __name__ == "__main__":
    sys.exit(main())

"""What a master costs: its CPU per worker, and per 1,000 requests/s whose rows the workers report to it.

    python -m benchmarks.scale [--seconds 10]
    python -m benchmarks.scale --clusters           what clusters need at the prices below, as in docs/scale.md

The master is a real one in this process (Locust's runner, its statistics, our window, a decision every two seconds told
to every worker). The workers are a process of their own that sends what real ones send, over real sockets: heartbeats,
Locust's reports with 20 endpoints, questions for the clock, rows twice a second. CPU time of this process is measured,
so that it does not matter what else runs. A line through the measured points gives the two prices.
"""

import argparse
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gevent
import numpy as np
from locust import User
from locust.env import Environment
from locust.rpc import Message
from locust.rpc.zmqrpc import Client
from locust.stats import RequestStats

from rl_hooks.control import Decision
from rl_hooks.decision import SERVICES
from rl_hooks.live import LiveWindow
from rl_hooks.observation import Spans
from rl_hooks.record.clocks import ASK_EVERY_S, ASK_MESSAGE, answer_clocks
from rl_hooks.record.recording import DECISIONS_MESSAGE, ROWS_MESSAGE
from rl_hooks.report_rows import Report
from rl_hooks.row import IN_FLIGHT, REQUESTS

ROOT = Path(__file__).resolve().parents[1]
SPANS = Spans.of_seconds(10.0, 2.0)
CELLS = ((5, 0), (25, 0), (50, 0), (50, 2_000), (50, 5_000), (50, 10_000))  # workers, requests/s of all
ROWS_EVERY_S, STATS_EVERY_S, HEARTBEAT_S, ENDPOINTS = 0.5, 3.0, 1.0, 20
WARM_UP_S = 12.0  # a window full, so that as much leaves it as enters


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clusters", action="store_true", help="measure nothing, print the table of docs/scale.md")
    options = parser.parse_args()
    if options.clusters:
        print("\n".join(cluster_table()))
        return 0
    seconds = options.seconds
    master = Master()
    print("workers  requests/s  master's CPU, ms/s  a decision, ms")
    measured = [(workers, rps, *master.cost(workers, rps, seconds)) for workers, rps in CELLS]
    for workers, rps, got_rps, cpu_ms, decision_ms in measured:
        assert rps == 0 or got_rps > 0.8 * rps, (
            f"{got_rps:.0f} of {rps} rows/s arrived: the workers' process is too slow"
        )
        print(f"{workers:7d} {got_rps:11.0f} {cpu_ms:19.1f} {decision_ms:15.1f}")
    points = np.array([(1, workers, got_rps / 1000) for workers, _, got_rps, _, _ in measured])
    base, worker, rows = np.linalg.lstsq(points, np.array([cell[3] for cell in measured]), rcond=None)[0]
    print(f"{base:.1f} ms/s, and {worker:.2f} per worker, and {rows:.1f} per 1,000 requests/s")
    return 0


# -- what clusters need -----------------------------------------------------------------------------------------------

# Measured, see docs/scale.md.
MASTER_MS, MASTER_MS_PER_WORKER, MASTER_MS_PER_1000_RPS = 7.8, 1.2, 5.8  # CPU per second
DECISION_MS_PER_1000_RPS = 9.2  # of a decision every two seconds; the master does nothing else meanwhile
WORKER_US = 500  # CPU per request, with the shopper's own thinking
EXPORT_NS = 200  # CPU per request, without the extra `fast`
# Assumed.
WORKER_LOAD = 0.6  # of a core: beyond it users wait for each other
RUN_RPS = 50_000  # a decision then takes under a quarter of its interval
USER_RPS = 0.5  # requests per second and user

CLUSTERS_RPS = (1_000, 10_000, 50_000, 100_000, 300_000, 1_000_000)


def cluster_table() -> list[str]:
    """One line of Markdown per size of cluster."""
    head = [
        *("requests/s", "workers", "runs", "workers per run", "master, core", "decision, ms", "to a master, MB/s"),
        *("all rows, GB/h", "export, core min per h"),
    ]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(_needs(rps))} |" for rps in CLUSTERS_RPS]


def _needs(rps: int) -> list[str]:
    workers = -(-rps * WORKER_US // round(1e6 * WORKER_LOAD))
    runs = -(-rps // RUN_RPS)
    per_run, thousands = -(-workers // runs), rps / runs / 1000
    master_ms = MASTER_MS + MASTER_MS_PER_WORKER * per_run + MASTER_MS_PER_1000_RPS * thousands
    bytes_per_request = REQUESTS.row_bytes + IN_FLIGHT.row_bytes / ROWS_EVERY_S / USER_RPS
    return [
        f"{rps:,}",
        f"{workers:,}",
        f"{runs}",
        f"{per_run}",
        f"{master_ms / 1000:.2f}",
        f"{DECISION_MS_PER_1000_RPS * thousands:.0f}",
        f"{bytes_per_request * thousands / 1000:.1f}",
        f"{rps * REQUESTS.row_bytes * 3600 / 1e9:,.1f}",
        f"{rps * 3600 * EXPORT_NS / 1e9 / 60:.1f}",
    ]


# -- the master -------------------------------------------------------------------------------------------------------


class Idle(User):
    """Nobody starts it."""


class Master:
    """A master with our listeners."""

    def __init__(self) -> None:
        environment = Environment(user_classes=[Idle])
        self.runner = environment.create_master_runner("127.0.0.1", _free_port())
        self.rows = 0
        self.window = LiveWindow(SPANS, give_up_ns=10**11)
        answer_clocks(self.runner)
        self.runner.register_message(ROWS_MESSAGE, self._fold)

    def _fold(self, msg: Any, **_: Any) -> None:
        report = Report(**msg.data)
        self.window.fold(report)
        self.rows += len(report.rows) // REQUESTS.row_bytes

    def cost(self, workers: int, rps: int, seconds: float) -> tuple[float, float, float]:
        """Rows that arrived per second, ms CPU per second, and of it ms of each decision."""
        self.window = LiveWindow(SPANS, give_up_ns=10**11)
        command = [
            sys.executable,
            "-c",
            "import sys; from benchmarks.scale import be_workers; be_workers(*sys.argv[1:])",
        ]
        process = subprocess.Popen([*command, str(self.runner.master_bind_port), str(workers), str(rps)], cwd=ROOT)
        try:
            while len(self.runner.clients) < workers:
                gevent.sleep(0.05)
            gevent.sleep(WARM_UP_S)
            return self._measured(seconds)
        finally:
            process.kill()
            process.wait()
            for client in list(self.runner.clients):
                del self.runner.clients[client]

    def _measured(self, seconds: float) -> tuple[float, float, float]:
        began_s, cpu_s, rows = time.monotonic(), time.process_time(), self.rows
        decisions, in_decisions_s = 0, 0.0
        while time.monotonic() - began_s < seconds:
            gevent.sleep(SPANS.interval_ns / 1e9)
            before_s = time.process_time()
            self._decide(decisions)
            in_decisions_s += time.process_time() - before_s
            decisions += 1
        took_s = time.monotonic() - began_s
        spent_s = time.process_time() - cpu_s
        return (self.rows - rows) / took_s, 1000 * spent_s / took_s, 1000 * in_decisions_s / decisions

    def _decide(self, tick: int) -> None:
        now_ns = time.time_ns()
        self.window.observe(now_ns, None)
        sixth = (1 / 6,) * 6
        self.window.decided(
            now_ns, [Decision(tick, service, 0, sixth, "uniform", True) for service in range(len(SERVICES))]
        )
        chosen = [(service, 0, 1 / 6) for service in range(len(SERVICES))]
        for worker in list(self.runner.clients):
            self.runner.send_message(DECISIONS_MESSAGE, {"tick": tick, "chosen": chosen}, worker)


# -- the process of the workers ---------------------------------------------------------------------------------------


def be_workers(port: str, workers: str, rps: str) -> None:
    """Send what so many workers send, until killed."""
    number = int(workers)
    gevent.joinall([gevent.spawn(_be_worker, int(port), f"w{index}", int(rps) / number) for index in range(number)])


def _be_worker(port: int, name: str, rps: float) -> None:
    client = Client("127.0.0.1", port, name)
    client.send(Message("client_ready", "2.47.0", name))
    gevent.spawn(_hear, client)
    duties = (
        (
            HEARTBEAT_S,
            lambda: ("heartbeat", {"state": "running", "current_cpu_usage": 50, "current_memory_usage": 10**8}),
        ),
        (STATS_EVERY_S, lambda: ("stats", _statistics(rps))),
        (ASK_EVERY_S, lambda: (ASK_MESSAGE, {"asked_ns": time.monotonic_ns()})),
        (ROWS_EVERY_S, _Rows(name, rps)),
    )
    gevent.joinall([gevent.spawn(_keep, client, name, every_s, make) for every_s, make in duties])


def _keep(client: Any, name: str, every_s: float, make: Any) -> None:
    gevent.sleep(every_s * np.random.default_rng().random())
    next_s = time.monotonic()
    while True:
        kind, data = make()
        client.send(Message(kind, data, name))
        next_s += every_s
        gevent.sleep(max(0.0, next_s - time.monotonic()))


def _hear(client: Any) -> None:
    while True:
        client.recv()


def _statistics(rps: float) -> dict[str, Any]:
    stats = RequestStats()
    for endpoint in range(ENDPOINTS):
        for time_ms in range(max(1, min(100, round(rps * STATS_EVERY_S / ENDPOINTS)))):
            stats.log_request("GET", f"GET /api/{endpoint}", time_ms + 20, 500)
    return {
        "stats": stats.serialize_stats(),
        "stats_total": stats.total.get_stripped_report(),
        "errors": stats.serialize_errors(),
        "user_classes_count": {"Idle": 0},
        "user_count": 0,
    }


class _Rows:
    """A worker's reports: requests of 30 ms, all of them ended."""

    def __init__(self, name: str, rps: float) -> None:
        self._name = name
        self._count = round(rps * ROWS_EVERY_S)
        self._seq = 0

    def __call__(self) -> tuple[str, dict[str, Any]]:
        rows = np.zeros(self._count, REQUESTS.dtype)
        numbers = np.arange(self._seq + 1, self._seq + 1 + self._count)
        now_ns = time.time_ns()
        rows["start_ns"] = now_ns - np.linspace(ROWS_EVERY_S * 1e9, 0, self._count).astype(np.int64) - 30_000_000
        rows["duration_us"], rows["ok"], rows["seq"] = 30_000, 1, numbers
        rows["trace_hi"], rows["trace_lo"] = hash(self._name) & 0xFFFF, numbers
        rows["service"] = numbers % len(SERVICES)
        self._seq += self._count
        return ROWS_MESSAGE, Report(self._name, self._seq, now_ns, rows.tobytes(), b"").to_message()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())

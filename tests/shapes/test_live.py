"""Real runs of Locust: its command line, its runners, real processes and a real server on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
DEADLINE_S = 120.0  # a busy machine is slow, and a hang is a hang
HELD_S = 2.0

RAMP_S = 1.0
ZERO = {"alpha": 0, "beta": 0, "gamma": 0, "delta": 0}
# Seconds and users. The fourth phase is too short to be checked: the alphas of the third still finish their visit
# of 8 s when those of the fifth are wanted.
TIMELINE = [
    (4.5, {"alpha": 4, "beta": 3, "gamma": 2, "delta": 1}),
    (4.5, {"alpha": 1, "beta": 2, "gamma": 3, "delta": 4}),  # exchanged, at the same total
    (4.5, {"alpha": 5, "beta": 4, "gamma": 6, "delta": 8}),  # grown
    (2.5, {"beta": 1, "gamma": 2, "delta": 3}),  # shrunk, one to zero
    (4.5, {"alpha": 5, "beta": 1, "gamma": 2, "delta": 3}),  # and back
    (4.5, {"beta": 3, "gamma": 2, "delta": 1}),  # to zero for long
]
TOO_SHORT = {3}
TWO_PHASES = [(4, {"beta": 2, "gamma": 1}), (4, {"beta": 1, "delta": 2})]
MODES = ("local", "master")


class Lab:
    """A folder, a server and the processes of one test; everything it started ends with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []
        self.server = self.start(HERE / "slow_server.py", stdout=subprocess.PIPE)
        assert self.server.stdout is not None
        self.host = f"http://127.0.0.1:{int(self.server.stdout.readline())}"

    def setup(self, phases: list[tuple[float, dict[str, int]]], **more: object) -> None:
        setup = {"folder": str(self.folder), "host": self.host, "phases": phases, "ramp_s": RAMP_S}
        self.environment = os.environ | {
            "TIMELINE_TEST": json.dumps(setup | {"stop_timeout_s": 10.0} | more),
            "PYTHONPATH": str(ROOT),
        }

    def start(self, *args: object, stdout: int | None = None) -> subprocess.Popen[str]:
        log = (self.folder / f"process-{len(self.processes)}.log").open("w")
        process = subprocess.Popen(
            [sys.executable, *map(str, args)],
            cwd=ROOT,
            env=getattr(self, "environment", None),
            stdin=subprocess.DEVNULL,
            stdout=stdout or log,
            stderr=log,
            text=True,
        )
        log.close()
        self.processes.append(process)
        return process

    def locust(self, *options: object) -> subprocess.Popen[str]:
        return self.start("-m", "locust", "-f", HERE / "live.py", "--headless", "--skip-log", *options)

    def worker(self, port: int) -> subprocess.Popen[str]:
        return self.start("-m", "locust", "-f", HERE / "live.py", "--worker", "--master-port", port)

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("process-*.log")))

    def rows(self, pattern: str) -> list[dict]:
        text = "".join(path.read_text() for path in sorted(self.folder.glob(pattern)))
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def ticks(self) -> list[dict]:
        return [row for row in self.rows("ticks.jsonl") if "planned" in row]

    def users(self, process: subprocess.Popen[str]) -> dict[str, int]:
        """The running users of a process, in its latest sample."""
        rows = self.rows(f"users-{process.pid}.jsonl")
        return ZERO | rows[-1]["running"] if rows else ZERO

    def series(self) -> list[tuple[float, dict[str, int]]]:
        """Running users over all processes, at every moment one of them took a sample."""
        samples = []
        for path in self.folder.glob("users-*.jsonl"):
            samples += [(row["t"], path.name, row["running"]) for row in self.rows(path.name)]
        latest: dict[str, dict[str, int]] = {}
        series = []
        for t, process, running in sorted(samples, key=lambda sample: sample[:2]):
            latest[process] = running
            series.append((t, ZERO | sum(map(Counter, latest.values()), Counter())))
        return series

    def requests(self) -> dict[str, int]:
        with urllib.request.urlopen(f"{self.host}/counts", timeout=10) as answer:
            return json.load(answer)

    def until(self, what: str, holds: Callable[[], bool], *, held_s: float = 0.0) -> None:
        """Wait until `holds` and has held without a break for `held_s`."""
        deadline = time.monotonic() + DEADLINE_S
        since: float | None = None
        while True:
            now = time.monotonic()
            since = (since or now) if holds() else None
            if since is not None and now - since >= held_s:
                return
            assert now < deadline, f"not within {DEADLINE_S} s: {what}\n{self.logs()[-6000:]}"
            time.sleep(0.05)

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(10)
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def timeline_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Lab]]:
    """The same timeline by the command line, local and distributed, side by side and both ended."""
    labs = {mode: Lab(tmp_path_factory.mktemp(mode)) for mode in MODES}
    for lab in labs.values():
        lab.setup(TIMELINE)
    labs["local"].locust()
    port = free_port()
    labs["master"].worker(port)
    labs["master"].worker(port)
    labs["master"].locust("--master", "--master-bind-port", port, "--expect-workers", 2)
    yield from ended(labs)


@pytest.fixture(scope="module")
def second_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Lab]]:
    """Two runs in one process, the first one stopped by hand; local and distributed, side by side and both ended."""
    labs = {mode: Lab(tmp_path_factory.mktemp(f"second-{mode}")) for mode in MODES}
    port = free_port()
    for mode, lab in labs.items():
        lab.setup(TWO_PHASES, stop_timeout_s=2.0)
        if mode == "master":
            lab.worker(port)
            lab.worker(port)
        lab.start(HERE / "live.py", mode, port)
    yield from ended(labs)


def ended(labs: dict[str, Lab]) -> Iterator[dict[str, Lab]]:
    try:
        for lab in labs.values():
            for process in lab.processes[1:]:
                process.wait(DEADLINE_S)
        yield labs
    finally:
        for lab in labs.values():
            lab.close()


@pytest.mark.parametrize("mode", MODES)
def test_users_per_profile_equal_the_plan_in_every_phase(timeline_runs: dict[str, Lab], mode: str) -> None:
    lab = timeline_runs[mode]
    assert lab.processes[-1].returncode == 0, lab.logs()[-6000:]
    first = lab.ticks()[0]
    start, began = 0.0, first["t"] - first["run_time_s"]
    for index, (duration_s, mix) in enumerate(TIMELINE):
        window = (began + start + RAMP_S, began + start + duration_s)
        start += duration_s
        if index in TOO_SHORT:
            continue
        counts = [running for t, running in lab.series() if window[0] <= t < window[1]]
        wanted = ZERO | mix
        assert wanted in counts, f"phase {index}: {counts[-1]} instead of {wanted}"
        held = counts[counts.index(wanted) :]
        assert all(running == wanted for running in held), f"phase {index} was not held: {held}"
        last_tick = [tick for tick in lab.ticks() if window[0] <= tick["t"] < window[1]][-1]
        assert last_tick["planned"] == wanted
        assert last_tick["actual"] == wanted
    assert "order is sent again" not in lab.logs()


@pytest.mark.parametrize("mode", MODES)
def test_the_run_ends_when_the_last_user_has_left(timeline_runs: dict[str, Lab], mode: str) -> None:
    lab = timeline_runs[mode]
    end = lab.ticks()[-1]
    assert end["planned"] == end["actual"] == ZERO
    for path in lab.folder.glob("users-*.jsonl"):
        before = [row for row in lab.rows(path.name) if row["t"] <= end["t"]]
        assert before[-1]["running"] == {}
        assert before[-1]["stopping"] == 0
    assert "users still there" not in lab.logs()


@pytest.mark.parametrize("mode", MODES)
def test_users_that_are_told_to_stop_finish_their_requests(timeline_runs: dict[str, Lab], mode: str) -> None:
    lab = timeline_runs[mode]
    assert any(row["stopping"] for row in lab.rows("users-*.jsonl")), "nobody was busy when told to stop"
    requests = lab.requests()
    assert requests["aborted"] == 0
    assert requests["answered"] == requests["begun"] > 100
    assert "did not finish" not in lab.logs()


def test_a_spawn_message_builds_no_argument_parser(timeline_runs: dict[str, Lab]) -> None:
    lab = timeline_runs["master"]
    for worker in lab.processes[1:3]:
        assert any(row["running"] for row in lab.rows(f"users-{worker.pid}.jsonl"))
        assert lab.rows(f"parsers-{worker.pid}.jsonl") == []


def test_a_lost_worker_a_new_dispatcher_and_a_new_worker_keep_the_mix(lab: Lab) -> None:
    mix = {"alpha": 4, "beta": 3, "gamma": 2, "delta": 1}
    lab.setup([(300, mix)], dead_after=-4)
    port = free_port()
    first, second = lab.worker(port), lab.worker(port)
    lab.locust("--master", "--master-bind-port", port, "--expect-workers", 2, "--enable-rebalancing")

    def together(*workers: subprocess.Popen[str]) -> bool:
        counts = [lab.users(worker) for worker in workers]
        totals = [sum(count.values()) for count in counts]
        return sum(map(Counter, counts), Counter()) == Counter(mix) and max(totals) - min(totals) <= 1

    lab.until("the mix on two workers", lambda: together(first, second), held_s=HELD_S)
    dispatcher = lab.ticks()[-1]["dispatcher"]

    first.send_signal(signal.SIGKILL)
    lab.until("the mix on the worker that is left", lambda: together(second))
    left_alone = time.time()
    lab.until("a new dispatcher", lambda: lab.ticks()[-1]["dispatcher"] != dispatcher)
    lab.until("the mix with the new dispatcher", lambda: together(second), held_s=HELD_S)
    since = [ZERO | row["running"] for row in lab.rows(f"users-{second.pid}.jsonl") if row["t"] > left_alone]
    assert all(running == mix for running in since), "the new dispatcher let the load collapse"

    third = lab.worker(port)
    lab.until("the mix, evenly on the old and the new worker", lambda: together(second, third), held_s=HELD_S)


@pytest.mark.parametrize("mode", MODES)
def test_a_second_run_in_the_same_process_follows_the_plan(second_runs: dict[str, Lab], mode: str) -> None:
    lab = second_runs[mode]
    assert lab.processes[-1].returncode == 0, lab.logs()[-6000:]
    rows = lab.rows("ticks.jsonl")
    second = rows[rows.index({"run": 1}) + 1 :]
    carried_out = [tick["actual"] for tick in second if tick["actual"] == tick["planned"]]
    for _, mix in TWO_PHASES:
        assert ZERO | mix in carried_out
    assert second[-1]["planned"] == ZERO
    # The second run begins at once; the workers sleep for the stop timeout before they are ready again.
    assert ("The timeline waits for the first worker" in lab.logs()) == (mode == "master")
    assert lab.requests()["aborted"] == 0

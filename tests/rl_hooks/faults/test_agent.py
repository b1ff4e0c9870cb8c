"""The fault agent as a process beside a real sandbox: right moments, and nothing left behind however a run ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from rl_hooks.faults.agent import Orders
from rl_hooks.faults.schedule import in_force
from rl_hooks.run_folder import create_run_folder
from rl_hooks.run_reader import read_run
from scenario.faults import PlanFault
from tests.processes import ROOT, TIMEOUT_S, sandbox_started, wait_until
from tests.rl_hooks.faults.made import fault

AGENT = [sys.executable, "-m", "rl_hooks.faults", "agent"]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    with sandbox_started("--healthy") as running:
        yield running.host.removesuffix("/proxy")


def acting(root: str) -> set[tuple[str, str]]:
    faults = requests.get(f"{root}/control/faults", timeout=10).json()["faults"]
    return {(one["service"], one["kind"]) for one in faults}


STARTED: list["subprocess.Popen[bytes]"] = []


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> Iterator[None]:
    yield
    for process in STARTED:
        if process.poll() is None:
            process.kill()
        process.communicate()
    STARTED.clear()


class Agent:
    """An agent of a run with these faults; the run's clock begins with `begin`."""

    def __init__(self, folder: Path, root: str, faults: list[PlanFault], injector: str = "sandbox") -> None:
        told = {"injector": "sandbox", "injector_spec": injector, "root": root, "planned": len(faults)}
        listed = [one.to_json() for one in faults]
        create_run_folder(folder, {"run_id": "run", "scenario": "x", "faults": {**told, "list": listed}})
        self.folder, self.root = folder, root
        self.process = subprocess.Popen(AGENT, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        STARTED.append(self.process)
        self.tell(Orders(folder, injector, root, tuple(faults)).to_line())

    def tell(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def begin(self) -> None:
        self.began_ns = time.time_ns()
        self.tell(json.dumps({"start_unix_ns": self.began_ns}).encode() + b"\n")

    def ended(self) -> tuple[int, str]:
        """Close its input; its exit code and what it said."""
        said = self.process.communicate(timeout=TIMEOUT_S)[0].decode()
        return self.process.returncode, said

    def changes(self) -> list[dict[str, Any]]:
        return [dict(event) for event in read_run(self.folder).events if event["kind"] == "fault"]


def test_faults_come_and_go_at_their_moments_and_are_written_down(sandbox: str, tmp_path: Path) -> None:
    made = [fault(0, start_s=0.5, end_s=4), fault(1, kind="errors", value=0.2, start_s=2, end_s=6)]
    agent = Agent(tmp_path / "run", sandbox, made)
    agent.begin()
    wait_until(lambda: ("cart-service", "latency") in acting(sandbox), "the first acts")
    wait_until(lambda: ("cart-service", "errors") in acting(sandbox), "the second acts")
    wait_until(lambda: acting(sandbox) == set(), "both are over")
    code, said = agent.ended()
    assert (code, said.splitlines()) == (
        0,
        [
            "fault applied: cart-service latency 5",
            "fault applied: cart-service errors 0.2",
            "fault lifted: cart-service latency 5",
            "fault lifted: cart-service errors 0.2",
        ],
    )
    changes = agent.changes()
    assert [(one["what"], one["fault"], one["planned_s"]) for one in changes] == [
        ("applied", 0, 0.5),
        ("applied", 1, 2),
        ("lifted", 0, 4),
        ("lifted", 1, 6),
    ]
    for one in changes:  # never before its moment
        assert (one["t_ns"] - agent.began_ns) / 1e9 >= one["planned_s"]
    run = read_run(agent.folder)
    assert [(who.role, who.closed) for who in run.incarnations] == [("faults", True)]
    assert run.losses == ()


def test_when_the_run_is_stopped_what_acts_is_lifted(sandbox: str, tmp_path: Path) -> None:
    agent = Agent(tmp_path / "run", sandbox, [fault(0), fault(1, kind="errors", value=0.2, start_s=30, end_s=40)])
    agent.begin()
    wait_until(lambda: bool(acting(sandbox)), "it acts")
    code, said = agent.ended()
    assert (code, said.splitlines()[-1]) == (0, "fault lifted: cart-service latency 5")
    assert acting(sandbox) == set()
    assert [one["what"] for one in agent.changes()] == ["applied", "lifted"]  # the second was never due


def test_a_run_that_ends_before_its_clock_began_needs_no_fault(sandbox: str, tmp_path: Path) -> None:
    agent = Agent(tmp_path / "run", sandbox, [fault()])
    assert agent.ended() == (0, "")
    assert agent.changes() == []


def test_when_the_run_is_killed_what_acts_is_lifted(sandbox: str, tmp_path: Path) -> None:
    """The agent's parent, in the role of Locust, is killed with SIGKILL."""
    orders = Orders(tmp_path / "run", "sandbox", sandbox, (fault(),))
    create_run_folder(tmp_path / "run", {"run_id": "run", "scenario": "x"})
    program = f"""
import subprocess, sys, time, json
agent = subprocess.Popen({AGENT!r}, stdin=subprocess.PIPE, start_new_session=True)
agent.stdin.write({orders.to_line()!r} + json.dumps({{"start_unix_ns": time.time_ns()}}).encode() + b"\\n")
agent.stdin.flush()
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    try:
        wait_until(lambda: acting(sandbox) == {("cart-service", "latency")}, "it acts")
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    wait_until(lambda: acting(sandbox) == set(), "it is lifted")
    wait_until(lambda: all(who.closed for who in read_run(tmp_path / "run").incarnations), "the agent has closed")
    assert [event["what"] for event in read_run(tmp_path / "run").events] == ["applied", "lifted"]


def test_what_a_killed_agent_left_is_lifted_by_hand(sandbox: str, tmp_path: Path) -> None:
    agent = Agent(tmp_path / "run", sandbox, [fault()])
    agent.begin()
    wait_until(lambda: [one["what"] for one in agent.changes()] == ["applied"], "it acts and is written down")
    agent.process.kill()
    agent.process.communicate()
    assert acting(sandbox) == {("cart-service", "latency")}
    command = [sys.executable, "-m", "rl_hooks.faults", "lift", str(agent.folder)]
    for said in ("1 faults were in force, none is now", "0 faults were in force, none is now"):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == said
    assert acting(sandbox) == set()
    assert in_force(agent.changes()) == {}


def test_what_could_not_be_made_or_taken_back_is_written_down_and_the_code_says_so(
    sandbox: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from rl_hooks.faults.injector import InjectorError\n"
        "class Mine:\n"
        "    def __init__(self, root): pass\n"
        "    def describe(self): return 'mine'\n"
        "    def problems(self, faults): return []\n"
        "    def apply(self, fault):\n"
        "        if fault.kind == 'errors': raise InjectorError('no way')\n"
        "        return 'x'\n"
        "    def lift(self, fault, handle): raise InjectorError('it stays')\n"
    )
    folder = tmp_path / "run"
    create_run_folder(folder, {"run_id": "run", "scenario": "x"})
    made = (fault(0), fault(1, kind="errors", value=0.5), fault(2, start_s=-20.0, end_s=-10.0))
    begin = json.dumps({"start_unix_ns": time.time_ns()}).encode() + b"\n"
    lines = Orders(folder, "mine:Mine", "", made).to_line() + begin
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    with subprocess.Popen(AGENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, cwd=tmp_path) as process:
        assert process.stdin is not None
        process.stdin.write(lines)
        process.stdin.flush()
        wait_until(lambda: len(read_run(folder).events) == 3, "all are tried")
        process.communicate(timeout=TIMEOUT_S)
    changes = [(one["what"], one["fault"], one["why"]) for one in read_run(folder).events]
    assert changes == [
        ("not_applied", 2, "it was over before it could be made"),
        ("applied", 0, None),
        ("not_applied", 1, "no way"),
        ("not_lifted", 0, "it stays"),
    ]
    assert process.returncode == 1

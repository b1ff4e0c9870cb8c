"""The process that makes a run's faults at the right moment, and takes back whatever still acts when the run is over.

It is a process of its own so that nothing the load generator does, and nothing that is done to it, can leave a fault
behind: what it reads from is a pipe from the run's leading process, and when that closes - the run ended, was stopped,
failed or was killed - it lifts every fault, writes that down and ends. Should the agent be killed as well,
`python -m rl_hooks.faults lift RUN` does the same from what is written.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rl_hooks.faults.injector import Injector, InjectorError, make_injector
from rl_hooks.faults.schedule import APPLIED, LIFTED, NOT_APPLIED, NOT_LIFTED, Change, changes, in_force
from rl_hooks.run_folder import EventWriter
from scenario.faults import PlanFault

TRIES = 3
TRY_AGAIN_S = 0.5  # real seconds between two tries


@dataclass(frozen=True)
class Orders:
    """What the leading process tells the agent in the first line."""

    folder: Path
    injector: str
    root: str
    faults: tuple[PlanFault, ...]

    def to_line(self) -> bytes:
        content = {
            "folder": str(self.folder),
            "injector": self.injector,
            "root": self.root,
            "faults": [fault.to_json() for fault in self.faults],
        }
        return json.dumps(content).encode() + b"\n"

    @staticmethod
    def from_line(line: bytes) -> "Orders":
        content = json.loads(line)
        faults = tuple(PlanFault.from_json(fault) for fault in content["faults"])
        return Orders(Path(content["folder"]), content["injector"], content["root"], faults)


class Agent:
    """Applies and lifts faults and writes down what it did; `failed` says whether something could not be done."""

    def __init__(self, injector: Injector, events: EventWriter, say: Callable[[str], None]) -> None:
        self.failed = False
        self._injector = injector
        self._events = events
        self._say = say
        self._handles: dict[int, tuple[PlanFault, str]] = {}  # of the faults in force

    def carry_out(self, change: Change, now_s: float) -> None:
        """Make a change that is due at `now_s`; a fault that is over by then is not made."""
        fault = change.fault
        if not change.begins:
            self.lift(fault, change.at_s)
        elif now_s >= fault.end_s:
            self._note(NOT_APPLIED, fault, fault.start_s, "it was over before it could be made")
        else:
            self._apply(fault)

    def lift_all(self) -> None:
        """Lift what still acts, the latest first."""
        for fault, _ in reversed(list(self._handles.values())):
            self.lift(fault, fault.end_s)

    def lift(self, fault: PlanFault, planned_s: float) -> None:
        known = self._handles.pop(fault.index, None)
        if known is None:  # it could not be applied
            return
        why = self._try(lambda: self._injector.lift(fault, known[1]))
        self._note(LIFTED if why is None else NOT_LIFTED, fault, planned_s, why)

    def know(self, fault: PlanFault, handle: str) -> None:
        """A fault that acts already, made by another agent."""
        self._handles[fault.index] = (fault, handle)

    def _apply(self, fault: PlanFault) -> None:
        handles: list[str] = []
        why = self._try(lambda: handles.append(self._injector.apply(fault)))
        if why is None:
            self._handles[fault.index] = (fault, handles[0])
        self._note(APPLIED if why is None else NOT_APPLIED, fault, fault.start_s, why)

    def _try(self, do: Callable[[], object]) -> str | None:
        """None when it worked, else why it did not."""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(TRY_AGAIN_S)
            try:
                do()
            except InjectorError as error:
                why = str(error)
            else:
                return None
        return why

    def _note(self, what: str, fault: PlanFault, planned_s: float, why: str | None) -> None:
        facts = {
            "what": what,
            "fault": fault.index,
            "phase": fault.phase,
            "service": fault.service,
            "instances": list(fault.instances),
            "fault_kind": fault.kind,
            "value": fault.value,
            "planned_s": planned_s,
            "injector": self._injector.describe(),
            "why": why,
        }
        if what == APPLIED:
            facts["handle"] = self._handles[fault.index][1]
        self._events.event("fault", **facts)
        self.failed |= why is not None
        self._say(f"fault {what.replace('_', ' ')}: {fault.text}{f' ({why})' if why else ''}")


def run(pipe: BinaryIO, say: Callable[[str], None]) -> int:
    """Follow the orders in `pipe` until it closes. The exit code: 0 all was done, 1 something could not be.

    Line 1: `Orders`. Line 2: {"start_unix_ns": ...}, when the run's clock began. Then nothing, until the end.
    """
    orders = Orders.from_line(pipe.readline())
    injector = make_injector(orders.injector, orders.root)
    assert injector is not None  # there would be no agent
    events = EventWriter(orders.folder, "faults")
    agent = Agent(injector, events, say)
    begun = pipe.readline()
    if begun:
        start_s = json.loads(begun)["start_unix_ns"] / 1e9
        _follow(agent, changes(orders.faults), lambda: time.time() - start_s, _closing_of(pipe))
    agent.lift_all()
    events.close()
    return int(agent.failed)


def lift_left_over(run_events: Sequence[Mapping[str, Any]], faults: Sequence[PlanFault], agent: Agent) -> int:
    """Lift the faults that a killed run left behind; how many there were."""
    by_index = {fault.index: fault for fault in faults}
    left = in_force(run_events)
    for index, event in left.items():
        agent.know(by_index[index], event["handle"])
    agent.lift_all()
    return len(left)


def _follow(agent: Agent, planned: Sequence[Change], run_time_s: Callable[[], float], over: threading.Event) -> None:
    for change in planned:
        if over.wait(max(0.0, change.at_s - run_time_s())):
            return
        agent.carry_out(change, run_time_s())
    over.wait()


def _closing_of(pipe: BinaryIO) -> threading.Event:
    """Set when the other end of the pipe has closed."""
    over = threading.Event()

    def wait() -> None:
        pipe.read()
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    return over

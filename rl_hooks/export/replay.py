"""What each decision of a run had seen, looked at again: the observations it was made with, from the rows alone.

A decision knows the rows of a process as far as they were reported (`seen` events): those up to a number have ended,
those that were sent before a moment and have a higher number were in flight. Fed with exactly that, the window gives
the observations that were recorded. So what a policy is trained on is what it is served with.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.action_space import ActionSpace
from rl_hooks.export.align import sampled_numbers, spans_of
from rl_hooks.live import give_up_ns, is_gone
from rl_hooks.observation import ObservationWindow
from rl_hooks.request_log import end_ns
from rl_hooks.run_reader import Run
from scenario.plan import Plan

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Replayed:
    """The observations of one tick."""

    tick: int
    values: npt.NDArray[np.float32]  # (services, features)


def replay(run: Run, plan: Plan) -> Iterator[Replayed]:
    """The observations of every tick that says what it had seen, in order of time.

    `run` has the times as they were recorded: `read_run(path, correct_clocks=False)`. What was known of the clocks when
    a decision was made is in its `seen` event. ValueError for a run whose times were corrected.
    """
    if any(clock.corrects for clock in run.clocks):
        raise ValueError(f"{run.path}: its times were corrected; a replay needs those that were recorded")
    labels = ActionSpace.of(run.manifest).labels
    window, give_up = ObservationWindow(spans_of(plan), labels=labels), give_up_ns(plan.request_timeout_s)
    window.push_samples(run.samples, sampled_numbers(run, run.samples, run.names["instance"]))
    processes = [_Process(run, number) for number in range(len(run.incarnations))]
    by_name = {who.name: process for who, process in zip(run.incarnations, processes, strict=True)}
    decisions = run.decisions
    for event in run.events:
        if event["kind"] != "seen":
            continue
        for name, (seq, at_ns, *moved) in sorted(event["rows"].items()):
            offset_ns = sum(moved)  # runs recorded before clocks were compared have none
            by_name[name].push(window, seq, at_ns, offset_ns)
            if is_gone(at_ns + offset_ns, event["observed_ns"], give_up):
                by_name[name].give_up(window, at_ns + offset_ns)
        before = decisions[decisions["tick"] < event["tick"]]
        known = before[before["tick"] == before["tick"].max()] if len(before) else before
        window.push_decisions(known["service"], known["t_ns"], known["action"], known["actuated"])
        yield Replayed(int(event["tick"]), window.observe(int(event["observed_ns"])).values)


class _Process:
    """The requests of one process in the order in which they ended, then those that never did; what was pushed."""

    def __init__(self, run: Run, number: int) -> None:
        ended = run.requests[run.requests["incarnation"] == number]
        ended = ended[np.argsort(ended["seq"], kind="stable")]
        never = run.in_flight[run.in_flight["incarnation"] == number]
        self._rows, self._end_ns = ended, end_ns(ended)
        self._service = np.concatenate((ended["service"], never["service"]))
        self._start_ns = np.concatenate((ended["start_ns"], never["start_ns"]))
        self._open = np.zeros(len(self._service), bool)  # known to be in flight
        self._ended = 0  # rows whose end was pushed

    def push(self, window: ObservationWindow, seq: int, at_ns: int, offset_ns: int) -> None:
        """Rows up to `seq` have ended; what was sent before `at_ns` and has not ended is in flight."""
        ended = int(np.searchsorted(self._rows["seq"], seq, side="right"))
        new = slice(self._ended, ended)
        begins = ~self._open & (self._start_ns <= at_ns)
        begins[:ended] = False
        begins[new] = ~self._open[new]
        window.push_starts(self._service[begins], self._start_ns[begins] + offset_ns)
        rows = self._rows[new]
        window.push_completions(rows["service"], self._end_ns[new] + offset_ns, rows["duration_us"], rows["ok"])
        self._open |= begins
        self._open[:ended] = False
        self._ended = ended

    def give_up(self, window: ObservationWindow, at_ns: int) -> None:
        """The process is gone: nothing of it is in flight any more."""
        window.push_lost(self._service[self._open], np.full(int(self._open.sum()), at_ns))
        self._open[:] = False

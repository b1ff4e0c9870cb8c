"""The observation window of a running system, fed by what its processes report.

    each process that sends requests                 the process that decides
    Reporter.report(now)  -- Report: new rows, -->   LiveWindow.fold(report)
                             what is in flight       LiveWindow.observe(now, sample) -> observations

The same `ObservationWindow` makes the exporter's observations, so that both mean the same. A process that decides for
workers knows their rows as far as they have reported them; `seen` says how far that was, so that the exporter can look
at exactly that again (`rl_hooks.export.replay`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.action_space import ALL_STRATEGIES, ActionSpace
from rl_hooks.control import Decision, Sample
from rl_hooks.observation import ObservationWindow, Spans
from rl_hooks.report_rows import Report
from rl_hooks.row import IN_FLIGHT, REQUESTS, SAMPLES

Array = npt.NDArray[Any]

SILENT_AT_LEAST_S = 3.0  # real; a busy worker may be late with its report


@dataclass(frozen=True, slots=True)
class Seen:
    """How far the rows of one process were known."""

    seq: int  # number of its last request row
    at_ns: int  # what it had in flight was known as of this moment, by its own clock
    offset_ns: int = 0  # by how much the times of its rows since the last observation were moved, to be ours

    @property
    def at_here_ns(self) -> int:
        return self.at_ns + self.offset_ns


class LiveWindow:
    """See the module.

    `give_up_ns`: a process that has not reported for so long is gone, and nothing of it is in flight any more.
    """

    def __init__(self, spans: Spans, give_up_ns: int, space: ActionSpace = ALL_STRATEGIES) -> None:
        self.seen: dict[str, Seen] = {}  # incarnation -> how far the last observation knew its rows
        self.on_rows: Callable[[Array], None] | None = None  # is told of all rows of REQUESTS as they come
        self._reported: dict[str, Seen] = {}  # incarnation -> how far they are known by now
        self._offset_ns: dict[str, int] = {}  # incarnation -> its newest offset; in use from the next observation on
        self._space = space
        self._window = ObservationWindow(spans, labels=space.labels)
        # What the window has not been given yet: once per observation, since reports of several processes overlap in
        # time and the window would be sorted anew for each.
        self._starts: list[tuple[Array, Array]] = []
        self._completions: list[tuple[Array, Array, Array, Array]] = []
        self._open: dict[str, dict[tuple[int, int], int]] = {}  # incarnation -> trace id -> service, known in flight
        self._give_up_ns = give_up_ns

    def fold(self, report: Report) -> None:
        """Take in what a process reports. ValueError when rows are missing between this report and the last one."""
        before = self._reported.get(report.incarnation, Seen(0, 0))
        rows = np.frombuffer(report.rows, REQUESTS.dtype)
        if report.seq - len(rows) != before.seq:
            text = f"rows {before.seq + 1} to {report.seq - len(rows)} were not reported"
            raise ValueError(f"{report.incarnation}: {text}")
        # One offset for all reports between two observations, so that `seen` tells what was done to which row.
        offset_ns = before.offset_ns if report.incarnation in self._reported else report.offset_ns
        self._offset_ns[report.incarnation] = report.offset_ns
        self._reported[report.incarnation] = Seen(report.seq, report.at_ns, offset_ns)
        if self.on_rows is not None:
            self.on_rows(rows)
        opened = self._open.setdefault(report.incarnation, {})
        ended = _traces(rows)
        is_new = np.array([trace not in opened for trace in ended], bool)
        start_ns = rows["start_ns"] + offset_ns
        self._starts.append((rows["service"][is_new], start_ns[is_new]))
        end_ns = start_ns + rows["duration_us"].astype(np.int64) * 1000
        self._completions.append((rows["service"], end_ns, rows["duration_us"], rows["ok"]))
        for trace in ended:
            opened.pop(trace, None)
        places = np.frombuffer(report.board, IN_FLIGHT.dtype)
        busy = places[places["busy"] == 1]
        started = busy[np.array([trace not in opened for trace in _traces(busy)], bool)]
        opened.update(zip(_traces(started), started["service"].tolist(), strict=True))
        self._starts.append((started["service"], started["start_ns"] + offset_ns))

    def observe(self, t_ns: int, sample: Sample | None) -> npt.NDArray[np.float32]:
        """The observations at `t_ns`, (services, features)."""
        if sample is not None:
            names = [instance.instance for instance in sample.instances]
            numbers = self._space.numbers(names, absent=-1)
            mine = [numbers[instance.service][place] for place, instance in enumerate(sample.instances)]
            self._window.push_samples(sample_rows(sample), np.array(mine, np.int64))
        self._hand_over()
        self.seen = dict(self._reported)  # more may be reported while the decision is on its way to the balancer
        for name, opened in self._open.items():
            at_ns = self.seen[name].at_here_ns
            if opened and is_gone(at_ns, t_ns, self._give_up_ns):
                self._window.push_lost(np.array(list(opened.values())), np.full(len(opened), at_ns))
                opened.clear()
        for name, offset_ns in self._offset_ns.items():
            self._reported[name] = replace(self._reported[name], offset_ns=offset_ns)
        return self._window.observe(t_ns).values

    def give_up(self, incarnation: str, traces: Sequence[tuple[int, int]], t_ns: int) -> None:
        """The end of these requests of a process will not be told: they are not in flight any more from `t_ns` on."""
        self._hand_over()
        opened = self._open.get(incarnation, {})
        lost = [opened.pop(trace) for trace in traces if trace in opened]
        self._window.push_lost(np.array(lost, np.int64), np.full(len(lost), t_ns))

    def _hand_over(self) -> None:
        if self._starts:
            self._window.push_starts(*_joined(self._starts))
            self._window.push_completions(*_joined(self._completions))
            self._starts.clear()
            self._completions.clear()

    def decided(self, t_ns: int, decisions: Sequence[Decision]) -> None:
        self._window.push_decisions(*decision_rows(t_ns, decisions))


class LocalWindow(LiveWindow):
    """That of a process that sends and decides: it reads its own rows whenever it looks."""

    def __init__(self, spans: Spans, give_up_ns: int, reporter: Any, space: ActionSpace = ALL_STRATEGIES) -> None:
        super().__init__(spans, give_up_ns, space)
        self._reporter = reporter

    def observe(self, t_ns: int, sample: Sample | None) -> npt.NDArray[np.float32]:
        self.fold(self._reporter.report(t_ns))
        return super().observe(t_ns, sample)


def give_up_ns(request_timeout_s: float) -> int:
    """After which silence a process is gone: its requests have timed out by then, and it reports far more often."""
    return round(max(request_timeout_s, SILENT_AT_LEAST_S) * 1e9)


def is_gone(reported_ns: int, now_ns: int, give_up_ns: int) -> bool:
    """Whether a process that last reported at `reported_ns` counts as gone."""
    return now_ns - reported_ns > give_up_ns


def decision_rows(t_ns: int, decisions: Sequence[Decision]) -> tuple[Array, Array, Array, Array]:
    """Decisions of one moment as `ObservationWindow.push_decisions` takes them: service, t_ns, action, actuated."""
    return (
        np.array([decision.service for decision in decisions]),
        np.full(len(decisions), t_ns),
        np.array([decision.action for decision in decisions]),
        np.array([decision.actuated for decision in decisions]),
    )


def sample_rows(sample: Sample) -> Array:
    """A sample as rows of the samples table, as far as observations need it."""
    rows = np.zeros(len(sample.instances), SAMPLES.dtype)
    rows["t_ns"], rows["received_ns"] = sample.t_ns, sample.received_ns
    for row, instance in zip(rows, sample.instances, strict=True):
        row["service"] = instance.service
        for name in ("cpu", "memory", "health", "queue_depth", "in_flight"):
            row[name] = getattr(instance, name)
    return rows


def _joined(parts: list[Any]) -> Iterator[Array]:
    """Parts with the same columns as columns of all."""
    return (np.concatenate(column) for column in zip(*parts, strict=True))


def _traces(rows: Array) -> list[tuple[int, int]]:
    return list(zip(rows["trace_hi"].tolist(), rows["trace_lo"].tolist(), strict=True))

"""The observation window of a running system, fed by what its processes report.

    each process that sends requests                 the process that decides
    Reporter.report(now)  -- Report: new rows, -->   LiveWindow.fold(report)
                             what is in flight       LiveWindow.observe(now, sample) -> observations

The same `ObservationWindow` makes the exporter's observations, so that both mean the same. A process that decides for
workers knows their rows as far as they have reported them; `seen` says how far that was, so that the exporter can look
at exactly that again (`rl_hooks.export.replay`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.control import Decision, Sample
from rl_hooks.observation import ObservationWindow, Spans
from rl_hooks.report_rows import Report
from rl_hooks.row import IN_FLIGHT, REQUESTS, SAMPLES

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """How far the rows of one process were known."""

    seq: int  # number of its last request row
    at_ns: int  # what it had in flight was known as of this moment


class LiveWindow:
    """See the module."""

    def __init__(self, spans: Spans) -> None:
        self.seen: dict[str, Seen] = {}  # incarnation -> how far the last observation knew its rows
        self._reported: dict[str, Seen] = {}  # incarnation -> how far they are known by now
        self._window = ObservationWindow(spans)
        self._open: dict[str, set[tuple[int, int]]] = {}  # incarnation -> trace ids of requests known to be in flight

    def fold(self, report: Report) -> None:
        """Take in what a process reports. ValueError when rows are missing between this report and the last one."""
        before = self._reported.get(report.incarnation, Seen(0, 0))
        rows = np.frombuffer(report.rows, REQUESTS.dtype)
        if report.seq - len(rows) != before.seq:
            text = f"rows {before.seq + 1} to {report.seq - len(rows)} were not reported"
            raise ValueError(f"{report.incarnation}: {text}")
        self._reported[report.incarnation] = Seen(report.seq, report.at_ns)
        opened = self._open.setdefault(report.incarnation, set())
        ended = _traces(rows)
        is_new = np.array([trace not in opened for trace in ended], bool)
        self._window.push_starts(rows["service"][is_new], rows["start_ns"][is_new])
        end_ns = rows["start_ns"] + rows["duration_us"].astype(np.int64) * 1000
        self._window.push_completions(rows["service"], end_ns, rows["duration_us"], rows["ok"])
        opened.difference_update(ended)
        places = np.frombuffer(report.board, IN_FLIGHT.dtype)
        busy = places[places["busy"] == 1]
        fresh = [(trace, place) for trace, place in zip(_traces(busy), busy, strict=True) if trace not in opened]
        opened.update(trace for trace, _ in fresh)
        started = [place for _, place in fresh]
        self._window.push_starts(
            np.array([place["service"] for place in started], np.int64),
            np.array([place["start_ns"] for place in started], np.int64),
        )

    def observe(self, t_ns: int, sample: Sample | None) -> npt.NDArray[np.float32]:
        """The observations at `t_ns`, (services, features)."""
        if sample is not None:
            self._window.push_samples(sample_rows(sample))
        self.seen = dict(self._reported)  # more may be reported while the decision is on its way to the balancer
        return self._window.observe(t_ns).values

    def decided(self, t_ns: int, decisions: Sequence[Decision]) -> None:
        self._window.push_decisions(
            np.array([decision.service for decision in decisions]),
            np.full(len(decisions), t_ns),
            np.array([decision.action for decision in decisions]),
            np.array([decision.actuated for decision in decisions]),
        )


class LocalWindow(LiveWindow):
    """That of a process that sends and decides: it reads its own rows whenever it looks."""

    def __init__(self, spans: Spans, reporter: Any) -> None:
        super().__init__(spans)
        self._reporter = reporter

    def observe(self, t_ns: int, sample: Sample | None) -> npt.NDArray[np.float32]:
        self.fold(self._reporter.report(t_ns))
        return super().observe(t_ns, sample)


def sample_rows(sample: Sample) -> Array:
    """A sample as rows of the samples table, as far as observations need it."""
    rows = np.zeros(len(sample.instances), SAMPLES.dtype)
    rows["t_ns"], rows["received_ns"] = sample.t_ns, sample.received_ns
    for row, instance in zip(rows, sample.instances, strict=True):
        row["service"] = instance.service
        for name in ("cpu", "memory", "health", "queue_depth", "in_flight"):
            row[name] = getattr(instance, name)
    return rows


def _traces(rows: Array) -> list[tuple[int, int]]:
    return list(zip(rows["trace_hi"].tolist(), rows["trace_lo"].tolist(), strict=True))

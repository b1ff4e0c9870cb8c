"""The observation window of a process that sees every request the moment it is sent and the moment it ends."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from rl_hooks.control import Decision, Sample
from rl_hooks.live import Seen, decision_rows, sample_rows
from rl_hooks.observation import ObservationWindow, Spans


class VirtualWindow:
    """What `rl_hooks.live.LocalWindow` is to a live process: the same `ObservationWindow`, fed without a recording."""

    def __init__(self, spans: Spans) -> None:
        self.seen: Mapping[str, Seen] = {}
        self._window = ObservationWindow(spans)
        self._started: tuple[list[int], list[int]] = ([], [])  # service, start_ns
        self._ended: tuple[list[int], list[int], list[int], list[bool]] = ([], [], [], [])
        self._seq = 0

    def started(self, service: int, start_ns: int) -> None:
        """A request was sent."""
        self._started[0].append(service)
        self._started[1].append(start_ns)

    def ended(self, service: int, end_ns: int, duration_us: int, ok: bool) -> None:
        """A request that was sent has ended."""
        services, ends, durations, oks = self._ended
        services.append(service)
        ends.append(end_ns)
        durations.append(duration_us)
        oks.append(ok)
        self._seq += 1

    def observe(self, t_ns: int, sample: Sample | None) -> npt.NDArray[np.float32]:
        """The observations at `t_ns`, (services, features)."""
        window = self._window
        if sample is not None:
            window.push_samples(sample_rows(sample))
        if self._started[0]:
            window.push_starts(*(np.array(column, np.int64) for column in self._started))
        if self._ended[0]:
            window.push_completions(*(np.array(column, np.int64) for column in self._ended))
        for column in (*self._started, *self._ended):
            column.clear()
        self._note_seen(t_ns)
        return window.observe(t_ns).values

    def decided(self, t_ns: int, decisions: Sequence[Decision]) -> None:
        """See `rl_hooks.control.Window`."""
        self._window.push_decisions(*decision_rows(t_ns, decisions))

    def name_rows(self, incarnation: str) -> None:
        """Say in `seen` that the requests are the rows of this process."""
        self.seen = {incarnation: Seen(0, 0)}

    def _note_seen(self, t_ns: int) -> None:
        self.seen = {name: Seen(self._seq, t_ns) for name in self.seen}

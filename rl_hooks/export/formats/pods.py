"""What was known about each pod of one service at any moment of a run: samples of the metrics source and our requests.

    cpuUsagePercent, jvmMemoryUsagePercent   of the last sample
    uptimeSeconds                            since when the pod has been up without a break, as far as the samples show
    avgResponseTimeMs, errorRatePercent      of the requests it served that ended in the window
    requestRatePerSecond                     how many these were, per second of the window

A pod that is down is not listed. What is not known is NaN.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rl_hooks.export.request_state import Ended

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

METRICS = (
    *("cpuUsagePercent", "jvmMemoryUsagePercent", "uptimeSeconds"),
    *("avgResponseTimeMs", "errorRatePercent", "requestRatePerSecond"),
)

_LONG_AGO_NS = -(2**62)


@dataclass(frozen=True)
class PodState:
    """At n moments."""

    values: Floats  # (n, pods, METRICS)
    listed: npt.NDArray[np.bool_]  # (n, pods) the pod was not down

    @property
    def incomplete(self) -> npt.NDArray[np.bool_]:
        """(n,) something of a listed pod is not known."""
        unknown = np.isnan(self.values).any(axis=2)
        return np.array((unknown & self.listed).any(axis=1), bool)


class Pods:
    """The pods of one service, in order of their names."""

    def __init__(self, samples: pd.DataFrame, requests: pd.DataFrame, window_ns: int) -> None:
        """`samples` and `requests` of one run and service; of the requests those that ended."""
        samples = samples[samples["instance"].notna()]
        self.names = tuple(sorted(samples["instance"].astype(str).unique()))
        self._window_ns = window_ns
        self._sample_ns, moment = np.unique(samples["t_unix_ns"].to_numpy(np.int64), return_inverse=True)
        known_ns = np.zeros(len(self._sample_ns), np.int64)
        np.maximum.at(known_ns, moment, np.maximum(samples["t_unix_ns"], samples["received_unix_ns"]).to_numpy())
        self._known_ns: Ints = np.maximum.accumulate(known_ns)
        place = (moment, samples["instance"].astype(str).map(self.names.index).to_numpy(np.int64))
        self._cpu, self._memory, total = (self._grid(place, samples[c]) for c in ("cpu", "memory", "requests_total"))
        down = self._grid(place, samples["up"].astype("boolean").fillna(True).astype(float)) != 1  # also: not in it
        self._listed = ~down
        self._up_since_ns = self._since(down, total)
        served = requests["instance"].astype(str).to_numpy()
        ended = [requests[served == name] for name in self.names]
        self._ended = [
            Ended(
                (mine["start_unix_ns"] + mine["duration_us"].astype(np.int64) * 1000).to_numpy(np.int64),
                (~mine["ok"].astype(bool)).to_numpy(np.int64),
                mine["duration_us"].to_numpy(np.float64) / 1000,
            )
            for mine in ended
        ]

    def before(self, t_ns: Ints) -> Ints:
        """The last sample known at each moment, -1: none within the window."""
        found = np.searchsorted(self._known_ns, t_ns, side="right") - 1
        return self._fresh(found, t_ns - np.append(self._sample_ns, _LONG_AGO_NS)[found])

    def after(self, t_ns: Ints) -> Ints:
        """The first sample taken at or after each moment and known within the window, -1: none."""
        found = np.searchsorted(self._sample_ns, t_ns)
        return self._fresh(found, np.append(self._known_ns, -_LONG_AGO_NS)[found] - t_ns)

    def known_at(self, sample: Ints) -> Ints:
        """When each sample had been received, 0 for -1."""
        return np.append(self._known_ns, 0)[sample]

    def state(self, t_ns: Ints, sample: Ints) -> PodState:
        """What was known at the moments `t_ns`, at which `sample` was the last sample; nothing where that is -1."""
        values = np.full((len(t_ns), len(self.names), len(METRICS)), np.nan)
        listed = np.zeros((len(t_ns), len(self.names)), bool)
        known = np.flatnonzero(sample >= 0)
        last = sample[known]
        listed[known] = self._listed[last]
        values[known, :, 0] = 100 * self._cpu[last]
        values[known, :, 1] = 100 * self._memory[last]
        values[known, :, 2] = (t_ns[known, np.newaxis] - self._up_since_ns[last]) / 1e9
        for index, ended in enumerate(self._ended):
            count, failed, total_ms = ended.within(t_ns - self._window_ns, t_ns)
            some = count > 0
            values[some, index, 3] = total_ms[some] / count[some]
            values[some, index, 4] = 100 * failed[some] / count[some]
            values[:, index, 5] = count / (self._window_ns / 1e9)
        return PodState(values, listed)

    def _fresh(self, sample: Ints, age_ns: Ints) -> Ints:
        return np.where(age_ns <= self._window_ns, sample, -1)

    def _grid(self, place: tuple[Array, Array], values: Any) -> Floats:
        """(samples, pods), NaN where a pod is not in a sample."""
        grid = np.full((len(self._sample_ns), len(self.names)), np.nan)
        grid[place] = np.asarray(values, np.float64)
        return grid

    def _since(self, down: npt.NDArray[np.bool_], total: Floats) -> Ints:
        """When each pod's stretch without a break began, at each sample; a counter that fell back is a restart."""
        begins = ~down
        begins[1:] &= down[:-1] | (total[1:] < total[:-1])
        first = np.maximum.accumulate(np.where(begins, np.arange(len(down))[:, np.newaxis], 0), axis=0)
        since: Ints = self._sample_ns[first]
        return since

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


@dataclass(frozen=True)
class PodState:
    """At n moments."""

    values: Floats  # (n, pods, METRICS)
    listed: npt.NDArray[np.bool_]  # (n, pods) the pod was not down


class Pods:
    """The pods of one service, in order of their names."""

    def __init__(self, samples: pd.DataFrame, requests: pd.DataFrame, window_ns: int) -> None:
        """`samples` and `requests` of one run and service, in order of time; of the requests those that ended."""
        self.names = tuple(sorted(samples["instance"].dropna().astype(str).unique()))
        self.window_ns = window_ns
        self.sample_ns, moment = np.unique(samples["t_unix_ns"].to_numpy(np.int64), return_inverse=True)
        known_ns = np.zeros(len(self.sample_ns), np.int64)
        np.maximum.at(known_ns, moment, np.maximum(samples["t_unix_ns"], samples["received_unix_ns"]).to_numpy())
        self.known_ns: Ints = np.maximum.accumulate(known_ns)
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
        found = np.searchsorted(self.known_ns, t_ns, side="right") - 1
        return self._fresh(found, np.abs(t_ns - self.sample_ns[np.maximum(found, 0)]))

    def after(self, t_ns: Ints) -> Ints:
        """The first sample taken at or after each moment and known within the window, -1: none."""
        found = np.searchsorted(self.sample_ns, t_ns)
        there = found < len(self.sample_ns)
        found = np.where(there, found, -1)
        return self._fresh(found, np.abs(self.known_ns[found] - t_ns))

    def state(self, t_ns: Ints, sample: Ints) -> PodState:
        """What was known at the moments `t_ns`, at which `sample` was the last sample."""
        values = np.full((len(t_ns), len(self.names), len(METRICS)), np.nan)
        values[:, :, 0] = 100 * self._cpu[sample]
        values[:, :, 1] = 100 * self._memory[sample]
        values[:, :, 2] = (t_ns[:, np.newaxis] - self._up_since_ns[sample]) / 1e9
        for index, ended in enumerate(self._ended):
            count, failed, total_ms = ended.within(t_ns - self.window_ns, t_ns)
            some = count > 0
            values[some, index, 3] = total_ms[some] / count[some]
            values[some, index, 4] = 100 * failed[some] / count[some]
            values[:, index, 5] = count / (self.window_ns / 1e9)
        return PodState(values, self._listed[sample])

    def _fresh(self, sample: Ints, age_ns: Ints) -> Ints:
        return np.where((sample >= 0) & (age_ns <= self.window_ns), sample, -1)

    def _grid(self, place: tuple[Array, Array], values: Any) -> Floats:
        """(samples, pods), NaN where a pod is not in a sample."""
        grid = np.full((len(self.sample_ns), len(self.names)), np.nan)
        grid[place] = np.asarray(values, np.float64)
        return grid

    def _since(self, down: npt.NDArray[np.bool_], total: Floats) -> Ints:
        """When each pod's stretch without a break began, at each sample; a counter that fell back is a restart."""
        begins = ~down
        begins[1:] &= down[:-1] | (total[1:] < total[:-1])
        first = np.maximum.accumulate(np.where(begins, np.arange(len(down))[:, np.newaxis], 0), axis=0)
        since: Ints = self.sample_ns[first] if len(down) else np.empty(down.shape, np.int64)
        return since

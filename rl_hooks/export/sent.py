"""What became of the requests that were sent between two moments, for all moments of a run, in one pass over its rows.

Everything is a count or a sum of whole microseconds, so the order of the rows does not matter.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.export.rewards import TOLERATED_SLO
from rl_hooks.observation_table import Cells
from rl_hooks.request_log import Columns

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

FAILED, SATISFIED, TOLERATED, LATE = range(4)
_CLASSES, _TOLD = 4, len(ACTIONS) + 1  # the last: the balancer did not say
_NEVER = np.iinfo(np.int64).min


class SentTable:
    """Requests with a known end in, counts per cell between `moments_ns` and per service out."""

    def __init__(self, moments_ns: Ints, slo_ms: Mapping[str, float], instances: int) -> None:
        """`instances` is the number of instance refs of the run."""
        self.cells = Cells(moments_ns)
        by_service = (len(self.cells), len(SERVICES))
        self.classes = np.zeros((*by_service, _CLASSES), np.int64)  # FAILED, SATISFIED, TOLERATED, LATE
        self.actions = np.zeros((*by_service, _TOLD), np.int64)  # applied
        self.ok_us = np.zeros(by_service)
        self.last_end_ns = np.full(len(self.cells), _NEVER)
        self._satisfied_us = _whole_us(slo_ms, 1.0)
        self._tolerated_us = _whole_us(slo_ms, TOLERATED_SLO)
        self._instances = instances
        self._place = np.full(len(SERVICES) * instances, -1)  # (service, instance ref) -> column of `_served`
        self._place[::instances] = 0  # column 0: no instance was named
        self._served = np.zeros((*by_service, 1), np.int64)

    def add(self, rows: Columns, service: Ints, end_ns: Ints, duration_us: Floats, ok: Array) -> None:
        cells, cell = self.cells.of(rows["start_ns"])
        count = cells.stop - cells.start
        sender = cell * len(SERVICES) + service
        late = (duration_us > self._satisfied_us.take(service)).view(np.int8) + (
            duration_us > self._tolerated_us.take(service)
        )
        told = np.minimum(rows["action_applied"], len(ACTIONS))
        place = (sender * _TOLD + told) * _CLASSES + ok * (late + 1)
        shape = (count, len(SERVICES), _TOLD, _CLASSES)
        size = count * len(SERVICES) * _TOLD * _CLASSES
        found = np.bincount(place, minlength=size).reshape(shape)
        self.classes[cells] += found.sum(axis=2)
        self.actions[cells] += found.sum(axis=3)
        took_us = np.bincount(place, duration_us, size).reshape(shape)
        self.ok_us[cells] += took_us[..., SATISFIED:].sum(axis=(2, 3))
        np.maximum.at(self.last_end_ns[cells], cell, end_ns)
        self._add_served(cells, sender, service * self._instances + rows["instance_ref"])

    def served(self, place: Ints) -> Ints:
        """Requests per instance, (cells, services, instances of a service); `place` as `instance_places` gives it."""
        table = np.zeros((*self._served.shape[:2], int(place.max(initial=0)) + 1), np.int64)
        for service, instance in zip(*np.nonzero(self.named), strict=True):
            column = self._place[service * self._instances + instance]
            table[:, service, place[service, instance]] = self._served[:, service, column]
        return table

    @property
    def named(self) -> npt.NDArray[np.bool_]:
        """(services, instance refs) Which instances served which service."""
        return (self._place > 0).reshape(len(SERVICES), self._instances)

    def _add_served(self, cells: slice, sender: Ints, instance: Ints) -> None:
        column = self._place.take(instance)
        if (column < 0).any():
            self._make_room(np.unique(instance[column < 0]))
            column = self._place.take(instance)
        width = self._served.shape[2]
        shape = (cells.stop - cells.start, len(SERVICES), width)
        served = np.bincount(sender * width + column, minlength=shape[0] * shape[1] * width)
        self._served[cells] += served.reshape(shape)

    def _make_room(self, instances: Ints) -> None:
        """Columns for instances that were not seen before; those of different services share columns."""
        for instance in instances.tolist():
            first = instance // self._instances * self._instances
            self._place[instance] = self._place[first : first + self._instances].max() + 1
        missing = int(self._place.max()) + 1 - self._served.shape[2]
        self._served = np.pad(self._served, ((0, 0), (0, 0), (0, max(missing, 0))))


def _whole_us(slo_ms: Mapping[str, float], times: float) -> Ints:
    """The longest duration in whole microseconds that is within so many SLOs, per service."""
    limits_ms = [times * slo_ms[name] for name in SERVICES]
    near = [np.arange(int(limit * 1000) - 1, int(limit * 1000) + 3) for limit in limits_ms]
    return np.array([int(us[us / 1000 <= limit].max()) for us, limit in zip(near, limits_ms, strict=True)])

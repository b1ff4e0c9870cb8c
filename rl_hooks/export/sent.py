"""What became of the requests that were sent between two moments, for all moments of a run, in one pass over its rows.

Everything is a count or a sum of whole microseconds, so the order of the rows does not matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.export.rewards import TOLERATED_SLO
from rl_hooks.observation_table import Cells
from rl_hooks.request_log import Batch

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

FAILED, SATISFIED, TOLERATED, LATE = range(4)
_CLASSES, _TOLD = 4, len(ACTIONS) + 1  # the last: the balancer did not say
_PLACE = np.minimum(np.arange(256), len(ACTIONS)) * _CLASSES + SATISFIED  # of a satisfied request by its action
_NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Ended:
    """Requests with a known end, column by column."""

    service: Ints
    start_ns: Ints
    end_ns: Ints
    duration_us: Floats
    failed: Ints  # positions
    instance_ref: Array
    applied: Array

    @classmethod
    def of(cls, batch: Batch) -> "Ended":
        service, start_ns, duration_us, ok, instance_ref, applied = batch.columns(
            "service", "start_ns", "duration_us", "ok", "instance_ref", "action_applied"
        )
        end_ns = start_ns + duration_us.astype(np.int64) * 1000
        failed = np.flatnonzero(ok != 1)
        return cls(
            service.astype(np.int64), start_ns, end_ns, duration_us.astype(np.float64), failed, instance_ref, applied
        )


class SentTable:
    """Requests with a known end in, counts per cell between `moments_ns` and per service out."""

    def __init__(self, moments_ns: Ints, slo_ms: Mapping[str, float], instances: int) -> None:
        """`instances` is the number of instance refs of the run."""
        self.cells = Cells(moments_ns)
        by_service = (len(self.cells), len(SERVICES))
        self.answers = np.zeros((*by_service, _TOLD, _CLASSES), np.int32)
        self.ok_us = np.zeros(by_service)
        self.last_end_ns = np.full(len(self.cells), _NEVER)  # of those that ended in a later cell
        self.satisfied_us = _whole_us(slo_ms, 1.0)
        self.tolerated_us = _whole_us(slo_ms, TOLERATED_SLO)
        self.instances = instances
        self.column = np.full(len(SERVICES) * instances, -1)  # (service, instance ref) -> column of `requests_served`
        self.column[::instances] = 0  # column 0: no instance was named
        self.requests_served = np.zeros((*by_service, 1), np.int32)

    @property
    def classes(self) -> Ints:
        """(cells, services, FAILED ... LATE)"""
        found: Ints = self.answers.sum(axis=2, dtype=np.int64)
        return found

    @property
    def actions(self) -> Ints:
        """(cells, services, actions + 1) Applied actions; the last: not told."""
        found: Ints = self.answers.sum(axis=3, dtype=np.int64)
        return found

    def add(self, ended: Ended, moments_passed: Ints) -> None:
        """Requests, and how many moments lie at or before the end of each."""
        service, duration_us, failed = ended.service, ended.duration_us, ended.failed
        cells, cell, over = self.cells.of_earlier(ended.start_ns, moments_passed)
        sender = cell * len(SERVICES)
        sender += service
        shape = (cells.stop - cells.start, len(SERVICES))
        size = shape[0] * shape[1]
        self.ok_us[cells] += np.bincount(sender, duration_us, size).reshape(shape)
        self.ok_us[cells] -= np.bincount(sender[failed], duration_us[failed], size).reshape(shape)
        np.maximum.at(self.last_end_ns[cells], cell[over], ended.end_ns[over])
        self._add_served(cells, sender, service, ended.instance_ref)
        late = np.flatnonzero(duration_us > self.satisfied_us.take(service))
        later = late[duration_us[late] > self.tolerated_us[service[late]]]
        sender *= _TOLD * _CLASSES
        place = _PLACE.take(ended.applied)
        place += sender
        unfulfilled = place[failed] - SATISFIED + FAILED
        place[late] += TOLERATED - SATISFIED
        place[later] += LATE - TOLERATED
        place[failed] = unfulfilled
        answers = np.bincount(place, minlength=size * _TOLD * _CLASSES)
        self.answers[cells] += answers.reshape(*shape, _TOLD, _CLASSES)

    def served(self, place: Ints) -> Ints:
        """Requests per place, (cells, services, places); `place` is (services, instance refs)."""
        table = np.zeros((*self.requests_served.shape[:2], int(place.max(initial=0)) + 1), np.int64)
        for service, instance in zip(*np.nonzero(self.named), strict=True):
            column = self.column[service * self.instances + instance]
            table[:, service, place[service, instance]] += self.requests_served[:, service, column]
        return table

    @property
    def named(self) -> npt.NDArray[np.bool_]:
        """(services, instance refs) Which instances served which service."""
        return (self.column > 0).reshape(len(SERVICES), self.instances)

    def _add_served(self, cells: slice, sender: Ints, service: Ints, instance_ref: Array) -> None:
        instance = service * self.instances
        instance += instance_ref
        column = self.column.take(instance)
        if column.min() < 0:
            for unseen in np.unique(instance[column < 0]).tolist():
                self.make_room(unseen)
            column = self.column.take(instance)
        width = self.requests_served.shape[2]
        shape = (cells.stop - cells.start, len(SERVICES), width)
        column += sender * width
        self.requests_served[cells] += np.bincount(column, minlength=shape[0] * shape[1] * width).reshape(shape)

    def make_room(self, instance: int) -> None:
        """A column for (service, instance ref) that was not seen before; those of different services share columns."""
        first = instance // self.instances * self.instances
        self.column[instance] = self.column[first : first + self.instances].max() + 1
        missing = int(self.column.max()) + 1 - self.requests_served.shape[2]
        self.requests_served = np.pad(self.requests_served, ((0, 0), (0, 0), (0, max(missing, 0))))


def _whole_us(slo_ms: Mapping[str, float], times: float) -> Floats:
    """The longest duration in whole microseconds that is within so many SLOs, per service."""
    limits_ms = [times * slo_ms[name] for name in SERVICES]
    near = [np.arange(int(limit * 1000) - 1, int(limit * 1000) + 3) for limit in limits_ms]
    return np.array([float(us[us / 1000 <= limit].max()) for us, limit in zip(near, limits_ms, strict=True)])

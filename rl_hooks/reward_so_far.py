"""The reward of a run that goes on, as far as it can be known while it does.

    rows of requests --fold--> cohorts, one per service and decision --settle--> mean reward of those that are settled

The definitions are the exporter's, and what it says is the last word. Two things differ: load balance, which needs
names and capacities of instances, and a scenario's own rewards, which may be made for an export and no sooner, are
left out, and the other components share their weight as they do wherever one is missing; and the interval of a decision
counts with its planned length.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.decision import SERVICES
from rl_hooks.export.rewards import REWARDS, TOLERATED_SLO, Cohorts, components, weighted_sum
from rl_hooks.row import MISSING_U32
from scenario.plan import Plan

Floats = npt.NDArray[np.float64]

_FINISHED, _FAILED, _OK_MS, _SATISFIED, _TOLERATED, _FACTS = range(6)


class RewardSoFar:
    """See the module. A decision is settled when none of its requests can still be under way.

    Rows may come late and in any order as long as their decision is not settled yet; `late` counts those that do not.
    """

    def __init__(self, plan: Plan) -> None:
        self.late = 0
        weights = plan.scenario.reward_weights
        self.without = ("load_balance", *(name for name, weight in weights.items() if name not in REWARDS and weight))
        self._weights = {name: weights[name] for name in REWARDS}
        self._plan = plan
        self._slo_ms = np.array([plan.slo_ms[name] for name in SERVICES])
        self._open: dict[int, Floats] = {}  # tick -> (services, facts) of decisions that are not settled
        self._settled = 0  # ticks below are
        self._sum = np.zeros(len(SERVICES))
        self._count = np.zeros(len(SERVICES))

    def fold(self, rows: Any) -> None:
        """Rows of the requests table."""
        columns = (rows["decision_tick"], rows["service"], rows["ok"], rows["duration_us"])
        decided = columns[0] != MISSING_U32
        in_time = decided & (columns[0] >= self._settled)
        self.late += int(decided.sum() - in_time.sum())
        tick, service, ok, duration_us = (column[in_time] for column in columns)
        ticks, place = np.unique(tick, return_inverse=True)
        cohort = place * len(SERVICES) + service
        sums = np.empty((len(ticks), len(SERVICES), _FACTS))
        for index, fact in enumerate(self._facts(service, ok == 1, duration_us / 1000)):
            sums[..., index] = np.bincount(cohort, fact, len(ticks) * len(SERVICES)).reshape(-1, len(SERVICES))
        for number, sums_of_tick in zip(ticks.tolist(), sums, strict=True):
            self._open[number] = self._open[number] + sums_of_tick if number in self._open else sums_of_tick

    def settle(self, run_time_s: float) -> None:
        """It is `run_time_s` now: decisions whose requests have all ended or timed out count from here on."""
        interval_s = self._plan.decision_interval_s
        self._settled = max(self._settled, math.floor((run_time_s - self._plan.request_timeout_s) / interval_s) - 1)
        ticks = sorted(tick for tick in self._open if tick < self._settled)
        if ticks:
            rewards = self._rewards(ticks)
            known = ~np.isnan(rewards)
            self._sum += np.where(known, rewards, 0.0).sum(axis=0)
            self._count += known.sum(axis=0)

    @property
    def decisions(self) -> int:
        """How many decisions the mean is of."""
        return int(self._count.sum())

    def mean(self) -> float | None:
        """In [0, 1]; None before the first decision is settled."""
        return float(self._sum.sum() / self._count.sum()) if self.decisions else None

    def mean_of(self, service: int) -> float | None:
        """That of one service."""
        return float(self._sum[service] / self._count[service]) if self._count[service] else None

    def _facts(self, service: Any, ok: Any, took_ms: Floats) -> tuple[Any, ...]:
        """What each row adds to its cohort, in the order of the facts."""
        slo_ms = self._slo_ms[service]
        satisfied = ok & (took_ms <= slo_ms)
        return None, ~ok, np.where(ok, took_ms, 0.0), satisfied, ok & ~satisfied & (took_ms <= TOLERATED_SLO * slo_ms)

    def _rewards(self, ticks: list[int]) -> Floats:
        """(ticks, services), NaN where a decision sent nothing. They are not open any more."""
        facts = np.concatenate([self._open.pop(tick) for tick in ticks])
        nobody = np.empty((len(facts), 0))
        cohorts = Cohorts(
            finished=facts[:, _FINISHED],
            failed=facts[:, _FAILED],
            ok_ms=facts[:, _OK_MS],
            satisfied=facts[:, _SATISFIED],
            tolerated=facts[:, _TOLERATED],
            slo_ms=np.tile(self._slo_ms, len(ticks)),
            expected=np.concatenate([self._expected(tick) for tick in ticks]),
            instance_requests=nobody,
            instance_capacity=nobody,
        )
        return weighted_sum(components(cohorts), self._weights).reshape(-1, len(SERVICES))

    def _expected(self, tick: int) -> Floats:
        """Requests of each service expected in the interval, at the users planned in its middle; NaN: unknown."""
        if not self._plan.max_users_per_profile:  # traffic that no plan made
            return np.full(len(SERVICES), np.nan)
        interval_s = self._plan.decision_interval_s
        rates = self._plan.expected_service_rps_at((tick + 0.5) * interval_s)
        return np.array([rates.get(name, 0.0) * interval_s for name in SERVICES])

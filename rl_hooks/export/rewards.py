"""The five rewards, each of the cohort: the requests of one service that were sent while a decision was in force.

A decision is judged by what it sent, whenever that ended. Judging by what ended in the interval credits the wrong
decision with every slow request. All rewards are shares: no unit, higher is better. Every function takes all cohorts
of a run at once and returns one number per cohort, NaN where it is not defined.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

WORST_SLO = 2.0  # a response this many SLOs late is as bad as a failure
TOLERATED_SLO = 4.0  # Apdex: tolerated up to four times the target


@dataclass(frozen=True)
class Cohorts:
    """What happened to the requests of each decision. n cohorts; requests whose end is unknown are not in here."""

    finished: Floats  # (n,) requests with a known end
    failed: Floats  # (n,) of these, failed
    ok_ms: Floats  # (n,) response times of the successful ones, added up
    satisfied: Floats  # (n,) successful within the SLO
    tolerated: Floats  # (n,) successful later, but within four SLOs
    slo_ms: Floats  # (n,)
    expected: Floats  # (n,) requests the plan expects in the interval; NaN: it expects nothing in particular
    instance_requests: Floats  # (n, instances) requests each instance got
    instance_capacity: Floats  # (n, instances) declared capacity, 1 if unknown; NaN: not available


def one_cohort(
    ok_ms: Sequence[float],
    *,
    failed: int = 0,
    slo_ms: float = 100.0,
    expected: float = 1.0,
    instance_requests: Sequence[int] = (),
    instance_capacity: Sequence[float] | None = None,
) -> Cohorts:
    """A single cohort from its facts, for examples and tests."""
    times = np.array(ok_ms, float)
    capacity = [1.0] * len(instance_requests) if instance_capacity is None else instance_capacity

    def single(value: float) -> Floats:
        return np.array([value], float)

    return Cohorts(
        finished=single(len(times) + failed),
        failed=single(failed),
        ok_ms=single(times.sum()),
        satisfied=single((times <= slo_ms).sum()),
        tolerated=single(((times > slo_ms) & (times <= TOLERATED_SLO * slo_ms)).sum()),
        slo_ms=single(slo_ms),
        expected=single(expected),
        instance_requests=np.array([instance_requests], float),
        instance_capacity=np.array([capacity], float),
    )


def response_time(cohorts: Cohorts) -> Floats:
    """1 - min(mean / SLO, 2) / 2, a failed request counting as 2 SLO: a fast error is no success. Range [0, 1].

    Source: the clients' response times. Three successes of 50, 100 and 150 ms and a failure at an SLO of 100 ms
    have a mean of (50 + 100 + 150 + 200) / 4 = 125 ms:

    >>> response_time(one_cohort([50, 100, 150], failed=1, slo_ms=100)).item()
    0.375
    """
    mean_ms = _ratio(cohorts.ok_ms + cohorts.failed * WORST_SLO * cohorts.slo_ms, cohorts.finished)
    return 1 - np.minimum(mean_ms / cohorts.slo_ms, WORST_SLO) / WORST_SLO


def error_rate(cohorts: Cohorts) -> Floats:
    """1 - failures / requests. Range [0, 1]. Source: the clients' outcomes.

    >>> error_rate(one_cohort([50, 100, 150], failed=1)).item()
    0.75
    """
    return 1 - _ratio(cohorts.failed, cohorts.finished)


def throughput(cohorts: Cohorts) -> Floats:
    """min(1, successes / requests expected in the interval at the planned users). Range [0, 1].

    Users wait for their answers, so a bad decision lowers what they send. Where 0 are expected, anything is enough;
    where nobody knows what to expect (traffic that no plan made), there is no value. Source: the clients' outcomes and
    the plan.

    >>> throughput(one_cohort([50, 100, 150], failed=1, expected=4)).item()
    0.75
    """
    share = np.divide(
        cohorts.finished - cohorts.failed,
        cohorts.expected,
        out=np.ones(len(cohorts.finished)),
        where=cohorts.expected > 0,
    )
    is_defined = (cohorts.finished > 0) & ~np.isnan(cohorts.expected)
    return np.where(is_defined, np.minimum(1.0, share), np.nan)


def load_balance(cohorts: Cohorts) -> Floats:
    """Jain's fairness index (sum x)^2 / (n sum x^2) of requests per declared capacity. Range [1/n, 1].

    n is the number of available instances; below n requests no choice could have been fair, so there is no value.
    Source: the instances that the balancer names, capacities from its metrics. R. Jain, D. Chiu and W. Hawe, "A
    quantitative measure of fairness and discrimination", DEC-TR-301, 1984. Loads of 4, 2 and 0:

    >>> round(load_balance(one_cohort([50] * 6, instance_requests=[4, 2, 0])).item(), 4)
    0.6
    >>> load_balance(one_cohort([50] * 6, instance_requests=[4, 2], instance_capacity=[2, 1])).item()
    1.0
    """
    available = ~np.isnan(cohorts.instance_capacity)
    n = available.sum(axis=1)
    requests = np.where(available, cohorts.instance_requests, 0.0)
    load = np.divide(requests, cohorts.instance_capacity, out=np.zeros(requests.shape), where=available)
    fairness = _ratio(load.sum(axis=1) ** 2, n * (load**2).sum(axis=1))
    return np.where((n > 0) & (requests.sum(axis=1) >= n), fairness, np.nan)


def user_satisfaction(cohorts: Cohorts) -> Floats:
    """Apdex with T = SLO: (satisfied + tolerated / 2) / all. Range [0, 1].

    Satisfied: a success within T; tolerated: within 4 T; a failure is neither. Source: the clients' response times;
    Apdex Alliance, "Application Performance Index", technical specification 1.1, 2007.

    >>> user_satisfaction(one_cohort([50, 100, 150], failed=1, slo_ms=100)).item()
    0.625
    """
    return _ratio(cohorts.satisfied + cohorts.tolerated / 2, cohorts.finished)


Reward = Callable[[Cohorts], Floats]
"""One number per cohort, from 0 to 1, NaN where it is not defined."""

REWARDS: Mapping[str, Reward] = MappingProxyType(
    {
        "response_time": response_time,
        "error_rate": error_rate,
        "throughput": throughput,
        "load_balance": load_balance,
        "user_satisfaction": user_satisfaction,
    }
)
"""Component -> function; the order is the order of the columns. Every component lies in [0, 1]."""

_NO_OWN: Mapping[str, Reward] = MappingProxyType({})


def names_of(weights: Mapping[str, float]) -> tuple[str, ...]:
    """All components that have a weight, in the order of the columns: the five, then those of a scenario's own."""
    return (*REWARDS, *(name for name in weights if name not in REWARDS))


def components(cohorts: Cohorts, own: Mapping[str, Reward] = _NO_OWN) -> Floats:
    """All components, (n, components): REWARDS, then `own`; all NaN for a cohort without a finished request."""
    table = np.column_stack([reward(cohorts) for reward in (*REWARDS.values(), *own.values())])
    table[cohorts.finished == 0] = np.nan
    return table


def weighted_sum(table: Floats, weights: Mapping[str, float]) -> Floats:
    """The scalar reward: the weighted mean of the components that are there; the others share a missing one's weight.

    The columns of `table` are in the order of `names_of(weights)`. Range [0, 1]; NaN where all are missing. With
    weights 0.3 and 0.1 a missing second leaves the first alone:

    >>> names = {"response_time": 0.3, "error_rate": 0.0, "throughput": 0.0, "load_balance": 0.1,
    ...     "user_satisfaction": 0.0}
    >>> weighted_sum(np.array([[0.8, 1, 1, np.nan, 1], [0.8, 1, 1, 0.4, 1]]), names).round(4).tolist()
    [0.8, 0.7]
    """
    weight = np.array([weights[name] for name in names_of(weights)])
    present = ~np.isnan(table)
    return _ratio(np.where(present, table, 0.0) @ weight, present @ weight)


def weights_sha256(weights: Mapping[str, float]) -> str:
    """Identifies the weights: sha256 of their canonical JSON."""
    return hashlib.sha256(json.dumps(dict(weights), sort_keys=True).encode()).hexdigest()


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    result: Floats = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return result

"""Exact binomial intervals, and many of them judged together.

Own code, because all that is needed of scipy is one quantile of the beta distribution: 35 MB more in every installation
for thirty lines. The tests compare them with scipy, which is there for developing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_HALVINGS = 60  # of [0, 1]: beyond the last digit of a float


@dataclass(frozen=True)
class Share:
    """`hits` of `count` against the planned share, with the exact interval of the share behind them."""

    planned: float
    hits: int
    count: int
    interval: tuple[float, float]
    fits: bool  # the plan is not refuted


def clopper_pearson(hits: int, count: int, confidence: float) -> tuple[float, float]:
    """The exact interval of a binomial share (Clopper and Pearson 1934); (0, 1) without a single trial.

    >>> tuple(round(end, 4) for end in clopper_pearson(5, 100, 0.95))
    (0.0164, 0.1128)
    """
    if count == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    # P(X >= hits) grows with the share, P(X <= hits) shrinks.
    low = 0.0 if hits == 0 else _root(lambda share: _tail(hits, count, count, share) < tail)
    high = 1.0 if hits == count else _root(lambda share: _tail(0, hits, count, share) > tail)
    return low, high


def p_value(planned: float, hits: int, count: int) -> float:
    """Twice the smaller tail, at most 1: below alpha exactly when `planned` is outside the interval of 1 - alpha."""
    if count == 0:
        return 1.0
    return min(1.0, 2 * min(_tail(hits, count, count, planned), _tail(0, hits, count, planned)))


def judged(found: Sequence[tuple[float, int, int]], confidence: float) -> list[Share]:
    """Shares given as (planned, hits, count), judged together: with probability `confidence` none is refuted wrongly.

    Holm's step-down (1979): the k-th smallest of m p-values is compared with alpha / (m - k + 1), until one is not
    below. The interval of a share has the confidence that it was compared at, so "inside" and "not refuted" agree.
    """
    alpha = 1 - confidence
    values = [p_value(*one) for one in found]
    result: dict[int, Share] = {}
    level, refuting = alpha / max(1, len(found)), True
    for rank, index in enumerate(sorted(range(len(found)), key=values.__getitem__)):
        if refuting:
            level = alpha / (len(found) - rank)
            refuting = values[index] < level
        planned, hits, count = found[index]
        result[index] = Share(planned, hits, count, clopper_pearson(hits, count, 1 - level), not refuting)
    return [result[index] for index in range(len(found))]


def _tail(first: int, last: int, count: int, share: float) -> float:
    """P(first <= X <= last) of a binomial, summed from logarithms so that nothing under- or overflows."""
    if share <= 0.0 or share >= 1.0:
        certain = 0 if share <= 0.0 else count
        return float(first <= certain <= last)
    k = np.arange(first, last + 1)
    factorials = _log_factorials(count)
    logs = (
        factorials[count] - factorials[k] - factorials[count - k] + k * np.log(share) + (count - k) * np.log1p(-share)
    )
    return float(min(1.0, np.exp(logs).sum()))


def _log_factorials(count: int) -> npt.NDArray[np.float64]:
    return np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, count + 1)))))


def _root(is_below: Callable[[float], bool]) -> float:
    """The share at which `is_below` turns from true to false."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2

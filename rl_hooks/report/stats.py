"""The statistics behind the checks, on numpy alone: what is needed of them is short, and randomization tests need no
table of distributions. Everything random takes its generator as an argument."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_NORMAL = NormalDist()


def two_sided_p(z: float) -> float:
    """P(|Z| >= |z|) of a standard normal Z.

    >>> round(two_sided_p(1.96), 3)
    0.05
    """
    return 2 * _NORMAL.cdf(-abs(z))


def z_of(confidence: float) -> float:
    """How many standard errors an interval of that confidence reaches to each side.

    >>> round(z_of(0.99), 3)
    2.576
    """
    return _NORMAL.inv_cdf(0.5 + confidence / 2)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down corrected p-values (Holm 1979): the family errs with the probability each is compared with.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    corrected, worst = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order.tolist()):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = worst
    return corrected


def binomial_p(successes: int, trials: int, probability: float) -> float:
    """The exact two-sided p-value: how probable are outcomes no more probable than the one that was seen.

    >>> round(binomial_p(8, 10, 0.5), 4)
    0.1094
    """
    if not 0 < probability < 1:
        return 1.0 if successes == round(trials * probability) else 0.0
    k = np.arange(1, trials + 1)
    steps = np.log((trials - k + 1) / k) + np.log(probability / (1 - probability))
    log_pmf = trials * np.log1p(-probability) + np.append(0.0, np.cumsum(steps))
    as_rare = log_pmf <= log_pmf[successes] + 1e-7
    return float(min(1.0, np.exp(log_pmf[as_rare]).sum()))


def ks_distance(one: Array, other: Array) -> float:
    """The largest distance between two empirical distribution functions.

    >>> ks_distance(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    0.5
    """
    both = np.concatenate((one, other))
    first = np.searchsorted(np.sort(one), both, side="right") / len(one)
    second = np.searchsorted(np.sort(other), both, side="right") / len(other)
    return float(np.abs(first - second).max())


def effective_size(weights: Array) -> float:
    """Kish's effective sample size (sum w)^2 / sum w^2.

    >>> effective_size(np.array([1.0, 1.0, 0.0, 0.0]))
    2.0
    """
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def effective_count(values: Floats, sequence: Ints) -> float:
    """How many independent values are worth as much for a mean: n / (1 + 2 sum of autocorrelations).

    `sequence` numbers the episodes; lags do not cross them. The sum ends before the first pair of lags whose
    autocorrelations are not positive together (Geyer 1992).
    """
    n = len(values)
    centred = values - values.mean() if n else values
    variance = float((centred**2).mean()) if n else 0.0
    if variance == 0:
        return 0.0
    longest = int(np.bincount(sequence).max())
    total, lag = 0.0, 1
    while lag + 1 < longest:
        pair = _autocorrelation(centred, sequence, lag) + _autocorrelation(centred, sequence, lag + 1)
        if pair / variance <= 0:
            break
        total += pair / variance
        lag += 2
    return n / (1 + 2 * total)


def _autocorrelation(centred: Floats, sequence: Ints, lag: int) -> float:
    together = sequence[lag:] == sequence[:-lag]
    return float((centred[lag:] * centred[:-lag])[together].sum() / max(1, len(centred)))


def k_means(points: Floats, clusters: int, rng: np.random.Generator, rounds: int = 15, sample: int = 8000) -> Ints:
    """The cluster of every point; k-means++ and Lloyd's rounds on a sample, then all points to the nearest centre."""
    few = points if len(points) <= sample else points[rng.choice(len(points), sample, replace=False)]
    centres = _spread_out(few, clusters, rng)
    for _ in range(rounds):
        nearest = _nearest(few, centres)
        counts = np.bincount(nearest, minlength=len(centres))
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, few)
        centres = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
    return _nearest(points, centres)


def _spread_out(points: Floats, clusters: int, rng: np.random.Generator) -> Floats:
    chosen = [points[rng.integers(len(points))]]
    distance = ((points - chosen[0]) ** 2).sum(axis=1)
    while len(chosen) < clusters and distance.sum() > 0:
        chosen.append(points[rng.choice(len(points), p=distance / distance.sum())])
        distance = np.minimum(distance, ((points - chosen[-1]) ** 2).sum(axis=1))
    return np.array(chosen)


def _nearest(points: Floats, centres: Floats) -> Ints:
    distance = (centres**2).sum(axis=1) - 2 * points @ centres.T
    nearest: Ints = distance.argmin(axis=1).astype(np.int64)
    return nearest


def ridge_predictions(x: Floats, y: Floats, fold: Ints, ridge: float = 1.0) -> Floats:
    """Predictions of y, each by a linear model that has not seen its fold. x holds no constant column."""
    predicted = np.zeros(len(y))
    for number in np.unique(fold):
        seen, held = fold != number, fold == number
        middle, level = x[seen].mean(axis=0), float(y[seen].mean())
        inner = x[seen] - middle
        beta = np.linalg.solve(inner.T @ inner + ridge * np.eye(x.shape[1]), inner.T @ (y[seen] - level))
        predicted[held] = level + (x[held] - middle) @ beta
    return predicted


def r_squared(y: Floats, predicted: Floats) -> float:
    spread = float(((y - y.mean()) ** 2).sum())
    return 1 - float(((y - predicted) ** 2).sum()) / spread if spread > 0 else 0.0


def classifier_gain(
    x: Floats, action: Ints, logged: Floats, fold: Ints, ridge: float = 10.0, rounds: int = 30
) -> Floats:
    """(n,) log-likelihood, in nats, by which a classifier beats the logged probabilities on folds it has not seen.

    A multinomial logistic model whose offset is the logged distribution: with coefficients 0 it is the log itself, so
    it wins only by something that the log does not know. Fitted with Böhning's bound on the Hessian (Böhning 1992).
    """
    offset = np.log(np.maximum(logged, 1e-6))
    x = np.column_stack((np.ones(len(x)), x))
    chosen = np.eye(logged.shape[1])[action]
    gain = np.zeros(len(x))
    for number in np.unique(fold):
        seen, held = fold != number, fold == number
        inverse = np.linalg.inv(0.5 * x[seen].T @ x[seen] + ridge * np.eye(x.shape[1]))
        beta = np.zeros((x.shape[1], logged.shape[1]))
        for _ in range(rounds):
            missed = chosen[seen] - np.exp(_log_softmax(offset[seen] + x[seen] @ beta))
            beta += inverse @ (x[seen].T @ missed - ridge * beta)
        rows = np.arange(int(held.sum()))
        model, log = _log_softmax(offset[held] + x[held] @ beta), _log_softmax(offset[held])
        gain[held] = model[rows, action[held]] - log[rows, action[held]]
    return gain


def _log_softmax(scores: Floats) -> Floats:
    high = scores - scores.max(axis=1, keepdims=True)
    result: Floats = high - np.log(np.exp(high).sum(axis=1, keepdims=True))
    return result


def redraw_p(residual: Floats, action: Ints, probabilities: Floats, rng: np.random.Generator, rounds: int) -> float:
    """p-value of "the action does not matter": actions are drawn again from the logged probabilities.

    The statistic is the quadratic form of the scores S_a = sum (1(A = a) - p(a)) residual in the inverse of their
    covariance under the logging policy. Exact in the limit of many rounds, whatever the residuals are like, as long
    as they do not depend on the action itself (Fisher's randomization test; Bojinov, Simchi-Levi & Zhao 2023).
    """
    weights = residual**2
    covariance = np.diag(weights @ probabilities) - probabilities.T @ (weights[:, None] * probabilities)
    form = np.linalg.pinv(covariance)
    expected = residual @ probabilities
    cumulated = np.cumsum(probabilities, axis=1)
    cumulated /= cumulated[:, -1:]

    def statistic(drawn: Ints) -> float:
        score = np.bincount(drawn, residual, probabilities.shape[1]) - expected
        return float(score @ form @ score)

    seen = statistic(action)
    beaten = 0
    for _ in range(rounds):
        draw = (rng.random(len(residual))[:, None] > cumulated[:, :-1]).sum(axis=1)
        beaten += statistic(draw) >= seen * (1 - 1e-12)
    return (1 + beaten) / (1 + rounds)


def sign_flip_p(scores: Floats, rng: np.random.Generator, rounds: int) -> float:
    """p-value of "the scores (clusters, k) have mean 0": whole clusters change sign at random.

    The wild cluster bootstrap of a score statistic (Kline & Santos 2012); rows of one cluster may depend on each other.
    """
    form = np.linalg.pinv(scores.T @ scores)

    def statistic(totals: Floats) -> Floats:
        value: Floats = np.einsum("ra,ab,rb->r", totals, form, totals)
        return value

    seen = float(statistic(scores.sum(axis=0)[None])[0])
    signs = rng.integers(0, 2, (rounds, len(scores))) * 2.0 - 1
    return float((1 + (statistic(signs @ scores) >= seen * (1 - 1e-12)).sum()) / (1 + rounds))

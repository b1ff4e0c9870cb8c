"""What a policy would earn, from steps that another one logged. Pure numpy: no file, no clock, no chance.

    logged steps + probabilities of the target policy  -->  Scores  -- clusters -->  Estimate

Two questions have two answers wherever an action still acts after its own interval (queues do):

    one step    the target policy decides once, everything before and after is as logged
    long run    the target policy decides always: what deployment gives

Steps whose reward was filled (no request was sent) are no evidence of reward. Histories go through them.

Intervals hold the truth 95 times of 100. They are linearized (delta method): to first order the error of an estimate
is the sum of one influence per step. Steps of a cluster may depend on each other in any way; a cluster is a time block
of a run with all its services, and clusters count as independent. Few clusters make it Student's t with one degree of
freedom less than there are clusters (Liang & Zeger 1986; Cameron, Gelbach & Miller 2008).
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.report.stats import effective_size

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

CONFIDENCE = 0.95
AS_LOGGED, ONE_STEP, LONG_RUN = "as logged", "one step", "long run"
FAR = 5.0  # standard deviations; beyond, an observation counts as that far: a spike must not decide a linear fit


@dataclass(frozen=True)
class Limits:
    """From where on an estimate is not to be trusted."""

    effective: float = 300
    """Least effective sample size. With 300 the error of a mean is 6 % of the spread of one reward; with fewer, a
    handful of steps carries the estimate, and an interval from the same steps does not know what it has not seen
    (Kong 1992; Owen 2013, chapter 9)."""
    clusters: int = 10
    """Least clusters with evidence: below, the error itself is hardly known (Cameron, Gelbach & Miller 2008)."""
    unsupported: float = 0.01
    """Largest share of what the target policy does that the logging policy never does: no weight brings it back."""


@dataclass(frozen=True)
class Log:
    """n logged steps. Steps of one sequence stand together and follow each other in time without a gap."""

    action: Ints  # (n,) the one that was drawn
    logged: Floats  # (n, actions) the distribution it was drawn from
    reward: Floats  # (n,) in [0, 1]
    measured: Mask  # (n,) False: nothing was sent in the interval, so the reward is a fill
    sequence: Ints  # (n,) number of the episode
    cluster: Ints  # (n,) number of the time block of the run

    def __len__(self) -> int:
        return len(self.action)


@dataclass(frozen=True)
class Scores:
    """An estimate before its interval."""

    name: str
    question: str
    value: float
    influence: Floats  # (n,) their sum over the steps is the error to first order; 0 where a step is no evidence
    evidence: Mask  # (n,) the steps it rests on
    effective_size: float  # Kish's, of the weights
    back: int = 1  # how many actions the weights look back, the step's own one included
    unsupported: float = 0.0  # share of the target policy's choices that the log never makes

    def minus(self, other: "Scores") -> "Scores":
        """The difference of two policies by the same estimator on the same steps; its error is that of the pair."""
        return Scores(
            self.name,
            self.question,
            self.value - other.value,
            self.influence - other.influence,
            self.evidence | other.evidence,
            min(self.effective_size, other.effective_size),
            self.back,
            max(self.unsupported, other.unsupported),
        )

    def estimate(self, log: Log, limits: Limits, carry_over: int | None) -> "Estimate":
        """With its interval. `carry_over`: the last lag in steps at which actions have an effect, if it is known."""
        error, clusters = clustered_error(self.influence[self.evidence], log.cluster[self.evidence])
        half = student_t(max(1, clusters - 1)) * error
        reasons = distrust(self.effective_size, clusters, self.unsupported, limits)
        if self.question == LONG_RUN and carry_over is not None and carry_over >= self.back:
            reasons.append(f"actions have effects {carry_over} steps later, and it looks back {self.back} actions")
        interval = (self.value - half, self.value + half)
        return Estimate(self.name, self.value, *interval, self.effective_size, self.question, tuple(reasons))


@dataclass(frozen=True)
class Estimate:
    """An answer with its interval, and whether it deserves belief."""

    name: str
    value: float  # mean reward per step with a measured reward
    low: float
    high: float
    effective_sample_size: float
    question: str  # "as logged", "one step" or "long run"
    distrust: tuple[str, ...]  # why not; empty when there is no reason

    @property
    def trusted(self) -> bool:
        return not self.distrust


# -- estimators ------------------------------------------------------------------------------------------------------


def importance(log: Log, target: Floats) -> Floats:
    """(n,) pi(a|x) / b(a|x) of the action that was drawn; `target` is pi, (n, actions).

    >>> importance(_two_steps(), np.array([[1.0, 0.0], [1.0, 0.0]])).tolist()
    [2.0, 0.0]
    """
    rows = np.arange(len(log))
    ratio: Floats = target[rows, log.action] / log.logged[rows, log.action]
    return ratio


def logged_mean(log: Log) -> Scores:
    """The mean reward under the logging policy itself: sum r / n.

    >>> logged_mean(_two_steps()).value
    0.5
    """
    return _ratio("logged mean", AS_LOGGED, log, np.ones(len(log)), log.measured)


def ips(log: Log, target: Floats) -> Scores:
    """Inverse propensity scoring: sum w r / n with w = pi(a|x) / b(a|x).

    Unbiased for one step, with a variance that grows with the weights (Horvitz & Thompson 1952; Strehl, Langford, Li &
    Kakade 2010).

    >>> ips(_two_steps(), np.array([[0.75, 0.25], [0.75, 0.25]])).value  # (1.5 * 0.75 + 0.5 * 0.25) / 2
    0.625
    """
    weights = importance(log, target)
    return _mean("IPS", log, weights * log.reward, weights, target)


def snips(log: Log, target: Floats) -> Scores:
    """Self-normalized IPS: sum w r / sum w.

    Its bias vanishes with 1/n; a shift of all rewards shifts it by the same (Hajek 1971; Swaminathan & Joachims 2015).
    Linearized, the influence of a step is w (r - value) / sum w.

    >>> snips(_two_steps(), np.array([[0.75, 0.25], [0.75, 0.25]])).value  # (1.5 * 0.75 + 0.5 * 0.25) / (1.5 + 0.5)
    0.625
    """
    return _ratio("self-normalized IPS", ONE_STEP, log, importance(log, target), log.measured, 1, target)


def doubly_robust(log: Log, target: Floats, predicted: Floats) -> Scores:
    """Mean of sum_a pi(a|x) q(x, a) + w (r - q(x, a)); `predicted` is q, (n, actions), of a model that has not seen
    the step's cluster (`reward_model`).

    Unbiased for one step whatever q is, and the better q is the smaller is the variance (Dudik, Langford & Li 2011;
    cross-fitted as in Chernozhukov et al. 2018).

    >>> q = np.array([[0.5, 0.25], [0.5, 0.25]])
    >>> target = np.array([[1.0, 0.0], [1.0, 0.0]])
    >>> doubly_robust(_two_steps(), target, q).value  # ((0.5 + 2 * (0.75 - 0.5)) + 0.5) / 2
    0.75
    """
    weights = importance(log, target)
    corrected = log.reward - predicted[np.arange(len(log)), log.action]
    return _mean("doubly robust", log, (target * predicted).sum(axis=1) + weights * corrected, weights, target)


def partial_history(log: Log, target: Floats, back: int) -> Scores:
    """Self-normalized, with weights over the last `back` actions: prod of pi(a|x) / b(a|x) over the steps t-back+1..t.

    The long-run value where no effect is older than that: the target policy then decided all that the reward depends
    on. What is older is as logged, which is a bias; each further action multiplies the variance. Steps without `back`
    steps of history in their sequence are left out. (Lecuyer et al., HotNets 2017; the weights of a finite memory are
    those of Hu & Wager 2023 and of Bojinov, Simchi-Levi & Zhao 2023.)

    >>> target = np.array([[0.75, 0.25], [0.75, 0.25]])
    >>> partial_history(_two_steps(), target, 1).value == snips(_two_steps(), target).value
    True
    >>> partial_history(_two_steps(), target, 2).value  # only the second step has a step before it
    0.25
    """
    weights, whole = history_weights(importance(log, target), log.sequence, back)
    return _ratio(f"last {back} actions", LONG_RUN, log, weights, log.measured & whole, back, target)


def history_weights(ratio: Floats, sequence: Ints, back: int) -> tuple[Floats, Mask]:
    """(n,) product of the last `back` ratios of the sequence, and where there are that many.

    >>> weights, whole = history_weights(np.array([2.0, 3.0, 5.0]), np.array([0, 0, 1]), 2)
    >>> weights[whole].tolist(), whole.tolist()
    ([6.0], [False, True, False])
    """
    whole = np.zeros(len(ratio), bool)
    whole[back - 1 :] = sequence[back - 1 :] == sequence[: len(sequence) - back + 1]
    weights = ratio.copy()
    for lag in range(1, back):
        weights[lag:] *= ratio[:-lag]
    return weights, whole


def reward_model(observations: Array, log: Log, folds: int = 5, ridge: float = 10.0) -> Floats:
    """(n, actions) rewards that a linear model per action expects, each by a model that has not seen the cluster.

    Ridge regression on the observation with an unpenalized constant (Hoerl & Kennard 1970), on measured steps. Whole
    clusters are in a fold. A prediction beyond the rewards that the model was fitted to becomes the nearest of them.
    """
    x = np.clip(observations.astype(np.float64), -FAR, FAR)
    fold = log.cluster % folds
    predicted = np.zeros(log.logged.shape)
    for number in np.unique(fold):
        for action in range(log.logged.shape[1]):
            seen = (fold != number) & log.measured & (log.action == action)
            predicted[fold == number, action] = _ridge(x[seen], log.reward[seen], x[fold == number], ridge)
    return predicted


def _ridge(x: Floats, y: Floats, asked: Floats, ridge: float) -> Floats:
    """Of an action that was never seen nothing is expected: 0."""
    if len(y) == 0:
        return np.zeros(len(asked))
    middle, level = x.mean(axis=0), y.mean()
    inner = x - middle
    beta = np.linalg.solve(inner.T @ inner + ridge * np.eye(x.shape[1]), inner.T @ (y - level))
    expected: Floats = np.clip(level + (asked - middle) @ beta, y.min(), y.max())
    return expected


def _mean(name: str, log: Log, terms: Floats, weights: Floats, target: Floats) -> Scores:
    """The mean of `terms` over the measured steps."""
    rows = log.measured
    value = float(terms[rows].mean())
    influence = np.where(rows, terms - value, 0.0) / int(rows.sum())
    missing = unsupported(target[rows], log.logged[rows])
    return Scores(name, ONE_STEP, value, influence, rows, effective_size(weights[rows]), 1, missing)


def _ratio(
    name: str, question: str, log: Log, weights: Floats, rows: Mask, back: int = 1, target: Floats | None = None
) -> Scores:
    """The mean of the rewards of `rows`, weighted. NaN when no weight is left."""
    total = float(weights[rows].sum())
    value = float((weights * log.reward)[rows].sum()) / total if total > 0 else math.nan
    influence = np.where(rows, weights * (log.reward - value), 0.0) / total if total > 0 else np.zeros(len(log))
    missing = 0.0 if target is None else unsupported(target[rows], log.logged[rows])
    return Scores(name, question, value, influence, rows, effective_size(weights[rows]), back, missing)


def unsupported(target: Floats, logged: Floats) -> float:
    """Mean probability with which the target policy takes actions that the logging policy could not have taken.

    >>> unsupported(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[1.0, 0.0], [0.5, 0.5]]))
    0.25
    """
    # What nobody stated, the probabilities of actions that were not taken, may be anything.
    return float(np.where((logged > 0) | np.isnan(logged), 0.0, target).sum(axis=1).mean()) if len(target) else 0.0


# -- intervals and trust ---------------------------------------------------------------------------------------------


def distrust(effective: float, clusters: int, missing: float, limits: Limits) -> list[str]:
    """Why an estimate is not to be trusted, whatever it is."""
    reasons = []
    if effective < limits.effective:
        reasons.append(f"effective sample size {effective:.0f}, below {limits.effective:.0f}")
    if clusters < limits.clusters:
        reasons.append(f"{clusters} time blocks, below {limits.clusters}")
    if missing > limits.unsupported:
        reasons.append(f"{missing:.1%} of its actions were impossible in the log")
    return reasons


def clustered_error(influence: Floats, cluster: Ints) -> tuple[float, int]:
    """The standard error of a sum of influences, and how many clusters there are; NaN for a single one.

    sqrt(G / (G - 1) * sum over clusters of (sum of influence)^2) for G clusters (Liang & Zeger 1986, with the usual
    correction for few of them).

    >>> clustered_error(np.array([0.25, 0.5, -0.75]), np.array([0, 0, 1]))
    (1.5, 2)
    """
    number = np.unique(cluster, return_inverse=True)[1]
    totals = np.bincount(number, influence)
    count = len(totals)
    return (float(np.sqrt(count / (count - 1) * (totals**2).sum())) if count > 1 else math.nan), count


def student_t(degrees: int, confidence: float = CONFIDENCE) -> float:
    """How many standard errors an interval reaches to each side with an error of so many degrees of freedom.

    Exact for 1 and 2; from 3 on the expansion of Fisher & Cornish (1960) in 1 / degrees, within 0.2 %.

    >>> [round(student_t(degrees), 2) for degrees in (1, 2, 4, 13, 1000)]
    [12.71, 4.3, 2.78, 2.16, 1.96]
    """
    p = 0.5 + confidence / 2
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    z = NormalDist().inv_cdf(p)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / degrees**power for power, term in enumerate(terms))


def _two_steps() -> Log:
    """The example of the docstrings: two actions, drawn with probability 1/2 each, in one sequence."""
    return Log(
        action=np.array([0, 1]),
        logged=np.full((2, 2), 0.5),
        reward=np.array([0.75, 0.25]),
        measured=np.array([True, True]),
        sequence=np.array([0, 0]),
        cluster=np.array([0, 1]),
    )

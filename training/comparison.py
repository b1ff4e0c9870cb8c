"""How policies compare that were in charge of the same traffic at different times, or of the same seeds. Pure numpy.

    seeds    every policy runs every seed                --> paired: one difference per seed
    blocks   policies take turns within a run's strata   --> by_blocks: value of a block = policy + stratum + chance

A seed and a block are one observation each, whatever happens inside: decisions of one block depend on each other in
any way (that is what clustering by block means). Intervals hold the truth 95 times of 100, with Student's t.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.decision import ACTIONS
from training.estimators import CONFIDENCE, student_t

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

POWER = 0.8
ROUNDING = 1e-8  # of a projection that would be exact with exact numbers


@dataclass(frozen=True)
class Difference:
    """One policy less another. NaN where it cannot be told."""

    value: float
    error: float  # standard error
    degrees: int  # of freedom that the error has

    @property
    def low(self) -> float:
        return self.value - self._reach()

    @property
    def high(self) -> float:
        return self.value + self._reach()

    @property
    def is_known(self) -> bool:
        """Whether there is a value with an interval."""
        return math.isfinite(self.value) and math.isfinite(self.error)

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.is_known and (self.low > 0 or self.high < 0)

    @property
    def detectable(self) -> float:
        """The smallest true difference that such a comparison would find clear 80 times of 100.

        (t_0.975 + t_0.8) standard errors, which is 2.8 of them for many degrees of freedom (Bloom 1995, minimum
        detectable effects).

        >>> round(Difference(0.0, 1.0, 1000).detectable, 1), round(Difference(0.0, 1.0, 4).detectable, 1)
        (2.8, 3.7)
        """
        if not self.is_known:
            return math.nan
        return (student_t(self.degrees, CONFIDENCE) + student_t(self.degrees, 2 * POWER - 1)) * self.error

    def _reach(self) -> float:
        return student_t(self.degrees) * self.error if self.degrees > 0 else math.nan


UNKNOWN = Difference(math.nan, math.nan, 0)


@dataclass(frozen=True)
class Comparison:
    """What tables, files and pictures are made of, however policies were compared."""

    chosen: str  # the policy that is compared with the others
    values: Mapping[str, Mapping[str, float]]  # policy -> measure -> value; in the order of the tables
    differences: Mapping[str, Mapping[str, Difference]]  # other policy -> measure -> the chosen one less it
    about: Mapping[str, Any]  # what was compared and how, for people; JSON values
    notes: Sequence[str] = ()  # what cannot be told, and why
    shares: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict)
    """policy -> phase -> (actions,) how often it took each action, adding up to 1"""
    actions: Sequence[str] = ACTIONS  # what they are called


def paired(values_a: Array, values_b: Array) -> Difference:
    """The mean of a - b over n pairs (seeds), with Student's t of n - 1 degrees of freedom.

    A pair in which one value is NaN is no evidence.

    >>> found = paired(np.array([3.0, 5.0, 7.0]), np.array([1.0, 2.0, 6.0]))
    >>> found.value, round(found.error, 4), found.degrees
    (2.0, 0.5774, 2)
    """
    each = np.asarray(values_a, float) - np.asarray(values_b, float)
    each = each[np.isfinite(each)]
    count = len(each)
    if count < 2:
        return Difference(float(each[0]) if count else math.nan, math.nan, 0)
    return Difference(float(each.mean()), float(each.std(ddof=1)) / math.sqrt(count), count - 1)


@dataclass(frozen=True)
class Blocks:
    """n blocks: who was in charge, of what, with which outcome."""

    policy: Ints  # (n,) from 0 on
    stratum: Ints  # (n,) what else makes blocks unlike: run, phase, fault
    value: Floats  # (n,) NaN: nothing defined it

    def known(self) -> "Blocks":
        rows = np.isfinite(self.value)
        return Blocks(self.policy[rows], self.stratum[rows], self.value[rows])


@dataclass(frozen=True)
class Fit:
    """The additive model value = policy + stratum, fitted by ordinary least squares."""

    blocks: Blocks
    design: Floats  # (n, policies + strata) indicators
    middle: float  # what was taken off all values, so that equal ones leave no rounding that looks like chance
    coefficients: Floats  # (policies + strata,) of least norm; only their estimable combinations mean something
    inverse: Floats  # (policies + strata)^2, the pseudoinverse of design' design
    spread: float  # standard deviation of the chance of a block; NaN without a degree of freedom
    degrees: int
    policies: int

    def value(self, policy: int) -> float:
        """What the policy would have had in all blocks of the policies that it can be compared with.

        So values differ by what policies do, not by when their turn was. NaN for a policy without a block.
        """
        rows = np.isin(self.blocks.policy, [one for one in range(self.policies) if self.meets(policy, one)])
        if not rows.any():
            return math.nan
        levels = self.design[rows].mean(axis=0)
        levels[: self.policies] = np.arange(self.policies) == policy
        return self.middle + float(levels @ self.coefficients)

    def difference(self, one: int, other: int) -> Difference:
        """Policy `one` less `other`; UNKNOWN when they never met."""
        if not self.meets(one, other):
            return UNKNOWN
        contrast = self._contrast(one, other)
        error = self.spread * math.sqrt(max(0.0, float(contrast @ self.inverse @ contrast)))
        return Difference(float(contrast @ self.coefficients), error, self.degrees)

    def meets(self, one: int, other: int) -> bool:
        """Whether both had blocks in one stratum, or each with a third policy: only then a difference is estimable.

        A contrast is estimable when it is in the row space of the design (Scheffe 1959, section 1.4).
        """
        if not {one, other} <= set(self.blocks.policy.tolist()):
            return False
        contrast = self._contrast(one, other)
        projected = contrast @ self.inverse @ (self.design.T @ self.design)
        return bool(np.abs(projected - contrast).max() < ROUNDING)

    def _contrast(self, one: int, other: int) -> Floats:
        contrast = np.zeros(self.design.shape[1])
        contrast[one] += 1
        contrast[other] -= 1
        return contrast


def by_blocks(blocks: Blocks, policies: int) -> Fit:
    """Fit the additive model. Blocks without a value are no evidence.

    Strata are levels of their own, so that nothing that shifts all blocks of a stratum can be taken for an effect.

    >>> fit = by_blocks(Blocks(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), np.array([1.0, 2.0, 11.0, 12.0])), 2)
    >>> round(fit.difference(1, 0).value, 6), round(fit.value(0), 6), fit.degrees
    (1.0, 6.0, 1)
    """
    blocks = blocks.known()
    strata, stratum = np.unique(blocks.stratum, return_inverse=True)
    count = len(blocks.value)
    design = np.zeros((count, policies + len(strata)))
    design[np.arange(count), blocks.policy] = 1
    design[np.arange(count), policies + stratum] = 1
    inverse: Floats = np.linalg.pinv(design.T @ design, hermitian=True).astype(np.float64)
    middle = float(np.median(blocks.value)) if count else math.nan
    above = blocks.value - middle
    coefficients: Floats = inverse @ (design.T @ above)
    degrees = count - int(np.linalg.matrix_rank(design)) if count else 0
    rest = above - design @ coefficients
    spread = math.sqrt(float(rest @ rest) / degrees) if degrees > 0 else math.nan
    return Fit(blocks, design, middle, coefficients, inverse, spread, degrees, policies)

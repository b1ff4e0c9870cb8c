"""Logging policies: proper distributions, and propensities that are the frequencies one sees."""

import doctest
import math
import random

import pytest

from rl_hooks.decision import ACTIONS
from rl_hooks.policies import builtin
from rl_hooks.policies.builtin import LoggingPolicy, PolicyError, Sticky, Uniform


@pytest.mark.parametrize("policy", [Uniform(), Sticky(0.0), Sticky(0.5), Sticky(0.99)], ids=lambda p: p.describe())
@pytest.mark.parametrize("previous", [None, 0, 5])
def test_probabilities_are_a_distribution_that_covers_every_action(policy: LoggingPolicy, previous: int | None) -> None:
    probabilities = policy.probabilities(previous)
    assert len(probabilities) == len(ACTIONS)
    assert math.isclose(sum(probabilities), 1)
    assert all(0 < p < 1 for p in probabilities)


def test_sticky_keeps_with_its_probability() -> None:
    probabilities = Sticky(0.4).probabilities(previous=3)
    assert probabilities[3] == pytest.approx(0.4 + 0.1)
    assert [p for i, p in enumerate(probabilities) if i != 3] == pytest.approx([0.1] * 5)


def test_sticky_draws_as_often_as_it_says() -> None:
    """Over 60,000 draws each of 36 shares lies within 5 standard errors (all by chance: about 1 in 50,000 fails)."""
    rng, policy, previous, draws = random.Random(7), Sticky(0.5), 0, 60_000
    seen = [[0] * 6 for _ in range(6)]
    for _ in range(draws):
        action = rng.choices(range(6), policy.probabilities(previous))[0]
        seen[previous][action] += 1
        previous = action
    for before, row in enumerate(seen):
        for action, count in enumerate(row):
            p = policy.probabilities(before)[action]
            assert abs(count / sum(row) - p) < 5 * math.sqrt(p * (1 - p) / sum(row))


@pytest.mark.parametrize("keep", [1.0, -0.1, float("nan"), float("inf")])
def test_a_policy_without_overlap_is_refused(keep: float) -> None:
    with pytest.raises(PolicyError, match=r"it must be at least 0 and below 1, for example sticky:0\.5"):
        Sticky(keep)


def test_the_examples_in_the_text_are_true() -> None:
    result = doctest.testmod(builtin)
    assert result.attempted > 0
    assert result.failed == 0

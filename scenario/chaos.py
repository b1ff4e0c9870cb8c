"""Chaos: what the random processes around a phase come to, drawn once from the seed when the plan is made.

A phase with chaos is cut into n equal stretches. In each, users and pace are moved by a number from [-1, 1] times
their variance, and the action weights are mixed with weights drawn anew. The n numbers are stratified: each comes from
a different n-th of the range, in random order. So they are uniform, and a phase keeps its planned users on average to
within variance / n, however short it is. Drawn for 80 users at variance 0.3:

    users  104 |          ____                         upper end, 80 x 1.3
            80 |____     |    |____      ____
            56 |    |____|         |____|              lower end, 80 x 0.7
               0   120  240   360  480  600   s, change_every_seconds 120

`tests/scenario/test_chaos.py` holds the drawing and the laws.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from scenario.model import Phase


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a phase during which nothing changes."""

    start_min: float  # minutes from the start of the phase
    duration_min: float  # minutes
    users_factor: float  # users are multiplied by it
    pace_factor: float  # pauses are multiplied by it
    weights: Mapping[str, float]  # user action -> weight


def stretches(phase: Phase, seed: int, scenario_name: str) -> list[Stretch]:
    """The stretches of `phase`: one without chaos, else as many as last change_every_seconds each.

    The key of the generators is (seed, scenario, phase, concern): no process depends on how long another one is.
    """
    chaos = phase.chaos
    if chaos is None:
        return [Stretch(0.0, phase.duration_min, 1.0, 1.0, phase.weights)]
    count = max(1, round(phase.duration_min * 60 / chaos.change_every_s))
    length_min = phase.duration_min / count

    def generator(concern: str) -> Random:
        return Random(f"{seed}/{scenario_name}/{phase.name}/chaos/{concern}")

    users = _stratified(generator("users"), count)
    pace = _stratified(generator("pace"), count)
    actions = generator("actions")
    return [
        Stretch(
            start_min=index * length_min,
            duration_min=length_min,
            users_factor=1 + chaos.user_variance * users[index],
            pace_factor=1 + chaos.think_time_variance * pace[index],
            weights=_mixed(phase.weights, chaos.action_randomness, actions),
        )
        for index in range(count)
    ]


def most_users(users: int, variance: float) -> int:
    """The most users that a phase of `users` can come to.

    >>> most_users(80, 0.3)
    104
    """
    return math.floor(users * (1 + variance) + 0.5)


def _stratified(random: Random, count: int) -> list[float]:
    """`count` numbers in [-1, 1], one from each of as many equal parts of the range, in random order."""
    numbers = [2 * (part + random.random()) / count - 1 for part in range(count)]
    random.shuffle(numbers)
    return numbers


def _mixed(weights: Mapping[str, float], randomness: float, random: Random) -> Mapping[str, float]:
    """(1 - randomness) of the weights and randomness of weights drawn uniformly over those with a share; same sum."""
    if randomness == 0:
        return weights
    given = {action: weight for action, weight in weights.items() if weight > 0}
    total = sum(given.values())
    drawn = {action: random.expovariate(1.0) for action in given}  # divided by their sum: uniform on the simplex
    drawn_total = sum(drawn.values())
    return {
        action: (1 - randomness) * weight + randomness * total * drawn.get(action, 0.0) / drawn_total
        for action, weight in weights.items()
    }

"""Whole users from shares, and whole users on the way from one mix to the next.

Both are pure arithmetic with exact laws: parts sum to the whole, nobody is negative, and a ramp never goes back.
"""

import math
from collections.abc import Mapping


def apportion(users: int, shares: Mapping[str, float]) -> dict[str, int]:
    """`users` split by `shares` with the largest remainder method, at least one for every share above zero.

    Profiles too small for a whole user get one; the others divide what is left by their shares. Ties go to the one
    listed first. Raises ValueError when there are fewer users than shares above zero.

    >>> apportion(80, {"quick": 0.40, "careful": 0.25, "bulk": 0.15, "impulse": 0.20})
    {'quick': 32, 'careful': 20, 'bulk': 12, 'impulse': 16}
    >>> apportion(4, {"quick": 0.94, "careful": 0.05, "bulk": 0.01, "none": 0.0})
    {'quick': 2, 'careful': 1, 'bulk': 1, 'none': 0}
    """
    present = [name for name, share in shares.items() if share > 0]
    if users < len(present):
        raise ValueError(f"{users} users cannot be split over {len(present)} profiles")
    counts = dict.fromkeys(shares, 0)
    dividing = present
    while True:
        left = users - (len(present) - len(dividing))
        counts.update(_largest_remainder(left, {name: shares[name] for name in dividing}))
        without = [name for name in dividing if counts[name] == 0]
        if not without:
            return counts
        counts.update(dict.fromkeys(without, 1))
        dividing = [name for name in dividing if name not in without]


def between(before: Mapping[str, int], after: Mapping[str, int], progress: float) -> dict[str, int]:
    """The mix at `progress` (0 to 1) of the way from one mix to another; exactly `before` at 0 and `after` at 1.

    Every profile only grows or only shrinks, and so does the total, which is the rounded straight line. Growth and
    shrinking that cancel out are swaps: one leaves for each one that comes, so a constant total stays constant.

    >>> between({"a": 10, "b": 0}, {"a": 0, "b": 10}, 0.3)
    {'a': 7, 'b': 3}
    """
    changes = {name: after.get(name, 0) - before.get(name, 0) for name in {**before, **after}}
    grow = {name: change for name, change in changes.items() if change > 0}
    shrink = {name: -change for name, change in changes.items() if change < 0}
    swaps = min(sum(grow.values()), sum(shrink.values()))
    done_swaps = _round(swaps * progress)
    grown = _steps(grow, done_swaps + _round((sum(grow.values()) - swaps) * progress))
    shrunk = _steps(shrink, done_swaps + _round((sum(shrink.values()) - swaps) * progress))
    return {name: before.get(name, 0) + grown.get(name, 0) - shrunk.get(name, 0) for name in changes}


def _largest_remainder(users: int, shares: Mapping[str, float]) -> dict[str, int]:
    total = math.fsum(shares.values())
    quotas = {name: users * share / total for name, share in shares.items()}
    counts = {name: math.floor(quota) for name, quota in quotas.items()}
    left = users - sum(counts.values())
    # Rounded, so that a quota just below a whole number for the sake of a float is first, and ties are ties.
    by_remainder = sorted(quotas, key=lambda name: round(counts[name] - quotas[name], 9))
    for name in by_remainder[:left]:
        counts[name] += 1
    return counts


def _steps(changes: Mapping[str, int], steps: int) -> dict[str, int]:
    """The first `steps` single changes, when change k of n of a profile is due at (k - 1/2) / n.

    A prefix of one fixed order: a larger `steps` never takes a change back.
    """
    total = sum(changes.values())
    if total == 0:
        return {}
    # All changes due up to a time at which surely no more than `steps` are due; then one by one, a few rounds.
    surely = 2 * steps - len(changes)
    done = {name: max(0, (change * surely + total) // (2 * total)) for name, change in changes.items()}
    while sum(done.values()) < steps:
        waiting = [name for name in changes if done[name] < changes[name]]
        earliest = min(waiting, key=lambda name: _due_at(done[name] + 1, changes[name]))
        done[earliest] += 1
    return done


def _due_at(step: int, steps: int) -> float:
    return (step - 0.5) / steps


def _round(value: float) -> int:
    return math.floor(value + 0.5)

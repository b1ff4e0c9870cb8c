"""How many users of each class run on which worker: the arithmetic of the dispatcher, without Locust.

A *mix* says how many users of each class run, a *placement* where they run. Classes are named by `__name__`, as in
Locust's messages. A *change* is one user more, one user fewer, or one user exchanged for a user of another class:

    before  a 4  b 2      after  a 1  b 5      3 exchanges: 3 changes at a constant total of 6
    before  a 4  b 2      after  a 1  b 7      3 exchanges and 2 more: 5 changes
"""

from collections.abc import Mapping

Mix = Mapping[str, int]  # class name -> users, >= 0
Placement = dict[str, dict[str, int]]  # worker id -> class name -> users, >= 0


def changes(before: Mix, after: Mix) -> int:
    """The number of changes that lead from one mix to another: the larger of users added and users removed.

    >>> changes({"a": 4, "b": 2}, {"a": 1, "b": 7})
    5
    """
    added = removed = 0
    for name in before.keys() | after.keys():
        difference = after.get(name, 0) - before.get(name, 0)
        added += max(difference, 0)
        removed += max(-difference, 0)
    return max(added, removed)


def spawn_rate(before: Mix, after: Mix) -> float:
    """Changes per second that bring `after` about within one second; at least 1, because Locust refuses 0.

    >>> spawn_rate({"a": 4, "b": 2}, {"a": 1, "b": 5})
    3.0
    """
    return float(max(1, changes(before, after)))


def counts(placement: Placement) -> dict[str, int]:
    """Users per class over all workers.

    >>> counts({"w1": {"a": 2, "b": 1}, "w2": {"a": 1, "b": 0}})
    {'a': 3, 'b': 1}
    """
    total: dict[str, int] = {}
    for users in placement.values():
        for name, n in users.items():
            total[name] = total.get(name, 0) + n
    return total


def advance(placement: Placement, target: Mix, limit: int) -> int:
    """Move `placement` towards `target` by at most `limit` changes, in place; return the changes made.

    First the total moves straight to the target's, then users are exchanged. They are removed from the fullest worker
    that has one of the class and added to the emptiest. With `limit >= changes(counts(placement), target)` the
    target is reached.
    """
    have = counts(placement)
    running = sum(have.values())
    wanted = sum(target.values())
    made = 0
    while made < limit:
        surplus = _largest_surplus(have, target) if running >= wanted else None
        deficit = _largest_deficit(have, target) if running <= wanted else None
        if surplus is None and deficit is None:
            break
        if surplus is not None:
            _remove(placement, surplus)
            have[surplus] -= 1
            running -= 1
        if deficit is not None:
            _add(placement, deficit)
            have[deficit] = have.get(deficit, 0) + 1
            running += 1
        made += 1
    return made


def even_out(placement: Placement) -> int:
    """Move users, in place, until the totals of any two workers differ by at most 1; return the users moved.

    A move ends a user on one worker and starts one of its class on another, so as few as possible are moved.
    """
    moved = 0
    while True:
        fullest = max(placement.values(), key=_total)
        emptiest = min(placement.values(), key=_total)
        if _total(fullest) - _total(emptiest) <= 1:
            return moved
        name = max(sorted(fullest), key=lambda n: fullest[n] - emptiest.get(n, 0))
        fullest[name] -= 1
        emptiest[name] = emptiest.get(name, 0) + 1
        moved += 1


def _largest_surplus(have: Mix, target: Mix) -> str | None:
    over = {name: n - target.get(name, 0) for name, n in have.items() if n > target.get(name, 0)}
    return max(sorted(over), key=lambda name: over[name], default=None)


def _largest_deficit(have: Mix, target: Mix) -> str | None:
    # Relative to the target, so that the classes grow in step and a half-done ramp has about the right shares.
    under = {name: (n - have.get(name, 0)) / n for name, n in target.items() if n > have.get(name, 0)}
    return max(sorted(under), key=lambda name: under[name], default=None)


def _remove(placement: Placement, name: str) -> None:
    having = [users for users in placement.values() if users.get(name, 0) > 0]
    users = max(having, key=lambda users: (_total(users), users[name]))
    users[name] -= 1


def _add(placement: Placement, name: str) -> None:
    users = min(placement.values(), key=lambda users: (_total(users), users.get(name, 0)))
    users[name] = users.get(name, 0) + 1


def _total(users: Mix) -> int:
    return sum(users.values())

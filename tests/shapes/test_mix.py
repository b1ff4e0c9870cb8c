"""Laws of the arithmetic: how a rate follows from two mixes, how users are spread over workers."""

import doctest
from random import Random

import pytest

from shapes import mix as mixes
from shapes.mix import Placement, advance, changes, counts, even_out, spawn_rate

NAMES = ("a", "b", "c", "d")


def random_mix(random: Random, most: int = 9) -> dict[str, int]:
    return {name: random.randint(0, most) for name in NAMES}


def random_placement(random: Random) -> Placement:
    return {f"w{i}": random_mix(random) for i in range(random.randint(1, 5))}


def test_the_examples_hold() -> None:
    assert doctest.testmod(mixes).failed == 0
    assert doctest.testmod(mixes).attempted > 0


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {}, 0),
        ({}, {"a": 3}, 3),
        ({"a": 3}, {}, 3),
        ({"a": 3, "b": 1}, {"a": 1, "b": 3}, 2),
        ({"a": 3, "b": 1}, {"a": 1, "b": 4}, 3),
        ({"a": 3, "b": 1}, {"a": 0, "b": 3}, 3),
    ],
)
def test_an_exchange_is_one_change(before: dict[str, int], after: dict[str, int], expected: int) -> None:
    assert changes(before, after) == expected
    assert spawn_rate(before, after) == max(1, expected)


@pytest.mark.parametrize("seed", range(50))
def test_advance_reaches_the_target_in_exactly_the_number_of_changes(seed: int) -> None:
    random = Random(seed)
    placement, target = random_placement(random), random_mix(random)
    needed = changes(counts(placement), target)
    assert advance(placement, target, needed) == needed
    assert counts(placement) == target
    assert advance(placement, target, 100) == 0


@pytest.mark.parametrize("seed", range(50))
def test_one_change_at_a_time_the_total_goes_straight_to_the_target(seed: int) -> None:
    random = Random(seed)
    placement, target = random_placement(random), random_mix(random)
    wanted = sum(target.values())
    while left := changes(counts(placement), target):
        before = sum(counts(placement).values())
        assert advance(placement, target, 1) == 1
        after = sum(counts(placement).values())
        assert changes(counts(placement), target) == left - 1
        assert min(before, wanted) <= after <= max(before, wanted)
        assert all(n >= 0 for users in placement.values() for n in users.values())


@pytest.mark.parametrize("seed", range(50))
def test_new_users_go_to_the_emptiest_workers(seed: int) -> None:
    random = Random(seed)
    placement: Placement = {f"w{i}": dict.fromkeys(NAMES, 0) for i in range(random.randint(1, 5))}
    target = random_mix(random)
    advance(placement, target, 100)
    totals = [sum(users.values()) for users in placement.values()]
    assert max(totals) - min(totals) <= 1


@pytest.mark.parametrize("seed", range(50))
def test_evening_out_keeps_the_mix_and_moves_no_more_than_needed(seed: int) -> None:
    placement = random_placement(Random(seed))
    before = counts(placement)
    totals = sorted((sum(users.values()) for users in placement.values()), reverse=True)
    share, extra = divmod(sum(totals), len(totals))
    goal = [share + (i < extra) for i in range(len(totals))]
    moved = even_out(placement)
    after = sorted((sum(users.values()) for users in placement.values()), reverse=True)
    assert counts(placement) == before
    assert after == goal
    assert moved == sum(max(0, is_ - should) for is_, should in zip(totals, goal, strict=True))
    assert all(n >= 0 for users in placement.values() for n in users.values())

"""The laws of whole users: parts sum to the whole, nobody is negative, a ramp never goes back."""

import doctest
from random import Random

import pytest

import scenario.mix
from scenario.mix import apportion, between

NAMES = [f"profile_{n}" for n in range(8)]


def random_shares(random):
    parts = [random.choice([0, random.random(), 0.01 * random.random()]) for _ in range(random.randint(1, 8))]
    if sum(parts) == 0:
        parts[0] = 1.0
    return {name: part / sum(parts) for name, part in zip(NAMES, parts, strict=False)}


def random_mix(random):
    return {
        name: random.choice([0, random.randint(0, 9), random.randint(0, 400)]) for name in NAMES[: random.randint(1, 8)]
    }


def test_the_worked_examples():
    assert doctest.testmod(scenario.mix).attempted == 3
    assert doctest.testmod(scenario.mix).failed == 0


@pytest.mark.parametrize("seed", range(50))
def test_apportioned_users_sum_up_and_stay_near_their_shares(seed):
    random = Random(seed)
    for _ in range(40):
        shares = random_shares(random)
        present = [name for name, share in shares.items() if share > 0]
        users = len(present) + random.choice([0, 1, random.randint(0, 30), random.randint(0, 2000)])
        counts = apportion(users, shares)
        assert list(counts) == list(shares)
        assert sum(counts.values()) == users
        assert all(counts[name] >= 1 for name in present)
        assert all(counts[name] == 0 for name in shares if name not in present)
        quotas = {name: users * share for name, share in shares.items()}
        if min(quotas[name] for name in present) >= 1:  # nobody had to be given a user: the quota rule holds
            assert all(abs(counts[name] - quotas[name]) < 1 for name in shares)


def test_the_largest_remainders_get_the_users_left_over_and_ties_go_to_the_first():
    assert apportion(10, {"a": 0.55, "b": 0.28, "c": 0.17}) == {"a": 5, "b": 3, "c": 2}
    assert apportion(3, {"a": 0.5, "b": 0.5}) == {"a": 2, "b": 1}
    # Quotas 1.1, 1.45, 2.45: a tie, which floats (1.45 and 2.45 are not exact) would give to the last one.
    assert apportion(5, {"a": 0.22, "b": 0.29, "c": 0.49}) == {"a": 1, "b": 2, "c": 2}


def test_a_quota_that_is_whole_but_for_a_float_is_whole():
    assert apportion(100, {"a": 0.29, "b": 0.71}) == {"a": 29, "b": 71}  # 100 * 0.29 is 28.999999999999996
    assert apportion(3, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}) == {"a": 1, "b": 1, "c": 1}


def test_too_few_users_for_the_shares_is_an_error():
    with pytest.raises(ValueError, match="2 users cannot be split over 3 profiles"):
        apportion(2, {"a": 0.5, "b": 0.3, "c": 0.2, "d": 0.0})


@pytest.mark.parametrize("seed", range(60))
def test_on_the_way_every_profile_only_grows_or_only_shrinks_and_the_total_is_the_rounded_line(seed):
    random = Random(seed)
    for _ in range(10):
        before, after = random_mix(random), random_mix(random)
        first, last = sum(before.values()), sum(after.values())
        previous = between(before, after, 0.0)
        assert all(previous[name] == before.get(name, 0) for name in previous)
        steps = random.randint(1, 200)
        for step in range(1, steps + 1):
            progress = step / steps
            mix = between(before, after, progress)
            for name, users in mix.items():
                start, end = before.get(name, 0), after.get(name, 0)
                assert (users - previous[name]) * (end - start) >= 0
                assert min(start, end) <= users <= max(start, end)
            assert abs(sum(mix.values()) - (first + (last - first) * progress)) <= 0.5 + 1e-9
            previous = mix
        assert all(previous[name] == after.get(name, 0) for name in previous)


def test_profiles_stay_near_their_own_lines():
    before, after = {"a": 0, "b": 100, "c": 7}, {"a": 60, "b": 10, "c": 7}
    for step in range(101):
        mix = between(before, after, step / 100)
        assert abs(mix["a"] - 60 * step / 100) <= 1
        assert abs(mix["b"] - (100 - 90 * step / 100)) <= 1
        assert mix["c"] == 7


def test_a_swap_keeps_a_constant_total_constant():
    for step in range(101):
        assert sum(between({"a": 30, "b": 0, "c": 5}, {"a": 0, "b": 20, "c": 15}, step / 100).values()) == 35

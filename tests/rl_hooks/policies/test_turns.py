"""Whose turn it is: laws of the schedule over many random plans, and what the controller makes of it."""

import doctest
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, pairwise
from random import Random
from typing import Any

import pytest

from rl_hooks.control import Controller, Decision
from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.policies import turns
from rl_hooks.policies.builtin import EpsilonGreedy, Fixed, PolicyError, Uniform
from rl_hooks.policies.named import make_policies, make_policy, make_run_policy
from rl_hooks.policies.turns import BLOCK_WINDOWS, Turns, block_ticks, cut, deal, take_turns
from tests.rl_hooks.policies.test_named import Trained
from tests.tiny_policy import schema

PLANS = range(300)  # seeds of random days


@dataclass(frozen=True)
class Named:
    name: str


@dataclass(frozen=True)
class Fault:
    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Day:
    """A plan of phases that follow each other, and faults at any time."""

    phases: tuple[tuple[str, float], ...]  # name, end in seconds
    faults: tuple[Fault, ...] = ()
    seed: int = 1
    window_s: float = 10.0
    decision_interval_s: float = 2.0

    def phase_at(self, t_s: float) -> Named | None:
        return next((Named(name) for name, end_s in self.phases if t_s < end_s), None)

    def faults_at(self, t_s: float) -> list[Fault]:
        return [fault for fault in self.faults if fault.start_s <= t_s < fault.end_s]

    @property
    def ticks(self) -> int:
        return sum(1 for _ in turns._phases(self))


def random_day(seed: int) -> Day:
    """One to six phases, some shorter than a block, with up to three faults each; windows and intervals of any kind."""
    rng = Random(seed)
    phases, faults, t_s = [], [], 0.0
    for number in range(rng.randint(1, 6)):
        end_s = t_s + rng.choice([rng.uniform(5, 60), rng.uniform(60, 900)])
        starts_s = [rng.uniform(t_s, end_s) for _ in range(rng.randint(0, 3))]
        faults += [
            Fault(f"fault {len(faults) + k}", at_s, at_s + rng.uniform(1, 80)) for k, at_s in enumerate(starts_s)
        ]
        phases.append((f"phase {number}", end_s))
        t_s = end_s
    return Day(tuple(phases), tuple(faults), seed, rng.uniform(2, 15), rng.choice([0.2, 0.7, 1.0, 2.0]))


@cache
def scheduled(seed: int) -> tuple[Day, Turns]:
    """A random day on which two to four policies take turns; short days have only two."""
    day = random_day(seed)
    blocks = len(list(cut(day)))
    count = min(2 + seed % 3, blocks)
    if count < 2:
        return scheduled(seed + 10_000)
    return day, take_turns([Fixed(action) for action in ACTIONS[:count]], day)


def within(schedule: Turns) -> Counter[tuple[tuple[str, bool], int]]:
    return Counter(zip([block.stratum for block in schedule.blocks], schedule.order, strict=True))


def test_the_examples_of_the_docstrings_hold() -> None:
    assert tuple(doctest.testmod(turns)) == (0, 2)


# -- blocks ----------------------------------------------------------------------------------------------------------


def test_every_tick_is_in_one_block_of_its_phase_with_all_its_faults() -> None:
    for seed in PLANS:
        day, schedule = scheduled(seed)
        ticks = [tick for block in schedule.blocks for tick in range(block.first_tick, block.last_tick + 1)]
        assert ticks == list(range(day.ticks))
        for block in schedule.blocks:
            times_s = [tick * day.decision_interval_s for tick in range(block.first_tick, block.last_tick + 1)]
            assert {day.phase_at(t_s) for t_s in times_s} == {Named(block.phase)}
            assert set(block.faults) == {fault.text for t_s in times_s for fault in day.faults_at(t_s)}


def test_a_block_lasts_five_windows_or_more_and_only_the_last_of_a_phase_is_longer() -> None:
    for seed in PLANS:
        day, schedule = scheduled(seed)
        length = block_ticks(day.window_s, day.decision_interval_s)
        assert (
            (length - 1) * day.decision_interval_s
            < BLOCK_WINDOWS * day.window_s
            <= length * day.decision_interval_s + 1e-6
        )
        for _, blocks in groupby(schedule.blocks, lambda block: block.phase):
            lengths = [block.last_tick - block.first_tick + 1 for block in blocks]
            assert all(one == length for one in lengths[:-1])
            assert lengths[-1] < 2 * length
            assert lengths[-1] >= length or len(lengths) == 1


# -- the order -------------------------------------------------------------------------------------------------------


def test_within_a_stratum_no_policy_has_two_blocks_more_than_another_and_overall_none_has_three() -> None:
    for seed in PLANS:
        _, schedule = scheduled(seed)
        inside, places = within(schedule), range(len(schedule.policies))
        for stratum in {block.stratum for block in schedule.blocks}:
            counts = [inside[stratum, place] for place in places]
            assert max(counts) - min(counts) <= 1
        overall = [schedule.order.count(place) for place in places]
        assert max(overall) - min(overall) <= 2


def test_a_policy_goes_on_only_where_balance_leaves_no_other() -> None:
    """At every block that goes on, it was the only one with the fewest blocks in the stratum and then overall."""
    for seed in PLANS:
        _, schedule = scheduled(seed)
        inside: Counter[Any] = Counter()
        overall: Counter[int] = Counter()
        pairs = zip(schedule.blocks, schedule.order, strict=True)
        before = -1
        for block, place in pairs:
            ranks = [(inside[block.stratum, one], overall[one]) for one in range(len(schedule.policies))]
            assert ranks[place] == min(ranks)
            assert place != before or ranks.count(min(ranks)) == 1
            inside[block.stratum, place] += 1
            overall[place] += 1
            before = place


def test_in_a_stratum_of_its_own_two_policies_alternate() -> None:
    order = list(deal(["night"] * 40, 2, Random(3)))
    assert all(one != other for one, other in pairwise(order))


@pytest.mark.parametrize("seed", range(20))
def test_the_seed_alone_decides_the_order(seed: int) -> None:
    assert scheduled(seed)[1].order == scheduled(seed)[1].order


def test_another_seed_has_another_order_and_anyone_may_begin() -> None:
    policies = [Fixed(action) for action in ACTIONS[:3]]
    orders = [take_turns(policies, Day((("a", 600.0), ("b", 1200.0)), seed=seed)).order for seed in range(60)]
    assert len(set(orders)) > 20
    assert {order[0] for order in orders} == {0, 1, 2}


# -- what is refused -------------------------------------------------------------------------------------------------


def test_what_makes_turns_impossible_is_told_all_at_once() -> None:
    with pytest.raises(PolicyError) as caught:
        take_turns([Uniform(), Uniform()], Day((("short", 90.0),)))
    assert str(caught.value) == (
        "policy turns:uniform,uniform\n"
        "  uniform is named twice; name it once\n"
        "  blocks of at least 5 windows of 10 s: the run has 1, and there are 2 policies; make the run longer or "
        "window_seconds shorter"
    )
    with pytest.raises(PolicyError, match="one policy has nobody to take turns with; name at least two"):
        make_run_policy("turns:uniform", Day((("long", 900.0),)))


@pytest.mark.parametrize("text", ["turns", "turns:", "turns:uniform,", "turns:uniform,,least_loaded"])
def test_a_place_without_a_name_is_refused(text: str) -> None:
    with pytest.raises(PolicyError) as caught:
        make_policies(text)
    assert str(caught.value) == (
        f"policy {text}: names nobody in one place; write for example turns:least_loaded,round_robin"
    )


@pytest.mark.parametrize("text", ["turns:uniform,least_loaded", "epsilon:0.1:turns:uniform,least_loaded", "turns"])
def test_nobody_takes_turns_where_no_run_is_decided(text: str) -> None:
    with pytest.raises(PolicyError, match="policies take turns in a run with a plan only, and not within a policy"):
        make_policy(text)


def test_all_policies_that_cannot_be_made_are_told() -> None:
    with pytest.raises(PolicyError) as caught:
        make_policies("turns:sticky:much,uniform,onnx:nowhere.onnx")
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["policy sticky", "nowhere.onnx"]


def for_a_minute() -> Trained:
    return Trained(schema(window_s=60.0))


def exploring_for_half_a_minute() -> EpsilonGreedy:
    return EpsilonGreedy(Trained(schema(window_s=30.0)), 0.1)


def test_every_trained_policy_in_turn_has_to_fit_to_the_run() -> None:
    minute, half = (f"{__name__}:{make.__name__}" for make in (for_a_minute, exploring_for_half_a_minute))
    with pytest.raises(PolicyError) as caught:
        make_run_policy(f"turns:{minute},least_loaded,{half}", Day((("long", 9000.0),), window_s=20.0))
    heads = [line for line in str(caught.value).splitlines() if not line.startswith(" ")]
    assert heads == [f"policy {name} does not fit to this run" for name in ("uniform", "epsilon:0.1:uniform")]
    fitting = make_run_policy(f"turns:{minute},least_loaded", Day((("long", 9000.0),), window_s=60.0))
    assert fitting.describe() == "turns:uniform,fixed:least_loaded"


def test_without_turns_a_run_has_its_one_policy() -> None:
    assert make_run_policy("epsilon:0.1:least_loaded", Day((("short", 9.0),))) == EpsilonGreedy(
        Fixed("least_loaded"), 0.1
    )


# -- in a run --------------------------------------------------------------------------------------------------------


class Nothing:
    """No metrics, and a balancer that takes everything."""

    def describe(self) -> str:
        return "nothing"

    def sample(self) -> None:
        return None

    def apply(self, actions: Any) -> None:
        pass


def test_every_decision_of_a_block_is_of_its_policy_with_its_own_distribution() -> None:
    day = Day((("a", 400.0), ("b", 700.0)), (Fault("slow", 120.0, 180.0),))
    policies = [Fixed("least_loaded"), EpsilonGreedy(Fixed("round_robin"), 0.3)]
    schedule = take_turns(policies, day)
    controller = Controller(schedule, Nothing(), Nothing(), seed=1)  # type: ignore[arg-type]
    made: list[Sequence[Decision]] = [controller.step(tick, lambda *_: None).decisions for tick in range(day.ticks + 1)]
    assert schedule.to_json()[-1]["last_tick"] == day.ticks - 1  # the one more is of the last block
    made[-2:] = [[*made[-2], *made[-1]]]
    for row in schedule.to_json():
        policy = next(one for one in policies if one.describe() == row["policy"])
        for tick in range(row["first_tick"], row["last_tick"] + 1):
            assert {one.policy for one in made[tick]} == {row["policy"]}
            assert {one.probabilities for one in made[tick]} == {tuple(policy.probabilities(None, None))}
            assert {one.service for one in made[tick]} == set(range(len(SERVICES)))


def test_the_manifest_says_of_every_block_when_whose_and_in_which_conditions() -> None:
    day = Day((("a", 400.0), ("b", 700.0)), (Fault("slow", 120.0, 180.0),))
    rows = take_turns([Uniform(), Fixed("backpressure")], day).to_json()
    assert [(row["block"], row["first_tick"], row["last_tick"], row["phase"], row["faults"]) for row in rows] == [
        *((0, 0, 24, "a", []), (1, 25, 49, "a", []), (2, 50, 74, "a", ["slow"]), (3, 75, 99, "a", ["slow"])),
        *((4, 100, 124, "a", []), (5, 125, 149, "a", []), (6, 150, 174, "a", []), (7, 175, 199, "a", [])),
        *((8, 200, 224, "b", []), (9, 225, 249, "b", []), (10, 250, 274, "b", []), (11, 275, 299, "b", [])),
        *((12, 300, 324, "b", []), (13, 325, 349, "b", [])),
    ]
    assert {row["policy"] for row in rows} == {"uniform", "fixed:backpressure"}
    assert take_turns([Uniform(), Fixed("backpressure")], day).summary() == (
        "14 blocks in 3 strata: uniform 7, fixed:backpressure 7"
    )

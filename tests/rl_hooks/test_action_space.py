"""Which actions there are: spaces say what exists, and policies keep to it in every service."""

import doctest
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from rl_hooks import action_space
from rl_hooks.action_space import (
    ALL_STRATEGIES,
    ActionSpace,
    ActionSpaceError,
    instances,
    strategies,
)
from rl_hooks.control import Controller, Sample
from rl_hooks.decision import ACTION_INDEX, ACTIONS, MOST_ACTIONS, SERVICES
from rl_hooks.policies.builtin import EpsilonGreedy, Fixed, LoggingPolicy, PolicyError, Sticky, Uniform, by_service
from rl_hooks.policies.named import make_policy, make_run_policy
from tests import builders

FOUR = strategies(["circuit_breaker", "backpressure"])
SWITCH = strategies(["backpressure"], one_for_all=True)
PODS = instances(
    {service: [f"{service}-{n}" for n in range(1, 2 + min(k, 2) + 1)] for k, service in enumerate(SERVICES)}
)
"""Two instances of the first service, three of the second, four of the others."""


class Balancer:
    """A source and an actuator that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, str]] = []

    def describe(self) -> str:
        return "balancer"

    def sample(self) -> Sample | None:
        return None

    def apply(self, actions: Mapping[str, str]) -> None:
        self.told.append(actions)


def decided(policy: Any, space: ActionSpace, ticks: int = 300) -> tuple[list[Any], Balancer]:
    balancer = Balancer()
    one = Controller(policy, balancer, balancer, 5, lambda: 9, space=space)
    return [one.step(tick, lambda *_: None).decisions for tick in range(ticks)], balancer


def test_the_examples_in_the_text_are_true() -> None:
    result = doctest.testmod(action_space)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("space", [ALL_STRATEGIES, FOUR, SWITCH, PODS])
def test_a_space_survives_being_written_down(space: ActionSpace) -> None:
    assert ActionSpace.of({"action_space": space.to_json()}) == space
    assert ActionSpace.of({}) == ALL_STRATEGIES


@pytest.mark.parametrize("space", [ALL_STRATEGIES, FOUR, PODS])
@pytest.mark.parametrize(
    "policy", [Uniform(), Sticky(0.6), EpsilonGreedy(Sticky(0.2), 0.4)], ids=lambda p: p.describe()
)
def test_what_does_not_exist_has_probability_0_and_all_else_can_be_drawn(
    space: ActionSpace, policy: LoggingPolicy
) -> None:
    for service, mine in enumerate(by_service(policy, space)):
        there = space.available(service)
        for previous in (None, 0, 1):
            p = mine.probabilities(previous, None)
            assert math.isclose(sum(p), 1)
            assert [share > 0 for share in p] == list(there)
        assert mine.describe() == policy.describe()
        assert Uniform().among(space.choices(service)).probabilities(None, None)[0] == 1 / sum(there)


@pytest.mark.parametrize("space", [FOUR, PODS])
def test_recorded_probabilities_are_those_of_what_exists_and_the_balancer_hears_names_of_it(space: ActionSpace) -> None:
    steps, balancer = decided(Sticky(0.5), space)
    for decisions, told in zip(steps, balancer.told, strict=True):
        for decision in decisions:
            assert len(decision.probabilities) == space.size
            assert space.available(decision.service)[decision.action]
            assert decision.propensity > 0
            assert told[SERVICES[decision.service]] == space.names[decision.service][decision.action]
    for service in range(len(SERVICES)):
        taken = {decisions[service].action for decisions in steps}
        assert taken == {number for number, there in enumerate(space.available(service)) if there}


def test_one_switch_is_one_draw_for_all_services() -> None:
    steps, _ = decided(Sticky(0.5), SWITCH, 3000)
    for decisions in steps:
        assert len({(decision.action, decision.probabilities) for decision in decisions}) == 1
    counts = [0] * len(ACTIONS)
    for decisions in steps:
        counts[decisions[0].action] += 1
    assert counts[ACTION_INDEX["backpressure"]] == 0
    assert all(abs(count / 3000 - 0.2) < 0.06 for count in counts[:5])


def test_with_all_strategies_the_draws_are_what_they_always_were() -> None:
    steps, _ = decided(Uniform(), ALL_STRATEGIES, 20)
    expected = [
        [random.Random(f"5/decision/{service}/{tick}").choices(range(6), (1 / 6,) * 6)[0] for service in SERVICES]
        for tick in range(20)
    ]
    assert [[decision.action for decision in decisions] for decisions in steps] == expected


class Looking:
    """A policy of one's own that says nothing about itself."""

    def describe(self) -> str:
        return "looking"

    def probabilities(self, previous: int | None, observation: Any) -> Sequence[float]:
        return (1 / 6,) * 6


class Blind(Looking):
    by_observation = False


@pytest.mark.parametrize("policy", [Looking(), EpsilonGreedy(Looking(), 0.5)], ids=lambda p: p.describe())
def test_five_opinions_for_one_switch_are_refused(policy: LoggingPolicy) -> None:
    with pytest.raises(
        PolicyError, match="it would have 5 opinions where the balancer has one switch for all services"
    ):
        by_service(policy, strategies(one_for_all=True))


def test_a_policy_of_ones_own_that_says_it_does_not_look_may_move_the_switch() -> None:
    steps, _ = decided(Blind(), strategies(one_for_all=True), 30)
    assert {len({decision.action for decision in decisions}) for decisions in steps} == {1}


def test_a_policy_that_changes_its_mind_between_two_questions_is_asked_once_for_all() -> None:
    class Restless(Blind):
        asked = 0

        def probabilities(self, previous: int | None, observation: Any) -> Sequence[float]:
            self.asked += 1
            return tuple(float(number == self.asked % 6) for number in range(6))

    steps, _ = decided(Restless(), strategies(one_for_all=True), 12)
    assert {len({(one.action, one.probabilities) for one in decisions}) for decisions in steps} == {1}


def test_a_policy_of_ones_own_that_knows_six_actions_is_refused_where_there_are_fewer() -> None:
    with pytest.raises(
        PolicyError, match=r"policy looking: decides among all six strategies, .* give it a method among"
    ):
        by_service(Looking(), FOUR)
    assert by_service(Looking(), ALL_STRATEGIES)[0].describe() == "looking"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "backpressure",
            "fixed: there is no action 'backpressure'; there are least_loaded, fastest_response, round_robin",
        ),
        ("epsilon:0.1:circuit_breaker", "fixed: there is no action 'circuit_breaker'; there are least_loaded"),
        ("turns:uniform,backpressure", "fixed: there is no action 'backpressure'"),
    ],
)
def test_an_action_that_the_balancer_lacks_is_refused_before_the_run(text: str, complaint: str) -> None:
    with pytest.raises(PolicyError, match=complaint):
        make_run_policy(text, builders.plan(), FOUR)


def test_a_fixed_instance_is_taken_in_its_service_and_the_others_draw_from_their_own() -> None:
    policy = make_policy("cart-service-2", PODS)
    for service, mine in enumerate(by_service(policy, PODS)):
        p = mine.probabilities(None, None)
        count = sum(PODS.available(service))
        wanted = [0, 1, 0, 0] if SERVICES[service] == "cart-service" else [1 / count] * count + [0] * (4 - count)
        assert p == pytest.approx(wanted)
        assert mine.describe() == "fixed:cart-service-2"


def test_the_second_instance_of_every_service_is_a_fixed_policy_and_a_fourth_of_two_is_none() -> None:
    for mine in by_service(make_policy("instance_2", PODS), PODS):
        assert mine.probabilities(None, None) == (0, 1, 0, 0)
    with pytest.raises(PolicyError, match="fixed: there is no action 'instance_4'; there are user-service-1, user-ser"):
        by_service(make_policy("instance_4", PODS), PODS)


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        (lambda: strategies(["fastest"]), "there is no action 'fastest'; there are least_loaded"),
        (lambda: strategies(ACTIONS[1:]), "of the actions least_loaded is left, and a decision needs two or more"),
        (lambda: instances({}), f"user-service has 0 instances, 2 to {MOST_ACTIONS} are needed"),
        (
            lambda: instances({service: [str(n) for n in range(MOST_ACTIONS + 1)] for service in SERVICES}),
            f"cart-service has {MOST_ACTIONS + 1} instances, 2 to {MOST_ACTIONS} are needed",
        ),
    ],
)
def test_a_space_without_a_choice_or_beyond_the_tables_is_refused(made: Any, complaint: str) -> None:
    with pytest.raises(ActionSpaceError, match=complaint):
        made()


def test_a_policy_that_gives_an_action_to_a_service_without_it_stops_the_loop() -> None:
    class Stubborn(Looking):
        def among(self, choices: object) -> LoggingPolicy:
            return self

    with pytest.raises(PolicyError, match="has an action that user-service lacks"):
        decided(Stubborn(), FOUR, 1)


def test_fixed_strategies_are_what_they_were() -> None:
    assert Fixed("round_robin") == make_policy("round_robin")

"""Who decides: the policy by fresh telemetry, the fallback otherwise, and the record names which."""

import doctest
from collections.abc import Sequence
from typing import Any

import pytest

from rl_hooks.control import Controller, Sample, Step
from rl_hooks.policies.builtin import EpsilonGreedy, Fixed, PolicyError, Uniform
from training.serving import guard
from training.serving.guard import Guarded, GuardedActuator, GuardedSource, Limits, Reason

S = 10**9
OLD = (Reason("old_sample", "the newest metrics sample is 9.0 s old"),)


class Failing:
    """A policy that states probabilities for services whose number is even."""

    def __init__(self) -> None:
        self.asked = 0

    def describe(self) -> str:
        return "failing"

    def probabilities(self, previous: int | None, observation: Any) -> Sequence[float]:
        self.asked += 1
        if self.asked % 2 == 0:
            raise PolicyError("no number")
        return Fixed("least_loaded").probabilities(previous)


class Bench:
    def describe(self) -> str:
        return "bench"

    def sample(self) -> Sample | None:
        return None

    def apply(self, actions: Any) -> None:
        pass


def step(policy: Any) -> Step:
    return Controller(policy, Bench(), Bench(), seed=1, now_ns=lambda: 1).step(0, lambda *_: None)


@pytest.mark.parametrize(
    ("sample_ns", "request_ns", "kinds"),
    [
        (96 * S, 94 * S, []),
        (94 * S, 94 * S, []),
        (94 * S - 1, 100 * S, ["old_sample"]),
        (100 * S, 90 * S, ["old_requests"]),
        (None, None, ["no_sample", "no_requests"]),
        (10 * S, None, ["old_sample", "no_requests"]),
    ],
)
def test_telemetry_is_stale_when_any_of_it_is_too_old_or_not_there(
    sample_ns: int | None, request_ns: int | None, kinds: list[str]
) -> None:
    found = Limits(6.0, samples=True, requests=True).reasons(100 * S, sample_ns, request_ns)
    assert [reason.kind for reason in found] == kinds


def test_what_there_is_not_at_all_is_not_waited_for() -> None:
    assert Limits(6.0, samples=False, requests=True).reasons(100 * S, None, 99 * S) == ()
    assert Limits(6.0, samples=True, requests=False).reasons(100 * S, 99 * S, None) == ()


@pytest.mark.parametrize(
    ("reasons", "name", "chosen"), [((), "uniform", [1 / 6] * 6), (OLD, "fixed:backpressure", [0] * 5 + [1])]
)
def test_every_decision_carries_name_and_distribution_of_who_made_it(
    reasons: tuple[Reason, ...], name: str, chosen: list[float]
) -> None:
    guarded = Guarded(Uniform(), Fixed("backpressure"), lambda _: None, reasons)
    for decision in step(guarded).decisions:
        assert (decision.policy, list(decision.probabilities)) == (name, chosen)
    for decision in step(EpsilonGreedy(guarded, 0.3)).decisions:
        assert decision.policy == f"epsilon:0.3:{name}"
        assert list(decision.probabilities) == pytest.approx([0.7 * p + 0.05 for p in chosen])


def test_a_policy_that_fails_for_a_service_leaves_that_one_to_the_fallback_and_is_heard() -> None:
    heard: list[PolicyError] = []
    decided = step(Guarded(Failing(), Fixed("backpressure"), heard.append, ())).decisions
    assert [decision.policy for decision in decided] == ["failing", "fixed:backpressure"] * 2 + ["failing"]
    assert [str(error) for error in heard] == ["no number"] * 2


class Broken:
    """A part of somebody else that is wrong in its code."""

    def describe(self) -> str:
        return "broken"

    def sample(self) -> Sample | None:
        raise KeyError("cpu")

    def apply(self, actions: Any) -> None:
        raise OSError("no route")

    def probabilities(self, previous: int | None, observation: Any) -> Sequence[float]:
        return [1 / 0]


def test_whatever_a_part_of_somebody_else_raises_is_told_and_routing_goes_on() -> None:
    heard: list[PolicyError] = []
    guarded = Guarded(Broken(), Fixed("backpressure"), heard.append, ())
    controller = Controller(guarded, GuardedSource(Broken()), GuardedActuator(Broken()), seed=1)
    done = controller.step(0, lambda *_: None)
    assert {decision.policy for decision in done.decisions} == {"fixed:backpressure"}
    assert not any(decision.actuated for decision in done.decisions)
    assert done.fault == "metrics source broken: KeyError: 'cpu'; actuator broken: OSError: no route"
    assert {str(error) for error in heard} == {"policy broken: ZeroDivisionError: division by zero"}


def test_before_anything_is_known_the_fallback_decides() -> None:
    guarded = Guarded(Uniform(), Fixed("least_loaded"), lambda _: None)
    assert {decision.policy for decision in step(guarded).decisions} == {"fixed:least_loaded"}


def test_the_examples_in_the_text_are_true() -> None:
    result = doctest.testmod(guard)
    assert (result.attempted > 0, result.failed) == (True, 0)

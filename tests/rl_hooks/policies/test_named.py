"""Policies by name: one grammar for live runs, runs in virtual time and serving."""

import math
from dataclasses import dataclass
from typing import Any

import pytest

from rl_hooks.decision import ACTION_INDEX, ACTIONS
from rl_hooks.policies.builtin import EpsilonGreedy, Fixed, LoggingPolicy, PolicyError, Sticky, Uniform
from rl_hooks.policies.named import check_fit, make_policy
from tests.tiny_policy import schema


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("uniform", Uniform()),
        ("sticky", Sticky(0.5)),
        ("sticky:0.25", Sticky(0.25)),
        *((action, Fixed(action)) for action in ACTIONS),
        ("epsilon:0.1:backpressure", EpsilonGreedy(Fixed("backpressure"), 0.1)),
        ("epsilon:1:sticky:0.2", EpsilonGreedy(Sticky(0.2), 1.0)),
        ("rl_hooks.policies.builtin:Uniform", Uniform()),
        ("epsilon:0.5:rl_hooks.policies.builtin:Sticky", EpsilonGreedy(Sticky(0.5), 0.5)),
    ],
)
def test_a_policy_by_name(text: str, policy: object) -> None:
    assert make_policy(text) == policy


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sticky:much", "policy sticky:much: 'much' is not a number; write for example sticky:0.5"),
        ("uniform:0.5", "policy uniform:0.5: uniform takes no parameter"),
        ("sticky:1", "sticky: keep is 1.0; it must be at least 0 and below 1, for example sticky:0.5"),
        ("os:sep", "policy os:sep: is a str; name a class or a function that makes one"),
        ("builtins:dict", "policy builtins:dict: lacks describe, probabilities; a dict cannot serve here"),
        ("onnx:", "policy onnx:: names no file; write for example onnx:policy.onnx"),
        (
            "epsilon:0.1",
            "policy epsilon:0.1: names no policy to explore around; write for example epsilon:0.1:backpressure",
        ),
        (
            "epsilon:some:uniform",
            "policy epsilon:some:uniform: 'some' is not a number; write for example epsilon:0.1:backpressure",
        ),
        (
            "epsilon:0:uniform",
            "epsilon: the share of uniform draws is 0.0; it must be above 0 and at most 1, for example 0.1",
        ),
        ("epsilon:0.1:uniform:2", "policy uniform:2: uniform takes no parameter"),
        (
            "onnx:nowhere.onnx",
            "nowhere.onnx: there is no such file; give the ONNX file of a trained policy, as onnx:policy.onnx",
        ),
    ],
)
def test_a_policy_that_cannot_be_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(PolicyError) as caught:
        make_policy(text)
    assert str(caught.value) == complaint


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("least_load", r"policy least_load: is not a known name\. Did you mean 'least_loaded'\?"),
        ("epsilon:0.1:least_load", r"policy least_load: is not a known name\. Did you mean 'least_loaded'\?"),
        ("os:system", r"policy os:system: could not be made \(TypeError: "),
    ],
)
def test_a_slip_of_the_pen_is_told_what_it_was_meant_to_be(text: str, complaint: str) -> None:
    with pytest.raises(PolicyError, match=complaint):
        make_policy(text)


@pytest.mark.parametrize("base", [Uniform(), Sticky(0.5), *map(Fixed, ACTIONS)], ids=lambda base: base.describe())
@pytest.mark.parametrize("eps", [0.05, 0.3, 1.0])
def test_exploration_mixes_exactly_its_share_of_uniform_into_any_base(base: LoggingPolicy, eps: float) -> None:
    mixed = EpsilonGreedy(base, eps).probabilities(2, None)
    assert mixed == pytest.approx([(1 - eps) * p + eps / 6 for p in base.probabilities(2, None)], abs=1e-15)
    assert math.isclose(sum(mixed), 1)
    assert min(mixed) >= eps / 6 * (1 - 1e-12)


def test_a_fixed_strategy_takes_its_action_and_there_is_no_seventh() -> None:
    for action, index in ACTION_INDEX.items():
        assert Fixed(action).probabilities(None)[index] == 1.0
    with pytest.raises(PolicyError, match=r"fixed: there is no action 'random'; there are least_loaded, "):
        Fixed("random")


@dataclass(frozen=True)
class Trained(Uniform):
    schema: Any


def test_a_trained_policy_is_refused_with_all_reasons_where_it_does_not_fit_also_when_it_explores() -> None:
    policy = EpsilonGreedy(Trained(schema()), 0.1)
    check_fit(policy, 60.0, 2.0)
    with pytest.raises(PolicyError) as caught:
        check_fit(policy, 1.5, 0.2)
    head, *reasons = str(caught.value).splitlines()
    assert head == "policy epsilon:0.1:uniform does not fit to this run"
    assert [reason.partition(":")[0].strip() for reason in reasons] == ["observation window", "decision interval"]
    check_fit(EpsilonGreedy(Uniform(), 0.1), 1.5, 0.2)

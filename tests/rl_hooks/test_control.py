"""The decision loop: what is recorded is what was drawn, and failures of source or actuator are told, not hidden."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from rl_hooks.control import ActuatorError, Controller, Decision, Sample, SourceError
from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.policies.builtin import PolicyError, Sticky, Uniform
from rl_hooks.policies.observed import Observed
from rl_hooks.row import MISSING_U8


class Bench:
    """A source and an actuator that note the order of things and fail when told to."""

    def __init__(
        self,
        source_fails: bool = False,
        actuator_fails: bool = False,
        failed: frozenset[str] = frozenset(SERVICES),
    ) -> None:
        self._failed = failed
        self.log: list[str] = []
        self.applied: Mapping[str, str] = {}
        self._source_fails, self._actuator_fails = source_fails, actuator_fails

    def describe(self) -> str:
        return "bench"

    def sample(self) -> Sample:
        self.log.append("sample")
        if self._source_fails:
            raise SourceError("no answer")
        return Sample(1, 2, ())

    def apply(self, actions: Mapping[str, str]) -> None:
        self.log.append("actuate")
        if self._actuator_fails:
            raise ActuatorError("refused", self._failed)
        self.applied = actions


class Skewed:
    """A policy with probabilities of its own."""

    def __init__(self, *probabilities: float) -> None:
        self._probabilities = probabilities

    def describe(self) -> str:
        return "skewed"

    def probabilities(self, previous: int | None, observation: object) -> Sequence[float]:
        return self._probabilities


def controller(bench: Bench, policy: object = None, seed: int = 1) -> Controller:
    return Controller(policy or Uniform(), bench, bench, seed, now_ns=lambda: 99)  # type: ignore[arg-type]


def actions(step_decisions: Sequence[Decision]) -> list[int]:
    return [decision.action for decision in step_decisions]


def test_a_step_samples_before_it_decides_and_takes_effect_last() -> None:
    bench = Bench()
    seen: list[tuple[int, list[int]]] = []

    def take_effect(t_ns: int, decisions: Sequence[Decision]) -> None:
        bench.log.append("effect")
        seen.append((t_ns, actions(decisions)))

    step = controller(bench).step(4, take_effect)
    assert bench.log == ["sample", "actuate", "effect"]
    assert seen == [(99, actions(step.decisions))]
    assert (step.tick, step.t_ns, step.fault) == (4, 99, None)
    assert bench.applied == {SERVICES[d.service]: ACTIONS[d.action] for d in step.decisions}
    assert [d.service for d in step.decisions] == list(range(len(SERVICES)))


def test_same_seed_same_decisions_whatever_was_skipped() -> None:
    every = [actions(controller(Bench()).step(tick, lambda *_: None).decisions) for tick in range(20)]
    one = controller(Bench())
    some = {tick: actions(one.step(tick, lambda *_: None).decisions) for tick in (0, 3, 4, 19)}
    assert some == {tick: every[tick] for tick in some}
    other = [actions(controller(Bench(), seed=2).step(tick, lambda *_: None).decisions) for tick in range(20)]
    assert other != every


def test_services_are_drawn_independently() -> None:
    """The pairs of two services' actions fill all 36 cells evenly: chi-square below its 99.9 % point (66.6 at 35)."""
    one, pairs, steps = controller(Bench()), Counter[tuple[int, int]](), 3600
    for tick in range(steps):
        drawn = actions(one.step(tick, lambda *_: None).decisions)
        pairs[drawn[0], drawn[1]] += 1
    expected = steps / 36
    assert len(pairs) == 36
    assert sum((count - expected) ** 2 / expected for count in pairs.values()) < 66.6


def test_propensity_is_the_probability_it_was_drawn_with() -> None:
    one = controller(Bench(), Sticky(0.5))
    previous: list[int] | None = None
    for tick in range(50):
        decisions = one.step(tick, lambda *_: None).decisions
        for decision in decisions:
            kept = previous is not None and previous[decision.service] == decision.action
            expected = 1 / 6 if previous is None else 0.5 * kept + 0.5 / 6
            assert decision.propensity == pytest.approx(expected)
            assert decision.policy == "sticky:0.5"
        previous = actions(decisions)


def test_an_action_of_probability_zero_is_never_taken() -> None:
    one = controller(Bench(), Skewed(0.5, 0, 0, 0, 0, 0.5))
    taken = {a for tick in range(200) for a in actions(one.step(tick, lambda *_: None).decisions)}
    assert taken == {0, 5}


def test_a_failing_source_leaves_the_decision_without_a_sample() -> None:
    step = controller(Bench(source_fails=True)).step(0, lambda *_: None)
    assert step.sample is None
    assert step.fault == "metrics source bench: no answer"
    assert all(decision.actuated for decision in step.decisions)


def test_a_failing_actuator_is_recorded_with_the_decision() -> None:
    step = controller(Bench(actuator_fails=True)).step(0, lambda *_: None)
    assert step.fault == "actuator bench: refused"
    assert not any(decision.actuated for decision in step.decisions)


def test_only_the_services_that_did_not_take_it_are_recorded_as_such() -> None:
    bench = Bench(actuator_fails=True, failed=frozenset({"order-service", "cart-service"}))
    step = controller(bench).step(0, lambda *_: None)
    assert [SERVICES[d.service] for d in step.decisions if not d.actuated] == ["cart-service", "order-service"]
    assert step.fault == "actuator bench: refused (not applied for cart-service, order-service)"


@pytest.mark.parametrize("bad", [(0.5, 0.5), (0.2,) * 6, (1.2, -0.2, 0, 0, 0, 0)])
def test_a_policy_that_is_no_distribution_stops_the_loop(bad: tuple[float, ...]) -> None:
    with pytest.raises(PolicyError, match=r"logging policy skewed: .* is no distribution over 6 actions"):
        controller(Bench(), Skewed(*bad)).step(0, lambda *_: None)


class Watching(Bench):
    observes = True


def test_an_actuator_that_observes_is_told_nothing_and_nothing_is_drawn() -> None:
    bench = Watching(source_fails=True)
    in_force: list[Sequence[Decision]] = []
    step = controller(bench, Observed()).step(4, lambda _, decisions: in_force.append(decisions))
    assert bench.log == ["sample"]
    assert [one.service for one in step.decisions] == list(range(len(SERVICES)))
    assert {one.action for one in step.decisions} == {MISSING_U8}
    assert all(math.isnan(value) for one in step.decisions for value in (*one.probabilities, one.propensity))
    assert {(one.policy, one.actuated) for one in step.decisions} == {("", False)}
    assert in_force == [step.decisions]
    assert (step.tick, step.t_ns, step.fault) == (4, 99, "metrics source bench: no answer")


def test_what_stands_for_the_balancers_own_policy_draws_nothing() -> None:
    with pytest.raises(PolicyError, match="the balancer decides by itself, so nothing is drawn"):
        controller(Bench(), Observed()).step(0, lambda *_: None)

"""A run that is decided step by step is judged by the scenario's own rewards too."""

import sys
from types import ModuleType

import numpy as np
import pytest

from rl_hooks.export.rewards import REWARDS, Cohorts, Floats
from rl_hooks.policies.builtin import Uniform
from sandbox.virtual.simulation import Conditions
from sandbox.virtual.stepped import Steered, SteppedRun
from tests import builders


def always_seven(cohorts: Cohorts) -> Floats:
    """0.7, whatever happened."""
    return np.full(len(cohorts.finished), 0.7)


def test_a_step_is_judged_by_the_scenarios_own_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("team_rewards")
    vars(module)["always_seven"] = always_seven
    monkeypatch.setitem(sys.modules, "team_rewards", module)
    weights = {**dict.fromkeys(REWARDS, 0.0), "mine": 1.0}
    plan = builders.plan(reward_weights=weights, rewards={"mine": "team_rewards:always_seven"})
    run = SteppedRun(plan, Conditions(True, None), Steered(Uniform()))
    for _ in range(10):
        run.advance({})
    judged = [run.reward(tick, 1) for tick in range(3, 9)]
    seen = [(value, parts) for value, parts in judged if "mine" in parts]
    assert seen
    assert all(value == pytest.approx(0.7) and parts["mine"] == 0.7 for value, parts in seen)

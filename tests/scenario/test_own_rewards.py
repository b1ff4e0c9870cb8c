"""Rewards of one's own in a scenario file: their names, their weights, and what is said about wrong ones."""

import json
from pathlib import Path

import pytest

from scenario.__main__ import main
from scenario.load import load_file, load_text
from scenario.model import DEFAULTS
from scenario.plan import Plan, make_plan
from tests.scenario.files import load, problems, suite, tree

FIVE = dict(DEFAULTS["reward_weights"])
OWN = {"within_slo": {"function": "my_rewards:within_slo", "weight": 0.2}}
LESS = {name: weight * 0.8 for name, weight in FIVE.items()}


def test_they_are_named_and_weighed_beside_the_five_and_stay_in_the_plan() -> None:
    whole = tree()
    suite(whole)["base_config"].update(reward_weights=LESS, rewards=OWN)
    scenario = load(whole).scenario()
    assert dict(scenario.rewards) == {"within_slo": "my_rewards:within_slo"}
    assert dict(scenario.reward_weights) == {**LESS, "within_slo": 0.2}
    plan = make_plan(scenario, seed=1)
    assert Plan.from_json(plan.to_json()) == plan
    older = plan.to_json()
    del older["scenario"]["rewards"]  # of a run that was recorded before there were any
    assert dict(Plan.from_json(older).scenario.rewards) == {}


def test_one_that_only_watches_needs_no_other_weights() -> None:
    whole = tree()
    suite(whole)["base_config"]["rewards"] = {"watched": {"function": "a.b:c.d", "weight": 0}}
    assert dict(load(whole).scenario().reward_weights) == {**FIVE, "watched": 0.0}


def test_a_scenarios_own_replace_those_of_the_file() -> None:
    whole = tree()
    suite(whole)["base_config"].update(reward_weights=LESS, rewards=OWN)
    other = {"fresh": {"function": "my_rewards:fresh", "weight": 0.2}}
    suite(whole)["training_scenarios"]["day"]["rewards"] = other
    assert dict(load(whole).scenario().reward_weights) == {**LESS, "fresh": 0.2}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"rewards": OWN},
            (
                "base_config.rewards: adds up to 1.2, not 1 (response_time 0.3, error_rate 0.3, throughput 0.1, "
                "load_balance 0.1, user_satisfaction 0.2, within_slo 0.2). Change the weights so that they add up to 1."
            ),
        ),
        (
            {"rewards": {"error_rate": {"function": "a:b", "weight": 0}}},
            (
                "base_config.rewards.error_rate: is a name that the suite uses. "
                "Give it a name of its own; it becomes the column reward_<name>."
            ),
        ),
        (
            {"rewards": {"mine": {"function": "my_rewards.py", "weight": 0}}},
            (
                "base_config.rewards.mine.function: 'my_rewards.py' is not a module:attribute. "
                "Write one such as my_rewards:within_slo."
            ),
        ),
        (
            {"rewards": {"mine": {"function": "a:b"}}},
            "base_config.rewards.mine: weight is missing. Add it (In the weighted sum; 0: only recorded).",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_the_way_out(settings: dict[str, object], problem: str) -> None:
    whole = tree()
    suite(whole)["base_config"].update(settings)
    assert problems(whole) == [problem]


def test_a_reward_of_ones_own_is_no_weight_of_the_five() -> None:
    whole = tree()
    suite(whole)["base_config"]["reward_weights"] = {**LESS, "mine": 0.2}
    assert any("unknown key 'mine'" in line for line in problems(whole))


def test_yaml_reads_the_same() -> None:
    text = "rl_training_scenarios: {base_config: {rewards: {mine: {function: 'a:b', weight: 2}}}}"
    with pytest.raises(Exception, match=r"base_config\.rewards\.mine\.weight: is 2, which is not at most 1"):
        load_text(text)


def test_a_file_with_them_is_converted_to_itself(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    whole = tree()
    suite(whole)["base_config"].update(reward_weights=LESS, rewards=OWN)
    (tmp_path / "day.json").write_text(json.dumps(whole))
    assert main(["convert", str(tmp_path / "day.json"), "--to", str(tmp_path / "day.yaml")]) == 0
    assert "reward" not in capsys.readouterr().out
    again = load_file(tmp_path / "day.yaml").scenario()
    assert dict(again.rewards) == {"within_slo": "my_rewards:within_slo"}
    assert dict(again.reward_weights) == {**LESS, "within_slo": 0.2}

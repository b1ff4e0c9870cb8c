"""Rewards of one's own: they become columns and part of the sum; what is no reward is refused with the reason."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from rl_hooks.export import rewards
from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from rl_hooks.export.errors import ExportError
from rl_hooks.export.own_rewards import own_rewards, problems_of
from rl_hooks.export.rewards import REWARDS, Cohorts, Floats, Reward
from rl_hooks.parts import PartError, find_rewards
from rl_hooks.report.evidence import read_evidence
from rl_hooks.report.judge import judge
from rl_hooks.report.page import page
from rl_hooks.report.thresholds import load_thresholds
from tests import builders

WEIGHTS = {**dict.fromkeys(REWARDS, 0.15), "within_slo": 0.25, "watched": 0.0}
OWN = {"within_slo": "team_rewards:within_slo", "watched": "team_rewards:watched"}


def within_slo(cohorts: Cohorts) -> Floats:
    """Share of the requests that succeeded within the SLO. NaN without a request."""
    result: Floats = np.divide(
        cohorts.satisfied, cohorts.finished, out=np.full(len(cohorts.finished), np.nan), where=cohorts.finished > 0
    )
    return result


def watched(cohorts: Cohorts) -> Floats:
    """0 where anything failed, else 1."""
    return np.where(cohorts.failed > 0, 0.0, 1.0)


@pytest.fixture(autouse=True)
def team_rewards(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of a team, as if it lay in the folder one starts from."""
    module = ModuleType("team_rewards")
    vars(module).update(within_slo=within_slo, watched=watched, number=3)
    monkeypatch.setitem(sys.modules, "team_rewards", module)
    return module


def test_own_rewards_are_columns_and_part_of_the_sum_and_the_report_card_agrees(tmp_path: Path) -> None:
    plan = builders.plan(reward_weights=WEIGHTS, rewards=OWN)
    write_bundle(assemble([builders.random_run(planned=plan)]), tmp_path / "bundle")
    train = pd.read_parquet(tmp_path / "bundle" / "data" / "transitions" / "train-00000-of-00001.parquet")
    names = [name for name in train if name.startswith("reward_") and name not in ("reward_01", "reward_filled")]
    assert names == [f"reward_{name}" for name in WEIGHTS]
    measured = train[~train["reward_filled"]]
    table = measured[names].to_numpy(float)
    assert measured["reward"].to_numpy() == pytest.approx(rewards.weighted_sum(table, WEIGHTS), abs=1e-6)
    assert set(measured["reward_watched"].unique()) == {0.0, 1.0}
    facts = json.loads((tmp_path / "bundle" / "dataset.json").read_text())
    assert facts["reward_weights"] == WEIGHTS
    told = {one["name"]: one for one in facts["rewards"]["components"]}
    assert told["within_slo"]["function"] == "team_rewards:within_slo"
    assert told["within_slo"]["formula"].startswith("Share of the requests that succeeded within the SLO.")
    card = judge(read_evidence([tmp_path / "bundle"]), load_thresholds(None))
    (found,) = [check.finding for check in card.checks if check.name == "transitions_hold"]
    assert (str(found.verdict), found.numbers["reward_is_not_the_weighted_sum"]) == ("pass", 0)
    assert "within_slo 0.25, watched 0" in page(card, [])


def test_runs_with_other_functions_do_not_fit_into_one_bundle() -> None:
    plans = [
        builders.plan(reward_weights=WEIGHTS, rewards={**OWN, "watched": f"team_rewards:{name}"})
        for name in ("watched", "within_slo")
    ]
    runs = [builders.random_run(planned=plan, run_id=f"run-{index}") for index, plan in enumerate(plans)]
    with pytest.raises(ExportError, match=r"rewards of one's own .*team_rewards:watched.*do not fit|do not fit.*own"):
        assemble(runs)


def test_a_run_whose_reward_is_gone_is_refused_with_its_name_and_the_way_out() -> None:
    plan = builders.plan(reward_weights=WEIGHTS, rewards={**OWN, "watched": "team_rewards:wathced"})
    with pytest.raises(ExportError, match=r"reward watched \(team_rewards:wathced\): .*Did you mean 'watched'\?"):
        assemble([builders.random_run(planned=plan)])


def test_all_names_that_lead_nowhere_are_told_at_once() -> None:
    references = {"one": "no_such_module:reward", "two": "team_rewards:number", "three": "team_rewards:nothing"}
    with pytest.raises(PartError) as caught:
        find_rewards(references)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0].split(" ")[1] for line in lines] == ["one", "two", "three"]
    assert "there is no module no_such_module" in lines[0]
    assert "is a int; name a function" in lines[1]


def percent(cohorts: Cohorts) -> Floats:
    """In percent."""
    return 100 * within_slo(cohorts)


def one_for_all(cohorts: Cohorts) -> Floats:
    """The mean over all."""
    return np.array([0.5])


def counts(cohorts: Cohorts) -> Floats:
    """Whole numbers."""
    return np.zeros(len(cohorts.finished), int)  # type: ignore[return-value]


def greedy(cohorts: Cohorts) -> Floats:
    """Uses what it is given as its own."""
    cohorts.finished[:] = 1
    return watched(cohorts)


def moody(cohorts: Cohorts) -> Floats:
    """Draws."""
    return np.random.default_rng().random(len(cohorts.finished))


def broken(cohorts: Cohorts) -> Floats:
    """Fails."""
    raise KeyError("p95")


def silent(cohorts: Cohorts) -> Floats:
    return watched(cohorts)


@pytest.mark.parametrize(
    ("reward", "problem"),
    [
        (percent, "returned 66.7|returned 50|returned 100"),
        (one_for_all, r"returned float64 of shape \(1,\) for 0 cohorts"),
        (counts, r"returned int64 of shape \(1,\) for 1 cohorts; floats of shape \(1,\) are needed"),
        (greedy, "changed the cohorts it was given"),
        (moody, "other numbers for the same cohorts"),
        (broken, r"failed on 1 cohorts \(KeyError: 'p95'\)"),
        (silent, "has no docstring"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_no_reward_is_refused_with_the_reason(reward: Reward, problem: str, team_rewards: ModuleType) -> None:
    vars(team_rewards)["wrong"] = reward
    with pytest.raises(ExportError, match=rf"reward mine \(team_rewards:wrong\): .*({problem})"):
        own_rewards({"mine": "team_rewards:wrong"})


@pytest.mark.parametrize("reward", [*REWARDS.values(), within_slo, watched])
def test_the_five_and_the_good_ones_pass_the_same_test(reward: Reward) -> None:
    assert problems_of(reward) == []


def test_a_reward_that_goes_wrong_on_real_requests_is_told_by_name(team_rewards: ModuleType) -> None:
    def late(cohorts: Cohorts) -> Floats:
        """Right on few cohorts only."""
        return np.full(len(cohorts.finished), 0.5 if len(cohorts.finished) < 5 else 2.0)

    vars(team_rewards)["watched"] = late
    plan = builders.plan(reward_weights=WEIGHTS, rewards=OWN)
    with pytest.raises(ExportError, match=r"reward watched \(team_rewards:watched\): returned 2; a number from 0 to 1"):
        assemble([builders.random_run(planned=plan)])

"""Policies that took turns in real runs: in virtual time, and live through the executor."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from rl_hooks.action_space import instances, strategies
from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.export.dataset import assemble
from rl_hooks.policies.named import make_run_policy
from rl_hooks.policies.turns import Turns
from rl_hooks.run_folder import read_manifest, update_manifest
from rl_hooks.run_reader import read_run
from scenario.load import load_file
from scenario.plan import make_plan
from tests.processes import ROOT, sandbox_started
from training import live
from training.outcome import MEASURES, read_outcome

SCENARIO = Path(__file__).with_name("turns.yaml")
STRAINED = ("--healthy", "--utilization", "0.95")  # where round_robin overloads the smaller instances
TURNS = "turns:round_robin,least_loaded"
SKIPPED = 3  # decisions in the first window of a block
STRATA = {("busy", False), ("calmer", False), ("calmer", True)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two days in virtual time."""
    place = tmp_path_factory.mktemp("turns")
    command = [sys.executable, "-m", "sandbox.virtual", "--scenario-file", str(SCENARIO), *STRAINED]
    command += ["--policy", TURNS, "--days", "2", "--run-folder", str(place / "day")]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return [place / "day_1", place / "day_2"]


@pytest.fixture
def copy(runs: list[Path], tmp_path: Path) -> Path:
    """A day whose manifest may be changed."""
    return Path(shutil.copytree(runs[0], tmp_path / "copy"))


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert live.main([str(one) for one in arguments]) == live.EXIT_REFUSED
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def schedule_of(run: Path) -> Turns:
    plan = make_plan(load_file(SCENARIO).scenario(None), int(read_manifest(run)["seed"]))
    made = make_run_policy(TURNS, plan)
    assert isinstance(made, Turns)
    return made


# -- what is recorded ------------------------------------------------------------------------------------------------


def test_the_manifest_has_the_schedule_and_every_decision_is_of_the_policy_in_turn(runs: list[Path]) -> None:
    for path in runs:
        run = read_run(path)
        rows: list[dict[str, Any]] = run.manifest["turns"]
        assert rows == schedule_of(path).to_json()
        assert {(row["phase"], bool(row["faults"])) for row in rows} == STRATA
        assert run.manifest["logging_policy"] == "turns:fixed:round_robin,fixed:least_loaded"
        names = np.array(run.names["policy"], object)[run.decisions["policy_ref"]]
        for row in rows:
            mine = (run.decisions["tick"] >= row["first_tick"]) & (run.decisions["tick"] <= row["last_tick"])
            assert set(names[mine]) == {row["policy"]}


def test_episodes_end_where_the_next_policy_begins(runs: list[Path]) -> None:
    frame = assemble([read_run(runs[0])]).frame
    assert set(frame["policy_version"]) == {"fixed:round_robin", "fixed:least_loaded"}
    assert frame.groupby("episode_id", observed=True)["policy_version"].nunique().max() == 1


# -- what is compared ------------------------------------------------------------------------------------------------


def test_the_strategy_that_looks_at_the_load_is_found_to_be_better(runs: list[Path]) -> None:
    for path in runs:
        found, _ = live.compare([path], "least_loaded")
        ((other, row),) = found.differences.items()
        assert (found.chosen, other) == ("fixed:least_loaded", "fixed:round_robin")
        assert row["reward"].low > 0
        assert row["mean_ms"].high < 0
        values = found.values
        for name in MEASURES:
            assert row[name].value == pytest.approx(values[found.chosen][name] - values[other][name])


def test_a_block_is_measured_without_its_first_window(runs: list[Path]) -> None:
    outcome, manifest = read_outcome(runs[0]), read_manifest(runs[0])
    turns = live.read_turns(runs[0], manifest)
    assert Counter(turn.policy for turn in turns) == {"fixed:round_robin": 16, "fixed:least_loaded": 16}
    for row, turn in zip(manifest["turns"], turns, strict=True):
        ticks = outcome.decisions["decision_tick"]
        kept = outcome.decisions[(ticks >= row["first_tick"] + SKIPPED) & (ticks <= row["last_tick"])]
        assert sum(turn.actions) == len(kept)
        assert turn.measures["reward"] == pytest.approx(kept["reward"][kept["n_finished"] > 0].mean())
        sent = outcome.requests["decision_tick"].between(row["first_tick"] + SKIPPED, row["last_tick"]).sum()
        assert turn.measures["requests_per_s"] == pytest.approx(sent / kept["decision_tick"].nunique())


def test_rewards_of_ones_own_are_measures_behind_the_others(runs: list[Path]) -> None:
    outcome = read_outcome(runs[0])
    with_own = replace(outcome, decisions=outcome.decisions.assign(reward_within_slo=0.25))
    assert list(outcome.measures()) == list(MEASURES)
    assert list(with_own.measures()) == [*MEASURES, "reward_within_slo"]
    assert with_own.measures()["reward_within_slo"] == 0.25


def test_runs_together_are_strata_of_their_own_and_tell_more(runs: list[Path]) -> None:
    alone, _ = live.compare(runs[:1], "least_loaded")
    both, turns = live.compare(runs, "least_loaded")
    assert len({turn.stratum for turn in turns}) == both.about["strata"] == 2 * len(STRATA)
    one, two = (found.differences["fixed:round_robin"]["reward"] for found in (alone, both))
    assert (one.degrees, two.degrees) == (32 - len(STRATA) - 1, 64 - 2 * len(STRATA) - 1)
    assert two.detectable < one.detectable


def test_shares_are_of_the_actions_that_each_policy_took(runs: list[Path]) -> None:
    found, _ = live.compare(runs, "least_loaded")
    for policy, phases in found.shares.items():
        assert set(phases) == {"busy", "calmer"}
        for shares in phases.values():
            assert shares[ACTIONS.index(policy.removeprefix("fixed:"))] > 0.98  # but where the balancer did otherwise
            assert shares.sum() == pytest.approx(1)


def test_decisions_of_another_policy_than_the_one_in_turn_are_told(copy: Path) -> None:
    rows = read_manifest(copy)["turns"]
    first, second = rows[0]["policy"], rows[1]["policy"]
    rows[0]["policy"] = second  # as if the first had left its block to the second
    update_manifest(copy, turns=rows)
    found, turns = live.compare([copy], first)
    assert [turn.by_others for turn in turns if turn.by_others] == [sum(turns[0].actions)]
    assert found.notes == ["60 decisions (3.1%) were not stated by the policy in turn; they count as its own"]


def test_blocks_without_a_decision_and_policies_that_never_met_are_told(copy: Path) -> None:
    rows = read_manifest(copy)["turns"]
    rows[0]["last_tick"] = rows[0]["first_tick"] + SKIPPED - 1
    alone = [{**row, "policy": "uniform", "phase": "night"} for row in rows[-3:]]
    update_manifest(copy, turns=[*rows[:-3], *alone])
    found, _ = live.compare([copy], "least_loaded")
    never, empty, by_others = found.notes
    assert never == (
        "fixed:least_loaded and uniform never had blocks in one stratum, nor each with a third policy: "
        "their difference cannot be told"
    )
    assert empty == "blocks without a decision after their first window: 1 (too short, or the run ended before)"
    assert by_others.endswith(" were not stated by the policy in turn; they count as its own")
    assert not found.differences["uniform"]["reward"].is_known
    assert found.differences["fixed:round_robin"]["reward"].is_known


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_writes_the_same_numbers_and_two_pictures(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    assert live.main([*map(str, runs), "--policy", "fixed:least_loaded", "--out", str(out)]) == live.EXIT_OK
    printed = capsys.readouterr().out
    written = json.loads((out / live.REPORT).read_text())
    reward = written["differences"]["fixed:round_robin"]["reward"]
    assert reward["verdict"] == "better"
    assert f"{reward['value']:+.4f}  {reward['low']:+.4f} to {reward['high']:+.4f}" in printed
    assert "left out  the first window of every block, 3 decisions\n" in printed
    assert written["blocks"] == {"fixed:least_loaded": 32, "fixed:round_robin": 32}
    assert list(written["values"]["fixed:round_robin"]) == list(MEASURES)
    for name in (live.DIFFERENCES, live.BLOCKS):
        assert ElementTree.parse(out / name).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert f"written  {out / name}\n" in printed


def test_runs_that_cannot_be_compared_are_refused_with_all_reasons(
    runs: list[Path], copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = read_manifest(copy)["plan"]
    plan["scenario"]["reward_weights"]["error_rate"] = 0.0
    update_manifest(copy, turns=[], plan=plan)
    nowhere = tmp_path / "nowhere"
    assert refusal(capsys, runs[0], copy, nowhere, "--policy", "least_loaded") == (
        f"live: {copy}: run day_1 is given as {runs[0]} too; give it once; "
        f"{copy}: nobody took turns in it; record one with --logging-policy turns:POLICY,POLICY,...; "
        f"{nowhere}: there is no such folder; give the folder of a run (it holds manifest.json); "
        f"{copy}: other reward weights than {runs[0]}; compare them one by one\n"
    )


def test_a_policy_that_is_not_in_the_runs_is_refused(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, runs[0]) == (
        f"live: no trained policy among {', '.join(sorted_as_in(runs[0]))}; name one of them with --policy\n"
    )
    assert refusal(capsys, runs[0], "--policy", "backpressure") == (
        f"live: {runs[0]}: fixed:backpressure is not among {', '.join(sorted_as_in(runs[0]))}; name a policy of every "
        "run with --policy, or leave runs out\n"
    )


def test_runs_with_other_actions_are_not_compared(
    runs: list[Path], copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Uniform among four is another policy than uniform among six, by the same name."""
    update_manifest(copy, run_id="copy", action_space=strategies(["circuit_breaker", "backpressure"]).to_json())
    assert refusal(capsys, runs[0], copy, "--policy", "least_loaded") == (
        f"live: {copy}: other actions than {runs[0]}; compare them one by one\n"
    )


def test_pinned_instances_have_their_own_names(copy: Path, tmp_path: Path) -> None:
    """A step's action is the instance that served it, and of the eight that were known only three did."""
    space = instances({service: [f"{service}-{number}" for number in range(1, 9)] for service in SERVICES})
    named = {"fixed:least_loaded": "fixed:instance_1", "fixed:round_robin": "fixed:instance_3"}
    rows = [{**row, "policy": named[row["policy"]]} for row in read_manifest(copy)["turns"]]
    update_manifest(copy, turns=rows, action_space=space.to_json())
    assert live.main([str(copy), "--policy", "instance_1", "--out", str(tmp_path)]) == live.EXIT_OK
    found = json.loads((tmp_path / live.REPORT).read_text())
    assert found["policy"] == "fixed:instance_1"
    shares = found["action_shares"]["fixed:instance_1"]["busy"]
    assert list(shares) == [f"instance_{number}" for number in range(1, 9)]
    assert sum(list(shares.values())[:3]) == pytest.approx(1.0)


def sorted_as_in(run: Path) -> list[str]:
    return list(dict.fromkeys(row["policy"] for row in read_manifest(run)["turns"]))


def test_the_first_trained_policy_is_chosen_without_being_named(copy: Path) -> None:
    rows = read_manifest(copy)["turns"]
    trained = {"fixed:round_robin": "epsilon:0.1:onnx:net-12345678"}
    update_manifest(copy, turns=[{**row, "policy": trained.get(row["policy"], row["policy"])} for row in rows])
    assert live.compare([copy], None)[0].chosen == "epsilon:0.1:onnx:net-12345678"


def test_too_few_blocks_are_refused(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read_manifest(copy)["turns"]
    update_manifest(copy, turns=rows[:4])
    assert refusal(capsys, copy, "--policy", "least_loaded") == (
        "live: too few blocks: blocks with a measured reward 4, strata 1, so degrees of freedom for chance 2, and 4 "
        "are needed; record longer, or give more runs\n"
    )
    apart = [{**row, "phase": row["policy"]} for row in rows[:8]]
    update_manifest(copy, turns=apart)
    assert refusal(capsys, copy, "--policy", "least_loaded") == (
        "live: too few blocks: fixed:least_loaded never had a block in a stratum in which another policy had one; "
        "record longer, or give more runs\n"
    )


# -- live ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_live_with_workers_the_master_takes_the_turns_and_the_better_strategy_is_found(tmp_path: Path) -> None:
    """Two minutes of real time: the difference is 3 to 4 standard errors, so signs are asked for, and one interval."""
    with sandbox_started(*STRAINED) as sandbox:
        command = [sys.executable, str(ROOT / "rl_training_executor.py"), "--mode", "custom", "--config", str(SCENARIO)]
        command += ["--host", sandbox.host, "--logging-policy", TURNS, "--time-scale", "4", "--processes", "2"]
        command += ["--runs", str(tmp_path / "runs"), "--logs", str(tmp_path / "logs")]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tmp_path / "runs").iterdir()
    found, turns = live.compare([path], "least_loaded")
    assert Counter(turn.policy for turn in turns) == {"fixed:round_robin": 16, "fixed:least_loaded": 16}
    assert not any(turn.by_others for turn in turns)
    row = found.differences["fixed:round_robin"]
    assert row["reward"].value > 0
    assert row["mean_ms"].value < 0
    assert any(row[name].is_clear for name in ("reward", "mean_ms", "requests_per_s", "error_rate"))

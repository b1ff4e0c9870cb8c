"""The command: what it prints, writes and refuses."""

import importlib.util
import json
from pathlib import Path

import pytest

from rl_hooks.decision import ACTIONS
from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from tests.rl_hooks.report import made
from training import judge

NUMBERS = ("IPS", "self-normalized IPS", "doubly robust", "last 2 actions", "last 3 actions")


def run(policy: str, bundle: Path, out: Path, *options: str) -> int:
    return judge.main([policy, str(bundle), "--out", str(out), *options])


def test_it_prints_a_table_and_writes_the_same_numbers(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("least_loaded", bundle, tmp_path / "out", "--no-fqe") == 0
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "judge.json").read_text())
    mine = written["estimates"]["least_loaded"]
    assert tuple(one["name"] for one in mine) == NUMBERS
    assert set(written["estimates"]) == {*ACTIONS, "uniform"}
    rows = {line[:21].strip(): line for line in printed.splitlines() if "  yes" in line or "  no: " in line}
    for one in (written["logged"], *mine):
        numbers = "-" if one["value"] is None else f"{one['value']:.4f}  {one['low']:.4f} to {one['high']:.4f}"
        trust = "yes" if one["trusted"] else "no: " + "; ".join(one["distrust"])
        found = rows[one["name"]]
        assert f"{one['question']:<10} " in found
        assert numbers in found
        assert found.endswith(f" {one['effective_sample_size']:.0f}  {trust}")
    assert (written["part"], written["logging_policies"]) == ("validation", ["uniform"])


@pytest.mark.parametrize("policy", ["round_robin", "backpressure"])
def test_a_fixed_strategy_is_compared_with_the_best_of_the_others(policy: str, bundle: Path, tmp_path: Path) -> None:
    assert run(policy, bundle, tmp_path, "--no-fqe", "--part", "both") == 0
    written = json.loads((tmp_path / "judge.json").read_text())
    estimates = written["estimates"]
    for number, one in enumerate(written["against_best_fixed"]):
        values = {name: estimates[name][number]["value"] for name in ACTIONS if name != policy}
        others = {name: value for name, value in values.items() if value is not None}  # None: never taken so often
        assert one["fixed"] == max(others, key=lambda name: others[name])
        assert one["value"] == pytest.approx(estimates[policy][number]["value"] - others[one["fixed"]])
        assert one["low"] < one["value"] < one["high"]
    less = [one["value"] for one in written["against_uniform"]]
    both = zip(estimates[policy], estimates["uniform"], strict=True)
    assert less == pytest.approx([one["value"] - other["value"] for one, other in both])


def test_data_without_propensities_is_refused_and_data_with_stated_ones_is_judged_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_ours = made.made_run(minutes=4.0)
    logs = {"ours": run_ours, "stated": made.observed(run_ours), "none": made.observed(run_ours, states=False)}
    for name, log in logs.items():
        write_bundle(assemble([log]), tmp_path / name)
    assert run("least_loaded", tmp_path / "none", tmp_path / "out", "--no-fqe") == 2
    assert "judge: no step has a propensity: the balancer decided by itself" in capsys.readouterr().err
    judged = {}
    for name in ("ours", "stated"):
        assert run("least_loaded", tmp_path / name, tmp_path / f"{name}-out", "--no-fqe", "--part", "both") == 0
        judged[name] = json.loads((tmp_path / f"{name}-out" / "judge.json").read_text())
    values = {name: [one["value"] for one in found["estimates"]["least_loaded"]] for name, found in judged.items()}
    assert values["stated"][:2] == pytest.approx(values["ours"][:2], abs=1e-6)


def test_the_uniform_log_judges_itself_as_its_mean(bundle: Path, tmp_path: Path) -> None:
    assert run("uniform", bundle, tmp_path, "--no-fqe", "--part", "train") == 0
    written = json.loads((tmp_path / "judge.json").read_text())
    for one in written["estimates"]["uniform"][:2]:
        for key in ("value", "low", "high", "effective_sample_size"):
            assert one[key] == pytest.approx(written["logged"][key], rel=1e-5)


def test_it_says_when_the_data_may_have_been_trained_on(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = "too good for a policy that was trained on train"
    for part, said in (("validation", False), ("train", True), ("both", True)):
        assert run("uniform", bundle, tmp_path, "--no-fqe", "--part", part) == 0
        assert (warning in capsys.readouterr().out) is said


@pytest.mark.parametrize(
    ("policy", "place", "reason"),
    [
        ("least_busy", "", "judge: least_busy: neither a policy file nor one of least_loaded, "),
        ("uniform", "nowhere", "nowhere: not a bundle, it has no dataset.json"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_one_message(
    policy: str, place: str, reason: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(policy, bundle / place, tmp_path / "out", "--no-fqe") == 2
    said = capsys.readouterr()
    assert reason in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_told(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run("uniform", bundle, tmp_path / "file" / "out", "--no-fqe") == 2
    assert "cannot be written (Not a directory); choose another place with --out" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")
def test_without_torch_the_model_has_to_be_left_out_by_name(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("uniform", bundle, tmp_path) == 2
    assert "install the extra `train`, or leave it out with --no-fqe" in capsys.readouterr().err


@pytest.mark.training
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed; it is in `train`")
def test_fitted_q_is_one_estimator_more(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("backpressure", bundle, tmp_path) == 0
    written = json.loads((tmp_path / "judge.json").read_text())
    assert [found[-1]["name"] for found in written["estimates"].values()] == ["fitted Q"] * 7
    assert "fitted Q              long run" in capsys.readouterr().out
    (last,) = (one for one in written["against_best_fixed"] if one["name"] == "fitted Q")
    assert last["low"] < last["value"] < last["high"]

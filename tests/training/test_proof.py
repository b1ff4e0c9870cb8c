"""The whole proof in small: every step with the real thing, also the live one; and going on where it was."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT
from training import proof, study

pytest.importorskip("torch", reason="needs the extra `train`: make test-training")
pytest.importorskip("d3rlpy", reason="needs the extra `train`: make test-training")
pytest.importorskip("onnx", reason="needs the extra `train`: make test-training")

pytestmark = [pytest.mark.training, pytest.mark.slow]

SCENARIO = Path(__file__).with_name("turns.yaml")
SMALL = "steps: 300\nmembers: 1\ncheckpoints: 1\n"


def run(module: str, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    world = ["--scenario-file", str(SCENARIO), "--time-scale", "4"]
    command = [sys.executable, "-m", module, "--out", str(out), *world, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def prove(out: Path, config: Path) -> subprocess.CompletedProcess[str]:
    options = ["--days", "2", "--seeds", "2", "--live-seeds", "1", "--config", str(config)]
    return run("training.proof", out, *options)


@pytest.mark.timeout(900)
def test_a_small_proof_from_recording_to_claims(tmp_path: Path) -> None:
    config, out = tmp_path / "small.yaml", tmp_path / "proof"
    config.write_text(SMALL, encoding="utf-8")
    first = prove(out, config)
    assert first.returncode == 0, first.stdout + first.stderr
    claims = json.loads((out / "proof.json").read_text(encoding="utf-8"))["claims"]
    assert len(claims) == 6
    assert {one["verdict"] for one in claims} <= {"holds", "does not hold", "open"}
    evaluation = json.loads((out / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    live = json.loads((out / "live.json").read_text(encoding="utf-8"))
    assert evaluation["policy"] == live["policy"]
    assert len(evaluation["differences"]) == 7  # six fixed strategies and uniform
    algorithms = json.loads((out / "algorithms" / "evaluation.json").read_text(encoding="utf-8"))
    assert [name.split(":")[1].split("-")[0] for name in algorithms["values"] if name.startswith("onnx:")] == [
        "awac",
        "cql",
        "cloning",
    ]
    for step in ("sandbox.virtual", "rl_hooks.export", "training.judge", "rl_training_executor.py", "training.live"):
        assert f"{step} " in first.stdout

    again = prove(out, config)
    assert again.returncode == 0
    assert "$ python" not in again.stdout  # nothing is made twice
    assert json.loads((out / "proof.json").read_text(encoding="utf-8"))["claims"] == claims

    # A study of the logging policy that the proof was made with, and with its options, finds all of it there.
    shutil.copytree(out, tmp_path / "study" / "uniform")
    options = ["--runs", str(out / "runs"), "--days", "2", "--seeds", "2", "--logging-policy", "uniform"]
    studied = run("training.study", tmp_path / "study", *options, "--config", str(config))
    assert studied.returncode == 0, studied.stdout + studied.stderr
    assert "$ python" not in studied.stdout
    (row,) = json.loads((tmp_path / "study" / "study.json").read_text(encoding="utf-8"))["rows"]
    card = json.loads((out / "bundle" / "report_card.json").read_text(encoding="utf-8"))
    assert row["verdict"] == card["verdict"]
    difference = evaluation["differences"][f"fixed:{row['best_fixed']}"]["reward"]
    assert row["less_best_fixed"]["value"] == pytest.approx(difference["value"])


def test_numbers_that_make_no_proof_are_refused_together(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--days", "0", "--seeds", "1", "--processes", "0", "--config", "none.yaml"]
    assert proof.main([*wrong, "--live-seeds", "-1"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "proof: --days: must be 1 or more",
        "  --seeds: must be 2 or more",
        "  --live-seeds: must be 0 or more",
        "  --processes: must be 1 or more",
        "  --config: there is no file none.yaml",
    ]
    assert study.main(wrong) == 2
    assert capsys.readouterr().err.splitlines() == [
        "study: --days: must be 1 or more",
        "  --seeds: must be 2 or more",
        "  --processes: must be 1 or more",
        "  --config: there is no file none.yaml",
    ]


def test_a_folder_with_a_proof_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = proof._parser().parse_args(["--out", str(tmp_path), "--scenario-file", str(SCENARIO)])
    proof.keep_to(proof.proof_of(vars(options)))
    proof.keep_to(proof.proof_of(vars(options)))  # the same goes on
    assert proof.main(["--out", str(tmp_path), "--scenario-file", str(SCENARIO), "--days", "2"]) == 2
    assert capsys.readouterr().err == (
        f"proof: {tmp_path}: was made with other options, days (8, now 2); choose another folder with --out, or "
        "remove it\n"
    )

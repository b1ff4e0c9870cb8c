"""`python -m rl_hooks.report` on run folders and bundles: its exit codes, what it writes, and its messages."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rl_hooks.export.__main__ import main as export
from rl_hooks.report.__main__ import main
from tests import builders
from tests.rl_hooks.report import made

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that was exported."""
    path = builders.write_run(made.made_run(minutes=2), tmp_path_factory.mktemp("runs") / "run")
    assert export([str(path), "--logs", str(path.parent / "logs")]) == 0
    return path


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "run"))


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    return error


def test_the_card_lies_in_the_bundle_which_stays_as_it_was(folder: Path) -> None:
    before = contents(folder)
    command = [sys.executable, "-m", "rl_hooks.report", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "verdict      demonstration size"
    assert lines[1].startswith("             fail ")
    assert f"report card  {folder / 'bundle' / 'report_card.html'}" in lines
    after = contents(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"bundle/report_card.html", "bundle/report_card.json"}


def test_again_it_writes_the_same_bytes(folder: Path) -> None:
    cards = []
    for _ in range(2):
        assert main([str(folder)]) == 0
        cards.append(contents(folder))
    assert cards[0] == cards[1]


def test_the_json_is_what_programs_need(folder: Path, tmp_path: Path) -> None:
    assert main([str(folder), "--out", str(tmp_path / "card")]) == 0
    card = json.loads((tmp_path / "card" / "report_card.json").read_text())
    assert card["verdict"] == "demonstration size"
    assert card["exit_code"] == 0
    assert {"name", "verdict", "found", "numbers", "threshold", "meaning"} <= set(card["checks"][0])
    assert not (folder / "bundle" / "report_card.json").exists()


def test_a_run_that_was_not_exported_is_assembled(folder: Path) -> None:
    assert main([str(folder)]) == 0
    with_bundle = json.loads((folder / "bundle" / "report_card.json").read_text())
    shutil.rmtree(folder / "bundle")
    assert main([str(folder)]) == 0
    assert json.loads((folder / "report_card.json").read_text()) == with_bundle


def test_a_bundle_alone_is_enough(folder: Path) -> None:
    bundle = folder / "bundle"
    assert main([str(bundle)]) == 0
    card = json.loads((bundle / "report_card.json").read_text())
    assert {check["name"] for check in card["checks"] if check["verdict"] == "not applicable"} >= {"users", "recovery"}


def test_a_bundle_of_two_runs_is_judged_with_both(folder: Path, tmp_path: Path) -> None:
    other = builders.write_run(made.made_run(minutes=2, seed=4, manifest={"run_id": "other"}), tmp_path / "other")
    bundle = tmp_path / "both"
    assert export([str(folder), str(other), "--out", str(bundle), "--logs", str(tmp_path / "logs")]) == 0
    assert main([str(bundle), str(folder), str(other)]) == 0
    card = json.loads((bundle / "report_card.json").read_text())
    assert card["runs"] == ["other", "run"]
    verdicts = {check["name"]: check["verdict"] for check in card["checks"]}
    assert verdicts["users"] == "pass"
    assert verdicts["leakage"] == "pass"


def test_data_not_fit_to_train_on_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = builders.write_run(made.made_run(minutes=2, drop_service="inventory-service"), tmp_path / "run")
    assert main([str(path)]) == 1
    assert capsys.readouterr().out.startswith("verdict      do not train\n             fail pairs_service_phase: ")


def test_thresholds_of_ones_own(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "report.yaml"
    config.write_text("users_off: {fail: -1, warn: -1}\n")
    assert main([str(folder), "--config", str(config)]) == 0, "nobody is off, and nobody off is never bad"
    config.write_text("action_share: {fail: 0.5, warn: 0.6}\n")
    assert main([str(folder), "--config", str(config)]) == 1


def test_what_cannot_be_read_is_exit_code_2(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no such folder" in refused(capsys, tmp_path / "nowhere")
    assert "neither a run folder (no manifest.json) nor a bundle (no dataset.json)" in refused(capsys, tmp_path)
    config = tmp_path / "report.yaml"
    config.write_text("overlaps: {fail: 1}\n")
    assert "Did you mean 'overlap'?" in refused(capsys, folder, "--config", config)
    assert "are two bundles" in refused(capsys, folder / "bundle", folder / "bundle")


def test_a_bundle_of_another_run_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = builders.write_run(made.made_run(minutes=2, manifest={"run_id": "other"}), tmp_path / "other")
    shutil.copytree(folder / "bundle", other / "bundle")
    message = refused(capsys, other)
    assert "was not made of" in message
    assert "export the run again" in message


def test_a_damaged_bundle_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "bundle" / "data" / "transitions" / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:1000])
    assert "cannot be read as a bundle" in refused(capsys, folder)
    (folder / "bundle" / "dataset.json").write_text('{"schema_version": 99}')
    assert "schema version 99, this program reads 1" in refused(capsys, folder)


def test_a_place_that_cannot_be_written_is_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert "choose another place with --out" in refused(capsys, folder, "--out", tmp_path / "file")

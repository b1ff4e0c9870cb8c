"""`python -m rl_hooks.export` on real run folders: its exit codes and its messages."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rl_hooks.export.__main__ import main
from rl_hooks.export.tally import tally
from tests import builders

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builders.write_run(builders.random_run(count=600), tmp_path_factory.mktemp("runs") / "run")


def exported(path: Path, logs: Path, *more: str) -> int:
    return main([str(path), "--logs", str(logs), *more])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    return error


def test_a_run_becomes_a_bundle_in_its_folder(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rl_hooks.export", str(folder), "--logs", str(tmp_path / "logs")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    logs = sorted((tmp_path / "logs").iterdir(), reverse=True)
    assert len(logs) == 2
    assert done.stdout.splitlines() == [*tally(folder / "bundle"), *(f"log          {path}" for path in logs)]


def test_it_gives_the_same_bytes_from_the_folder_alone(folder: Path, tmp_path: Path) -> None:
    for out in ("first", "second"):
        assert exported(folder, tmp_path / "logs", "--out", str(tmp_path / out)) == 0
    first, second = (
        {
            path.relative_to(tmp_path / out): path.read_bytes()
            for path in (tmp_path / out).rglob("*.*")
            if path.is_file()
        }
        for out in ("first", "second")
    )
    assert first == second
    assert len(first) == 9


def test_neither_place_nor_time_zone_nor_locale_nor_hashing_changes_a_byte(folder: Path, tmp_path: Path) -> None:
    def bytes_from(cwd: Path, run: Path, **environment: str) -> dict[str, bytes]:
        made = tmp_path / environment["TZ"].replace("/", "-")
        command = [sys.executable, "-m", "rl_hooks.export", str(run), "--out", str(made / "bundle")]
        env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        subprocess.run([*command, "--logs", str(made / "logs")], cwd=cwd, env=env, timeout=60, check=True)
        return {str(path.relative_to(made)): path.read_bytes() for path in made.rglob("*") if path.is_file()}

    moved = tmp_path / "moved"
    shutil.copytree(folder, moved, ignore=shutil.ignore_patterns("bundle"))
    here = bytes_from(ROOT, folder, TZ="UTC", LC_ALL="C.UTF-8", PYTHONHASHSEED="1")
    assert len(here) == 11
    there = bytes_from(tmp_path, Path("moved"), TZ="Asia/Tokyo", LC_ALL="C", PYTHONUTF8="0", PYTHONHASHSEED="2")
    assert there == here


def test_a_killed_run_is_exported_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = builders.rows("in_flight", [{"start_ns": builders.at(200.5), "service": 1}])
    manifest = {"state": "running", "ended_unix_ns": None}
    source = builders.random_run(count=600, in_flight=lost, manifest=manifest)
    path = builders.write_run(source, tmp_path / "run", close=False)
    assert exported(path, tmp_path / "logs") == 0
    assert capsys.readouterr().out.startswith("run          run (interrupted)\nrequests     601, ")
    facts = json.loads((path / "bundle" / "dataset.json").read_text())
    assert facts["runs"][0]["state"] == "interrupted"
    assert facts["counts"]["requests_unfinished"] == 1
    assert facts["complete"] is True


def test_missing_rows_give_a_bundle_and_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = builders.write_run(builders.random_run(count=600), tmp_path / "run")
    segment = next((path / "requests").iterdir())
    segment.write_bytes(segment.read_bytes()[:-1000])
    assert exported(path, tmp_path / "logs") == 3
    out, error = capsys.readouterr()
    marked = path / "bundle" / "dataset.json"
    first, *named = error.splitlines()
    assert first == f"export: rows of the recording are missing; the gaps are marked in {marked}"
    assert named
    assert all(line.startswith("  /") for line in named)
    assert "rows lost    at least " in out
    facts = json.loads(marked.read_text())
    assert facts["complete"] is False
    assert facts["counts"]["rows_lost"] > 0
    assert str(path) not in marked.read_text()  # the same bytes wherever the run lies


def test_several_runs_need_a_place(capsys: pytest.CaptureFixture[str]) -> None:
    text = "export: a bundle of several runs needs a place of its own; give it with --out DIR\n"
    assert refused(capsys, "a", "b") == text


def test_several_run_folders_make_one_bundle(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = builders.write_run(builders.random_run(seed=2, count=300, run_id="other"), tmp_path / "other")
    more = ["--logs", str(tmp_path / "logs"), "--out", str(tmp_path / "both")]
    assert main([str(folder), str(other), *more]) == 0
    assert "run          other (complete)" in capsys.readouterr().out


def test_the_bundle_of_several_runs_does_not_depend_on_who_is_named_first(folder: Path, tmp_path: Path) -> None:
    other = builders.write_run(builders.random_run(seed=2, count=300, run_id="other"), tmp_path / "other")
    for out, runs in (("one", (folder, other)), ("two", (other, folder))):
        places = ["--logs", str(tmp_path / "logs"), "--out", str(tmp_path / out)]
        assert main([*map(str, runs), *places]) == 0
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) >= 9
    assert [
        file for file in files if (tmp_path / "one" / file).read_bytes() != (tmp_path / "two" / file).read_bytes()
    ] == []


def test_the_tally_says_why_a_run_stopped_and_what_its_decisions_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = builders.random_run(count=600, manifest={"fault": "no more room", "source": "sandbox"})
    source.decisions["sample_ns"][:3] = 0
    gone = source.decisions["tick"] != 40
    source = replace(source, decisions=source.decisions[gone])
    unanswered = int((source.decisions["sample_ns"] == 0).sum())
    assert exported(builders.write_run(source, tmp_path / "run"), tmp_path / "logs") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "             stopped: no more room"
    (decisions,) = (line for line in lines if line.startswith("decisions"))
    missed = f"(1 intervals skipped, {unanswered} made without a metrics sample)"
    assert decisions == f"decisions    {len(source.decisions)} {missed}"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, str(tmp_path)) == f"export: {tmp_path}: not a run folder, it has no manifest.json\n"


def test_a_run_without_decisions_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = builders.write_run(builders.run(), tmp_path / "run")
    text = "no decisions were recorded, so there is nothing to learn from; record a run first"
    assert refused(capsys, str(path)) == f"export: {path}: {text}\n"
    assert not (path / "bundle").exists()


def test_a_damaged_plan_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = builders.write_run(builders.random_run(count=10, manifest={"plan": {}}), tmp_path / "run")
    assert refused(capsys, str(path)).startswith("export: plan: ")


def test_a_run_folder_is_not_changed_by_an_export(folder: Path, tmp_path: Path) -> None:
    def state() -> dict[Path, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file() and "bundle" not in path.parts)
        return {path: path.read_bytes() for path in files}

    before = state()
    assert exported(folder, tmp_path / "logs", "--out", str(tmp_path / "bundle")) == 0
    assert state() == before


def test_importing_it_loads_no_load_generator() -> None:
    code = "import sys, rl_hooks.export.__main__; print([m for m in ('locust', 'gevent') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"

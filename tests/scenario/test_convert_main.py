"""`python -m scenario convert`: where things go, exit codes, and what it never overwrites."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scenario.__main__ import main
from scenario.load import load_file
from tests.scenario.files import phase, problems, suite, tree


@pytest.fixture
def old(tmp_path):
    whole = tree()
    phase(whole)["users"] = str(phase(whole).pop("concurrent_users"))
    path = tmp_path / "old.json"
    path.write_text(json.dumps(whole))
    return path


LINE = "training_scenarios.day.traffic_patterns[0].users: '10' -> concurrent_users 10"


def test_without_to_the_file_goes_to_stdout_and_the_report_to_stderr(old, tmp_path, capsys):
    assert main(["convert", str(old)]) == 0
    out, err = capsys.readouterr()
    new = tmp_path / "new.yaml"
    new.write_text(out)
    assert load_file(new).scenario("day").phases[0].users == 10
    assert err == f"1 change or decision\n  {LINE} (concurrent_users is a whole number above 0)\n"


def test_with_to_the_file_is_written_and_the_report_goes_to_stdout(old, tmp_path, capsys):
    new = tmp_path / "new.yaml"
    assert main(["convert", str(old), "--to", str(new)]) == 0
    out, err = capsys.readouterr()
    assert LINE in out
    assert out.endswith(f"\nwrote {new}\n")
    assert err == ""
    assert load_file(new).scenario("day").phases[0].users == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.yaml", "old.json"]


def test_a_file_that_is_there_is_only_overwritten_with_force(old, tmp_path, capsys):
    new = tmp_path / "new.yaml"
    new.write_text("mine")
    assert main(["convert", str(old), "--to", str(new)]) == 2
    assert new.read_text() == "mine"
    assert "is there already. Name another file, or overwrite it with --force." in capsys.readouterr().err
    assert main(["convert", str(old), "--to", str(new), "--force"]) == 0
    assert load_file(new).scenario("day").phases[0].users == 10


def test_what_is_refused_leaves_everything_as_it_was(old, tmp_path, capsys):
    whole = json.loads(old.read_text())
    phase(whole).update(gravity=9.81, intensity="insane")
    old.write_text(json.dumps(whole))
    new = tmp_path / "new.yaml"
    new.write_text("mine")
    assert main(["convert", str(old), "--to", str(new), "--force"]) == 2
    assert main(["convert", str(old)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{old}: 2 problems\n  training_scenarios.day.traffic_patterns[0].intensity: 'insane' is not")
    assert "unknown key 'gravity' with 9.81. Remove or rename it." in err
    assert new.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("old.json", ["--force"], "does not end in .yaml. Name the new file with .yaml."),
        ("new.json", [], "does not end in .yaml. Name the new file with .yaml."),
        ("none/new.yaml", [], "cannot be written: No such file or directory. Choose another."),
        ("folder.yaml", ["--force"], "is there already. Name another file."),
    ],
)
def test_where_it_cannot_be_written(old, tmp_path, capsys, name, options, line):
    (tmp_path / "folder.yaml").mkdir()
    before = old.read_text()
    assert main(["convert", str(old), "--to", str(tmp_path / name), *options]) == 2
    assert line in capsys.readouterr().err
    assert old.read_text() == before


def test_an_old_yaml_file_is_never_overwritten_by_its_own_conversion(old, capsys):
    as_yaml = old.with_suffix(".yaml")
    old.rename(as_yaml)
    before = as_yaml.read_text()
    assert main(["convert", str(as_yaml), "--to", str(as_yaml), "--force"]) == 2
    assert "is the old file itself. Name another file." in capsys.readouterr().err
    assert as_yaml.read_text() == before


@pytest.mark.parametrize(
    ("content", "line"),
    [(None, "is not a file"), ("{", "is not JSON"), ("", "is empty"), ("[1]", "the whole file: [1] is not a mapping")],
)
def test_what_cannot_be_read(tmp_path, capsys, content, line):
    path = tmp_path / "old.json"
    if content is not None:
        path.write_text(content)
    assert main(["convert", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert line in err


def test_a_name_that_could_break_out_of_the_comment_does_not(tmp_path, capsys):
    path = tmp_path / "a\nb: 1.json"
    path.write_text(json.dumps(tree()))
    assert main(["convert", str(path)]) == 0
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first.startswith("# Converted from ")
    assert second == "#"


def test_the_loader_points_to_the_converter():
    way_out = "If the file is of an older tool, convert it: python -m scenario convert FILE."
    old = tree()
    suite(old)["stress_scenarios"] = {}
    phase(old)["user_count"] = 5
    assert problems(old) == [
        f"training_scenarios.day.traffic_patterns[0]: unknown key 'user_count'. {way_out}",
        f"rl_training_scenarios: unknown key 'stress_scenarios'. {way_out}",
    ]


def test_it_runs_as_a_module(old):
    done = subprocess.run(
        [sys.executable, "-m", "scenario", "convert", str(old)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "rl_training_scenarios:" in done.stdout
    assert LINE in done.stderr


def test_a_write_that_fails_leaves_nothing_behind(old, tmp_path, capsys, monkeypatch):
    def no_space(self, target):
        raise OSError(28, "No space left on device")

    new = tmp_path / "new.yaml"
    new.write_text("mine")
    monkeypatch.setattr(Path, "replace", no_space)
    assert main(["convert", str(old), "--to", str(new), "--force"]) == 2
    assert "cannot be written: No space left on device. Choose another." in capsys.readouterr().err
    assert new.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.yaml", "old.json"]

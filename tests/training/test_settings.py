"""Settings of training from a YAML file: the defaults, what replaces them, and every problem at once."""

from dataclasses import replace
from pathlib import Path

import pytest

from training.errors import TrainingError
from training.settings import Settings, read_settings


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_file_leaves_the_defaults(tmp_path: Path) -> None:
    assert read_settings(written(tmp_path, "")) == Settings()


def test_what_is_named_is_replaced(tmp_path: Path) -> None:
    path = written(tmp_path, "gamma: 0\nhidden: [32]\nsteps: 10\n")
    assert read_settings(path) == replace(Settings(), gamma=0.0, hidden=(32,), steps=10)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "gama: 0.9\ngamma: 1\nsteps: 2.5\nhidden: []\nmembers: true\nalpha: much\n")
    with pytest.raises(TrainingError) as refusal:
        read_settings(path)
    first, *problems = str(refusal.value).splitlines()
    assert first == f"{path}: 6 problems"
    assert problems[0].startswith("  gama: is not known; Did you mean 'gamma'?")
    assert problems[1:] == [
        "  gamma: must be a number from 0 to 0.9999, found 1",
        "  steps: must be a whole number from 1 to 1e+07, found 2.5",
        "  hidden: must be a list of whole numbers from 1 to 4096, for example [64, 64], found []",
        "  members: must be a whole number from 1 to 100, found True",
        "  alpha: must be a number from 0 to 1000, found 'much'",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "must be a mapping like `gamma: 0.9`"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        read_settings(written(tmp_path, text))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be read as YAML"):
        read_settings(tmp_path / "nothing.yaml")

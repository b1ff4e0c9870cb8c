"""What the documents say is true: commands exist, options exist, links lead somewhere, examples run."""

import re
from pathlib import Path

import pytest
import yaml

from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from rl_hooks.record.options import OPTIONS
from scenario.load import load_text
from tests import builders

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
LOCUSTS = {"--headless", "--host", "--processes", "--enable-rebalancing"}  # Locust's own options that we name
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_that_are_named_exist(document: Path) -> None:
    named = set(re.findall(r"`make ([a-z-]+)", document.read_text(encoding="utf-8")))
    assert named <= TARGETS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_or_linked_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"\]\(([^)#:]+)\)", text)
    named += re.findall(
        r"`((?:configs|docs|rl_hooks|sandbox|shapes|tests|profiles|scenario|training)/[\w/.]+\.\w+)`", text
    )
    assert [name for name in named if not ((document.parent / name).exists() or (ROOT / name).exists())] == []


def test_options_that_are_named_exist() -> None:
    executor = (ROOT / "rl_training_executor.py").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", README))
    known = set(OPTIONS) | LOCUSTS | set(re.findall(r'"(--[a-z-]+)"', executor)) | {"--out", "--format"}
    assert named <= known
    assert set(OPTIONS) - {"--actuator"} <= named | {"--actuator"}


def test_both_commands_stand_in_the_readme_and_ci_runs_them() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    for command in ("make run", "make test"):
        assert command in README
        assert command in ci


def test_the_python_example_runs_on_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(assemble([builders.random_run()]), tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("python")
    names: dict[str, object] = {}
    exec(example, names)
    train, observation = names["train"], names["observation"]
    assert len(train) > 0  # type: ignore[arg-type]
    assert observation.dtype == "float32"  # type: ignore[attr-defined]


def test_the_example_profile_can_be_used_as_it_stands() -> None:
    (example,) = blocks("yaml")
    text = (ROOT / "configs" / "comprehensive_rl_training_config.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    content["rl_training_scenarios"]["user_behavior_profiles"] |= yaml.safe_load(example)["user_behavior_profiles"]
    file = load_text(yaml.safe_dump(content, sort_keys=False), "example.yaml")
    assert file.profiles["night_owl"].conversion_rate == 0.3

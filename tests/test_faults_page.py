"""docs/faults.md: its examples are read as they stand."""

import re
from pathlib import Path

import pytest
import yaml

from rl_hooks.faults.injector import make_injector
from scenario.model import FAULT_KINDS
from tests.rl_hooks.faults.made import fault
from tests.scenario.files import load, phase, tree

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "faults.md").read_text(encoding="utf-8")
PHASE, HTTP, COMMAND, CHAOS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("example", [PHASE, CHAOS])
def test_the_examples_of_a_phase_are_valid(example: str) -> None:
    whole = tree()
    whole["rl_training_scenarios"]["base_config"].update(max_concurrent_users=50)
    phase(whole).update(yaml.safe_load(example))
    first = load(whole).scenario().phases[0]
    assert first.faults or first.chaos is not None


def test_the_templates_can_make_what_they_are_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT_TOKEN", "x")
    for kind, text, made in (
        ("http", HTTP, [fault(), fault(kind="errors", value=0.2)]),
        ("command", COMMAND, [fault(kind="crash", value=None)]),
    ):
        path = tmp_path / f"{kind}.yaml"
        path.write_text(text)
        injector = make_injector(f"{kind}:{path}", "http://127.0.0.1:9")
        assert injector is not None
        assert injector.problems(made) == []


def test_every_condition_stands_in_the_table() -> None:
    assert re.findall(r"^\| `(\w+)` \| .* \|$", PAGE.split("## Who makes them")[0], re.MULTILINE) == list(FAULT_KINDS)

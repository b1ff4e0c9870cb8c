"""Converting small old files in tests."""

import json
from typing import Any

import pytest
import yaml

from scenario.__main__ import shipped
from scenario.convert.file import Converted, convert_text
from scenario.errors import ScenarioError
from scenario.load import load_text

Tree = dict[str, Any]
SHIPPED = shipped()


def convert(old: Any, origin: str = "old.json") -> Converted:
    """The conversion of a tree, or of a text."""
    text = old if isinstance(old, str) else json.dumps(old)
    return convert_text(text.encode(), origin, SHIPPED)


def result(converted: Converted) -> Tree:
    """What is under rl_training_scenarios of the new file, which loads."""
    load_text(converted.yaml)
    suite: Tree = yaml.safe_load(converted.yaml)["rl_training_scenarios"]
    return suite


def lines(converted: Converted) -> list[str]:
    return [str(note) for note in converted.notes]


def refused(old: Any, origin: str = "old.json") -> list[str]:
    """The problem lines of a file that is refused."""
    with pytest.raises(ScenarioError) as caught:
        convert(old, origin)
    return [str(problem) for problem in caught.value.problems]

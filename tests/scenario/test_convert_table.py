"""The table of docs/old-files.md: every row is run by the strict loader and by the converter."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.scenario.files import Tree, phase, problems, profile, suite, tree
from tests.scenario.old_files import convert, lines, refused, result

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "old-files.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| where")
]
REPLACES = {
    "profiles": "user_behavior_profiles", "max_users": "max_concurrent_users", "users": "concurrent_users",
    "session_duration_minutes": "session_duration_range", "session_duration": "session_duration_range",
    "browse_probability": "action_probabilities", "duration_seconds": "duration_minutes", "weights": "scenario_weights",
    "id": "sku", "zip": "zip_code",
}  # fmt: skip


def node(where: str, whole: Tree) -> Tree:
    """The mapping that a row is about; a row about a phase is about the second one."""
    inside = suite(whole)
    found: dict[str, Any] = {
        "file": whole, "suite": inside, "base_config": inside["base_config"], "profile": profile(whole),
        "scenario": inside["training_scenarios"]["day"], "phase": phase(whole, 1),
        "product": inside["product_catalogue"][0], "address": inside["shipping_addresses"][0],
    }  # fmt: skip
    mapping: Tree = found[where]
    return mapping


def in_backticks(cell: str) -> str:
    found = re.search(r"`(.+)`", cell)
    assert found is not None, cell
    return found[1]


def with_row(where: str, fragment: Tree) -> Tree:
    old = tree()
    suite(old)["base_config"]["max_concurrent_users"] = 26
    there = node(where, old)
    for key in fragment:
        there.pop(REPLACES.get(key, key), None)
    there.update(fragment)
    return old


def test_the_table_is_read():
    assert len(ROWS) > 25


@pytest.mark.parametrize(
    ("where", "found", "message", "written"), ROWS, ids=[f"{row[0]} {row[1]}"[:50] for row in ROWS]
)
def test_a_row(where, found, message, written):
    fragment = json.loads(in_backticks(found))
    old = with_row(where, fragment)
    assert any(in_backticks(message) in line for line in problems(old))
    if written.startswith("refused"):
        assert any(in_backticks(written) in line for line in refused(old))
        return
    if "profiles" in fragment:  # a section, with its content
        old["profiles"] = suite(old).pop("user_behavior_profiles")
    if "phases" in fragment:
        day = suite(old)["training_scenarios"]["day"]
        day["phases"] = day.pop("traffic_patterns")
    converted = convert(old)
    said = lines(converted)
    assert all(any(re.search(rf"\b{key}[:.\[]", line) for line in said) for key in fragment)
    there = node(where, {"rl_training_scenarios": result(converted)})
    if written.startswith("`{"):
        expected = yaml.safe_load(in_backticks(written))
        assert {key: there.get(key) for key in expected} == expected
    elif written == "dropped":
        assert not fragment.keys() & there.keys()
        assert all(any(f"{key}: " in line and "-> dropped (" in line for line in said) for key in fragment)
    else:
        assert said

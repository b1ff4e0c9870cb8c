"""docs/scenarios.md: its file loads, its numbers are those of the code, and it names every key of the schema."""

import json
import re
from typing import Any

import pytest

from scenario import visits
from scenario.load import CONFIGS, load_text
from scenario.model import DEFAULTS, PACE, USER_ACTIONS, Profile
from scenario.plan import make_plan
from tests.processes import ROOT
from tests.scenario import files

PAGE = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
KEYS = PAGE.split("## Every key")[1]


def keys_of(schema: Any) -> set[str]:
    """Every key that a file can have, by the schema."""
    if isinstance(schema, list):
        return set().union(*map(keys_of, schema))
    if not isinstance(schema, dict):
        return set()
    named = set(schema["properties"]) if isinstance(schema.get("properties"), dict) else set()
    return named.union(*map(keys_of, schema.values()))


def rows(text: str) -> list[list[str]]:
    """The cells of all rows of all tables."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in re.findall(r"^\|.*\|$", text, re.MULTILINE)
    ]


def test_the_file_is_one_as_it_stands() -> None:
    scenario = load_text(EXAMPLE, "night.yaml").scenario()
    plan = make_plan(scenario, seed=1)
    assert [phase.name for phase in plan.phases] == ["evening", "advertisement"]
    assert dict(plan.mix_at(1000.0)) == {"night_owl": 14, "quick_browser": 6}
    assert len(plan.faults) == 1
    assert plan.slo_ms["cart-service"] == 200


def test_every_key_of_the_schema_is_named() -> None:
    known = keys_of(json.loads((CONFIGS / "schema.json").read_text(encoding="utf-8")))
    assert len(known) > 70
    missing = [key for key in known if f"`{key}`" not in PAGE and f"{key}:" not in EXAMPLE]
    assert missing == []
    beyond_the_example = {"$schema", "rl_training_scenarios", "training_scenarios", "user_behavior_profiles"}
    assert [key for key in known - beyond_the_example if f"`{key}`" not in KEYS and key != "base_config"] == []


def test_the_paces_are_those_of_the_code() -> None:
    told = {
        cells[0].strip("`"): float(cells[1]) for cells in rows(PAGE) if cells[0].strip("`") in PACE and len(cells) == 2
    }
    assert told == dict(PACE)


def test_the_user_actions_make_so_many_requests() -> None:
    told = {
        cells[0].strip("`"): float(cells[1])
        for cells in rows(PAGE)
        if len(cells) == 3 and cells[1][:1].isdigit() and cells[0].strip("`") in USER_ACTIONS
    }
    assert told == pytest.approx({action: sum(calls.values()) for action, calls in visits.CALLS.items()})


def test_the_intents_follow_from_the_rates() -> None:
    shown = [[float(cell) for cell in cells] for cells in rows(PAGE) if len(cells) == 5 and cells[0][:1].isdigit()]
    assert len(shown) == 3
    for conversion, abandonment, *shares in shown:
        whole = files.tree()
        files.profile(whole).update(conversion_rate=conversion, cart_abandonment_rate=abandonment)
        profile: Profile = files.load(whole).profiles["browser"]
        assert shares == pytest.approx(list(visits.intents(profile).values()), abs=5e-5)


def test_the_values_of_keys_left_out_are_those_of_the_code() -> None:
    told = {key: cells[-1] for cells in rows(KEYS) for key in re.findall(r"`(\w+)`", cells[0])}
    for key, value in DEFAULTS.items():
        if isinstance(value, float | int):
            assert told.get(key, told["chaos_parameters"].partition("; ")[2]) == f"{value:g}", key
    assert told["service_slo_ms"] == ", ".join(f"{value:g}" for value in DEFAULTS["service_slo_ms"].values())
    assert told["reward_weights"] == ", ".join(f"{value:g}" for value in DEFAULTS["reward_weights"].values())
    assert told["cart_size"] == "1 to 3" and DEFAULTS["cart_size"] == (1, 3)


@pytest.mark.parametrize("key", ["total_users", "max_concurrent_users"])
def test_what_has_to_be_given_is_asked_for(key: str) -> None:
    whole = files.tree()
    del files.suite(whole)["base_config"][key]
    assert any(key in line for line in files.problems(whole))

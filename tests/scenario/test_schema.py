"""The JSON Schema for editors: current, and true about the files we ship."""

import json

import jsonschema
import pytest
import yaml

from scenario.load import CONFIGS
from scenario.schema import json_schema
from tests.scenario.files import phase, tree

SHIPPED = sorted(CONFIGS.glob("*_config.yaml"))


def validator():
    schema = json.loads((CONFIGS / "schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_shipped_schema_is_the_one_of_the_types():
    assert (CONFIGS / "schema.json").read_text(encoding="utf-8") == json.dumps(json_schema(), indent=2) + "\n", (
        "run: python -m scenario schema --output configs/schema.json"
    )


@pytest.mark.parametrize("path", SHIPPED, ids=[path.name for path in SHIPPED])
def test_shipped_files_are_valid_and_name_their_schema(path):
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=schema.json\n")
    validator().validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_both_shipped_files_are_looked_at():
    assert {"comprehensive_rl_training_config.yaml", "quick_validation_config.yaml"} <= {path.name for path in SHIPPED}


def test_a_json_file_may_name_its_schema():
    validator().validate({"$schema": "schema.json", **tree()})


@pytest.mark.parametrize(
    "change",
    [
        {"concurrent_users": 0},
        {"duration_minutes": None},
        {"intensity": "hgh"},
        {"name": "a b"},
        {"unknown": 1},
        {"scenario_weights": {"brows_weight": 1}},
        {"start_minute": None},
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(change):
    whole = tree()
    validator().validate(whole)
    phase(whole).update(change)
    with pytest.raises(jsonschema.ValidationError):
        validator().validate(whole)


def test_every_key_has_a_description_for_editors():
    definitions = json_schema()["$defs"].values()
    assert [
        key for node in definitions for key, value in node.get("properties", {}).items() if not value.get("description")
    ] == []

"""Small scenario files for tests: a valid one, to be changed in the one place that a test is about."""

import json
from typing import Any

import pytest

from scenario.errors import ScenarioError
from scenario.load import ScenarioFile, load_text

Tree = dict[str, Any]

PROFILE: Tree = {
    "session_duration_range": [5, 15],
    "think_time_range": [1.0, 3.0],
    "action_probabilities": {"browse": 0.5, "search": 0.2, "cart": 0.2, "order": 0.1},
    "conversion_rate": 0.3,
    "pages_per_session": [8, 20],
    "cart_abandonment_rate": 0.4,
    "cart_size": [1, 4],
}
PHASE: Tree = {
    "name": "morning",
    "duration_minutes": 10,
    "intensity": "medium",
    "concurrent_users": 10,
    "user_behavior_distribution": {"browser": 0.6, "buyer": 0.4},
    "scenario_weights": {"browse_weight": 50, "cart_weight": 30, "order_weight": 20},
}
PRODUCT: Tree = {"sku": "MUG-1", "name": "Blue Mug", "category": "Home", "brand": "Calla", "price": 12.5}
ADDRESS: Tree = {"street": "1 Main Street", "city": "Boston", "state": "MA", "zip_code": "02108", "country": "USA"}


def tree() -> Tree:
    """A valid file: scenario `day` with the phases morning and evening, profiles browser and buyer."""
    whole: Tree = {
        "rl_training_scenarios": {
            "base_config": {"total_users": 50, "max_concurrent_users": 20, "test_duration_minutes": 20},
            "user_behavior_profiles": {"browser": PROFILE, "buyer": PROFILE},
            "training_scenarios": {"day": {"traffic_patterns": [PHASE, {**PHASE, "name": "evening"}]}},
            "product_catalogue": [PRODUCT],
            "shipping_addresses": [ADDRESS],
        }
    }
    copied: Tree = json.loads(json.dumps(whole))  # no part is shared, so a test changes one place only
    return copied


def suite(whole: Tree) -> Tree:
    found: Tree = whole["rl_training_scenarios"]
    return found


def phase(whole: Tree, index: int = 0) -> Tree:
    found: Tree = suite(whole)["training_scenarios"]["day"]["traffic_patterns"][index]
    return found


def profile(whole: Tree, name: str = "browser") -> Tree:
    found: Tree = suite(whole)["user_behavior_profiles"][name]
    return found


def load(whole: Tree) -> ScenarioFile:
    return load_text(json.dumps(whole), "day.json")


def problems(whole: Tree) -> list[str]:
    """The problem lines of a file that is expected to have some."""
    return problems_of_text(json.dumps(whole), "day.json")


def problems_of_text(text: str, origin: str = "day.yaml") -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        load_text(text, origin)
    head, *lines = str(caught.value).splitlines()
    assert head == f"{origin}: {len(lines)} problem{'' if len(lines) == 1 else 's'}"
    return [line.removeprefix("  ") for line in lines]

"""The user classes as Locust sees them. Locust replaces the sockets of its process, so it gets one of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCUSTFILE = """
from profiles.shoppers import user_classes
from tests.profiles.simulator import comprehensive
globals().update({made.__name__: made for made in user_classes(comprehensive().profiles)})
"""
PROBE = """
import json
from dataclasses import replace
from locust.env import Environment
from profiles.shoppers import user_classes
from tests.profiles.simulator import comprehensive

profiles = comprehensive().profiles
classes = user_classes(profiles)
odd = replace(profiles["quick_browser"], user_actions={"browse": 0.999, "order": 0.001})
named = user_classes({"a-b": odd, "a_b": odd, "3d": odd})
try:
    classes[0](Environment(user_classes=classes, host="http://127.0.0.1:9"))
    message = ""
except Exception as error:
    message = f"{type(error).__name__}: {error}"
print(json.dumps({
    "names": [made.__name__ for made in classes],
    "profiles": [made.profile_name for made in classes],
    "abstract": [made.abstract for made in classes],
    "docs": [made.__doc__ for made in classes],
    "task_sets": [made.tasks[0].__name__ for made in classes],
    "odd": [made.__name__ for made in named],
    "odd_tasks": [len(made.tasks[0].tasks) for made in named],
    "message": message,
}))
"""


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def probe() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("-c", PROBE).splitlines()[-1])
    return found


def test_every_profile_is_a_class_with_a_task_set(probe: dict[str, Any]) -> None:
    assert probe["names"] == ["QuickBrowser", "CarefulShopper", "BulkBuyer", "ImpulseBuyer"]
    assert probe["profiles"] == ["quick_browser", "careful_shopper", "bulk_buyer", "impulse_buyer"]
    assert probe["task_sets"] == ["QuickBrowserTasks", "CarefulShopperTasks", "BulkBuyerTasks", "ImpulseBuyerTasks"]
    assert probe["abstract"] == [False] * 4
    assert all(probe["docs"])


def test_names_are_made_unique_and_valid(probe: dict[str, Any]) -> None:
    assert probe["odd"] == ["AB", "AB2", "Profile3d"]
    assert probe["odd_tasks"] == [1000] * 3


def test_a_user_without_a_runtime_says_so(probe: dict[str, Any]) -> None:
    assert probe["message"] == ("StopTest: The shoppers have no plan: set environment.rl_runtime before users start.")


def test_locust_shows_the_probabilities_of_the_profiles(tmp_path: Path) -> None:
    locustfile = tmp_path / "locustfile.py"
    locustfile.write_text(LOCUSTFILE)
    shown = json.loads(run("-m", "locust", "-f", str(locustfile), "--show-task-ratio-json"))["per_class"]
    quick = shown["QuickBrowser"]["tasks"]["QuickBrowserTasks"]["tasks"]
    ratios = {name: task["ratio"] for name, task in quick.items()}
    assert ratios == pytest.approx({"browse": 0.6, "search": 0.25, "cart": 0.12, "order": 0.03})

"""How a run stands as one document: strict JSON, and what is not known is null."""

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest

from rl_hooks.action_space import ALL_STRATEGIES, INSTANCES, ActionSpace
from rl_hooks.decision import SERVICES
from rl_hooks.observation import FEATURE_INDEX, FEATURES, features_of
from rl_hooks.reward_so_far import RewardSoFar
from rl_hooks.row import MISSING_U8
from rl_hooks.standing import HISTORY_POINTS, Chosen, History, Standing, document, latencies_ms, name_of
from tests import builders

PLAN = builders.plan()
FACTS = {**builders.manifest(PLAN), "faults": {"injector": "none"}}


def standing(**special: Any) -> Standing:
    facts: dict[str, Any] = {
        "run": "tiny_1",
        "state": "running",
        "facts": FACTS,
        "plan": PLAN,
        "run_time_s": 130.0,
        "planned": {"quick_browser": 10, "careful_shopper": 10},
        "running": {"quick_browser": 9, "careful_shopper": 10},
        "failed": 3,
        "rows": 100,
        "rows_lost": 0,
        "decisions": 325,
        "skipped": 0,
        "now_ns": 5_000_000_000,
        "sample_ns": 3_500_000_000,
        "chosen": (),
        "observation": None,
        "trouble": None,
        "faults": (),
        "reward": RewardSoFar(PLAN),
        "history": (),
    }
    return Standing(**{**facts, **special})


def observation(**values: float) -> Any:
    table = np.full((len(SERVICES), len(FEATURES)), np.nan, np.float32)
    for name, value in values.items():
        table[:, FEATURE_INDEX[name]] = value
    return table


def test_it_says_what_is_going_on() -> None:
    chosen = [Chosen(2, "backpressure", 0.25, "uniform", False)]
    seen = observation(response_time_mean_ms=12.5, error_rate=0.5, in_flight=3, cpu_mean=0.75, queue_sum=4)
    now = document(standing(chosen=chosen, observation=seen))
    assert (now["phase"], now["run_time_s"], now["duration_s"]) == ("evening", 130.0, 240.0)
    assert [phase["name"] for phase in now["phases"]] == ["morning", "evening"]
    assert now["users"][1] == {"profile": "quick_browser", "planned": 10, "running": 9}
    assert now["telemetry_age_s"] == 1.5
    cart = now["services"][2]
    assert cart["service"] == "cart-service"
    assert (cart["latency_ms"], cart["error_rate"], cart["in_flight"], cart["cpu"], cart["queue"]) == (
        12.5,
        0.5,
        3,
        0.75,
        4,
    )
    assert (cart["action"], cart["propensity"], cart["actuated"]) == ("backpressure", 0.25, False)
    assert now["services"][0]["action"] is None


@pytest.mark.parametrize("seen", [None, observation(), observation(response_time_mean_ms=math.inf)])
def test_what_is_not_known_is_null_and_the_document_is_strict_json(seen: Any) -> None:
    unknown = Chosen(0, None, math.nan, "", True)
    now = document(standing(observation=seen, chosen=[unknown], sample_ns=None, rows_lost=None, run_time_s=999.0))
    assert json.loads(json.dumps(now, allow_nan=False)) == now
    first = now["services"][0]
    assert [first[name] for name in ("latency_ms", "error_rate", "cpu", "queue", "action", "propensity", "reward")] == [
        None
    ] * 7
    assert (now["phase"], now["pattern"], now["telemetry_age_s"], now["reward"]["mean"]) == (None, None, None, None)
    assert now["counts"]["rows_lost"] is None


def test_instances_as_actions_have_their_names_and_other_places_for_the_features() -> None:
    names = tuple((f"{service}-a", f"{service}-b", f"{service}-c") for service in SERVICES)
    space = ActionSpace(INSTANCES, names)
    features = [feature.name for feature in features_of(space.labels)]
    seen = np.full((len(SERVICES), len(features)), np.nan, np.float32)
    seen[:, features.index("pattern_rising")] = 1
    chosen = [Chosen(1, name_of(space, 1, 2), 0.5, "uniform", True)]
    now = document(standing(facts={**FACTS, "action_space": space.to_json()}, observation=seen, chosen=chosen))
    assert (now["pattern"], now["services"][1]["action"]) == ("rising", "inventory-service-c")


def test_a_balancer_that_decides_by_itself_has_no_action_of_ours_that_could_fail() -> None:
    chosen = [Chosen(0, name_of(ALL_STRATEGIES, 0, MISSING_U8), math.nan, "observed", False)]
    first = document(standing(chosen=chosen))["services"][0]
    assert (first["action"], first["propensity"], first["actuated"]) == (None, None, None)


def test_the_line_of_planned_users_is_the_plans() -> None:
    corners = document(standing())["planned_users"]
    times, users = np.array(corners).T
    for second in range(int(PLAN.duration_s)):
        planned = sum(PLAN.mix_at(float(second)).values())
        assert abs(np.interp(second, times, users) - planned) <= 1  # users are whole, the line is not
    assert max(times) == PLAN.duration_s


def test_the_pattern_is_named() -> None:
    assert document(standing(observation=observation(pattern_idle=0, pattern_burst=1)))["pattern"] == "burst"


def test_latencies_of_all_services_for_the_history() -> None:
    assert latencies_ms(observation(response_time_mean_ms=8), ALL_STRATEGIES) == [8.0] * len(SERVICES)
    assert latencies_ms(None, ALL_STRATEGIES) == [None] * len(SERVICES)


@pytest.mark.parametrize("seconds", [1, HISTORY_POINTS, HISTORY_POINTS + 1, 10_800])
def test_a_history_is_bounded_evenly_spaced_and_reaches_from_the_start_until_now(seconds: int) -> None:
    history = History()
    for second in range(seconds):
        history.note(float(second), math.nan)
        assert len(history.points) <= HISTORY_POINTS
    times = [point[0] or 0.0 for point in history.points]
    steps = {after - before for before, after in itertools.pairwise(times)}
    assert len(steps) <= 1
    assert times[0] == 0.0
    assert seconds - 1 - times[-1] < max(steps, default=1.0)
    assert all(point[1] is None for point in history.points)

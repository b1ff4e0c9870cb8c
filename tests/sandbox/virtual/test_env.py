"""The environment: Gymnasium's own checks, and that it is the recorded run of the same seed, looked at step by step."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rl_hooks.decision import ACTIONS, SERVICE_INDEX, SERVICES
from rl_hooks.export.dataset import Dataset, assemble
from rl_hooks.observation import FEATURES
from rl_hooks.policies.builtin import Uniform
from rl_hooks.run_reader import read_run
from sandbox.virtual.recording import record
from sandbox.virtual.simulation import Conditions
from scenario.load import load_file
from scenario.plan import make_plan
from tests.sandbox.virtual.runs import CONFIG, CONFIGS

gymnasium = pytest.importorskip("gymnasium", reason="needs the extra `formats`")
pytestmark = pytest.mark.formats

QUICK = "quick_validation_config.yaml"
SEED = 3
CART = "cart-service"
MEAN_TOLERANCE, STEP_TOLERANCE = 0.01, 0.25  # of provisional rewards against final ones; see docs/virtual.md


def make(**options: Any) -> Any:
    from sandbox.virtual import env

    env.register()
    return gymnasium.make(env.ID, **{"scenario_file": QUICK, "user_scale": 2.0, **options})


@dataclass
class Recorded:
    """The same run as the environment makes, recorded and exported."""

    data: Dataset

    def of(self, service: str) -> pd.DataFrame:
        return self.data.frame[self.data.frame["service"] == service].reset_index(drop=True)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    plan = make_plan(load_file(CONFIGS / QUICK).scenario(None), SEED, user_scale=2.0)
    folder = tmp_path_factory.mktemp("env") / "run"
    record(plan, folder, Uniform(), Conditions(), CONFIG)
    return Recorded(assemble([read_run(folder)], exact_quantiles=False))


@dataclass
class Played:
    """What an agent saw that took the recorded actions of one service."""

    observations: list[Any]
    rewards: list[float]
    settled: dict[int, float]
    lengths: list[int]
    unfinished: int


@pytest.fixture(scope="module")
def played(recorded: Recorded) -> Played:
    env = make(service=CART).unwrapped
    observation, info = env.reset(seed=SEED)
    assert info["seed"] == SEED
    seen, rewards, settled, lengths, unfinished = [observation], [], {}, [0], 0
    for action in recorded.of(CART)["action"].tolist():
        if env._ended:
            env.reset()
            lengths.append(0)
        observation, reward, terminated, truncated, info = env.step(action)
        assert not terminated
        seen.append(observation)
        rewards.append(reward)
        settled |= info["settled"]
        lengths[-1] += 1
        unfinished += info["n_unfinished"]
    assert truncated
    return Played(seen, rewards, settled, lengths, unfinished)


@pytest.mark.parametrize("options", [{}, {"service": None}, {"service": "payment-service", "others": "least_loaded"}])
def test_it_passes_the_checker(options: dict[str, Any]) -> None:
    from gymnasium.utils.env_checker import check_env

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(**options).unwrapped)


def test_nothing_is_registered_on_import_and_registering_twice_is_fine() -> None:
    import subprocess
    import sys

    program = (
        "import gymnasium, sandbox.virtual.env as e; before = e.ID in gymnasium.registry; e.register(); e.register();"
        "print(before, e.ID in gymnasium.registry)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"


def test_it_sees_what_the_recorded_run_saw(recorded: Recorded, played: Played) -> None:
    mine = recorded.data.frame["service"] == CART
    raw = recorded.data.observation[mine.to_numpy()]
    seen = np.array(played.observations[:-1])[:, : len(FEATURES)]
    np.testing.assert_array_equal(seen, np.nan_to_num(raw, nan=0.0))


def test_settled_rewards_are_those_of_the_export(recorded: Recorded, played: Played) -> None:
    rows = recorded.of(CART)
    final = {int(t): r for t, r, n in zip(rows["decision_tick"], rows["reward"], rows["n_requests"], strict=True) if n}
    common = sorted(final.keys() & played.settled.keys())
    assert len(common) > 0.98 * len(final)
    np.testing.assert_allclose([played.settled[t] for t in common], [final[t] for t in common], atol=1e-6)


def test_rewards_agree_with_the_export_within_the_tolerance(recorded: Recorded, played: Played) -> None:
    rows = recorded.of(CART)
    asked = rows["n_requests"].to_numpy() > 0
    off = (np.array(played.rewards) - rows["reward"].to_numpy())[asked]
    assert abs(off.mean()) <= MEAN_TOLERANCE
    assert np.quantile(np.abs(off), 0.99) <= STEP_TOLERANCE
    assert played.unfinished > 0  # else this test would compare nothing


def test_episodes_are_the_time_blocks_of_the_export(recorded: Recorded, played: Played) -> None:
    blocks = recorded.of(CART).groupby("block", sort=False).size().tolist()
    assert played.lengths == blocks


def test_the_joint_process_has_an_action_for_each_service() -> None:
    env = make(service=None)
    observation, _ = env.reset(seed=1)
    assert env.action_space == gymnasium.spaces.MultiDiscrete([len(ACTIONS)] * len(SERVICES))
    one, _ = make(service=CART).reset(seed=1)
    np.testing.assert_array_equal(observation.reshape(len(SERVICES), -1)[SERVICE_INDEX[CART]], one)


def test_an_action_changes_what_happens() -> None:
    def total(action: int) -> float:
        env = make(service="inventory-service", utilization=1.5, user_scale=4.0)
        env.reset(seed=2)
        return sum(env.step(action)[1] for _ in range(60))

    assert len({round(total(action), 6) for action in range(len(ACTIONS))}) > 3


def test_reset_goes_on_with_the_run_and_begins_another_behind_its_end() -> None:
    env = make(service=CART, time_scale=10.0)
    _, first = env.reset(seed=5)
    begins = [first["tick"]]
    seeds = {first["seed"]}
    for _ in range(7):
        truncated = False
        while not truncated:
            *_, truncated, _ = env.step(0)
        _, info = env.reset()
        begins.append(info["tick"])
        seeds.add(info["seed"])
    assert begins[1] > begins[0] == 0
    assert begins.count(0) == 2
    assert len(seeds) == 2


def test_a_step_behind_the_end_of_an_episode_is_refused() -> None:
    env = make(service=CART, time_scale=10.0)
    env.reset(seed=5)
    truncated = False
    while not truncated:
        *_, truncated, _ = env.step(0)
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(0)


def test_a_service_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="'cart' is none of user-service"):
        make(service="cart")


def test_an_encoding_scales_and_keeps_the_bounds(tmp_path: Path) -> None:
    encoding = {"mean": [1.0] * len(FEATURES), "std": [2.0] * len(FEATURES)}
    raw, _ = make(service=CART).reset(seed=1)
    env = make(service=CART, encoding=json.loads(json.dumps(encoding)))
    scaled, _ = env.reset(seed=1)
    known = np.flatnonzero(raw[: len(FEATURES)] > 0)
    np.testing.assert_allclose(scaled[known], (raw[known] - 1) / 2, rtol=1e-6)
    assert env.observation_space.contains(scaled)
    assert np.isfinite(env.observation_space.low).all() and np.isfinite(env.observation_space.high).all()

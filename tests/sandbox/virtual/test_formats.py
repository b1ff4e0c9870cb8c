"""What a Minari data set of a run in virtual time names is the environment that made it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from rl_hooks.export.formats.table import find_writers
from rl_hooks.policies.builtin import Uniform
from rl_hooks.run_reader import read_run
from sandbox.virtual.recording import record
from sandbox.virtual.simulation import Conditions
from scenario.load import load_file
from scenario.plan import make_plan
from tests.sandbox.virtual.runs import CONFIGS

minari = pytest.importorskip("minari", reason="needs the extra `formats`")
pytestmark = pytest.mark.formats

QUICK = CONFIGS / "quick_validation_config.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Minari folder of a bundle of two runs."""
    place = tmp_path_factory.mktemp("minari")
    file = load_file(QUICK)
    for seed in (1, 2):
        config = {"config_path": str(QUICK), "config_sha256": file.text_sha256}
        record(
            make_plan(file.scenario(None), seed), place / f"run{seed}", Uniform(), Conditions(utilization=0.7), config
        )
    runs = [read_run(place / f"run{seed}") for seed in (1, 2)]
    write_bundle(assemble(runs), place / "bundle", find_writers("minari"))
    return place / "bundle" / "formats" / "minari"


@pytest.fixture
def dataset(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    return minari.load_dataset(dataset_id(folder))


def dataset_id(folder: Path) -> str:
    return str(json.loads((folder / "format.json").read_text())["parts"]["train"]["id"])


def test_the_format_names_what_the_environment_is_called() -> None:
    from rl_hooks.export.formats import minari_dataset
    from sandbox.virtual import env

    named = (minari_dataset.ENVIRONMENT, minari_dataset.ENTRY_POINT, minari_dataset.MOST_STEPS)
    assert named == (env.ID, env.ENTRY_POINT, env.MOST_STEPS)


def test_the_environment_is_recovered_and_speaks_the_data_sets_language(dataset: Any, folder: Path) -> None:
    from sandbox.virtual import env

    env.register()
    assert json.loads((folder / "format.json").read_text())["environment"] == env.ID
    recovered = dataset.recover_environment()
    assert recovered.spec.id == env.ID
    assert recovered.spec.kwargs["utilization"] == 0.7
    assert recovered.action_space == dataset.action_space
    assert recovered.observation_space.shape == dataset.observation_space.shape
    space = recovered.observation_space
    for episode in dataset.iterate_episodes():
        assert all(space.contains(row) for row in episode.observations)


def test_an_episode_of_the_data_is_one_of_the_environment(dataset: Any, folder: Path) -> None:
    """The same seed and the same actions give the same observations, in the same encoding."""
    from sandbox.virtual import env

    env.register()
    number, facts = next(
        (number, facts)
        for number, facts in enumerate(dataset.storage.get_episode_metadata(range(dataset.total_episodes)))
        if facts["service"] == "cart-service"
    )
    episode = dataset[number]
    ticks = np.ravel(episode.infos["decision_tick"])[:-1].astype(int).tolist()
    run = read_run(folder.parents[2] / "run1")
    mine = run.decisions[run.decisions["service"] == 2]
    assert "run1" in facts["episode_id"] or "cart" in facts["episode_id"]
    made = dataset.recover_environment(service="cart-service").unwrapped
    seen, _ = made.reset(seed=1)
    for tick, action in zip(mine["tick"].tolist(), mine["action"].tolist(), strict=True):
        if tick == ticks[0]:
            break
        if made._ended:
            made.reset()
        seen, *_ = made.step(action)
    for position, action in enumerate(episode.actions.tolist()):
        np.testing.assert_allclose(seen, episode.observations[position], rtol=1e-5, atol=1e-5)
        if made._ended:
            made.reset()
        seen, *_ = made.step(action)


def test_d3rlpys_own_loader_works_and_ours_keeps_the_episodes(dataset: Any, folder: Path) -> None:
    pytest.importorskip("d3rlpy", reason="needs the extra `formats`")
    from d3rlpy.datasets import get_minari

    from rl_hooks.export.formats.d3rlpy_buffer import load_minari
    from sandbox.virtual import env

    env.register()
    theirs, made = get_minari(dataset_id(folder))
    assert made.spec.id == env.ID
    ours = load_minari(dataset)
    assert len(theirs.episodes) == len(ours.episodes) == dataset.total_episodes
    first = dataset[1].observations[0]
    np.testing.assert_array_equal(ours.episodes[1].observations[0], first)
    # Theirs shifts the episode of number k by k rows, which is why there is ours.
    np.testing.assert_array_equal(theirs.episodes[1].observations[1], first)

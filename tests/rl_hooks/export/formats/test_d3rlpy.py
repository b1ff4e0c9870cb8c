"""What d3rlpy loses silently and our files and loaders keep. Each trap is shown beside its way out: a release that
closes it makes a test fail, and then ours can go."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl_hooks.action_space import instances
from rl_hooks.decision import SERVICES
from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from rl_hooks.export.formats.table import find_writers, write_formats
from tests.builders import run_in
from tests.rl_hooks.export.formats.truth import NEVER_TAKEN

pytestmark = [
    pytest.mark.formats,
    pytest.mark.skipif(
        importlib.util.find_spec("d3rlpy") is None, reason="d3rlpy is not installed; `make formats` installs it"
    ),
]


def test_the_last_transition_of_a_truncated_episode_is_kept(written: Any, truth: Any) -> None:
    from d3rlpy.dataset import MDPDataset

    from rl_hooks.export.formats.d3rlpy_buffer import load

    want = truth("train")
    buffer = load(written("d3rlpy") / "train.h5")
    assert buffer.transition_count == len(want)
    for episode, expected in zip(buffer.episodes, want.episodes, strict=True):
        last = buffer.transition_picker(episode, episode.transition_count - 1)
        np.testing.assert_allclose(last.next_observation, expected.next_observations[-1], rtol=1e-6, atol=1e-6)
        assert last.reward == expected.column("reward")[-1]
        assert last.action == expected.column("action")[-1]
        assert last.terminal == 0
    trap = MDPDataset(
        want.observations,
        want.column("action"),
        want.column("reward"),
        terminals=np.zeros(len(want)),
        timeouts=want.column("truncated"),
    )
    assert trap.transition_count == len(want) - len(want.episodes)


def test_an_action_that_was_never_taken_is_still_one(written: Any) -> None:
    from d3rlpy.dataset import InfiniteBuffer, ReplayBuffer

    from rl_hooks.export.formats.d3rlpy_buffer import load

    path = written("d3rlpy") / "train.h5"
    assert load(path).dataset_info.action_size == 6
    with path.open("rb") as file:
        assert ReplayBuffer.load(file, InfiniteBuffer()).dataset_info.action_size == NEVER_TAKEN


def test_pinned_instances_are_as_many_actions_as_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import minari

    from rl_hooks.export.formats.d3rlpy_buffer import load, load_minari

    pods = instances({service: [f"{service}-{number}" for number in (1, 2, 3)] for service in SERVICES})
    bundle = tmp_path / "bundle"
    write_bundle(assemble([run_in(pods)]), bundle)
    write_formats(bundle, find_writers("d3rlpy,minari"))
    assert load(bundle / "formats" / "d3rlpy" / "train.h5").dataset_info.action_size == 3
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(bundle / "formats" / "minari"))
    (identifier,) = (found for found in minari.list_local_datasets() if "-train-" in found)
    assert load_minari(minari.load_dataset(identifier)).dataset_info.action_size == 3


def test_a_policy_trained_on_it_has_all_actions(written: Any) -> None:
    import d3rlpy

    from rl_hooks.export.formats.d3rlpy_buffer import load

    buffer = load(written("d3rlpy") / "train.h5")
    algorithm = d3rlpy.algos.DiscreteCQLConfig(batch_size=32).create(device=False)
    # n_steps below n_steps_per_epoch trains nothing, without a word
    with_nothing = algorithm.fit(buffer, n_steps=3, n_steps_per_epoch=10, **quiet())
    assert with_nothing == []
    trained = algorithm.fit(buffer, n_steps=3, n_steps_per_epoch=3, **quiet())
    assert len(trained) == 1
    values = algorithm.predict_value(np.repeat(buffer.episodes[0].observations[:1], 6, axis=0), np.arange(6))
    assert np.isfinite(values).all()
    assert algorithm.action_size == 6


def quiet() -> dict[str, Any]:
    from d3rlpy.logging import NoopAdapterFactory

    return {"show_progress": False, "logger_adapter": NoopAdapterFactory()}


@pytest.mark.parametrize("name", ["minari", "minari-arrow"])
def test_a_minari_data_set_becomes_the_same_buffer(name: str, written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import minari

    from rl_hooks.export.formats.d3rlpy_buffer import load, load_minari

    want = load(written("d3rlpy") / "train.h5")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(written(name)))
    (identifier,) = (found for found in minari.list_local_datasets() if "-train-" in found)
    found = load_minari(minari.load_dataset(identifier))
    assert found.dataset_info.action_size == want.dataset_info.action_size == 6
    assert found.transition_count == want.transition_count
    for one, other in zip(found.episodes, want.episodes, strict=True):
        for column in ("observations", "actions", "rewards", "terminated"):
            np.testing.assert_array_equal(getattr(one, column), getattr(other, column))


def test_an_episode_that_terminated_keeps_its_end_and_gets_no_row_more() -> None:
    from rl_hooks.export.formats.d3rlpy_buffer import padded, replay_buffer

    observations, actions, rewards = np.arange(8.0).reshape(4, 2), np.array([0, 1, 0]), np.ones(3)
    episode = padded(observations, actions, rewards, terminated=True)
    buffer = replay_buffer([episode], 6)
    assert buffer.transition_count == episode.transition_count == 3
    last = buffer.transition_picker(episode, 2)
    assert (last.terminal, last.observation.tolist()) == (1.0, [4.0, 5.0])


def test_get_minari_shifts_episodes_and_our_loader_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import d3rlpy
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    from rl_hooks.export.formats.d3rlpy_buffer import load_minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    space = gymnasium.make("CartPole-v1").observation_space
    steps = 4
    sequences = [np.full((steps + 1, 4), number / 10, np.float32) for number in range(3)]
    buffers = [
        EpisodeBuffer(
            id=number,
            observations=observations,
            actions=np.array([0, 1, 0, 1]),
            rewards=np.ones(steps),
            terminations=np.zeros(steps, bool),
            truncations=np.arange(steps) == steps - 1,
        )
        for number, observations in enumerate(sequences)
    ]
    with pytest.warns(UserWarning):
        dataset = minari.create_dataset_from_buffers(
            "test-namespace/constant-v0",
            buffers,
            env="CartPole-v1",
            observation_space=space,
            action_space=gymnasium.spaces.Discrete(2),
        )
    ours = load_minari(dataset, action_size=2)
    assert [set(episode.observations.ravel().tolist()) for episode in ours.episodes] == [
        set(sequence.ravel().tolist()) for sequence in sequences
    ]
    assert [episode.transition_count for episode in ours.episodes] == [steps] * 3
    theirs, _ = d3rlpy.datasets.get_minari("test-namespace/constant-v0")
    second = theirs.episodes[1].observations
    assert second[0, 0] == sequences[0][0, 0]  # the first row of episode 1 is the last one of episode 0


def test_get_minari_needs_an_environment_that_a_bundle_has_not(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import d3rlpy
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(written("minari")))
    identifier = next(iter(minari.list_local_datasets()))
    with pytest.raises(ValueError, match="Environment cannot be recovered"):
        d3rlpy.datasets.get_minari(identifier)
    assert os.environ["MINARI_DATASETS_PATH"] == str(written("minari"))

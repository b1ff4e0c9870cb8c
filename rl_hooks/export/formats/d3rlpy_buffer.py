"""d3rlpy replay buffers: <part>.h5, and loaders that keep what d3rlpy's own lose.

Three traps of d3rlpy 2.8. It takes a step's next observation from the row after it, so the last step of a truncated
episode is lost: an episode of T steps has T + 1 rows here, the last with the final observation, action 0 and reward 0,
which no transition uses. A file does not say how many actions there are, and loading guesses the largest one seen plus
one: load with `load`. `get_minari` shifts episode k of a Minari data set by k rows: use `load_minari`.
The file has no place for propensities.
"""

import json
from pathlib import Path
from typing import Any

import d3rlpy
import numpy as np
import numpy.typing as npt
from d3rlpy.dataset import Episode, InfiniteBuffer, ReplayBuffer
from d3rlpy.dataset.io import load as load_episodes

from rl_hooks.export.formats.flat import flat_facts
from rl_hooks.export.formats.source import Bundle

Array = npt.NDArray[Any]


def write(bundle: Bundle, folder: Path) -> dict[str, Any]:
    """<part>.h5"""
    for name, part in bundle.parts.items():
        episodes = [
            padded(part.sequence(rows), part.actions[rows], part.rewards[rows], terminated=False)
            for rows in part.episodes
        ]
        with (folder / f"{name}.h5").open("w+b") as file:
            replay_buffer(episodes, len(bundle.actions)).dump(file)
    return {**flat_facts(bundle, ".h5"), "action_size": len(bundle.actions), "d3rlpy": d3rlpy.__version__}


def load(path: Path | str, action_size: int | None = None) -> ReplayBuffer:
    """A buffer with all `action_size` actions, also when the data lacks some of them. None: as many as format.json
    beside the file says."""
    if action_size is None:
        facts = json.loads(Path(path).with_name("format.json").read_text(encoding="utf-8"))
        action_size = int(facts["action_size"])
    with Path(path).open("rb") as file:
        return replay_buffer(list(load_episodes(Episode, file)), action_size)


def load_minari(dataset: Any, action_size: int | None = None) -> ReplayBuffer:
    """A buffer of the episodes of a `minari.MinariDataset` with discrete actions; no environment is needed. None: as
    many actions as its action space has."""
    action_size = int(dataset.action_space.n) if action_size is None else action_size
    episodes = [
        padded(episode.observations, episode.actions, episode.rewards, terminated=bool(episode.terminations[-1]))
        for episode in dataset.iterate_episodes()
    ]
    return replay_buffer(episodes, action_size)


def padded(observations: Array, actions: Array, rewards: Array, *, terminated: bool) -> Episode:
    """An episode of T steps from T + 1 observations. One that terminated needs no row more: nothing follows it."""
    if terminated:
        observations = observations[:-1]
    else:
        actions, rewards = np.append(actions, 0), np.append(rewards, 0)
    return Episode(
        observations=np.asarray(observations, np.float32),
        actions=np.asarray(actions, np.int64).reshape(-1, 1),
        rewards=np.asarray(rewards, np.float32).reshape(-1, 1),
        terminated=terminated,
    )


def replay_buffer(episodes: list[Episode], action_size: int) -> ReplayBuffer:
    """A buffer that is told what it would guess and print otherwise."""
    return ReplayBuffer(
        InfiniteBuffer(),
        episodes=episodes,
        observation_signature=episodes[0].observation_signature,
        action_signature=episodes[0].action_signature,
        reward_signature=episodes[0].reward_signature,
        action_space=d3rlpy.ActionSpace.DISCRETE,
        action_size=action_size,
    )

"""Minari data sets, train and validation apart, with the HDF5 or the Arrow back end.

The folder is what MINARI_DATASETS_PATH names; the ids are in format.json. An id names its content, so no two bundles
share one and none is ever overwritten. No environment is named: there is none to make yet, so load with
`minari.load_dataset` and do not ask for `recover_environment`.

Infos have flat keys and length T + 1, of which the last is NaN: the Arrow back end can read nothing else back.
"""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import numpy.typing as npt
from minari.data_collector import EpisodeBuffer

from rl_hooks.export.formats.flat import flat_facts
from rl_hooks.export.formats.source import Bundle, Part, transitions_path

Array = npt.NDArray[Any]

NAMESPACE = "locust-rl-balancer"  # of at least two characters, or Minari calls the id malformed
ROOT_VARIABLE = "MINARI_DATASETS_PATH"
_INFOS = ("decision_tick", "t_s", "dt_s", "n_requests", "n_errors", "reward_filled")


def write_hdf5(bundle: Bundle, folder: Path) -> dict[str, Any]:
    return _write(bundle, folder, "hdf5")


def write_arrow(bundle: Bundle, folder: Path) -> dict[str, Any]:
    return _write(bundle, folder, "arrow")


def dataset_id(bundle: Bundle, part: str) -> str:
    """locust-rl-balancer/<scenario>-<eight digits of the content's checksum>-<part>-v0"""
    with (bundle.path / transitions_path(part)).open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()[:8]
    return f"{NAMESPACE}/{re.sub(r'[^-_0-9A-Za-z]', '_', bundle.scenario)}-{content}-{part}-v0"


def observation_space(bundle: Bundle) -> gymnasium.spaces.Box:
    """A box around all observations of both parts: infinite bounds would not be JSON."""
    vectors = [v for part in bundle.parts.values() for v in (part.observations, part.next_observations)]
    low, high = (np.array([extreme(v, axis=0) for v in vectors]) for extreme in (np.min, np.max))
    return gymnasium.spaces.Box(low.min(axis=0), high.max(axis=0), dtype=np.float32)


def _write(bundle: Bundle, folder: Path, data_format: str) -> dict[str, Any]:
    facts = flat_facts(bundle, "")
    with _root(folder):
        for name, part in bundle.parts.items():
            facts["parts"][name] |= {"file": dataset_id(bundle, name), "id": dataset_id(bundle, name)}
            _create(bundle, part, data_format)
    return {**facts, "environment": None, "minari": minari.__version__}


def _create(bundle: Bundle, part: Part, data_format: str) -> None:
    runs = bundle.facts["runs"]
    with warnings.catch_warnings():
        # Minari warns for every fact that is not given. We have no environment, no address and no reference score.
        warnings.simplefilter("ignore", UserWarning)
        dataset = minari.create_dataset_from_buffers(
            dataset_id=dataset_id(bundle, part.name),
            buffer=_episodes(part),
            observation_space=observation_space(bundle),
            action_space=gymnasium.spaces.Discrete(len(bundle.actions)),
            algorithm_name=", ".join(sorted({str(run["logging_policy"]) for run in runs})),
            author=NAMESPACE,
            description=f"Decisions of a load balancer, one episode per run, service and time block: {part.name}",
            data_format=data_format,
        )
    dataset.storage.update_metadata(
        {
            "observation_columns": list(bundle.encoding.columns),
            "action_names": list(bundle.actions),
            "encoding": json.dumps(bundle.encoding.facts()),
        }
    )
    first = [part.frame.iloc[rows.start] for rows in part.episodes]
    dataset.storage.update_episode_metadata(
        {"episode_id": row["episode_id"], "service": row["service"], "phase": row["phase"]} for row in first
    )


def _episodes(part: Part) -> Iterator[EpisodeBuffer]:
    """One at a time: the whole set need not fit into memory twice."""
    infos = {
        "propensity": part.propensity,
        **{f"action_prob_{index}": values for index, values in enumerate(part.action_probs.T)},
        **part.components,
        **{name: part.column(name, np.float64) for name in _INFOS},
    }
    terminated, truncated = (part.column(name, np.bool_) for name in ("terminated", "truncated"))
    for number, rows in enumerate(part.episodes):
        yield EpisodeBuffer(
            id=number,
            observations=part.sequence(rows),
            actions=part.actions[rows],
            rewards=part.rewards[rows],
            terminations=terminated[rows],
            truncations=truncated[rows],
            infos={name: np.append(values[rows], np.nan).reshape(-1, 1) for name, values in infos.items()},
        )


@contextmanager
def _root(folder: Path) -> Iterator[None]:
    """Minari takes its folder from the environment alone."""
    before = os.environ.get(ROOT_VARIABLE)
    os.environ[ROOT_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[ROOT_VARIABLE]
        else:
            os.environ[ROOT_VARIABLE] = before

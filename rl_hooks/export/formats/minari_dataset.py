"""Minari data sets, train and validation apart, with the HDF5 or the Arrow back end.

The folder is what MINARI_DATASETS_PATH names; the ids are in format.json. An id names its content, so no two bundles
share one and none is ever overwritten. Where all runs were made on the sandbox with one of the suite's own scenario
files, the environment is the sandbox in virtual time with this data's encoding; call `sandbox.virtual.env.register()`
before `recover_environment`. Otherwise none is named.

Infos have flat keys and length T + 1, of which the last is NaN: the Arrow back end can read nothing else back.
"""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import numpy.typing as npt
from minari.data_collector import EpisodeBuffer

from rl_hooks.action_space import ActionSpace
from rl_hooks.export.formats.flat import flat_facts
from rl_hooks.export.formats.source import Bundle, Part, transitions_path
from scenario.load import CONFIGS

Array = npt.NDArray[Any]

NAMESPACE = "locust-rl-balancer"  # of at least two characters, or Minari calls the id malformed
ROOT_VARIABLE = "MINARI_DATASETS_PATH"
ENVIRONMENT, ENTRY_POINT = "LoadBalancerSandbox-v0", "sandbox.virtual.env:LoadBalancerSandboxEnv"
MOST_STEPS = 100_000  # d3rlpy wants a limit; the environment's own episodes are far shorter
_WORLD = {  # what is known of all runs -> argument of the environment
    "config_file": "scenario_file",
    **{name: name for name in ("scenario", "time_scale", "user_scale", "healthy", "utilization")},
}
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
    spec = environment(bundle)
    return {**facts, "environment": None if spec is None else ENVIRONMENT, "minari": minari.__version__}


def environment(bundle: Bundle) -> gymnasium.envs.registration.EnvSpec | None:
    """The sandbox as it was in all runs, with the bundle's encoding; None where it was another system, or several."""
    runs = bundle.facts["runs"]
    worlds = [{name: run.get(name) for name in ("balancer", "config_sha256", *_WORLD)} for run in runs]
    if not ActionSpace.of(bundle.facts).is_whole or worlds[0]["balancer"] != "sandbox":
        return None  # the environment decides among all strategies
    if not _is_ours(runs[0]) or any(one != worlds[0] for one in worlds):
        return None
    if any((run.get("balancer_details") or {}).get("kind", "sandbox") != "sandbox" for run in runs):
        return None  # another balancer in front of the sandbox's instances, which virtual time does not have
    known = {argument: worlds[0][name] for name, argument in _WORLD.items() if worlds[0][name] is not None}
    scaling = {name: bundle.encoding.facts()[name] for name in ("mean", "std")}
    return gymnasium.envs.registration.EnvSpec(
        ENVIRONMENT, entry_point=ENTRY_POINT, max_episode_steps=MOST_STEPS, kwargs={**known, "encoding": scaling}
    )


def _is_ours(run: Mapping[str, Any]) -> bool:
    """Whether the run's scenario file is one that every installation of the suite has, unchanged."""
    file = CONFIGS / str(run.get("config_file") or "-")
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == run["config_sha256"]


def _create(bundle: Bundle, part: Part, data_format: str) -> None:
    with warnings.catch_warnings():
        # Minari warns for every fact that is not given. We have no address and no reference score.
        warnings.simplefilter("ignore", UserWarning)
        dataset = minari.create_dataset_from_buffers(
            dataset_id=dataset_id(bundle, part.name),
            buffer=_episodes(part),
            observation_space=observation_space(bundle),
            action_space=gymnasium.spaces.Discrete(len(bundle.actions)),
            algorithm_name=", ".join(bundle.logging_policies),
            author=NAMESPACE,
            description=f"Decisions of a load balancer, one episode per run, service and time block: {part.name}",
            data_format=data_format,
        )
    spec = environment(bundle)
    dataset.storage.update_metadata(
        {
            # Given to Minari as an argument it would be made now, which an export has no need of.
            **({} if spec is None else {"env_spec": spec.to_json()}),
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
        **({"propensity": part.propensity} if part.has_propensity else {}),
        **(_distribution(part) if part.has_distribution else {}),
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


def _distribution(part: Part) -> dict[str, Array]:
    return {f"action_prob_{index}": values for index, values in enumerate(part.action_probs.T)}


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

"""A bundle's transitions as learners take them: encoded observations, rewards in standard deviations."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.action_space import ActionSpace
from rl_hooks.decision import SERVICES
from rl_hooks.export.formats.source import Bundle, Part, read_bundle
from rl_hooks.export.split import TRAIN, VALIDATION
from rl_hooks.observation import features_of as live_features
from rl_hooks.policy_schema import EXPORTER, PolicyFeature
from training.errors import TrainingError
from training.estimators import Log
from training.evidence import features_of, log_of
from training.inputs import Inputs

Floats = npt.NDArray[np.float32]
FEWEST = 1_000
"""Transitions of train; with fewer nothing that is learned is worth the name."""


@dataclass(frozen=True)
class Transitions:
    """n of them, episodes one after the other. Nothing terminates: every next observation may be bootstrapped from."""

    observations: Floats  # (n, columns)
    next_observations: Floats  # (n, columns)
    actions: npt.NDArray[np.int64]  # (n,) positions among the actions that exist
    rewards: Floats  # (n,) less the mean of train, by its standard deviation
    episodes: tuple[slice, ...]
    n_actions: int  # that exist

    def __len__(self) -> int:
        return len(self.actions)

    def sequences(self) -> Iterator[tuple[Floats, Any, Floats]]:
        """Per episode of T steps: T + 1 observations, T actions, T rewards."""
        for rows in self.episodes:
            observed = np.concatenate((self.observations[rows], self.next_observations[rows][-1:]))
            yield observed, self.actions[rows], self.rewards[rows]


@dataclass(frozen=True)
class Material:
    """What a policy is made from."""

    bundle: Bundle
    inputs: Inputs
    labels: tuple[str, ...]  # of all numbers of actions
    there: npt.NDArray[np.int64]  # the numbers of those that exist: learners know no others
    train: Transitions
    validation: Transitions
    validation_log: Log
    reward_mean: float
    reward_std: float

    @property
    def columns(self) -> int:
        return int(self.train.observations.shape[1])


def read_material(path: Path) -> Material:
    """Raises ExportError when `path` is no bundle, TrainingError with every reason why nothing can be learned."""
    bundle = read_bundle(path)
    space = ActionSpace.of(bundle.facts)
    reward = bundle.statistics["reward"]
    problems = _problems(bundle, space)
    if problems:
        raise TrainingError("\n  ".join([f"{path}: cannot be trained on", *problems]))
    inputs = Inputs.fit(bundle.encoding, _raw(bundle.parts[TRAIN], "obs"))
    there = np.flatnonzero(space.available(0))
    train, validation = (
        _transitions(bundle.parts[name], inputs, there, reward["mean"], reward["std"]) for name in (TRAIN, VALIDATION)
    )
    log = log_of(bundle.parts[VALIDATION].frame)
    return Material(
        bundle, inputs, space.labels, there, train, validation, log, float(reward["mean"]), float(reward["std"])
    )


def _problems(bundle: Bundle, space: ActionSpace) -> list[str]:
    """Why nothing can be learned."""
    problems = []
    for name, least in ((TRAIN, FEWEST), (VALIDATION, 1)):
        rows = len(bundle.parts[name]) if name in bundle.parts else 0
        if rows < least:
            problems.append(f"{name} has {rows} transitions, {least} are needed: record longer")
    reward = bundle.statistics["reward"]
    if not reward["std"] or reward["constant"]:
        problems.append("the reward never changes: raise the load, or change the SLOs so that they can be missed")
    made_live = [feature for feature in features_of(bundle) if feature.source != EXPORTER]
    wanted = [PolicyFeature.of(feature) for feature in live_features(space.labels)]
    if made_live != wanted or bundle.actions != space.labels:
        problems.append("it has other features or actions than this version: export the run folder again")
    if len(set(space.mask())) > 1:
        counts = ", ".join(f"{service} {len(mine)}" for service, mine in zip(SERVICES, space.names, strict=True))
        problems.append(
            f"the services have different numbers of instances ({counts}), and one policy for all of them "
            "chooses among the same number: record with as many instances of each"
        )
    if TRAIN in bundle.parts:
        taken = np.unique(bundle.parts[TRAIN].actions)
        never = [bundle.actions[number] for number in np.flatnonzero(space.available(0)) if number not in taken]
        if never:
            problems.append(f"train never tried {', '.join(never)}: record with a logging policy that explores")
    return problems


def _raw(part: Part, prefix: str) -> Floats:
    raw: Floats = part.frame[[f"{prefix}.{name}" for name in part.encoding.features]].to_numpy(np.float32)
    return raw


def _transitions(part: Part, inputs: Inputs, there: npt.NDArray[np.int64], mean: float, std: float) -> Transitions:
    return Transitions(
        observations=inputs.encode(_raw(part, "obs")),
        next_observations=inputs.encode(_raw(part, "next")),
        actions=np.searchsorted(there, part.actions),
        rewards=((part.rewards - mean) / std).astype(np.float32),
        episodes=part.episodes,
        n_actions=len(there),
    )

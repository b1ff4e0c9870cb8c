"""From a bundle to a policy: learn several networks, choose when to stop by validation, write the policy."""

import contextlib
import importlib
import io
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rl_hooks.policies.onnx import OnnxPolicy
from rl_hooks.policy_schema import Normalization, PolicySchema
from rl_hooks.version import VERSION
from training import fqe
from training.evidence import features_of
from training.network import Model, save, values_of
from training.settings import Settings
from training.transitions import Material, Transitions

LEARNERS: Mapping[str, str] = {
    "cql": "training.cql:learn",
    "awac": "training.actors:awac",
    "cloning": "training.actors:clone",
}
"""Algorithm -> its learner; imported only when asked for."""

POLICY, METRICS, NORMALIZATION = "policy.onnx", "metrics.json", "normalization.json"

Learner = Callable[[Transitions, Settings, int], Iterator[tuple[int, nn.Module, dict[str, float]]]]


@dataclass(frozen=True)
class Checkpoint:
    """All members after so many updates, and what validation says of them."""

    steps: int
    members: tuple[nn.Module, ...]
    score: float  # higher is better, see `score`


@dataclass(frozen=True)
class Trained:
    """What came of it. `members` are those of the chosen checkpoint."""

    algorithm: str
    settings: Settings
    members: tuple[nn.Module, ...]
    metrics: Mapping[str, Any]


def train(material: Material, algorithm: str, settings: Settings, tell: Callable[[str], None]) -> Trained:
    """Learn the members one after the other and choose a checkpoint by validation. `tell` hears of the progress."""
    torch.set_num_threads(1)  # these networks are so small that a second thread only waits
    began_s = time.perf_counter()
    learner = _learner(algorithm)
    stops = _stops(settings)
    kept: dict[int, list[nn.Module]] = {steps: [] for steps in stops}
    losses: list[dict[str, float]] = []
    for member in range(settings.members):
        seed = settings.seed * 1000 + member
        for steps, network, loss in learner(material.train, settings, seed):
            due = [stop for stop in stops if stop <= steps and len(kept[stop]) == member]
            for stop in due:
                kept[stop].append(network)
                losses.append({"member": member, "steps": steps, **loss})
                spent_s = time.perf_counter() - began_s
                tell(f"{algorithm}, network {member + 1} of {settings.members}: {steps} updates, {spent_s:.0f} s")
    checkpoints = [
        Checkpoint(steps, tuple(members), score(members, material, settings.gamma)) for steps, members in kept.items()
    ]
    best = max(checkpoints, key=lambda one: one.score)
    metrics = {
        "algorithm": algorithm,
        "settings": settings.to_json(),
        "transitions": {"train": len(material.train), "validation": len(material.validation)},
        "score": SCORE,
        "checkpoints": [{"steps": one.steps, "score": one.score} for one in checkpoints],
        "chosen_steps": best.steps,
        "losses": losses,
        "action_shares": _shares(best.members, material),
        "seconds": round(time.perf_counter() - began_s, 1),
    }
    return Trained(algorithm, settings, best.members, metrics)


SCORE = "long-run value of the greedy choice by fitted Q evaluation on validation; docs/off-policy.md"


def score(members: Sequence[nn.Module], material: Material, gamma: float) -> float:
    """What checkpoints are compared by, on validation alone: see SCORE. Higher is better.

    Not the Bellman error of their own values: it grows with what the values promise, so that the first checkpoint
    always wins. The difference of two checkpoints is far more certain than the value of one, because they are fitted
    with the same resamples and mostly choose the same.
    """
    data = material.validation
    here, there = (_greedy(members, seen, material) for seen in (data.observations, data.next_observations))
    fit = fqe.Settings(gamma=gamma)
    return fqe.fitted_q(data.observations, data.next_observations, material.validation_log, here, there, fit).value


def _greedy(members: Sequence[nn.Module], encoded: Any, material: Material) -> Any:
    """(n, numbers of actions)"""
    return np.eye(len(material.labels))[material.there[values_of(members, encoded).argmax(axis=1)]]


def write(trained: Trained, material: Material, out: Path) -> OnnxPolicy:
    """Write policy, metrics and normalization into `out`, and read the policy again. Raises OSError."""
    out.mkdir(parents=True, exist_ok=True)
    schema = _schema(trained, material)
    gamma, is_cql = trained.settings.gamma, trained.algorithm == "cql"
    # Q in standard deviations of the reward, summed over the future -> reward per decision in the long run.
    scale, shift = ((1 - gamma) * material.reward_std, material.reward_mean) if is_cql else (1.0, 0.0)
    model = Model(trained.members, material.inputs, scale, shift, material.there.tolist(), len(material.labels))
    save(out / POLICY, model, schema)
    for name, content in ((METRICS, trained.metrics), (NORMALIZATION, schema.to_json()["normalization"])):
        (out / name).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return OnnxPolicy(out / POLICY, schema.features)


def _schema(trained: Trained, material: Material) -> PolicySchema:
    facts, inputs = material.bundle.facts, material.inputs
    return PolicySchema(
        name=trained.algorithm,
        algorithm=trained.algorithm,
        actions=material.labels,
        features=features_of(material.bundle),
        window_s=float(facts["windows_s"]["window"]),
        decision_interval_s=float(facts["decision_interval_s"]),
        normalization=Normalization(
            columns=inputs.encoding.columns,
            mean=tuple(inputs.encoding.mean.tolist()),
            std=tuple(inputs.encoding.std.tolist()),
            low=tuple(inputs.low.tolist()),
            high=tuple(inputs.high.tolist()),
            used=tuple(float(used) for used in inputs.used),
        ),
        gamma=trained.settings.gamma,
        reward_weights=dict(facts["reward_weights"]),
        slo_ms=dict(facts["slo_ms"]),
        data={name: entry["sha256"] for name, entry in facts["files"].items() if name.startswith("data/transitions/")},
        made_by={"name": "locust-rl-balancer", "version": VERSION},
    )


def _learner(algorithm: str) -> Learner:
    module, _, name = LEARNERS[algorithm].partition(":")
    with contextlib.redirect_stderr(io.StringIO()):  # a dependency of d3rlpy prints there that it is unmaintained
        learner: Learner = getattr(importlib.import_module(module), name)
    return learner


def _stops(settings: Settings) -> list[int]:
    """The updates after which training might have ended; none before there is an average to end with."""
    first = math.floor(settings.average_from * settings.steps) + 1
    ends = [round(settings.steps * (number + 1) / settings.checkpoints) for number in range(settings.checkpoints)]
    return sorted({max(first, end) for end in ends})


def _shares(members: tuple[nn.Module, ...], material: Material) -> dict[str, float]:
    data = material.validation
    best = values_of(members, data.observations).argmax(axis=1)
    shares = np.bincount(best, minlength=data.n_actions) / len(data)
    return {material.labels[number]: share for number, share in zip(material.there, shares.tolist(), strict=True)}

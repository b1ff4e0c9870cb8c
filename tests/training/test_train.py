"""Learners find what is best in data where it is known, and what is written decides as what was learned."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl_hooks.action_space import ActionSpace, instances, strategies
from rl_hooks.decision import SERVICES
from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from rl_hooks.export.own_features import Before, find_features
from rl_hooks.observation import Feature
from rl_hooks.policies.builtin import PolicyError
from rl_hooks.policies.named import check_fit, make_policy
from tests import builders
from tests.builders import run_in
from tests.rl_hooks.report import made
from training.errors import TrainingError
from training.evidence import read
from training.settings import ALGORITHMS, Settings
from training.targets import target_probabilities

pytest.importorskip("torch", reason="needs the extra `train`: make test-training")
pytest.importorskip("d3rlpy", reason="needs the extra `train`: make test-training")
pytest.importorskip("onnx", reason="needs the extra `train`: make test-training")

import torch

from training import train
from training.__main__ import main
from training.network import Average, make_network, values_of
from training.transitions import Material, Transitions, read_material

pytestmark = [
    pytest.mark.training,
    # d3rlpy's own dependencies warn about themselves.
    pytest.mark.filterwarnings("default"),
]

FOUR = strategies(["circuit_breaker", "backpressure"])
FIVE = strategies(["backpressure"])
PODS = instances({service: [f"{service}-{number}" for number in (1, 2, 3)] for service in SERVICES})
QUICK = replace(Settings(), steps=600, members=2, checkpoints=2, hidden=(32,))
COLUMNS = 3


def transitions(rng: np.random.Generator, episodes: int, wanted: Mapping[str, Any]) -> Transitions:
    """Episodes of ten steps of a world with two places, seen as -1 and 1 in the first column; actions are uniform.

    Action 0 pays 1 now and leads to the bad place, where nothing pays; action 1 pays nothing and leads to the good one,
    where action 0 pays 1; all others stay where they are and pay nothing. `delayed`: being in the good place pays 2 by
    itself, so that it is better to go there and to stay.
    """
    steps, parts = 10, []
    for _ in range(episodes):
        place, seen, actions, rewards = rng.integers(2), [], rng.integers(0, 6, steps), []
        for action in actions:
            seen.append(place)
            rewards.append(place * (2.0 if wanted["delayed"] else 0.0) + (place == 1) * (action == 0))
            place = 0 if action == 0 else 1 if action == 1 else place
        seen.append(place)
        parts.append((np.array(seen), actions, np.array(rewards)))
    observed = [_see(rng, places) for places, _, _ in parts]
    return Transitions(
        observations=np.concatenate([one[:-1] for one in observed]),
        next_observations=np.concatenate([one[1:] for one in observed]),
        actions=np.concatenate([actions for _, actions, _ in parts]),
        rewards=np.concatenate([rewards for _, _, rewards in parts]).astype(np.float32),
        episodes=tuple(slice(10 * number, 10 * number + 10) for number in range(episodes)),
        n_actions=6,
    )


def _see(rng: np.random.Generator, places: Any) -> Any:
    noise = rng.normal(size=(len(places), COLUMNS - 1))
    return np.column_stack((2.0 * places - 1.0, noise)).astype(np.float32)


def learned(algorithm: str, *, delayed: bool, settings: Settings = QUICK) -> Any:
    data = transitions(np.random.default_rng(1), 300, {"delayed": delayed})
    torch.set_num_threads(1)
    *_, (_, network, _) = train._learner(algorithm)(data, settings, 1)
    return network


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Of a synthetic run, as the exporter writes it."""
    out = tmp_path_factory.mktemp("training") / "bundle"
    plan = builders.plan(phases={"morning": 8.0, "evening": 8.0})
    write_bundle(assemble([builders.random_run(count=20_000, planned=plan)]), out)
    return read_material(out)


PLACES = np.array([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], np.float32)


@pytest.mark.parametrize("algorithm", ["cql", "awac"])
def test_the_action_that_pays_later_is_learned(algorithm: str) -> None:
    bad, good = values_of([learned(algorithm, delayed=True)], PLACES)
    assert bad.argmax() == 1
    assert good.argmax() != 0


def test_without_a_look_ahead_it_is_not() -> None:
    _, good = values_of([learned("cql", delayed=True, settings=replace(QUICK, gamma=0.0))], PLACES)
    assert good.argmax() == 0


def test_cloning_says_how_often_actions_were_logged() -> None:
    values = values_of([learned("cloning", delayed=False)], PLACES)
    shares = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    assert np.abs(shares - 1 / 6).max() < 0.05


def test_the_average_of_weights_is_their_mean() -> None:
    networks = [make_network(COLUMNS, (4,), 6) for _ in range(3)]
    average = Average()
    for network in networks:
        average.add(list(network.parameters()))
    mean = [torch.stack(parts).mean(0) for parts in zip(*(network.parameters() for network in networks), strict=True)]
    for found, wanted in zip(average.network(COLUMNS, (4,)).parameters(), mean, strict=True):
        assert torch.allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_written_decides_as_what_was_learned(algorithm: str, material: Material, tmp_path: Path) -> None:
    source = material
    trained = train.train(source, algorithm, replace(QUICK, steps=60, members=1, checkpoints=1), lambda _: None)
    policy = train.write(trained, source, tmp_path / "policy")
    part = source.bundle.parts["validation"]
    raw = part.frame[[f"obs.{name}" for name in part.encoding.features]].to_numpy(np.float32).copy()
    raw[0], raw[1] = np.nan, 1e9
    wanted = values_of(trained.members, source.inputs.encode(raw))
    if algorithm == "cql":
        wanted = wanted * (1 - trained.settings.gamma) * source.reward_std + source.reward_mean
    assert np.abs(policy.values(raw) - wanted).max() < 1e-4
    assert policy.schema.normalization.used == tuple(float(used) for used in source.inputs.used)
    assert policy.schema.data["data/transitions/train-00000-of-00001.parquet"]
    metrics = json.loads((tmp_path / "policy" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["chosen_steps"] == 60
    assert sum(metrics["action_shares"].values()) == pytest.approx(1)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_same_seed_learns_the_same(algorithm: str) -> None:
    few = replace(QUICK, steps=60)
    one, other = (learned(algorithm, delayed=False, settings=few) for _ in range(2))
    assert np.array_equal(values_of([one], PLACES), values_of([other], PLACES))


def test_the_checkpoint_with_the_best_score_on_validation_is_chosen(
    material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.2, 0.7, 0.1])
    monkeypatch.setattr(train, "score", lambda *_: next(scores))
    settings = replace(QUICK, steps=90, members=1, checkpoints=3, average_from=0.0)
    trained = train.train(material, "cloning", settings, lambda _: None)
    assert [one["steps"] for one in trained.metrics["checkpoints"]] == [30, 60, 90]
    assert trained.metrics["chosen_steps"] == 60


def test_a_bundle_that_teaches_nothing_is_refused_with_all_reasons(bundle: Path) -> None:
    with pytest.raises(TrainingError) as refusal:
        read_material(bundle)
    first, *reasons = str(refusal.value).splitlines()
    assert first == f"{bundle}: cannot be trained on"
    assert any("transitions, 1000 are needed: record longer" in reason for reason in reasons)


def test_data_without_propensities_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made.observed(made.made_run(minutes=6.0), states=False)
    write_bundle(assemble([run]), tmp_path / "bundle")
    (tmp_path / "few.yaml").write_text("{steps: 60, members: 1, checkpoints: 1, hidden: [32]}")
    few = ("--config", str(tmp_path / "few.yaml"), "--out", str(tmp_path / "policy"))
    assert main([str(tmp_path / "bundle"), *few]) == 0
    assert "policy " in capsys.readouterr().out


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nothing"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"training: {tmp_path / 'nothing'}: not a bundle")
    assert not (tmp_path / "out").exists()


class Failures:
    """A feature that only the exporter makes."""

    feature = Feature("failures", "requests", 0, None, "window", "exporter", "never")

    def at(self, before: Before) -> float:
        return float((before.requests["ok"] == 0).sum())


def test_what_the_exporter_adds_is_learned_from_and_judged_by_and_refused_where_a_policy_decides(
    tmp_path: Path,
) -> None:
    plan = builders.plan(phases={"morning": 8.0, "evening": 8.0})
    run = builders.random_run(count=20_000, planned=plan)
    write_bundle(assemble([run], own=find_features([f"{__name__}:Failures"])), tmp_path / "own")
    material = read_material(tmp_path / "own")
    trained = train.train(material, "cloning", replace(QUICK, steps=200), lambda text: None)
    policy = train.write(trained, material, tmp_path / "policy")
    assert (policy.schema.features[-1].name, policy.schema.features[-1].source) == ("failures", "exporter")
    evidence = read([tmp_path / "own"], "validation")
    probabilities = target_probabilities(str(policy.path), evidence.raw, features=evidence.features)
    assert (probabilities.sum(axis=1) == 1).all()
    with pytest.raises(PolicyError, match="feature failures: the exporter made it after the run, and nothing makes it"):
        make_policy(f"onnx:{policy.path}")


@pytest.mark.parametrize("algorithm", ["cql", "awac", "cloning"])
@pytest.mark.parametrize("space", [FOUR, FIVE, PODS], ids=["strategies", "without the last", "instances"])
def test_a_policy_learns_what_exists_and_never_takes_anything_else(
    tmp_path: Path, space: ActionSpace, algorithm: str
) -> None:
    plan = builders.plan(phases={"morning": 8.0, "evening": 8.0})
    write_bundle(assemble([run_in(space, builders.random_run(count=20_000, planned=plan))]), tmp_path / "bundle")
    material = read_material(tmp_path / "bundle")
    there = np.flatnonzero(space.available(0))
    assert material.train.n_actions == len(there)
    assert set(np.unique(material.train.actions)) == set(range(len(there)))
    short = replace(Settings(), steps=60, members=1, checkpoints=1, hidden=(8,))
    trained = train.train(material, algorithm, short, lambda _: None)
    policy = train.write(trained, material, tmp_path / "out")
    assert policy.schema.actions == space.labels
    raw = np.random.default_rng(3).normal(0, 50, (500, len(policy.features))).astype(np.float32)
    values = policy.values(raw)
    assert set(values.argmax(axis=1)) <= set(there.tolist())
    check_fit(policy, material.bundle.facts["windows_s"]["window"], plan.decision_interval_s, space)
    assert sum(trained.metrics["action_shares"].values()) == pytest.approx(1)


def test_data_of_one_switch_trains_a_policy_that_is_said_not_to_fit_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = builders.plan(phases={"morning": 8.0, "evening": 8.0})
    switch = strategies(["backpressure"], one_for_all=True)
    write_bundle(assemble([run_in(switch, builders.random_run(count=20_000, planned=plan))]), tmp_path / "bundle")
    (tmp_path / "few.yaml").write_text("{steps: 60, members: 1, checkpoints: 1, hidden: [8]}")
    few = ("--config", str(tmp_path / "few.yaml"), "--out", str(tmp_path / "policy"))
    assert main([str(tmp_path / "bundle"), *few]) == 0
    assert "it can neither be judged on this data nor decide there" in capsys.readouterr().out


def test_services_with_different_numbers_of_instances_are_not_trained_on(tmp_path: Path) -> None:
    names = {service: [f"{service}-{number}" for number in (1, 2, 3)] for service in SERVICES}
    space = instances({**names, "cart-service": names["cart-service"][:2]})
    write_bundle(assemble([run_in(space)]), tmp_path / "bundle")
    with pytest.raises(
        TrainingError, match=r"different numbers of instances .*cart-service 2, .* as many instances of"
    ):
        read_material(tmp_path / "bundle")

"""Policies to judge, by name and by file."""

import doctest
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from rl_hooks.action_space import instances
from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.observation import FEATURE_INDEX, features_of
from rl_hooks.observation import FEATURES as OBSERVATION
from tests import tiny_policy
from training import targets
from training.errors import TrainingError
from training.targets import NAMES, check_fit, target_probabilities

FEATURES = 3
PODS = instances({service: ["a", "b"] for service in SERVICES})
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime")),
    reason="onnx or onnxruntime is not installed; they are in the extra `train`",
)


def test_the_examples_hold() -> None:
    assert tuple(doctest.testmod(targets)) == (0, 1)


@pytest.mark.parametrize("name", NAMES)
def test_what_has_a_name_is_a_distribution(name: str) -> None:
    found = target_probabilities(name, np.zeros((4, FEATURES)))
    assert found.shape == (4, len(ACTIONS))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert name == "uniform" or found[0].argmax() == ACTIONS.index(name)


def test_what_is_neither_a_name_nor_a_file_is_refused() -> None:
    text = "least_busy: neither a policy file nor one of least_loaded, fastest_response, round_robin, "
    with pytest.raises(TrainingError, match=re.escape(text)):
        target_probabilities("least_busy", np.zeros((1, FEATURES)))


@pytest.mark.training
@needs_onnx
def test_a_policy_file_takes_its_best_action_also_where_something_is_unknown(tmp_path: Path) -> None:
    table = tiny_policy.weights({"cpu_max": {"round_robin": 1.0}, "queue_max": {"circuit_breaker": 1.0}})
    path = tiny_policy.save(tmp_path / "policy.onnx", table, {})
    raw = np.full((2, len(OBSERVATION)), np.nan)
    raw[0, FEATURE_INDEX["cpu_max"]], raw[1, FEATURE_INDEX["queue_max"]] = 0.9, 7.0
    found = target_probabilities(str(path), raw)
    wanted = [ACTIONS.index("round_robin"), ACTIONS.index("circuit_breaker")]
    np.testing.assert_array_equal(found, np.eye(len(ACTIONS))[wanted])


@pytest.mark.training
@needs_onnx
def test_a_file_that_is_no_policy_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"
    path.write_text("not a model")
    with pytest.raises(TrainingError, match=re.escape(f"{path}: not an ONNX model in one file")):
        target_probabilities(str(path), np.zeros((1, len(OBSERVATION))))


def test_names_are_those_of_the_datas_own_actions() -> None:
    with pytest.raises(TrainingError, match=r"least_loaded: neither a policy file nor one of instance_1, .*, uniform"):
        check_fit("least_loaded", 60.0, 2.0, PODS)


@pytest.mark.training
@needs_onnx
def test_a_policy_for_other_actions_is_told_so_and_not_only_that_features_differ(tmp_path: Path) -> None:
    path, features = tiny_policy.save(tmp_path / "policy.onnx"), features_of(PODS.labels)
    with pytest.raises(TrainingError, match=r"chooses among least_loaded, .*; here they are instance_1, instance_2"):
        check_fit(str(path), 60.0, 2.0, PODS, features)


@pytest.mark.training
@needs_onnx
def test_a_policy_for_other_windows_is_refused(tmp_path: Path) -> None:
    path = tiny_policy.save(tmp_path / "policy.onnx")
    check_fit(str(path), 60.0, 2.0)
    with pytest.raises(TrainingError, match="decision interval: the policy was trained with 2 s of real time, here"):
        check_fit(str(path), 60.0, 0.2)


def test_what_has_a_name_fits_to_everything() -> None:
    check_fit("backpressure", 1.0, 0.1)

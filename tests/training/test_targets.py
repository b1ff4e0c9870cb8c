"""Policies to judge, by name and by file."""

import doctest
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from rl_hooks.decision import ACTIONS
from training import targets
from training.errors import TrainingError
from training.targets import NAMES, target_probabilities

FEATURES = 3
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


def write_policy(path: Path, weights: np.ndarray, output: str = "action_values") -> str:
    """action_values = observation, 0 where unknown, times weights."""
    from onnx import TensorProto, helper, numpy_helper, save_model

    nodes = [
        helper.make_node("IsNaN", ["observation"], ["unknown"]),
        helper.make_node("Where", ["unknown", "zero", "observation"], ["known"]),
        helper.make_node("MatMul", ["known", "weights"], [output]),
    ]
    given = helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["batch", len(weights)])
    told = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", weights.shape[1]])
    constants = [
        numpy_helper.from_array(weights.astype(np.float32), "weights"),
        numpy_helper.from_array(np.zeros((), np.float32), "zero"),
    ]
    graph = helper.make_graph(nodes, "policy", [given], [told], constants)
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), str(path))
    return str(path)


@pytest.mark.training
@needs_onnx
def test_a_policy_file_takes_its_best_action_also_where_something_is_unknown(tmp_path: Path) -> None:
    weights = np.zeros((FEATURES, len(ACTIONS)))
    weights[0, 2], weights[1, 4] = 1.0, 1.0
    policy = write_policy(tmp_path / "policy.onnx", weights)
    found = target_probabilities(policy, np.array([[1.0, 0.0, np.nan], [np.nan, 1.0, 0.0]]))
    np.testing.assert_array_equal(found, np.eye(len(ACTIONS))[[2, 4]])


@pytest.mark.training
@needs_onnx
@pytest.mark.parametrize(
    ("columns", "actions", "output", "reason"),
    [
        (FEATURES + 1, 6, "action_values", "not a policy for this data, it has to map observation (batch, 3)"),
        (FEATURES, 6, "q", "not a policy for this data, it has to map observation (batch, 3)"),
        (FEATURES, 5, "action_values", "action_values is (1, 5) or not finite"),
    ],
)
def test_a_policy_for_other_data_is_refused(
    tmp_path: Path, columns: int, actions: int, output: str, reason: str
) -> None:
    policy = write_policy(tmp_path / "policy.onnx", np.zeros((columns, actions)), output)
    with pytest.raises(TrainingError, match=re.escape(reason)):
        target_probabilities(policy, np.zeros((1, FEATURES)))


@pytest.mark.training
@needs_onnx
def test_a_file_that_is_no_policy_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"
    path.write_text("not a model")
    with pytest.raises(TrainingError, match="not a policy for this data"):
        target_probabilities(str(path), np.zeros((1, FEATURES)))

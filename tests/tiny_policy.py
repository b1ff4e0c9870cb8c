"""Trained policies of a few numbers, as ONNX files made by hand: no training library is needed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.export.rewards import REWARDS
from rl_hooks.observation import FEATURE_INDEX, FEATURES
from rl_hooks.policy_schema import METADATA_KEY, Normalization, PolicyFeature, PolicySchema

CAN_MISS = [feature.name for feature in FEATURES if feature.missing_when != "never"]


def schema(**special: Any) -> PolicySchema:
    """Of a policy for decisions every 2 s and a window of 60 s."""
    usual = PolicySchema(
        name="tiny",
        algorithm="by-hand",
        actions=ACTIONS,
        features=tuple(PolicyFeature.of(feature) for feature in FEATURES),
        window_s=60.0,
        decision_interval_s=2.0,
        normalization=Normalization(
            columns=(*(f"obs.{feature.name}" for feature in FEATURES), *(f"known.{name}" for name in CAN_MISS)),
            mean=tuple(0.5 for _ in FEATURES),
            std=tuple(2.0 for _ in FEATURES),
            low=tuple(-1e30 for _ in FEATURES),
            high=tuple(1e30 for _ in FEATURES),
            used=tuple(1.0 for _ in FEATURES),
        ),
        gamma=0.9,
        reward_weights=dict.fromkeys(REWARDS, 0.2),
        slo_ms=dict.fromkeys(SERVICES, 100.0),
        data={"data/transitions/train-00000-of-00001.parquet": "0" * 64},
        made_by={"name": "by hand", "version": "1"},
    )
    return replace(usual, **special)


def weights(rows: Mapping[str, Mapping[str, float]]) -> npt.NDArray[np.float32]:
    """(features, actions) from feature -> action -> weight; the rest is 0."""
    table = np.zeros((len(FEATURES), len(ACTIONS)), np.float32)
    for feature, row in rows.items():
        for action, weight in row.items():
            table[FEATURE_INDEX[feature], ACTIONS.index(action)] = weight
    return table


def encoded(raw: npt.NDArray[Any], policy: PolicySchema) -> npt.NDArray[np.float32]:
    """What the model makes of its input before the weights: normalized, 0 where not known."""
    scaled = (raw - np.array(policy.normalization.mean)) / np.array(policy.normalization.std)
    return np.where(np.isnan(raw), 0.0, scaled).astype(np.float32)


def save(
    path: Path,
    table: npt.NDArray[np.float32] | None = None,
    bias: Mapping[str, float] | None = None,
    policy: PolicySchema | None = None,
    **changes: Any,
) -> Path:
    """A model with action values = normalized observation @ table + bias; by default it prefers `backpressure`.

    `changes`: `metadata` (None: no property), `names` (input and outputs), `best` (the operator that chooses).
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    policy = policy or schema()
    preferred = {"backpressure": 1.0} if bias is None else bias
    constants = {
        "zero": np.zeros(1, np.float32),
        "mean": np.array(policy.normalization.mean, np.float32),
        "std": np.array(policy.normalization.std, np.float32),
        "table": weights({}) if table is None else table,
        "bias": np.array([preferred.get(action, 0.0) for action in ACTIONS], np.float32),
    }
    observation, values, action = changes.get("names", ("observation", "action_values", "action"))
    graph = helper.make_graph(
        [
            helper.make_node("IsNaN", [observation], ["missing"]),
            helper.make_node("Sub", [observation, "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "std"], ["scaled"]),
            helper.make_node("Where", ["missing", "zero", "scaled"], ["known"]),
            helper.make_node("MatMul", ["known", "table"], ["weighted"]),
            helper.make_node("Add", ["weighted", "bias"], [values]),
            helper.make_node(changes.get("best", "ArgMax"), [values], [action], axis=1, keepdims=0),
        ],
        "tiny",
        [helper.make_tensor_value_info(observation, TensorProto.FLOAT, ["batch", len(constants["table"])])],
        [
            helper.make_tensor_value_info(values, TensorProto.FLOAT, ["batch", len(ACTIONS)]),
            helper.make_tensor_value_info(action, TensorProto.INT64, ["batch"]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    metadata = changes.get("metadata", policy.to_metadata())
    if metadata is not None:
        helper.set_model_props(model, {METADATA_KEY: metadata})
    if changes.get("external"):
        onnx.save_model(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    else:
        path.write_bytes(model.SerializeToString())
    return path

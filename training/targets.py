"""The policy to judge, as probabilities: (n, features) of raw observations -> (n, actions)."""

from pathlib import Path

import numpy as np

from rl_hooks.decision import ACTION_INDEX, ACTIONS
from training.errors import TrainingError
from training.estimators import Array, Floats

UNIFORM = "uniform"
NAMES = (*ACTIONS, UNIFORM)


def target_probabilities(policy: str, raw_observations: Array) -> Floats:
    """What `policy` does at each observation: an action's name, `uniform`, or the path of an ONNX policy.

    `raw_observations` are in physical units, NaN where unknown. An ONNX policy is greedy: probability 1 for the action
    of the highest value. Raises TrainingError with what would be right.

    >>> target_probabilities("backpressure", np.zeros((1, 43))).tolist()
    [[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]
    """
    count = len(raw_observations)
    if policy == UNIFORM:
        return np.full((count, len(ACTIONS)), 1 / len(ACTIONS))
    chosen = np.full(count, ACTION_INDEX[policy]) if policy in ACTION_INDEX else _greedy(policy, raw_observations)
    probabilities: Floats = np.eye(len(ACTIONS))[chosen]
    return probabilities


def _greedy(policy: str, raw_observations: Array) -> Array:
    path = Path(policy)
    if not path.is_file():
        raise TrainingError(f"{policy}: neither a policy file nor one of {', '.join(NAMES)}")
    try:
        import onnxruntime
        from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidProtobuf
    except ImportError as error:
        raise TrainingError(f"{policy}: reading it needs onnxruntime ({error}); install the extra `train`") from error
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (values,) = session.run(["action_values"], {"observation": raw_observations.astype(np.float32)})
    except (Fail, InvalidArgument, InvalidProtobuf, ValueError) as error:
        width = raw_observations.shape[1]
        want = f"it has to map observation (batch, {width}) to action_values (batch, {len(ACTIONS)})"
        raise TrainingError(f"{policy}: not a policy for this data, {want} ({error})") from error
    if values.shape != (len(raw_observations), len(ACTIONS)) or not np.isfinite(values).all():
        raise TrainingError(
            f"{policy}: action_values is {values.shape} or not finite; it has to be a number per action"
        )
    chosen: Array = values.argmax(axis=1)
    return chosen

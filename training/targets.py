"""The policy to judge, as probabilities: (n, features) of raw observations -> (n, actions)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rl_hooks.decision import ACTION_INDEX, ACTIONS
from rl_hooks.observation import FEATURES
from rl_hooks.policies import named
from rl_hooks.policies.builtin import PolicyError
from rl_hooks.policies.onnx import OnnxPolicy
from rl_hooks.policy_schema import Meaning
from training.errors import TrainingError
from training.estimators import Array, Floats

UNIFORM = "uniform"
NAMES = (*ACTIONS, UNIFORM)


def target_probabilities(policy: str, raw_observations: Array, features: Sequence[Meaning] = FEATURES) -> Floats:
    """What `policy` does at each observation: an action's name, `uniform`, or the path of an ONNX policy.

    `raw_observations` are in physical units, NaN where unknown; `features` says what their columns mean. An ONNX policy
    is greedy: probability 1 for the action of the highest value. Raises TrainingError with what would be right.

    >>> target_probabilities("backpressure", np.zeros((1, 43))).tolist()
    [[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]
    """
    count = len(raw_observations)
    if policy == UNIFORM:
        return np.full((count, len(ACTIONS)), 1 / len(ACTIONS))
    chosen = (
        np.full(count, ACTION_INDEX[policy]) if policy in ACTION_INDEX else _greedy(policy, raw_observations, features)
    )
    probabilities: Floats = np.eye(len(ACTIONS))[chosen]
    return probabilities


def check_fit(policy: str, window_s: float, decision_interval_s: float, features: Sequence[Meaning] = FEATURES) -> None:
    """Raises TrainingError when a policy file was made for observations with other windows, in real seconds."""
    if policy not in NAMES:
        try:
            named.check_fit(_read(policy, features), window_s, decision_interval_s, features)
        except PolicyError as error:
            raise TrainingError(str(error)) from error


def _greedy(policy: str, raw_observations: Array, features: Sequence[Meaning]) -> Array:
    try:
        chosen: Array = _read(policy, features).values(raw_observations).argmax(axis=1)
    except PolicyError as error:
        raise TrainingError(str(error)) from error
    return chosen


def _read(policy: str, features: Sequence[Meaning]) -> OnnxPolicy:
    """Raises PolicyError for a file that is no policy."""
    if not Path(policy).is_file():
        raise TrainingError(f"{policy}: neither a policy file nor one of {', '.join(NAMES)}")
    return OnnxPolicy(policy, features)

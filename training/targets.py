"""The policy to judge, as probabilities: (n, features) of raw observations -> (n, actions)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rl_hooks.action_space import ALL_STRATEGIES, ActionSpace
from rl_hooks.decision import ACTIONS
from rl_hooks.policies import named
from rl_hooks.policies.builtin import PolicyError
from rl_hooks.policies.onnx import OnnxPolicy
from rl_hooks.policy_schema import Meaning
from training.errors import TrainingError
from training.estimators import Array, Floats

UNIFORM = "uniform"
NAMES = (*ACTIONS, UNIFORM)


def names_in(space: ActionSpace) -> tuple[str, ...]:
    """Fixed strategies that every service can follow, and uniform."""
    everywhere = [all(mine[number] for mine in space.mask()) for number in range(space.size)]
    return (*(label for label, there in zip(space.labels, everywhere, strict=True) if there), UNIFORM)


def target_probabilities(
    policy: str,
    raw_observations: Array,
    space: ActionSpace = ALL_STRATEGIES,
    service: Array | None = None,
    features: Sequence[Meaning] | None = None,
) -> Floats:
    """What `policy` does at each observation: an action's label, `uniform`, or the path of an ONNX policy.

    It chooses among what exists for the `service` (n,) of each observation; None: the same for all.

    `raw_observations` are in physical units, NaN where unknown; `features` says what their columns mean. An ONNX policy
    is greedy: probability 1 for the action of the highest value. Raises TrainingError with what would be right.

    >>> target_probabilities("backpressure", np.zeros((1, 43))).tolist()
    [[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]
    """
    count = len(raw_observations)
    there = np.array(space.mask())[np.zeros(count, np.int64) if service is None else service]
    if policy == UNIFORM:
        uniform: Floats = there / there.sum(axis=1, keepdims=True)
        return uniform
    if policy in names_in(space):
        chosen = np.full(count, space.labels.index(policy))
    elif policy in space.labels:
        raise TrainingError(f"{policy}: does not exist in this data; there are {', '.join(names_in(space))}")
    else:
        chosen = _greedy(policy, raw_observations, space, there, features)
    probabilities: Floats = np.eye(space.size)[chosen]
    return probabilities


def check_fit(
    policy: str,
    window_s: float,
    decision_interval_s: float,
    space: ActionSpace = ALL_STRATEGIES,
    features: Sequence[Meaning] | None = None,
) -> None:
    """Raises TrainingError when a policy file was made for other actions or windows, in real seconds."""
    if policy not in (*space.labels, UNIFORM):
        try:
            named.check_fit(_read(policy, space, features), window_s, decision_interval_s, space, features)
        except PolicyError as error:
            raise TrainingError(str(error)) from error


def _greedy(
    policy: str, raw_observations: Array, space: ActionSpace, there: Array, features: Sequence[Meaning] | None
) -> Array:
    try:
        values = _read(policy, space, features).values(raw_observations)
        chosen: Array = np.where(there, values, -np.inf).argmax(axis=1)
    except PolicyError as error:
        raise TrainingError(str(error)) from error
    return chosen


def _read(policy: str, space: ActionSpace, features: Sequence[Meaning] | None) -> OnnxPolicy:
    """Raises PolicyError for a file that is no policy, or one of other actions."""
    if not Path(policy).is_file():
        raise TrainingError(f"{policy}: neither a policy file nor one of {', '.join(names_in(space))}")
    return OnnxPolicy(policy, features, space.labels)

"""Logs of systems whose values are known."""

from dataclasses import replace

import numpy as np

from training.estimators import Array, Floats, Log

ACTIONS = 6
EFFECT = np.array([0.0, 0.02, 0.04, 0.06, 0.08, 0.1])  # of an action on its own reward, in `clustered`
GOOD = np.array([0.9, *[0.3] * 5])  # P(the next state is good | action), in `chain`
BONUS = np.array([0.0, 0.1, *[0.0] * 4])  # of an action on its own reward, in `chain`


def always(action: int, count: int) -> Floats:
    """The probabilities of a fixed strategy."""
    return np.eye(ACTIONS)[np.full(count, action)]


def clustered(rng: np.random.Generator, clusters: int = 30, spread: float = 0.05) -> Log:
    """Clusters of 20 to 60 steps with a level of their own; action a earns 0.5 + EFFECT[a] on average."""
    cluster = np.repeat(np.arange(clusters), rng.integers(20, 61, clusters))
    count = len(cluster)
    action = rng.integers(0, ACTIONS, count)
    reward = 0.5 + EFFECT[action] + rng.normal(0, spread, clusters)[cluster] + rng.normal(0, 0.05, count)
    return Log(action, np.full((count, ACTIONS), 1 / ACTIONS), reward, np.ones(count, bool), cluster, cluster)


def chain(rng: np.random.Generator, sequences: int = 60, steps: int = 120) -> tuple[Log, Array, Array]:
    """Two states, uniform logging: reward 0.2 + 0.5 (good state) + BONUS[a], and the next state hangs on a alone.

    So an action has effects for exactly one step more: action 0 is worth less at once than action 1, and more later.
    Returned with observations and next observations, one column: -1 bad, 1 good.
    """
    action = rng.integers(0, ACTIONS, (sequences, steps))
    after = rng.random((sequences, steps)) < GOOD[action]
    first = rng.random((sequences, 1)) < GOOD.mean()
    state = np.hstack((first, after[:, :-1]))
    reward = 0.2 + 0.5 * state + BONUS[action] + rng.normal(0, 0.05, (sequences, steps))
    sequence = np.repeat(np.arange(sequences), steps)
    count = sequences * steps
    log = Log(
        action.ravel(), np.full((count, ACTIONS), 1 / ACTIONS), reward.ravel(), np.ones(count, bool), sequence, sequence
    )
    here, there = (2.0 * values.reshape(-1, 1) - 1 for values in (state, after))
    return log, here, there


def one_step_value(action: int) -> float:
    """Of the chain: the state is as the log leaves it."""
    return float(0.2 + 0.5 * GOOD.mean() + BONUS[action])


def long_run_value(action: int) -> float:
    """Of the chain: the state is as the action leaves it."""
    return float(0.2 + 0.5 * GOOD[action] + BONUS[action])


def with_rewards(log: Log, reward: Floats) -> Log:
    return replace(log, reward=reward)

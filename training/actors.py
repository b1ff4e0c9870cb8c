"""Learners of our own whose network says how much it prefers each action: advantage-weighted actor-critic, cloning.

d3rlpy's AWAC is for continuous actions only. Preferences are logits: a softmax of them is the policy.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, smooth_l1_loss

from training.network import Average, make_network
from training.settings import Settings
from training.transitions import Transitions

Learned = Iterator[tuple[int, nn.Module, dict[str, float]]]

LOOK_EVERY = 50
"""Updates between looks at the weights for their average."""


def clone(data: Transitions, settings: Settings, seed: int) -> Learned:
    """Behaviour cloning: the actor that gives the logged actions the highest likelihood. A floor, no more."""
    actor, batches = _begin(data, settings, seed)
    optimizer = torch.optim.Adam(actor.parameters(), settings.learning_rate)

    def update(rows: torch.Tensor) -> float:
        loss = cross_entropy(actor(batches.observations[rows]), batches.actions[rows])
        _descend(optimizer, loss)
        return float(loss.detach())

    return _learn(actor, data, settings, seed, update)


def awac(data: Transitions, settings: Settings, seed: int) -> Learned:
    """Advantage-weighted actor-critic (Nair et al. 2020) for discrete actions.

    critic  Q(s, a) -> r + gamma sum_b pi(b|s') Q'(s', b)
    actor   max E[ exp(A(s, a) / temperature) log pi(a|s) ],  A(s, a) = Q(s, a) - sum_b pi(b|s) Q(s, b)

    With so few actions both sums are exact, where the original samples.
    """
    actor, batches = _begin(data, settings, seed)
    columns = data.observations.shape[1]
    critic, target = (make_network(columns, settings.hidden, data.n_actions) for _ in range(2))
    target.load_state_dict(critic.state_dict())
    of_actor = torch.optim.Adam(actor.parameters(), settings.learning_rate)
    of_critic = torch.optim.Adam(critic.parameters(), settings.learning_rate)
    updates = 0

    def update(rows: torch.Tensor) -> float:
        nonlocal updates
        if updates % settings.target_every == 0:
            target.load_state_dict(critic.state_dict())
        updates += 1
        here, there = batches.observations[rows], batches.next_observations[rows]
        taken = batches.actions[rows][:, None]
        with torch.no_grad():
            ahead = (actor(there).softmax(1) * target(there)).sum(1)
            wanted = batches.rewards[rows] + settings.gamma * ahead
        values = critic(here)
        _descend(of_critic, smooth_l1_loss(values.gather(1, taken)[:, 0], wanted))
        preferences = actor(here).log_softmax(1)
        with torch.no_grad():
            values = critic(here)
            advantage = values.gather(1, taken)[:, 0] - (preferences.exp() * values).sum(1)
            weight = (advantage / settings.temperature).exp().clamp(max=settings.largest_weight)
        loss = -(weight * preferences.gather(1, taken)[:, 0]).mean()
        _descend(of_actor, loss)
        return float(loss.detach())

    return _learn(actor, data, settings, seed, update)


class _Batches:
    """Transitions as tensors."""

    def __init__(self, data: Transitions) -> None:
        self.observations = torch.from_numpy(data.observations)
        self.next_observations = torch.from_numpy(data.next_observations)
        self.actions = torch.from_numpy(data.actions)
        self.rewards = torch.from_numpy(data.rewards)


def _begin(data: Transitions, settings: Settings, seed: int) -> tuple[nn.Sequential, _Batches]:
    torch.manual_seed(seed)
    return make_network(data.observations.shape[1], settings.hidden, data.n_actions), _Batches(data)


def _descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _learn(
    actor: nn.Module,
    data: Transitions,
    settings: Settings,
    seed: int,
    update: Callable[[torch.Tensor], float],
) -> Learned:
    """(updates done, the actor so far, losses) at every look."""
    rng = np.random.default_rng(seed)
    average, losses = Average(), []
    for done in range(1, settings.steps + 1):
        losses.append(update(torch.from_numpy(rng.integers(0, len(data), settings.batch))))
        if done > settings.average_from * settings.steps and (done % LOOK_EVERY == 0 or done == settings.steps):
            average.add(list(actor.parameters()))
            yield done, average.network(data.observations.shape[1], settings.hidden), {"loss": float(np.mean(losses))}
            losses.clear()

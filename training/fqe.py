"""Fitted Q evaluation: the long-run value of a policy, by a model of what each action leads to. Needs torch.

    Q(x, a) <- (1 - gamma) r + gamma sum_a' pi(a'|x') Q(x', a')        fitted to the logged transitions, again and again

(Le, Voloshin & Yue 2019.) The value is the mean of V(x) = sum_a pi(a|x) Q(x, a) over the logged states, in units of the
reward: what the policy earns, discounted, when it takes over in a state of the log. With gamma 0.9 that looks ten steps
ahead, far beyond the carry-over of a balancer; it is not the value in the states that the policy itself would lead to.

A step whose reward was filled is a step without reward, not one with the fill. Two values are therefore fitted, of the
rewards and of how often one is measured, and the answer is their ratio: the mean reward per measured step.

The interval comes from a bootstrap: each member of the ensemble has its own resample of time blocks, its own first
weights and its own batches (Hao, Ji, Duan, Lu, Szepesvari & Wang 2021). It contains the chance in the data and in the
fit. It does NOT contain the bias of the model: what the network cannot express, or the observation does not hold, is
wrong in all members alike.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch.nn.functional import layer_norm, relu

from rl_hooks.report.stats import effective_size
from training.estimators import (
    FAR,
    LONG_RUN,
    Array,
    Estimate,
    Floats,
    Ints,
    Limits,
    Log,
    distrust,
    importance,
    student_t,
    unsupported,
)

NAME = "fitted Q"


@dataclass(frozen=True)
class Settings:
    """Of the fit. The defaults were checked against values that are known, see docs/off-policy.md."""

    gamma: float = 0.9
    members: int = 10  # of the bootstrap; the interval has one degree of freedom less
    updates: int = 800
    batch: int = 256  # transitions per member and update
    hidden: int = 32  # units in each of two layers; an action's effect is small against noise, wide networks learn both
    rate: float = 1e-3  # of AdamW, falling to 0 in a straight line
    decay: float = 0.1  # of the weights, AdamW's
    follow: float = 0.05  # share by which the weights that give the targets follow in every update (Polyak averaging);
    # updates * follow is about how often the equation above is applied: gamma^40 = 0.015 is left of the start
    seed: int = 1


@dataclass(frozen=True)
class Fitted:
    """What the members of the ensemble say; two policies fitted with the same settings are paired member by member."""

    members: Floats  # (members,) mean reward per measured step
    effective_size: (
        float  # of the one-step weights: where the log hardly has the policy's actions, a model extrapolates
    )
    unsupported: float  # share of the policy's choices that the log never makes
    beyond: bool = False  # a member is outside of the logged rewards: the fit has run away

    @property
    def value(self) -> float:
        return float(self.members.mean())

    def minus(self, other: "Fitted") -> "Fitted":
        """The difference of two policies, member by member."""
        return Fitted(
            self.members - other.members,
            min(self.effective_size, other.effective_size),
            max(self.unsupported, other.unsupported),
            self.beyond or other.beyond,
        )

    def estimate(self, log: Log, limits: Limits, carry_over: int | None) -> Estimate:
        """With its interval. `carry_over` is no matter: the model follows effects through the observation."""
        half = student_t(len(self.members) - 1) * float(self.members.std(ddof=1))
        clusters = len(np.unique(log.cluster[log.measured]))
        reasons = distrust(self.effective_size, clusters, self.unsupported, limits)
        if self.beyond:
            reasons.append("the fit left the range of the logged rewards")
        interval = (self.value - half, self.value + half)
        return Estimate(NAME, self.value, *interval, self.effective_size, LONG_RUN, tuple(reasons))


def fitted_q(
    observations: Array,
    next_observations: Array,
    log: Log,
    target: Floats,
    next_target: Floats,
    settings: Settings,
) -> Fitted:
    """The long-run value of a policy.

    `observations` and `next_observations` are encoded (n, columns); `target` and `next_target` are the policy's
    probabilities at them, (n, actions). One core is used: for networks of this size more are slower.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        members = _fit(_Data(observations, next_observations, log, target, next_target), settings)
    finally:
        torch.set_num_threads(threads)
    measured, rewards = log.measured, log.reward[log.measured]
    return Fitted(
        members,
        effective_size(importance(log, target)[measured]),
        unsupported(target[measured], log.logged[measured]),
        not bool(((members >= rewards.min()) & (members <= rewards.max())).all()),
    )


# -- the fit ---------------------------------------------------------------------------------------------------------


class _Data:
    """The transitions as tensors. Rewards are centred and scaled, so that an unfitted network says the logged mean."""

    def __init__(
        self, observations: Array, next_observations: Array, log: Log, target: Floats, next_target: Floats
    ) -> None:
        rewards = log.reward[log.measured]
        self.centre, self.scale = float(rewards.mean()), float(rewards.std()) or 1.0
        outcome = np.where(log.measured, (log.reward - self.centre) / self.scale, 0.0)
        self.here, self.after = (_tensor(np.clip(x, -FAR, FAR)) for x in (observations, next_observations))
        self.outcome = _tensor(np.stack((outcome, log.measured), axis=1))  # (n, 2)
        self.action = torch.from_numpy(log.action)
        self.target, self.next_target = _tensor(target), _tensor(next_target)
        self.rows = _rows_of_clusters(log.cluster)
        self.actions = target.shape[1]


def _fit(data: _Data, settings: Settings) -> Floats:
    draw = np.random.default_rng(settings.seed)
    resamples = [
        np.concatenate([data.rows[number] for number in draw.integers(len(data.rows), size=len(data.rows))])
        for _ in range(settings.members)
    ]
    weights = _first_weights(data.here.shape[1], 2 * data.actions, settings)
    slow = [weight.detach().clone() for weight in weights]
    adam = torch.optim.AdamW(weights, settings.rate, weight_decay=settings.decay)
    falling = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, settings.updates)
    for _ in range(settings.updates):
        rows = torch.from_numpy(np.stack([rows[draw.integers(len(rows), size=settings.batch)] for rows in resamples]))
        with torch.no_grad():
            after = _values(_network(slow, data.after[rows]), data.next_target[rows])
            wanted = (1 - settings.gamma) * data.outcome[rows] + settings.gamma * after
        said = _network(weights, data.here[rows])
        chosen = data.action[rows][..., None, None].expand(*rows.shape, 2, 1)
        loss = ((said.gather(-1, chosen)[..., 0] - wanted) ** 2).mean(dim=(1, 2)).sum()  # members do not meet
        adam.zero_grad()
        loss.backward()
        adam.step()
        falling.step()
        with torch.no_grad():
            for old, new in zip(slow, weights, strict=True):
                old.lerp_(new, settings.follow)
    return _over_states(data, slow, resamples)


def _over_states(data: _Data, weights: list[torch.Tensor], resamples: list[Ints]) -> Floats:
    """(members,) mean over the states of each member's resample, back in units of the reward."""
    found = []
    with torch.no_grad():
        for member, rows in enumerate(resamples):
            mine = [weight[member : member + 1] for weight in weights]
            values = _values(_network(mine, data.here[None, :]), data.target[None, :])[0]
            reward, measured = values[torch.from_numpy(rows)].mean(dim=0).double().tolist()
            found.append(data.centre + data.scale * reward / measured if measured > 0 else math.nan)
    return np.array(found)


def _values(said: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(members, batch, 2) of (members, batch, 2, actions): mean over the policy's actions."""
    return (said * target[:, :, None, :]).sum(dim=-1)


def _network(weights: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """(members, batch, 2, actions): two layers of each member's own weights, all members at once."""
    first, first_bias, second, second_bias, last, last_bias = weights
    hidden = relu(layer_norm(torch.baddbmm(first_bias, x.expand(len(first), -1, -1), first), first_bias.shape[-1:]))
    hidden = relu(layer_norm(torch.baddbmm(second_bias, hidden, second), second_bias.shape[-1:]))
    said = torch.baddbmm(last_bias, hidden, last)
    return said.reshape(*said.shape[:2], 2, -1)


def _first_weights(columns: int, outputs: int, settings: Settings) -> list[torch.Tensor]:
    """Uniform within 1 / sqrt(inputs), as torch.nn.Linear has it; the last layer begins at 0."""
    generator = torch.Generator().manual_seed(settings.seed)
    sizes = (columns, settings.hidden, settings.hidden, outputs)
    weights = [
        (torch.rand((settings.members, rows, width), generator=generator) * 2 - 1) * inputs**-0.5
        for inputs, width in pairwise(sizes)
        for rows in (inputs, 1)
    ]
    for weight in weights[-2:]:
        weight.zero_()
    return [weight.requires_grad_() for weight in weights]


def _rows_of_clusters(cluster: Ints) -> list[Ints]:
    order = np.argsort(cluster, kind="stable")
    borders = np.flatnonzero(np.diff(cluster[order])) + 1
    return [rows.astype(np.int64) for rows in np.split(order, borders)]


def _tensor(values: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))

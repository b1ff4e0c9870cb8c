"""Conservative Q-learning for discrete actions (Kumar et al. 2020), by d3rlpy."""

import logging
from collections.abc import Iterator

import d3rlpy
import structlog
from d3rlpy.algos import DiscreteCQLConfig
from d3rlpy.logging import NoopAdapterFactory
from d3rlpy.models import VectorEncoderFactory
from torch import nn

from rl_hooks.export.formats.d3rlpy_buffer import padded, replay_buffer
from training.network import Average
from training.settings import Settings
from training.transitions import Transitions

LOOK_EVERY = 50
"""Updates between looks at the weights for their average."""


def learn(data: Transitions, settings: Settings, seed: int) -> Iterator[tuple[int, nn.Module, dict[str, float]]]:
    """(updates done, the network so far, losses) at every look."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING)
    )  # it logs every step taken
    d3rlpy.seed(seed)
    buffer = replay_buffer([padded(*sequence, terminated=False) for sequence in data.sequences()], data.n_actions)
    learner = DiscreteCQLConfig(
        learning_rate=settings.learning_rate,
        batch_size=settings.batch,
        gamma=settings.gamma,
        alpha=settings.alpha,
        target_update_interval=settings.target_every,
        encoder_factory=VectorEncoderFactory(hidden_units=list(settings.hidden), use_layer_norm=True),
    ).create(device="cpu")
    look = min(LOOK_EVERY, settings.steps)
    average, columns = Average(), data.observations.shape[1]
    epochs = learner.fitter(  # d3rlpy trains whole epochs only: a rest of the steps would silently be left out
        buffer,
        n_steps=-(-settings.steps // look) * look,
        n_steps_per_epoch=look,
        show_progress=False,
        logger_adapter=NoopAdapterFactory(),
    )
    for epoch, losses in epochs:
        assert learner.impl is not None
        weights = list(learner.impl.modules.q_funcs[0].parameters())
        if epoch * look > settings.average_from * settings.steps:
            average.add(weights)
            yield epoch * look, average.network(columns, settings.hidden), losses

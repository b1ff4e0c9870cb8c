"""The networks, and the model file they become.

One network: linear, ReLU, layer norm for every hidden layer, then linear. It is what d3rlpy builds, so that weights
can be taken over from it. A policy is several of them, whose outputs are averaged.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from rl_hooks.policies.onnx import ACTION, INPUT, NOT_THERE, VALUES
from rl_hooks.policy_schema import METADATA_KEY, PolicySchema
from training.inputs import Inputs

Floats = npt.NDArray[np.float32]

OPSET = 17


def make_network(columns: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Of the present seed of torch."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(columns, width), nn.ReLU(), nn.LayerNorm(width)]
        columns = width
    return nn.Sequential(*layers, nn.Linear(columns, outputs))


class Average:
    """The mean of a network's weights over the updates it was shown."""

    def __init__(self) -> None:
        self._count = 0
        self._mean: list[torch.Tensor] = []

    def add(self, weights: Sequence[torch.Tensor]) -> None:
        """Weights in the order of `nn.Module.parameters`."""
        self._count += 1
        if self._count == 1:
            self._mean = [one.detach().clone() for one in weights]
        for mean, now in zip(self._mean, weights, strict=True):
            mean += (now.detach() - mean) / self._count

    def network(self, columns: int, hidden: Sequence[int]) -> nn.Sequential:
        """A network with the mean weights."""
        made = make_network(columns, hidden, len(self._mean[-1]))
        for parameter, mean in zip(made.parameters(), self._mean, strict=True):
            parameter.data.copy_(mean)
        return made.eval()


class Model(nn.Module):
    """Raw observations in, action values and the best action out.

    values = scale * mean over the members + shift

    The members know the actions `there` (numbers below `actions`); the values of all others are NOT_THERE.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        inputs: Inputs,
        scale: float,
        shift: float,
        there: Sequence[int],
        actions: int,
    ) -> None:
        super().__init__()
        # Where each action's value is among those of the members; behind them is NOT_THERE.
        place = [list(there).index(number) if number in there else len(there) for number in range(actions)]
        self._all_there = len(there) == actions
        self.register_buffer("place", torch.tensor(place))
        self.members = nn.ModuleList(members)
        self._scale, self._shift = scale, shift
        encoding = inputs.encoding
        for name, values in (
            ("mean", encoding.mean),
            ("std", encoding.std),
            ("low", inputs.low),
            ("high", inputs.high),
            ("used", inputs.used_columns),
        ):
            self.register_buffer(name, torch.tensor(np.asarray(values, np.float32)))
        self.register_buffer("can_miss", torch.tensor(np.flatnonzero(encoding.can_miss)))

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        missing = torch.isnan(observation)
        inside = torch.minimum(torch.maximum(observation, self.low), self.high)  # type: ignore[arg-type]
        scaled = torch.where(missing, torch.zeros_like(inside), (inside - self.mean) / self.std)  # type: ignore[operator]
        known = 1.0 - missing[:, self.can_miss].float()  # type: ignore[index]
        encoded = torch.cat([scaled, known], 1) * self.used  # type: ignore[operator]
        values = torch.stack([member(encoded) for member in self.members]).mean(0) * self._scale + self._shift
        if not self._all_there:
            missing = torch.full_like(values[:, :1], NOT_THERE)
            values = torch.cat([values, missing], 1).index_select(1, self.place)  # type: ignore[arg-type]
        return values, values.argmax(1)


def values_of(members: Sequence[nn.Module], encoded: Floats) -> Floats:
    """(n, columns) -> (n, actions), the mean over the members."""
    with torch.no_grad():
        x = torch.from_numpy(encoded)
        values: Floats = torch.stack([member(x) for member in members]).mean(0).numpy()
    return values


def save(path: Path, model: Model, schema: PolicySchema) -> None:
    """Write the model with its schema; `rl_hooks.policies.onnx` reads it. Raises OSError."""
    probe = torch.zeros((2, len(schema.features)))
    axes = {INPUT: {0: "batch"}, VALUES: {0: "batch"}, ACTION: {0: "batch"}}
    with warnings.catch_warnings():
        # The exporter that torch calls legacy: the new one fixes the batch size and needs a package more.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (probe,),
            str(path),
            input_names=[INPUT],
            output_names=[VALUES, ACTION],
            opset_version=OPSET,
            dynamo=False,
            dynamic_axes=axes,
        )
    made = onnx.load(str(path))
    onnx.helper.set_model_props(made, {METADATA_KEY: schema.to_metadata()})
    onnx.checker.check_model(made)
    onnx.save(made, str(path))

"""What a network is given of an observation: encoded, within what train has seen, without what the policy makes itself.

Two things differ between a log and what comes of it when the trained policy decides, and both broke policies that were
trained without regard to them (docs/proof.md):

- A value may leave the range of train. A network extrapolates there without a sign of doubt, so values are set to the
  ends of the range that holds all of train but `BEYOND` on either side.
- `previous_action_*` is noise in an exploring log, and of the policy's own making afterwards: an action is then held
  for minutes where the log held it for six intervals. Those features are left out.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.export.formats.encoding import Encoding

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

BEYOND = 0.001
"""Share of train on either side of the range. Rarer values teach nothing by themselves."""

OWN_MAKING = "previous_action_"


@dataclass(frozen=True)
class Inputs:
    """How a raw observation becomes the vector that a network takes. `columns` as in the bundle's formats."""

    encoding: Encoding
    low: npt.NDArray[np.float64]  # (features,) in physical units
    high: npt.NDArray[np.float64]  # (features,)
    used: npt.NDArray[np.bool_]  # (features,) the others are 0 for the network, and so is their known.<name>

    @staticmethod
    def fit(encoding: Encoding, raw: Array) -> "Inputs":
        """The range of `raw`, (n, features) of train with NaN for what is not known. A feature that was never known has
        its mean alone as a range."""
        known = ~np.isnan(raw).all(axis=0)
        low, high = encoding.mean.copy(), encoding.mean.copy()
        low[known], high[known] = np.nanquantile(raw[:, known], [BEYOND, 1 - BEYOND], axis=0)
        used = np.array([not name.startswith(OWN_MAKING) for name in encoding.features])
        return Inputs(encoding, low, high, used)

    @property
    def used_columns(self) -> npt.NDArray[np.bool_]:
        """(columns,)"""
        return np.concatenate([self.used, self.used[self.encoding.can_miss]])

    def encode(self, raw: Array) -> Floats:
        """(n, features) in physical units with NaN -> (n, columns)

        >>> cpu = Encoding(("cpu",), np.array([0.5]), np.array([0.25]), np.array([True]))
        >>> some = Inputs(cpu, np.array([0.25]), np.array([0.75]), np.array([True]))
        >>> some.encode(np.array([[0.3], [9.0], [np.nan]])).round(1).tolist()
        [[-0.8, 1.0], [1.0, 1.0], [0.0, 0.0]]
        """
        encoded: Floats = self.encoding.encode(np.clip(raw, self.low, self.high)) * self.used_columns
        return encoded.astype(np.float32)

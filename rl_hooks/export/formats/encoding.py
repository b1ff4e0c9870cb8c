"""Observations as trainers take them: normalized, without NaN, with what was known beside it.

    raw (n, features), NaN: not known   -->   [(raw - mean) / std, 0 where not known | known.<name>: 1 or 0]

The 0 is the mean of train and never alone: every feature that can be missing has a column that says whether it was
known. Mean and std are those of normalization.json, fitted on train only. The bundle itself stays in physical units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.export.normalization import CONSTANT_BELOW_STD

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

NEVER_MISSING = "never"


@dataclass(frozen=True)
class Encoding:
    """How a raw observation becomes a vector of `len(columns)` numbers, and back."""

    features: tuple[str, ...]
    mean: npt.NDArray[np.float64]  # (features,)
    std: npt.NDArray[np.float64]  # (features,) 1 where the feature is constant in train
    can_miss: npt.NDArray[np.bool_]  # (features,) the features with a column known.<name>

    @property
    def columns(self) -> tuple[str, ...]:
        known = (f"known.{name}" for name, misses in zip(self.features, self.can_miss, strict=True) if misses)
        return (*(f"obs.{name}" for name in self.features), *known)

    def encode(self, raw: Array) -> Floats:
        """(n, features) in physical units with NaN -> (n, columns) without NaN.

        >>> one = Encoding(("cpu",), np.array([0.5]), np.array([0.25]), np.array([True]))
        >>> one.encode(np.array([[1.0], [np.nan]])).tolist()
        [[2.0, 1.0], [0.0, 0.0]]
        """
        missing = np.isnan(raw)
        scaled = (raw.astype(np.float64) - self.mean) / self.std
        known = ~missing[:, self.can_miss]
        return np.hstack([np.where(missing, 0.0, scaled), known]).astype(np.float32)

    def decode(self, encoded: Array) -> Floats:
        """Back to physical units, NaN where the value was not known."""
        count = len(self.features)
        raw = encoded[:, :count].astype(np.float64) * self.std + self.mean
        known = np.ones(raw.shape, bool)
        known[:, self.can_miss] = encoded[:, count:] == 1
        return np.where(known, raw, np.nan).astype(np.float32)

    def facts(self) -> dict[str, Any]:
        """What a reader has to know, as JSON."""
        return {
            "columns": list(self.columns),
            "normalized": "obs.<name> is (value - mean) / std; both are of train only",
            "missing": "0 in obs.<name>, which is the mean of train, and 0 in known.<name>, which is 1 otherwise",
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
        }


def encoding_of(features: Sequence[Mapping[str, Any]], statistics: Mapping[str, Mapping[str, Any]]) -> Encoding:
    """The encoding for the features of dataset.json with the statistics of normalization.json.

    A feature that train never knew has neither mean nor std: it is left as it is, like one that is constant there.
    """
    found = [statistics[feature["name"]] for feature in features]
    std = np.array([entry["std"] or 0.0 for entry in found])
    return Encoding(
        features=tuple(str(feature["name"]) for feature in features),
        mean=np.array([entry["mean"] or 0.0 for entry in found]),
        std=np.where(std < CONSTANT_BELOW_STD, 1.0, std),
        can_miss=np.array([feature["missing_when"] != NEVER_MISSING for feature in features]),
    )

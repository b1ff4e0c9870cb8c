"""A bundle as the other formats read it: its Parquet transitions, which are the truth, and its side-cars."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rl_hooks.export.errors import ExportError
from rl_hooks.export.formats.encoding import Encoding, encoding_of
from rl_hooks.export.split import TRAIN, VALIDATION

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """The n transitions of train or of validation, in order of run, service and time; episodes follow each other."""

    name: str
    frame: pd.DataFrame
    encoding: Encoding

    def __len__(self) -> int:
        return len(self.frame)

    @cached_property
    def observations(self) -> Floats:
        """(n, columns of the encoding)"""
        return self._encoded("obs")

    @cached_property
    def next_observations(self) -> Floats:
        """(n, columns of the encoding)"""
        return self._encoded("next")

    @property
    def actions(self) -> npt.NDArray[np.int64]:
        return self.column("action", np.int64)

    @property
    def rewards(self) -> Floats:
        return self.column("reward", np.float32)

    @property
    def propensity(self) -> Floats:
        return self.column("propensity", np.float32)

    @cached_property
    def has_propensity(self) -> bool:
        """Whether any step states the probability of its action."""
        return bool(np.isfinite(self.propensity).any())

    @cached_property
    def has_distribution(self) -> bool:
        """Whether every step states the probability of all actions; a balancer states that of the one it took."""
        return bool(np.isfinite(self.action_probs).all())

    @property
    def action_probs(self) -> Floats:
        """(n, actions)"""
        return np.stack(self.frame["action_probs"].to_list()).astype(np.float32)

    @property
    def components(self) -> dict[str, Floats]:
        """reward_<name> -> (n,), NaN where the component is missing."""
        names = [
            name for name in self.frame if name.startswith("reward_") and name not in ("reward_01", "reward_filled")
        ]
        return {name: self.column(name, np.float32) for name in names}

    @cached_property
    def episodes(self) -> tuple[slice, ...]:
        """Where the rows of each episode are."""
        episode = self.frame["episode_id"].to_numpy()
        begins = np.flatnonzero(np.append(True, episode[1:] != episode[:-1]))
        return tuple(slice(int(a), int(b)) for a, b in zip(begins, [*begins[1:], len(episode)], strict=True))

    def sequence(self, episode: slice) -> Floats:
        """The T + 1 observations of an episode of T steps: the last is the one after the last step."""
        return np.concatenate((self.observations[episode], self.next_observations[episode][-1:]))

    def column(self, name: str, dtype: Any) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = self.frame[name].to_numpy(dtype)
        return values

    def _encoded(self, prefix: str) -> Floats:
        columns = [f"{prefix}.{name}" for name in self.encoding.features]
        return self.encoding.encode(self.frame[columns].to_numpy(np.float32))


@dataclass(frozen=True)
class Bundle:
    """What the writers of formats get."""

    path: Path
    facts: Mapping[str, Any]  # dataset.json
    statistics: Mapping[str, Any]  # normalization.json
    encoding: Encoding
    parts: Mapping[str, Part]  # only those with rows; an empty one is written by no format

    @property
    def actions(self) -> tuple[str, ...]:
        return tuple(self.facts["actions"])

    @property
    def scenario(self) -> str:
        """Name of the scenario, or of all of them."""
        return "-".join(sorted({str(run["scenario"]) for run in self.facts["runs"]}))

    @property
    def logging_policies(self) -> list[str]:
        """Who decided, by name; of a balancer that decides by itself, as it states."""
        told = self.facts.get("propensities", {}).get("policies", [])
        runs = {str(run["logging_policy"]) for run in self.facts["runs"]}
        return sorted(told) if runs == {"observed"} and told else sorted(runs)

    def table(self, name: str) -> pa.Table:
        """A table of the bundle beside the transitions: requests or samples."""
        path = self.path / "data" / name / f"{name}.parquet"
        if not path.is_file():
            raise ExportError(f"{path}: there is none; export the run folder again")
        return pq.read_table(path)


def transitions_path(part: str) -> str:
    """Where the transitions of a part are in a bundle."""
    return f"data/transitions/{part}-00000-of-00001.parquet"


def read_bundle(path: Path) -> Bundle:
    """Raises ExportError when `path` is not a bundle."""
    for name in ("dataset.json", "normalization.json", *map(transitions_path, (TRAIN, VALIDATION))):
        if not (path / name).is_file():
            raise ExportError(f"{path}: not a bundle, it has no {name}; make one with python -m rl_hooks.export RUN")
    facts, statistics = (_json(path / name) for name in ("dataset.json", "normalization.json"))
    encoding = encoding_of(facts["observation"]["features"], statistics["features"])
    frames = {name: pq.read_table(path / transitions_path(name)).to_pandas() for name in (TRAIN, VALIDATION)}
    parts = {name: Part(name, frame, encoding) for name, frame in frames.items() if len(frame)}
    return Bundle(path, facts, statistics, encoding, parts)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError(f"{path}: not valid JSON ({error}); export the run folder again") from error

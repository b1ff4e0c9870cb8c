"""What the formats of a bundle have to hold, and a run in which the last action was never taken."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rl_hooks.decision import ACTIONS
from rl_hooks.run_reader import Run
from tests import builders

NEVER_TAKEN = len(ACTIONS) - 1


@dataclass(frozen=True)
class Truth:
    """The Parquet transitions of one part, with observations normalized here by hand."""

    frame: pd.DataFrame
    observations: Any  # (n, d) float32
    next_observations: Any
    columns: list[str]

    def __len__(self) -> int:
        return len(self.frame)

    def column(self, name: str) -> Any:
        return self.frame[name].to_numpy()

    @property
    def episodes(self) -> list["Truth"]:
        places = [np.flatnonzero(self.frame["episode_id"] == name) for name in self.frame["episode_id"].unique()]
        return [
            Truth(self.frame.iloc[rows], self.observations[rows], self.next_observations[rows], self.columns)
            for rows in places
        ]


def truth_of(bundle: Path, part: str) -> Truth:
    frame = pd.read_parquet(bundle / f"data/transitions/{part}-00000-of-00001.parquet")
    statistics = json.loads((bundle / "normalization.json").read_text())["features"]
    features = json.loads((bundle / "dataset.json").read_text())["observation"]["features"]
    vectors = []
    for prefix in ("obs", "next"):
        columns = {}
        for feature in features:
            found, raw = statistics[feature["name"]], frame[f"{prefix}.{feature['name']}"].astype(float)
            scale = 1.0 if found["constant"] else found["std"]
            columns[f"obs.{feature['name']}"] = ((raw - (found["mean"] or 0.0)) / scale).fillna(0.0)
        for feature in features:
            if feature["missing_when"] != "never":
                known = frame[f"{prefix}.{feature['name']}"].notna()
                columns[f"known.{feature['name']}"] = known.astype(float)
        vectors.append(pd.DataFrame(columns).to_numpy(np.float32))
    return Truth(frame, *vectors, list(columns))


def run_without_an_action(seed: int = 7, count: int = 3000, **special: Any) -> Run:
    """Random facts; where the last action was drawn or applied, it is the first instead."""
    run = builders.random_run(seed=seed, count=count, **special)
    for table, name in (("decisions", "action"), ("requests", "action_requested"), ("requests", "action_applied")):
        column = getattr(run, table)[name]
        column[column == NEVER_TAKEN] = 0
    return run

"""Holds the observations that decisions were made with against those replayed from the rows alone."""

from pathlib import Path

import numpy as np

from rl_hooks.export.replay import replay
from rl_hooks.run_reader import read_run
from scenario.plan import Plan


def check_replay(folder: Path) -> None:
    """Every decision of the run has a recorded observation, and the replay gives the same bits."""
    run = read_run(folder, correct_clocks=False)
    recorded, ticks = run.observations, 0
    for again in replay(run, Plan.from_json(run.manifest["plan"])):
        mine = recorded[recorded["tick"] == again.tick]
        values = np.column_stack([mine[f"value_{index}"] for index in range(again.values.shape[1])])
        np.testing.assert_array_equal(values, again.values, f"tick {again.tick}")
        ticks += 1
    assert ticks == len(np.unique(run.decisions["tick"])) > 20

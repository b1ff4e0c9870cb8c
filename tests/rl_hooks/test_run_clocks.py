"""Rows of several processes by one clock: what the reader makes of readings and steps."""

import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl_hooks import run_clocks
from rl_hooks.export.facts import clocks
from rl_hooks.export.replay import replay
from rl_hooks.run_clocks import process_clock
from rl_hooks.run_folder import RunWriter, create_run_folder
from rl_hooks.run_reader import Run, read_run
from tests import builders
from tests.rl_hooks.test_live import Sender

SECOND = 1_000_000_000


def readings(*facts: tuple[int, float, float]) -> list[dict[str, Any]]:
    return [{"t_ns": t, "kind": "clock", "offset_s": offset, "uncertainty_s": known} for t, offset, known in facts]


def worker_with(folder: Path, *facts: tuple[float, float]) -> Run:
    """A worker that sent at its seconds 1 to 5 and compared its clock: (offset, uncertainty) in seconds."""
    create_run_folder(folder, {"run_id": "run"})
    worker = Sender(folder, "worker")
    for second in range(1, 6):
        worker.end(worker.send(0, second * SECOND), second * SECOND + 1000)
    worker.send(0, 7 * SECOND)
    for offset_s, uncertainty_s in facts:
        worker.writer.event("clock", offset_s=offset_s, uncertainty_s=uncertainty_s)
    return read_run(folder)


def test_the_examples_hold() -> None:
    assert doctest.testmod(run_clocks).failed == 0
    assert doctest.testmod(run_clocks).attempted > 0


def test_rows_of_another_clock_are_moved_everywhere(tmp_path: Path) -> None:
    run = worker_with(tmp_path / "run", (0.2, 0.001))
    late = [round((second + 0.2) * SECOND) for second in range(1, 6)]
    assert run.requests["start_ns"].tolist() == late
    assert [int(t) for batch in read_run(run.path).batches() for t in batch["start_ns"]] == late
    assert run.in_flight["start_ns"].tolist() == [round(7.2 * SECOND)]
    recorded = read_run(run.path, correct_clocks=False)
    assert recorded.requests["start_ns"].tolist() == [second * SECOND for second in range(1, 6)]
    assert run.events[0]["t_ns"] - recorded.events[0]["t_ns"] == SECOND // 5


def test_batches_come_in_order_of_the_common_clock(tmp_path: Path) -> None:
    """The worker's rows lie before the master's by its own clock, and behind them by the master's."""
    run = worker_with(tmp_path / "run", (100.0, 0.001))
    near = Sender(run.path, "local")
    near.end(near.send(0, 50 * SECOND), 50 * SECOND + 1000)
    first, second = read_run(run.path).batches()
    assert first["start_ns"].tolist() == [50 * SECOND]
    assert second["start_ns"].min() == first.complete_ns == 101 * SECOND


def test_clocks_that_cannot_be_told_apart_are_left_alone(tmp_path: Path) -> None:
    run = worker_with(tmp_path / "run", (0.0004, 0.0005), (-0.0003, 0.0005))
    assert run.requests["start_ns"].tolist() == [second * SECOND for second in range(1, 6)]
    assert run.in_flight["start_ns"].tolist() == [7 * SECOND]
    (known,) = clocks(run)
    assert (known["corrected"], known["offset_s"], known["uncertainty_s"]) == (False, -0.0003, 0.0005)


def test_a_clock_that_drifts_is_followed() -> None:
    clock = process_clock(readings((0, 0.0, 0.001), (100 * SECOND, 0.1, 0.001)))
    times = np.array([-5, 0, 50, 100, 200]) * SECOND
    assert ((clock.corrected(times) - times) / SECOND).tolist() == [0.0, 0.0, 0.05, 0.1, 0.1]
    assert (np.diff(clock.corrected(np.arange(0, 100 * SECOND, SECOND))) > 0).all()


def test_a_bad_reading_gives_way_to_a_good_one() -> None:
    """As the first one of a worker that joins while the master is busy."""
    clock = process_clock(readings((0, 0.050, 0.060), (10 * SECOND, 0.0005, 0.0004), (20 * SECOND, 0.003, 0.005)))
    assert clock.offset_ns.tolist() == [500_000] * 3
    assert clock.uncertainty_ns.tolist() == [900_000, 400_000, 900_000]


def test_a_clock_that_was_set_is_marked(tmp_path: Path) -> None:
    create_run_folder(tmp_path / "run", {"run_id": "run"})
    writer = RunWriter(tmp_path / "run", "worker", 4)
    writer.event("clock_step", process=writer.incarnation, step_s=90.0)
    (known,) = clocks(read_run(tmp_path / "run"))
    assert (known["process"], known["steps_s"], known["corrected"]) == (writer.incarnation, [90.0], False)


def test_an_event_that_does_not_say_what_it_has_to_is_damage(tmp_path: Path) -> None:
    create_run_folder(tmp_path / "run", {"run_id": "run"})
    writer = RunWriter(tmp_path / "run", "worker", 4)
    writer.event("clock", offset_s="none")
    (loss,) = read_run(tmp_path / "run").losses
    assert loss.text.endswith("1 of 1 lines are damaged")


def test_a_replay_refuses_times_that_were_corrected(tmp_path: Path) -> None:
    run = worker_with(tmp_path / "run", (0.2, 0.001))
    with pytest.raises(ValueError, match="a replay needs those that were recorded"):
        next(replay(run, builders.plan()))

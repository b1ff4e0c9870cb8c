"""How the load generator keeps up: a busy loop is seen, an idle one too."""

import doctest
import time
from pathlib import Path

import gevent

from rl_hooks.record import generator
from rl_hooks.run_folder import RunWriter, create_run_folder
from rl_hooks.run_reader import read_run


def test_the_worked_example() -> None:
    assert tuple(doctest.testmod(generator)) == (0, 2)


def test_without_a_look_there_is_no_lag() -> None:
    assert generator.Load(0.0, 0.0).summary(1.0, 0.25) == {"cpu": 0.25, "lag_p99_s": 0.0}


def test_a_loop_that_was_held_up_is_seen(tmp_path: Path) -> None:
    create_run_folder(tmp_path / "run", {"run_id": "run", "scenario": "x"})
    writer = RunWriter(tmp_path / "run", "local", board_places=1)
    faults: list[str] = []
    watching = gevent.spawn(generator.watch, writer, faults.append)

    def events() -> list[dict[str, float]]:
        return [dict(event) for event in read_run(tmp_path / "run").events if event["kind"] == "generator"]

    deadline = time.monotonic() + 60
    while not events() and time.monotonic() < deadline:
        gevent.sleep(0.01)
        until = time.monotonic() + 0.2
        while time.monotonic() < until:  # it computes and lets nobody else run
            pass
    watching.kill()
    writer.close()
    (first,) = events()[:1]
    assert first["lag_p99_s"] > 0.1
    assert 0 < first["cpu"] <= 1
    assert first["process"] == writer.incarnation
    assert faults == []

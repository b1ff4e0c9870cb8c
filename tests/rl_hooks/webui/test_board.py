"""What the page's board does when it cannot follow a run."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rl_hooks.action_space import ALL_STRATEGIES
from rl_hooks.webui.board import Board
from tests import builders


def a_run(folder: Path) -> Any:
    recording = SimpleNamespace(
        window=None,
        loop=None,
        clock=SimpleNamespace(now_ns=lambda: 0),
        recorder=SimpleNamespace(rows_lost=0),
        writer=SimpleNamespace(incarnation="local"),
        counts={"requests": 0},
    )
    facts = {**builders.manifest(builders.plan()), "faults": {"injector": "none"}}
    setup = SimpleNamespace(folder=folder, plan=builders.plan(), facts=facts, space=ALL_STRATEGIES)
    about = {"fault": None, "trouble": None, "over": False, "begun": True, "rows_of_workers": {}}
    return SimpleNamespace(setup=setup, recording=recording, **about)


def test_a_run_that_cannot_be_followed_is_told_on_the_page_and_in_the_log_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = a_run(tmp_path)
    lead = SimpleNamespace(
        run=run, environment=SimpleNamespace(stats=SimpleNamespace(total=SimpleNamespace(num_failures=0)))
    )
    board = Board(cast(Any, lead), lambda: 0.0)
    board.begun(run)
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            board.ticked(run, cast(Any, SimpleNamespace(run_time_s=1.0, planned={"quick_browser": "many"}, running={})))
    made = board._make()
    assert made is not None
    why = "TypeError: unsupported operand type(s) for +: 'int' and 'str'"
    assert made["trouble"] == f"this page cannot follow the run any more ({why}); it is recorded on"
    assert len(caplog.records) == 1

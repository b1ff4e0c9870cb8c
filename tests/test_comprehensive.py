"""The whole day of comprehensive_rl_training with all its users, twenty times as fast, and whether it met its plan.

Nine minutes of real time, so it is started once and everything is read from its one run folder.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rl_hooks.export.verify.__main__ import verify
from rl_hooks.export.verify.line import Line, Verdict
from rl_hooks.run_reader import Run, read_run

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[1]
SCENARIO = "comprehensive_rl_training"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("comprehensive")
    command = [sys.executable, str(ROOT / "rl_training_executor.py"), "--mode", "custom", "--scenario", SCENARIO]
    command += ["--config", f"{SCENARIO}_config.yaml", "--time-scale", "20"]
    command += ["--runs", str(folder / "runs"), "--logs", str(folder / "logs")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1100)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = (folder / "runs").iterdir()
    return read_run(made)


@pytest.fixture(scope="module")
def lines(run: Run) -> list[Line]:
    return verify(run)


def of(lines: list[Line], *whats: str) -> list[Line]:
    return [line for line in lines if line.what in whats]


def test_the_run_met_its_plan(lines: list[Line]) -> None:
    assert [line for line in lines if line.verdict is Verdict.MISSED] == []


def test_users_and_mix_were_exact_in_every_phase(lines: list[Line]) -> None:
    """Six phases with four profiles each, none left out for being too short."""
    users = of(lines, "users")
    assert len(users) == 24
    assert all(line.verdict is Verdict.MET and line.actual.endswith(", 0 differ") for line in users)
    assert [(line.planned, line.verdict) for line in of(lines, "profile mix")] == [
        (line.actual, Verdict.MET) for line in of(lines, "profile mix")
    ]
    assert len(of(lines, "profile mix")) == 6


def test_conversion_and_abandonment_of_every_profile_are_inside_their_intervals(lines: list[Line]) -> None:
    shares = of(lines, "conversion", "abandonment")
    assert len(shares) == 8
    assert {line.verdict for line in shares} == {Verdict.MET}


def test_five_hundred_users_came(run: Run) -> None:
    assert len(np.unique(run.sessions["account"])) == 500


def test_every_service_profile_phase_action_and_pair_is_there(lines: list[Line]) -> None:
    there = of(lines, "services", "profiles", "phases", "actions", "service x action", "phase x action")
    assert [(line.planned, line.verdict) for line in there] == [
        (count, Verdict.MET) for count in ("5", "4", "6", "6", "30", "36")
    ]


def test_no_row_was_lost_and_there_are_ten_thousand_decisions(run: Run) -> None:
    assert run.losses == ()
    assert len(run.decisions) > 10_000

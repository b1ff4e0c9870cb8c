"""Live and virtual time agree on every fixed strategy, and the comparison sees a service time that is off by 20 %.

Live: a sandbox and a Locust for each strategy, in real time; see `tests.sandbox.virtual.agreement`.
"""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.run_reader import read_run
from tests.processes import sandbox_started
from tests.sandbox.virtual import agreement
from tests.sandbox.virtual.agreement import Numbers

ROOT = Path(__file__).parents[3]
AT_ONCE = 3  # live runs side by side; each uses a fifth of a core
NETWORK_S = 0.0017
WORLD = ("--healthy", "--utilization", str(agreement.UTILIZATION), "--seed", str(agreement.WORLD_SEED))

NO_DIFFERENCE: dict[str, list[str]] = {action: [] for action in ACTIONS}

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Numbers]]:
    folder = tmp_path_factory.mktemp("reference")
    return {action: agreement.reference(folder, action) for action in ACTIONS}


def pooled(references: dict[str, list[Numbers]]) -> list[Numbers]:
    """One per run of the reference."""
    runs = range(len(agreement.NETWORKS))
    return [agreement.pooled({action: references[action][run] for action in ACTIONS}) for run in runs]


def locust(url: str, action: str, folder: Path) -> subprocess.Popen[bytes]:
    options = ["--scenario-file", str(agreement.SCENARIO_FILE), "--seed", str(agreement.PLAN_SEED), "--host", url]
    options += ["--logging-policy", f"tests.sandbox.virtual.fixed:{action}", "--run-folder", str(folder), "--no-export"]
    command = [sys.executable, "-m", "locust", "-f", "locustfile.py", "--headless", *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def live_runs(folder: Path, actions: tuple[str, ...]) -> dict[str, Numbers]:
    """The numbers of live runs side by side, each against a sandbox of its own."""
    with ExitStack() as stack:
        running = []
        for action in actions:
            sandbox = stack.enter_context(sandbox_started(*WORLD))
            process = locust(sandbox.host, action, folder / action)
            stack.callback(process.kill)
            running.append(process)
        assert [process.wait(300) for process in running] == [0] * len(actions)
    return {action: agreement.numbers(read_run(folder / action)) for action in actions}


def test_live_runs_agree_with_virtual_time(references: dict[str, list[Numbers]], tmp_path: Path) -> None:
    live: dict[str, Numbers] = {}
    for begin in range(0, len(ACTIONS), AT_ONCE):
        live |= live_runs(tmp_path, ACTIONS[begin : begin + AT_ONCE])
    found = {action: agreement.differences(live[action], references[action]) for action in ACTIONS}
    assert found == NO_DIFFERENCE
    assert agreement.differences(agreement.pooled(live), pooled(references)) == []


@pytest.mark.parametrize("factor", [0.8, 1.2])
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_time_that_is_off_by_a_fifth_is_seen(
    references: dict[str, list[Numbers]], tmp_path: Path, service: str, factor: float
) -> None:
    wrong = agreement.Slower(True, agreement.UTILIZATION, agreement.WORLD_SEED, NETWORK_S, service, factor)
    runs = {action: agreement.virtual_numbers(tmp_path / action, action, wrong) for action in ACTIONS}
    found = agreement.differences(agreement.pooled(runs), pooled(references))
    assert any(text.startswith(f"{service} mean_ms") for text in found)


def test_a_right_world_is_not_called_wrong(references: dict[str, list[Numbers]], tmp_path: Path) -> None:
    right = agreement.Conditions(True, agreement.UTILIZATION, agreement.WORLD_SEED, NETWORK_S)
    runs = {action: agreement.virtual_numbers(tmp_path / action, action, right) for action in ACTIONS}
    found = {action: agreement.differences(runs[action], references[action]) for action in ACTIONS}
    assert found == NO_DIFFERENCE

"""A whole run behind Envoy: executor, shoppers, recorder, export."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rl_hooks.run_folder import read_manifest
from rl_hooks.run_reader import read_run

pytest.importorskip("envoy", reason="needs the extra `envoy`")
pytestmark = pytest.mark.balancers

ROOT = Path(__file__).parents[3]


def test_a_run_behind_envoy_loses_no_row_and_every_action_was_applied(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "rl_training_executor.py"), "--mode", "validation", "--balancer", "envoy"]
    command += ["--healthy", "--time-scale", "300", "--runs", str(tmp_path / "runs"), "--logs", str(tmp_path / "logs")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    requests = read_run(run).requests
    assert requests["ok"].all() and (requests["action_applied"] == requests["action_requested"]).all()
    details = read_manifest(run)["balancer_details"]
    assert (details["kind"], details["version"]) == ("envoy", "1.40.0")
    facts = json.loads((run / "bundle" / "dataset.json").read_text())
    assert facts["complete"] and facts["counts"]["rows_lost"] == facts["counts"]["action_differs"] == 0
    assert facts["runs"][0]["balancer"] == "sandbox" and facts["runs"][0]["balancer_details"] == details


def test_balancer_and_host_contradict_each_other(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "rl_training_executor.py"), "--mode", "validation", "--balancer", "envoy"]
    command += ["--host", "http://127.0.0.1:1/proxy", "--runs", str(tmp_path), "--logs", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode != 0
    assert "--balancer is for the sandbox, and --host names another target; leave one of them out" in done.stderr

"""The sandbox behind a balancer of another make, without the real one: what its start needs of nobody else."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ASKED_TO_END_WHILE_IT_STARTS = """
import os, sys
from sandbox import __main__ as sandbox

class Balancer:
    def describe(self):
        return {}
    def lines(self):
        return []
    def ended(self):
        return None
    def stop(self):
        print("the balancer was stopped")

def start(setup):
    os.kill(os.getpid(), int(sys.argv[1]))
    return Balancer()

sandbox.starter = lambda kind: start
sys.exit(sandbox.main(["--balancer", "haproxy", "--port", "0"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_asks_for_an_end_while_the_balancer_starts_gets_it(number: signal.Signals, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASKED_TO_END_WHILE_IT_STARTS, str(int(number))],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "the balancer was stopped" in done.stdout and "sandbox ready" not in done.stdout
    assert list(tmp_path.iterdir()) == []

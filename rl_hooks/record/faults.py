"""A run's fault agent: started with it, told when its clock begins, and closed with it."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from rl_hooks.faults.agent import Orders
from rl_hooks.record.options import Setup
from rl_hooks.target import root_of

CLOSE_S = 15.0
"""Real seconds that the agent has for lifting what acts: its tries, and what one call may take."""


class FaultAgent:
    """The agent of one run. `import_path` is where the suite is found.

    It hears of the end of the run by the end of its input, so also when this process is killed.
    """

    def __init__(self, setup: Setup, import_path: Path) -> None:
        path = os.pathsep.join([str(import_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._env = {**os.environ, "PYTHONPATH": path}
        self._folder = setup.folder.resolve()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rl_hooks.faults", "agent"],
            stdin=subprocess.PIPE,
            env=self._env,
            start_new_session=True,  # Ctrl-C in the terminal is not for it
        )
        self._begun = False
        orders = Orders(self._folder, setup.injector, root_of(setup.host), setup.plan.faults)
        self._write(orders.to_line())

    def begin(self, run_time_s: float) -> None:
        """The run's clock is at `run_time_s` now. Called again and again; only the first time counts."""
        if not self._begun:
            self._begun = True
            start_unix_ns = time.time_ns() - round(run_time_s * 1e9)
            self._write(json.dumps({"start_unix_ns": start_unix_ns}).encode() + b"\n")

    def died(self) -> bool:
        """Whether it is gone before it was told to go."""
        return self._process.poll() is not None

    def close(self) -> str | None:
        """Let it lift what acts and end; what went wrong, None when nothing did."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            code = self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return f"the fault agent did not end within {CLOSE_S:g} s"
        if code < 0:
            return f"the fault agent was ended by signal {-code}{self._lifted_instead()}"
        return "some faults could not be applied or lifted, see above" if code else None

    def _lifted_instead(self) -> str:
        """Take back what the killed agent cannot, from what it wrote."""
        command = [sys.executable, "-m", "rl_hooks.faults", "lift", str(self._folder)]
        done = subprocess.run(command, env=self._env, check=False, timeout=CLOSE_S)
        return "; what it had applied was lifted" if done.returncode == 0 else "; what it had applied may still act"

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # then it has ended, which `died` tells
            self._process.stdin.write(line)
            self._process.stdin.flush()

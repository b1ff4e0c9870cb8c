"""Processes of our own that end with us: in order when a person presses Ctrl-C, and not at all left behind otherwise.

A child is in a session of its own, so Ctrl-C reaches only the parent, which decides when the child can end in order.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

Process = subprocess.Popen[str]

POLL_S = 0.1
SANDBOX_READY_S, SANDBOX_STOP_S = 30.0, 15.0
PR_SET_PDEATHSIG = 1  # of Linux's prctl

logger = logging.getLogger("rl_training_executor")


class ChildError(Exception):
    """A child did not do its part; the message says what to do."""


class Stop:
    """Counts Ctrl-C and SIGTERM from now on; whoever waits for something looks here. Nothing is raised anywhere."""

    def __init__(self) -> None:
        self.times = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._count)

    def _count(self, *_: object) -> None:
        self.times += 1


@contextmanager
def child(command: list[str], import_path: Path, **options: Any) -> Iterator[Process]:
    """A process that Ctrl-C does not reach and that can import from `import_path`; waits for its end."""
    path = os.pathsep.join([str(import_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, start_new_session=True, **options) as process:
        yield process
    if process.returncode < 0:  # one that was killed could not end its own children
        kill(process)


def wait(process: Process, stop: Stop, before: int = 0) -> Iterator[int]:
    """Until the process has ended: how often a stop was asked for, beyond `before`, every tenth of a second."""
    while True:
        try:
            process.wait(POLL_S)
            return
        except subprocess.TimeoutExpired:
            yield stop.times - before


def kill(process: Process) -> None:
    """End a child and its own children, now."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def interrupted_with_parent() -> Callable[[], object] | None:
    """A `preexec_fn`: the kernel sends the child a SIGINT when the parent is gone, however it went. Linux only."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGINT)


@contextmanager
def target_for(host: str | None, project: Path, options: list[str]) -> Iterator[tuple[str, Callable[[], bool]]]:
    """The host to run against and whether it is gone: `host`, or else a sandbox that lives as long as this context."""
    if host is not None:
        yield host, lambda: False
        return
    command = [sys.executable, "-m", "sandbox", "--port", "0", "--parent", str(os.getpid()), *options]
    with child(command, project, stdout=subprocess.PIPE, text=True) as sandbox:
        try:
            yield _ready_host(sandbox), lambda: sandbox.poll() is not None
        finally:
            sandbox.send_signal(signal.SIGINT)
            for line in _lines(sandbox, SANDBOX_STOP_S):
                logger.debug("%s", line)


def _ready_host(sandbox: Process) -> str:
    with closing(_lines(sandbox, SANDBOX_READY_S)) as lines:
        for line in lines:
            is_ready = line.startswith("sandbox ready: ")
            logger.log(logging.INFO if is_ready else logging.DEBUG, "%s", line)
            if is_ready:
                return line.split()[2]
    raise ChildError(f"the sandbox did not start (exit code {sandbox.wait()}); see what it printed above")


def _lines(process: Process, seconds: float) -> Generator[str, None, None]:
    """What it prints. A process that is still there after `seconds` is killed, so that nobody waits for ever."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        for line in process.stdout or ():
            yield line.rstrip()
    finally:
        timer.cancel()

"""The process of a balancer: it is ours, it is ended by its process id, and it does not outlive us."""

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from rl_hooks.children import interrupted_with_parent
from sandbox.outside.balancer import BalancerError

POLL_S = 0.02
LAST_WORDS = 5  # lines


class Child:
    """A program that runs, in a session of its own, so that Ctrl-C reaches only the sandbox, which then ends it."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Where the sandbox is killed, the kernel tells its balancer (Linux). This follows the thread that
                # starts it, which therefore lives as long as the sandbox (`sandbox.outside.server`).
                preexec_fn=interrupted_with_parent(),
            )

    def wait_until(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        """Ask `ready` again and again. Raises BalancerError when the process ends before, or it takes too long."""
        deadline_s = time.monotonic() + seconds
        while not ready():
            ended = self.ended()
            if ended is not None:
                raise BalancerError(ended)
            if time.monotonic() > deadline_s:
                raise BalancerError(f"not within {seconds:g} s: {what}\n{self.last_words()}")
            time.sleep(POLL_S)

    def ended(self) -> str | None:
        """None while it runs, else its exit code or signal, and its last words."""
        code = self._process.poll()
        if code is None:
            return None
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return f"{how}\n{self.last_words()}".rstrip()

    def last_words(self) -> str:
        """The end of what it printed."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-LAST_WORDS:])

    def stop(self, seconds: float = 4.0) -> None:
        """Ask it to end, and kill it when it does not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
            return
        self._process.kill()
        self._process.wait()

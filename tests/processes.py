"""Sandbox, Locust and export as real processes, ended with the tests that start them."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer

import requests

from rl_hooks.run_reader import read_run

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 120


@dataclass(frozen=True)
class Sandbox:
    """A running sandbox."""

    host: str
    process: "subprocess.Popen[str]"

    def stop(self) -> str:
        """Its closing tally."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=TIMEOUT_S)[0]

    def client_requests(self) -> int:
        """Requests it got from outside, not from one of its services."""
        return int(requests.get(self.host.replace("/proxy", "/state"), timeout=10).json()["client_requests_total"])


@contextmanager
def sandbox_started(*options: str, on: Sequence[str] = ()) -> Iterator[Sandbox]:
    """`on`: what goes before the command to run it on another host."""
    command = [*on, sys.executable, "-m", "sandbox", "--port", "0", "--parent", str(os.getpid()), *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("sandbox ready: "):
                break
        try:
            yield Sandbox(line.split()[2], process)
        finally:
            process.kill()


@dataclass(frozen=True)
class Locust:
    """A Locust process whose output goes to a file."""

    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(TIMEOUT_S)


@contextmanager
def locust_started(
    log: Path, *options: str, on: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Iterator[Locust]:
    """Locust on the quick scenario: thirty nominal minutes in ten seconds unless `options` say otherwise.

    `on`: what goes before the command to run it on another host; `env`: variables beside ours.
    """
    command = [*on, sys.executable, "-m", "locust", "-f", str(ROOT / "locustfile.py"), "--only-summary"]
    command += ["--scenario-file", "quick_validation_config.yaml", "--time-scale", "180", *options]
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield Locust(process, log)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # with the workers it forked
        process.wait(TIMEOUT_S)


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL of a server on loopback, until the end of the `with`, however that comes."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        with answering(server):
            yield f"http://127.0.0.1:{server.server_port}"


@contextmanager
def answering(server: BaseServer) -> Iterator[None]:
    """It serves in a thread, until the end of the `with`, however that comes."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=10).ok
    except requests.ConnectionError:
        return False


def rows_written(folder: Path) -> int:
    return len(read_run(folder).requests) if (folder / "manifest.json").exists() else 0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port

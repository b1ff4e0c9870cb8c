"""The balancer's access log: JSON lines in a file, two for every request from outside.

    {"event": "start", "start_ns": ..., "service": ..., "method": ..., "path": ..., "request_id": ...}
    {"event": "end", the same, "duration_us": ..., "status": ..., "action": ..., "instance": ..., "upstream_us": ...,
     "queue_us": ..., "backend_status": ...}

What the fields mean is told where such lines are read: `rl_hooks.sources.access_log`. Asking the balancer itself for
its health is no request to a service and has no line. Times are wall-clock; a client that went away has status 499.
"""

import os
import secrets
import sys
import time
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path

from rl_hooks.decision import NO_INSTANCE
from sandbox.balancer import CLIENT_GONE_CODE, Exchange
from sandbox.proxy import HEALTH_PATH, PREFIX, HttpReply, HttpRequest

FLUSH_EVERY_S = 0.05
NO_STATUS = 0  # of the service itself: it did not answer
LONGEST_PATH = 512  # characters; a line stays short whatever is asked for


class AccessLog:
    """Lines are gathered in memory and written by `flush`, which somebody calls every FLUSH_EVERY_S.

    OSError when the file cannot be opened. When it can no longer be written, that is said once and logging ends.
    """

    def __init__(self, path: Path, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.path = path
        self._now_ns = now_ns
        self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._lines: list[str] = []
        self._process = secrets.token_hex(8)
        self._requests = 0

    def begin(self, request: HttpRequest) -> tuple[int, str] | None:
        """A request came. What it returns goes to `end`; None: nothing is noted of this one."""
        service, slash, rest = request.path[len(PREFIX) :].partition("/")
        path = slash + rest
        if path == HEALTH_PATH or self._descriptor is None:
            return None
        self._requests += 1
        start_ns = self._now_ns()
        about = (
            f'"start_ns":{start_ns},"service":{quoted(service[:LONGEST_PATH])},"method":{quoted(request.method)},'
            f'"path":{quoted(path[:LONGEST_PATH])},"request_id":"{self._process}{self._requests:016x}"'
        )
        self._lines.append(f'{{"event":"start",{about}}}\n')
        return start_ns, about

    def end(self, begun: tuple[int, str], reply: HttpReply | None, exchange: Exchange | None) -> None:
        """It was answered; `reply` None: its client went away. `exchange` None: the balancer asked no service."""
        start_ns, about = begun
        duration_us = max(0, self._now_ns() - start_ns) // 1000
        status = CLIENT_GONE_CODE if reply is None else reply.status
        served = f'"instance":"{NO_INSTANCE}"'
        if exchange is not None:
            instance = NO_INSTANCE if exchange.backend is None else exchange.backend.name
            backend_status = exchange.code if exchange.served else NO_STATUS
            served = (
                f'"action":"{exchange.action}","instance":"{instance}","backend_status":{backend_status},'
                f'"upstream_us":{round(exchange.upstream_s * 1e6)},"queue_us":{round(exchange.queue_s * 1e6)}'
            )
        self._lines.append(f'{{"event":"end",{about},"duration_us":{duration_us},"status":{status},{served}}}\n')

    def flush(self) -> None:
        """Write what was gathered."""
        if not self._lines or self._descriptor is None:
            return
        content, self._lines = "".join(self._lines).encode(), []
        try:
            while content:
                content = content[os.write(self._descriptor, content) :]
        except OSError as error:
            print(f"sandbox: {self.path}: the access log ends here ({error.strerror})", file=sys.stderr, flush=True)
            self._close()

    def close(self) -> None:
        """Write the rest."""
        self.flush()
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

"""Small real HTTP servers that keep the contract, but for what a test twists."""

import itertools
import json
import socketserver
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rl_hooks.decision import ACTION_INDEX, SERVICES
from tests.processes import answering

INSTANCES = (1, 2)
METRICS = "".join(
    f'lb_pod_{name}{{service="cart-service",pod="cart-service-1",action="round_robin",code="200"}} 1\n'
    for name in ("requests_total", "active_requests", "response_time_seconds_count")
)


@dataclass
class Seen:
    """A request."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    number: int  # of all requests of the server

    @property
    def service(self) -> str:
        return self.path.split("/")[2] if self.path.startswith("/proxy/") else ""


@dataclass
class Reply:
    """An answer. `raw` None, else what is sent instead, byte by byte with `drip_s` between them."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b"{}"
    close: bool = False
    raw: bytes | None = None
    drip_s: float = 0.0

    def without(self, *names: str) -> "Reply":
        self.headers = [(name, value) for name, value in self.headers if name.lower() not in names]
        return self

    def put(self, name: str, value: str) -> "Reply":
        """One header instead of what was there."""
        self.without(name.lower()).headers.append((name, value))
        return self

    def get(self, name: str) -> str:
        return next(value for found, value in self.headers if found.lower() == name)


Twist = Callable[[Seen, Reply], Reply | None]
"""Changes a good answer, or makes another; None leaves it."""


def kept(seen: Seen) -> Reply:
    """What a balancer that keeps everything answers."""
    if not seen.service:
        return _page(seen.path)
    asked = seen.headers.get("x-rl-action", "")
    action = asked if asked in ACTION_INDEX else "round_robin"
    own = [("X-LB-Action", action), ("X-Trace-Id", seen.headers.get("x-trace-id", ""))]
    if seen.service not in SERVICES:
        return Reply(503, [*own, ("X-LB-Instance", "-")])
    if seen.method != "GET":
        return Reply(400 if seen.method == "POST" else 405, [*own, ("X-LB-Instance", "-")])
    if seen.path.endswith("/actuator/health"):
        return Reply(200, [*own, ("X-LB-Instance", "-")], b'{"status": "UP"}')
    names = [f"{seen.service}-{index}" for index in INSTANCES]
    pin = seen.headers.get("x-lb-pin")
    instance = pin if pin in names else names[seen.number % len(names)]
    more = {
        "X-LB-Instance": instance,
        "X-LB-Upstream-Us": "150",
        "X-LB-Queue-Ms": "0.010",
        "X-LB-Flags": "-",
        "X-LB-Attempts": "1",
        "X-LB-Inflight": "0",
        "X-LB-Propensity": "0.25",
        "X-LB-Policy": "own:1",
        "X-LB-Decision-Id": f"d{seen.number}",
        "X-Queue-Ms": "0.1",
        "X-Service-Ms": "0.1",
        "X-Queue-Depth": "0",
        "X-Inflight": "1",
        "endpoint-load-metrics": '{"cpu_utilization": 0.3}',
    }
    status = 401 if seen.service == "user-service" else 404 if "NO-SUCH" in seen.path else 200
    return Reply(status, [*own, *more.items()])


def _page(path: str) -> Reply:
    if path == "/metrics":
        return Reply(200, [], METRICS.encode())
    if path == "/api/services":
        return Reply(200, [], json.dumps([{"name": name, "instances": []} for name in SERVICES]).encode())
    return Reply(404, [], b"<html>not here</html>")


@contextmanager
def target(*twists: Twist) -> Iterator[str]:
    """A server with these twists; its URL as a run is given it."""
    numbers = itertools.count()

    class Handler(socketserver.StreamRequestHandler):
        disable_nagle_algorithm = True

        def handle(self) -> None:
            while (seen := self._read()) is not None:
                reply = kept(seen)
                for twist in twists:
                    reply = twist(seen, reply) or reply
                try:
                    if not self._write(reply):
                        return
                except OSError:  # whoever asked has gone
                    return

        def _read(self) -> Seen | None:
            try:
                first = self.rfile.readline().split()
                if len(first) != 3:
                    return None
                headers = {}
                while line := self.rfile.readline().strip():
                    name, _, value = line.decode("latin-1").partition(":")
                    headers[name.lower()] = value.strip()
                self.rfile.read(int(headers.get("content-length", 0)))
            except OSError:
                return None
            return Seen(first[0].decode(), first[1].decode(), headers, next(numbers))

        def _write(self, reply: Reply) -> bool:
            """Whether the connection goes on."""
            if reply.raw is not None:
                for byte in reply.raw if reply.drip_s else ():
                    self.wfile.write(bytes([byte]))
                    time.sleep(reply.drip_s)
                self.wfile.write(b"" if reply.drip_s else reply.raw)
                return False
            headers = [*reply.headers, ("Content-Length", str(len(reply.body)))]
            headers += [("Connection", "close")] if reply.close else []
            head = "".join(f"{name}: {value}\r\n" for name, value in headers)
            self.wfile.write(f"HTTP/1.1 {reply.status} Said\r\n{head}\r\n".encode("latin-1") + reply.body)
            return not reply.close

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: object) -> None:
            """Nothing: clients that cut a connection are what is tested."""

    with Server(("127.0.0.1", 0), Handler) as server, answering(server):
        yield f"http://127.0.0.1:{server.server_address[1]}/proxy"

"""`python -m sandbox`: the sandbox on one port, until Ctrl-C."""

import argparse
import errno
import ipaddress
import math
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from sandbox.access_log import AccessLog
from sandbox.clock import Clock
from sandbox.decides import FORMS, Decides, read_decides
from sandbox.outside.balancer import BalancerError
from sandbox.outside.kinds import KINDS, OWN, starter
from sandbox.parameters import Parameters, dynamics_scale
from sandbox.shop.catalogue import DEFAULT_CATALOGUE, CatalogueError, Product, read_catalogue
from sandbox.sizing import ExpectError, read_expectation, size
from sandbox.stage import Load, Stage
from sandbox.world import Outbound, World

DEFAULT_UTILIZATION, HEALTHY_UTILIZATION = 0.85, 0.5
DECIDE_EVERY_S = 2.0  # nominal, as the shipped scenarios

Read = TypeVar("Read")


class OptionError(Exception):
    """An option that cannot be used; the text is for the person who gave it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sandbox; the exit code: 0 after a stop, 1 when its balancer ended, 2 when it could not start."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except OptionError as problem:
        print(f"sandbox: {problem}", file=sys.stderr)
        return 2
    except BalancerError as problem:
        print(f"sandbox: --balancer {options.balancer}: {problem}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    load = Load(_time_scale(options), _expected(options), _catalogue(options.catalogue))
    utilization = _utilization(options)
    _decides(options, 1.0)
    access_log = _access_log(options)
    if options.parent is not None and sys.platform == "win32":
        raise OptionError("--parent does not work on Windows: leave it out and stop the sandbox with Ctrl-C")
    if options.balancer != OWN and sys.platform == "win32":
        raise OptionError("--balancer does not work on Windows: leave it out for the sandbox's own")
    if options.balancer != OWN and options.decides is not None:
        raise OptionError(f"--decides: only the sandbox's own balancer does; leave out --balancer {options.balancer}")
    sock = _bind(options.host, options.port)
    host = f"[{options.host}]" if ":" in options.host else options.host
    origin = f"http://{host}:{sock.getsockname()[1]}"
    for line in _opening(options, load, utilization):
        print(line)

    def make_stage(clock: Clock, outbound: Outbound | None = None) -> Stage:
        def build(load: Load) -> World:
            return World(
                clock,
                replace(Parameters(), weather=not options.healthy).scaled(load.time_scale),
                size(load.expected_rps, load.time_scale, utilization),
                seed=options.seed,
                products=load.products,
                start_unix_s=time.time() - clock.now(),
                outbound=outbound,
                decides=_decides(options, load.time_scale),
            )

        return Stage(build, load)

    stage, problem = _serve(options, make_stage, sock, origin, access_log)
    for line in _closing(stage):
        print(line)
    sys.stdout.flush()
    if problem is not None:
        print(f"sandbox: {options.balancer} has ended, and with it the sandbox: {problem}", file=sys.stderr)
        return 1
    return 0


def _serve(
    options: argparse.Namespace,
    make_stage: Callable[..., Stage],
    sock: socket.socket,
    origin: str,
    access_log: AccessLog | None,
) -> tuple[Stage, str | None]:
    """Serve until the end: the stage as it is then, and how the balancer ended when that was the reason."""

    def on_ready(lines: Sequence[str] = ()) -> None:
        for line in lines:
            print(line)
        print(f"sandbox ready: {origin}/proxy state={origin}/state metrics={origin}/metrics", flush=True)

    base_url, parent_pid = f"{origin}/proxy", options.parent
    # Servers are loaded here, so that wrong options are answered without them.
    if options.balancer == OWN:
        from sandbox.server import serve

        stage = serve(make_stage, sock, base_url, parent_pid=parent_pid, on_ready=on_ready, access_log=access_log)
        return stage, None
    from sandbox.outside.server import serve as serve_outside

    host, port = sock.getsockname()[:2]
    sock.close()  # the port was free; the balancer takes it
    start = starter(options.balancer)
    return serve_outside(make_stage, start, host, port, base_url, parent_pid=parent_pid, on_ready=on_ready)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox",
        description="A load balancer in front of a shop of five services with three instances each, to run against.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port; 0 takes a free one (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all that is drawn (default: %(default)s)")
    parser.add_argument(
        "--time-scale",
        type=float,
        default=1.0,
        metavar="S",
        help="service times, timeouts and weather are divided by min(S, 10) (default: %(default)s)",
    )
    parser.add_argument(
        "--healthy",
        action="store_true",
        help="utilization 0.5 and no antagonists, pauses or incidents: everything succeeds",
    )
    parser.add_argument(
        "--utilization",
        type=float,
        metavar="U",
        help=f"of the busiest service's workers at the expected load (default: {DEFAULT_UTILIZATION},"
        f" {HEALTHY_UTILIZATION} with --healthy)",
    )
    parser.add_argument(
        "--expect",
        metavar="FILE_OR_JSON",
        help='expected calls per second of real time, as {"cart-service POST /api/cart/items": 12.3, ...}',
    )
    parser.add_argument(
        "--decides",
        metavar="POLICY",
        help=f"let it decide by itself and say so in its answers, for --actuator observe: {FORMS}",
    )
    parser.add_argument(
        "--decide-every",
        type=float,
        default=DECIDE_EVERY_S,
        metavar="SECONDS",
        help="how often it does, divided by min(S, 10) of the time scale (default: %(default)s)",
    )
    parser.add_argument("--catalogue", metavar="FILE", help="products to sell: a JSON list of sku, name, ... price")
    parser.add_argument("--access-log", metavar="FILE", help="append two JSON lines per request from outside to it")
    parser.add_argument(
        "--balancer",
        choices=(OWN, *KINDS),
        default=OWN,
        help="what balances: the sandbox's own, or a real one in front of its instances (default: %(default)s)",
    )
    parser.add_argument("--parent", type=int, metavar="PID", help="stop when this process is gone")
    return parser


def _utilization(options: argparse.Namespace) -> float:
    utilization: float | None = options.utilization
    if utilization is None:
        return HEALTHY_UTILIZATION if options.healthy else DEFAULT_UTILIZATION
    if not 0.01 <= utilization <= 3.0:
        raise OptionError("--utilization: must be from 0.01 to 3, for example 0.85")
    return utilization


def _decides(options: argparse.Namespace, time_scale: float) -> Decides | None:
    if options.decides is None:
        return None
    if not 0.1 <= options.decide_every < math.inf:
        raise OptionError("--decide-every: must be at least 0.1, for example 2")
    try:
        return read_decides(options.decides, options.decide_every / dynamics_scale(time_scale))
    except ValueError as problem:
        raise OptionError(f"--decides {options.decides}: {problem}") from problem


def _time_scale(options: argparse.Namespace) -> float:
    time_scale: float = options.time_scale
    if not 0.0 < time_scale < math.inf:
        raise OptionError("--time-scale: must be a positive number, for example 45")
    return time_scale


def _expected(options: argparse.Namespace) -> dict[str, float] | None:
    text: str | None = options.expect
    if text is None:
        return None
    if not text.lstrip().startswith("{"):
        text = _read_file("--expect", text)
    return _read("--expect", read_expectation, text, ExpectError)


def _catalogue(path: str | None) -> tuple[Product, ...]:
    if path is None:
        return DEFAULT_CATALOGUE
    return _read(f"--catalogue {path}", read_catalogue, _read_file("--catalogue", path), CatalogueError)


def _access_log(options: argparse.Namespace) -> AccessLog | None:
    path: str | None = options.access_log
    if path is not None and options.balancer != OWN:
        raise OptionError(
            f"--access-log: the sandbox's own balancer writes it; {options.balancer} has a log of its own"
        )
    try:
        return None if path is None else AccessLog(Path(path))
    except OSError as error:
        raise OptionError(f"--access-log {path}: cannot be written ({error.strerror})") from error


def _read(place: str, read: Callable[[str], Read], text: str, error: type[ExpectError | CatalogueError]) -> Read:
    try:
        return read(text)
    except error as problem:
        lines = "\n".join(f"  {line}" for line in problem.problems)
        plural = "s" if len(problem.problems) > 1 else ""
        raise OptionError(f"{place}: {len(problem.problems)} problem{plural}\n{lines}") from problem


def _read_file(option: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{option}: cannot read {path}: {error}") from error


def _bind(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise OptionError("--port: must be from 0 to 65535; 0 takes a free one")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            way_out = "choose another with --port, or --port 0 for a free one"
            raise OptionError(f"port {port} on {host} is in use: {way_out}") from error
        raise OptionError(f"cannot listen on {host} port {port}: {error}") from error


def _opening(options: argparse.Namespace, load: Load, utilization: float) -> list[str]:
    scale = dynamics_scale(load.time_scale)
    weather = "no antagonists, pauses or incidents" if options.healthy else "antagonists, pauses and incidents"
    lines = [
        f"sandbox: seed {options.seed}, time scale {options.time_scale:g}, service dynamics {scale:g} times as fast"
    ]
    if options.time_scale > scale:
        lines.append(f"sandbox: compressed: service times and timeouts are divided by {scale:g} only")
    lines.append(f"sandbox: {weather}; utilization {utilization:g} at the expected load")
    decides = _decides(options, load.time_scale)
    if decides is not None:
        lines.append(f"sandbox: decides by itself, {decides.policy}, every {decides.every_s:g} s")
    lines += size(load.expected_rps, load.time_scale, utilization).describe()
    if not _is_loopback(options.host):
        lines.append(
            f"warning: {options.host} is not a loopback address: everybody who can reach it can inject faults and"
            " change actions"
        )
    return lines


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _closing(stage: Stage) -> list[str]:
    lines = ["sandbox stopped: requests answered (failed) per service, calls between services included"]
    lines += [f"  {service:18} {answered:9d} ({failed})" for service, (answered, failed) in stage.tally().items()]
    return lines


if __name__ == "__main__":
    sys.exit(main())

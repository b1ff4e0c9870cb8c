"""The sandbox behind a balancer of another make: instances on ports, control on a port, and the balancer's process.

uvicorn serves the control port, and the fifteen ports of the instances are served beside it on the same loop.
"""

import asyncio
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from sandbox.control import Control
from sandbox.instance import Instance
from sandbox.outside.balancer import BalancerError, Endpoint, ExternalBalancer, Setup, Starter
from sandbox.outside.calls import Calls
from sandbox.outside.client import Client
from sandbox.outside.door import Door, error_reply
from sandbox.outside.listeners import HOST, Listener
from sandbox.parameters import Parameters
from sandbox.proxy import PREFIX, HttpReply, HttpRequest
from sandbox.server import (
    CLOSE,
    TOO_LARGE,
    HttpApp,
    LiveClock,
    Receive,
    Server,
    Waits,
    calm_collector,
    config_of,
    run,
    watch_parent,
)
from sandbox.shop.calls import Call, Response
from sandbox.stage import Stage
from sandbox.world import Outbound, World

BALANCER_CHECK_S = 0.2
CALL_PATIENCE = 1.25
"""A service waits a quarter longer for another one than the balancer does, so that the balancer says what was wrong."""

MakeStage = Callable[[LiveClock, Outbound], Stage]


class Fanout:
    """Makes the calls between services as requests through the balancer, under its own action for the service."""

    def __init__(self, clock: LiveClock, calls: Calls, client: Client) -> None:
        self._clock = clock
        self._calls = calls
        self._client = client
        self.timeout_s = 0.0

    def call(self, call: Call, on_answer: Callable[[Response | None], None]) -> None:
        """See `Outbound`."""
        path = self._calls.begin(call)

        def told(status: int | None, body: bytes) -> None:
            self._calls.end(path)
            good = status is not None and status < 500
            answer = Response(status, body.decode("utf-8", "replace")) if status is not None and good else None
            self._clock.run_now(lambda: on_answer(answer))

        self._client.request(call.method, f"{PREFIX}{call.service}{path}", self.timeout_s, told)


class _PlainApp(HttpApp):
    """Refuses without the headers of a balancer."""

    def refuse_body(self, request: HttpRequest) -> HttpReply:
        """See `HttpApp`."""
        del request
        return error_reply(413, TOO_LARGE, [CLOSE])


class InstanceApp(_PlainApp):
    """What is on an instance's port. When the instance dies, its connections end (`Listener`)."""

    def __init__(self, door: Door, waits: Waits) -> None:
        self._door = door
        self._waits = waits

    async def reply(self, request: HttpRequest, receive: Receive) -> HttpReply | None:
        """See `HttpApp`."""
        stopped = partial(error_reply, 503, "The sandbox is being stopped", [])
        return await self._waits.answer(lambda answer: self._door.open(request, answer), receive, stopped)


class ControlApp(_PlainApp):
    """What is on the control port: everything that is not under /proxy/."""

    def __init__(
        self, clock: LiveClock, stage: Stage, control: Control, balancer: ExternalBalancer, thread: Executor
    ) -> None:
        self._clock = clock
        self._stage = stage
        self._control = control
        self._balancer = balancer
        self._thread = thread

    async def reply(self, request: HttpRequest, receive: Receive) -> HttpReply:
        """See `HttpApp`."""
        del receive
        if request.method == "PUT" and request.path in ("/control/actions", "/control/load"):
            return await self._change(request)
        return self._handle(request)

    def _handle(self, request: HttpRequest) -> HttpReply:
        return self._clock.run_now(lambda: self._control.handle(request))

    async def _change(self, request: HttpRequest) -> HttpReply:
        """What changes the balancer too; it is answered when the balancer has done it."""
        reply = self._handle(request)
        if reply.status != 200:
            return reply
        world, balancer = self._stage.world, self._balancer
        actions = {service: one.action for service, one in world.balancers.items()}

        def tell() -> None:
            if request.path == "/control/load":
                balancer.set_world(world.parameters, _workers(world))
            balancer.set_actions(actions)

        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, tell)
        except BalancerError as error:
            return error_reply(502, str(error), [])
        return reply


def serve(
    make_stage: MakeStage,
    start: Starter,
    host: str,
    port: int,
    base_url: str,
    *,
    parent_pid: int | None,
    on_ready: Callable[[Sequence[str]], None],
) -> tuple[Stage, str | None]:
    """Serve until SIGINT or SIGTERM, until the parent is gone, or until the balancer ends: the stage as it is then, and
    in the last case what happened. Raises BalancerError when the balancer does not start."""
    return run(lambda: _serve(make_stage, start, host, port, base_url, parent_pid, on_ready))


async def _serve(
    make_stage: MakeStage,
    start: Starter,
    host: str,
    port: int,
    base_url: str,
    parent_pid: int | None,
    on_ready: Callable[[Sequence[str]], None],
) -> tuple[Stage, str | None]:
    loop = asyncio.get_running_loop()
    clock = LiveClock(loop)
    calls = Calls()
    client = Client(loop, _reachable(host), port)
    fanout = Fanout(clock, calls, client)
    stage = make_stage(clock, fanout.call)
    waits = Waits(clock, loop)
    listeners, endpoints = _listeners(stage, calls, waits, loop)
    control_socket = socket.create_server((HOST, 0), backlog=2048)
    folder = Path(tempfile.mkdtemp(prefix="sandbox-balancer-"))
    # One thread for the balancer alone: its calls follow each other, and its process, which dies with the thread that
    # started it, lives as long as this.
    thread = ThreadPoolExecutor(1, "balancer")
    balancer: ExternalBalancer | None = None
    heard: list[Instance] = []

    def follow_world() -> Parameters:
        """The instances of the world that is on are the ones that listen."""
        for instance in heard:  # of the world before
            instance.on_up = lambda up: None
        heard[:] = [instance for instances in stage.world.instances.values() for instance in instances]
        for instance, listener in zip(heard, listeners, strict=True):
            instance.on_up = listener.set_up
            listener.set_up(instance.up)
        fanout.timeout_s = CALL_PATIENCE * stage.world.parameters.request_timeout_s
        return stage.world.parameters

    try:
        parameters = follow_world()
        stage.on_new_world = follow_world
        for listener in listeners:
            await listener.settle()
        setup = Setup(
            endpoints, host, port, HOST, control_socket.getsockname()[1], parameters, _workers(stage.world), folder
        )
        # That takes seconds, and uvicorn listens for signals only later: whoever wants an end meanwhile gets it then.
        stopped: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: stopped.append(number))
        balancer = await loop.run_in_executor(thread, start, setup)
        if stopped:
            return stage, None
        control = Control(stage, base_url, time.time_ns, balancer.describe())
        app = ControlApp(clock, stage, control, balancer, thread)
        lines = balancer.lines()
        server = Server(config_of(app), waits.stop, lambda: on_ready(lines))
        if parent_pid is not None:
            watch_parent(loop, parent_pid, server)
        problem: list[str] = []
        watch = loop.create_task(_watch_balancer(balancer, server, problem))
        calm_collector()
        await server.serve(sockets=[control_socket])
        watch.cancel()
        clock.catch_up()
        return stage, problem[0] if problem else None
    finally:
        if balancer is not None:
            await loop.run_in_executor(thread, balancer.stop)
        thread.shutdown()
        client.close()
        for listener in listeners:
            listener.close()
        control_socket.close()
        shutil.rmtree(folder)


def _listeners(
    stage: Stage, calls: Calls, waits: Waits, loop: asyncio.AbstractEventLoop
) -> tuple[list[Listener], list[Endpoint]]:
    """A port for each instance, and the record of which is where."""
    listeners, endpoints = [], []
    for service, balancer in stage.world.balancers.items():
        for number, backend in enumerate(balancer.backends):
            listener = Listener(InstanceApp(Door(stage, calls, service, number), waits), loop)
            listeners.append(listener)
            endpoints.append(Endpoint(service, backend.name, HOST, listener.port, backend.capacity))
    return listeners, endpoints


def _workers(world: World) -> dict[str, int]:
    """Workers by the name of the instance."""
    return {one.name: one.workers for instances in world.instances.values() for one in instances}


def _reachable(host: str) -> str:
    """An address to reach a listener on `host` from here."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


async def _watch_balancer(balancer: ExternalBalancer, server: Server, problem: list[str]) -> None:
    """Without its balancer the sandbox is nothing: it ends."""
    while (ended := balancer.ended()) is None:
        await asyncio.sleep(BALANCER_CHECK_S)
    problem.append(ended)
    server.should_exit = True

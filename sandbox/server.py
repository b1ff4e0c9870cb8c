"""The live sandbox: the world on an event loop's clock, behind uvicorn.

Here is what both kinds of it need: one with the sandbox's own balancer (`serve`), and one behind a balancer that is a
process of its own (`sandbox.outside.server`). Nothing else in the sandbox knows asyncio.
"""

import asyncio
import gc
import os
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, Protocol, TypeVar, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sandbox.access_log import FLUSH_EVERY_S, AccessLog
from sandbox.balancer import Exchange
from sandbox.clock import EventHeap, Timer
from sandbox.control import Control
from sandbox.proxy import PREFIX, HttpReply, HttpRequest, Proxy
from sandbox.stage import Stage

MAX_BODY_BYTES = 64 * 1024
TOO_LARGE = f"The body is larger than {MAX_BODY_BYTES} bytes"
CLOSE = (b"connection", b"close")
MAX_HEAD_BYTES = 64 * 1024
TIMER_RESOLUTION_S = 0.0005  # uvloop rounds timers to milliseconds, so "due within half of one" is due
WATCH_AFTER_S = 0.1  # how soon a client that went away is noticed, at the latest
PARENT_CHECK_S = 1.0
GRACE_S = 2  # for requests under way when it is stopped
GC_THRESHOLD = 20_000  # allocations; the default of 700 collects several times per hundred requests
KEEP_ALIVE_S = 75  # longer than a shopper's pauses, so that a connection is not closed just when it is used again

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

Result = TypeVar("Result")


class LiveClock:
    """A model clock over the event loop.

    While an event runs it is *the time the event was due*, not the time it came to run: when the process is held up,
    the answers come late, but the model goes through the same states. Everything due is run before a request enters.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._zero_s = time.monotonic()
        self._now_s = 0.0
        self._running = False
        self._events = EventHeap()
        self._armed: asyncio.TimerHandle | None = None
        self._armed_due_s = float("inf")

    def now(self) -> float:
        """Seconds since this clock was made."""
        if not self._running:
            self._now_s = max(self._now_s, time.monotonic() - self._zero_s)
        return self._now_s

    def call_later(self, delay_s: float, fn: Callable[[], None]) -> Timer:
        """See `Clock.call_later`."""
        timer = self._events.push(self.now() + max(0.0, delay_s), fn)
        if not self._running:
            self._arm()
        return timer

    def run_now(self, fn: Callable[[], Result]) -> Result:
        """Run everything that is due, then `fn`, for which time stands still, as it does for events."""
        self.catch_up()
        self._now_s = max(self._now_s, time.monotonic() - self._zero_s)
        self._running = True
        try:
            return fn()
        finally:
            self._running = False
            self._arm()

    def catch_up(self, ahead_s: float = 0.0) -> None:
        """Run everything that is due."""
        until_s = time.monotonic() - self._zero_s + ahead_s
        events = self._events
        self._running = True
        try:
            while (due_s := events.next_due_s()) is not None and due_s <= until_s:
                self._now_s = max(self._now_s, due_s)
                events.pop()()
        finally:
            self._running = False
            self._arm()

    def _arm(self) -> None:
        due_s = self._events.next_due_s()
        if due_s is None or (self._armed is not None and self._armed_due_s <= due_s):
            return
        if self._armed is not None:
            self._armed.cancel()
        self._armed_due_s = due_s
        self._armed = self._loop.call_later(max(0.0, due_s - (time.monotonic() - self._zero_s)), self._on_timer)

    def _on_timer(self) -> None:
        self._armed = None
        self.catch_up(TIMER_RESOLUTION_S)


class Cancellable(Protocol):
    """Something under way that can be given up."""

    def cancel(self) -> None:
        """Its client went away."""


Answer = Callable[[HttpReply | None], None]
Open = Callable[[Answer], Cancellable | None]
"""Begins something that leads to one answer; what it returns is cancelled when the client goes away."""


class Waiting:
    """A client that waits for its answer."""

    __slots__ = ("exchange", "farewell", "receive", "reply", "since_s", "watched")

    def __init__(
        self,
        reply: "asyncio.Future[HttpReply | None]",
        receive: Receive,
        since_s: float,
        farewell: Callable[[], HttpReply],
    ) -> None:
        self.reply = reply
        self.watched = False
        self.receive = receive
        self.since_s = since_s
        self.farewell = farewell
        self.exchange: Cancellable | None = None

    def answer(self, reply: HttpReply | None) -> None:
        """The first answer counts."""
        if not self.reply.done():
            self.reply.set_result(reply)


class Waits:
    """All clients that wait."""

    def __init__(self, clock: LiveClock, loop: asyncio.AbstractEventLoop) -> None:
        self._clock = clock
        self._loop = loop
        self._waiting: dict[Waiting, None] = {}  # in order of arrival
        self._watchers: set[asyncio.Task[None]] = set()
        self._watch()

    async def answer(self, begin: Open, receive: Receive, farewell: Callable[[], HttpReply]) -> HttpReply | None:
        """The answer that `begin` leads to, or None: the client went away, or the connection ends without an answer.
        `farewell` makes the answer when everything is stopped."""
        waiting = Waiting(self._loop.create_future(), receive, self._loop.time(), farewell)
        waiting.exchange = self._clock.run_now(lambda: begin(waiting.answer))
        try:
            if not waiting.reply.done():
                self._waiting[waiting] = None
                await waiting.reply
            return waiting.reply.result()
        finally:
            self._waiting.pop(waiting, None)
            waiting.exchange = None  # else the two would keep each other

    def stop(self) -> None:
        """Nobody waits any longer: everything under way is cancelled and answered so."""
        for waiting in list(self._waiting):
            if waiting.exchange is not None:
                self._clock.run_now(waiting.exchange.cancel)
            waiting.answer(waiting.farewell())

    def _watch(self) -> None:
        """Ask for the disconnect only where the answer takes long: a task for every request would cost more than the
        model."""
        now_s = self._loop.time()
        for waiting in self._waiting:
            if now_s - waiting.since_s < WATCH_AFTER_S / 2:
                break
            if waiting.watched:
                continue
            waiting.watched = True
            task = self._loop.create_task(self._cancel_when_gone(waiting))
            self._watchers.add(task)
            task.add_done_callback(self._watchers.discard)
        self._loop.call_later(WATCH_AFTER_S / 2, self._watch)

    async def _cancel_when_gone(self, waiting: Waiting) -> None:
        while (await waiting.receive())["type"] != "http.disconnect":
            pass
        if waiting.exchange is not None:
            self._clock.run_now(waiting.exchange.cancel)
        waiting.answer(None)


class HttpApp(ABC):
    """An ASGI application that reads requests whole and answers them whole."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP request."""
        if scope["type"] != "http":
            return
        request = await _read_request(scope, receive)
        if request is None:
            return  # the client went away before its request was complete
        large = len(request.body) > MAX_BODY_BYTES
        reply = self.refuse_body(request) if large else await self.reply(request, receive)
        if reply is not None:
            await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
            await send({"type": "http.response.body", "body": reply.body})
            return
        while (await receive())["type"] != "http.disconnect":
            pass

    @abstractmethod
    async def reply(self, request: HttpRequest, receive: Receive) -> HttpReply | None:
        """The answer; None when the client went away, or when the connection is ended without one."""

    @abstractmethod
    def refuse_body(self, request: HttpRequest) -> HttpReply:
        """What a request is told whose body is larger than MAX_BODY_BYTES; the rest of it is not read."""


class App(HttpApp):
    """The sandbox with its own balancer."""

    def __init__(
        self,
        clock: LiveClock,
        stage: Stage,
        control: Control,
        loop: asyncio.AbstractEventLoop,
        access_log: AccessLog | None = None,
    ) -> None:
        self._clock = clock
        self._log = access_log
        self._proxy = Proxy(stage)
        self._control = control
        self._loop = loop
        self._waits = Waits(clock, loop)
        self.stop = self._waits.stop
        if access_log is not None:
            self._flush(access_log)

    async def reply(self, request: HttpRequest, receive: Receive) -> HttpReply | None:
        """See `HttpApp`."""
        if request.path.startswith(PREFIX):
            return await self._through_balancer(request, receive)
        return self._clock.run_now(lambda: self._control.handle(request))

    def refuse_body(self, request: HttpRequest) -> HttpReply:
        """See `HttpApp`."""
        return self._proxy.refuse(request, 413, TOO_LARGE, CLOSE)

    async def _through_balancer(self, request: HttpRequest, receive: Receive) -> HttpReply | None:
        """The answer, or None when the client went away."""
        noted = None if self._log is None else self._log.begin(request)
        exchange: Exchange | None = None
        reply: HttpReply | None = None

        def begin(answer: Answer) -> Exchange | None:
            nonlocal exchange
            exchange = self._proxy.open(request, answer)
            return exchange

        try:
            reply = await self._waits.answer(
                begin, receive, lambda: self._proxy.refuse(request, 503, "The sandbox is being stopped")
            )
            return reply
        finally:
            if self._log is not None and noted is not None:
                self._log.end(noted, reply, exchange)

    def _flush(self, access_log: AccessLog) -> None:
        access_log.flush()
        self._loop.call_later(FLUSH_EVERY_S, self._flush, access_log)


async def _read_request(scope: Scope, receive: Receive) -> HttpRequest | None:
    """The whole request; stops reading when its body is too large; None when the client went away."""
    body: bytes | None = b""
    for name, _ in scope["headers"]:
        if name in (b"content-length", b"transfer-encoding"):
            body = await _read_body(receive)
            break
    if body is None:
        return None
    return HttpRequest(scope["method"], scope["path"], scope["query_string"], scope["headers"], body)


async def _read_body(receive: Receive) -> bytes | None:
    """The whole body; stops reading when it is too large; None when the client went away."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False) or len(body) > MAX_BODY_BYTES:
            return bytes(body)


class _OneWrite:
    """A transport that sends all that was written in one turn of the loop with one system call.

    uvicorn writes head and body of an answer apart, and uvloop sends each at once: half of the cost of a small answer.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class SandboxProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol over `_OneWrite`, with a limit on the size of a request's head, which uvicorn has not."""

    _head_bytes = 0
    _in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, _OneWrite(transport, self.loop)))

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_complete()


class Server(uvicorn.Server):
    """uvicorn's server, which tells when it is ready, and does not wait for ever for answers when it stops."""

    def __init__(self, config: uvicorn.Config, stop: Callable[[], None], on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(GRACE_S, self._stop)
        await super().shutdown(sockets)


def serve(
    make_stage: Callable[[LiveClock], Stage],
    sock: socket.socket,
    base_url: str,
    *,
    parent_pid: int | None,
    on_ready: Callable[[], None],
    access_log: AccessLog | None = None,
) -> Stage:
    """Serve on `sock` until SIGINT or SIGTERM, or until the parent is gone; the stage as it is then."""

    async def main() -> Stage:
        loop = asyncio.get_running_loop()
        clock = LiveClock(loop)
        stage = make_stage(clock)
        app = App(clock, stage, Control(stage, base_url, time.time_ns), loop, access_log)
        server = Server(config_of(app), app.stop, on_ready)
        if parent_pid is not None:
            watch_parent(loop, parent_pid, server)
        calm_collector()
        await server.serve(sockets=[sock])
        clock.catch_up()
        if access_log is not None:
            access_log.close()
        return stage

    return run(main)


def run(main: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run `main` on the fastest loop there is, with SIGINT and SIGTERM left to uvicorn's server."""
    # uvicorn raises the signal that stopped it once more when it is done; by then it shall do nothing.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main())


def config_of(app: HttpApp) -> uvicorn.Config:
    """How uvicorn serves an application of ours."""
    return uvicorn.Config(
        app,
        http=SandboxProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=2 * GRACE_S,  # for what `Waits.stop` does not end
    )


def calm_collector() -> None:
    """What is there now stays until the end, and requests leave no cycles: the collector has little to look for."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows: there is none
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def watch_parent(loop: asyncio.AbstractEventLoop, pid: int, server: uvicorn.Server) -> None:
    """Stop when process `pid` is gone. Our own parent is seen to be gone even when nobody collects its remains."""
    is_own_parent = os.getppid() == pid

    def check() -> None:
        gone = os.getppid() != pid if is_own_parent else not _exists(pid)
        if gone:
            server.should_exit = True
        else:
            loop.call_later(PARENT_CHECK_S, check)

    check()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

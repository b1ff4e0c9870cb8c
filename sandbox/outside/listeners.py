"""A port per instance. While an instance is down nobody listens there: connections are refused, as they really are."""

import asyncio
import socket

from uvicorn.server import ServerState

from sandbox.server import HttpApp, SandboxProtocol, config_of

HOST = "127.0.0.1"


class Listener:
    """The port of one instance, served by `app` while it is up.

    The port is held by a second socket that never listens, so that nobody else gets it while the instance is down.
    """

    def __init__(self, app: HttpApp, loop: asyncio.AbstractEventLoop) -> None:
        self._config = config_of(app)
        self._config.load()
        self._loop = loop
        self._state = ServerState()
        self._held = _bound(0)
        self.port: int = self._held.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._up = False
        self._settling: asyncio.Task[None] | None = None

    def set_up(self, up: bool) -> None:
        """Listen from now on, or do not: then what is connected is reset."""
        self._up = up
        if self._settling is None or self._settling.done():
            self._settling = self._loop.create_task(self._follow())

    async def settle(self) -> None:
        """Wait until it is as it should be."""
        if self._settling is not None:
            await self._settling

    async def _follow(self) -> None:
        while self._up != (self._server is not None):
            if self._server is None:
                self._server = await self._loop.create_server(self._protocol, sock=_bound(self.port), backlog=2048)
            else:
                self._server.close()
                self._server = None
                self._reset()

    def close(self) -> None:
        """For good."""
        if self._settling is not None:
            self._settling.cancel()
        if self._server is not None:
            self._server.close()
        self._reset()
        self._held.close()

    def _reset(self) -> None:
        for connection in list(self._state.connections):
            connection.transport.abort()

    def _protocol(self) -> SandboxProtocol:
        return SandboxProtocol(config=self._config, server_state=self._state, app_state={}, _loop=self._loop)


def _bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((HOST, port))
    return sock

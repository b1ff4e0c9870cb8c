"""The port of an instance that goes down and comes back, with real sockets."""

import asyncio
from typing import Any

import pytest

from sandbox.outside.listeners import HOST, Listener


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def ask(port: int) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    status = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return status


def test_while_an_instance_is_down_its_port_refuses_and_nobody_else_gets_it() -> None:
    async def main() -> None:
        listener = Listener(hello, asyncio.get_running_loop())
        listener.set_up(True)
        await listener.settle()
        assert await ask(listener.port) == b"HTTP/1.1 200 OK\r\n"
        kept, writer = await asyncio.open_connection(HOST, listener.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await kept.readuntil(b"\r\n\r\n")
        listener.set_up(False)
        await listener.settle()
        assert await kept.read() == b"", "what was connected is closed"
        with pytest.raises(ConnectionRefusedError):
            await ask(listener.port)
        with pytest.raises(OSError, match="in use"):
            await asyncio.start_server(lambda *_: None, HOST, listener.port)
        for up in (True, False, True):  # faster than it can follow: the last word counts
            listener.set_up(up)
        await listener.settle()
        assert await ask(listener.port) == b"HTTP/1.1 200 OK\r\n"
        writer.close()
        await writer.wait_closed()
        listener.close()
        await asyncio.sleep(0)  # transports that were told to close do it in the next turn

    asyncio.run(main())

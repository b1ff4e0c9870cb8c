"""A server that answers every request at once with a balancer's headers: the other end of the recording benchmark.

python -m benchmarks.answering        prints its port and serves until it is terminated
"""

import asyncio

from rl_hooks.decision import Served, write_response

HEADERS = write_response(Served("round_robin", "cart-service-2", 8123, 312))


class Always(asyncio.Protocol):
    """One answer per request; requests have no body and are not split over packets on loopback."""

    lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    answer = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n{lines}\r\n{{}}".encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.answer * data.count(b"\r\n\r\n"))


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Always, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())

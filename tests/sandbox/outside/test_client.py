"""The services' HTTP client against a server of the standard library's streams."""

import asyncio
from collections.abc import Awaitable, Callable

from sandbox.outside.client import MAX_CONNECTIONS, Client

Asked = Callable[..., Awaitable[tuple[int | None, bytes]]]


def against(answer: Callable[[bytes], bytes | None], check: Callable[[Asked, list[int]], Awaitable[None]]) -> None:
    """Run `check` with a client of a server that answers a head by `answer`: bytes, or None for none at all."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        connections: list[int] = []
        open_ones: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(1)
            try:
                while True:
                    said = answer(await reader.readuntil(b"\r\n\r\n"))
                    if said is None:
                        await asyncio.sleep(60)
                    elif said == b"":
                        return
                    else:
                        writer.write(said)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            finally:
                writer.close()

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = loop.create_task(serve(reader, writer))
            open_ones.add(task)
            task.add_done_callback(open_ones.discard)

        server = await asyncio.start_server(begin, "127.0.0.1", 0)
        client = Client(loop, "127.0.0.1", server.sockets[0].getsockname()[1])

        async def asked(method: str = "GET", timeout_s: float = 20.0) -> tuple[int | None, bytes]:
            told = loop.create_future()
            client.request(method, "/a", timeout_s, lambda status, body: told.set_result((status, body)))
            result: tuple[int | None, bytes] = await told
            return result

        await check(asked, connections)
        client.close()
        server.close()
        for task in list(open_ones):
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)

    asyncio.run(main())


def good(head: bytes) -> bytes:
    return b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"


def test_calls_in_a_row_share_a_connection_and_calls_side_by_side_do_not() -> None:
    async def check(asked: Asked, connections: list[int]) -> None:
        assert [await asked(method) for method in ("GET", "POST", "GET")] == [(201, b"{}")] * 3
        assert len(connections) == 1
        assert await asyncio.gather(*(asked() for _ in range(5))) == [(201, b"{}")] * 5
        assert len(connections) == 5

    against(good, check)


def test_more_calls_than_connections_wait_for_a_free_one() -> None:
    async def check(asked: Asked, connections: list[int]) -> None:
        answers = await asyncio.gather(*(asked() for _ in range(MAX_CONNECTIONS + 50)))
        assert set(answers) == {(201, b"{}")} and len(connections) <= MAX_CONNECTIONS

    against(good, check)


def test_a_call_without_an_answer_is_given_up_and_the_next_one_has_its_own() -> None:
    silent = iter((True, False))

    def answer(head: bytes) -> bytes | None:
        return None if next(silent) else good(head)

    async def check(asked: Asked, connections: list[int]) -> None:
        assert await asked(timeout_s=0.05) == (None, b"")
        assert await asked() == (201, b"{}") and len(connections) == 2

    against(answer, check)


def test_a_connection_that_is_closed_or_nonsense_gives_no_answer() -> None:
    said = [b"", b"nonsense\r\n\r\n"]

    async def check(asked: Asked, connections: list[int]) -> None:
        assert [await asked(), await asked()] == [(None, b"")] * 2

    against(lambda head: said.pop(0), check)


def test_nobody_there_is_no_answer() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        told: asyncio.Future[tuple[int | None, bytes]] = loop.create_future()
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        Client(loop, "127.0.0.1", port).request("GET", "/", 20.0, lambda status, body: told.set_result((status, body)))
        assert await told == (None, b"")

    asyncio.run(main())

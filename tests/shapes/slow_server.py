"""A loopback HTTP server that answers late and counts whom it could not answer: `python slow_server.py`.

Prints its port. `GET /counts` answers {"begun", "answered", "aborted"}: requests read, answered, and left by a client
that closed the connection before the answer. Every other path is answered after the delay it names: `/delay/0.25`.
"""

import asyncio
import json

counts = {"begun": 0, "answered": 0, "aborted": 0}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            if path == "/counts":
                answer(writer, json.dumps(counts).encode())
                continue
            counts["begun"] += 1
            await asyncio.sleep(float(path.rsplit("/", 1)[1]))
            if reader.at_eof():
                counts["aborted"] += 1
                return
            answer(writer, b"late")
            counts["answered"] += 1
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client closed an idle connection
    finally:
        writer.close()


def answer(writer: asyncio.StreamWriter, body: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())

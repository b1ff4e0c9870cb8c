"""Calls between services as requests: what they ask for is left here, and their path names it.

A call (`Call`) is a function over the shop's state, so there is nothing in it to be written into a request. It gets a
number, and the instance that serves `/internal/calls/<number>` runs it. When the caller has its answer, or gave up, the
number is gone: a request that comes late finds nothing to do, and changes nothing.
"""

from collections.abc import Callable

from sandbox.shop.calls import Call, Response, error

INTERNAL = "/internal/calls/"


class Calls:
    """All calls under way."""

    def __init__(self) -> None:
        self._under_way: dict[str, Callable[[], Response]] = {}
        self._made = 0

    def begin(self, call: Call) -> str:
        """The path, below the service, to ask for."""
        self._made += 1
        path = f"{INTERNAL}{self._made}"
        self._under_way[path] = call.run
        return path

    def run(self, path: str) -> Response:
        """What the service does about it; 404 when nobody waits for it any more."""
        work = self._under_way.get(path)
        return error(404, "no such call") if work is None else work()

    def end(self, path: str) -> None:
        """Nobody waits for it any more."""
        del self._under_way[path]

    def __len__(self) -> int:
        return len(self._under_way)

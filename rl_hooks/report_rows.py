"""What a process that sends requests tells the one that decides: its new rows and what it has in flight.

Without numpy, so that a worker need not load it. The bytes are rows of `rl_hooks.row.REQUESTS` and places of IN_FLIGHT.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rl_hooks.run_folder import RunWriter


@dataclass(frozen=True, slots=True)
class Report:
    """The rows of one process since its last report."""

    incarnation: str
    seq: int  # number of the last row reported so far
    at_ns: int  # when the board was looked at
    rows: bytes  # whole rows of REQUESTS
    board: bytes  # whole places of IN_FLIGHT, busy or not
    offset_ns: int = 0  # by how much all its times have to be moved to be those of the one that decides
    loads: Sequence[Sequence[Any]] = ()  # service, instance, text, time: what instances said about themselves

    def to_message(self) -> dict[str, Any]:
        """Plain values for Locust's messages; `Report(**message)` undoes it."""
        return {name: getattr(self, name) for name in self.__slots__}


class Reporter:
    """Makes the reports of one recording process."""

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer
        self._tail = writer.tables["requests"].tail()

    def report(self, now_ns: int, offset_ns: int = 0) -> Report:
        """What is new since the last report. Nothing may give way to another greenlet in here: rows and board belong
        together."""
        writer = self._writer
        seq = writer.tables["requests"].rows
        return Report(writer.incarnation, seq, now_ns, self._tail.take(), writer.board.used(), offset_ns)

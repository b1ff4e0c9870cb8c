"""From the lines of an access log to the rows of a run folder, and to what the window knows.

    start line --> a place on the board: in flight        end line --> a request row, its place is free

A request whose end is never told (its line was lost, or the balancer died) keeps its place, and the exporter counts it
as sent with unknown end. For the window it is not in flight any more once the request timeout is over.
"""

import bisect
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rl_hooks.control import Decision
from rl_hooks.report_rows import Report
from rl_hooks.row import IN_FLIGHT, MISSING_U8, MISSING_U32, SENT_BYTES, Failure
from rl_hooks.run_folder import RunWriter
from rl_hooks.sources.access_log import Line

BOARD_PLACES = 1 << 14
MOST_NAMES = 30_000  # of endpoints and of instances each; ids have 16 bits
ANY_OTHER = "{other}"
REMEMBERED_S = 4500.0  # decisions; longer than a request in the log may have taken
CLIENT_GONE = 499
NAN = float("nan")

Trace = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _InForce:
    tick: int
    chosen: tuple[tuple[int, float], ...]  # by service: action, propensity


@dataclass(frozen=True, slots=True)
class _Open:
    place: int
    start_ns: int


class RequestRows:
    """Writes what `take` is given. `phase` is the phase's name in the rows."""

    def __init__(self, writer: RunWriter, phase: str, give_up_ns: int) -> None:
        self.not_noted = 0  # starts for which the board had no place
        self.starts_told = False  # the log tells starts at all
        self.newest_ns: int | None = None  # the newest moment that a line told of
        self._writer = writer
        self._rows = writer.tables["requests"]
        self._tail = self._rows.tail()
        self._phase = writer.ref("phase", phase)
        self._give_up_ns = give_up_ns
        self._open: dict[Trace, _Open] = {}
        self._given_up: dict[Trace, _Open] = {}
        self._free: list[int] = []
        self._decided_ns: deque[int] = deque()
        self._decided: deque[_InForce] = deque()
        self._names: dict[str, set[str]] = {"endpoint": set(), "instance": set()}

    def decided(self, t_ns: int, decisions: Sequence[Decision]) -> None:
        """These decisions are in force from `t_ns` on, for requests that come later in the log."""
        self._decided_ns.append(t_ns)
        chosen = tuple((decision.action, decision.propensity) for decision in decisions)
        self._decided.append(_InForce(decisions[0].tick, chosen))
        while self._decided_ns[0] < t_ns - REMEMBERED_S * 1e9:
            self._decided_ns.popleft()
            self._decided.popleft()

    def take(self, lines: Iterable[Line]) -> None:
        """Raises OSError when there is no room for rows."""
        for line in lines:
            self.newest_ns = max(line.moment_ns, self.newest_ns or 0)
            if line.ended:
                self._write(line)
            else:
                self.starts_told = True
                self._note(line)

    def give_up(self, now_ns: int) -> list[Trace]:
        """The requests whose end has been waited for long enough, each once."""
        late = [trace for trace, one in self._open.items() if now_ns - one.start_ns > self._give_up_ns]
        self._given_up.update((trace, self._open.pop(trace)) for trace in late)
        return late

    def report(self, now_ns: int) -> Report:
        """What is new, for the window; requests that were given up are not in flight to it."""
        board = bytearray(self._writer.board.used())
        for one in self._given_up.values():
            board[one.place + SENT_BYTES] = 0
        return Report(self._writer.incarnation, self._rows.rows, now_ns, self._tail.take(), bytes(board))

    def _note(self, line: Line) -> None:
        if line.request_id in self._open or line.request_id in self._given_up:
            return
        place = self._place()
        if place is None:
            self.not_noted += 1
            return
        self._open[line.request_id] = _Open(place, line.start_ns)
        IN_FLIGHT.struct.pack_into(self._writer.board.map, place, *self._sent(line), 1)

    def _place(self) -> int | None:
        if self._free:
            return self._free.pop()
        try:
            return self._writer.board.take()
        except IndexError:
            return None

    def _write(self, line: Line) -> None:
        status = line.backend_status or line.status
        ok = 200 <= status < 400
        gone = line.status in (0, CLIENT_GONE)
        failure = Failure.NONE if ok else Failure.TIMEOUT if gone else Failure.STATUS
        self._rows.append(
            *self._sent(line),
            line.duration_us,
            0,
            MISSING_U32 if line.upstream_us is None else line.upstream_us,
            MISSING_U32 if line.queue_us is None else line.queue_us,
            self._ref("instance", line.instance),
            0 if gone else line.status,
            line.backend_status,
            MISSING_U8 if line.action is None else line.action,
            ok,
            failure,
        )
        for known in (self._open, self._given_up):
            one = known.pop(line.request_id, None)
            if one is not None:
                self._writer.board.end(one.place)
                self._free.append(one.place)

    def _sent(self, line: Line) -> tuple[float | int, ...]:
        """The part of a row that is known when a request is sent. Who sent it is not known: no shopper of ours."""
        index = bisect.bisect_right(self._decided_ns, line.start_ns) - 1
        tick, action, propensity = MISSING_U32, MISSING_U8, NAN
        if index >= 0:
            tick = self._decided[index].tick
            action, propensity = self._decided[index].chosen[line.service]
        endpoint = self._ref("endpoint", line.endpoint)
        asked = (line.start_ns, tick, propensity, *line.request_id, action, 1, endpoint, line.service, line.method)
        return (*asked, 0, MISSING_U32, 0, 0, 0, 0, 0, self._phase, MISSING_U8)

    def _ref(self, kind: str, name: str) -> int:
        names = self._names[kind]
        if name not in names:
            if len(names) == MOST_NAMES:
                name = ANY_OTHER if name else name
            else:
                names.add(name)
        return self._writer.ref(kind, name[:128])

"""Reading a run folder: all incarnations' rows in one table each, with common names, and what is missing.

Ids behind `*_ref` columns are private to the incarnation that wrote them. Here they become positions in one list of
names per kind, so that everybody after this module can forget that there were several processes. Times become those of
the leading process's clock for the same reason.

Requests are checked here, but stay on disk: there may be more than fit into memory. `Run.batches` reads them.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rl_hooks.request_log import Batch, RequestLog, Stretch, batches_of, stretches
from rl_hooks.row import IN_FLIGHT, REQUESTS, TABLES, Table
from rl_hooks.run_clocks import ProcessClock, is_whole, process_clock
from rl_hooks.run_folder import WITH_ROWS, Incarnation, read_incarnations, read_manifest
from rl_hooks.segments import read_segment

REF_KINDS = ("endpoint", "instance", "profile", "phase", "policy")

_LOOKED_INTO = {"users": "counts", "seen": "rows"}  # kinds of event, and the dict that each has

# What rows are sorted by; the order of writing decides between equals.
_ORDER = {
    "sessions": ("start_ns",),
    "decisions": ("tick", "service"),
    "observations": ("tick", "service"),
    "samples": ("t_ns", "service", "instance_ref"),
}


@dataclass(frozen=True)
class Loss:
    """Rows that were written or promised and cannot be read: of whom, how many, and when they were."""

    incarnation: str
    table: str
    missing_rows: int  # 0 when only the file is known to be damaged, not how much it held
    text: str
    from_ns: int | None = None  # after the last row before the gap; None: possibly from the process's start on
    to_ns: int | None = None  # before the first row behind it; None: possibly until the process's end


class _Loaded:
    """A field of rows that are given, or that are loaded from their log by the first who reads it."""

    def __get__(self, run: Any, owner: type) -> Any:
        if run is None:
            raise AttributeError("requests")  # so a dataclass learns that the field has no default
        rows = run.__dict__["_requests"]
        if isinstance(rows, RequestLog):
            rows = run.__dict__["_requests"] = rows.load()
        return rows

    def __set__(self, run: Any, rows: Any) -> None:
        run.__dict__["_requests"] = rows


@dataclass(frozen=True)
class Run:
    """Everything a run folder tells. Arrays have the table's columns behind a leading `incarnation` (u2)."""

    path: Path
    manifest: Mapping[str, Any]
    incarnations: tuple[Incarnation, ...]
    names: Mapping[str, tuple[str, ...]]  # kind -> names; position 0 is "" and means none
    sessions: Any  # sorted by start_ns
    decisions: Any  # sorted by tick, service
    observations: Any  # what the deciding process knew; sorted by tick, service
    samples: Any  # sorted by t_ns, service, instance
    in_flight: Any  # requests that were sent when their process died: outcome unknown; columns of IN_FLIGHT
    events: tuple[Mapping[str, Any], ...]  # sorted by t_ns
    losses: tuple[Loss, ...]
    requests: Any = _Loaded()  # sorted by start_ns; all of them in memory, so for runs of a moderate size
    clocks: tuple[ProcessClock, ...] = ()  # of the incarnations; empty: the times are as they were recorded

    def batches(self) -> Iterator[Batch]:
        """The requests a batch at a time, for runs of any size."""
        rows = self.__dict__["_requests"]
        return rows.batches() if isinstance(rows, RequestLog) else batches_of(rows)

    @property
    def request_count(self) -> int:
        return len(self.__dict__["_requests"])


def read_run(path: Path, *, correct_clocks: bool = True) -> Run:
    """Read a run folder as far as it goes; `losses` says what could not be read.

    `correct_clocks`: give all times by the leading process's clock. Raises RunFolderError when `path` is not a run
    folder.
    """
    manifest = read_manifest(path)
    incarnations = read_incarnations(path)
    losses = [Loss(who.name, "processes", 0, who.damage) for who in incarnations if who.damage is not None]
    names = _Names(losses)
    told = [list(_events(path, who, losses)) for who in incarnations]
    clocks = tuple(process_clock(events if correct_clocks else ()) for events in told)
    parts = list(zip(range(len(incarnations)), incarnations, clocks, strict=True))
    requests = _read_requests(path, parts, names, losses)
    merged = {
        name: _sorted([_read_table(path, part, table, names, losses) for part in parts], table)
        for name, table in TABLES.items()
        if table is not REQUESTS
    }
    in_flight = _sorted([_read_board(path, part, names) for part in parts], IN_FLIGHT)
    events = sorted(_timed(told, clocks), key=lambda event: int(event["t_ns"]))
    losses += _boards_missing(path, incarnations)
    losses += _reported_and_gone(path, manifest, incarnations, merged["decisions"], events, requests, losses)
    return Run(
        path=path,
        manifest=manifest,
        incarnations=incarnations,
        in_flight=in_flight[~_ended(in_flight, requests)],
        events=tuple(events),
        names=names.by_kind(),
        losses=tuple(losses),
        requests=requests,
        clocks=clocks if correct_clocks else (),
        **merged,
    )


class _Names:
    """Common ids for the names of all incarnations; the order is that of the incarnations and their own ids."""

    def __init__(self, losses: list[Loss]) -> None:
        self._losses = losses
        self._ids: dict[str, dict[str, int]] = {kind: {"": 0} for kind in REF_KINDS}
        self._tables: dict[Path, dict[str, Any]] = {}

    def tables_for(self, dictionary: Path) -> dict[str, Any]:
        """kind -> array that turns the incarnation's ids into common ids."""
        if dictionary not in self._tables:
            found: dict[str, dict[int, int]] = {kind: {0: 0} for kind in REF_KINDS}
            for line in _lines(dictionary, _is_name, self._losses):
                ids = self._ids[line["kind"]]
                found[line["kind"]][line["id"]] = ids.setdefault(line["name"], len(ids))
            self._tables[dictionary] = {
                kind: np.array([ids.get(i, 0) for i in range(max(ids) + 1)], np.uint16) for kind, ids in found.items()
            }
        return self._tables[dictionary]

    def by_kind(self) -> dict[str, tuple[str, ...]]:
        return {kind: tuple(ids) for kind, ids in self._ids.items()}


_Part = tuple[int, Incarnation, ProcessClock]  # of a run: what one incarnation left, and its number


def _read_requests(path: Path, parts: list[_Part], names: _Names, losses: list[Loss]) -> RequestLog:
    """Where the readable requests of all incarnations are."""
    index: list[Stretch] = []
    ids: list[Mapping[str, Any]] = []
    for number, who, clock in parts:
        tables = names.tables_for(path / "dictionaries" / f"{who.name}.jsonl")
        refs = _Refs(tables)
        index += stretches(number, refs.seen(_segments(path, (number, who, clock), REQUESTS, losses)), clock.corrected)
        losses += refs.losses(path, who, REQUESTS)
        ids.append(refs.ids())
    return RequestLog(index, ids, [clock.corrected if clock.corrects else None for _, _, clock in parts])


def _read_table(path: Path, part: _Part, table: Table, names: _Names, losses: list[Loss]) -> Any:
    """All readable rows of one incarnation, and what is missing between and behind them into `losses`."""
    number, who, clock = part
    refs = _Refs(names.tables_for(path / "dictionaries" / f"{who.name}.jsonl"))
    parts = [rows for _, rows in refs.seen(_segments(path, part, table, losses))]
    losses += refs.losses(path, who, table)
    rows = np.concatenate(parts) if parts else np.empty(0, table.dtype)
    return _in_common(rows, number, refs.ids(), clock)


def _segments(path: Path, part: _Part, table: Table, losses: list[Loss]) -> Iterator[tuple[Path, Any]]:
    """The readable rows of each segment of one incarnation in order of writing; what is missing into `losses`."""
    _, who, clock = part
    gaps = _Gaps(who, table, clock, losses)
    expected = 1
    for file in _files(path / table.name, who):
        segment = read_segment(file, table)
        if segment.first_seq > expected:
            gap = segment.first_seq - expected
            text = f"{file}: {gap} rows before it are missing (numbers {expected} to {segment.first_seq - 1})"
            gaps.add(gap, text)
        gaps.rows(segment.rows)
        if segment.damage is not None:
            gaps.add(segment.missing_rows, segment.damage)
        if segment.first_seq:
            expected = segment.first_seq + len(segment.rows) + segment.missing_rows
        yield file, segment.rows
    promised = who.last_seq[table.name] if who.last_seq is not None else 0
    if promised >= expected:
        text = f"{path / table.name}: {who.name} wrote {promised} rows, the last {promised - expected + 1} are missing"
        gaps.add(promised - expected + 1, text)


class _Gaps:
    """The gaps of one incarnation in a table, each with the times of the rows around it."""

    def __init__(self, who: Incarnation, table: Table, clock: ProcessClock, losses: list[Loss]) -> None:
        self._about = (who.name, table.name)
        self._time = "start_ns" if table in (REQUESTS, TABLES["sessions"]) else "t_ns"
        self._clock = clock
        self._losses = losses
        self._last_ns: int | None = None
        self._open: list[int] = []  # places in the losses of those that no row has followed yet

    def add(self, missing_rows: int, text: str) -> None:
        self._open.append(len(self._losses))
        self._losses.append(Loss(*self._about, missing_rows, text, self._last_ns))

    def rows(self, rows: Any) -> None:
        """These come next. They are about in order of time."""
        if len(rows) == 0:
            return
        for place in self._open:
            self._losses[place] = replace(self._losses[place], to_ns=int(self._clock.corrected(rows[self._time].min())))
        self._open.clear()
        self._last_ns = int(self._clock.corrected(rows[self._time].max()))


def _files(folder: Path, who: Incarnation) -> list[Path]:
    """The segments of one incarnation, in order of writing.

    A shipped one can be there twice: as it was when its process seemed to be gone, and as it was sealed, with all rows.
    """
    files = sorted(((int(file.name.split(".")[-2]), file.suffix), file) for file in folder.glob(f"{who.name}.*"))
    return list({number: file for (number, _), file in files}.values())  # .open comes before .seg


class _Refs:
    """The ids of one incarnation: which of its rows use, and what they are in common. `ids` is of its dictionary."""

    def __init__(self, ids: Mapping[str, Any]) -> None:
        self._ids = ids
        self._highest = dict.fromkeys(ids, 0)
        self._unnamed = 0

    def seen(self, segments: Iterable[tuple[Path, Any]]) -> Iterator[tuple[Path, Any]]:
        """The same segments; their rows were looked at."""
        for file, rows in segments:
            self.look(rows)
            yield file, rows

    def look(self, rows: Any) -> None:
        unnamed = []
        for column in rows.dtype.names:
            kind = column.removesuffix("_ref")
            if kind == column:
                continue
            highest = int(rows[column].max(initial=0))
            self._highest[kind] = max(self._highest[kind], highest)
            if highest >= len(self._ids[kind]):
                unnamed.append(rows[column] >= len(self._ids[kind]))
        if unnamed:
            self._unnamed += int(np.logical_or.reduce(unnamed).sum())

    def losses(self, path: Path, who: Incarnation, table: Table) -> list[Loss]:
        """What the dictionary lacks."""
        file = f"{path / 'dictionaries' / who.name}.jsonl"
        text = f"{file}: cut or damaged, it lacks names that {self._unnamed} rows refer to"
        return [Loss(who.name, table.name, 0, text)] if self._unnamed else []

    def ids(self) -> dict[str, Any]:
        """kind -> array of the common ids, 0 for those without a name."""
        return {kind: np.pad(ids, (0, max(0, self._highest[kind] + 1 - len(ids)))) for kind, ids in self._ids.items()}


def _read_board(path: Path, part: _Part, names: _Names) -> Any:
    """The places that were busy when the incarnation died; of one that closed in order, what it left to others."""
    number, who, clock = part
    file = path / "in_flight" / f"{who.name}.board"
    content = file.read_bytes() if file.exists() and (who.left_in_flight or not who.closed) else b""
    rows = np.frombuffer(content, IN_FLIGHT.dtype, len(content) // IN_FLIGHT.row_bytes)
    rows = rows[rows["busy"] == 1]
    refs = _Refs(names.tables_for(path / "dictionaries" / f"{who.name}.jsonl"))
    refs.look(rows)
    return _in_common(rows, number, refs.ids(), clock)


def _in_common(rows: Any, number: int, ids: Mapping[str, Any], clock: ProcessClock) -> Any:
    """The rows with common ids and by the common clock."""
    result = np.empty(len(rows), np.dtype([("incarnation", "<u2"), *rows.dtype.descr]))
    result["incarnation"] = number
    for column in rows.dtype.names:
        kind = column.removesuffix("_ref")
        result[column] = rows[column] if kind == column else ids[kind][rows[column]]
    if "start_ns" in rows.dtype.names:
        result["start_ns"] = clock.corrected(rows["start_ns"])
    return result


def _sorted(parts: list[Any], table: Table) -> Any:
    rows = np.concatenate(parts) if parts else np.empty(0, np.dtype([("incarnation", "<u2"), *table.dtype.descr]))
    keys = _ORDER.get(table.name, ("start_ns",))
    return rows[np.lexsort([rows[key] for key in reversed(keys)])]


def _trace(rows: Any) -> Any:
    """Trace ids mixed into one 64-bit number per row, to compare many at once."""
    return rows["trace_hi"] * np.uint64(0x9E3779B97F4A7C15) + rows["trace_lo"]


def _ended(in_flight: Any, requests: RequestLog) -> Any:
    """Which requests of the boards have a row."""
    traces, ended = _trace(in_flight), np.zeros(len(in_flight), bool)
    if len(in_flight):
        for batch in requests.batches():
            ended |= np.isin(traces, _trace(batch))
    return ended


def _boards_missing(path: Path, incarnations: tuple[Incarnation, ...]) -> list[Loss]:
    """Of processes that left requests in flight. Shipping puts the board of a killed process behind its last rows."""
    found = []
    for who in incarnations:
        file = path / "in_flight" / f"{who.name}.board"
        if who.role in WITH_ROWS and (who.left_in_flight or not who.closed) and not file.exists():
            text = f"{file}: missing; it still writes, or its last rows and what it had in flight have not come here"
            found.append(Loss(who.name, "in_flight", 0, text))
    return found


def _reported_and_gone(
    path: Path,
    manifest: Mapping[str, Any],
    incarnations: tuple[Incarnation, ...],
    decisions: Any,
    events: list[dict[str, Any]],
    requests: RequestLog,
    losses: list[Loss],
) -> list[Loss]:
    """Requests that were known to the leading process, of which neither a row nor a known gap is left.

    It notes which rows each decision was made with, and in the manifest what Locust's reports said; so it is known what
    has to be here of a process that is missing altogether.
    """
    numbers = {who.name: number for number, who in enumerate(incarnations)}
    known = _known_rows(manifest, events)
    for name, number in numbers.items():
        mine = decisions[decisions["incarnation"] == number]
        if len(mine):
            known.setdefault(name, []).append((int(mine["rows_seen"].max()), int(mine["t_ns"].max())))
    found = []
    for name in sorted(known):
        here = requests.rows_of_process(numbers[name]) if name in numbers else 0
        here += sum(loss.missing_rows for loss in losses if (loss.incarnation, loss.table) == (name, "requests"))
        reported = max(rows for rows, _ in known[name])
        if reported > here:
            before = [t_ns for rows, t_ns in known[name] if rows <= here and t_ns]
            by = [t_ns for rows, t_ns in known[name] if rows == reported and t_ns]
            gone = reported - here
            text = f"{path / 'requests'}: {name} had written {reported} rows by its last report, {gone} are missing"
            if name not in numbers:
                text += "; nothing of it is here, so if it has a --spool, ship that too (docs/shipping.md)"
            found.append(Loss(name, "requests", gone, text, max(before, default=None), min(by, default=None)))
    return found


def _known_rows(manifest: Mapping[str, Any], events: list[dict[str, Any]]) -> dict[str, list[tuple[int, int]]]:
    """incarnation -> (rows it had written, when that was known; 0: not stated)."""
    known: dict[str, list[tuple[int, int]]] = {}
    for name, about in manifest.get("incarnations", {}).items():
        known.setdefault(name, []).append((int(about["requests"]), 0))
    for event in events:
        if event["kind"] == "seen":
            for name, (seq, *_) in event["rows"].items():
                known.setdefault(name, []).append((seq, int(event["t_ns"])))
    return known


def _events(path: Path, who: Incarnation, losses: list[Loss]) -> Iterator[dict[str, Any]]:
    return _lines(path / "events" / f"{who.name}.jsonl", _is_event, losses)


def _timed(told: list[list[dict[str, Any]]], clocks: tuple[ProcessClock, ...]) -> Iterator[dict[str, Any]]:
    """The events of all processes, by the common clock."""
    for events, clock in zip(told, clocks, strict=True):
        times = clock.corrected(np.array([event["t_ns"] for event in events], np.int64)).tolist()
        yield from ({**event, "t_ns": t_ns} for event, t_ns in zip(events, times, strict=True))


def _is_name(line: Mapping[str, Any]) -> bool:
    number, name = line.get("id"), line.get("name")
    return line.get("kind") in REF_KINDS and isinstance(name, str) and isinstance(number, int) and 0 < number < 1 << 16


def _is_event(line: Mapping[str, Any]) -> bool:
    t_ns, kind = line.get("t_ns"), line.get("kind")
    if not isinstance(t_ns, int) or not isinstance(kind, str):
        return False
    return is_whole(line) and (kind not in _LOOKED_INTO or isinstance(line.get(_LOOKED_INTO[kind]), dict))


def _lines(file: Path, fits: Callable[[Mapping[str, Any]], bool], losses: list[Loss]) -> Iterator[dict[str, Any]]:
    """The whole lines of a file of JSON lines. A last line without its end is one that a kill cut; it is not there.

    A line that does not fit is damaged, which is a loss, and so is a file that is not there: every process makes one.
    """
    if not file.exists():
        losses.append(Loss(file.stem, file.parent.name, 0, f"{file}: missing"))
        return
    *whole, _cut = file.read_bytes().split(b"\n")
    damaged = 0
    for line in whole:
        try:
            content = json.loads(line)
        except ValueError:
            content = None
        if isinstance(content, dict) and fits(content):
            yield content
        else:
            damaged += 1
    if damaged:
        text = f"{file}: {damaged} of {len(whole)} lines are damaged"
        losses.append(Loss(file.stem, file.parent.name, damaged, text))

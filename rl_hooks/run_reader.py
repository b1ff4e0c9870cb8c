"""Reading a run folder: all incarnations' rows in one table each, with common names, and what is missing.

Ids behind `*_ref` columns are private to the incarnation that wrote them. Here they become positions in one list of
names per kind, so that everybody after this module can forget that there were several processes.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rl_hooks.row import IN_FLIGHT, TABLES, Table
from rl_hooks.run_folder import Incarnation, read_incarnations, read_manifest
from rl_hooks.segments import read_segment

REF_KINDS = ("endpoint", "instance", "profile", "phase", "policy")

# What rows are sorted by; the order of writing decides between equals.
_ORDER = {
    "requests": ("start_ns",),
    "sessions": ("start_ns",),
    "decisions": ("tick", "service"),
    "observations": ("tick", "service"),
    "samples": ("t_ns", "service", "instance_ref"),
}


@dataclass(frozen=True)
class Loss:
    """Rows that were written or promised and cannot be read."""

    incarnation: str
    table: str
    missing_rows: int  # 0 when only the file is known to be damaged, not how much it held
    text: str


@dataclass(frozen=True)
class Run:
    """Everything a run folder tells. Arrays have the table's columns behind a leading `incarnation` (u2)."""

    path: Path
    manifest: Mapping[str, Any]
    incarnations: tuple[Incarnation, ...]
    names: Mapping[str, tuple[str, ...]]  # kind -> names; position 0 is "" and means none
    requests: Any  # sorted by start_ns
    sessions: Any  # sorted by start_ns
    decisions: Any  # sorted by tick, service
    observations: Any  # what the deciding process knew; sorted by tick, service
    samples: Any  # sorted by t_ns, service, instance
    in_flight: Any  # requests that were sent when their process died: outcome unknown; columns of IN_FLIGHT
    events: tuple[Mapping[str, Any], ...]  # sorted by t_ns
    losses: tuple[Loss, ...]


def read_run(path: Path) -> Run:
    """Read a run folder as far as it goes; `losses` says what could not be read.

    Raises RunFolderError when `path` is not a run folder.
    """
    manifest = read_manifest(path)
    incarnations = read_incarnations(path)
    losses = [Loss(who.name, "processes", 0, who.damage) for who in incarnations if who.damage is not None]
    names = _Names(losses)
    merged = {
        name: _sorted([_read_table(path, i, who, table, names, losses) for i, who in enumerate(incarnations)], table)
        for name, table in TABLES.items()
    }
    in_flight = _sorted([_read_board(path, i, who, names) for i, who in enumerate(incarnations)], IN_FLIGHT)
    events = sorted(_events(path, incarnations, losses), key=lambda event: int(event["t_ns"]))
    losses += _seen_and_gone(path, incarnations, merged["decisions"], merged["requests"], losses)
    return Run(
        path=path,
        manifest=manifest,
        incarnations=incarnations,
        in_flight=in_flight[~np.isin(_trace(in_flight), _trace(merged["requests"]))],
        events=tuple(events),
        names=names.by_kind(),
        losses=tuple(losses),
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


def _read_table(path: Path, number: int, who: Incarnation, table: Table, names: _Names, losses: list[Loss]) -> Any:
    """All readable rows of one incarnation, and what is missing between and behind them into `losses`."""
    parts, expected = [], 1
    for file in sorted((path / table.name).glob(f"{who.name}.*"), key=lambda file: int(file.name.split(".")[-2])):
        segment = read_segment(file, table)
        if segment.first_seq > expected:
            gap = segment.first_seq - expected
            text = f"{file}: {gap} rows before it are missing (numbers {expected} to {segment.first_seq - 1})"
            losses.append(Loss(who.name, table.name, gap, text))
        if segment.damage is not None:
            losses.append(Loss(who.name, table.name, segment.missing_rows, segment.damage))
        if segment.first_seq:
            expected = segment.first_seq + len(segment.rows) + segment.missing_rows
        parts.append(segment.rows)
    promised = who.last_seq[table.name] if who.last_seq is not None else 0
    if promised >= expected:
        text = f"{path / table.name}: {who.name} wrote {promised} rows, the last {promised - expected + 1} are missing"
        losses.append(Loss(who.name, table.name, promised - expected + 1, text))
    rows = np.concatenate(parts) if parts else np.empty(0, table.dtype)
    unnamed = _unnamed_rows(rows, who, path, names)
    if unnamed:
        text = f"{path / 'dictionaries' / who.name}.jsonl: cut or damaged, it lacks names that {unnamed} rows refer to"
        losses.append(Loss(who.name, table.name, 0, text))
    return _with_common_ids(rows, number, who, path, names)


def _unnamed_rows(rows: Any, who: Incarnation, path: Path, names: _Names) -> int:
    """How many rows refer to an id that the dictionary does not hold."""
    tables = names.tables_for(path / "dictionaries" / f"{who.name}.jsonl")
    unnamed = np.zeros(len(rows), bool)
    for column in rows.dtype.names:
        if column.endswith("_ref"):
            unnamed |= rows[column] >= len(tables[column.removesuffix("_ref")])
    return int(unnamed.sum())


def _read_board(path: Path, number: int, who: Incarnation, names: _Names) -> Any:
    """The places that were busy when the incarnation died; none for one that closed in order."""
    file = path / "in_flight" / f"{who.name}.board"
    content = file.read_bytes() if file.exists() and not who.closed else b""
    rows = np.frombuffer(content, IN_FLIGHT.dtype, len(content) // IN_FLIGHT.row_bytes)
    return _with_common_ids(rows[rows["busy"] == 1], number, who, path, names)


def _with_common_ids(rows: Any, number: int, who: Incarnation, path: Path, names: _Names) -> Any:
    result = np.empty(len(rows), np.dtype([("incarnation", "<u2"), *rows.dtype.descr]))
    result["incarnation"] = number
    tables = names.tables_for(path / "dictionaries" / f"{who.name}.jsonl")
    for column in rows.dtype.names:
        values = rows[column]
        if column.endswith("_ref"):
            table = tables[column.removesuffix("_ref")]
            values = np.where(values < len(table), table[np.minimum(values, len(table) - 1)], 0)
        result[column] = values
    return result


def _sorted(parts: list[Any], table: Table) -> Any:
    rows = np.concatenate(parts) if parts else np.empty(0, np.dtype([("incarnation", "<u2"), *table.dtype.descr]))
    keys = _ORDER.get(table.name, ("start_ns",))
    return rows[np.lexsort([rows[key] for key in reversed(keys)])]


def _trace(rows: Any) -> Any:
    """Trace ids mixed into one 64-bit number per row, to compare many at once."""
    return rows["trace_hi"] * np.uint64(0x9E3779B97F4A7C15) + rows["trace_lo"]


def _seen_and_gone(
    path: Path, incarnations: tuple[Incarnation, ...], decisions: Any, requests: Any, losses: list[Loss]
) -> list[Loss]:
    """Requests that a process had written when it decided, of which neither a row nor a known gap is left."""
    found = []
    for number, who in enumerate(incarnations):
        seen = int(decisions["rows_seen"][decisions["incarnation"] == number].max(initial=0))
        known = sum(loss.missing_rows for loss in losses if (loss.incarnation, loss.table) == (who.name, "requests"))
        gone = seen - known - int((requests["incarnation"] == number).sum())
        if gone > 0:
            text = f"{path / 'requests'}: {who.name} had written {seen} rows by its last decision, {gone} are missing"
            found.append(Loss(who.name, "requests", gone, text))
    return found


def _events(path: Path, incarnations: tuple[Incarnation, ...], losses: list[Loss]) -> Iterator[dict[str, Any]]:
    for who in incarnations:
        yield from _lines(path / "events" / f"{who.name}.jsonl", _is_event, losses)


def _is_name(line: Mapping[str, Any]) -> bool:
    number, name = line.get("id"), line.get("name")
    return line.get("kind") in REF_KINDS and isinstance(name, str) and isinstance(number, int) and 0 < number < 1 << 16


def _is_event(line: Mapping[str, Any]) -> bool:
    counted = line.get("kind") != "users" or isinstance(line.get("counts"), dict)
    return isinstance(line.get("t_ns"), int) and isinstance(line.get("kind"), str) and counted


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

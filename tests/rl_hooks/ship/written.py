"""Runs that are written by a process of their own while somebody ships them, and the shipper as a process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rl_hooks.export.__main__ import main as export
from rl_hooks.row import IN_FLIGHT, TABLES
from rl_hooks.run_folder import RunWriter, create_part, create_run_folder, update_manifest
from tests import builders
from tests.processes import ROOT

TIMEOUT_S = 60
Process = subprocess.Popen[str]


def write(path: Path, role: str, pieces: int, pause_s: float, end: str) -> None:
    """Write a random run, or the worker's or master's part of one, sealing it in so many pieces.

    `end`: close, or kill (the last piece is not sealed).
    """
    lost = builders.rows("in_flight", [{"start_ns": builders.at(200.5), "service": 1}])
    source = builders.random_run(count=600, run_id="run", in_flight=lost)
    if role == "worker":
        create_part(path)
    else:
        create_run_folder(path, {**source.manifest, "state": "running", "ended_unix_ns": None})
    writer = RunWriter(path, role, 8)
    for kind, names in source.names.items():
        for name in names:
            writer.ref(kind, name)
    for row in builders._plain(source.in_flight, IN_FLIGHT):
        IN_FLIGHT.struct.pack_into(writer.board.map, writer.board.take(), *row, 1)
    tables = {
        name: builders._plain(getattr(source, name), table) for name, table in TABLES.items() if wrote(role, name)
    }
    for piece in range(pieces):
        for event in source.events[piece::pieces] if role != "worker" else ():
            writer.event(
                event["kind"], **{name: value for name, value in event.items() if name not in ("t_ns", "kind")}
            )
        for name, rows in tables.items():
            for row in rows[piece * len(rows) // pieces : (piece + 1) * len(rows) // pieces]:
                writer.tables[name].append(*row)
        if piece < pieces - 1:
            writer.rotate()
            writer.maintain()
            time.sleep(pause_s)
    if role == "master":
        seen = {"worker.elsewhere.00000000": [3, 0]}
        writer.event("seen", tick=1, observed_ns=builders.at(2), rows=seen)
    if end == "close":
        writer.close()
        if role != "worker":
            update_manifest(path, state="complete", ended_unix_ns=source.manifest["ended_unix_ns"])
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def wrote(role: str, table: str) -> bool:
    return role == "local" or (table in ("requests", "sessions")) == (role == "worker")


def writing(path: Path, role: str = "local", pieces: int = 4, pause_s: float = 0.0, end: str = "close") -> Process:
    """A process that writes, see `write`."""
    call = f"write(Path({str(path)!r}), {role!r}, {pieces}, {pause_s}, {end!r})"
    program = f"from pathlib import Path; from tests.rl_hooks.ship.written import write; {call}"
    return subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, text=True)


def written(path: Path, role: str = "local", pieces: int = 4, end: str = "close") -> Path:
    """A run that was written, or was being written when its process was killed."""
    assert writing(path, role, pieces, end=end).wait(TIMEOUT_S) == (0 if end == "close" else -signal.SIGKILL)
    return path


def ship(*arguments: object, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """The shipper, until it ends."""
    command = [sys.executable, "-m", "rl_hooks.ship", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


@contextmanager
def shipping(*arguments: object, log: Path) -> Iterator[Process]:
    """The shipper while it is at work; what it says goes into `log`."""
    command = [sys.executable, "-m", "rl_hooks.ship", *map(str, arguments), "--every", "0.1"]
    with log.open("a") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(TIMEOUT_S)


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, but what is on its way."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".arriving" not in path.parts
    }


def bundle(runs: Path | str | Sequence[str], out: Path, code: int = 0) -> dict[str, bytes]:
    """What the exporter makes of a run, here or in a store."""
    assert export([str(runs), "--out", str(out / "bundle"), "--logs", str(out / "logs")]) == code
    return files(out)

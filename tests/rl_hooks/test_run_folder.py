"""The run folder: made once, written by several processes, read after any interruption."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rl_hooks.export.facts import told
from rl_hooks.row import DECISIONS, IN_FLIGHT, REQUESTS
from rl_hooks.run_folder import (
    SEGMENT_BYTES,
    RunFolderError,
    RunWriter,
    create_part,
    create_run_folder,
    holds_lock,
    read_incarnations,
    read_manifest,
    update_manifest,
)
from rl_hooks.run_reader import read_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    create_run_folder(path, {"run_id": "run"})
    return path


def request(writer: RunWriter, **special: int) -> None:
    """Write one request row: ones everywhere, except for what the test is about."""
    row = {name: 1 for name, _, _ in REQUESTS.columns if name != "seq"}
    row |= {name: 0 for name in row if name.endswith("_ref")} | special
    writer.tables["requests"].append(*row.values())


def in_flight(writer: RunWriter, **special: int) -> int:
    row = {name: 1 for name, _, _ in IN_FLIGHT.columns if name != "busy"}
    row |= {name: 0 for name in row if name.endswith("_ref")} | special
    place = writer.board.take()
    IN_FLIGHT.struct.pack_into(writer.board.map, place, *row.values(), 1)
    return place


def test_a_folder_with_content_is_never_written_into(folder: Path) -> None:
    with pytest.raises(RunFolderError) as caught:
        create_run_folder(folder, {})
    text = f"{folder}: the run folder exists and is not empty; choose another with --run-folder, or remove it"
    assert str(caught.value) == text


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    create_run_folder(tmp_path, {"run_id": "x"})
    assert read_manifest(tmp_path)["run_id"] == "x"


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(RunFolderError) as caught:
        create_run_folder(file / "run", {})
    text = f"{file / 'run'}: the run folder cannot be written (Not a directory); choose another with --run-folder"
    assert str(caught.value) == text
    with pytest.raises(RunFolderError) as caught:
        create_run_folder(file, {})
    assert str(caught.value) == f"{file}: a file of that name is in the way; choose another with --run-folder"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError) as caught:
        read_run(tmp_path)
    assert str(caught.value) == f"{tmp_path}: not a run folder, it has no manifest.json"
    (tmp_path / "processes").mkdir()
    (tmp_path / "processes" / "worker.host.0.json").write_text("{}")
    with pytest.raises(
        RunFolderError, match=r"no manifest\.json; it is a worker's part of one: ship it to where its ma"
    ):
        read_manifest(tmp_path)
    with pytest.raises(RunFolderError) as caught:
        read_run(tmp_path / "nothing")
    text = f"{tmp_path / 'nothing'}: there is no such folder; give the folder of a run (it holds manifest.json)"
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "cannot be read as a manifest"),
        ("[]", "not the manifest of a run, it has no schema_version"),
        ('{"schema_version": 99}', "schema version 99, this program reads 4; export it with the version"),
    ],
)
def test_a_broken_manifest_is_refused(folder: Path, content: str, complaint: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(RunFolderError, match=complaint):
        read_run(folder)


@pytest.mark.parametrize("damage", [{"scenario": "../../evil"}, {"started_unix_ns": "yesterday"}])
def test_a_manifest_whose_values_would_end_in_file_names_is_checked(folder: Path, damage: dict[str, str]) -> None:
    update_manifest(folder, **damage)
    with pytest.raises(RunFolderError, match=r"manifest\.json: damaged, it says scenario "):
        read_run(folder)


@pytest.mark.parametrize("kind", ["events", "dictionaries"])
def test_a_file_that_every_process_makes_cannot_vanish_unnoticed(folder: Path, kind: str) -> None:
    writer = RunWriter(folder, "local", 4)
    request(writer)
    writer.close()
    file = folder / kind / f"{writer.incarnation}.jsonl"
    file.unlink()
    assert [loss.text for loss in read_run(folder).losses] == [f"{file}: missing"]


def test_the_manifest_is_replaced_whole(folder: Path) -> None:
    update_manifest(folder, state="complete")
    assert read_manifest(folder) == {"schema_version": 4, "run_id": "run", "state": "complete"}
    assert not list(folder.glob("*.new"))


def test_rows_of_two_processes_share_one_list_of_names(folder: Path) -> None:
    one, two = RunWriter(folder, "worker", 4), RunWriter(folder, "worker", 4)
    one.ref("endpoint", "GET /a")
    request(one, start_ns=30, endpoint_ref=one.ref("endpoint", "GET /b"))
    request(two, start_ns=10, endpoint_ref=two.ref("endpoint", "GET /b"))
    request(two, start_ns=20, endpoint_ref=two.ref("endpoint", "GET /a"))
    one.close()
    two.close()
    run = read_run(folder)
    names = run.names["endpoint"]
    assert [names[ref] for ref in run.requests["endpoint_ref"]] == ["GET /b", "GET /a", "GET /b"]
    assert list(run.requests["start_ns"]) == [10, 20, 30]
    assert run.losses == ()
    assert len({who.name for who in run.incarnations}) == 2


def test_a_run_without_rows_can_be_read(folder: Path) -> None:
    RunWriter(folder, "local", 4).close()
    run = read_run(folder)
    assert (len(run.requests), len(run.decisions), len(run.in_flight), run.events, run.losses) == (0, 0, 0, (), ())


def test_events_come_in_order_of_time_and_a_cut_line_is_not_there(folder: Path) -> None:
    writer = RunWriter(folder, "local", 4)
    writer.event("phase", phase="morning")
    writer.event("users", counts={"a": 1})
    with (folder / "events" / f"{writer.incarnation}.jsonl").open("a") as file:
        file.write('{"t_ns": 1, "kind": "cut')
    assert [event["kind"] for event in read_run(folder).events] == ["phase", "users"]


def test_what_is_missing_is_named(folder: Path) -> None:
    writer = RunWriter(folder, "local", 4)
    for _ in range(3):
        request(writer)
        request(writer)
        writer.rotate()
        writer.maintain()
    writer.close()
    first, second, third = sorted((folder / "requests").iterdir())
    shutil.move(second, folder / "elsewhere")
    (loss,) = read_run(folder).losses
    assert (loss.table, loss.missing_rows) == ("requests", 2)
    assert loss.text == f"{third}: 2 rows before it are missing (numbers 3 to 4)"
    third.unlink()
    losses = read_run(folder).losses
    assert [loss.missing_rows for loss in losses] == [4]
    assert losses[0].text.endswith("wrote 6 rows, the last 4 are missing")
    assert len(read_run(folder).requests) == 2
    first.write_bytes(first.read_bytes()[:-1])
    assert sum(loss.missing_rows for loss in read_run(folder).losses) == 5


def test_a_damaged_dictionary_is_said_and_no_name_is_guessed(folder: Path) -> None:
    writer = RunWriter(folder, "local", 4)
    request(writer, endpoint_ref=writer.ref("endpoint", "GET /a"))
    (folder / "dictionaries" / f"{writer.incarnation}.jsonl").write_text("")
    run = read_run(folder)
    assert run.names["endpoint"][run.requests["endpoint_ref"][0]] == ""
    assert "it lacks names that 1 rows refer to" in run.losses[0].text


@pytest.mark.parametrize(("folder_name", "name"), [("events", "fault"), ("dictionaries", "GET /b")])
def test_a_damaged_line_is_a_loss_and_the_others_are_read(folder: Path, folder_name: str, name: str) -> None:
    writer = RunWriter(folder, "local", 4)
    for endpoint, kind in (("GET /a", "phase"), ("GET /b", "fault")):
        request(writer, endpoint_ref=writer.ref("endpoint", endpoint))
        writer.event(kind)
    writer.close()
    file = folder / folder_name / f"{writer.incarnation}.jsonl"
    lines = file.read_bytes().split(b"\n")
    file.write_bytes(b"\n".join([lines[0][:-4], *lines[1:]]))
    run = read_run(folder)
    assert run.losses[0].text == f"{file}: 1 of 2 lines are damaged"
    assert name in [event["kind"] for event in run.events] + list(run.names["endpoint"])


@pytest.mark.parametrize(
    ("content", "word"), [("", "damaged"), ("[]", "damaged"), ("{}", "damaged"), (None, "missing")]
)
def test_rows_of_a_process_that_says_nothing_of_itself_are_read(folder: Path, content: str | None, word: str) -> None:
    writer = RunWriter(folder, "worker", 4)
    request(writer)
    writer.close()
    file = folder / "processes" / f"{writer.incarnation}.json"
    file.unlink() if content is None else file.write_text(content)
    run = read_run(folder)
    assert len(run.requests) == 1
    assert [(who.name, who.role, who.closed) for who in run.incarnations] == [(writer.incarnation, "worker", False)]
    assert [loss.text for loss in run.losses] == [f"{file}: {word}; whether it closed in order is not known"]


def test_rows_that_a_decision_had_seen_cannot_vanish_unnoticed(folder: Path) -> None:
    """A killed process never said how much it wrote, but its decisions did."""
    writer = RunWriter(folder, "local", 4)
    for _ in range(3):
        request(writer)
    decision = {name: 0 for name, _, _ in DECISIONS.columns if name != "seq"} | {"rows_seen": 3}
    writer.tables["decisions"].append(*decision.values())
    assert read_run(folder).losses == ()
    for file in (folder / "requests").iterdir():
        file.unlink()
    (loss,) = read_run(folder).losses
    assert (loss.table, loss.missing_rows) == ("requests", 3)
    assert loss.text.endswith("had written 3 rows by its last report, 3 are missing")


def test_what_a_killed_process_had_in_flight_is_known_as_unknown(folder: Path) -> None:
    writer = RunWriter(folder, "local", 4)
    in_flight(writer, trace_lo=5, service=2)
    ended = in_flight(writer, trace_lo=6)
    in_flight(writer, trace_lo=7)
    request(writer, trace_lo=7)  # killed between writing the row and clearing the place
    writer.board.end(ended)
    run = read_run(folder)
    assert [(int(row["trace_lo"]), int(row["service"])) for row in run.in_flight] == [(5, 2)]
    writer.close()
    assert len(read_run(folder).in_flight) == 0


def test_requests_of_others_are_left_in_flight_by_a_process_that_ends_in_order(folder: Path) -> None:
    writer = RunWriter(folder, "local", 4)
    in_flight(writer, trace_lo=5)
    writer.close(left_in_flight=True)
    run = read_run(folder)
    assert [int(row["trace_lo"]) for row in run.in_flight] == [5]
    assert run.losses == ()
    (folder / "in_flight" / f"{writer.incarnation}.board").unlink()
    assert [loss.table for loss in read_run(folder).losses] == ["in_flight"]


def test_rows_that_another_process_had_reported_cannot_vanish_unnoticed(folder: Path) -> None:
    master, worker = RunWriter(folder, "master", 4), RunWriter(folder, "worker", 4)
    for _ in range(3):
        request(worker)
    for tick, seq in enumerate((2, 3)):
        master.event("seen", tick=tick, observed_ns=1, rows={worker.incarnation: [seq, 1]})
    assert read_run(folder).losses == ()
    for path in folder.glob(f"*/{worker.incarnation}*"):
        path.unlink()
    (loss,) = read_run(folder).losses
    assert (loss.incarnation, loss.table, loss.missing_rows) == (worker.incarnation, "requests", 3)
    text = f"{folder / 'requests'}: {worker.incarnation} had written 3 rows by its last report, 3 are missing"
    assert loss.text == f"{text}; nothing of it is here, so if it has a --spool, ship that too (docs/shipping.md)"


def test_a_worker_that_left_nothing_is_missed_because_the_manifest_knows_it(folder: Path) -> None:
    """As when the disk of a worker with a spool of its own is gone before anything was shipped."""
    RunWriter(folder, "master", 4).close()
    update_manifest(folder, incarnations={"worker.gone.12345678": {"requests": 7}, "worker.idle.1": {"requests": 0}})
    (loss,) = read_run(folder).losses
    assert (loss.incarnation, loss.missing_rows, loss.from_ns, loss.to_ns) == ("worker.gone.12345678", 7, None, None)
    text = "worker.gone.12345678 had written 7 rows by its last report, 7 are missing"
    assert loss.text.startswith(f"{folder / 'requests'}: {text}; nothing of it is here")


@pytest.mark.parametrize("known", [[], {"worker": 7}, {"worker": {}}])
def test_a_manifest_that_does_not_say_who_wrote_what_is_damaged(folder: Path, known: object) -> None:
    update_manifest(folder, incarnations=known)
    with pytest.raises(RunFolderError, match="it does not say what each of its incarnations has written"):
        read_run(folder)


def test_a_gap_is_known_by_whom_and_from_when_to_when(folder: Path) -> None:
    writer = RunWriter(folder, "worker", 4)
    for start_ns in (10, 20, 30, 40, 50):
        request(writer, start_ns=start_ns)
        writer.rotate()
    writer.maintain()
    writer.close()
    for number in (1, 2, 4):
        (folder / "requests" / f"{writer.incarnation}.{number:06}.seg").unlink()
    inner, last = read_run(folder).losses
    assert (inner.incarnation, inner.missing_rows, inner.from_ns, inner.to_ns) == (writer.incarnation, 2, 10, 40)
    assert (last.missing_rows, last.from_ns, last.to_ns) == (1, 40, None)
    when = "they were written after 1970-01-01T00:00:00.000000Z and before 1970-01-01T00:00:00.000000Z"
    assert told(inner) == f"{inner.text}; {when}"


def test_what_was_in_flight_cannot_vanish_unnoticed(folder: Path) -> None:
    """Shipping puts the board of a killed process behind its last rows, so without it there may be more to come."""
    writer = RunWriter(folder, "worker", 4)
    request(writer)
    file = folder / "in_flight" / f"{writer.incarnation}.board"
    board = file.read_bytes()
    file.unlink()
    text = f"{file}: missing; it still writes, or its last rows and what it had in flight have not come here"
    assert [loss.text for loss in read_run(folder).losses] == [text]
    file.write_bytes(board)
    writer.close()
    file.unlink()
    assert read_run(folder).losses == ()


def test_a_segment_that_is_there_unsealed_and_sealed_is_read_once(folder: Path) -> None:
    writer = RunWriter(folder, "worker", 4)
    request(writer, start_ns=1)
    unsealed = folder / "requests" / f"{writer.incarnation}.000000.open"
    early = unsealed.read_bytes()
    request(writer, start_ns=2)
    writer.close()
    unsealed.write_bytes(early)
    run = read_run(folder)
    assert list(run.requests["start_ns"]) == [1, 2]
    assert run.losses == ()


def test_a_process_holds_a_lock_until_it_has_closed_or_is_gone(folder: Path) -> None:
    writer = RunWriter(folder, "local", 4)
    assert [who.locked for who in read_incarnations(folder)] == [True]
    assert holds_lock(folder, writer.incarnation)
    writer.close()
    assert not holds_lock(folder, writer.incarnation)
    program = f"""
import os, signal
from pathlib import Path
from rl_hooks.run_folder import RunWriter
RunWriter(Path({str(folder)!r}), "worker", 4)
input()
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, env=environment)
    processes = folder / "processes"
    while not list(processes.glob("worker.*.json")):
        assert process.poll() is None
    (name,) = (path.stem for path in processes.glob("worker.*.json"))
    assert holds_lock(folder, name)
    process.communicate(b"\n", timeout=60)
    assert not holds_lock(folder, name)


def test_a_part_of_a_run_has_no_manifest_and_may_be_there_already(tmp_path: Path) -> None:
    part = tmp_path / "spool" / "run"
    create_part(part)
    create_part(part)
    RunWriter(part, "worker", 4).close()
    assert not (part / "manifest.json").exists()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFolderError) as caught:
        create_part(tmp_path / "file" / "run")
    text = f"{tmp_path / 'file' / 'run'}: a part of the run cannot be written there (Not a directory)"
    assert str(caught.value) == f"{text}; choose another place with --spool"


def test_every_row_accepted_before_kill_9_is_read(folder: Path) -> None:
    program = f"""
import os, signal, sys
from pathlib import Path
from tests.rl_hooks.test_run_folder import request
from rl_hooks.run_folder import RunWriter
writer = RunWriter(Path({str(folder)!r}), "local", 4)
for number in range(30000):
    request(writer, start_ns=number)
    if number % 1000 == 0:
        writer.maintain()
os.write(1, str(writer.rows()["requests"]).encode())
os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, env=environment, timeout=60, check=False
    )
    assert done.returncode == -9, done.stderr.decode()
    assert int(done.stdout) == 30000
    run = read_run(folder)
    assert list(run.requests["start_ns"]) == list(range(30000))
    assert run.losses == ()


@pytest.mark.root
def test_a_full_disk_is_told_while_there_is_room_for_the_rows_in_flight(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    size = 2 * sum(SEGMENT_BYTES.values()) + SEGMENT_BYTES["requests"] // 2
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        folder = disk / "run"
        create_run_folder(folder, {"run_id": "run"})
        writer = RunWriter(folder, "local", 4)
        per_segment = (SEGMENT_BYTES["requests"] - 64) // REQUESTS.row_bytes
        for number in range(per_segment + 1):  # one row into the spare, so that another spare is due
            request(writer, start_ns=number)
        with pytest.raises(OSError, match="No space left"):
            writer.maintain()
        for number in range(per_segment + 1, 2 * per_segment):  # the rest of that segment is still there
            request(writer, start_ns=number)
        assert list(read_run(folder).requests["start_ns"]) == list(range(2 * per_segment))
        with pytest.raises(RunFolderError) as caught:
            RunWriter(folder, "local", 4)
        text = f"{folder}: cannot be written (No space left on device); free some space or choose another place"
        assert str(caught.value).startswith(text)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_files_of_the_folder_hold_strict_json(folder: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        update_manifest(folder, value=float("nan"))
    assert json.loads((folder / "manifest.json").read_text())["run_id"] == "run"

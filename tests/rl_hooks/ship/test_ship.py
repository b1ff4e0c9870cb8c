"""Shipping to a shared folder: what arrives is what was written, whatever happens on the way."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rl_hooks.run_folder import BACKFILL
from rl_hooks.run_reader import read_run
from rl_hooks.segments import OPEN
from rl_hooks.stores.fetch import fetch
from rl_hooks.stores.folder import FolderStore
from tests.processes import ROOT, wait_until
from tests.rl_hooks.ship.written import bundle, files, ship, shipping, writing, written

TIMEOUT_S = 60


@pytest.fixture
def store(tmp_path: Path) -> Path:
    place = tmp_path / "store"
    place.mkdir()
    return place


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of forty sealed segments; to be read only."""
    return written(tmp_path_factory.mktemp("whole") / "run", pieces=10)


def without_boards(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in files(folder).items() if not name.startswith("in_flight/")}


def lines(*texts: str) -> str:
    return "".join(f"{text}\n" for text in texts)


# -- what arrives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "kill"])
def test_what_arrives_exports_to_the_same_bytes(store: Path, tmp_path: Path, end: str) -> None:
    run = written(tmp_path / "run", end=end)
    done = ship(run, "--to", store, "--once")
    assert (done.returncode, done.stderr) == (0, "")
    here = bundle(run, tmp_path / "here")
    assert len(here) == 11
    assert bundle(store / "run", tmp_path / "there") == here
    assert read_run(store / "run").losses == ()


def test_a_run_that_is_over_is_shipped_and_the_shipper_ends(whole: Path, store: Path) -> None:
    done = ship(whole, "--to", store)
    there = without_boards(whole)
    assert without_boards(store / "run") == there
    size = sum(map(len, there.values())) / 1e6
    head = f"shipping     {whole} to {store}, every 10 s"
    assert done.stdout == lines(head, f"shipped      run: {len(there)} files, {size:.1f} MB")
    assert (done.returncode, done.stderr) == (0, "")


def test_metrics_that_were_fetched_for_a_run_go_with_it(store: Path, tmp_path: Path) -> None:
    """Every export uses them, so one of what was shipped does as well."""
    run = written(tmp_path / "run")
    file = run / BACKFILL
    file.parent.mkdir()
    file.write_bytes(b"fetched")
    assert ship(run, "--to", store, "--once").returncode == 0
    assert (store / "run" / BACKFILL).read_bytes() == b"fetched"
    file.write_bytes(b"fetched anew")
    assert ship(run, "--to", store, "--once").returncode == 0
    assert (store / "run" / BACKFILL).read_bytes() == b"fetched anew"
    fetch(FolderStore(store / "run"), tmp_path / "cache")
    assert (tmp_path / "cache" / BACKFILL).read_bytes() == b"fetched anew"


def test_of_a_killed_process_all_whole_rows_arrive_without_the_empty_places(store: Path, tmp_path: Path) -> None:
    run = written(tmp_path / "run", end="kill")
    assert ship(run, "--to", store, "--once").returncode == 0
    here, there = files(run), files(store / "run")
    unsealed = [name for name in there if name.endswith(OPEN)]
    assert len(unsealed) == 5  # the newest of each table; the spares stay
    assert all(here[name].startswith(there[name]) and len(there[name]) < len(here[name]) for name in unsealed)
    (board,) = (name for name in there if name.startswith("in_flight/"))
    assert there[board] == here[board]


def test_shipping_again_puts_nothing(whole: Path, store: Path) -> None:
    assert ship(whole, "--to", store, "--once").returncode == 0
    inodes = {path: path.stat().st_ino for path in store.rglob("*")}
    done = ship(whole, "--to", store, "--once")
    assert {path: path.stat().st_ino for path in store.rglob("*")} == inodes
    assert done.stdout.endswith("shipped      run: 0 files, 0.0 MB\n")


def test_what_is_damaged_at_the_destination_is_put_again(whole: Path, store: Path) -> None:
    assert ship(whole, "--to", store, "--once").returncode == 0
    damaged = min((store / "run" / "requests").iterdir())
    content = damaged.read_bytes()
    damaged.write_bytes(bytes(len(content)))
    assert ship(whole, "--to", store, "--once").returncode == 0
    assert damaged.read_bytes() == content


def test_a_run_is_shipped_while_it_is_written_and_can_be_read_at_any_moment(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "run"
    run.parent.mkdir()
    process = writing(run, pieces=20, pause_s=0.1)
    wait_until((run / "manifest.json").exists, "the run has begun")
    rows = []
    with shipping(run, "--to", store, log=tmp_path / "log") as shipper:
        while shipper.poll() is None:
            if (store / "run" / "manifest.json").exists():
                found = read_run(store / "run")
                assert [loss.text for loss in found.losses if "board: missing" not in loss.text] == []
                rows.append(found.request_count)
        assert shipper.wait(TIMEOUT_S) == 0
    assert process.wait(TIMEOUT_S) == 0
    assert rows == sorted(rows)
    assert len(set(rows)) > 3
    assert without_boards(store / "run") == without_boards(run)


def test_runs_that_come_later_are_shipped_too_until_the_shipper_is_told_to_end(store: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    with shipping(runs, "--to", store, log=tmp_path / "log") as shipper:
        for number in (1, 2):
            written(runs / "run", pieces=2).rename(runs / f"run{number}")
            manifest = runs / f"run{number}" / "manifest.json"
            manifest.write_text(manifest.read_text().replace('"run_id": "run"', f'"run_id": "run{number}"'))
            wait_until((store / f"run{number}" / "manifest.json").exists, "its manifest has arrived")
        shipper.send_signal(signal.SIGTERM)
        assert shipper.wait(TIMEOUT_S) == 0
    for name in ("run1", "run2"):
        assert without_boards(store / name) == without_boards(runs / name)


# -- several processes ------------------------------------------------------------------------------------------------


def test_master_and_worker_ship_their_parts_into_one_run(store: Path, tmp_path: Path) -> None:
    master = written(tmp_path / "of_master" / "run", "master")
    worker = written(tmp_path / "of_worker" / "run", "worker")
    assert [ship(part, "--to", store, "--once").returncode for part in (worker, master)] == [0, 0]
    assert without_boards(store / "run") == without_boards(master) | without_boards(worker)
    run = read_run(store / "run")
    assert [(who.role, who.closed) for who in run.incarnations] == [("master", True), ("worker", True)]
    assert (run.request_count, len(run.decisions)) == (600, 600)


def test_a_part_that_has_not_arrived_is_missed(store: Path, tmp_path: Path) -> None:
    """The master's decisions had seen three rows of a process of which there is nothing."""
    master = written(tmp_path / "run", "master")
    assert ship(master, "--to", store, "--once").returncode == 0
    (loss,) = read_run(store / "run").losses
    assert (loss.incarnation, loss.table, loss.missing_rows) == ("worker.elsewhere.00000000", "requests", 3)
    text = "worker.elsewhere.00000000 had written 3 rows by its last report, 3 are missing"
    assert loss.text.startswith(f"{store / 'run' / 'requests'}: {text}; nothing of it is here, so if it has a --spool")


def test_a_part_of_which_more_is_to_come_says_so(store: Path, tmp_path: Path) -> None:
    writer = writing(tmp_path / "run", pieces=2, pause_s=TIMEOUT_S)
    try:
        wait_until(lambda: any((tmp_path / "run" / "requests").glob("*.seg")), "a segment is sealed")
        done = ship(tmp_path / "run", "--to", store, "--once")
    finally:
        writer.kill()
        writer.wait(TIMEOUT_S)
    (name,) = (path.stem for path in (tmp_path / "run" / "processes").iterdir())
    assert done.returncode == 3
    said = f"ship: not shipped to {store}, and still on this disk:"
    assert done.stderr == lines(said, f"  {tmp_path / 'run'}: the newest rows of {name}, which still writes")
    file = store / "run" / "in_flight" / f"{name}.board"
    text = f"{file}: missing; it still writes, or its last rows and what it had in flight have not come here"
    assert [loss.text for loss in read_run(store / "run").losses] == [text]
    assert ship(tmp_path / "run", "--to", store, "--once").returncode == 0  # now that it is known to be gone
    assert read_run(store / "run").losses == ()


def test_another_run_of_the_same_name_is_not_mixed_in(whole: Path, store: Path, tmp_path: Path) -> None:
    other = written(tmp_path / "run", pieces=2)
    assert ship(whole, "--to", store, "--once").returncode == 0
    before = files(store)
    done = ship(other, "--to", store, "--once")
    assert done.returncode == 3
    (lead,) = (path.stem for path in (whole / "processes").iterdir())
    text = f"{store}/run: another run of this name is there, led by {lead}; ship {other} to another place"
    assert done.stderr.startswith(f"ship: {text}; not tried again\nship: not shipped to {store}, and still on this")
    assert files(store) == before


# -- what can happen on the way ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("delete", [(), ("--delete-after-shipping",)])
def test_a_shipper_that_is_killed_again_and_again_loses_and_doubles_nothing(
    whole: Path, store: Path, tmp_path: Path, delete: tuple[str, ...]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    arrived = []
    for more in (1, 5, 11, 20):
        before = len(files(store))
        with shipping(run, "--to", store, *delete, log=tmp_path / "log") as shipper:
            while shipper.poll() is None and len(files(store)) < before + more:
                pass
            shipper.send_signal(signal.SIGKILL)
            shipper.wait(TIMEOUT_S)
        arrived.append(len(files(store)))
    assert len(set(arrived)) > 2, "the kills came too late to cut anything off"
    assert ship(run, "--to", store, "--once", *delete).returncode == 0
    assert without_boards(store / "run") == without_boards(whole)
    assert list((store / ".arriving").iterdir()) == []
    left = {path.suffix for path in run.rglob("*.*") if path.is_file()}
    assert left == {".json", ".jsonl", ".board"} | (set() if delete else {".seg"})


def test_when_the_store_is_away_recording_goes_on_and_all_arrives_when_it_is_back(store: Path, tmp_path: Path) -> None:
    runs, gone, log = tmp_path / "runs", tmp_path / "gone", tmp_path / "log"
    runs.mkdir()
    process = writing(runs / "run", pieces=20, pause_s=0.1)
    wait_until((runs / "run" / "manifest.json").exists, "the run has begun")
    with shipping(runs / "run", "--to", store, log=log) as shipper:
        wait_until((store / "run" / "manifest.json").exists, "something has arrived")
        store.rename(gone)
        wait_until(lambda: "trying again" in log.read_text(), "the shipper has noticed")
        before = len(files(runs / "run"))
        assert process.wait(TIMEOUT_S) == 0
        assert len(files(runs / "run")) > before
        gone.rename(store)
        assert shipper.wait(TIMEOUT_S) == 0
    said = log.read_text()
    assert f"ship: {store}: No such file or directory; trying again in 1 s\n" in said
    assert "ship: shipping again after " in said
    assert "Traceback" not in said
    assert without_boards(store / "run") == without_boards(runs / "run")


@pytest.mark.root
def test_a_full_store_deletes_nothing_here_and_goes_on_when_there_is_room(whole: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small file system needs root")
    store, run, log = tmp_path / "small", tmp_path / "run", tmp_path / "log"
    store.mkdir()
    shutil.copytree(whole, run)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "none", str(store)], check=False).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        with shipping(run, "--to", store, "--delete-after-shipping", log=log) as shipper:
            wait_until(lambda: "No space left on device; trying again in 2 s" in log.read_text(), "it is full")
            here, there = files(run), files(store / "run")
            assert here.keys() | there.keys() >= files(whole).keys()
            assert all(there[name] == files(whole)[name] for name in there)
            subprocess.run(["mount", "-o", "remount,size=10m", str(store)], check=True)
            assert shipper.wait(TIMEOUT_S) == 0
        assert without_boards(store / "run") == without_boards(whole)
        assert not list(run.rglob("*.seg"))
    finally:
        subprocess.run(["umount", "-l", str(store)], check=False)


def test_told_to_end_it_ships_once_more_and_says_what_is_left(store: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "runs" / "run", tmp_path / "log"
    run.parent.mkdir()
    writer = writing(run, pieces=2, pause_s=TIMEOUT_S)
    try:
        wait_until(lambda: any((run / "requests").glob("*.seg")), "a segment is sealed")
        with shipping(run.parent, "--to", store, log=log) as shipper:
            wait_until((store / "run" / "manifest.json").exists, "a pass is over")
            shipper.send_signal(signal.SIGTERM)
            assert shipper.wait(TIMEOUT_S) == 3
    finally:
        writer.kill()
        writer.wait(TIMEOUT_S)
    assert f"{run}: the newest rows of " in log.read_text()
    assert {path.name for path in (store / "run" / "requests").iterdir()} == {
        path.name for path in (run / "requests").glob("*.seg")
    }


def test_told_to_end_while_the_store_is_away_it_names_what_stays_here(whole: Path, store: Path, tmp_path: Path) -> None:
    log, run = tmp_path / "log", tmp_path / "run"
    shutil.copytree(whole, run)
    program = "import sys, rl_hooks.ship.__main__ as ship; ship.LAST_PASS_S = 0.5; sys.exit(ship.main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, str(run), "--to", str(store)]
    (store / "run").write_text("in the way")
    with log.open("w") as file:
        process = subprocess.Popen(command, stderr=file, cwd=ROOT)
    wait_until(lambda: "trying again" in log.read_text(), "the shipper has noticed")
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT_S) == 3
    here = without_boards(whole)
    said = log.read_text()
    assert "ship: the last pass did not end within 0.5 s\n" in said
    assert f"ship: not shipped to {store}, and still on this disk:\n  {run}: {len(here)} files, " in said


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "options", "complaint"),
    [
        ("nowhere", ["--to", "store"], "nowhere: there is no such folder; give the folder of a run, or the one that"),
        ("store", ["--to", "runs", "--once"], "store: neither a run folder nor one that has run folders in it"),
        ("runs", ["--to", "nowhere"], "nowhere: there is no such folder; mount the volume there, or make it with"),
        ("runs", ["--to", "runs/run"], "runs/run: what is in runs would be shipped onto itself; choose another place"),
        ("runs/run", ["--to", "runs"], "runs: what is in runs/run would be shipped onto itself; choose another place"),
        ("runs", ["--to", "gs://bucket"], "gs://bucket: unknown kind of store; write s3://bucket/prefix or the path"),
        ("runs", ["--to", "s3://"], "s3://: no bucket is named; write s3://bucket/prefix"),
        ("runs", ["--to", "store", "--endpoint-url", "http://x"], "store: a folder has no endpoint; leave"),
    ],
)
def test_what_cannot_be_shipped_is_refused_with_one_message(
    whole: Path,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    options: list[str],
    complaint: str,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole, tmp_path / "runs" / "run")
    before = files(tmp_path)
    done = ship(place, *options, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"ship: {complaint}")
    assert done.stderr.count("\n") == 1
    assert files(tmp_path) == before


def test_a_pause_of_no_seconds_is_refused(store: Path) -> None:
    done = ship(store, "--to", store, "--every", "0")
    assert done.returncode == 2
    assert "argument --every: 0 is not a number of seconds above 0, at most 3600" in done.stderr

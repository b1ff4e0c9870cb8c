"""What is shipped when: the parts of the shipper that need no process of their own."""

import shutil
from pathlib import Path

import pytest

from rl_hooks.run_folder import RunWriter, create_run_folder, update_manifest
from rl_hooks.ship import run as shipping_of_run
from rl_hooks.ship.contents import LEADS, find_runs, look
from rl_hooks.ship.run import RunShipping
from rl_hooks.stores.folder import FolderStore
from tests import builders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    create_run_folder(path, {"run_id": "run", "state": "running"})
    return path


def without_lock(writer: RunWriter) -> RunWriter:
    """As on a file system that has no locks."""
    file = writer.path / "processes" / f"{writer.incarnation}.json"
    text = file.read_text()
    assert '"locked": true' in text
    file.write_text(text.replace('"locked": true', '"locked": false'))
    return writer


def test_names_go_first_and_promises_last(tmp_path: Path) -> None:
    run = builders.write_run(builders.random_run(count=50), tmp_path / "run", close=False)
    dead = tmp_path / "dead"
    shutil.copytree(run, dead)  # a copy of it has no lock: its process is gone
    kinds = [file.name.split("/")[0] for file in look(dead).files]
    order = list(dict.fromkeys(kinds))
    assert order[0] == "dictionaries"
    assert order[-4:] == ["events", "in_flight", "processes", "manifest.json"]


def test_a_live_process_is_left_alone(folder: Path) -> None:
    writer = RunWriter(folder, "local", 4)
    contents = look(folder)
    assert contents.writing == (writer.incarnation,)
    assert [file.name.split("/")[0] for file in contents.files] == [
        *("dictionaries", "events", "processes", "manifest.json")
    ]
    assert not contents.is_over
    writer.close()
    assert (look(folder).writing, look(folder).is_over) == ((), False)  # the end is still to be written down
    update_manifest(folder, state="complete")
    assert look(folder).is_over


def test_what_others_have_in_flight_is_shipped_with_a_process_that_closed_in_order(folder: Path) -> None:
    writer = RunWriter(folder, "local", 4)
    writer.board.take()
    writer.close(left_in_flight=True)
    assert [file.name for file in look(folder).files if file.name.startswith("in_flight")] == [
        f"in_flight/{writer.incarnation}.board"
    ]


@pytest.mark.parametrize("role", LEADS)
def test_a_run_whose_lead_was_killed_is_over(folder: Path, tmp_path: Path, role: str) -> None:
    RunWriter(folder, role, 4)
    shutil.copytree(folder, tmp_path / "dead")
    contents = look(tmp_path / "dead")
    assert (contents.writing, contents.is_over) == ((), True)


def test_without_locks_only_the_end_of_the_run_tells_that_a_process_is_gone(folder: Path, tmp_path: Path) -> None:
    without_lock(RunWriter(folder, "worker", 4))
    shutil.copytree(folder, tmp_path / "dead")
    assert len(look(tmp_path / "dead").writing) == 1
    update_manifest(tmp_path / "dead", state="interrupted")
    contents = look(tmp_path / "dead")
    assert (contents.writing, contents.is_over) == ((), True)
    assert any(file.name.endswith(".open") for file in contents.files)


def test_a_part_without_a_manifest_is_named_by_its_folder_and_over_with_its_processes(tmp_path: Path) -> None:
    create_run_folder(tmp_path / "run_7", {"run_id": "x"})
    (tmp_path / "run_7" / "manifest.json").unlink()
    assert not look(tmp_path / "run_7").is_over  # nobody has begun
    writer = RunWriter(tmp_path / "run_7", "worker", 4)
    assert (look(tmp_path / "run_7").run_id, look(tmp_path / "run_7").is_over) == ("run_7", False)
    writer.close()
    assert look(tmp_path / "run_7").is_over


@pytest.mark.parametrize("run_id", ["../../elsewhere", "..", "", 7, "a/b"])
def test_a_manifest_does_not_lead_out_of_the_store(folder: Path, run_id: object) -> None:
    update_manifest(folder, run_id=run_id)
    assert look(folder).run_id == "run"


def test_a_large_file_that_grows_is_not_shipped_at_every_pass(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(shipping_of_run.time, "monotonic", lambda: now_s[0])
    (tmp_path / "store").mkdir()
    shipping = RunShipping(folder, FolderStore(tmp_path / "store"), delete=False)
    writer = RunWriter(folder, "local", 4)
    name = f"events/{writer.incarnation}.jsonl"

    def arrived() -> bool:
        return (tmp_path / "store" / "run" / name).read_bytes() == (folder / name).read_bytes()

    writer.event("users", counts={}, text="x" * 4 * shipping_of_run.AGAIN_BYTES_PER_S)  # four seconds of it
    shipping.ship(everything=False)
    assert arrived()
    writer.event("users", counts={})
    shipping.ship(everything=False)
    assert not arrived()
    now_s[0] += 5.0
    shipping.ship(everything=False)
    assert arrived()
    writer.event("users", counts={})
    shipping.ship(everything=True)  # the last pass leaves nothing
    assert arrived()


def test_what_is_not_a_run_is_passed_over(tmp_path: Path) -> None:
    create_run_folder(tmp_path / "b", {"run_id": "b"})
    create_run_folder(tmp_path / "a", {"run_id": "a"})
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "notes.txt").write_text("nothing")
    assert find_runs(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert find_runs(tmp_path / "a") == [tmp_path / "a"]


def test_a_run_that_is_over_is_looked_at_again_when_something_comes(folder: Path, tmp_path: Path) -> None:
    """As when faults that a killed run left behind are lifted by hand, which is written down."""
    (tmp_path / "store").mkdir()
    shipping = RunShipping(folder, FolderStore(tmp_path / "store"), delete=False)
    RunWriter(folder, "local", 4).close()
    update_manifest(folder, state="complete")
    shipping.ship(everything=False)
    assert shipping.is_over
    RunWriter(folder, "faults", 4).close()
    assert not shipping.is_over
    shipping.ship(everything=False)
    assert shipping.is_over
    assert len(list((tmp_path / "store" / "run" / "processes").iterdir())) == 2

"""Upkeep: spares and seals off the loop, and one clear word when the disk is full."""

from pathlib import Path

import gevent
import pytest

from rl_hooks.record import upkeep
from rl_hooks.run_folder import RunWriter, create_run_folder


@pytest.fixture
def writer(tmp_path: Path) -> RunWriter:
    create_run_folder(tmp_path / "run", {"run_id": "run"})
    return RunWriter(tmp_path / "run", "local", 1)


def test_segments_with_rows_are_sealed_while_the_run_goes_on(
    writer: RunWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "PERIOD_S", 0.01)
    monkeypatch.setattr(upkeep, "SEAL_EVERY", 2)
    writer.tables["samples"].append(*[1] * 13)
    keeper = gevent.spawn(upkeep.keep, writer, pytest.fail)
    with gevent.Timeout(10):
        while not list((writer.path / "samples").glob("*.seg")):
            gevent.sleep(0.01)
    assert not list((writer.path / "requests").glob("*.seg"))  # it has no rows
    keeper.kill()


def test_a_disk_without_room_ends_with_one_message(writer: RunWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(upkeep, "PERIOD_S", 0.001)
    monkeypatch.setattr(writer, "maintain", no_room)
    faults: list[str] = []
    upkeep.keep(writer, faults.append)
    way_out = "free some space and start again"
    assert faults == [f"{writer.path}: no more room for rows (No space left on device); {way_out}"]

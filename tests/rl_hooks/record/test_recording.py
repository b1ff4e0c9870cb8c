"""One process's part in a run: what cannot be opened is said in one sentence."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rl_hooks.record.recorder import Recorder
from rl_hooks.record.recording import Recording, join_folder
from rl_hooks.run_folder import RunFolderError, create_run_folder
from scenario.load import find_file, load_file
from scenario.plan import make_plan


def test_a_disk_that_is_full_at_the_start_is_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    folder = tmp_path / "run"
    create_run_folder(folder, {"run_id": "run"})
    monkeypatch.setattr(Recorder, "know", no_room)
    plan = make_plan(load_file(find_file("quick_validation_config.yaml")).scenario(None))
    environment: Any = SimpleNamespace()
    with pytest.raises(RunFolderError) as refused:
        Recording(environment, "local", folder, plan, lambda: 0.0, pytest.fail)
    assert str(refused.value) == f"{folder}: no room for names (No space left on device); free some space"


def test_a_worker_that_does_not_see_the_folder_says_how_it_would(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError) as refused:
        join_folder(tmp_path / "elsewhere")
    way_out = "give all the same folder (a shared volume) with --run-folder, or each worker its own with --spool"
    assert str(refused.value).startswith(f"worker: {tmp_path / 'elsewhere'}: there is no such folder")
    assert str(refused.value).endswith(way_out)

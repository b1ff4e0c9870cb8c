"""Formats by name: what is refused and how, that nothing is overwritten, and that a format appears whole or not."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rl_hooks.export import __main__ as export
from rl_hooks.export.formats import __main__ as formats
from rl_hooks.export.formats.source import Bundle
from rl_hooks.export.formats.table import FORMATS, describe_formats, find_writers, write_formats
from tests import builders

ROOT = Path(__file__).resolve().parents[4]
LIGHT = ("npz", "bandit", "jsonl", "rllib")


def lines(bundle: Bundle, folder: Path) -> Mapping[str, Any]:
    """A format of one's own."""
    (folder / "rows.txt").write_text("\n".join(str(len(part)) for part in bundle.parts.values()))
    return {"parts": {name: {"rows": len(part)} for name, part in bundle.parts.items()}}


def broken(bundle: Bundle, folder: Path) -> Mapping[str, Any]:
    (folder / "half").write_text("half")
    raise OSError(28, "No space left on device")


def failing(bundle: Bundle, folder: Path) -> Mapping[str, Any]:
    raise KeyError("reward")


def silent(bundle: Bundle, folder: Path) -> Any:
    (folder / "x").write_text("x")
    return {"rows": 3}


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """The bundle without formats."""
    for path in bundle.rglob("*"):
        place = path.relative_to(bundle)
        if path.is_file() and place.parts[0] != "formats":
            (tmp_path / "bundle" / place).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "bundle" / place).symlink_to(path)
    return tmp_path / "bundle"


def refused(capsys: pytest.CaptureFixture[str], bundle: Path, names: str) -> str:
    assert formats.main([str(bundle), "--format", names]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    return error


def test_the_light_formats_need_nothing_that_is_not_installed(copy: Path) -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'd3rlpy', 'minari', 'gymnasium', 'h5py', 'datasets'): sys.modules[name] = None\n"
        "from rl_hooks.export.formats.__main__ import main\nsys.exit(main())"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(copy), "--format", ",".join(LIGHT)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == describe_formats(copy, LIGHT)
    assert done.stdout.startswith(f"format       {copy / 'formats' / 'npz'}: train ")
    assert sorted(path.name for path in (copy / "formats").iterdir()) == sorted(LIGHT)


def test_a_name_that_does_not_exist_is_refused(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(capsys, copy, "npz,minarri")
    assert error.startswith("formats: --format minarri: is not a known name. ")
    assert "Did you mean 'minari'" in error
    assert "module:attribute" in error
    assert not (copy / "formats").exists()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("failing", "failed in test_table.py, line N (KeyError: 'reward')"),
        ("silent", 'has to return {"parts": {PART: {"rows": N}}} as JSON values'),
    ],
)
def test_a_format_of_ones_own_that_fails_is_told_and_leaves_nothing(
    copy: Path, capsys: pytest.CaptureFixture[str], name: str, problem: str
) -> None:
    error = refused(capsys, copy, f"{__name__}:{name}")
    assert re.sub(r"line \d+", "line N", error) == f"formats: format {__name__}.{name}: {problem}\n"
    assert not (copy / "formats").exists()


@pytest.mark.parametrize(
    ("name", "library"),
    [("d3rlpy", "d3rlpy"), ("minari", "gymnasium"), ("minari-arrow", "gymnasium"), ("d4rl", "h5py")],
)
def test_a_missing_library_is_named_with_the_extra_that_brings_it(
    name: str, library: str, copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, FORMATS[name].split(":")[0], raising=False)
    assert refused(capsys, copy, f"npz,{name}") == (
        f"formats: format {name}: {library} is not installed; `make formats` or pip install '.[formats]' in a clone of "
        "the project brings it\n"
    )
    assert not (copy / "formats").exists()


def test_what_is_there_is_never_overwritten(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_formats(copy, find_writers("npz"))
    before = {path: path.stat().st_mtime_ns for path in (copy / "formats").rglob("*")}
    text = "there already; nothing is overwritten, so remove it to have it written again"
    assert refused(capsys, copy, "bandit,npz") == f"formats: {copy / 'formats' / 'npz'}: {text}\n"
    assert {path: path.stat().st_mtime_ns for path in (copy / "formats").rglob("*")} == before


def test_a_format_of_ones_own_gets_the_bundle_and_a_folder(copy: Path) -> None:
    write_formats(copy, {"own": lines})
    folder = copy / "formats" / "own"
    facts = json.loads((folder / "format.json").read_text())
    assert (folder / "rows.txt").read_text().split() == [str(entry["rows"]) for entry in facts["parts"].values()]
    assert list(facts["files"]) == ["rows.txt"]


def test_module_and_attribute_resolve_and_give_the_folder_its_name() -> None:
    reference = "rl_hooks.export.formats.flat:write_npz"
    ((name, writer),) = find_writers(reference).items()
    assert name == "rl_hooks.export.formats.flat.write_npz"
    assert writer is find_writers("npz")["npz"]


def test_a_format_that_fails_leaves_nothing(copy: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        write_formats(copy, {"broken": broken})
    assert not (copy / "formats").exists()


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "not a bundle, it has no dataset.json; make one with python -m rl_hooks.export RUN"
    assert refused(capsys, tmp_path, "npz") == f"formats: {tmp_path}: {text}\n"


def test_parquet_is_the_bundle_itself(copy: Path) -> None:
    assert find_writers("parquet") == {}
    assert list(find_writers("parquet, npz,npz")) == ["npz"]


def test_formats_are_written_with_the_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = builders.write_run(builders.random_run(count=600), tmp_path / "run")
    asked = [str(run), "--logs", str(tmp_path / "logs"), "--format", "parquet,npz,bandit"]
    for _ in range(2):  # a bundle is replaced as a whole, with its formats
        assert export.main(asked) == 0
        assert f"format       {run / 'bundle' / 'formats' / 'npz'}: train " in capsys.readouterr().out
    assert sorted(path.name for path in (run / "bundle" / "formats").iterdir()) == ["bandit", "npz"]
    assert export.main([*asked[:-1], "nope"]) == 2
    assert sorted(path.name for path in (run / "bundle" / "formats").iterdir()) == ["bandit", "npz"]


def test_excluded_rows_are_in_no_format(bundle: Path, written: Any) -> None:
    excluded = pd.read_parquet(bundle / "data/excluded/excluded.parquet")
    assert len(excluded) > 0
    for part in ("train", "validation"):
        rllib = pd.read_parquet(written("rllib") / part)
        assert not set(rllib["eps_id"]) & set(excluded["episode_id"])
        text = (written("jsonl") / part / "rl_experiences.jsonl").read_text()
        assert not {json.loads(line)["metadata"]["episode_id"] for line in text.splitlines()} & set(
            excluded["episode_id"]
        )

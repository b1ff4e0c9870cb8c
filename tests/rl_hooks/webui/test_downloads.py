"""Downloads: names of a fixed list, looked up below the run folder and nowhere else."""

import io
import zipfile
from pathlib import Path

import pytest

from rl_hooks.webui.downloads import (
    BUNDLE_ZIP,
    CHUNK_BYTES,
    FILES,
    NothingThereError,
    available,
    bundle_files,
    find,
    zipped,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    (made / "bundle" / "data" / "transitions").mkdir(parents=True)
    (made / "manifest.json").write_text("{}")
    (made / "bundle" / "dataset.json").write_text('{"a": 1}')
    (made / "bundle" / "data" / "transitions" / "train.parquet").write_bytes(bytes(range(256)) * 3000)
    (made / "bundle" / "empty").write_bytes(b"")
    (tmp_path / "secret").write_text("secret")
    return made


def zip_of(folder: Path) -> bytes:
    return b"".join(zipped(bundle_files(folder), "run-1-bundle", lambda: None))


def test_what_is_there_is_offered(folder: Path) -> None:
    assert available(folder) == ["manifest.json", BUNDLE_ZIP]
    (folder / "bundle" / "report_card.html").write_text("<html>")
    assert available(folder) == ["report_card.html", "manifest.json", BUNDLE_ZIP]
    (folder / "bundle" / "dataset.json").unlink()
    assert BUNDLE_ZIP not in available(folder)


def test_the_zip_file_is_the_bundle(folder: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(zip_of(folder))) as archive:
        assert archive.testzip() is None
        content = {name: archive.read(name) for name in archive.namelist()}
    bundle = folder / "bundle"
    files = {path for path in bundle.rglob("*") if path.is_file()}
    assert content == {f"run-1-bundle/{path.relative_to(bundle)}": path.read_bytes() for path in files}


def test_a_large_bundle_comes_in_pieces_with_room_for_others_between_them(folder: Path) -> None:
    gave_way: list[None] = []
    pieces = list(zipped(bundle_files(folder), "x", lambda: gave_way.append(None)))
    assert max(map(len, pieces)) < 2 * CHUNK_BYTES < sum(map(len, pieces))
    assert len(gave_way) == len(pieces) - 1


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "bundle", "", "manifest.json/..", "bundle/dataset.json"])
def test_other_names_are_refused_with_the_list(folder: Path, name: str) -> None:
    with pytest.raises(NothingThereError) as caught:
        find(folder, name)
    assert str(caught.value) == (
        "there is no download of that name; there are report_card.html, report_card.json, manifest.json, bundle.zip"
    )


@pytest.mark.parametrize("name", FILES)
def test_what_leads_out_of_the_run_folder_is_not_given_away(folder: Path, name: str) -> None:
    (folder / FILES[name]).unlink(missing_ok=True)
    (folder / FILES[name]).symlink_to(folder.parent / "secret")
    with pytest.raises(
        NothingThereError, match="leads out of the run folder, so it is not given away; remove the link"
    ):
        find(folder, name)


@pytest.mark.parametrize("target", ["secret", "no_such_file", "."])
def test_a_bundle_with_a_link_to_elsewhere_is_not_given_away(folder: Path, target: str) -> None:
    (folder / "bundle" / "data" / "more").symlink_to(folder.parent / target)
    with pytest.raises(NothingThereError, match="more: leads out of the run folder"):
        zip_of(folder)


def test_what_is_not_there_is_said(folder: Path) -> None:
    with pytest.raises(NothingThereError, match=r"report_card\.html: is not there; export the run first"):
        find(folder, "report_card.html")
    (folder / "bundle" / "dataset.json").unlink()
    with pytest.raises(NothingThereError, match="the run has no bundle; export it first"):
        bundle_files(folder)

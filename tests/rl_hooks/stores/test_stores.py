"""Every kind of store does the same."""

import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rl_hooks.stores.place import open_store
from rl_hooks.stores.store import Store, StoreAwayError, Stored, StoreError
from tests.rl_hooks.ship.s3_server import BUCKET, s3_server


@pytest.fixture(scope="module", params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = tmp_path_factory.mktemp("store")
    if request.param == "folder":
        yield str(place)
    else:
        with s3_server(place / "server.log"):
            yield f"s3://{BUCKET}"


@pytest.fixture
def store(root: str, request: pytest.FixtureRequest) -> Store:
    """An empty one of its own for each test."""
    place = f"{root}/{request.node.originalname}"
    if not root.startswith("s3://"):
        Path(place).mkdir()
    return open_store(place)


def put(store: Store, name: str, content: bytes) -> Stored:
    sha256 = hashlib.sha256(content).hexdigest()
    store.put(name, content, sha256)
    return Stored(len(content), sha256)


def got(store: Store, name: str) -> tuple[bytes, Stored]:
    file = io.BytesIO()
    stored = store.get(name, file)
    return file.getvalue(), stored


def test_what_is_put_is_there(store: Store) -> None:
    for content in (b"", b"rows", bytes(3 << 20)):
        stated = put(store, "run/requests/a.seg", content)
        assert store.head("run/requests/a.seg") == stated
        assert got(store, "run/requests/a.seg") == (content, stated)


def test_what_is_put_again_is_replaced(store: Store) -> None:
    put(store, "a", b"before")
    put(store, "a", b"after")
    assert got(store, "a")[0] == b"after"
    assert list(store.list("")) == [("a", 5)]


def test_what_is_not_there_is_said(store: Store) -> None:
    assert store.head("run/a") is None
    assert list(store.list("run")) == []
    with pytest.raises(StoreError, match="run/a: has vanished"):
        got(store, "run/a")


def test_a_folder_is_listed_without_those_that_begin_alike(store: Store) -> None:
    for name in ("run/a", "run/b/c", "run2/a", "other"):
        put(store, name, name.encode())
    assert sorted(store.list("run")) == [("run/a", 5), ("run/b/c", 7)]
    assert sorted(name for name, _ in store.list("")) == ["other", "run/a", "run/b/c", "run2/a"]


def test_many_objects_are_all_listed(store: Store) -> None:
    """A page of a listing of S3 has a thousand."""
    names = [f"run/{number:04d}" for number in range(1003)]
    for name in names:
        put(store, name, b"")
    assert sorted(name for name, _ in store.list("run")) == names


def test_a_folder_that_is_gone_is_away_and_not_empty(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = open_store(str(tmp_path / "store"))
    shutil.rmtree(tmp_path / "store")
    for ask in (lambda: list(store.list("")), lambda: store.head("a"), lambda: store.put("a", b"", "")):
        with pytest.raises(StoreAwayError, match="store: No such file or directory"):
            ask()
    assert not (tmp_path / "store").exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(StoreError, match="cannot be written; give this user the right to, or choose another place"):
        open_store(str(tmp_path))


def test_what_is_on_its_way_is_not_there(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    put(store, "a", b"rows")
    (tmp_path / ".arriving" / "b.host.1").write_bytes(b"ro")
    assert list(store.list("")) == [("a", 4)]

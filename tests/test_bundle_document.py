"""The examples of docs/bundle.md run on a bundle, and its table names every format."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from rl_hooks.export.formats.table import FORMATS, find_writers, write_formats
from tests import builders

DOCUMENT = (Path(__file__).resolve().parents[1] / "docs" / "bundle.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
EXTRA = {"h5py": "h5py", "d3rlpy_buffer": "d3rlpy", "minari": "minari", "datasets": "datasets", "torch": "torch"}


def libraries(example: str) -> list[str]:
    return [
        library for name, library in EXTRA.items() if re.search(rf"^(import|from) .*\b{name}\b", example, re.MULTILINE)
    ]


def case(example: str) -> Any:
    needed = libraries(example)
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    reason = f"{', '.join(missing)} is not installed; `make formats` installs it"
    marks = [pytest.mark.formats, pytest.mark.skipif(bool(missing), reason=reason)] if needed else []
    return pytest.param(example, marks=marks, id=re.sub(r"\W+", "-", example)[:40])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle named `bundle`."""
    folder = tmp_path_factory.mktemp("document")
    write_bundle(assemble([builders.random_run(count=9000, missing=0.0)]), folder / "bundle")
    return folder


@pytest.mark.parametrize("example", [case(example) for example in EXAMPLES])
def test_an_example_runs(example: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(re.findall(r"bundle/formats/([\w-]+)", example)):
        if not (place / "bundle" / "formats" / name).exists():
            write_formats(place / "bundle", find_writers(name))
    monkeypatch.chdir(place)
    monkeypatch.setenv("MINARI_DATASETS_PATH", "")  # an example sets it; afterwards it is as it was
    if "datasets" in libraries(example):
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", place / "cache")
    names: dict[str, Any] = {}
    exec(example, names)
    made = [value for value in names.values() if isinstance(value, np.ndarray | pd.DataFrame | pd.Series | list)]
    assert all(len(value) > 0 for value in made)
    assert made or "train" in names


def test_the_document_names_every_format_and_which_are_light() -> None:
    table = re.findall(r"^\| (`[^|]*) \| ([^|]*) \| ([^|]*) \|$", DOCUMENT, re.MULTILINE)
    named = {name: needs for cell, _, needs in table for name in re.findall(r"`([\w-]+)`", cell)}
    assert set(named) == set(FORMATS) | {"parquet"}
    assert {name for name, needs in named.items() if needs == "-"} == {"parquet", "npz", "bandit", "jsonl", "rllib"}


def test_the_examples_cover_every_library() -> None:
    assert {library for example in EXAMPLES for library in libraries(example)} == set(EXTRA.values())
    assert len(EXAMPLES) == 11

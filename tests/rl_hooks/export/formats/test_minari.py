"""Minari data sets: spaces, ids, metadata and infos, with both back ends."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from rl_hooks.export.errors import ExportError
from rl_hooks.export.formats.table import find_writers, write_formats
from tests import builders

BACK_ENDS = ("minari", "minari-arrow")
pytestmark = [
    pytest.mark.formats,
    pytest.mark.skipif(
        importlib.util.find_spec("minari") is None, reason="minari is not installed; `make formats` installs it"
    ),
]


def loaded(folder: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    return minari.load_dataset(json.loads((folder / "format.json").read_text())["parts"][part]["id"])


@pytest.mark.parametrize("name", BACK_ENDS)
def test_spaces_are_bounded_and_hold_every_observation(
    name: str, written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("train", "validation"):
        found = loaded(written(name), part, monkeypatch)
        space = found.observation_space
        assert np.isfinite(space.low).all()
        assert np.isfinite(space.high).all()
        assert found.action_space.n == 6
        assert all(space.contains(row) for episode in found.iterate_episodes() for row in episode.observations)


@pytest.mark.parametrize("name", BACK_ENDS)
def test_infos_are_the_columns_padded_with_nan(
    name: str, written: Any, truth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = loaded(written(name), "train", monkeypatch)
    for episode, want in zip(found.iterate_episodes(), truth("train").episodes, strict=True):
        infos = {key: np.asarray(values).ravel() for key, values in episode.infos.items()}
        assert all(len(values) == len(want) + 1 and np.isnan(values[-1]) for values in infos.values())
        np.testing.assert_array_equal(infos["propensity"][:-1].astype(np.float32), want.column("propensity"))
        for component in ("response_time", "load_balance"):
            values = infos[f"reward_{component}"][:-1].astype(np.float32)
            np.testing.assert_array_equal(values, want.column(f"reward_{component}"))
        probabilities = np.column_stack([infos[f"action_prob_{index}"][:-1] for index in range(6)])
        np.testing.assert_allclose(probabilities, np.stack(want.column("action_probs")))


@pytest.mark.parametrize("name", BACK_ENDS)
def test_metadata_names_columns_and_no_environment(name: str, written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"metadata holds {constant}")

    found = loaded(written(name), "train", monkeypatch)
    (path,) = written(name).rglob("*-train-v0/data/metadata.json")
    metadata = json.loads(path.read_text(), parse_constant=refuse)
    assert metadata["action_names"][5] == "backpressure"
    assert len(metadata["observation_columns"]) == found.observation_space.shape[0]
    assert metadata["algorithm_name"] == "uniform"
    assert found.spec.env_spec is None
    with pytest.raises(ValueError, match="Environment cannot be recovered"):
        found.recover_environment()
    (first,) = found.storage.get_episode_metadata([0])
    assert {"episode_id", "service", "phase"} <= set(first)


def test_an_id_names_its_content(written: Any, tmp_path: Path) -> None:
    before = dict(os.environ)
    write_bundle(assemble([builders.random_run(seed=8, count=900)]), tmp_path / "other", find_writers("minari"))
    assert dict(os.environ) == before
    ids = [
        entry["id"]
        for folder in (written("minari"), tmp_path / "other" / "formats" / "minari")
        for entry in json.loads((folder / "format.json").read_text())["parts"].values()
    ]
    assert len(set(ids)) == 4
    assert all(name.startswith("locust-rl-balancer/tiny-") and name.endswith("-v0") for name in ids)


def test_an_id_that_is_there_is_refused_by_minari_too(bundle: Path, written: Any, tmp_path: Path) -> None:
    from rl_hooks.export.formats.minari_dataset import write_hdf5
    from rl_hooks.export.formats.source import read_bundle

    source = read_bundle(bundle)
    write_hdf5(source, tmp_path)
    with pytest.raises(ValueError, match="already exists"):
        write_hdf5(source, tmp_path)
    assert written("minari").exists()
    with pytest.raises(ExportError, match="nothing is overwritten"):
        write_formats(bundle, find_writers("minari"))

"""Every format of the table, read with its library's own reader, holds the Parquet transitions: all, once, in order."""

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from rl_hooks.export.formats.source import read_bundle
from rl_hooks.export.formats.table import FORMATS, find_writers, write_formats
from tests import builders

PARTS = ("train", "validation")


@dataclass
class Read:
    """What a reader found; what the format does not carry is None."""

    observations: Any
    next_observations: Any
    actions: Any
    rewards: Any
    truncated: Any
    propensity: Any = None
    kept: Any = None  # which rows of the Parquet file the format holds; None: all


def read_parquet(bundle: Path, part: str) -> Read:
    import datasets

    cache = bundle.parent / "cache"
    frame = datasets.load_dataset(str(bundle), split=part, cache_dir=str(cache)).to_pandas()
    return Read(None, None, frame["action"], frame["reward"], frame["truncated"], frame["propensity"])


def read_npz(bundle: Path, part: str) -> Read:
    return of_arrays(np.load(bundle / "formats" / "npz" / f"{part}.npz"))


def read_d4rl(bundle: Path, part: str) -> Read:
    import h5py

    with h5py.File(bundle / "formats" / "d4rl" / f"{part}.hdf5") as file:
        found: dict[str, Any] = {}
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
        assert all(file[name].chunks and not file[name].compression for name in found)
    return of_arrays(found)


def of_arrays(found: Any) -> Read:
    assert not found["terminals"].any()
    assert found["observations"].dtype == np.float32
    names = ("observations", "next_observations", "actions", "rewards", "timeouts", "infos/propensity")
    return Read(*(found[name] for name in names))


def read_bandit(bundle: Path, part: str) -> Read:
    from rl_hooks.export.formats.bandit import read

    found = read(bundle / "formats" / "bandit" / f"{part}.npz")
    frame = pd.read_parquet(bundle / f"data/transitions/{part}-00000-of-00001.parquet")
    assert (found["n_actions"], found["position"]) == (6, None)
    assert found["n_rounds"] == len(found["context"]) == len(found["episode"]) < len(frame)
    assert found["pi_b"].shape == (found["n_rounds"], 6, 1)
    assert ((found["reward"] >= 0) & (found["reward"] <= 1)).all()
    kept = ~frame["reward_filled"].to_numpy()
    return Read(found["context"], None, found["action"], found["reward"], None, found["pscore"], kept)


def read_rllib(bundle: Path, part: str) -> Read:
    frame = pd.read_parquet(bundle / "formats" / "rllib" / part)
    assert not frame["terminateds"].any()
    np.testing.assert_allclose(np.exp(frame["action_logp"]), frame["action_prob"], rtol=1e-6)
    obs, new_obs = np.stack(frame["obs"]), np.stack(frame["new_obs"])
    return Read(obs, new_obs, frame["actions"], frame["rewards"], frame["truncateds"], frame["action_prob"])


def read_d3rlpy(bundle: Path, part: str) -> Read:
    from rl_hooks.export.formats.d3rlpy_buffer import load

    buffer = load(bundle / "formats" / "d3rlpy" / f"{part}.h5")
    transitions = [
        buffer.transition_picker(episode, index)
        for episode in buffer.episodes
        for index in range(episode.transition_count)
    ]
    assert not any(transition.terminal for transition in transitions)
    counts = [episode.transition_count for episode in buffer.episodes]
    ends = np.isin(np.arange(len(transitions)), np.cumsum(counts) - 1)
    columns = ("observation", "next_observation", "action", "reward")
    return Read(*(np.stack([getattr(row, name) for row in transitions]) for name in columns), truncated=ends)


def minari_reader(name: str) -> Callable[[Path, str], Read]:
    def read_minari(bundle: Path, part: str) -> Read:
        import minari

        folder = bundle / "formats" / name
        os.environ["MINARI_DATASETS_PATH"] = str(folder)
        try:
            found = minari.load_dataset(json.loads((folder / "format.json").read_text())["parts"][part]["id"])
            episodes = list(found.iterate_episodes())
        finally:
            del os.environ["MINARI_DATASETS_PATH"]
        assert name == {"hdf5": "minari", "arrow": "minari-arrow"}[found.storage.FORMAT]
        assert all(len(episode.observations) == len(episode) + 1 for episode in episodes)
        propensity = [np.asarray(episode.infos["propensity"]).ravel() for episode in episodes]
        assert all(
            np.isnan(values[-1]) and len(values) == len(e) + 1 for values, e in zip(propensity, episodes, strict=True)
        )
        return Read(
            np.concatenate([episode.observations[:-1] for episode in episodes]),
            np.concatenate([episode.observations[1:] for episode in episodes]),
            np.concatenate([episode.actions for episode in episodes]),
            np.concatenate([episode.rewards for episode in episodes]),
            np.concatenate([episode.truncations for episode in episodes]),
            np.concatenate([values[:-1] for values in propensity]),
        )

    return read_minari


READERS: dict[str, tuple[Callable[[Path, str], Read], str | None]] = {
    "parquet": (read_parquet, "datasets"),
    "npz": (read_npz, None),
    "d4rl": (read_d4rl, "h5py"),
    "bandit": (read_bandit, None),
    "rllib": (read_rllib, None),
    "d3rlpy": (read_d3rlpy, "d3rlpy"),
    "minari": (minari_reader("minari"), "minari"),
    "minari-arrow": (minari_reader("minari-arrow"), "minari"),
}
"""Format -> its reader and the library that it needs. `jsonl` has a row per request, so a test file of its own."""


def case(name: str) -> Any:
    library = READERS[name][1] if name in READERS else None
    if library is None:
        return name
    missing = importlib.util.find_spec(library) is None
    skip = pytest.mark.skipif(missing, reason=f"{library} is not installed; `make formats` installs it")
    return pytest.param(name, marks=[pytest.mark.formats, skip])


def test_every_format_has_a_reader_here() -> None:
    assert set(READERS) | {"jsonl"} == set(FORMATS) | {"parquet"}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", [case(name) for name in READERS])
def test_a_format_holds_the_transitions(name: str, part: str, bundle: Path, written: Any, truth: Any) -> None:
    if name != "parquet":
        written(name)
    found, want = READERS[name][0](bundle, part), truth(part)
    kept = np.ones(len(want), bool) if found.kept is None else found.kept
    assert len(want.episodes) > 1
    np.testing.assert_array_equal(np.asarray(found.actions).ravel(), want.column("action")[kept])
    np.testing.assert_array_equal(np.asarray(found.rewards).ravel(), want.column("reward")[kept])
    for values, expected in (
        (found.observations, want.observations),
        (found.next_observations, want.next_observations),
    ):
        if values is not None:
            np.testing.assert_allclose(values, expected[kept], rtol=1e-6, atol=1e-6)
    if found.truncated is not None:
        np.testing.assert_array_equal(found.truncated, want.column("truncated"))
    if found.propensity is not None:
        np.testing.assert_array_equal(np.asarray(found.propensity, np.float32), want.column("propensity")[kept])


@pytest.mark.parametrize("name", [case(name) for name in READERS if name != "parquet"])
def test_a_format_says_how_it_was_made(name: str, written: Any, truth: Any) -> None:
    facts = json.loads((written(name) / "format.json").read_text())
    observation, columns = facts["observation"], truth("train").columns
    assert observation["columns"] == columns
    assert len(observation["mean"]) == len(observation["std"]) == sum(c.startswith("obs.") for c in columns)
    assert "known.<name>" in observation["missing"]
    assert facts["actions"][0] == "least_loaded"
    assert set(facts["parts"]) == set(facts["made_from_sha256"]) == set(PARTS)
    for part in PARTS:
        assert (written(name) / facts["parts"][part]["file"]).exists()
        left_out = truth(part).column("reward_filled").sum() if name == "bandit" else 0
        assert facts["parts"][part]["rows"] == len(truth(part)) - left_out


@pytest.mark.parametrize("name", [case(name) for name in (*READERS, "jsonl") if name != "parquet"])
def test_a_format_is_the_same_to_the_byte_every_time(name: str, bundle: Path, written: Any, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "bundle", ignore=shutil.ignore_patterns("formats"))
    write_formats(tmp_path / "bundle", find_writers(name))
    first, again = written(name), tmp_path / "bundle" / "formats" / name
    files = [path.relative_to(again) for path in again.rglob("*") if path.is_file()]
    assert len(files) > 1
    assert [file for file in files if (again / file).read_bytes() != (first / file).read_bytes()] == []


@pytest.mark.parametrize("name", [case(name) for name in (*READERS, "jsonl") if name != "parquet"])
def test_a_part_without_rows_is_in_no_format(name: str, tmp_path: Path) -> None:
    train_only = builders.random_run(planned=builders.plan(phases={"morning": 0.5}), count=200)
    nothing = builders.run(decisions=builders.random_run().decisions)
    for run, parts in ((train_only, ["train"]), (nothing, [])):
        out = tmp_path / f"{len(parts)}"
        write_bundle(assemble([run]), out, find_writers(name))
        facts = json.loads((out / "formats" / name / "format.json").read_text())
        assert list(facts["parts"]) == parts
        assert not any("validation" in str(file) for file in facts["files"])


def test_normalization_is_undone_to_physical_units_and_nan(bundle: Path, truth: Any) -> None:
    for name, part in read_bundle(bundle).parts.items():
        raw = truth(name).frame.filter(like="obs.").to_numpy(np.float32)
        assert np.isnan(raw).any()
        decoded = part.encoding.decode(part.observations)
        np.testing.assert_array_equal(np.isnan(decoded), np.isnan(raw))
        np.testing.assert_allclose(decoded, raw, rtol=1e-3, atol=1e-3)


def test_train_is_centred_and_of_unit_spread_where_it_is_known(truth: Any) -> None:
    train = truth("train")
    width = sum(name.startswith("obs.") for name in train.columns)
    known = train.frame.filter(like="obs.").notna().to_numpy()
    spread = np.array([train.observations[known[:, i], i].std() for i in range(width)])
    np.testing.assert_allclose(spread[spread > 0], 1, atol=1e-3)
    assert (spread > 0).sum() > 20
    assert not np.isnan(train.observations).any()

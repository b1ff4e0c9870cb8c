"""What of a bundle becomes evidence, and what is refused."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rl_hooks.export.errors import ExportError
from rl_hooks.export.formats.source import read_bundle, transitions_path
from training.errors import TrainingError
from training.evidence import read


@pytest.fixture
def changed(bundle: Path, tmp_path: Path) -> Callable[[Callable[[pd.DataFrame], pd.DataFrame]], Path]:
    """A copy of the bundle whose transitions went through a function."""

    def copy(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
        place = tmp_path / "changed"
        shutil.copytree(bundle, place)
        for part in ("train", "validation"):
            table = pq.read_table(place / transitions_path(part))
            frame = change(table.to_pandas())
            pq.write_table(pa.Table.from_pandas(frame, schema=table.schema), place / transitions_path(part))
        return place

    return copy


@pytest.mark.parametrize(
    ("part", "names"), [("train", ["train"]), ("validation", ["validation"]), ("both", ["train", "validation"])]
)
def test_every_step_of_the_part_is_there_once(bundle: Path, part: str, names: list[str]) -> None:
    parts = [read_bundle(bundle).parts[name] for name in names]
    found = read([bundle], part)
    assert len(found.log) == len(found.raw) == sum(map(len, parts))
    np.testing.assert_array_equal(found.observations, np.concatenate([one.observations for one in parts]))
    np.testing.assert_array_equal(found.next_observations, np.concatenate([one.next_observations for one in parts]))
    np.testing.assert_array_equal(found.log.action, np.concatenate([one.actions for one in parts]))
    assert len(np.unique(found.log.sequence)) == sum(len(one.episodes) for one in parts)
    assert np.isnan(found.raw).any()
    assert not np.isnan(found.observations).any()


def test_a_cluster_is_a_time_block_with_all_its_services(bundle: Path) -> None:
    frame, log = read_bundle(bundle).parts["train"].frame, read([bundle], "train").log
    together = pd.DataFrame({"cluster": log.cluster, "block": frame["block"], "service": frame["service"]})
    assert (together.groupby("cluster")["block"].nunique() == 1).all()
    assert (together.groupby("block")["cluster"].nunique() == 1).all()
    assert (together.groupby("cluster")["service"].nunique() == 5).all()


def test_filled_rewards_are_not_measured(
    bundle: Path, changed: Callable[[Callable[[pd.DataFrame], pd.DataFrame]], Path]
) -> None:
    half = changed(lambda frame: frame.assign(reward_filled=np.arange(len(frame)) % 2 == 0))
    log = read([half], "train").log
    assert log.measured.sum() == len(log) // 2


def without_propensity(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(propensity=np.float32(np.nan))


def some_without_propensity(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(propensity=frame["propensity"].where(np.arange(len(frame)) > 3))


def unlike_its_distribution(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(propensity=np.float32(0.5))


def without_a_choice(frame: pd.DataFrame) -> pd.DataFrame:
    certain = [np.eye(6, dtype=np.float32)[action] for action in frame["action"]]
    return frame.assign(propensity=np.float32(1), action_probs=certain)


def never_measured(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(reward_filled=True)


def of_one_block(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(block=np.int32(3))


def under_another_action(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(action_differs=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_propensity, "no step has a propensity: the balancer decided by itself and stated none, so what"),
        (some_without_propensity, "steps have no propensity in (0, 1], all of them in run: leave such runs out where"),
        (unlike_its_distribution, "steps have a propensity unlike their action_probs: export the run folder again"),
        (without_a_choice, "the logging policy never had a choice, so it tells about no other policy"),
        (never_measured, "no step has a measured reward: record with more users"),
        (of_one_block, "all measured rewards are of one time block, so there is no interval: record longer"),
        (under_another_action, "steps ran under another action than the one drawn: export again"),
    ],
)
def test_data_that_tells_nothing_is_refused(
    changed: Callable[[Callable[[pd.DataFrame], pd.DataFrame]], Path],
    change: Callable[[pd.DataFrame], pd.DataFrame],
    reason: str,
) -> None:
    with pytest.raises(TrainingError, match=re.escape(reason)):
        read([changed(change)], "train")


def test_all_problems_are_told_at_once(changed: Callable[[Callable[[pd.DataFrame], pd.DataFrame]], Path]) -> None:
    broken = changed(lambda frame: never_measured(without_propensity(frame)))
    with pytest.raises(TrainingError, match=r"no step has a propensity.*; no step has a measured reward"):
        read([broken], "train")


def test_a_part_without_steps_is_refused(changed: Callable[[Callable[[pd.DataFrame], pd.DataFrame]], Path]) -> None:
    with pytest.raises(TrainingError, match="validation has no steps: give more data, or another --part"):
        read([changed(lambda frame: frame.iloc[:0])], "validation")


def test_a_run_counts_once_and_bundles_have_to_agree(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    facts = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps({**facts, "reward_weights_sha256": "0"}))
    with pytest.raises(TrainingError) as refused:
        read([bundle, other], "train")
    assert str(refused.value) == (
        f"{other}: other reward weights than {bundle}; judge them one by one; "
        f"{other}: run run is also in {bundle}; give it once"
    )


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="not a bundle"):
        read([tmp_path], "train")

"""The bundle: what is in it, that it is the same every time, and that it appears in one piece."""

import hashlib
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.export import check, split
from rl_hooks.export.bundle import _swap, write_bundle
from rl_hooks.export.dataset import Dataset, assemble
from rl_hooks.export.errors import ExportError
from rl_hooks.export.logs import write_logs
from rl_hooks.export.rewards import REWARDS
from rl_hooks.export.tally import tally
from rl_hooks.observation import FEATURES
from rl_hooks.row import Outcome
from rl_hooks.run_reader import Loss, Run
from tests import builders

TRANSITIONS = "data/transitions/{}-00000-of-00001.parquet"
LOST = builders.rows("in_flight", [{"start_ns": builders.at(100.5), "service": 1, "trace_hi": 1, "trace_lo": 255}])


@pytest.fixture(scope="module")
def run() -> Run:
    return builders.random_run(in_flight=LOST)


@pytest.fixture(scope="module")
def data(run: Run) -> Dataset:
    return assemble([run])


@pytest.fixture(scope="module")
def bundle(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "bundle"
    write_bundle(data, out)
    return out


def strict(path: Path) -> Any:
    """JSON as the standard has it: no NaN, no Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{path} holds {constant}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def part(bundle: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(bundle / TRANSITIONS.format(name))


# -- tables -----------------------------------------------------------------------------------------------------------


def test_it_has_these_files_and_no_others(bundle: Path) -> None:
    assert sorted(content(bundle)) == [
        "README.md",
        "data/excluded/excluded.parquet",
        "data/requests/requests.parquet",
        "data/samples/samples.parquet",
        "data/transitions/train-00000-of-00001.parquet",
        "data/transitions/validation-00000-of-00001.parquet",
        "dataset.json",
        "episodes.parquet",
        "normalization.json",
    ]
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]  # nothing stays beside it


def test_transitions_read_back_by_pandas_have_these_types(bundle: Path) -> None:
    frame = part(bundle, "train")
    types = {name: str(kind) for name, kind in frame.dtypes.items()}
    features = {f"{prefix}.{feature.name}" for prefix in ("obs", "all", "next") for feature in FEATURES}
    assert {types.pop(name) for name in features} == {"float32"}
    rewards = {"reward", "reward_01", *(f"reward_{name}" for name in REWARDS)}
    assert {types.pop(name) for name in rewards} == {"float32"}
    assert types == {
        **dict.fromkeys(
            ("run_id", "service", "episode_id", "phase", "pattern", "intensity", "faults", "action_name"), "str"
        ),
        **dict.fromkeys(("logging_policy", "policy_version"), "str"),
        **dict.fromkeys(("step", "block", "n_requests", "n_errors", "n_unfinished"), "int32"),
        **dict.fromkeys(("decision_tick", "t_unix_ns"), "int64"),
        **dict.fromkeys(("t_s", "dt_s"), "float64"),
        **dict.fromkeys(("action", "action_requested"), "int8"),
        **dict.fromkeys(("propensity", "applied_share", "offered_rps", "user_count", "sample_age_s"), "float32"),
        **dict.fromkeys(
            ("action_differs", "reward_filled", "terminated", "truncated", "warmup", "metrics_backfilled"), "bool"
        ),
        **dict.fromkeys(("observation_mask", "action_probs", "action_mask"), "object"),
    }


def test_transitions_are_the_steps(bundle: Path, data: Dataset) -> None:
    for name in (split.TRAIN, split.VALIDATION):
        frame, rows = part(bundle, name), data.rows(name)
        np.testing.assert_array_equal(frame.filter(like="obs.").to_numpy(), data.observation[rows])
        np.testing.assert_array_equal(frame.filter(like="next.").to_numpy(), data.next_observation[rows])
        np.testing.assert_array_equal(np.stack(frame["observation_mask"]), ~np.isnan(data.observation[rows]))
        np.testing.assert_allclose(np.stack(frame["action_probs"]), 1 / 6, rtol=1e-6)
        assert np.stack(frame["action_mask"]).shape == (len(frame), 6)
        assert np.stack(frame["action_mask"]).all()
        assert frame["propensity"].between(0, 1, inclusive="right").all()
        assert [ACTIONS[action] for action in frame["action"]] == frame["action_name"].tolist()
        assert frame["reward"].equals(frame["reward_01"])
        assert not frame["warmup"].any()


def test_missing_values_are_nan_and_masked_and_never_zero(bundle: Path) -> None:
    frame = part(bundle, "train")
    index = [feature.name for feature in FEATURES].index("queue_sum")
    missing = frame["obs.queue_sum"].isna()
    assert 0 < missing.sum() < len(frame)
    assert (np.stack(frame["observation_mask"])[:, index] == ~missing).all()


def test_what_is_left_out_is_there_with_its_reason(bundle: Path) -> None:
    excluded = pd.read_parquet(bundle / "data/excluded/excluded.parquet")
    assert list(excluded.columns) == [*part(bundle, "train").columns, "reason"]
    counts = strict(bundle / "dataset.json")["counts"]
    listed = {name: entry["rows"] for name, entry in counts["excluded"].items() if entry["rows"]}
    assert excluded["reason"].value_counts().to_dict() == listed
    assert set(listed) == {"warmup", "purged"}
    assert counts["transitions"] == {name: len(part(bundle, name)) for name in ("train", "validation")} | {
        "excluded": len(excluded)
    }
    assert sum(counts["transitions"].values()) + counts["incomplete"] == counts["decisions"]


def test_floats_are_byte_stream_split_and_zstd(bundle: Path) -> None:
    group = pq.ParquetFile(bundle / TRANSITIONS.format("train")).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert "BYTE_STREAM_SPLIT" in columns["obs.cpu_mean"].encodings
    assert "BYTE_STREAM_SPLIT" in columns["reward"].encodings


def test_episodes_are_those_of_the_transitions(bundle: Path) -> None:
    table = pd.read_parquet(bundle / "episodes.parquet").set_index("episode_id")
    steps = pd.concat([part(bundle, "train"), part(bundle, "validation")])
    for episode_id, mine in steps.groupby("episode_id"):
        row = table.loc[episode_id]
        assert row["steps"] == len(mine)
        assert (row["first_tick"], row["last_tick"]) == (mine["decision_tick"].min(), mine["decision_tick"].max())
        assert row["requests"] == mine["n_requests"].sum()
    assert set(table.loc[table["split"] != "excluded"].index) == set(steps["episode_id"])


def test_requests_have_names_and_their_decision(bundle: Path, run: Run) -> None:
    table = pd.read_parquet(bundle / "data/requests/requests.parquet")
    assert len(table) == len(run.requests) + 1
    assert table["start_unix_ns"].is_monotonic_increasing
    unknown = table[table["ok"].isna()]
    assert len(unknown) == 1
    assert unknown["trace_id"].item() == "000000000000000100000000000000ff"
    assert unknown[["status", "duration_us", "failure", "response_bytes", "seq"]].isna().all(axis=None)
    assert unknown["decision_tick"].item() == 50
    known = table[table["ok"].notna()]
    assert set(known["failure"].dropna()) == {"status"}
    assert known["failure"].isna().equals(known["ok"].astype(bool))
    assert known["method"].unique().tolist() == ["GET"]
    assert known["endpoint"].unique().tolist() == ["GET /api/things"]
    assert known["instance"].isna().sum() == (run.requests["instance_ref"] == 0).sum()
    assert known["upstream_us"].isna().all()
    assert (known["decision_tick"] == known["decision_tick_sent"]).all()
    assert (known["action_applied"] == known["action_requested"]).all()
    assert known["user_action"].unique().tolist() == ["browse"]
    steps = pd.concat(
        [part(bundle, "train"), part(bundle, "validation"), pd.read_parquet(bundle / "data/excluded/excluded.parquet")]
    )
    counted = table.groupby(["service", "decision_tick"], observed=True).size()
    for key, n_requests in steps.set_index(["service", "decision_tick"])["n_requests"].items():
        assert counted.get(key, 0) == n_requests
    by_episode = steps.set_index(["service", "decision_tick"])["episode_id"]
    one = known.iloc[1000]
    assert by_episode[one["service"], one["decision_tick"]] == one["episode_id"]


# -- schema, checksums, normalization ---------------------------------------------------------------------------------


def test_the_schema_says_what_everything_is(bundle: Path) -> None:
    facts = strict(bundle / "dataset.json")
    assert facts["schema_version"] == 1
    assert facts["complete"] is True
    assert facts["actions"] == list(ACTIONS)
    features = facts["observation"]["features"]
    assert [feature["name"] for feature in features] == [feature.name for feature in FEATURES]
    assert all(feature["unit"] and feature["missing_when"] for feature in features)
    assert facts["windows_s"] == {"window": 10.0, "last5": 10.0, "last1": 2.0}
    assert facts["observation"]["pattern_thresholds"]["burst_ratio"] == 2.0
    assert facts["observation"]["quantiles"]["error_max"] == 0.0078
    assert sum(facts["reward_weights"].values()) == pytest.approx(1)
    assert len(facts["reward_weights_sha256"]) == 64
    assert {"phase", "pattern", "intensity"} <= set(facts["privileged_columns"])
    assert len(facts["split"]["blocks"]) == 8
    assert facts["runs"][0]["unfinished"] == facts["counts"]["requests_unfinished"] == 1
    assert facts["runs"][0]["config_sha256"] == "0" * 64
    assert facts["runs"][0]["balancer_details"] is None, "nobody said which one it was"


def test_every_file_is_listed_with_its_checksum(bundle: Path) -> None:
    listed = strict(bundle / "dataset.json")["files"]
    files = {name: body for name, body in content(bundle).items() if name != "dataset.json"}
    assert {name: entry["sha256"] for name, entry in listed.items()} == {
        name: hashlib.sha256(body).hexdigest() for name, body in files.items()
    }


def test_normalization_is_that_of_train_alone(bundle: Path) -> None:
    found, train = strict(bundle / "normalization.json"), part(bundle, "train")
    assert found["rows"] == len(train)
    for feature in FEATURES:
        values, known = found["features"][feature.name], train[f"obs.{feature.name}"].dropna().astype(float)
        assert values["mean"] == pytest.approx(known.mean())
        assert values["std"] == pytest.approx(known.std(ddof=0))
        assert (values["min"], values["max"]) == (known.min(), known.max())
        assert values["p99"] == pytest.approx(known.quantile(0.99))
        assert values["constant"] == (known.nunique() == 1)
    measured = train.loc[~train["reward_filled"], "reward"].astype(float)
    assert 0 < found["reward"]["known_share"] == len(measured) / len(train) < 1
    assert found["reward"]["mean"] == pytest.approx(measured.mean())
    assert found["reward"]["std"] == pytest.approx(measured.std(ddof=0))


def test_a_feature_that_was_never_known_has_no_numbers(tmp_path: Path, run: Run) -> None:
    data = assemble([builders.run(requests=run.requests, decisions=run.decisions)])
    write_bundle(data, tmp_path / "bundle")
    nothing = strict(tmp_path / "bundle" / "normalization.json")["features"]["cpu_mean"]
    assert nothing["mean"] is None
    assert nothing["constant"] is True
    assert nothing["known_share"] == 0.0


# -- the card ---------------------------------------------------------------------------------------------------------


def test_the_card_makes_the_folder_loadable(bundle: Path) -> None:
    _, header, body = (bundle / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    files = yaml.safe_load(header)["configs"][0]["data_files"]
    assert {entry["split"]: len(list(bundle.glob(entry["path"]))) for entry in files} == {"train": 1, "validation": 1}
    assert "run (complete)" in body
    assert "## Gaps" not in body
    train = pq.read_schema(bundle / TRANSITIONS.format("train"))
    assert train.equals(pq.read_schema(bundle / TRANSITIONS.format("validation")))


def header(bundle: Path) -> dict[str, Any]:
    _, text, _ = (bundle / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return dict(yaml.safe_load(text))


def test_the_card_tells_one_content_from_another(bundle: Path, tmp_path: Path) -> None:
    other, excluded = tmp_path / "bundle", "data/excluded/excluded.parquet"
    write_bundle(assemble([builders.random_run(seed=8)]), other)
    mine, others = header(bundle)["configs"][0], header(other)["configs"][0]
    assert re.fullmatch("content [0-9a-f]{64}", mine["description"])
    assert (bundle / excluded).read_bytes() != (other / excluded).read_bytes()
    assert mine.pop("description") != others.pop("description")
    assert mine == others


def test_a_part_without_rows_is_not_listed_for_loading(tmp_path: Path) -> None:
    planned = builders.plan(phases={"morning": 0.5})
    write_bundle(assemble([builders.random_run(planned=planned, count=200)]), tmp_path / "train_only")
    assert [entry["split"] for entry in header(tmp_path / "train_only")["configs"][0]["data_files"]] == ["train"]
    write_bundle(assemble([builders.run(decisions=builders.random_run().decisions)]), tmp_path / "nothing")
    assert "configs" not in header(tmp_path / "nothing")


def test_the_example_in_the_card_runs(bundle: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    example = re.search(r"```python\n(.*?)```", (bundle / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    monkeypatch.chdir(bundle)
    names: dict[str, Any] = {}
    exec(example[1], names)
    np.testing.assert_array_equal(names["observation"], data.observation[data.rows("train")])


# -- again, and of several runs ---------------------------------------------------------------------------------------


def test_exporting_again_gives_the_same_bytes(bundle: Path, run: Run, tmp_path: Path) -> None:
    again = tmp_path / "elsewhere"
    write_bundle(assemble([run]), again)
    assert content(again) == content(bundle)
    write_bundle(assemble([run]), again)
    assert content(again) == content(bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


def test_exact_quantiles_change_only_quantiles_and_are_said(run: Run, bundle: Path, tmp_path: Path) -> None:
    write_bundle(assemble([run], exact_quantiles=True), tmp_path / "exact")
    assert strict(tmp_path / "exact" / "dataset.json")["observation"]["quantiles"] == {"method": "exact"}
    first, second = part(bundle, "train"), part(tmp_path / "exact", "train")
    differing = {name for name in first if name.startswith("obs.") and not first[name].equals(second[name])}
    assert differing == {f"obs.response_time_{level}_ms" for level in ("p50", "p95", "p99")}


def test_several_runs_make_one_bundle(tmp_path: Path) -> None:
    runs = [builders.random_run(seed=seed, run_id=f"run{seed}", count=800) for seed in (1, 2)]
    together, alone = tmp_path / "both", tmp_path / "one"
    write_bundle(assemble(runs), together)
    write_bundle(assemble(runs[:1]), alone)
    both, first = part(together, "train"), part(alone, "train")
    assert both["run_id"].unique().tolist() == ["run1", "run2"]
    mine = both[both["run_id"] == "run1"].reset_index(drop=True)
    same = [
        name for name in mine if name not in ("reward", "reward_01", "observation_mask", "action_probs", "action_mask")
    ]
    pd.testing.assert_frame_equal(mine[same], first[same])  # a run is cut and dealt the same, alone or not
    requests = pd.read_parquet(together / "data/requests/requests.parquet")
    assert requests.groupby("run_id", observed=True).size().to_dict() == {"run1": 800, "run2": 800}
    decided = requests[requests["episode_id"].notna()]
    assert decided["episode_id"].str.split(":").str[0].tolist() == decided["run_id"].tolist()
    facts = strict(together / "dataset.json")
    assert [run["run_id"] for run in facts["runs"]] == ["run1", "run2"]
    transitions, requests = both, requests[requests["split"] == "train"]
    assert transitions["n_requests"].sum() == len(requests)


def test_runs_that_do_not_mean_the_same_are_refused_with_what_differs() -> None:
    first = builders.random_run(run_id="a", count=100)
    second = builders.random_run(run_id="b", count=100, planned=builders.plan(window_s=20.0))
    message = (
        "runs/a and runs/b do not fit into one bundle, they differ in observation window (10 s and 20 s); "
        "export them one by one"
    )
    with pytest.raises(ExportError, match=f"^{re.escape(message)}$"):
        assemble([first, second])


def test_the_order_in_which_weights_are_written_makes_no_difference() -> None:
    """Serving takes them from a policy's file, which sorts them by name."""
    planned = builders.plan()
    weights = dict(sorted(planned.scenario.reward_weights.items()))
    other = replace(planned, scenario=replace(planned.scenario, reward_weights=weights))
    assert list(weights) != list(planned.scenario.reward_weights)
    assemble([builders.random_run(run_id="a"), builders.random_run(run_id="b", planned=other)])


def test_all_differences_are_named_at_once() -> None:
    weights = {
        "response_time": 0.2,
        "error_rate": 0.2,
        "throughput": 0.2,
        "load_balance": 0.2,
        "user_satisfaction": 0.2,
    }
    planned = builders.plan(time_scale=5.0, reward_weights=weights)
    with pytest.raises(ExportError) as caught:
        assemble(
            [builders.random_run(run_id="a", count=100), builders.random_run(run_id="b", count=100, planned=planned)]
        )
    for name in ("observation window (10 s and 2 s)", "decision interval (2 s and 0.4 s)", "reward weights (", "SLO ("):
        assert name in str(caught.value)


def test_the_same_run_twice_is_refused() -> None:
    run = builders.random_run(count=100)
    message = "runs/run and runs/run are the same run (run); name it once"
    with pytest.raises(ExportError, match=f"^{re.escape(message)}$"):
        assemble([run, run])


def test_two_runs_with_one_run_id_are_refused_as_such() -> None:
    one = builders.random_run(count=100)
    other = builders.random_run(seed=2, count=100, path=Path("b/run"), manifest={"started_unix_ns": builders.at(1)})
    message = (
        "runs/run and b/run are two runs with one run_id (run), so their episodes could not be told apart; "
        "give one of them another run_id in its manifest.json"
    )
    with pytest.raises(ExportError, match=f"^{re.escape(message)}$"):
        assemble([one, other])


# -- refused, and nothing lost ----------------------------------------------------------------------------------------


def test_a_manifest_that_lacks_something_is_refused(run: Run) -> None:
    manifest = {name: value for name, value in run.manifest.items() if name not in ("plan", "run_id")}
    message = "runs/run: its manifest.json lacks run_id, plan; restore it as it was written"
    with pytest.raises(ExportError, match=f"^{re.escape(message)}$"):
        assemble([replace(run, manifest=manifest)])


@pytest.mark.parametrize("table", ["requests", "decisions"])
def test_a_run_of_which_nothing_can_be_read_is_refused_with_every_reason(run: Run, table: str) -> None:
    texts = [f"runs/run/{table}/x.{number}.seg: its rows have another layout" for number in (0, 1)]
    rows = {name: getattr(run, name) for name in ("requests", "decisions") if name != table}
    losses = [Loss("local.host.1", "samples", 3, "samples"), *(Loss("local.host.1", table, 5, text) for text in texts)]
    message = "\n  ".join([f"runs/run: none of its {table} can be read, nothing was exported", *texts])
    with pytest.raises(ExportError, match=f"^{re.escape(message)}$"):
        assemble([builders.run(**rows, losses=losses)])


def test_a_run_too_short_for_one_interval_is_refused() -> None:
    decided = builders.rows("decisions", [{"t_ns": builders.at(0), "tick": 0, "service": 0, "action": 0}])
    message = "runs/run: no decision interval was over when the run ended; record a longer run"
    with pytest.raises(ExportError, match=f"^{re.escape(message)}$"):
        assemble([builders.run(decisions=decided, manifest={"ended_unix_ns": builders.at(1)})])


def test_a_folder_that_is_no_bundle_is_never_replaced(data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not lose")
    message = f"{tmp_path / 'mine'}: exists and is not a bundle (no dataset.json); choose another place with --out"
    with pytest.raises(ExportError, match=f"^{re.escape(message)}$"):
        write_bundle(data, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "do not lose"
    (tmp_path / "empty").mkdir()
    write_bundle(data, tmp_path / "empty")
    assert (tmp_path / "empty" / "dataset.json").exists()


def test_a_place_that_cannot_be_written_is_said(data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "bundle"
    with pytest.raises(ExportError) as caught:
        write_bundle(data, out)
    assert str(caught.value) == (
        f"{out}: the bundle cannot be written (File exists); free some space or choose another place with --out"
    )


def test_when_the_swap_fails_the_old_bundle_is_put_back(data: Dataset, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    write_bundle(data, out)
    with pytest.raises(FileNotFoundError):
        _swap(tmp_path / "not there", out, tmp_path / "old")
    assert content(out) == content(bundle)


def test_when_writing_fails_the_old_bundle_stays(
    data: Dataset, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    write_bundle(data, out)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(ExportError, match=r"cannot be written \(No space left on device\)"):
        write_bundle(data, out)
    assert content(out) == content(bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


# -- rules of the data ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("break_it", "problem"),
    [
        (
            lambda frame: frame.assign(reward=frame["reward"] + 0.001),
            "a reward is not the weighted sum of its components",
        ),
        (lambda frame: frame.assign(reward=2.0), "a reward is not a number from 0 to 1"),
        (lambda frame: frame.assign(propensity=0.0), "a propensity is not in (0, 1]: user-service, tick 5"),
        (lambda frame: frame.assign(truncated=True), "an episode does not end with exactly one truncated step"),
        (lambda frame: frame.assign(terminated=True), "an episode does not end with exactly one truncated step"),
        (
            lambda frame: frame.assign(split=np.where(frame["step"] == 0, "excluded", frame["split"])),
            "an episode is in two parts of the split",
        ),
    ],
)
def test_data_that_breaks_a_rule_is_not_written(data: Dataset, tmp_path: Path, break_it: Any, problem: str) -> None:
    broken = Dataset(**{**vars(data), "frame": break_it(data.frame)})
    with pytest.raises(ExportError) as caught:
        write_bundle(broken, tmp_path / "bundle")
    assert str(caught.value).startswith("runs/run: ")
    assert f"\n  {problem}" in str(caught.value)
    assert "problems, nothing was written" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_next_observation_that_is_not_the_following_one_is_found(data: Dataset) -> None:
    broken = Dataset(**{**vars(data), "next_observation": np.roll(data.next_observation, 1, axis=0)})
    with pytest.raises(ExportError, match="a next observation is not the observation of the following step"):
        check.check(broken)


def test_a_leak_between_the_sides_is_found(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "purge", lambda frame, *_: np.zeros(len(frame), bool))
    with pytest.raises(ExportError, match=r"run 1: \d+ requests are seen by both sides of the split"):
        check.check(assemble([run]))


def test_gaps_of_the_recording_are_marked(run: Run, tmp_path: Path) -> None:
    loss = Loss("local.host.1", "requests", 12, "runs/run/requests/x.seg: 12 rows before it are missing")
    lossy = builders.run(**{name: getattr(run, name) for name in ("requests", "decisions", "samples")}, losses=[loss])
    write_bundle(assemble([lossy]), tmp_path / "bundle")
    facts = strict(tmp_path / "bundle" / "dataset.json")
    assert facts["complete"] is False
    assert facts["counts"]["rows_lost"] == 12
    text = "requests/x.seg: 12 rows before it are missing"
    assert facts["runs"][0]["losses"][0]["text"] == text
    assert f"## Gaps\n\n- run: {text}" in (tmp_path / "bundle" / "README.md").read_text()
    assert f"             {text}" in tally(tmp_path / "bundle")
    assert "rows lost    at least 12:" in tally(tmp_path / "bundle")


# -- logs -------------------------------------------------------------------------------------------------------------


def test_logs_have_the_names_and_the_strict_json_that_users_look_for(data: Dataset, run: Run, tmp_path: Path) -> None:
    written = write_logs(data, tmp_path / "logs")
    assert [path.name for path in written] == [
        "rl_training_results_tiny_20251231T235959Z.json",
        "rl_training_metrics_tiny_20251231T235959Z.json",
    ]
    results, metrics = strict(written[0]), strict(written[1])
    assert results["totals"]["requests"] == 3001
    totals, requests = results["totals"], run.requests
    assert totals["sessions"] == totals["sessions_by_outcome"]["sessions"] == len(results["sessions"]) == 60
    assert totals["sessions_by_outcome"]["failed"] == (run.sessions["outcome"] == Outcome.FAILED).sum()
    ended = {"ok": requests["ok"].sum(), "failed": (1 - requests["ok"]).sum(), "unfinished": 1}
    assert {name: totals[name] for name in ended} == ended
    assert totals["ok"] + totals["failed"] + totals["unfinished"] == totals["requests"]
    first = results["sessions"][0]
    start = datetime.fromtimestamp(run.sessions["start_ns"][0] / 1e9, UTC)
    assert abs((datetime.fromisoformat(first["start"]) - start).total_seconds()) < 1e-3
    duration = datetime.fromisoformat(first["end"]) - datetime.fromisoformat(first["start"])
    assert duration.total_seconds() == pytest.approx(10, abs=2e-6)
    assert first["user_actions"]["browse"] == 3
    assert first["outcome"] in {"ended", "truncated", "failed"}
    assert len(metrics["rows"]) == 600
    row = metrics["rows"][0]
    assert row["user_count"] is None  # the first count came later
    observation = dict(zip(metrics["observation_names"], row["observation"], strict=True))
    assert observation["response_time_mean_ms"] is None
    assert observation["request_rate_rps"] == 0.0
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in write_logs(data, tmp_path / "logs")] == before


def test_logs_hold_float32_values_exactly(data: Dataset, tmp_path: Path) -> None:
    rows = strict(write_logs(data, tmp_path)[1])["rows"]
    values = np.array([row["observation"] for row in rows], float).astype(np.float32)
    np.testing.assert_array_equal(values, data.observation)


def test_logs_that_cannot_be_written_are_said(data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    with pytest.raises(ExportError) as caught:
        write_logs(data, tmp_path / "logs")
    way_out = "choose another place with --logs"
    assert str(caught.value) == f"{tmp_path / 'logs'}: the log files cannot be written (File exists); {way_out}"


# -- the tally --------------------------------------------------------------------------------------------------------


def test_conversion_is_over_sessions_that_ended_by_themselves(tmp_path: Path) -> None:
    facts = [
        {"start_ns": builders.at(1), "outcome": outcome, "orders_paid": paid}
        for outcome, paid in ((Outcome.ENDED, 1), (Outcome.ENDED, 0), (Outcome.FAILED, 0), (Outcome.TRUNCATED, 1))
    ]
    run = builders.random_run(sessions=builders.rows("sessions", facts), count=300)
    write_bundle(assemble([run]), tmp_path / "bundle")
    lines = tally(tmp_path / "bundle")
    assert "conversion   quick_browser: planned 5.0%, actual 33.3% of 3 sessions" in lines
    assert "conversion   careful_shopper: planned 35.0%, no session ended of 0 sessions" in lines
    assert "sessions     4: 2 ended, 1 truncated, 1 failed" in lines


def test_the_tally_tells_what_came_out(bundle: Path) -> None:
    lines = tally(bundle)
    facts = strict(bundle / "dataset.json")
    assert lines[0] == "run          run (complete)"
    share = facts["runs"][0]["ok"] / 3000
    assert lines[1] == f"requests     3001, {share:.2%} ok, 1 with unknown end"
    assert lines[3:5] == ["decisions    600", "rows lost    0"]
    parts = facts["counts"]["transitions"]
    transitions = f"train {parts['train']}, validation {parts['validation']}, excluded {parts['excluded']}"
    assert f"transitions  {transitions}" in lines
    meaning = "the observation's longest window reaches back before the first decision"
    assert f"             excluded 25 warmup: {meaning}" in lines
    assert any(line.startswith("actions      least_loaded ") for line in lines)
    assert lines[-1] == f"bundle       {bundle}"


def test_decisions_that_were_not_applied_are_told_with_where_and_when(tmp_path: Path) -> None:
    run = builders.random_run(count=200)
    cart, user, tick = SERVICES.index("cart-service"), SERVICES.index("user-service"), run.decisions["tick"]
    away = (run.decisions["service"] == cart) & np.isin(tick, [10, 11, 30, 40, 50])
    away |= (run.decisions["service"] == user) & (tick == 11)
    run.decisions["actuated"] = ~away
    write_bundle(assemble([run]), tmp_path / "bundle")
    facts = strict(tmp_path / "bundle" / "dataset.json")
    assert facts["counts"]["not_applied"] == 6
    told = facts["runs"][0]["not_applied"]
    assert (told["decisions"], told["by_service"]) == (6, {"user-service": 1, "cart-service": 5})
    assert told["spans"][0] == {
        "from": "2026-01-01T00:00:20.000000Z",
        "until": "2026-01-01T00:00:24.000000Z",
        "decisions": 3,
    }
    lines = tally(tmp_path / "bundle")
    first = lines.index("not applied  6 of 600 decisions: user-service 1, cart-service 5")
    assert lines[first + 1] == "             3 from 2026-01-01T00:00:20.000000Z until 2026-01-01T00:00:24.000000Z"
    assert lines[first + 4] == "             and 1 times more"


def test_decisions_that_were_not_applied_to_the_last_one_say_so(tmp_path: Path) -> None:
    run = builders.random_run(count=200)
    run.decisions["actuated"] = run.decisions["tick"] < 100
    write_bundle(assemble([run]), tmp_path / "bundle")
    (span,) = strict(tmp_path / "bundle" / "dataset.json")["runs"][0]["not_applied"]["spans"]
    assert (span["until"], span["decisions"]) == (None, 100)
    assert any(line.endswith("until the last one") for line in tally(tmp_path / "bundle"))


def test_a_run_without_validation_says_so(tmp_path: Path) -> None:
    planned = builders.plan(phases={"morning": 0.5})
    write_bundle(assemble([builders.random_run(planned=planned, count=200)]), tmp_path / "bundle")
    assert part(tmp_path / "bundle", "validation").empty
    assert "             no validation part: the run is too short for two time blocks" in tally(tmp_path / "bundle")


def test_a_run_without_anything_to_learn_from_says_so(tmp_path: Path) -> None:
    write_bundle(assemble([builders.run(decisions=builders.random_run().decisions)]), tmp_path / "bundle")
    lines = tally(tmp_path / "bundle")
    for name in ("train", "validation"):
        assert f"             no {name} part: all its steps are excluded, see above" in lines


def test_decisions_whose_interval_was_not_over_are_told(tmp_path: Path) -> None:
    run = builders.random_run(count=200, manifest={"ended_unix_ns": builders.at(239)})
    write_bundle(assemble([run]), tmp_path / "bundle")
    assert "             dropped 5: their interval was not over when the run ended" in tally(tmp_path / "bundle")

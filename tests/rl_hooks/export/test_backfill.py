"""Metrics that were fetched after a run: what is missing is filled, from what was known by then, and marked."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rl_hooks.action_space import instance_labels, instances
from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.export.__main__ import main
from rl_hooks.export.backfill import FILE, Backfill, fill, moments_of, of_told, read_backfill, write_backfill
from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from rl_hooks.export.errors import ExportError
from rl_hooks.export.tally import tally
from rl_hooks.observation import FEATURE_INDEX, FEATURES, OF_METRICS, features_of
from rl_hooks.run_reader import Run, read_run
from rl_hooks.sources.series import Field, Naming, Selector, Series, tell
from tests import builders
from tests.builders import run_in
from tests.processes import sandbox_started
from tests.rl_hooks.sources.test_series import S
from tests.scraping import needs_prometheus, prometheus_started, put_history
from tests.test_main_job import run as locust_run

FACTS = {"source": "prometheus:http://127.0.0.1:9090", "fields": {"cpu": "cpu"}}
INTERVAL_S = 1.0
NAMES = [(service, f"{name}-{number}") for service, name in enumerate(SERVICES) for number in (1, 2)]


def cpu_at(t_s: float) -> float:
    """A CPU that tells when it was: seconds of the run, in thousandths."""
    return t_s / 1000


def found(until_s: float, took_s: float = 0.3) -> dict[str, list[Series]]:
    """The CPU of two instances of each service, scraped once a second at a moment of their own."""
    series = []
    for number, (service, name) in enumerate(NAMES):
        t_s = np.arange(0.05 * number, until_s, INTERVAL_S)
        t_ns = builders.START_NS + np.round(t_s * S).astype(np.int64)
        labels = {"service": SERVICES[service], "pod": name}
        series.append(Series("cpu", labels, t_ns, t_ns + round(took_s * S), cpu_at(t_s)))
    return {"cpu": series}


def fetched(run: Run, until_s: float = 240.0) -> Backfill:
    moments = moments_of(run)
    field = Field("cpu", Selector.parse("cpu"), high=1.0, stale_ns=3 * S)
    return of_told(tell([field], Naming(), found(until_s), moments), moments, FACTS)


def bare(**special: Any) -> Run:
    """A run without a metrics source."""
    run = builders.random_run(**special)
    decisions = run.decisions.copy()
    decisions["sample_ns"] = 0
    manifest = {"source": "none"}
    return builders.run(requests=run.requests, decisions=decisions, events=run.events, manifest=manifest)


def written(run: Run, folder: Path) -> Path:
    return builders.write_run(run, folder)


def is_metric(columns: Any) -> Any:
    return [name for name in columns if name.split(".", 1)[-1] in OF_METRICS]


def transitions(bundle: Path) -> pd.DataFrame:
    parts = [*bundle.glob("data/transitions/*.parquet"), bundle / "data" / "excluded" / "excluded.parquet"]
    frame = pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)
    return frame.sort_values(["service", "t_unix_ns"], ignore_index=True)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """One run, exported without and with metrics that were fetched after it."""
    place = tmp_path_factory.mktemp("backfill")
    folder = written(bare(), place / "run")
    write_bundle(assemble([read_run(folder)]), place / "without")
    write_backfill(folder, fetched(read_run(folder)))
    write_bundle(assemble([read_run(folder)]), place / "with")
    write_bundle(assemble([read_run(folder)]), place / "again")
    return {"folder": folder, **{name: place / name for name in ("without", "with", "again")}}


# -- what was known when ----------------------------------------------------------------------------------------------


def test_no_filled_value_was_unknown_when_the_decision_was_made(bundles: Mapping[str, Path]) -> None:
    """The values tell their own time: none is younger than the decision less its scrape, and none was passed over."""
    steps = transitions(bundles["with"])
    newest_s = steps["obs.cpu_max"].to_numpy(np.float64) * 1000
    decided_s = (steps["t_unix_ns"].to_numpy() - builders.START_NS) / 1e9
    known = ~np.isnan(newest_s)
    assert known.mean() > 0.9
    assert (newest_s + 0.3 <= decided_s + 1e-3)[known].all()
    assert (decided_s - newest_s < INTERVAL_S + 0.3 + 0.05 + 1e-3)[known].all()


def test_the_moment_is_when_the_decision_looked_not_when_it_came_into_force() -> None:
    run = builders.run(
        decisions=builders.rows("decisions", [{"t_ns": builders.at(2), "tick": 1, "service": 0}]),
        observations=builders.rows("observations", [{"t_ns": builders.at(1.9), "tick": 1, "service": 0}]),
    )
    assert moments_of(run).tolist() == [builders.at(1.9)]


def test_samples_of_all_moments_have_times_of_their_own_none_of_them_to_come() -> None:
    data = fetched(bare())
    by_moment = {int(t): set() for t in data.rows["received_ns"]}
    for received, t_ns in data.rows[["received_ns", "t_ns"]].tolist():
        by_moment[received].add(t_ns)
    times = [one for (one,) in by_moment.values()]
    assert sorted(set(times)) == times
    assert all(t_ns <= moment for t_ns, moment in zip(times, by_moment, strict=True))


# -- what is filled, and what is not ----------------------------------------------------------------------------------


def test_only_features_of_metrics_differ_and_rows_that_have_some_are_marked(bundles: Mapping[str, Path]) -> None:
    before, after = transitions(bundles["without"]), transitions(bundles["with"])
    assert not before["metrics_backfilled"].any()
    filled = [f"obs.{name}" for name in ("cpu_mean", "cpu_max")]
    assert (after["metrics_backfilled"] == after[filled].notna().any(axis=1)).all()
    assert before[is_metric(before.columns)].isna().all(axis=None)
    same = [name for name in before.columns if name not in [*is_metric(before.columns), "metrics_backfilled"]]
    pd.testing.assert_frame_equal(
        before[[*same]].drop(columns="observation_mask"), after[[*same]].drop(columns="observation_mask")
    )
    assert {"action", "propensity", "reward", "sample_age_s", "episode_id"} <= set(same)


def test_a_next_observation_is_the_following_rows_also_where_it_was_filled(bundles: Mapping[str, Path]) -> None:
    steps = transitions(bundles["with"])
    follows = (steps["service"] == steps["service"].shift(-1)) & (
        steps["decision_tick"] + 1 == steps["decision_tick"].shift(-1)
    )
    following = steps["obs.cpu_mean"].shift(-1)[follows]
    assert follows.sum() > 100
    assert (steps["next.cpu_mean"][follows].fillna(-1) == following.fillna(-1)).all()


def test_what_was_recorded_is_never_overwritten() -> None:
    """Also where it differs from what is fetched."""
    values = np.full((2, len(FEATURES)), np.nan, np.float32)
    values[0, FEATURE_INDEX["cpu_mean"]] = 0.9
    values[0, FEATURE_INDEX["in_flight"]] = np.nan
    more = np.full(values.shape, 0.5, np.float32)
    more[1] = np.nan
    assert fill(values, more, ACTIONS).tolist() == [True, False]
    assert values[0, FEATURE_INDEX["cpu_mean"]] == np.float32(0.9)
    assert values[0, FEATURE_INDEX["queue_sum"]] == 0.5
    assert np.isnan(values[0, FEATURE_INDEX["in_flight"]])  # of our own requests: the recorder's business
    assert np.isnan(values[1]).all()


@pytest.mark.parametrize("count", [3, 6, 8])
def test_among_instances_the_same_features_are_filled_and_those_of_each_instance(count: int) -> None:
    """Their columns stand elsewhere than among the strategies: nothing else may be filled in their place."""
    labels = instance_labels(count)
    features = features_of(labels)
    values, more = np.full((1, len(features)), np.nan, np.float32), np.full((1, len(features)), 0.5, np.float32)
    assert fill(values, more, labels).all()
    filled = {one.name for one, value in zip(features, values[0], strict=True) if not np.isnan(value)}
    gauges = ("cpu", "health", "queue_depth", "in_flight")
    assert filled == {*OF_METRICS, *(f"{label}_{gauge}" for label in labels for gauge in gauges)}


def test_a_run_of_pinned_instances_is_filled_instance_by_instance(tmp_path: Path) -> None:
    space = instances({service: [f"{service}-{number}" for number in (1, 2)] for service in SERVICES})
    folder = written(run_in(space, bare()), tmp_path / "run")
    before = assemble([read_run(folder)])
    write_backfill(folder, fetched(read_run(folder)))
    after = assemble([read_run(folder)])
    column = {one.name: index for index, one in enumerate(after.features)}
    one, two, most = (after.observation[:, column[name]] for name in ("instance_1_cpu", "instance_2_cpu", "cpu_max"))
    assert np.isnan(before.observation[:, column["instance_1_cpu"]]).all()
    known = ~np.isnan(one) & ~np.isnan(two)
    assert known.mean() > 0.9
    assert (np.maximum(one, two) == most)[known].all()
    assert (one != two)[known].any()
    same = [index for name, index in column.items() if "cpu" not in name]
    np.testing.assert_array_equal(before.observation[:, same], after.observation[:, same])


def test_an_observation_that_was_recorded_keeps_its_values(tmp_path: Path) -> None:
    run = builders.random_run()
    folder = written(run, tmp_path / "run")
    before = assemble([read_run(folder)])
    write_backfill(folder, fetched(run))
    after = assemble([read_run(folder)])
    known = ~np.isnan(before.observation)
    assert (before.observation[known] == after.observation[known]).all()


# -- where it is kept -------------------------------------------------------------------------------------------------


def test_the_file_gives_back_what_was_written(tmp_path: Path) -> None:
    data = fetched(bare())
    write_backfill(tmp_path, data)
    again = read_backfill(tmp_path)
    assert again is not None
    assert again.facts == FACTS
    for name in data.rows.dtype.names:
        if name not in ("instance_ref", "seq"):
            np.testing.assert_array_equal(data.rows[name], again.rows[name])
    named = [
        [data.names[ref] for ref in data.rows["instance_ref"]],
        [again.names[ref] for ref in again.rows["instance_ref"]],
    ]
    assert named[0] == named[1]


def test_the_same_folder_gives_the_same_bundle_also_without_the_prometheus(bundles: Mapping[str, Path]) -> None:
    assert (bundles["with"] / "dataset.json").read_bytes() == (bundles["again"] / "dataset.json").read_bytes()


def test_the_recorded_facts_are_not_touched(bundles: Mapping[str, Path]) -> None:
    folder = bundles["folder"]
    assert len(read_run(folder).samples) == 0
    assert sorted(path.name for path in (folder / "backfill").iterdir()) == [FILE.name]


def test_the_bundle_says_where_the_values_are_from(bundles: Mapping[str, Path]) -> None:
    before, after = (
        json.loads((bundles[name] / "dataset.json").read_text())["runs"][0] for name in ("without", "with")
    )
    assert before["backfill"] is None
    assert after["backfill"]["source"] == FACTS["source"]
    steps = transitions(bundles["with"])["metrics_backfilled"]
    assert after["backfill"]["steps"] == int(steps.sum())
    assert f"backfilled   {steps.sum()} of {len(steps)} steps, from {FACTS['source']}" in tally(bundles["with"])
    assert not any(line.startswith("backfilled") for line in tally(bundles["without"]))


def test_samples_that_were_fetched_stand_marked_where_a_decision_had_none(bundles: Mapping[str, Path]) -> None:
    samples = pd.read_parquet(bundles["with"] / "data" / "samples" / "samples.parquet")
    assert samples["backfilled"].all()
    assert set(samples["instance"]) == {name for _, name in NAMES}
    assert samples["requests_total"].isna().all()
    assert samples["t_unix_ns"].is_monotonic_increasing


def test_a_file_that_is_damaged_is_told(tmp_path: Path) -> None:
    (tmp_path / "backfill").mkdir()
    (tmp_path / FILE).write_bytes(b"PAR1 no more")
    with pytest.raises(ExportError, match=r"metrics\.parquet: cannot be read .*; remove it, and fetch it again with"):
        read_backfill(tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("sandbox", "--backfill sandbox: knows nothing of the past; name prometheus:URL or prometheus:FILE"),
        ("promethius", "--backfill promethius: is not a known name"),
        (
            "prometheus:http://127.0.0.1:9",
            "--backfill prometheus:http://127.0.0.1:9: GET http://127.0.0.1:9/api/v1/query",
        ),
    ],
)
def test_a_source_that_cannot_is_refused(source: str, message: str, tmp_path: Path, capsys: Any) -> None:
    folder = written(bare(count=50), tmp_path / "run")
    assert main([str(folder), "--backfill", source, "--logs", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / FILE).exists()


def test_a_run_in_s3_is_read_only(tmp_path: Path, capsys: Any) -> None:
    assert main(["s3://bucket/run", "--out", str(tmp_path), "--backfill", "prometheus:http://127.0.0.1:9"]) == 2
    assert "a run in S3 is read only; copy the run here first" in capsys.readouterr().err


# -- a real Prometheus ------------------------------------------------------------------------------------------------


def history(until_s: float) -> Iterator[str]:
    """The same CPU as OpenMetrics, of two jobs, with the durations of their scrapes."""
    start_s = builders.START_NS / 1e9
    yield "# TYPE sandbox_instance_cpu_utilization gauge"
    for one in found(until_s)["cpu"]:
        labels = ",".join(
            f'{name}="{value}"' for name, value in {**one.labels, "job": "pods", "instance": "all"}.items()
        )
        for t_ns, value in zip(one.t_ns.tolist(), one.values.tolist(), strict=True):
            yield f"sandbox_instance_cpu_utilization{{{labels}}} {value} {t_ns / 1e9:.3f}"
    yield "# TYPE scrape_duration_seconds gauge"
    for t_ms in range(0, round(until_s * 1000), 50):
        yield f'scrape_duration_seconds{{job="pods",instance="all"}} 0.3 {start_s + t_ms / 1000:.3f}'


@pytest.mark.balancers
@needs_prometheus
def test_a_real_prometheus_gives_what_was_known_at_each_decision(tmp_path: Path, capsys: Any) -> None:
    """The same as from the series themselves: through HTTP, in parts, with the scrapes' durations as it keeps them."""
    folder = written(bare(count=500), tmp_path / "run")
    put_history(tmp_path, [*history(240.0)])
    with prometheus_started(tmp_path, {}) as url:
        file = tmp_path / "metrics.yaml"
        selector = 'sandbox_instance_cpu_utilization{job="pods"}'
        file.write_text(f"url: '{url}'\nscrape_interval_seconds: 1\nfields: {{cpu: '{selector}'}}")
        options = [str(folder), "--backfill", f"prometheus:{file}", "--logs", str(tmp_path)]
        assert main(options) == 0
        assert f"{folder / FILE}: " in capsys.readouterr().out
        fresh = read_backfill(folder)
        assert main(options) == 0
        assert f"{folder / FILE} is there already; remove it to fetch again" in capsys.readouterr().out
        assert main([*options[:2], f"prometheus:{url}", *options[3:]]) == 2
        assert f"was fetched from prometheus:{file}; remove it" in capsys.readouterr().err
    assert fresh is not None
    expected = fetched(read_run(folder))
    assert len(fresh.rows) == len(expected.rows) > 1000
    np.testing.assert_array_equal(fresh.rows["received_ns"], expected.rows["received_ns"])
    np.testing.assert_allclose(fresh.rows["cpu"], expected.rows["cpu"])
    assert transitions(folder / "bundle")["metrics_backfilled"].any()


@pytest.mark.balancers
@needs_prometheus
def test_a_real_run_without_a_source_is_filled_afterwards(tmp_path: Path) -> None:
    """Half a minute on the sandbox; Prometheus scrapes it meanwhile, and the run knows nothing of that."""
    folder = tmp_path / "run"
    with sandbox_started() as sandbox:
        target = sandbox.host.removeprefix("http://").removesuffix("/proxy")
        with prometheus_started(tmp_path, {"sandbox": [target]}) as url:
            done = locust_run(folder, sandbox.host, "--time-scale", "60", "--metrics-source", "none", "--no-export")
            assert done.returncode == 0, done.stdout + done.stderr
            logs = str(tmp_path / "logs")
            assert main([str(folder), "--out", str(tmp_path / "without"), "--logs", logs]) == 0
            assert main([str(folder), "--backfill", f"prometheus:{url}", "--logs", logs]) == 0
    before, after = transitions(tmp_path / "without"), transitions(folder / "bundle")
    assert not before["metrics_backfilled"].any()
    filled = after["metrics_backfilled"]
    assert filled.mean() > 0.5
    assert after.loc[filled, "obs.memory_mean"].notna().all()
    assert (after["propensity"].fillna(-1) == before["propensity"].fillna(-1)).all()
    assert after["sample_age_s"].isna().all()
    backfill = read_backfill(folder)
    assert backfill is not None
    moments = moments_of(read_run(folder))
    assert set(backfill.rows["received_ns"].tolist()) <= set(moments.tolist())
    assert (backfill.rows["t_ns"] < backfill.rows["received_ns"]).all()

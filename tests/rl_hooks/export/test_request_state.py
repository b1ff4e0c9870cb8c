"""What every request says about its own start is what an observation at that moment would have said."""

import doctest
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from rl_hooks import request_log
from rl_hooks.decision import SERVICES
from rl_hooks.export import align, request_state, requests
from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from rl_hooks.export.formats import encoding
from rl_hooks.export.request_state import STATE
from rl_hooks.observation import FEATURE_INDEX, ObservationWindow
from rl_hooks.request_log import end_ns
from rl_hooks.row import MISSING_U8
from tests import builders

LOST = builders.rows("in_flight", [{"start_ns": builders.at(100.5), "service": 1}])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("state") / "bundle"
    run = builders.random_run(in_flight=LOST)
    run.samples["up"][0] = MISSING_U8
    write_bundle(assemble([run]), out)
    return out


def test_it_is_the_observation_at_the_requests_start(bundle: Path) -> None:
    run, planned = builders.random_run(), builders.plan()
    window = ObservationWindow(align.spans_of(planned))
    for sent in (run.requests, LOST):
        window.push_starts(sent["service"], sent["start_ns"])
    ended = run.requests
    window.push_completions(ended["service"], end_ns(ended), ended["duration_us"], ended["ok"])
    window.push_lost(LOST["service"], LOST["start_ns"] + round(planned.request_timeout_s * 1e9))
    requests = pd.read_parquet(bundle / "data/requests/requests.parquet")
    assert len(requests) == len(run.requests) + 1
    found = requests[[f"obs.{name}" for name in STATE]].to_numpy()
    places = [FEATURE_INDEX[name] for name in STATE]
    expected = np.array(
        [
            window.observe(int(start_ns)).values[SERVICES.index(service), places]
            for start_ns, service in zip(requests["start_unix_ns"], requests["service"], strict=True)
        ]
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6, equal_nan=True)
    assert np.isnan(found).any()


def test_the_rest_of_the_state_is_in_the_transition_of_its_decision(bundle: Path) -> None:
    """The join that docs/bundle.md shows: every request with a decision finds exactly one observation before it."""
    files = [*sorted((bundle / "data/transitions").iterdir()), bundle / "data/excluded/excluded.parquet"]
    steps = pd.concat([pd.read_parquet(file) for file in files])
    requests = pd.read_parquet(bundle / "data/requests/requests.parquet")
    key = ["run_id", "service", "decision_tick"]
    joined = requests.dropna(subset="decision_tick").merge(steps, on=key, suffixes=("", ".decision"), validate="m:1")
    assert len(joined) == requests["decision_tick"].notna().sum()
    age_s = (joined["start_unix_ns"] - joined["t_unix_ns"]) / 1e9
    assert age_s.between(0, 2, inclusive="left").all()
    assert joined["obs.response_time_p95_ms"].notna().any()


def test_samples_are_in_the_bundle_as_they_were(bundle: Path) -> None:
    run = builders.random_run()
    found = pd.read_parquet(bundle / "data/samples/samples.parquet")
    assert len(found) == len(run.samples)
    assert found["t_unix_ns"].is_monotonic_increasing
    assert found["up"].isna().sum() == 1
    for name in ("cpu", "memory", "health", "queue_depth", "in_flight", "capacity", "requests_total", "errors_total"):
        np.testing.assert_array_equal(np.sort(found[name]), np.sort(run.samples[name]))
    one = found[(found["instance"] == "cart-service-2") & (found["t_s"].round(2) == 11.99)].iloc[0]
    rows = run.samples[(run.samples["instance_ref"] == 8) & (run.samples["t_ns"] == one["t_unix_ns"])]
    assert one["service"] == "cart-service"
    assert one["cpu"] == pytest.approx(rows["cpu"][0], nan_ok=True)
    assert one["up"] == bool(rows["up"][0])
    assert one["received_unix_ns"] == rows["received_ns"][0]


def test_a_table_at_a_time_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where requests that began at one moment are in two tables."""
    run = builders.random_run(in_flight=LOST)
    run.requests["start_ns"][700:800] = run.requests["start_ns"][700]
    data = assemble([run])
    whole = requests.request_table(data)
    monkeypatch.setattr(requests, "ROWS", 7)
    monkeypatch.setattr(request_log, "BATCH_ROWS", 50)
    parts = requests.request_table(data)
    assert parts.num_rows == len(run.requests) + 1
    key = ["start_unix_ns", "trace_id"]
    frames = (table.to_pandas().sort_values(key, ignore_index=True) for table in (parts, whole))
    pd.testing.assert_frame_equal(*frames, check_exact=True)


@pytest.mark.parametrize("module", [request_state, encoding], ids=lambda module: module.__name__)
def test_examples_run(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert (result.failed, result.attempted > 0) == (0, True)

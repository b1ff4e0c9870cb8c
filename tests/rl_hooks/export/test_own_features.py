"""Features of one's own: what they are given lies before the moment, and what is no feature is refused."""

import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rl_hooks.decision import SERVICES
from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from rl_hooks.export.errors import ExportError
from rl_hooks.export.formats.table import find_writers
from rl_hooks.export.own_features import Before, find_features, own_values
from rl_hooks.observation import FEATURES, Feature
from rl_hooks.report.evidence import read_evidence
from rl_hooks.report.judge import judge
from rl_hooks.report.thresholds import load_thresholds
from rl_hooks.request_log import end_ns
from tests import builders


class FailedCount:
    """How many requests of the window failed."""

    feature = Feature("failed_count", "requests", 0, None, "window", "exporter", "never")

    def at(self, before: Before) -> float:
        return float((before.requests["ok"] == 0).sum())


class Count(FailedCount):
    """How many requests ended."""

    feature = Feature("ended", "requests", 0, None, "window", "exporter", "never")

    def at(self, before: Before) -> float:
        return float(len(before.requests))


class Spread:
    """Whether the instances that answered were many: distinct instances in the window."""

    feature = Feature("instances_seen", "instances", 0, 3, "window", "exporter", "no request named an instance")

    def at(self, before: Before) -> float:
        named = np.unique(before.requests["instance_ref"][before.requests["instance_ref"] > 0])
        return float(len(named)) if len(named) else math.nan


@pytest.fixture(autouse=True)
def team(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of a team, as if it lay in the folder one starts from."""
    module = ModuleType("team_features")
    vars(module).update(Count=Count, FailedCount=FailedCount, Spread=Spread)
    monkeypatch.setitem(sys.modules, "team_features", module)
    return module


def test_they_are_columns_with_a_meaning_beside_the_others(tmp_path: Path) -> None:
    own = find_features(["team_features:FailedCount", "team_features:Spread"])
    write_bundle(assemble([builders.random_run()], own=own), tmp_path / "own")
    write_bundle(assemble([builders.random_run()]), tmp_path / "plain")
    mine, plain = (
        pd.read_parquet(tmp_path / name / "data" / "transitions" / "train-00000-of-00001.parquet")
        for name in ("own", "plain")
    )
    added = [f"{at}.{name}" for at in ("obs", "next", "all") for name in ("failed_count", "instances_seen")]
    assert sorted(set(mine) - set(plain)) == sorted(added)
    pd.testing.assert_frame_equal(
        mine[list(plain)].drop(columns="observation_mask"), plain.drop(columns="observation_mask")
    )
    assert len(mine["observation_mask"].iloc[0]) == len(FEATURES) + 2
    facts, statistics = (
        json.loads((tmp_path / "own" / f"{name}.json").read_text()) for name in ("dataset", "normalization")
    )
    told = facts["observation"]["features"][-2:]
    assert [(one["name"], one["source"], one["class"]) for one in told] == [
        ("failed_count", "exporter", "team_features:FailedCount"),
        ("instances_seen", "exporter", "team_features:Spread"),
    ]
    assert statistics["features"]["failed_count"]["mean"] > 0


def test_what_they_are_given_is_the_window_before_the_moment_and_nothing_else() -> None:
    run, seen = builders.random_run(), dict[tuple[str, int], tuple[Any, Any]]()

    class Watch(FailedCount):
        def at(self, before: Before) -> float:
            seen[before.service, before.t_ns] = before.requests, before.samples
            with pytest.raises(ValueError, match="read-only"):
                before.requests["ok"] = 1
            return 0.0

    vars(sys.modules["team_features"])["Watch"] = Watch
    own = find_features(["team_features:Watch"])
    seen.clear()  # it was tried, where nothing had happened yet
    data = assemble([run], own=own)
    window_ns = 10 * 10**9
    ends = end_ns(run.requests)
    assert {t for _, t in seen} >= set(data.frame["t_unix_ns"]) | set(data.frame["next_unix_ns"])
    for (service, t_ns), (requests, samples) in list(seen.items())[::7]:
        index = SERVICES.index(service)
        mine = (run.requests["service"] == index) & (ends >= t_ns - window_ns) & (ends < t_ns)
        assert np.array_equal(np.sort(requests["trace_lo"]), np.sort(run.requests["trace_lo"][mine]))
        assert (np.diff(end_ns(requests)) >= 0).all()
        known = (run.samples["service"] == index) & (run.samples["received_ns"] <= t_ns)
        known &= (run.samples["t_ns"] <= t_ns) & (run.samples["t_ns"] >= t_ns - window_ns)
        assert len(samples) == known.sum() > 0 or t_ns == builders.START_NS


def test_what_ends_at_the_moment_itself_is_not_before_it() -> None:
    """Decisions are 2 s apart and the window is 10 s; each request takes 20 ms, and the other services have none."""
    ends_at_s = [1.999, 2.0, 11.999, 12.0, 12.0]  # the second is at the window's begin
    starts = [{"start_ns": builders.at(end_s - 0.02), "service": 1} for end_s in ends_at_s]
    plan = builders.plan()
    decided = builders.decisions(plan, np.random.default_rng(1))
    run = builders.run(plan, requests=builders.rows("requests", starts), decisions=decided)
    own = find_features(["team_features:Count"])
    values = own_values(
        run, 10 * 10**9, own, np.array([1, 1, 2]), np.array([builders.at(12.0)] * 2 + [builders.at(12)])
    )
    assert values.tolist() == [[2.0], [2.0], [0.0]]


def test_the_report_card_and_the_formats_take_them(tmp_path: Path) -> None:
    own = find_features(["team_features:FailedCount"])
    bundle = tmp_path / "bundle"
    write_bundle(assemble([builders.random_run()], own=own), bundle, find_writers("npz,bandit,rllib,jsonl"))
    columns = json.loads((bundle / "formats" / "npz" / "format.json").read_text())["observation"]["columns"]
    place = columns.index("obs.failed_count")
    train = pd.read_parquet(bundle / "data" / "transitions" / "train-00000-of-00001.parquet")
    encoded = np.load(bundle / "formats" / "npz" / "train.npz")["observations"][:, place]
    assert np.corrcoef(encoded, train["obs.failed_count"])[0, 1] == pytest.approx(1)
    assert "known.failed_count" not in columns  # it is never missing
    checks = judge(read_evidence([bundle]), load_thresholds(None)).checks
    assert str(next(one.finding for one in checks if one.name == "transitions_hold").verdict) == "pass"


def meaning(**special: Any) -> Feature:
    facts = {"name": "mine", "unit": "share", "low": 0, "high": 1, "window": "window", "source": "exporter"}
    return Feature(**{**facts, "missing_when": "never", **special})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("feature", "problem"),
    [
        (None, "its attribute `feature` is no rl_hooks.observation.Feature"),
        (meaning(name="Mine!"), "its name 'Mine!' cannot be a column's"),
        (meaning(name="cpu_mean"), "its name cpu_mean is taken"),
        (meaning(name="instance_2_cpu"), "its name instance_2_cpu is taken"),
        (meaning(source="client"), 'write source "exporter" and window "window"'),
        (meaning(window="now"), 'write source "exporter" and window "window"'),
        (meaning(unit=""), "its unit says nothing"),
    ],
)
def test_what_does_not_say_what_it_is_is_refused(feature: Feature | None, problem: str, team: ModuleType) -> None:
    vars(team)["Wrong"] = type("Wrong", (FailedCount,), {"feature": feature})
    with pytest.raises(ExportError) as caught:
        find_features(
            ["team_features:Wrong", "nowhere:Thing", "team_features:FailedCount", "team_features:FailedCount"]
        )
    lines = str(caught.value).splitlines()
    assert problem in lines[0]
    assert "there is no module nowhere" in lines[1]
    assert "its name failed_count is taken" in lines[2]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (math.nan, "returned NaN, and its missing_when says never"),
        (1.5, "returned 1.5; its range is 0 to 1"),
        ("many", r"failed for user-service with \d+ requests and \d+ samples before the moment \(ValueError: "),
    ],
)
def test_an_answer_that_is_none_is_told_with_its_place(answer: object, problem: str, team: ModuleType) -> None:
    vars(team)["Wrong"] = type("Wrong", (), {"feature": meaning(), "at": lambda self, before: answer})
    with pytest.raises(ExportError, match=f"--feature team_features:Wrong: {problem}"):
        assemble([builders.random_run()], own=find_features(["team_features:Wrong"]))

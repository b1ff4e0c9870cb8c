"""Thresholds can be replaced; a file that says something else than it means is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from rl_hooks.report.errors import ReportError
from rl_hooks.report.judge import KINDS, threshold
from rl_hooks.report.thresholds import Limit, Thresholds, load_thresholds, override
from rl_hooks.report.verdict import Verdict


def test_a_file_replaces_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "report.yaml"
    file.write_text("action_share: {fail: 0.01}\nstationarity: {warn: null}\nstate_clusters: 12\n")
    changed, default = load_thresholds(file), Thresholds()
    assert changed.action_share == replace(default.action_share, fail=0.01)
    assert changed.stationarity.judge(1.0) is Verdict.PASS
    assert changed.state_clusters == 12
    assert changed.overlap == default.overlap
    assert load_thresholds(None) == default


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "report.yaml").write_text("")
    assert load_thresholds(tmp_path / "report.yaml") == Thresholds()


def test_every_problem_is_told_at_once() -> None:
    content = {
        "action_shares": {"fail": 0.1},
        "overlap": {"fial": 0.5},
        "markov": 0.1,
        "episodes": {"fail": "many"},
        "transitions": {"fail": 30000},
        "state_clusters": 0,
        "randomizations": 9.5,
    }
    with pytest.raises(ReportError) as caught:
        override(content, "report.yaml")
    message = str(caught.value)
    assert message.startswith("report.yaml: 7 problems\n")
    for part in (
        "'action_shares': is not a threshold. Did you mean 'action_share'?",
        "overlap.'fial': is not a limit. Did you mean 'fail'?",
        "markov: 0.1 is not a pair of limits. Write {fail: NUMBER, warn: NUMBER}",
        "episodes.fail: 'many' is not a number. Give a number, or null for never",
        "transitions: fails at 30000 before it warns at 20000. What is below the limit is bad, so fail lies below warn",
        "state_clusters: 0 is not a whole number above 0. The default is 30",
        "randomizations: 9.5 is not a whole number above 0. The default is 999",
    ):
        assert part in message


def test_fewer_randomizations_than_the_lags_need_are_refused() -> None:
    with pytest.raises(
        ReportError, match=r"randomizations: 99 cannot tell 12 lags from chance at 5 %\. Give at least 240"
    ):
        override({"randomizations": 99}, "report.yaml")


@pytest.mark.parametrize(("text", "message"), [("[1, 2]", "not a mapping"), ("a: [", "cannot be read as YAML")])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "report.yaml").write_text(text)
    with pytest.raises(ReportError, match=message):
        load_thresholds(tmp_path / "report.yaml")


def test_every_limit_belongs_to_a_check_and_every_check_says_its_limits() -> None:
    limits = {name for name in Thresholds.__slots__ if isinstance(getattr(Thresholds(), name), Limit)}
    assert {name for kind in KINDS for name in kind.limits} == limits
    assert all(threshold(kind, Thresholds()) for kind in KINDS)
    assert len({kind.name for kind in KINDS}) == len(KINDS)

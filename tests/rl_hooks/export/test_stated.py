"""Runs of a balancer that decides by itself: its statements become steps, and what is not known stays so."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.export import align, split, stated
from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import Dataset, assemble
from rl_hooks.export.errors import ExportError
from rl_hooks.export.formats.bandit import read as read_bandit
from rl_hooks.export.formats.table import describe_formats, find_writers, write_formats
from rl_hooks.export.schema import dataset_facts
from rl_hooks.export.tally import tally
from rl_hooks.export.verify.coverage import coverage_lines
from rl_hooks.observation import FEATURES
from rl_hooks.row import MISSING_U8, MISSING_U32
from rl_hooks.run_reader import Run
from tests import builders
from tests.builders import at

NAMES = {**builders.NAMES, "policy": ("", "sticky:0.5", "mine (v2)")}


def observed_decisions(planned: Any) -> Any:
    """Decisions of nobody, as they are recorded."""
    decided = builders.decisions(planned, np.random.default_rng(1))
    decided["action"], decided["actuated"], decided["policy_ref"] = MISSING_U8, 0, 0
    for name in ("propensity", *(f"prob_{index}" for index in range(len(ACTIONS)))):
        decided[name] = np.nan
    return decided


def answers(*told: Mapping[str, Any]) -> Run:
    """A run of answers of service 0; each states `t`, and what differs from an answer that says everything."""
    default = {"action_applied": 2, "propensity": 0.25, "policy_ref": 1, "stated_decision": 1, "service": 0}
    rows = [{**default, **one, "start_ns": at(one["t"])} for one in told]
    facts = [{name: value for name, value in row.items() if name != "t"} for row in rows]
    planned = builders.plan()
    return builders.run(
        planned, decisions=observed_decisions(planned), requests=builders.rows("requests", facts), names=NAMES
    )


def first_steps(run: Run, count: int = 2) -> list[tuple[int, float, float, str]]:
    """(action, share, propensity, why not) of the first steps of service 0; intervals are 2 s."""
    found = stated.stated(run, align.timeline(run, builders.plan()))
    columns = (found.action, found.share, found.propensity, found.why_not)
    return [tuple(column[place] for column in columns) for place in range(count)]  # type: ignore[misc]


def several(count: int, t: float = 0.5, **said: Any) -> list[dict[str, Any]]:
    return [{"t": t + 0.01 * number, **said} for number in range(count)]


# -- from answers to a step -------------------------------------------------------------------------------------------


def test_a_step_has_the_action_and_the_propensity_that_its_answers_state() -> None:
    (first, second) = first_steps(answers(*several(3), *several(2, 2.5, action_applied=5, stated_decision=2)))
    assert first == (2, 1.0, 0.25, "")
    assert second == (5, 1.0, 0.25, "")


def test_a_few_answers_of_the_decision_before_do_not_change_the_step() -> None:
    late = several(1, 2.1)
    ours = several(9, 2.2, action_applied=5, stated_decision=2, propensity=0.5)
    _, second = first_steps(answers(*several(3), *late, *ours))
    assert second == (5, 0.9, 0.5, "")


def test_an_interval_of_several_actions_is_of_none() -> None:
    first, _ = first_steps(answers(*several(3), *several(2, action_applied=0, stated_decision=2)))
    assert (first[0], first[1], first[3]) == (2, 0.6, "actions_mixed")
    assert math.isnan(first[2])


def test_an_interval_that_nobody_tells_of_has_no_action() -> None:
    first, second = first_steps(answers(*several(3, action_applied=MISSING_U8), *several(1, 4.5)))
    assert (first[0], first[3]) == (second[0], second[3]) == (-1, "action_untold")
    assert math.isnan(first[1])


def test_two_decisions_for_one_action_are_not_one_draw() -> None:
    """Each was drawn with 0.25; that both were is nobody's propensity. Whoever else has one keeps it."""
    told = [*several(3), *several(2, stated_decision=2), *several(3, 2.5, stated_decision=3)]
    first, second = first_steps(answers(*told))
    assert (first[0], first[1], first[3]) == (2, 1.0, "no_propensity")
    assert second[2] == 0.25


def test_a_decision_that_goes_on_was_drawn_once() -> None:
    told = [*several(3), *several(3, 2.5), *several(3, 4.5, stated_decision=2), *several(3, 6.5, stated_decision=3)]
    steps = first_steps(answers(*told), 4)
    assert [step[2] for step in steps[::2]] == [0.25, 0.25]
    assert math.isnan(steps[1][2])
    assert steps[3][2] == 0.25


def test_without_ids_the_propensity_is_what_all_answers_of_the_action_state() -> None:
    silent = {"stated_decision": MISSING_U32}
    same = first_steps(answers(*several(4, **silent), *several(1, action_applied=0, propensity=0.5, **silent)))
    assert same[0][:3] == (2, 0.8, 0.25)
    for other in (0.5, math.nan):
        first, _ = first_steps(answers(*several(3, **silent), *several(1, propensity=other, **silent)))
        assert math.isnan(first[2])


def test_which_steps_have_a_propensity_does_not_depend_on_what_was_drawn() -> None:
    """A tenth of the answers is late. Kept or changed by the decision before, the step is treated alike."""
    for before in (2, 4):
        late = several(1, 2.1, action_applied=before)
        _, second = first_steps(answers(*several(3), *late, *several(9, 2.2, stated_decision=2)))
        assert (second[2], second[3]) == (0.25, "")


def test_where_hardly_anything_is_stated_steps_without_are_kept() -> None:
    silent = [answer for t in (2.5, 4.5, 6.5) for answer in several(2, t, propensity=math.nan)]
    steps = first_steps(answers(*several(2), *silent), 4)
    assert [step[3] for step in steps] == ["", "", "", ""]


# -- bundles ----------------------------------------------------------------------------------------------------------

INTERVAL_S = 2.0


def observed_run(propensity: float | None = 1 / 6, run_id: str = "run", count: int = 9000) -> Run:
    """A whole run of a balancer that draws uniformly every 2 s for each service and states `propensity`."""
    planned, rng = builders.plan(), np.random.default_rng(5)
    decided = observed_decisions(planned)
    requests = builders.requests(planned, decided, rng, count)
    tick, service = requests["decision_tick"], requests["service"]
    drawn = rng.integers(0, len(ACTIONS), (int(tick.max()) + 1, len(SERVICES)))
    requests["action_requested"], requests["action_applied"] = MISSING_U8, drawn[tick, service]
    requests["propensity"] = np.nan if propensity is None else propensity
    requests["policy_ref"] = 0 if propensity is None else 1
    requests["stated_decision"] = MISSING_U32 if propensity is None else tick * len(SERVICES) + service
    samples = builders.samples(planned, rng)
    facts = {"logging_policy": "observed", "actuator": "observe"}
    return builders.run(
        planned, run_id, decisions=decided, requests=requests, samples=samples, names=NAMES, manifest=facts
    )


@pytest.fixture(scope="module")
def with_propensities() -> Dataset:
    return assemble([observed_run()])


@pytest.fixture(scope="module")
def without() -> Dataset:
    return assemble([observed_run(None)])


def test_the_bundle_says_whether_propensities_are_known(with_propensities: Dataset, without: Dataset) -> None:
    known, none = (dataset_facts(data)["propensities"] for data in (with_propensities, without))
    steps = int((~with_propensities.rows(split.EXCLUDED)).sum())
    assert known == {
        "are": "known",
        "steps_with": steps,
        "steps_without": 0,
        "whole_distribution": False,
        "stated_by": "the balancer",
        "policies": ["sticky:0.5"],
    }
    assert (none["are"], none["steps_with"], none["policies"]) == ("none", 0, ["unknown"])
    assert none["steps_without"] > 0
    ours = dataset_facts(assemble([builders.random_run()]))["propensities"]
    assert (ours["are"], ours["whole_distribution"], ours["stated_by"]) == ("known", True, "the logging policy")


def test_runs_with_and_without_make_a_bundle_with_some() -> None:
    both = assemble([observed_run(run_id="a"), observed_run(None, run_id="b")])
    found = dataset_facts(both)["propensities"]
    assert found["are"] == "some"
    assert min(found["steps_with"], found["steps_without"]) > 0
    mixed = dataset_facts(assemble([builders.random_run(run_id="a"), observed_run(None, run_id="b")]))["propensities"]
    assert (mixed["are"], mixed["stated_by"]) == ("some", "several")


def test_a_step_names_the_policy_and_only_the_probability_of_its_action(with_propensities: Dataset) -> None:
    frame = with_propensities.frame[~with_propensities.rows(split.EXCLUDED)]
    assert set(frame["logging_policy"]) == {"sticky"}
    assert set(frame["policy_version"]) == {"sticky:0.5"}
    assert set(frame["action_requested"]) == {-1}
    table = frame[[f"prob_{index}" for index in range(len(ACTIONS))]].to_numpy()
    assert np.isfinite(table).sum(axis=1).tolist() == [1] * len(frame)
    assert table[np.arange(len(frame)), frame["action"]] == pytest.approx(1 / 6)
    previous = [number for number, one in enumerate(FEATURES) if one.name.startswith("previous_action_")]
    assert np.isnan(with_propensities.observation[:, previous]).all()


def test_every_excluded_step_has_a_reason_of_its_own(with_propensities: Dataset) -> None:
    excluded = with_propensities.frame[with_propensities.rows(split.EXCLUDED)]
    counts = excluded["reason"].value_counts().to_dict()
    assert set(counts) <= set(split.REASONS)
    untold = with_propensities.frame["n_requests"] == 0
    assert counts["action_untold"] == (untold & ~with_propensities.frame["warmup"]).sum()


@pytest.fixture(scope="module")
def bundles(with_propensities: Dataset, without: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("observed")
    formats = find_writers("npz,bandit,rllib,jsonl")
    for name, data in (("known", with_propensities), ("none", without)):
        write_bundle(data, place / name, formats)
    return {name: place / name for name in ("known", "none")}


def test_bandit_feedback_without_propensities_is_not_written_and_the_rest_is(bundles: dict[str, Path]) -> None:
    there = {name: sorted(path.name for path in (place / "formats").iterdir()) for name, place in bundles.items()}
    assert there == {"known": ["bandit", "jsonl", "npz", "rllib"], "none": ["jsonl", "npz", "rllib"]}
    (line,) = describe_formats(bundles["none"], ["bandit"])
    why = "it is made of propensities, and the balancer, which decided by itself, stated none"
    assert line == f"format       bandit: not written: {why}"
    write_formats(bundles["none"], find_writers("bandit"))
    assert not (bundles["none"] / "formats" / "bandit").exists()


def test_formats_hold_the_stated_propensities_and_nothing_that_nobody_stated(bundles: dict[str, Path]) -> None:
    feedback = read_bandit(bundles["known"] / "formats" / "bandit" / "train.npz")
    assert feedback["pscore"] == pytest.approx(1 / 6)
    assert "pi_b" not in feedback
    for name, wanted in (("known", {"infos/propensity"}), ("none", set())):
        with np.load(bundles[name] / "formats" / "npz" / "train.npz") as arrays:
            assert {key for key in arrays.files if "prob" in key or "propensity" in key} == wanted
            assert all(np.isfinite(arrays[key]).all() for key in ("observations", "rewards", "actions"))
        columns = set(pd.read_parquet(bundles[name] / "formats" / "rllib" / "train").columns)
        assert ("action_prob" in columns) == ("action_logp" in columns) == (name == "known")
        assert "action_dist_inputs" not in columns


def test_people_are_told(bundles: dict[str, Path]) -> None:
    steps = json.loads((bundles["none"] / "dataset.json").read_text())["propensities"]["steps_without"]
    line = f"propensities none: 0 steps with, {steps} without; stated by the balancer, policies named: unknown"
    assert line in tally(bundles["none"])
    card = (bundles["none"] / "README.md").read_text()
    assert "| propensities | none: the balancer decided by itself and stated no probabilities, so this data" in card
    assert "as the balancer stated them (it named sticky:0.5)" in (bundles["known"] / "README.md").read_text()


def test_what_was_drawn_is_not_compared_with_a_plan_that_draws_nothing() -> None:
    run = observed_run()
    names = [line.what for line in coverage_lines(run, builders.plan())]
    assert "actions" not in names
    assert "services" in names


def test_a_step_of_ours_without_a_propensity_is_still_a_fault(without: Dataset, tmp_path: Path) -> None:
    ours = replace(without, frame=without.frame.assign(observed=False))
    with pytest.raises(ExportError, match=r"a propensity is not in \(0, 1\]"):
        write_bundle(ours, tmp_path / "bundle")

"""Steps: intervals, cohorts, applied actions and what is known of them."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rl_hooks.export import align, steps
from rl_hooks.export.errors import ExportError
from rl_hooks.row import MISSING_U8
from rl_hooks.run_reader import Run
from tests import builders
from tests.builders import at, rows

PLAN = builders.plan()


def decided(times: list[float], service: int = 0, **columns: Any) -> Any:
    """Decisions of one service at these seconds."""
    facts = {"t_ns": [at(t) for t in times], "tick": np.arange(len(times)), "service": service, "action": 0}
    return rows("decisions", {**facts, **columns})


def frame_of(**tables: Any) -> pd.DataFrame:
    run = builders.run(PLAN, **tables)
    return steps.build(run, PLAN, exact_quantiles=False).frame


def observed(run: Run, line: align.Timeline) -> align.Observed:
    return align.observe(run, PLAN, line, align.tally(run, PLAN, line, exact_quantiles=False))


def requests(*facts: dict[str, Any]) -> Any:
    defaults = {"service": 0, "action_requested": 0, "action_applied": 0}
    return rows("requests", [{**defaults, **fact} for fact in facts])


def test_an_interval_ends_at_the_next_decision_even_if_that_is_early_or_late() -> None:
    frame = frame_of(decisions=decided([0, 2.1, 3.9, 8.0]))
    np.testing.assert_allclose(frame["dt_s"], [2.1, 1.8, 4.1, 2.0])
    assert frame["followed"].tolist() == [True, True, True, False]  # two intervals are no gap yet


def test_after_a_gap_the_interval_is_one_interval_long() -> None:
    frame = frame_of(decisions=decided([0, 2, 8, 10]))
    np.testing.assert_allclose(frame["dt_s"], [2, 2, 2, 2])
    assert frame["followed"].tolist() == [True, False, True, False]


def test_a_request_sent_in_a_gap_belongs_to_no_decision() -> None:
    sent = requests(*({"start_ns": at(t)} for t in (-1, 0, 1.999, 2, 3.999, 4, 7.9, 8)))
    run = builders.run(PLAN, decisions=decided([0, 2, 8, 10]), requests=sent)
    line = align.timeline(run, PLAN)
    cohort = align.cohort_of(run.requests["service"], run.requests["start_ns"], line)
    assert cohort.tolist() == [-1, 0, 0, 1, 1, -1, -1, 2]


def test_a_decision_whose_interval_was_not_over_is_dropped_and_counted() -> None:
    run = builders.run(PLAN, decisions=decided([0, 2, 4]), manifest={"ended_unix_ns": at(5.9)})
    built = steps.build(run, PLAN, exact_quantiles=False)
    assert built.frame["t_s"].tolist() == [0, 2]
    assert built.incomplete == 1
    assert built.frame["followed"].tolist() == [True, True]  # the observation at 4 s is there


def test_an_interrupted_run_ends_with_its_last_fact() -> None:
    for last_s, kept in ((5.9, 2), (6.0, 3)):
        sent = requests({"start_ns": at(1), "duration_us": round((last_s - 1) * 1e6)})
        run = builders.run(PLAN, decisions=decided([0, 2, 4]), requests=sent, manifest={"ended_unix_ns": None})
        assert len(steps.build(run, PLAN, exact_quantiles=False).frame) == kept


def test_requests_of_a_dropped_decision_belong_to_no_step() -> None:
    sent = requests({"start_ns": at(3)}, {"start_ns": at(4.5)})
    run = builders.run(PLAN, decisions=decided([0, 2, 4]), requests=sent, manifest={"ended_unix_ns": at(5)})
    built = steps.build(run, PLAN, exact_quantiles=False)
    assert built.intervals.step_of(run.requests["service"], run.requests["start_ns"]).tolist() == [1, -1]


def test_the_action_is_the_one_applied_to_most_requests() -> None:
    sent = requests(*({"start_ns": at(t), "action_applied": a} for t, a in ((0.1, 3), (0.2, 3), (0.3, 0), (2.1, 0))))
    frame = frame_of(decisions=decided([0, 2, 4]), requests=sent)
    assert frame["action"].tolist() == [3, 0, 0]
    assert frame["action_requested"].tolist() == [0, 0, 0]
    np.testing.assert_allclose(frame["applied_share"], [2 / 3, 1, np.nan], rtol=1e-6)
    assert frame["action_differs"].tolist() == [True, False, False]
    np.testing.assert_allclose(frame["propensity"], [np.nan, 1 / 6, 1 / 6], rtol=1e-6)


def test_a_draw_between_actions_goes_to_the_requested_one() -> None:
    sent = requests(*({"start_ns": at(t), "action_applied": a} for t, a in ((0.1, 2), (0.2, 5))))
    frame = frame_of(decisions=decided([0, 2], action=5), requests=sent)
    assert frame["action"].tolist() == [5, 5]
    assert frame["applied_share"].iloc[0] == 0.5
    assert not frame["action_differs"].any()


def test_where_no_request_tells_an_actuated_decision_stands_and_another_does_not() -> None:
    sent = requests({"start_ns": at(0.1), "action_applied": MISSING_U8})
    run = builders.run(PLAN, decisions=decided([0, 2], action=4, actuated=[1, 0]), requests=sent)
    told = replace(run, manifest={**run.manifest, "actuator": "sandbox"})
    frame = steps.build(told, PLAN, exact_quantiles=False).frame
    assert frame["action"].tolist() == [4, 4]
    assert frame["applied_share"].isna().all()
    assert frame["action_differs"].tolist() == [False, True]
    assert frame["propensity"].isna().tolist() == [False, True]


def test_where_a_header_asked_and_no_answer_tells_nobody_knows_the_action() -> None:
    """A proxy on the way may have taken the header off; an interval without requests asked nobody."""
    sent = requests({"start_ns": at(0.1), "action_applied": MISSING_U8})
    frame = frame_of(decisions=decided([0, 2], action=4, actuated=1), requests=sent)
    assert frame["action_differs"].tolist() == [True, False]
    assert frame["propensity"].isna().tolist() == [True, False]


def test_a_request_with_unknown_end_is_counted_and_in_no_reward() -> None:
    lost = rows("in_flight", [{"start_ns": at(2.5), "service": 0}])
    frame = frame_of(decisions=decided([0, 2, 4]), requests=requests({"start_ns": at(2.1), "ok": 1}), in_flight=lost)
    assert frame["n_requests"].tolist() == [0, 2, 0]
    assert frame["n_unfinished"].tolist() == [0, 1, 0]
    assert frame["n_errors"].tolist() == [0, 0, 0]
    assert frame["reward_error_rate"].iloc[1] == 1.0
    assert frame["offered_rps"].tolist() == [0, 1, 0]


def test_the_warm_up_lasts_until_the_longest_window_is_full() -> None:
    frame = frame_of(decisions=decided(list(range(0, 20, 2))))
    assert frame.loc[frame["warmup"], "t_s"].tolist() == [0, 2, 4, 6, 8]  # the window is 10 s long


def test_users_are_those_of_the_last_count_before() -> None:
    events = [
        {"t_ns": at(t), "kind": "users", "run_time_s": t, "counts": {"quick_browser": n, "x": 1}}
        for t, n in ((1.0, 4), (2.0, 8))
    ]
    frame = frame_of(decisions=decided([0, 2, 4]), events=events)
    np.testing.assert_array_equal(frame["user_count"], [np.nan, 5, 9])


def test_the_script_says_whether_users_rise_or_fall() -> None:
    planned = builders.plan(phases={"morning": 1.0, "evening": 1.0})
    assert [steps.script_pattern(planned, t) for t in (-1, 0, 5.9, 6, 59, 61)] == [
        "steady",
        "rising",
        "rising",
        "steady",
        "steady",
        "steady",  # as many users as before
    ]


def test_sticky_policies_are_named_with_their_parameters() -> None:
    frame = frame_of(decisions=decided([0, 2], policy_ref=[1, 2]))
    assert frame["logging_policy"].tolist() == ["uniform", "sticky"]
    assert frame["policy_version"].tolist() == ["uniform", "sticky:0.5"]


def test_the_next_observation_after_a_gap_is_what_was_known_one_interval_later() -> None:
    run = builders.random_run()
    run.decisions["t_ns"][run.decisions["tick"] >= 50] += 60 * 10**9
    line = align.timeline(run, PLAN)
    seen = observed(run, line)
    gap = np.flatnonzero(~line.followed & (run.decisions["tick"][line.row] == 49))
    assert len(gap) == 5
    later = builders.random_run()
    virtual = builders.run(
        PLAN,
        requests=later.requests,
        samples=later.samples,
        decisions=later.decisions[later.decisions["tick"] <= 50],
    )
    direct = observed(virtual, align.timeline(virtual, PLAN))
    at_50 = virtual.decisions["tick"][align.timeline(virtual, PLAN).row] == 50
    np.testing.assert_array_equal(seen.after[gap], direct.at[at_50])


def test_a_run_without_decisions_is_refused() -> None:
    message = "runs/run: no decisions were recorded, so there is nothing to learn from; record a run first"
    with pytest.raises(ExportError, match=f"^{re.escape(message)}$"):
        frame_of()


def test_two_deciding_processes_are_refused() -> None:
    message = (
        f"runs/run: user-service has two decisions at {at(2)} ns; two processes decided in this run, "
        "so it cannot be exported"
    )
    with pytest.raises(ExportError, match=f"^{re.escape(message)}$"):
        frame_of(decisions=decided([0, 2, 2]))

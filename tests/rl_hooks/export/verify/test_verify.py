"""A run as planned meets every line, and each broken law makes its own line, and no other, say so."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.export.verify.__main__ import main, verify
from rl_hooks.export.verify.faults import fault_lines
from rl_hooks.export.verify.line import Line, Verdict
from rl_hooks.export.verify.load import stress_level
from rl_hooks.row import Intent, Outcome
from rl_hooks.run_folder import Incarnation
from rl_hooks.run_reader import Loss, Run
from scenario.model import Fault
from scenario.plan import Plan
from tests import builders
from tests.rl_hooks.export.verify import as_planned


@pytest.fixture(scope="module")
def whole() -> Run:
    return as_planned.run()


def missed(run: Run) -> dict[tuple[str, str], Line]:
    return {(line.what, line.where): line for line in verify(run) if line.verdict is Verdict.MISSED}


def line_of(run: Run, what: str, where: str = "") -> Line:
    (found,) = (line for line in verify(run) if (line.what, line.where) == (what, where))
    return found


def test_a_run_as_planned_meets_every_line(whole: Run) -> None:
    assert missed(whole) == {}
    kinds = {line.what for line in verify(whole) if line.verdict is Verdict.MET}
    expected = {"users", "profile mix", "distinct users", "conversion", "abandonment", "session length", "page visits"}
    expected |= {
        "purchase intent",
        "state",
        "rows lost",
        "services",
        "profiles",
        "phases",
        "actions",
        "service x action",
    }
    assert kinds == expected | {"phase x action", "decision intervals", "success rate"}


# -- users ------------------------------------------------------------------------------------------------------------


def test_one_tick_with_one_user_too_few_is_a_miss_and_is_counted(whole: Run) -> None:
    broken = missed(replace(whole, events=tuple(as_planned.changed(whole.events, 100.0, quick_browser=9))))
    assert list(broken) == [("users", "morning, quick_browser")]
    assert broken["users", "morning, quick_browser"].actual == "9 to 10 in 178 of about 178 ticks, 1 differ"


def test_a_user_of_a_profile_that_the_phase_does_not_have_is_a_miss(whole: Run) -> None:
    broken = missed(replace(whole, events=tuple(as_planned.changed(whole.events, 100.0, bulk_buyer=1))))
    assert list(broken) == [("users", "morning, bulk_buyer")]


@pytest.mark.parametrize(("at_s", "settled"), [(0.5, False), (180.3, False), (182.0, False), (182.2, True)])
def test_ticks_in_and_just_after_a_ramp_are_not_compared(at_s: float, settled: bool) -> None:
    """The second phase has other users; its ramp ends at 180.6 s, and 1.5 s later they have to be there."""
    first, second = as_planned.plan().scenario.phases
    scenario = replace(as_planned.plan().scenario, phases=(first, replace(second, users=24)))
    planned = builders.make_plan(scenario, seed=1, time_scale=10)
    events = [
        {"t_ns": builders.at(t), "kind": "users", "run_time_s": t, "counts": dict(planned.mix_at(t))}
        for t in sorted({*(second + 0.5 for second in range(360)), at_s})
    ]
    run = as_planned.run(planned, events=as_planned.changed(events, at_s, quick_browser=3))
    assert bool(missed(run)) == settled


def test_workers_get_three_seconds_more_to_report(whole: Run) -> None:
    worker = Incarnation("worker.host.1", "worker", "host", True, None)
    late = replace(whole, incarnations=(worker,))
    ticks = [int(line_of(run, "ticks").actual.split()[0]) for run in (whole, late)]
    assert ticks[0] - ticks[1] == 6  # three seconds after each of two ramps


def test_a_phase_that_was_not_reached_is_a_miss(whole: Run) -> None:
    events = tuple(event for event in whole.events if event["run_time_s"] < 180)
    broken = missed(replace(whole, events=events))
    assert list(broken) == [("users", "evening, quick_browser"), ("users", "evening, careful_shopper")]
    assert broken["users", "evening, quick_browser"].actual == "none in 0 of about 178 ticks, 0 differ"


def test_a_mix_that_is_off_all_the_time_is_a_miss(whole: Run) -> None:
    events = tuple({**event, "counts": {"quick_browser": 11, "careful_shopper": 9}} for event in whole.events)
    mix = missed(replace(whole, events=events))["profile mix", "evening"]
    assert (mix.planned, mix.actual) == ("50.0/50.0 %", "55.0/45.0 %")


def test_a_phase_too_short_to_settle_is_not_compared() -> None:
    run = as_planned.run(as_planned.plan(phases={"morning": 30.0, "evening": 0.3}))
    line = line_of(run, "users", "evening")
    assert (line.verdict, line.actual) == (Verdict.TOLD, "never long enough without a change")


# -- sessions ---------------------------------------------------------------------------------------------------------


def with_sessions(whole: Run, change: Callable[[Any], None]) -> Run:
    sessions = whole.sessions.copy()
    change(sessions)
    return replace(whole, sessions=sessions)


def of(sessions: Any, ref: int) -> Any:
    return sessions["profile_ref"] == ref


def test_a_conversion_outside_its_interval_is_a_miss(whole: Run) -> None:
    """Fifty of 210 paid orders of careful shoppers are missing, though they were placed."""

    def unpaid(sessions: Any) -> None:
        paid = (sessions["orders_paid"] > 0) & of(sessions, 2)
        sessions["orders_paid"][paid.nonzero()[0][:50]] = 0

    broken = missed(with_sessions(whole, unpaid))
    assert list(broken) == [("conversion", "careful_shopper")]
    line = broken["conversion", "careful_shopper"]
    assert line.planned == "35.0 %"
    assert line.actual == "26.7 % (160 of 600 sessions, 0 failed, 0 more cut short)"
    low, high = stats.binomtest(160, 600).proportion_ci(1 - 0.01 / 6, method="exact")  # the most refuted of six
    assert line.allowed == f"interval {100 * low:.1f} to {100 * high:.1f} %"


def test_intents_that_were_drawn_otherwise_are_a_miss(whole: Run) -> None:
    def intents(sessions: Any) -> None:
        browsing = (sessions["intent"] == Intent.BROWSE_ONLY) & of(sessions, 1)
        sessions["intent"][browsing.nonzero()[0][:40]] = Intent.PURCHASE

    broken = missed(with_sessions(whole, intents))
    assert list(broken) == [("purchase intent", "quick_browser")]
    assert broken["purchase intent", "quick_browser"].actual == "11.7 % (70 of 600 sessions)"


def test_an_abandonment_outside_its_interval_is_a_miss(whole: Run) -> None:
    """More carts that are ordered nothing from, so the conversion stays."""

    def carts(sessions: Any) -> None:
        without = (sessions["cart_adds"] == 0) & of(sessions, 2)
        sessions["cart_adds"][without.nonzero()[0][:120]] = 1

    broken = missed(with_sessions(whole, carts))
    assert list(broken) == [("abandonment", "careful_shopper")]
    assert broken["abandonment", "careful_shopper"].actual == "55.3 % (260 of 470 carts)"


def test_failed_sessions_count_as_they_ended_and_cut_short_ones_do_not(whole: Run) -> None:
    def outcomes(sessions: Any) -> None:
        sessions["outcome"][of(sessions, 1).nonzero()[0][-3:]] = Outcome.FAILED
        sessions["outcome"][of(sessions, 1).nonzero()[0][-8:-3]] = Outcome.TRUNCATED

    line = line_of(with_sessions(whole, outcomes), "conversion", "quick_browser")
    assert line.actual == "5.0 % (30 of 595 sessions, 3 failed, 5 more cut short)"


def test_a_profile_without_an_ended_session_is_a_miss(whole: Run) -> None:
    def cut(sessions: Any) -> None:
        sessions["outcome"][of(sessions, 1)] = Outcome.TRUNCATED

    names = {what for what, where in missed(with_sessions(whole, cut)) if where == "quick_browser"}
    assert names == {"purchase intent", "conversion", "abandonment", "session length"}


def test_a_profile_whose_stay_is_shorter_than_its_sessions_is_told() -> None:
    """Careful shoppers take 14 minutes on average; two phases make one stay."""
    for minutes, verdict in ((6.0, Verdict.TOLD), (8.0, Verdict.MISSED)):
        run = as_planned.run(as_planned.plan(phases={"morning": minutes, "evening": minutes}))
        run.sessions["outcome"][of(run.sessions, 2)] = Outcome.TRUNCATED
        lines = [line_of(run, what, "careful_shopper") for what in ("conversion", "abandonment", "session length")]
        assert {line.verdict for line in lines} == {verdict}
        if verdict is Verdict.TOLD:
            assert {line.allowed for line in lines} == {"a session takes 14 minutes, the profile stays 12"}


def test_no_cart_is_told_where_few_sessions_ended_and_missed_where_many_did(whole: Run) -> None:
    def no_cart(ended: int) -> Run:
        def change(sessions: Any) -> None:
            sessions["cart_adds"][of(sessions, 1)] = 0
            sessions["outcome"][of(sessions, 1).nonzero()[0][ended:]] = Outcome.TRUNCATED

        return with_sessions(whole, change)

    few = line_of(no_cart(5), "abandonment", "quick_browser")
    assert (few.verdict, few.allowed) == (Verdict.TOLD, "5 sessions ended, 16.7 % of them have a cart")
    assert line_of(no_cart(50), "abandonment", "quick_browser").verdict is Verdict.MISSED


@pytest.mark.parametrize(
    ("column", "change", "told"),
    [
        ("duration_us", lambda values: values // 2, "600 shorter than drawn"),
        ("duration_us", lambda values: values * 1.1, "0 shorter than drawn"),
        ("planned_us", lambda values: values + 40 * as_planned.US, "600 drawn outside"),
    ],
)
def test_a_session_that_is_not_as_long_as_drawn_is_a_miss(
    whole: Run, column: str, change: Callable[[Any], Any], told: str
) -> None:
    def lengths(sessions: Any) -> None:
        sessions[column][of(sessions, 1)] = change(sessions[column][of(sessions, 1)])

    broken = missed(with_sessions(whole, lengths))
    assert list(broken) == [("session length", "quick_browser")]
    assert told in broken["session length", "quick_browser"].actual


def test_page_visits_that_are_not_made_are_a_miss(whole: Run) -> None:
    def pages(sessions: Any) -> None:
        sessions["pages"][of(sessions, 1)] = 28

    broken = missed(with_sessions(whole, pages))
    assert list(broken) == [("page visits", "quick_browser")]
    assert broken["page visits", "quick_browser"].actual == "16800 (-6.7%) in 600 sessions within one phase"


def test_page_visits_that_slow_answers_cost_are_told_in_a_compressed_run() -> None:
    planned = builders.make_plan(as_planned.plan().scenario, seed=1, time_scale=20)
    run = as_planned.run(planned)
    run.sessions["pages"] = 27
    line = line_of(run, "page visits", "careful_shopper")
    assert (line.verdict, line.allowed) == (Verdict.TOLD, "within 5.0 %, but compressed")
    run.sessions["pages"] = 30
    assert line_of(run, "page visits", "careful_shopper").verdict is Verdict.MET


def test_an_account_that_was_never_used_is_a_miss(whole: Run) -> None:
    def accounts(sessions: Any) -> None:
        sessions["account"] %= 99

    broken = missed(with_sessions(whole, accounts))
    assert broken["distinct users", ""].actual == "99 in 1200 sessions"
    assert list(broken) == [("distinct users", "")]


def test_more_accounts_than_the_plan_makes_sessions_are_not_asked_for() -> None:
    line = line_of(as_planned.run(as_planned.plan(total_users=500)), "distinct users")
    assert (line.verdict, line.allowed) == (Verdict.TOLD, "the plan makes about 214 sessions")


# -- what has to be there ---------------------------------------------------------------------------------------------


def test_a_service_without_a_request_is_named(whole: Run) -> None:
    run = replace(whole, requests=whole.requests[whole.requests["service"] != 4])
    assert missed(run)["services", ""].actual == "4, missing payment-service"


def test_a_profile_and_a_phase_without_a_request_are_named(whole: Run) -> None:
    kept = (whole.requests["profile_ref"] != 2) & (whole.requests["phase_ref"] != 2)
    broken = missed(replace(whole, requests=whole.requests[kept]))
    assert [broken[what, ""].actual for what in ("profiles", "phases")] == [
        "1, missing careful_shopper",
        "1, missing evening",
    ]


def test_an_action_and_its_pairs_that_are_missing_are_named(whole: Run) -> None:
    decisions = whole.decisions.copy()
    decisions["action"][decisions["action"] == 5] = 0
    broken = missed(replace(whole, decisions=decisions))
    assert list(broken) == [("actions", ""), ("service x action", ""), ("phase x action", "")]
    assert broken["actions", ""].actual == f"5, missing {ACTIONS[5]}"
    assert broken["phase x action", ""].actual == f"10, missing morning with {ACTIONS[5]}, evening with {ACTIONS[5]}"


def test_one_pair_alone_can_be_missing(whole: Run) -> None:
    decisions = whole.decisions.copy()
    decisions["action"][(decisions["action"] == 2) & (decisions["service"] == 4)] = 3
    assert list(missed(replace(whole, decisions=decisions))) == [("service x action", "")]


def test_skipped_intervals_are_a_miss_beyond_one_in_a_hundred(whole: Run) -> None:
    for share, expected in ((0.005, []), (0.02, [("decision intervals", name) for name in SERVICES])):
        kept = whole.decisions["tick"] >= share * 1800
        assert list(missed(replace(whole, decisions=whole.decisions[kept]))) == expected


def test_lost_rows_are_a_miss_with_the_reason(whole: Run) -> None:
    broken = missed(replace(whole, losses=(Loss("local.host.1", "requests", 3, "requests: 3 rows are missing"),)))
    assert broken["rows lost", ""].actual == "at least 3: requests: 3 rows are missing"


def test_an_interrupted_run_is_a_miss(whole: Run) -> None:
    assert list(missed(replace(whole, manifest={**whole.manifest, "state": "interrupted"}))) == [("state", "")]


# -- load and faults --------------------------------------------------------------------------------------------------


def test_failed_requests_are_a_miss_beyond_two_in_a_hundred(whole: Run) -> None:
    for every, expected in ((100, []), (40, [("success rate", "")])):
        requests = whole.requests.copy()
        requests["ok"][::every] = 0
        assert list(missed(replace(whole, requests=requests))) == expected


def test_requests_are_compared_with_the_expected_rate_without_ramp_and_retries(whole: Run) -> None:
    line = line_of(whole, "requests", "morning, cart-service")
    assert line.actual.endswith("ratio 1.00")
    retried = whole.requests.copy()
    retried["attempt"][::2] = 2
    line = line_of(replace(whole, requests=retried), "requests", "morning, cart-service")
    assert (line.verdict, line.allowed) == (Verdict.TOLD, "OUTSIDE 0.8 to 1.2")


def test_the_stress_that_is_expected_is_told_with_what_was_measured(whole: Run) -> None:
    planned = as_planned.plan()
    stress = {"inventory-service": "very_high", "cart-service": "very_low", "payment-service": "low"}
    first, second = planned.scenario.phases
    scenario = replace(planned.scenario, phases=(replace(first, expected_service_stress=stress), second))
    requests = whole.requests.copy()
    requests["duration_us"][requests["service"] == 1] = 60_000  # the SLO is 25 ms
    requests = requests[requests["service"] != 4]
    run = as_planned.run(builders.make_plan(scenario, seed=1, time_scale=10), requests=requests)
    lines = [line_of(run, "service stress", f"morning, {name}") for name in stress]
    assert {line.verdict for line in lines} == {Verdict.TOLD}
    assert [(line.planned, line.actual, line.allowed) for line in lines] == [
        ("very_high", "very_high: p95 60 ms of 25 ms, 0.0 % failed", "as expected"),
        ("very_low", "medium: p95 20 ms of 30 ms, 0.0 % failed", "2 above"),
        ("low", "no request", ""),
    ]


def test_a_level_of_stress_is_the_worse_of_time_and_failures() -> None:
    assert [stress_level(0.8, errors) for errors in (0.0, 0.01, 0.05, 0.2, 0.9)] == [
        "medium",
        "medium",
        "high",
        "very_high",
        "extreme",
    ]


def with_faults(*events: tuple[float, dict[str, Any]], faults: bool = True) -> Run:
    """A run whose plan has one fault, from 60 s to 90 s; events as (second, facts)."""
    first, second = as_planned.plan().scenario.phases
    fault = Fault("cart-service", "latency", 5.0, (), 10.0, 5.0)
    scenario = replace(as_planned.plan().scenario, phases=(replace(first, faults=(fault,)), second))
    planned = builders.make_plan(scenario, seed=1, time_scale=10, faults=faults)
    made = [{"t_ns": builders.at(t_s), "kind": "fault", "fault": 0, **facts} for t_s, facts in events]
    told = {"faults": {"injector": "sandbox", "planned": 1, "without_faults": not faults}}
    return as_planned.run(planned, events=[*as_planned.users(planned), *made], manifest=told)


def fault_line(run: Run) -> Line:
    (line,) = fault_lines(run, Plan.from_json(run.manifest["plan"]))
    return line


def test_a_fault_that_came_and_went_as_planned_is_met() -> None:
    line = fault_line(with_faults((60.4, {"what": "applied"}), (90.1, {"what": "lifted"})))
    assert (line.verdict, line.where) == (Verdict.MET, "morning, cart-service latency 5")
    assert line.planned == "applied at 60 s, lifted at 90 s"
    assert line.actual == "applied +0.4 s, lifted +0.1 s (injector sandbox)"


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([], "not applied, not lifted"),
        ([(60.0, {"what": "applied"})], "applied +0.0 s, not lifted"),
        ([(64.0, {"what": "applied"}), (90.0, {"what": "lifted"})], "applied +4.0 s, lifted +0.0 s"),
        ([(60.0, {"what": "not_applied", "why": "nobody injects"})], "not applied: nobody injects, not lifted"),
        ([(60.0, {"what": "applied", "fault": 1}), (90.0, {"what": "lifted"})], "not applied, lifted +0.0 s"),
    ],
)
def test_a_fault_that_did_not_is_a_miss(events: list[tuple[float, dict[str, Any]]], told: str) -> None:
    line = fault_line(with_faults(*events))
    assert line.verdict is Verdict.MISSED
    assert line.actual == f"{told} (injector sandbox)"


def test_failures_are_no_miss_where_faults_are_planned() -> None:
    run = with_faults((60.0, {"what": "applied"}), (90.0, {"what": "lifted"}))
    run.requests["ok"][::10] = 0
    assert missed(run) == {}
    assert line_of(run, "success rate").allowed == "the scenario has faults"


def test_a_run_without_faults_says_so() -> None:
    line = fault_line(with_faults(faults=False))
    assert (line.verdict, line.allowed) == (Verdict.TOLD, "--no-faults")


# -- the command ------------------------------------------------------------------------------------------------------


def folder(run: Run, path: Path) -> Path:
    """The run in a folder, with the times of its events."""
    builders.write_run(run, path)
    (file,) = (path / "events").glob("*.jsonl")
    file.write_text("".join(json.dumps(dict(event)) + "\n" for event in run.events))
    return path


def test_exit_code_0_says_that_all_is_met(whole: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder(whole, tmp_path / "run"))]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "run        run"
    assert said[-1].startswith("MET: all ")
    users = next(line.split() for line in said if line.startswith("users"))
    assert users[:4] == ["users", "morning,", "quick_browser", "10"]


def test_exit_code_1_names_what_was_missed(whole: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = replace(whole, requests=whole.requests[whole.requests["service"] != 4])
    assert main([str(folder(run, tmp_path / "run"))]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "  services: planned 5, actual 4, missing payment-service"
    assert said[-2].startswith("MISSED: 1 of ")


def test_exit_code_2_says_why_nothing_can_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err == (
        f"verify: {tmp_path / 'nothing'}: there is no such folder; give the folder of a run (it holds manifest.json)\n"
    )


def test_a_manifest_without_a_plan_cannot_be_compared(
    whole: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder(whole, tmp_path / "run")
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["plan"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert main([str(path)]) == 2
    assert capsys.readouterr().err == f"verify: {path}: its manifest.json lacks plan; restore it as it was written\n"

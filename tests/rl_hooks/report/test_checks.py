"""Data known to be bad fails the right check, and good data passes it. All of it is made by `made`."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl_hooks.decision import ACTIONS
from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from rl_hooks.report.evidence import Evidence, from_bundle, from_dataset, read_evidence
from rl_hooks.report.judge import KINDS, ReportCard, judge
from rl_hooks.report.state import Case
from rl_hooks.report.thresholds import BELOW, Limit, Thresholds
from rl_hooks.report.verdict import Finding, Fitness, Verdict
from rl_hooks.run_reader import Loss, Run
from tests import builders
from tests.rl_hooks.report import made

LIMITS = Thresholds(transitions=Limit(1_000, 2_000, BELOW), ess_constant=Limit(100, 200, BELOW), randomizations=499)
LASTING = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)
FAIL, WARN, PASS, NOT_APPLICABLE = Verdict.FAIL, Verdict.WARN, Verdict.PASS, Verdict.NOT_APPLICABLE


def found(evidence: Evidence, name: str, limits: Thresholds = LIMITS) -> Finding:
    kind = next(kind for kind in KINDS if kind.name == name)
    return kind.check(Case(evidence, limits))


def failed(card: ReportCard) -> set[str]:
    return {check.name for check in card.checks if check.finding.verdict is FAIL}


def with_steps(evidence: Evidence, **columns: Any) -> Evidence:
    return replace(evidence, steps=evidence.steps.assign(**columns))


@pytest.fixture(scope="module")
def run() -> Run:
    return made.made_run(lag_effect_ms=(LASTING,))


@pytest.fixture(scope="module")
def good(run: Run) -> Evidence:
    return made.evidence(run)


# -- the whole card ---------------------------------------------------------------------------------------------------


def test_good_data_is_ready_and_no_check_fails(good: Evidence) -> None:
    card = judge(good, LIMITS)
    assert card.overall.fitness is Fitness.READY
    verdicts = {check.name: check.finding.verdict for check in card.checks}
    left_out = {name for name, verdict in verdicts.items() if verdict is NOT_APPLICABLE}
    assert {name for name, verdict in verdicts.items() if verdict is not PASS} == left_out
    assert left_out == {"generator", "clock", "recovery"}


def test_sticky_logging_is_as_good_and_does_not_pass_its_own_memory_for_a_lasting_effect() -> None:
    card = judge(made.evidence(made.made_run(policy=made.sticky)), LIMITS)
    assert failed(card) == set()
    assert card.overall.fitness is Fitness.BANDIT


# -- logging policy and propensities ----------------------------------------------------------------------------------


WEIGHED = (
    "propensity",
    "impossible",
    "propensity_beaten",
    "ess_uniform",
    "ess_constant",
    "action_effect",
    "carry_over",
)


def test_without_propensities_what_needs_them_is_not_computed_and_no_evaluation_is_promised(run: Run) -> None:
    card = judge(made.evidence(made.observed(run, states=False)), LIMITS)
    assert failed(card) == set()
    checks = {check.name: check.finding for check in card.checks}
    assert {name for name in WEIGHED if checks[name].verdict is NOT_APPLICABLE} == set(WEIGHED)
    assert all(checks[name].found.startswith("cannot be computed: the balancer decided by itself") for name in WEIGHED)
    assert checks["propensities_known"].verdict is WARN
    assert checks["propensities_known"].found.endswith("What another policy would have earned cannot be estimated.")
    assert (card.overall.fitness, card.overall.decided_by) == (Fitness.UNJUDGED, ("propensities_known",))
    assert card.overall.exit_code == 0


def test_propensities_that_the_balancer_states_are_held_against_what_it_did(run: Run) -> None:
    log = made.evidence(made.observed(run))
    card = judge(log, LIMITS)
    assert failed(card) == set()
    assert card.overall.fitness is Fitness.READY
    left_out = {check.name for check in card.checks if check.finding.verdict is NOT_APPLICABLE}
    assert left_out == {"generator", "clock", "recovery", "impossible", "propensity_beaten", "action_effect"}
    ours = {check.name: check.finding.verdict for check in judge(made.evidence(run), LIMITS).checks}
    same = {check.name for check in card.checks if check.finding.verdict is ours[check.name]}
    assert same == set(ours) - {"impossible", "propensity_beaten", "action_effect"}
    wrong = found(made.evidence(made.observed(run, factor=0.8)), "propensity")
    assert wrong.verdict is FAIL
    assert " was taken 1." in wrong.found
    assert " times as often as stated (p " in wrong.found


def test_propensities_of_some_steps_are_a_warning(good: Evidence) -> None:
    some = np.where(np.arange(len(good.steps)) % 2, good.propensity, np.nan)
    table = np.where(np.isfinite(some)[:, None], good.probabilities, np.nan)
    card = judge(replace(with_steps(good, propensity=some), probabilities=table), LIMITS)
    assert card.overall.fitness is Fitness.UNJUDGED
    assert found(card.case.evidence, "propensities_known").found.endswith("estimators refuse the data.")


def test_one_action_only_can_only_be_imitated() -> None:
    log = made.evidence(made.made_run(policy=lambda shape, rng: made.constant(shape, rng, (1, 0, 0, 0, 0, 0))))
    card = judge(log, LIMITS)
    assert card.overall.fitness is Fitness.IMITATION
    assert failed(card) == {
        *("pairs_service_action", "pairs_phase_action", "action_share", "impossible"),
        *("overlap", "ess_constant", "concentrability"),
    }


def test_epsilon_of_two_percent_leaves_too_little() -> None:
    card = judge(made.evidence(made.made_run(policy=made.epsilon_greedy(0.02))), LIMITS)
    assert card.overall.fitness is Fitness.IMITATION
    assert {"action_share", "overlap", "ess_uniform", "ess_constant", "concentrability"} <= failed(card)
    assert "propensity" not in failed(card), "the log says truly how little it tried"
    assert found(card.case.evidence, "propensity").verdict is WARN
    many_clusters = found(card.case.evidence, "concentrability", replace(LIMITS, cluster_steps=40))
    assert not many_clusters.too_small, "small clusters are no excuse where there is enough data"


def test_wrong_propensities_fail() -> None:
    def skewed(shape: tuple[int, int], rng: np.random.Generator) -> tuple[Any, Any]:
        action, _ = made.constant(shape, rng, (0.25, 0.15, 0.15, 0.15, 0.15, 0.15))
        return action, made.constant(shape, rng)[1]

    card = judge(made.evidence(made.made_run(policy=skewed)), LIMITS)
    assert card.overall.fitness is Fitness.NOTHING
    assert "propensity" in failed(card)
    assert found(card.case.evidence, "propensity").found.startswith("Least_loaded was drawn 1.5")


def test_actions_that_follow_something_unlogged_are_found_where_their_shares_are_right() -> None:
    def secretly_sticky(shape: tuple[int, int], rng: np.random.Generator) -> tuple[Any, Any]:
        action = (np.arange(shape[0])[:, None] + rng.integers(0, 6, shape[1])) % len(ACTIONS)
        return action, made.constant(shape, rng)[1]

    log = made.evidence(made.made_run(policy=secretly_sticky))
    assert found(log, "propensity").verdict is PASS
    assert found(log, "propensity_beaten").verdict is FAIL
    assert judge(log, LIMITS).overall.fitness is Fitness.NOTHING


def test_propensities_outside_their_range_or_unlike_their_distribution_fail(good: Evidence) -> None:
    for value, text in ((0.0, "1 propensities outside (0, 1]"), (0.5, "1 unlike their distribution")):
        column = good.propensity.copy()
        column[good.usable[7]] = value
        finding = found(with_steps(good, propensity=column), "propensity")
        assert finding.verdict is FAIL
        assert text in finding.found


def test_held_actions_are_impossible_in_between() -> None:
    def held(shape: tuple[int, int], rng: np.random.Generator) -> tuple[Any, Any]:
        action = np.repeat(rng.integers(0, 6, (shape[0] // 5 + 1, shape[1])), 5, axis=0)[: shape[0]]
        p = np.eye(6)[action]
        p[::5] = 1 / 6
        return action, p

    finding = found(made.evidence(made.made_run(policy=held)), "impossible")
    assert finding.verdict is FAIL
    assert finding.numbers["share"] == pytest.approx(0.8 * 5 / 6, abs=0.02)


# -- what is there, what is lost --------------------------------------------------------------------------------------


def test_a_missing_service_fails_every_pair_it_is_in() -> None:
    log = made.evidence(made.made_run(drop_service="inventory-service"))
    finding = found(log, "pairs_service_phase")
    assert finding.verdict is FAIL
    assert finding.numbers["missing"] == [["inventory-service", "morning"], ["inventory-service", "evening"]]
    card = judge(log, LIMITS)
    assert card.overall.fitness is Fitness.NOTHING
    assert card.overall.decided_by == ("pairs_service_phase",)


def test_a_planned_profile_without_sessions_is_missing(good: Evidence) -> None:
    alone = good.requests[good.requests["profile"] != "careful_shopper"]
    assert found(replace(good, requests=alone), "pairs_phase_profile").numbers["missing"] == [
        ["morning", "careful_shopper"],
        ["evening", "careful_shopper"],
    ]


def test_lost_rows_fail(tmp_path: Path) -> None:
    path = builders.write_run(made.made_run(minutes=2), tmp_path / "run")
    min((path / "sessions").iterdir()).unlink()
    card = judge(read_evidence([path]), LIMITS)
    assert card.overall.fitness is Fitness.NOTHING
    assert "rows_lost" in card.overall.decided_by
    assert found(card.case.evidence, "rows_lost").numbers["rows_lost"] == 2000


def test_a_loss_of_unknown_size_fails_too() -> None:
    lost = Loss("local.host.1", "requests", 0, "runs/run/requests/x.seg: checksum does not match")
    finding = found(made.evidence(made.made_run(minutes=2, losses=(lost,))), "rows_lost")
    assert finding.verdict is FAIL
    assert "checksum does not match" in finding.found


def test_requests_with_unknown_end_warn(run: Run) -> None:
    hanging = builders.rows("in_flight", {"start_ns": builders.START_NS + np.arange(100) * 10**9, "trace_hi": 1})
    assert found(made.evidence(replace(run, in_flight=hanging)), "rows_lost").verdict is WARN


# -- telemetry --------------------------------------------------------------------------------------------------------


def test_frozen_telemetry_fails_from_the_start_and_from_the_middle(run: Run) -> None:
    for since in (0, len(run.samples) // 2):
        samples = run.samples.copy()
        for name in ("cpu", "memory", "health", "queue_depth", "in_flight"):
            samples[name][since:] = 0.37
        samples["up"] = 1
        finding = found(made.evidence(replace(run, samples=samples)), "dead_features")
        assert finding.verdict is (FAIL if since == 0 else WARN)
        assert ("cpu_mean (always 0.37)" if since == 0 else "cpu_mean (frozen in") in finding.found


def test_missing_telemetry_warns_and_fails(run: Run) -> None:
    for missing, verdict in ((0.0, PASS), (0.05, WARN), (0.9, FAIL)):
        samples = run.samples.copy()
        gone = np.random.default_rng(5).random(len(samples) // 15).repeat(15) < missing
        for name in ("cpu", "memory", "health", "queue_depth", "in_flight"):
            samples[name][gone] = np.nan
        assert found(made.evidence(replace(run, samples=samples)), "missing_telemetry").verdict is verdict


def test_a_run_without_a_metrics_source_is_a_warning_not_a_failure() -> None:
    log = made.evidence(made.made_run(samples=builders.rows("samples", []), manifest={"source": "none"}))
    assert found(log, "missing_telemetry").verdict is WARN
    assert found(log, "dead_features").verdict is PASS


def test_a_source_that_gives_little_is_a_warning_that_names_what_it_never_gave(run: Run) -> None:
    samples = run.samples.copy()
    for name in ("cpu", "memory", "health", "queue_depth"):
        samples[name] = np.nan
    log = made.evidence(replace(run, samples=samples))
    telemetry, features = found(log, "missing_telemetry"), found(log, "dead_features")
    assert (telemetry.verdict, features.verdict) == (WARN, PASS)
    assert telemetry.numbers["share"] < 0.02
    assert telemetry.found.endswith(
        " of the instances' measurements that are given are missing in the observations. Never known: cpu_mean, "
        "cpu_max, memory_mean, memory_max, queue_sum, queue_max, health_min, health_mean; the source does not give "
        "them."
    )


def test_services_that_a_source_does_not_know_are_named_with_what_lacks(run: Run) -> None:
    samples = run.samples.copy()
    for name in ("cpu", "memory", "health", "queue_depth", "in_flight"):
        samples[name][np.isin(samples["service"], (3, 4))] = np.nan
    samples["cpu"][samples["service"] == 0] = np.nan
    finding = found(made.evidence(replace(run, samples=samples)), "missing_telemetry")
    assert finding.verdict is WARN
    assert "Never known: cpu_mean of user-service and order-service and payment-service, cpu_max of " in finding.found
    assert "memory_mean of order-service and payment-service, " in finding.found


def test_gaps_in_the_little_that_a_source_gives_fail(run: Run) -> None:
    samples = run.samples.copy()
    gone = np.random.default_rng(5).random(len(samples) // 15).repeat(15) < 0.9
    for name in ("cpu", "memory", "health", "queue_depth"):
        samples[name] = np.nan
    samples["in_flight"][gone] = np.nan
    assert found(made.evidence(replace(run, samples=samples)), "missing_telemetry").verdict is FAIL


def test_a_source_that_never_gives_anything_fails(run: Run) -> None:
    samples = run.samples.copy()
    for name in ("cpu", "memory", "health", "queue_depth", "in_flight"):
        samples[name] = np.nan
    log = made.evidence(replace(run, samples=samples))
    assert found(log, "missing_telemetry").verdict is FAIL
    assert found(log, "missing_telemetry").numbers["share"] == 1.0
    assert found(log, "dead_features").verdict is FAIL


# -- effects of actions -----------------------------------------------------------------------------------------------


def test_actions_without_an_effect_fail() -> None:
    log = made.evidence(made.made_run(effect_ms=(0.0,) * 6))
    finding = found(log, "action_effect")
    assert finding.verdict is FAIL
    assert judge(log, LIMITS).overall.decided_by == ("action_effect",)
    assert found(log, "action_effect", Thresholds()).too_small, "with few transitions nobody can tell"


def test_no_effect_is_seen_in_five_percent_of_logs_without_one(good: Evidence) -> None:
    """Rewards that do not know the action: p-values are uniform, so 40 logs give 2 below 5 % (at most 6 with 99 %)."""
    rng = np.random.default_rng(11)
    order = [rng.permutation(len(good.steps)) for _ in range(40)]
    p = [found(with_steps(good, reward=good.reward[mixed]), "action_effect").numbers["p"] for mixed in order]
    assert sum(value < 0.05 for value in p) <= 6
    assert 0.3 < np.mean(p) < 0.7


@pytest.mark.parametrize(("lags", "expected"), [((), 0), ((LASTING,), 1), (((0.0,) * 6, LASTING), 2)])
def test_the_last_lag_with_an_effect_is_found(lags: tuple[tuple[float, ...], ...], expected: int) -> None:
    for policy in (made.constant, made.sticky):
        finding = found(made.evidence(made.made_run(lag_effect_ms=lags, policy=policy)), "carry_over")
        assert finding.numbers["lag_steps"] == expected
        assert finding.verdict is (PASS if expected else WARN)


def test_effects_longer_than_a_fifth_of_an_episode_fail() -> None:
    run = made.made_run(lag_effect_ms=(LASTING, LASTING, LASTING), episode_s=24.0)
    finding = found(made.evidence(run), "carry_over")
    assert finding.verdict is FAIL
    assert finding.numbers["lag_steps"] == 3


def test_a_state_that_lacks_the_past_is_found() -> None:
    """The action before the previous one is in nobody's observation."""
    log = made.evidence(made.made_run(effect_ms=(0.0,) * 6, lag_effect_ms=((0.0,) * 6, made.EFFECT_MS)))
    assert found(log, "markov").verdict is WARN


def test_drift_within_a_phase_is_found(run: Run) -> None:
    samples = run.samples.copy()
    samples["cpu"] = np.clip(0.1 * samples["cpu"] + np.linspace(0, 0.9, len(samples)), 0, 1)
    finding = found(made.evidence(replace(run, samples=samples)), "stationarity")
    assert finding.verdict is WARN
    assert "cpu_" in finding.found


# -- transitions, rewards, splits -------------------------------------------------------------------------------------


def test_steps_that_do_not_follow_from_each_other_fail(good: Evidence) -> None:
    after = good.next_observation.copy()
    after[good.usable[3], 0] += 1
    assert found(replace(good, next_observation=after), "transitions_hold").numbers["next_observation_differs"] == 1
    twice = found(with_steps(good, terminated=good.steps["truncated"]), "transitions_hold")
    assert twice.numbers["end_flags_wrong"] == good.steps["truncated"].sum()
    off = found(with_steps(good, reward=good.reward + 0.001), "transitions_hold")
    assert off.numbers["reward_is_not_the_weighted_sum"] > 0
    assert {twice.verdict, off.verdict} == {FAIL}


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "Every reward is the same"), (np.nan, "are not numbers"), (1.5, "lie outside 0 to 1")]
)
def test_rewards_that_are_not_sound_fail(good: Evidence, value: float, text: str) -> None:
    finding = found(with_steps(good, reward=np.full(len(good.steps), value)), "reward")
    assert finding.verdict is FAIL
    assert text.lower() in finding.found.lower()


def test_a_reward_that_is_nearly_always_the_same_warns(good: Evidence) -> None:
    mostly = np.where(np.arange(len(good.steps)) % 50, 1.0, 0.5)
    assert found(with_steps(good, reward=mostly), "reward").verdict is WARN


def test_a_split_by_rows_leaks(good: Evidence) -> None:
    mixed = good.steps["split"].to_numpy(object).copy()
    mixed[good.usable] = np.where(good.usable % 5 == 0, "validation", "train")
    finding = found(with_steps(good, split=mixed), "leakage")
    assert finding.verdict is FAIL
    assert finding.numbers["requests"] > 10_000
    assert finding.numbers["episodes"] > 0


def test_a_split_without_a_gap_leaks_through_the_windows(good: Evidence) -> None:
    """Whole blocks, but the steps that were purged between them are back: their windows reach over the border."""
    back = good.steps["split"].to_numpy(object).copy()
    side = good.steps.iloc[good.usable].groupby("block")["split"].first()
    purged = (good.steps["reason"] == "purged").to_numpy()
    back[purged] = good.steps["block"].map(side).to_numpy(object)[purged]
    assert purged.any()
    finding = found(with_steps(good, split=back), "leakage")
    assert finding.verdict is FAIL
    assert finding.numbers["requests"] > 0


def test_another_action_than_the_one_drawn_is_counted(run: Run) -> None:
    requests = run.requests.copy()
    wrong = requests["decision_tick"] % 10 == 0
    requests["action_applied"][wrong] = (requests["action_applied"][wrong] + 1) % 6
    finding = found(made.evidence(replace(run, requests=requests)), "action_differs")
    assert finding.verdict is FAIL
    assert finding.numbers["share"] == pytest.approx(0.1, abs=0.01)


def test_decisions_that_could_not_be_applied_are_counted_beside_it(run: Run) -> None:
    decisions = run.decisions.copy()
    decisions["actuated"][:7] = 0
    finding = found(made.evidence(replace(run, decisions=decisions)), "action_differs")
    assert finding.numbers["not_applied"] == 7
    assert finding.found.endswith("7 decisions could not be applied.")


# -- traffic against its plan -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("off", "verdict"), [({}, PASS), ({"quick_browser": 1}, WARN), ({"quick_browser": -3}, FAIL)])
def test_users_off_their_plan(good: Evidence, off: Mapping[str, int], verdict: Verdict) -> None:
    events = ({"t_ns": builders.START_NS, "kind": "phase", "run_time_s": 0.0}, *made.counts(made.planned(), off))
    assert found(made.as_recorded(good, events=events), "users").verdict is verdict


def test_users_may_be_off_within_ramps(good: Evidence) -> None:
    plan = made.planned()
    events = [{"t_ns": builders.START_NS, "kind": "phase", "run_time_s": 0.0}]
    for event in made.counts(plan):
        late = plan.in_ramp(event["run_time_s"]) or plan.in_ramp(event["run_time_s"] - LIMITS.users_settle_s)
        events.append({**event, "counts": {"quick_browser": 0}} if late else event)
    assert found(made.as_recorded(good, events=tuple(events)), "users").verdict is PASS


def test_a_mix_far_from_the_plan_fails(good: Evidence) -> None:
    events = (
        {"t_ns": builders.START_NS, "kind": "phase", "run_time_s": 0.0},
        *made.counts(made.planned(), {"quick_browser": 10, "careful_shopper": -10}),
    )
    assert found(made.as_recorded(good, events=events), "profile_mix").verdict is FAIL


def test_conversion_and_abandonment_are_held_against_the_plan(good: Evidence) -> None:
    sessions = made.sessions(made.planned(), np.random.default_rng(1), conversion=0.5)
    log = made.as_recorded(good, sessions=sessions)
    assert found(log, "conversion").verdict is FAIL
    assert found(log, "abandonment").verdict is FAIL


def test_what_the_system_kept_a_shopper_from_is_no_lack_of_conversion(good: Evidence) -> None:
    sessions = good.recorded[0].run.sessions.copy()
    buying = np.flatnonzero(sessions["orders_paid"])
    sessions["orders_paid"][buying] = 0
    sessions["outcome"][buying] = 3  # FAILED
    assert found(made.as_recorded(good, sessions=sessions), "conversion").verdict is PASS


# -- generator and clocks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpu", "lag_s", "verdict"),
    [(0.5, 0.01, PASS), (0.9, 0.01, WARN), (0.5, 0.3, WARN), (0.99, 0.01, FAIL), (0.5, 1, FAIL)],
)
def test_a_generator_at_its_limit(good: Evidence, cpu: float, lag_s: float, verdict: Verdict) -> None:
    loads = [
        {"t_ns": builders.at(second), "kind": "generator", "process": name, "cpu": share, "lag_p99_s": lag_s}
        for second in range(1, 60)
        for name, share in (("master", 0.1), ("worker", cpu))
    ]
    assert found(made.as_recorded(good, events=(*good.recorded[0].run.events, *loads)), "generator").verdict is verdict


def test_clocks_that_are_apart(good: Evidence) -> None:
    for uncertainty_s, verdict in ((0.01, PASS), (0.3, WARN), (1.5, FAIL)):
        event = {"t_ns": builders.at(1), "kind": "clock", "offset_s": 0.0, "uncertainty_s": uncertainty_s}
        assert found(made.as_recorded(good, events=(*good.recorded[0].run.events, event)), "clock").verdict is verdict


def test_a_clock_that_was_set_is_looked_at(good: Evidence) -> None:
    readings = {"t_ns": builders.at(1), "kind": "clock", "offset_s": 0.0, "uncertainty_s": 0.001}
    step = {"t_ns": builders.at(9), "kind": "clock_step", "process": "worker", "step_s": 90.0}
    finding = found(made.as_recorded(good, events=(*good.recorded[0].run.events, readings, step)), "clock")
    assert finding.verdict is WARN
    assert finding.found.endswith("1 times a wall clock was set during the run.")


# -- faults -----------------------------------------------------------------------------------------------------------


def faulty(run: Run, slow_until_s: float) -> Run:
    """A fault of the cart from 200 s to 260 s of a phase that ends at 600 s; the cart is slow until `slow_until_s`."""
    requests = run.requests.copy()
    t_s = (requests["start_ns"] - builders.START_NS) / 1e9
    slow = (requests["service"] == 2) & (t_s >= 200) & (t_s < slow_until_s)
    requests["duration_us"][slow] += 3_000_000
    facts = {
        "kind": "fault",
        "fault": 0,
        "service": "cart-service",
        "fault_kind": "latency",
        "value": 5,
        "phase": "morning",
    }
    events = (
        {"t_ns": builders.at(200), "what": "applied", **facts},
        {"t_ns": builders.at(260), "what": "lifted", **facts},
    )
    return replace(run, requests=requests, events=(*run.events, *events))


def test_recovery_is_measured_from_the_end_of_the_fault(run: Run, good: Evidence) -> None:
    finding = found(made.with_run(good, faulty(run, 300)), "recovery")
    assert finding.verdict is PASS
    (fault,) = finding.numbers["faults"]
    assert 40 <= fault["recovered_after_s"] <= 60, "points are 10 s long"


def test_a_service_that_does_not_recover_in_its_phase_warns(run: Run, good: Evidence) -> None:
    finding = found(made.with_run(good, faulty(run, 700)), "recovery")
    assert finding.verdict is WARN
    assert finding.numbers["faults"][0]["why_not"] == "not back in the band before its phase ended"


def test_another_fault_of_the_service_is_no_measure_of_what_is_usual(run: Run, good: Evidence) -> None:
    """The cart never recovers from the second fault; held against the first one it would seem to."""
    never = faulty(run, 700)
    requests = never.requests.copy()
    t_s = (requests["start_ns"] - builders.START_NS) / 1e9
    requests["duration_us"][(requests["service"] == 2) & (t_s >= 100) & (t_s < 130)] += 5_000_000
    facts = {"kind": "fault", "fault": 1, "service": "cart-service", "fault_kind": "crash", "phase": "morning"}
    first = (
        {"t_ns": builders.at(100), "what": "applied", **facts},
        {"t_ns": builders.at(130), "what": "lifted", **facts},
    )
    events = tuple(sorted((*never.events, *first), key=lambda event: event["t_ns"]))
    finding = found(made.with_run(good, replace(never, requests=requests, events=events)), "recovery")
    assert [fault["recovered_after_s"] for fault in finding.numbers["faults"]] == [pytest.approx(0, abs=10), None]


def test_a_fault_as_long_as_its_phase_is_recovered_from_in_the_next(run: Run, good: Evidence) -> None:
    requests = run.requests.copy()
    t_s = (requests["start_ns"] - builders.START_NS) / 1e9
    slow = (requests["service"] == 2) & (t_s >= 300) & (t_s < 640)
    requests["duration_us"][slow] += 3_000_000
    facts = {"kind": "fault", "service": "cart-service", "value": 5, "phase": "morning"}
    events = [
        {"t_ns": builders.at(second), "what": what, "fault": number, "fault_kind": kind, **facts}
        for second, what in ((300, "applied"), (600.1, "lifted"))
        for number, kind in ((0, "latency"), (1, "errors"))
    ]
    finding = found(made.with_run(good, replace(run, requests=requests, events=(*run.events, *events))), "recovery")
    assert [fault["recovered_after_s"] for fault in finding.numbers["faults"]] == [pytest.approx(40, abs=10)] * 2


def test_a_fault_that_could_not_be_applied_warns(good: Evidence) -> None:
    event = {"t_ns": builders.at(9), "kind": "fault", "what": "not_applied", "fault": 0, "why": "no injector"}
    finding = found(made.as_recorded(good, events=(*good.recorded[0].run.events, event)), "recovery")
    assert finding.verdict is WARN
    assert finding.found.endswith("1 could not be applied.")


# -- size -------------------------------------------------------------------------------------------------------------


def test_a_short_run_fails_on_size_alone() -> None:
    card = judge(made.evidence(made.made_run(minutes=2, lag_effect_ms=(LASTING,))), Thresholds())
    assert card.overall.fitness is Fitness.DEMONSTRATION
    assert card.overall.exit_code == 0
    assert "transitions" in card.overall.decided_by


@pytest.mark.parametrize("minutes", [1, 2, 5])
def test_how_little_there_is_never_looks_like_a_bad_policy(minutes: float) -> None:
    for policy in (made.constant, made.sticky):
        card = judge(made.evidence(made.made_run(minutes=minutes, policy=policy)), Thresholds())
        assert card.overall.fitness is Fitness.DEMONSTRATION, card.overall


def test_a_service_that_is_hardly_called_is_no_fault_of_the_policy() -> None:
    run = made.made_run(minutes=5)
    hardly = (run.requests["service"] != 4) | (np.arange(len(run.requests)) % 200 == 0)
    log = made.evidence(replace(run, requests=run.requests[hardly]))
    assert found(log, "action_share", Thresholds()).verdict is FAIL
    assert judge(log, Thresholds()).overall.fitness is Fitness.DEMONSTRATION


def test_little_data_of_a_bad_policy_still_looks_bad() -> None:
    card = judge(made.evidence(made.made_run(minutes=5, policy=made.epsilon_greedy(0.02))), Thresholds())
    assert card.overall.fitness is Fitness.IMITATION


# -- what the card is made from ---------------------------------------------------------------------------------------


def test_a_bundle_alone_says_what_it_cannot_know(tmp_path: Path, run: Run, good: Evidence) -> None:
    alone = replace(good, recorded=())
    card = judge(alone, LIMITS)
    unknown = {check.name: check.finding.found for check in card.checks if check.finding.verdict is NOT_APPLICABLE}
    assert set(unknown) == {
        *("pairs_phase_profile", "users", "profile_mix", "conversion", "abandonment"),
        *("generator", "clock", "recovery"),
    }
    assert all("ive the run folder" in text for text in unknown.values())


def test_everything_is_strict_json(good: Evidence) -> None:
    empty = with_steps(good, split=np.full(len(good.steps), "excluded", object))
    for log in (good, empty):
        card = judge(log, LIMITS)
        text = json.dumps(card.to_json(), allow_nan=False)
        assert json.loads(text)["verdict"] == card.overall.fitness


def test_a_data_set_and_its_bundle_give_the_same_card(run: Run, tmp_path: Path) -> None:
    data = assemble([run])
    write_bundle(data, tmp_path / "bundle")
    cards = [judge(log, LIMITS).to_json() for log in (from_dataset(data), from_bundle(tmp_path / "bundle", [run]))]
    assert cards[0] == cards[1]

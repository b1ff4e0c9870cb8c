"""The observation: equal to its definition, the same pushed at once or bit by bit, and blind to the future."""

import doctest
import re
from typing import Any

import numpy as np
import pytest

from rl_hooks import histogram, observation
from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.observation import FEATURE_INDEX, FEATURES, OF_METRICS, PATTERNS, Observation, ObservationWindow, Spans
from rl_hooks.run_reader import Run
from tests import builders
from tests.builders import at, rows
from tests.rl_hooks.oracle import Oracle

SPANS = Spans(window_ns=30 * 10**9, interval_ns=2 * 10**9)
SECOND = 10**9


def end_ns(requests: Any) -> Any:
    return requests["start_ns"] + requests["duration_us"].astype(np.int64) * 1000


def push(window: ObservationWindow, run: Run) -> ObservationWindow:
    """Everything at once, as the exporter does."""
    requests, decided = run.requests, run.decisions
    window.push_starts(requests["service"], requests["start_ns"])
    window.push_completions(requests["service"], end_ns(requests), requests["duration_us"], requests["ok"])
    window.push_samples(run.samples)
    window.push_decisions(decided["service"], decided["t_ns"], decided["action"], decided["actuated"])
    return window


def moments(run: Run, count: int = 40) -> list[int]:
    """Decision times and other times, among them exact ends of requests, in order."""
    rng = np.random.default_rng(3)
    some = rng.choice(np.unique(run.decisions["t_ns"]), count, replace=False)
    ends = rng.choice(end_ns(run.requests), count, replace=False)
    starts = rng.choice(run.requests["start_ns"], count, replace=False)
    received = rng.choice(run.samples["received_ns"], count // 4, replace=False)
    return sorted({int(moment) for moment in np.concatenate((some, ends, starts, received))})


def value(seen: Observation, name: str, service: int = 0) -> float:
    return float(seen.values[service, FEATURE_INDEX[name]])


@pytest.mark.parametrize("spans", [SPANS, Spans(5 * SECOND, 2 * SECOND)], ids=["long window", "shorter than five"])
@pytest.mark.parametrize("exact", [False, True])
def test_it_is_what_the_definition_says(exact: bool, spans: Spans) -> None:
    run = builders.random_run(count=1500)
    run.decisions["actuated"] = np.random.default_rng(4).random(len(run.decisions)) > 0.1
    window = push(ObservationWindow(spans, exact_quantiles=exact), run)
    oracle = Oracle(run, spans.window_ns, spans.interval_ns)
    for moment in moments(run):
        seen = window.observe(moment)
        for service in range(len(SERVICES)):
            expected = oracle.observe(moment, service)
            assert set(expected) == set(FEATURE_INDEX)
            wanted = np.array([expected[feature.name] for feature in FEATURES], np.float32)
            near = np.array(["_p" in feature.name for feature in FEATURES]) & (not exact)
            np.testing.assert_allclose(seen.values[service][~near], wanted[~near], rtol=2e-6)
            np.testing.assert_allclose(seen.values[service][near], wanted[near], rtol=0.0078)


def test_pushed_as_it_happens_gives_the_same_bits() -> None:
    run = builders.random_run(count=1500)
    times = moments(run)
    at_once = push(ObservationWindow(SPANS), run)
    live = ObservationWindow(SPANS)
    requests, decided, samples = run.requests, run.decisions, run.samples
    ended = end_ns(requests)
    ready = np.maximum(samples["t_ns"], samples["received_ns"])
    before = np.iinfo(np.int64).min

    def new(when: Any, moment: int) -> Any:
        return (when >= before) & (when < moment)

    for moment in times:
        sent = requests[new(requests["start_ns"], moment)]
        live.push_starts(sent["service"], sent["start_ns"])
        done = np.flatnonzero(new(ended, moment))
        done = done[np.argsort(ended[done], kind="stable")]
        live.push_completions(
            requests["service"][done], ended[done], requests["duration_us"][done], requests["ok"][done]
        )
        live.push_samples(samples[(ready > before) & (ready <= moment)])
        made = decided[new(decided["t_ns"], moment)]
        live.push_decisions(made["service"], made["t_ns"], made["action"], made["actuated"])
        expected, seen = at_once.observe(moment), live.observe(moment)
        assert seen.values.tobytes() == expected.values.tobytes()
        before = moment


def test_what_comes_later_changes_nothing_bit_for_bit() -> None:
    run = builders.random_run(count=1500)
    moment = int(np.unique(run.decisions["t_ns"])[60])
    other = builders.random_run(count=1500)  # the same facts, in arrays of its own
    rng = np.random.default_rng(9)
    later = end_ns(other.requests) >= moment
    other.requests["duration_us"][later] += rng.integers(0, 10**6, later.sum()).astype(np.uint32)
    other.requests["ok"][later] ^= 1
    other.requests["service"][later & (other.requests["start_ns"] >= moment)] = 0
    unsent = other.requests["start_ns"] >= moment
    other.requests["start_ns"][unsent] += rng.integers(0, 10**9, unsent.sum())
    unknown = (other.samples["t_ns"] > moment) | (other.samples["received_ns"] > moment)
    other.samples["cpu"][unknown] = 0.123
    other.samples["t_ns"][unknown] += 17
    undecided = other.decisions["t_ns"] >= moment
    other.decisions["action"][undecided] = 0
    for exact in (False, True):
        first = push(ObservationWindow(SPANS, exact_quantiles=exact), run).observe(moment)
        second = push(ObservationWindow(SPANS, exact_quantiles=exact), other).observe(moment)
        assert first.values.tobytes() == second.values.tobytes()
        assert first.sample_ns.tobytes() == second.sample_ns.tobytes()


def test_late_rows_count_from_the_next_observation_on() -> None:
    run = builders.random_run(count=1500)
    requests = run.requests
    late = np.random.default_rng(5).random(len(requests)) < 0.2
    window, complete = ObservationWindow(SPANS), push(ObservationWindow(SPANS), run)
    push(window, builders.run(requests=requests[~late], samples=run.samples, decisions=run.decisions))
    first, second = (int(moment) for moment in np.unique(run.decisions["t_ns"])[[50, 53]])
    assert window.observe(first).values.tobytes() != complete.observe(first).values.tobytes()
    window.push_completions(
        requests["service"][late], end_ns(requests)[late], requests["duration_us"][late], requests["ok"][late]
    )
    window.push_starts(requests["service"][late], requests["start_ns"][late])
    for moment in (second, second + SECOND, second + 40 * SECOND, second + 90 * SECOND):
        assert window.observe(moment).values.tobytes() == complete.observe(moment).values.tobytes()


def test_with_no_facts_only_counts_and_rates_are_known() -> None:
    seen = ObservationWindow(SPANS).observe(at(0))
    for feature in FEATURES:
        known = feature.missing_when == "never"
        assert seen.mask[:, FEATURE_INDEX[feature.name]].all() == known, feature.name
    assert value(seen, "request_rate_rps") == value(seen, "in_flight") == 0.0
    assert np.isnan(value(seen, "response_time_mean_ms"))
    assert value(seen, "pattern_idle") == 1.0


def test_a_missing_gauge_of_one_instance_hides_the_sum_but_not_the_mean() -> None:
    window = ObservationWindow(SPANS)
    facts = {"t_ns": at(0), "received_ns": at(0), "service": 0}
    window.push_samples(
        rows("samples", [{**facts, "queue_depth": queue, "cpu": cpu} for queue, cpu in ((4.0, 0.2), (np.nan, np.nan))])
    )
    seen = window.observe(at(1))
    assert np.isnan(value(seen, "queue_sum"))
    assert value(seen, "queue_max") == 4.0
    assert value(seen, "cpu_mean") == pytest.approx(0.2)
    assert seen.sample_ns.tolist() == [at(0), 0, 0, 0, 0]


def test_a_sample_that_was_not_received_yet_is_not_known() -> None:
    window = ObservationWindow(SPANS)
    window.push_samples(rows("samples", [{"t_ns": at(0), "received_ns": at(2), "service": 0, "cpu": 0.5}]))
    assert np.isnan(value(window.observe(at(2) - 1), "cpu_mean"))
    assert value(window.observe(at(2)), "cpu_mean") == 0.5


def test_a_sample_that_was_overtaken_by_a_newer_one_is_ignored() -> None:
    window = ObservationWindow(SPANS)
    new = {"t_ns": at(1), "received_ns": at(2), "service": 0, "cpu": 0.75}
    old = {"t_ns": at(0), "received_ns": at(3), "service": 0, "cpu": 0.25}
    window.push_samples(rows("samples", [new, old]))
    assert value(window.observe(at(2)), "cpu_mean") == 0.75
    assert value(window.observe(at(4)), "cpu_mean") == 0.75


def test_a_sample_older_than_the_window_says_nothing_about_now() -> None:
    window = ObservationWindow(SPANS)
    window.push_samples(rows("samples", [{"t_ns": at(0), "received_ns": at(0), "service": 0, "cpu": 0.5}]))
    assert value(window.observe(at(30)), "cpu_mean") == 0.5
    gone = window.observe(at(30) + 1)
    assert np.isnan(value(gone, "cpu_mean"))
    assert gone.sample_ns[0] == 0


def test_windows_are_closed_on_the_left_and_open_on_the_right() -> None:
    window = ObservationWindow(SPANS)
    ends = np.array([at(0), at(30)])
    window.push_starts(np.zeros(2, int), ends - 5_000_000)
    window.push_completions(np.zeros(2, int), ends, np.array([5000, 5000]), np.ones(2))
    assert value(window.observe(at(30)), "request_rate_rps") == pytest.approx(
        1 / 30
    )  # the first; the second at T is not
    assert value(window.observe(at(30)), "in_flight") == 1.0
    assert value(window.observe(at(30) + 1), "request_rate_rps") == pytest.approx(1 / 30)  # now only the second


def test_the_previous_action_and_how_long_it_was_held() -> None:
    window = ObservationWindow(SPANS)
    actions, actuated = [2, 2, 2, 4, 4], [1, 1, 1, 1, 0]
    window.push_decisions(
        np.zeros(5, int), np.array([at(2 * i) for i in range(5)]), np.array(actions), np.array(actuated)
    )
    held = [value(window.observe(at(2 * i)), "previous_action_held") for i in range(6)]
    np.testing.assert_array_equal(held, [np.nan, 1, 2, 3, 1, np.nan])


def test_a_lost_request_is_in_flight_until_its_client_would_have_given_up() -> None:
    window = ObservationWindow(SPANS)
    window.push_starts(np.array([1]), np.array([at(0)]))
    window.push_lost(np.array([1]), np.array([at(10)]))
    assert [value(window.observe(at(t)), "in_flight", 1) for t in (0, 5, 10, 11)] == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("recent", "expected", "in_window", "pattern"),
    [
        (0, 0.6, 4, "idle"),
        (40, 40, 240, "steady"),
        (52, 40, 240, "steady"),  # above the ratio, inside the noise
        (60, 40, 240, "rising"),
        (80, 40, 240, "burst"),
        (25, 40, 240, "falling"),
        (4300, 4000, 24000, "steady"),  # outside the noise, below the ratio
    ],
)
def test_the_pattern_needs_both_a_ratio_and_more_than_noise(
    recent: float, expected: float, in_window: float, pattern: str
) -> None:
    assert observation.THRESHOLDS.classify(recent, expected, in_window) == pattern


def test_time_does_not_go_backwards() -> None:
    window = ObservationWindow(SPANS)
    window.observe(at(2))
    message = f"observations go forward in time: {at(1)} comes after {at(2)}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        window.observe(at(1))


def test_every_feature_has_its_place_unit_range_and_source() -> None:
    assert len(FEATURE_INDEX) == len(FEATURES)
    assert {feature.source for feature in FEATURES} == {"client", "balancer"}
    assert {feature.window for feature in FEATURES} == {"window", "last5", "last1", "now"}
    assert all(feature.unit and feature.missing_when for feature in FEATURES)
    assert {f"previous_action_{name}" for name in ACTIONS} < set(FEATURE_INDEX)


def test_values_stay_in_the_range_that_the_table_states() -> None:
    run = builders.random_run(count=1500)
    window = push(ObservationWindow(SPANS), run)
    for moment in moments(run):
        values = window.observe(moment).values
        for index, feature in enumerate(FEATURES):
            known = values[:, index][~np.isnan(values[:, index])]
            high = np.inf if feature.high is None else feature.high
            assert ((known >= feature.low) & (known <= high)).all(), feature.name
        one_hot = values[:, [FEATURE_INDEX[f"pattern_{name}"] for name in PATTERNS]]
        assert (one_hot.sum(axis=1) == 1).all()


def test_memory_does_not_grow_with_the_length_of_a_run() -> None:
    window = ObservationWindow(SPANS)
    for tick in range(400):
        sent = at(2 * tick) + np.arange(200) * 1000
        window.push_starts(np.zeros(200, int), sent)
        window.push_completions(np.zeros(200, int), sent + 10**6, np.full(200, 1000), np.ones(200))
        window.observe(at(2 * tick + 2))
    kept = 200 * 15  # what is in the window
    assert len(window._ended) <= 3 * kept
    assert len(window._flow) <= 3 * kept


def test_without_metrics_exactly_the_features_of_metrics_are_missing() -> None:
    run = builders.random_run(count=1500, samples=builders.rows("samples", []))
    seen = push(ObservationWindow(SPANS), run).observe(at(100))
    missing = {name for name, index in FEATURE_INDEX.items() if np.isnan(seen.values[:, index]).all()}
    assert missing == set(OF_METRICS)


@pytest.mark.parametrize("module", [observation, histogram])
def test_the_examples_in_the_text_are_true(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0

"""What the proof claims follows from the numbers, and from nothing else."""

from typing import Any

import pytest

from rl_hooks.decision import ACTIONS
from training.claims import FAILS, HOLDS, OPEN, beats_all, contains, no_worse, same_sign

BEST = "fixed:backpressure"


def difference(value: float | None, half: float = 0.001) -> dict[str, Any]:
    low, high = (None, None) if value is None else (value - half, value + half)
    return {"value": value, "low": low, "high": high, "detectable": 2 * half}


def comparison(reward: float | None = 0.01, **measures: float) -> dict[str, Any]:
    rows = {"reward": difference(reward), **{name: difference(value) for name, value in measures.items()}}
    return {
        "policy": "onnx:cql-1",
        "values": {"onnx:cql-1": {"reward": 0.9}},
        "differences": {f"fixed:{name}": dict(rows) for name in ACTIONS},
    }


def test_a_policy_beats_all_only_with_every_interval_above_zero() -> None:
    found = comparison(0.01)
    assert beats_all(found).verdict == HOLDS
    found["differences"]["fixed:round_robin"]["reward"] = difference(0.0005)
    claim = beats_all(found)
    assert claim.verdict == FAILS
    assert claim.numbers == "closest is round_robin: +0.0005 (-0.0005 to +0.0015); not above round_robin"


@pytest.mark.parametrize(("worse_by", "verdict"), [(-5.0, HOLDS), (0.0005, HOLDS), (0.002, FAILS)])
def test_it_is_worse_only_beyond_the_interval(worse_by: float, verdict: str) -> None:
    assert no_worse(comparison(error_rate=worse_by), BEST, "error_rate").verdict == verdict


@pytest.mark.parametrize(
    ("live", "verdict"), [(0.0001, HOLDS), (0.5, HOLDS), (-0.0001, OPEN), (-0.5, FAILS), (None, OPEN)]
)
def test_the_wrong_sign_is_a_failure_only_where_it_is_clear(live: float | None, verdict: str) -> None:
    assert same_sign(comparison(0.002), comparison(live), BEST).verdict == verdict


def test_without_a_live_run_its_sign_is_open() -> None:
    assert same_sign(comparison(), None, BEST).verdict == OPEN


def judged(*estimates: tuple[str, float, float, bool]) -> dict[str, Any]:
    rows = [{"name": n, "question": "long run", "low": a, "high": b, "trusted": t} for n, a, b, t in estimates]
    rows.append({"name": "IPS", "question": "one step", "low": 0.0, "high": 0.1, "trusted": True})
    return {"policy": "policy.onnx", "estimates": {"policy.onnx": rows}}


def test_the_truth_is_in_every_long_run_interval_that_is_to_be_trusted() -> None:
    assert contains(judged(("fitted Q", 0.89, 0.91, True)), comparison(), "virtual time").verdict == HOLDS
    assert contains(judged(("fitted Q", 0.91, 0.92, True)), comparison(), "virtual time").verdict == FAILS


def test_estimates_that_are_not_to_be_trusted_claim_nothing() -> None:
    assert contains(judged(("last 3 actions", 0.1, 0.2, False)), comparison(), "virtual time").verdict == OPEN

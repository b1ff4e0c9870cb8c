"""A trained policy from a file: what it answers, and every file that is none."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl_hooks.action_space import instances, strategies
from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.observation import FEATURE_INDEX, FEATURES
from rl_hooks.policies.builtin import EpsilonGreedy, PolicyError, by_service
from rl_hooks.policies.named import check_fit, make_policy
from tests import tiny_policy

pytestmark = pytest.mark.training
pytest.importorskip("onnxruntime", reason="needs the extra `train`")
pytest.importorskip("onnx", reason="needs the extra `train`")

from rl_hooks.policies.onnx import NOT_THERE, OnnxPolicy  # noqa: E402  (it loads where numpy is, but tests nothing without the two)

BUSY = {"queue_max": {"backpressure": 1.0, "round_robin": -1.0}, "cpu_max": {"least_loaded": 0.5}}


def observations(count: int, seed: int = 3) -> Any:
    rng = np.random.default_rng(seed)
    raw = rng.uniform(0, 9, (count, len(FEATURES))).astype(np.float32)
    return np.where(rng.random(raw.shape) < 0.2, np.nan, raw).astype(np.float32)


def test_values_are_those_of_the_network_and_the_best_has_probability_1(tmp_path: Path) -> None:
    table = tiny_policy.weights(BUSY)
    policy = OnnxPolicy(tiny_policy.save(tmp_path / "p.onnx", table, {"least_loaded": 0.25}))
    raw = observations(200)
    expected = tiny_policy.encoded(raw, policy.schema) @ table + np.eye(6, dtype=np.float32)[0] * 0.25
    assert policy.values(raw) == pytest.approx(expected, abs=1e-5)
    chosen = [policy.probabilities(None, row) for row in raw]
    assert [row.index(1.0) for row in map(list, chosen)] == policy.values(raw).argmax(axis=1).tolist()
    assert all(sum(row) == 1.0 and len(row) == len(ACTIONS) for row in chosen)
    assert len({row.index(1.0) for row in map(list, chosen)}) > 1


def test_where_strategies_are_missing_the_best_of_the_others_is_taken(tmp_path: Path) -> None:
    bias = {"backpressure": 3.0, "circuit_breaker": 2.0, "weighted_capacity": 1.0}
    policy = OnnxPolicy(tiny_policy.save(tmp_path / "p.onnx", bias=bias))
    four = by_service(policy, strategies(["circuit_breaker", "backpressure"]))
    row = observations(1)[0]
    assert policy.probabilities(None, row)[ACTIONS.index("backpressure")] == 1
    assert {one.probabilities(None, row)[ACTIONS.index("weighted_capacity")] for one in four} == {1.0}
    assert four[0].describe() == policy.describe()
    with pytest.raises(
        PolicyError, match=r"actions: the policy chooses among least_loaded, .*here they are instance_1"
    ):
        check_fit(policy, 60.0, 2.0, instances({service: ["a", "b"] for service in SERVICES}))


def test_what_is_not_known_counts_as_the_mean_of_train(tmp_path: Path) -> None:
    policy = OnnxPolicy(tiny_policy.save(tmp_path / "p.onnx", tiny_policy.weights(BUSY)))
    nothing = np.full((1, len(FEATURES)), np.nan, np.float32)
    mean = np.full((1, len(FEATURES)), 0.5, np.float32)
    assert policy.values(nothing).tolist() == policy.values(mean).tolist()


def test_another_training_has_another_name(tmp_path: Path) -> None:
    one = OnnxPolicy(tiny_policy.save(tmp_path / "one.onnx"))
    same = OnnxPolicy(tiny_policy.save(tmp_path / "same.onnx"))
    other = OnnxPolicy(tiny_policy.save(tmp_path / "other.onnx", bias={"round_robin": 1.0}))
    assert one.describe() == same.describe() != other.describe()
    assert one.describe().startswith("onnx:tiny-")
    assert len(one.describe()) == len("onnx:tiny-") + 8


def test_by_name_and_with_exploration(tmp_path: Path) -> None:
    file = tiny_policy.save(tmp_path / "p.onnx")
    policy = make_policy(f"epsilon:0.3:onnx:{file}")
    assert isinstance(policy, EpsilonGreedy)
    assert policy.schema == tiny_policy.schema()
    assert policy.describe() == f"epsilon:0.3:{OnnxPolicy(file).describe()}"
    assert policy.probabilities(None, observations(1)[0]) == pytest.approx([0.05] * 5 + [0.75])


def test_a_policy_that_knows_none_of_the_actions_that_exist_is_refused(tmp_path: Path) -> None:
    """All it could do is take the first one, whatever is observed."""
    unknown = dict.fromkeys(ACTIONS[2:], NOT_THERE)
    policy = OnnxPolicy(tiny_policy.save(tmp_path / "p.onnx", bias={**unknown, "least_loaded": 1.0}))
    known = policy.among(strategies(["least_loaded"]).choices(0))
    assert known.probabilities(None, observations(1)[0]) == (0, 1, 0, 0, 0, 0)
    with pytest.raises(PolicyError) as caught:
        policy.among(strategies(["least_loaded", "fastest_response"]).choices(0))
    assert str(caught.value) == (
        f"policy {policy.describe()}: was trained to choose among least_loaded, fastest_response, and here there are "
        "round_robin, weighted_capacity, circuit_breaker, backpressure; train one on data of these actions"
    )


def test_a_value_that_is_no_number_is_an_error_and_never_a_choice(tmp_path: Path) -> None:
    table = tiny_policy.weights({"queue_max": {"backpressure": 3e38}})
    policy = OnnxPolicy(tiny_policy.save(tmp_path / "p.onnx", table))
    raw = observations(3)
    raw[1, FEATURE_INDEX["queue_max"]] = 1e9
    with pytest.raises(PolicyError) as caught:
        policy.values(raw)
    assert str(caught.value) == (
        f"policy {policy.describe()}: its action values are not all numbers (least_loaded 0, fastest_response 0, "
        "round_robin 0, weighted_capacity 0, circuit_breaker 0, backpressure inf)"
    )
    with pytest.raises(PolicyError, match="its action values are not all numbers"):
        policy.probabilities(None, raw[1])


def test_it_decides_nothing_where_nobody_observes(tmp_path: Path) -> None:
    policy = OnnxPolicy(tiny_policy.save(tmp_path / "p.onnx"))
    with pytest.raises(PolicyError, match=r"onnx:tiny-\w+: decides by observations, and nobody observes here"):
        policy.probabilities(None, None)


def _text(path: Path) -> Path:
    path.write_text("not a model\n")
    return path


def _large(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    return path


def _other_features(path: Path) -> Path:
    usual = tiny_policy.schema()
    columns = tuple(name.replace(".response_time_mean_ms", ".weather") for name in usual.normalization.columns)
    policy = replace(
        usual,
        features=(replace(usual.features[0], name="weather"), *usual.features[1:]),
        normalization=replace(usual.normalization, columns=columns),
    )
    return tiny_policy.save(path, policy=policy)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: path, r"there is no such file; give the ONNX file of a trained policy, as onnx:policy\.onnx"),
        (lambda path: path.parent, "there is no such file"),
        (_text, r"not an ONNX model in one file \(.*\); export it anew with the suite's training"),
        (_large, "larger than 64 MB, which no policy of this suite is"),
        (lambda path: tiny_policy.save(path, metadata=None), "lacks the metadata property rl_policy, so nobody knows"),
        (
            lambda path: tiny_policy.save(path, metadata="{}"),
            "metadata property rl_policy is no schema of a policy",
        ),
        (
            lambda path: tiny_policy.save(path, names=("state", "action_values", "choice")),
            (
                r"is no policy of this suite; export it anew with the suite's training\n"
                r"  input observation: is not there\n  input 'state': is not known\n"
                r"  output action: is not there\n  output 'choice': is not known"
            ),
        ),
        (
            lambda path: tiny_policy.save(path, best="ArgMin"),
            "its action is not the one with the highest of its",
        ),
        (
            _other_features,
            (
                r"does not fit to this version\n  feature weather: the policy needs it, and it is not there; use it "
                r"with what made it \(by hand 1\), or train it anew\n  feature response_time_mean_ms: the policy does"
            ),
        ),
    ],
)
def test_a_file_that_is_no_policy_is_refused(tmp_path: Path, make: Callable[[Path], Path], complaint: str) -> None:
    path = make(tmp_path / "policy.onnx")
    with pytest.raises(PolicyError, match=complaint) as caught:
        OnnxPolicy(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_weights_in_another_file_are_not_read_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tiny_policy.save(Path("policy.onnx"), external=True)
    assert (tmp_path / "weights.bin").is_file()
    with pytest.raises(PolicyError, match=r"policy\.onnx: not an ONNX model in one file \(.*External data"):
        OnnxPolicy(path)


def test_a_model_of_another_width_is_refused(tmp_path: Path) -> None:
    usual = tiny_policy.schema()
    short = replace(usual, normalization=replace(usual.normalization, mean=(0.5,), std=(1.0,)))
    path = tiny_policy.save(tmp_path / "p.onnx", np.zeros((7, 6), np.float32), policy=short)
    with pytest.raises(PolicyError, match=r"normalization\.mean: 43 numbers are needed, found 1"):
        OnnxPolicy(path)
    tiny_policy.save(path, np.zeros((7, 6), np.float32), policy=short, metadata=usual.to_metadata())
    with pytest.raises(PolicyError, match=r"input observation: has 7 columns; 43 are needed"):
        OnnxPolicy(path)


def test_without_onnxruntime_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_policy.save(tmp_path / "policy.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PolicyError) as caught:
        OnnxPolicy(path)
    assert str(caught.value) == (
        f'{path}: a policy in an ONNX file needs onnxruntime; install the extra `serve` (pip install ".[serve]"), '
        "or run make training"
    )

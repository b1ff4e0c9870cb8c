"""What a trained policy costs: one decision of the network, and what serving makes of a line of the access log.

    python -m benchmarks.policy [--rounds 3000]        needs the extra `serve` and onnx

A network of the size that training makes (85 inputs, two layers of 256) is evaluated by onnxruntime and, with the same
weights, by numpy, in turns in one process: absolute times of a shared machine mean little, the ratio holds. The other
two are CPU time per request of the log: writing its two lines (sandbox), and reading them into rows (training.serve).
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.export.rewards import REWARDS
from rl_hooks.observation import FEATURES
from rl_hooks.policies.onnx import OnnxPolicy
from rl_hooks.policy_schema import METADATA_KEY, Normalization, PolicyFeature, PolicySchema
from rl_hooks.run_folder import RunWriter, create_run_folder
from rl_hooks.sources.access_log import AccessLogFollower
from sandbox.access_log import AccessLog
from sandbox.proxy import HttpReply, HttpRequest
from training.serving.rows import BOARD_PLACES, RequestRows

Floats = npt.NDArray[np.float32]

HIDDEN = 256
REQUESTS = 20_000
TARGETS = {
    "one service, onnxruntime / numpy": 1.5,
    "five services, onnxruntime / numpy": 1.5,
    "log of one request, written, us": 10.0,
    "log of one request, read into a row, us": 60.0,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.policy", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3000)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        network = Network(np.random.default_rng(1))
        policy = OnnxPolicy(network.save(Path(folder) / "policy.onnx"))
        measured = {}
        for name, rows in (("one service", 1), ("five services", len(SERVICES))):
            ours, numpys = _compare(policy, network, rows, rounds)
            print(f"{name}: onnxruntime p50 {_p50(ours):.0f} us, p99 {_p99(ours):.0f}; numpy p50 {_p50(numpys):.0f} us")
            measured[f"{name}, onnxruntime / numpy"] = _p50(ours) / _p50(numpys)
        measured |= _log(Path(folder))
    for name, value in measured.items():
        print(f"{name:<40} {value:7.2f}   target {TARGETS[name]:g}")
    return 0 if all(value <= TARGETS[name] for name, value in measured.items()) else 1


class Network:
    """Normalization, two hidden layers with ReLU, six values; the same weights for both."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.can_miss = np.array([feature.missing_when != "never" for feature in FEATURES])
        self.mean = rng.random(len(FEATURES)).astype(np.float32)
        self.std = (1 + rng.random(len(FEATURES))).astype(np.float32)
        self.low, self.high = np.zeros(len(FEATURES), np.float32), np.full(len(FEATURES), 0.9, np.float32)
        sizes = (len(FEATURES) + int(self.can_miss.sum()), HIDDEN, HIDDEN, len(ACTIONS))
        self.layers = [
            (rng.normal(0, size**-0.5, (size, following)).astype(np.float32), np.zeros(following, np.float32))
            for size, following in itertools.pairwise(sizes)
        ]

    def values(self, raw: Floats) -> Floats:
        missing = np.isnan(raw)
        known = (~missing[:, self.can_miss]).astype(np.float32)
        x = np.hstack(
            [np.where(missing, np.float32(0), (np.clip(raw, self.low, self.high) - self.mean) / self.std), known]
        )
        for number, (weight, bias) in enumerate(self.layers):
            x = x @ weight + bias
            if number < len(self.layers) - 1:
                x = np.maximum(x, 0)
        return x

    def save(self, path: Path) -> Path:
        constants: dict[str, npt.NDArray[Any]] = {
            "zero": np.zeros(1, np.float32),
            "mean": self.mean,
            "std": self.std,
            "low": self.low,
            "high": self.high,
            "can_miss": np.flatnonzero(self.can_miss),
        }
        nodes = [
            helper.make_node("IsNaN", ["observation"], ["missing"]),
            helper.make_node("Max", ["observation", "low"], ["raised"]),
            helper.make_node("Min", ["raised", "high"], ["clipped"]),
            helper.make_node("Sub", ["clipped", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "std"], ["scaled"]),
            helper.make_node("Where", ["missing", "zero", "scaled"], ["values"]),
            helper.make_node("Not", ["missing"], ["there"]),
            helper.make_node("Cast", ["there"], ["there_1"], to=TensorProto.FLOAT),
            helper.make_node("Gather", ["there_1", "can_miss"], ["known"], axis=1),
            helper.make_node("Concat", ["values", "known"], ["x0"], axis=1),
        ]
        for number, (weight, bias) in enumerate(self.layers):
            last = number == len(self.layers) - 1
            constants |= {f"w{number}": weight, f"b{number}": bias}
            out = "action_values" if last else f"y{number}"
            nodes.append(helper.make_node("Gemm", [f"x{number}", f"w{number}", f"b{number}"], [out]))
            if not last:
                nodes.append(helper.make_node("Relu", [out], [f"x{number + 1}"]))
        nodes.append(helper.make_node("ArgMax", ["action_values"], ["action"], axis=1, keepdims=0))
        graph = helper.make_graph(
            nodes,
            "policy",
            [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["batch", len(FEATURES)])],
            [
                helper.make_tensor_value_info("action_values", TensorProto.FLOAT, ["batch", len(ACTIONS)]),
                helper.make_tensor_value_info("action", TensorProto.INT64, ["batch"]),
            ],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, {METADATA_KEY: self._schema().to_metadata()})
        onnx.save_model(model, str(path))
        return path

    def _schema(self) -> PolicySchema:
        known = [feature.name for feature, can_miss in zip(FEATURES, self.can_miss, strict=True) if can_miss]
        columns = (*(f"obs.{feature.name}" for feature in FEATURES), *(f"known.{name}" for name in known))
        numbers = (self.mean, self.std, self.low, self.high, np.ones(len(FEATURES), np.float32))
        return PolicySchema(
            name="random",
            algorithm="none",
            actions=ACTIONS,
            features=tuple(PolicyFeature.of(feature) for feature in FEATURES),
            window_s=60.0,
            decision_interval_s=2.0,
            normalization=Normalization(columns, *(tuple(one.tolist()) for one in numbers)),
            gamma=0.9,
            reward_weights=dict.fromkeys(REWARDS, 0.2),
            slo_ms=dict.fromkeys(SERVICES, 100.0),
            data={"none": "0" * 64},
            made_by={"name": "benchmarks.policy"},
        )


def _compare(policy: OnnxPolicy, network: Network, rows: int, rounds: int) -> tuple[list[float], list[float]]:
    """us of each evaluation by either, in turns."""
    rng = np.random.default_rng(2)
    raw = rng.random((rows, len(FEATURES))).astype(np.float32)
    raw[rng.random(raw.shape) < 0.1] = np.nan
    assert np.allclose(policy.values(raw), network.values(raw), atol=1e-4)
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for times, values in zip(took, (policy.values, network.values), strict=True):
            began_ns = time.perf_counter_ns()
            values(raw)
            times.append((time.perf_counter_ns() - began_ns) / 1000)
    return took


def _p50(times: list[float]) -> float:
    return statistics.median(times)


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def _log(folder: Path) -> dict[str, float]:
    create_run_folder(folder / "run", {})
    path = folder / "access.log"
    log, writer = AccessLog(path), RunWriter(folder / "run", "local", BOARD_PLACES)
    follower, rows = AccessLogFollower(path), RequestRows(writer, "serving", 10**10)
    request = HttpRequest("GET", "/proxy/cart-service/api/cart", b"", [], b"")
    reply = HttpReply(200, [], b"")

    def write() -> None:
        for number in range(REQUESTS):
            begun = log.begin(request)
            assert begun is not None
            log.end(begun, reply, None)
            if number % 50 == 0:  # as many as come between two flushes at 1000 a second
                log.flush()
        log.flush()

    def read() -> None:
        rows.take(follower.poll())

    measured = {
        "log of one request, written, us": _cpu_us(write),
        "log of one request, read into a row, us": _cpu_us(read),
    }
    assert writer.rows()["requests"] == REQUESTS
    for thing in (log, follower, writer):
        thing.close()
    return measured


def _cpu_us(work: Callable[[], None]) -> float:
    """CPU time per request."""
    began_ns = time.process_time_ns()
    work()
    return (time.process_time_ns() - began_ns) / 1000 / REQUESTS


if __name__ == "__main__":
    raise SystemExit(main())

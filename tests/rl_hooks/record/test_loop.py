"""The decision loop in gevent: one decision per interval, none made up for, and nothing that ends it unheard."""

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import gevent
import numpy as np
import pytest

from rl_hooks.control import ActuatorError, Controller, InstanceSample, Sample, SourceError
from rl_hooks.decision import SERVICES
from rl_hooks.policies.builtin import Uniform
from rl_hooks.record.controller import DecisionLoop
from rl_hooks.record.recorder import InForce
from rl_hooks.row import MISSING_U8
from rl_hooks.run_folder import RunWriter, create_run_folder
from rl_hooks.run_reader import Run, read_run

INTERVAL_S = 0.02
NAN = float("nan")


class System:
    """A source and an actuator; `slow_ticks` take several intervals, `bad_ticks` give no sample, `deaf_ticks` take no
    decision for the cart."""

    def __init__(
        self, slow_ticks: tuple[int, ...] = (), bad_ticks: tuple[int, ...] = (), deaf_ticks: tuple[int, ...] = ()
    ) -> None:
        self.calls = 0
        self._deaf = deaf_ticks
        self._slow, self._bad = slow_ticks, bad_ticks

    def describe(self) -> str:
        return "system"

    def sample(self) -> Sample:
        tick, self.calls = self.calls, self.calls + 1
        if tick in self._slow:
            gevent.sleep(3.5 * INTERVAL_S)
        if tick in self._bad:
            raise SourceError("no answer")
        instance = InstanceSample(2, "cart-1", 0.5, NAN, 1.0, 3, 4, NAN, 10, 1, None)
        return Sample(1000 + tick, 2000 + tick, (instance,))

    def apply(self, actions: Mapping[str, str]) -> None:
        assert set(actions) == set(SERVICES)
        if self.calls - 1 in self._deaf:
            raise ActuatorError(f"not heard at {self.calls}", frozenset({"cart-service"}))


class Bench:
    """A loop on a fresh run folder with a plan of two phases."""

    def __init__(self, folder: Path, system: System, policy: object = None) -> None:
        create_run_folder(folder, {"run_id": "run"})
        self.folder, self.faults, self.announced = folder, [], []  # type: ignore[var-annotated]
        self.writer = RunWriter(folder, "local", 1)
        self.in_force = InForce()
        controller = Controller(policy or Uniform(), system, system, seed=1)  # type: ignore[arg-type]
        self.loop = DecisionLoop(controller, self.writer, self.in_force, self.phase_at, INTERVAL_S, self.announce)

    def phase_at(self, t_s: float) -> str | None:
        return None if t_s >= 20 * INTERVAL_S else "one" if t_s < 10 * INTERVAL_S else "two"

    def announce(self, tick: int, chosen: list[tuple[int, int, float]]) -> None:
        self.announced.append((tick, chosen))

    def run(self, clock: Callable[[], float] | None = None) -> Run:
        def loop_now_s() -> float:
            gevent.get_hub().loop.update_now()  # or it is the moment at which somebody last gave way
            return float(gevent.get_hub().loop.now())

        began_s = loop_now_s()

        def run_time_s() -> float:
            return loop_now_s() - began_s

        self.loop.run(clock or run_time_s, self.faults.append)
        self.writer.close()
        return read_run(self.folder)


def test_every_interval_has_one_decision_per_service_until_the_plan_ends(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run", System())
    run = bench.run()
    ticks = np.unique(run.decisions["tick"])
    assert len(run.decisions) == len(ticks) * len(SERVICES) == bench.loop.decisions
    assert len(ticks) + bench.loop.skipped_ticks == ticks[-1] + 1
    assert ticks[-1] <= 20  # a timer that fires a little early makes one more
    assert {run.names["phase"][ref] for ref in run.decisions["phase_ref"]} == {"one", "two"}
    assert (np.diff(run.decisions["t_ns"][:: len(SERVICES)]) > 0).all()
    assert bench.faults == []


def test_what_is_announced_is_what_is_recorded(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run", System())
    run = bench.run()
    recorded = {(int(d["tick"]), int(d["service"])): (int(d["action"]), float(d["propensity"])) for d in run.decisions}
    announced = {
        (tick, service): (action, pytest.approx(propensity))
        for tick, chosen in bench.announced
        for service, action, propensity in chosen
    }
    assert recorded == announced


def test_a_missed_interval_is_skipped_not_made_up_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run", System(slow_ticks=(4,)))
    run = bench.run()
    ticks = np.unique(run.decisions["tick"])
    assert bench.loop.skipped_ticks >= 3
    assert np.diff(ticks).max() >= 4
    assert len(ticks) == len(np.unique(ticks))


def test_samples_are_recorded_with_what_is_missing(tmp_path: Path) -> None:
    run = Bench(tmp_path / "run", System()).run()
    row = run.samples[0]
    assert (row["t_ns"], row["received_ns"], row["cpu"], row["queue_depth"]) == (1000, 2000, 0.5, 3)
    assert np.isnan(row["memory"])
    assert np.isnan(row["capacity"])
    assert row["up"] == 255
    assert run.names["instance"][row["instance_ref"]] == "cart-1"
    assert list(run.decisions["sample_ns"][:5]) == [1000] * 5


def test_a_source_that_fails_for_a_while_is_told_once_and_so_is_its_return(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path / "run", System(bad_ticks=(2, 3, 4)))
    run = bench.run()
    assert [record.getMessage() for record in caplog.records] == [
        "Decisions go on, but metrics source system: no answer",
        "Metrics source and actuator work again",
    ]
    assert [event["kind"] for event in run.events] == ["control_fault", "control_recovered"]
    assert run.events[0]["text"] == "metrics source system: no answer"
    assert bench.loop.faults == 3
    assert (run.decisions["sample_ns"] == 0).sum() == 3 * len(SERVICES)


def test_decisions_that_could_not_be_applied_are_told_while_and_after_they_were_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path / "run", System(deaf_ticks=(3, 4, 7)))
    run = bench.run()
    assert [record.getMessage() for record in caplog.records] == [
        "Decisions go on, but actuator system: not heard at 4 (not applied for cart-service)",
        "Metrics source and actuator work again",
        "Decisions go on, but actuator system: not heard at 8 (not applied for cart-service)",
        "Metrics source and actuator work again",
    ]
    missed = run.decisions[run.decisions["actuated"] == 0]
    assert [(row["tick"], SERVICES[row["service"]]) for row in missed] == [(n, "cart-service") for n in (3, 4, 7)]
    of_tick = {int(row["tick"]): int(row["t_ns"]) for row in run.decisions}
    told = bench.loop.not_applied
    assert told.to_json() == {"decisions": 3, "from_ns": of_tick[3], "until_ns": of_tick[8]}
    said = told.text(bench.loop.decisions)
    assert said is not None
    assert said.startswith(f"3 of {bench.loop.decisions} decisions could not be applied, between ")


def test_decisions_that_could_not_be_applied_until_the_end_have_no_end(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run", System(deaf_ticks=tuple(range(5, 1000))))
    bench.run()
    assert bench.loop.not_applied.until_ns is None
    assert "and the last one; they are recorded as such" in str(bench.loop.not_applied.text(100))


def test_a_balancer_that_decides_by_itself_has_nothing_to_apply(tmp_path: Path) -> None:
    system = System()
    system.observes = True  # type: ignore[attr-defined]
    bench = Bench(tmp_path / "run", system)
    run = bench.run()
    assert not run.decisions["actuated"].any()
    assert bench.loop.not_applied.text(bench.loop.decisions) is None


def test_nothing_is_said_where_everything_was_applied(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run", System())
    bench.run()
    assert bench.loop.not_applied.text(bench.loop.decisions) is None


def test_a_loop_that_cannot_go_on_says_so(tmp_path: Path) -> None:
    class Broken(Uniform):
        def probabilities(self, previous: int | None, observation: object) -> tuple[float, ...]:
            return (1.0,) if previous is not None else (1 / 6,) * 6

    bench = Bench(tmp_path / "run", System(), Broken())
    run = bench.run()
    assert bench.faults == [
        "the decision loop stopped: PolicyError: logging policy uniform: (1.0,) is no distribution over 6 actions"
    ]
    assert len(run.decisions) == len(SERVICES)


def test_a_part_that_raises_ends_the_loop_with_its_line(tmp_path: Path) -> None:
    class Failing(Uniform):
        def probabilities(self, previous: int | None, observation: object) -> tuple[float, ...]:
            raise KeyError("cpu")

    bench = Bench(tmp_path / "run", System(), Failing())
    bench.run()
    (told,) = bench.faults
    assert re.fullmatch(r"the decision loop stopped in test_loop.py, line \d+: KeyError: 'cpu'", told)


def test_a_timer_that_fires_early_does_not_decide_twice_in_one_interval(tmp_path: Path) -> None:
    """On a clock that is slow by a tenth every timer fires early."""
    began = time.perf_counter()
    run = Bench(tmp_path / "run", System()).run(clock=lambda: 0.9 * (time.perf_counter() - began))
    ticks, times = np.unique(run.decisions["tick"], return_counts=True)
    assert len(ticks) > 10
    assert set(times) == {len(SERVICES)}


def test_a_loop_that_keeps_to_a_clock_begins_at_a_whole_multiple_of_its_interval(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run", System())
    assert bench.loop._first_s(0.123) == 0.0, "others begin at once"
    interval_ns = round(INTERVAL_S * 1e9)
    for wall_ns in (1_700_000_000_123_456_789, 1_700_000_000_000_000_000, 5 * interval_ns + 1):
        bench.loop.keep_to(lambda wall_ns=wall_ns: wall_ns)  # type: ignore[misc]
        wait_s = bench.loop._first_s(0.5) - 0.5
        assert 0 <= wait_s < INTERVAL_S
        assert round(wall_ns + wait_s * 1e9) % interval_ns in (0, 1, interval_ns - 1)


def test_a_loop_that_keeps_to_a_clock_misses_no_interval(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run", System())
    bench.loop.keep_to(time.time_ns)
    run = bench.run()
    ticks = np.unique(run.decisions["tick"])
    assert ticks[0] == 0
    assert len(ticks) + bench.loop.skipped_ticks == ticks[-1] + 1
    assert bench.faults == []


def test_an_observing_run_has_no_decisions_that_could_not_be_applied(tmp_path: Path) -> None:
    class Watching(System):
        observes = True

    bench = Bench(tmp_path / "run", Watching())
    run = bench.run()
    assert len(run.decisions) > 0
    assert set(run.decisions["action"]) == {MISSING_U8}
    assert bench.loop.not_applied.text(bench.loop.decisions) is None
    assert {(action, np.isnan(p)) for _, chosen in bench.announced for _, action, p in chosen} == {(MISSING_U8, True)}

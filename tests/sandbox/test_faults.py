from collections.abc import Callable
from dataclasses import astuple, replace
from random import Random

import pytest

from sandbox.clock import VirtualClock
from sandbox.faults import KINDS, FaultError, Faults
from sandbox.instance import Effect, Instance
from sandbox.parameters import Parameters
from sandbox.weather import Weather


@pytest.fixture
def instances(make_instance: Callable[..., Instance]) -> list[Instance]:
    return [make_instance(name=f"cart-service-{number}", workers=4) for number in (1, 2, 3)]


@pytest.fixture
def faults(clock: VirtualClock, instances: list[Instance]) -> Faults:
    return Faults({"cart-service": instances, "user-service": []}, clock, Parameters())


def effects(instance: Instance) -> Effect:
    return instance._effect


VALUES = {"latency": 5.0, "errors": 0.2, "timeouts": 0.15, "capacity": 0.5, "antagonist": 0.4}
ACTS = {
    "latency": Effect(latency_factor=5.0),
    "errors": Effect(error_rate=0.2),
    "timeouts": Effect(timeout_rate=0.15),
    "capacity": Effect(capacity=0.5),
    "antagonist": Effect(antagonist=0.4),
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_fault_acts_inside_the_instances_and_ends_by_itself(
    clock: VirtualClock, faults: Faults, instances: list[Instance], kind: str
) -> None:
    faults.inject({"service": "cart-service", "kind": kind, "value": VALUES[kind], "duration_s": 5})
    for instance in instances:
        assert astuple(effects(instance)) == pytest.approx(astuple(ACTS[kind]))
    clock.run_until(5.0)
    assert all(effects(instance) == Effect() for instance in instances) and faults.active() == []


def test_all_kinds_are_tested() -> None:
    assert set(VALUES) | {"crash", "restart"} == set(KINDS)


def test_one_instance_alone_and_what_is_listed(faults: Faults, instances: list[Instance], clock: VirtualClock) -> None:
    wanted = {"service": "cart-service", "instance": "cart-service-2", "kind": "latency", "value": 3, "duration_s": 9}
    assert faults.inject(wanted) == "f1"
    clock.run_until(4.0)
    assert [effects(one).latency_factor for one in instances] == [1.0, 3.0, 1.0]
    assert faults.active() == [
        {
            "id": "f1",
            "service": "cart-service",
            "instances": ["cart-service-2"],
            "kind": "latency",
            "value": 3.0,
            "duration_s": 9.0,
            "remaining_s": 5.0,
        }
    ]


def test_faults_are_lifted_one_by_one_or_all(clock: VirtualClock, faults: Faults, instances: list[Instance]) -> None:
    first = faults.inject({"service": "cart-service", "kind": "latency", "value": 2, "duration_s": 5})
    faults.inject({"service": "cart-service", "kind": "latency", "value": 3})
    assert effects(instances[0]).latency_factor == 6.0
    assert faults.lift(first) and not faults.lift(first)
    assert effects(instances[0]).latency_factor == 3.0
    clock.run_until(6.0)  # the first does not end a second time
    assert faults.lift_all() == 1 and effects(instances[0]) == Effect()


def test_a_crashed_instance_starts_when_the_last_fault_that_keeps_it_down_is_over(
    clock: VirtualClock, faults: Faults, instances: list[Instance]
) -> None:
    faults.inject({"service": "cart-service", "kind": "crash", "duration_s": 3})
    faults.inject({"service": "cart-service", "instance": "cart-service-1", "kind": "crash", "duration_s": 6})
    assert [one.up for one in instances] == [False] * 3
    clock.run_until(4.0)
    assert [one.up for one in instances] == [False, True, True]
    clock.run_until(7.0)
    assert instances[0].up


def test_a_restart_is_over_by_itself(clock: VirtualClock, faults: Faults, instances: list[Instance]) -> None:
    faults.inject({"service": "cart-service", "instance": "cart-service-1", "kind": "restart"})
    clock.run_until(4.9)
    assert not instances[0].up
    clock.run_until(5.1)
    assert instances[0].up and faults.active() == []


def test_all_problems_of_a_fault_are_told_together(faults: Faults) -> None:
    with pytest.raises(FaultError) as caught:
        faults.inject({"service": "chart-service", "kind": "slow", "value": 3, "duration_s": -1, "speed": 1})
    assert caught.value.problems == (
        "unknown field 'speed': known are service, instance, kind, value, duration_s",
        "service: must be one of cart-service, user-service",
        "kind: must be one of latency, errors, timeouts, capacity, antagonist, crash, restart",
        "duration_s: must be real seconds, more than 0 and at most 86400",
    )


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("latency", 0, "value: latency needs a number, at least 0.01 and at most 1000"),
        ("errors", 1.1, "value: errors needs a number, more than 0 and at most 1"),
        ("errors", None, "value: errors needs a number, more than 0 and at most 1"),
        ("timeouts", True, "value: timeouts needs a number, more than 0 and at most 1"),
        ("capacity", 0.0, "value: capacity needs a number, more than 0 and at most 1"),
        ("antagonist", float("nan"), "value: antagonist needs a number, more than 0 and at most 0.95"),
        ("crash", 1, "value: crash has none"),
    ],
)
def test_values_out_of_range(faults: Faults, kind: str, value: object, message: str) -> None:
    with pytest.raises(FaultError) as caught:
        faults.inject({"service": "cart-service", "kind": kind, "value": value})
    assert caught.value.problems == (message,)


@pytest.mark.parametrize("wanted", [None, [], "crash", 3])
def test_something_that_is_no_object(faults: Faults, wanted: object) -> None:
    with pytest.raises(FaultError, match="a fault is a JSON object"):
        faults.inject(wanted)


def test_an_instance_of_another_service(faults: Faults) -> None:
    with pytest.raises(FaultError, match="instance: must be one of cart-service-1, cart-service-2, cart-service-3, or"):
        faults.inject({"service": "cart-service", "instance": "user-service-1", "kind": "crash"})


def test_the_weather_comes_as_often_and_stays_as_long_as_the_table_says(
    clock: VirtualClock, make_instance: Callable[..., Instance]
) -> None:
    # 200 simulated hours: some 9000 antagonists and 585 incidents; the tolerances are about 3 standard errors.
    parameters = Parameters()
    instance = make_instance()
    Weather(instance, clock, Random(1), parameters)
    seen = {"antagonist": 0.0, "errors": 0.0, "slow": 0.0, "paused": 0.0}
    steps = 144_000
    for _ in range(steps):
        clock.run_for(5.0)
        effect = effects(instance)
        seen["antagonist"] += effect.antagonist > 0
        seen["errors"] += effect.error_rate == pytest.approx(0.5)
        seen["slow"] += effect.latency_factor == pytest.approx(4.0)
        seen["paused"] += instance._pause_timer is not None
    assert seen["antagonist"] / steps == pytest.approx(0.25, rel=0.04)
    assert seen["errors"] / steps == pytest.approx(0.5 * 30 / 1230, rel=0.25)
    assert seen["slow"] / steps == pytest.approx(0.5 * 30 / 1230, rel=0.25)
    assert seen["paused"] / steps == pytest.approx(0.08 * 1.278 / 30, rel=0.2)


def test_times_scale_and_everything_else_stays() -> None:
    table, fast = Parameters(), Parameters().scaled(45.0)
    assert fast == Parameters().scaled(10.0)
    assert (fast.queue_timeout_s, fast.breaker_open_s, fast.incident_every_s) == (0.2, 1.0, 120.0)
    assert (fast.cpu_share, fast.queue_per_worker, fast.retry_after) == (0.6, 32, 1)
    assert replace(table, weather=False).scaled(2.0).weather is False
    with pytest.raises(ValueError, match="time scale must be a positive number, not 0"):
        table.scaled(0.0)

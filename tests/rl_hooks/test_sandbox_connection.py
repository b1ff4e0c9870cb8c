"""Metrics source, actuator and load announcement against the real sandbox, and every listed source and actuator."""

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from rl_hooks.actuators.header import BUILTIN as ACTUATORS
from rl_hooks.actuators.header import WITH_ARGUMENT as STEERED_WITH
from rl_hooks.actuators.sandbox import SandboxActuator
from rl_hooks.control import ActuatorError, SourceError
from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.sources.named import make_source
from rl_hooks.sources.none import BUILTIN as SOURCES
from rl_hooks.sources.none import WITH_ARGUMENT
from rl_hooks.sources.sandbox import SandboxSource, parse_state
from rl_hooks.target import TargetError, check_target, size_sandbox
from scenario.refs import resolve

ROOT = Path(__file__).resolve().parents[2]
LOAD = {
    "time_scale": 10.0,
    "expect": {"inventory-service GET /api/inventory/search": 300.0},
    "products": [{"sku": "A-1", "name": "Thing", "category": "things", "brand": "None", "price": 5.0}],
}


@pytest.fixture(scope="module")
def root() -> Iterator[str]:
    command = [sys.executable, "-m", "sandbox", "--port", "0", "--parent", str(os.getpid())]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = next(line for line in process.stdout if line.startswith("sandbox ready: "))
        yield ready.split()[2].removesuffix("/proxy")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


@pytest.fixture
def nowhere() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_a_sample_knows_all_instances_and_when(root: str) -> None:
    before = time.time_ns()
    sample = SandboxSource(root).sample()
    assert before <= sample.t_ns <= sample.received_ns <= time.time_ns()
    assert [instance.instance for instance in sample.instances if instance.service == 2] == [
        "cart-service-1",
        "cart-service-2",
        "cart-service-3",
    ]
    assert len(sample.instances) == 3 * len(SERVICES)
    for instance in sample.instances:
        assert 0 <= instance.cpu <= 1
        assert 0 <= instance.memory <= 1
        assert instance.health == 1
        assert instance.capacity >= 1
        assert instance.up is True


def test_the_actuator_sets_the_strategy_of_every_service(root: str) -> None:
    wanted = {service: ACTIONS[-1 - index] for index, service in enumerate(SERVICES)}
    SandboxActuator(root).apply(wanted)
    assert requests.get(f"{root}/control/actions", timeout=5).json() == {"actions": wanted}


def test_what_the_sandbox_refuses_is_an_error(root: str) -> None:
    with pytest.raises(ActuatorError, match=r"PUT .*/control/actions: 400"):
        SandboxActuator(root).apply({"cart-service": "fastest"})


def test_an_announced_load_sizes_the_sandbox_and_stocks_its_shop(root: str) -> None:
    lines = size_sandbox(root, LOAD)
    inventory = next(line for line in lines if line.startswith("inventory-service"))
    assert inventory.split()[1] == "300.0"
    assert inventory.split()[-1] == "0.85"
    check_target(f"{root}/proxy")


def test_a_load_that_makes_no_sense_is_refused_with_all_its_problems(root: str) -> None:
    with pytest.raises(TargetError) as caught:
        size_sandbox(root, {**LOAD, "time_scale": 0, "products": []})
    lines = str(caught.value).splitlines()
    assert lines[0] == f"PUT {root}/control/load: the sandbox refuses the load"
    assert lines[1:] == [
        "  time_scale: must be a number above 0, for example 45",
        "  products: must be a list of 1 to 10000 products",
    ]


def test_nobody_there_is_an_error_and_not_an_empty_sample(nowhere: str) -> None:
    with pytest.raises(SourceError, match=f"GET {nowhere}/state"):
        SandboxSource(nowhere).sample()
    with pytest.raises(ActuatorError, match=f"PUT {nowhere}/control/actions"):
        SandboxActuator(nowhere).apply({})
    with pytest.raises(TargetError, match="is this a sandbox of another version"):
        size_sandbox(nowhere, LOAD)


def state(**values: Any) -> dict[str, Any]:
    return {"t_unix_ns": 5, "services": {"cart-service": {"instances": {"cart-service-1": values}}}}


@pytest.mark.parametrize("value", [None, "0.5", -0.1, 1.1, True, float("nan")])
def test_a_value_out_of_its_range_is_missing(value: Any) -> None:
    (instance,) = parse_state(state(cpu=value, up="yes"), 9).instances
    assert math.isnan(instance.cpu)
    assert math.isnan(instance.memory)
    assert instance.up is None


@pytest.mark.parametrize(
    "odd",
    [None, [], {}, {"t_unix_ns": 1, "services": {"mine": {"instances": {"a": {}}}}}, state() | {"t_unix_ns": "x"}],
)
def test_what_is_no_state_is_refused(odd: Any) -> None:
    with pytest.raises(ValueError, match=r"not the state of a sandbox|invalid literal"):
        parse_state(odd, 9)


@pytest.mark.parametrize("name", SOURCES)
def test_every_listed_source_says_its_name_and_gives_samples_or_says_why_not(
    name: str, root: str, nowhere: str
) -> None:
    """Nobody sends load reports here; of those that need an argument, the text is the sandbox's."""
    argument = f":{root}/metrics" if name == "text" else f":{nowhere}" if name in WITH_ARGUMENT else ""
    made = make_source("--metrics-source", f"{name}{argument}", root)
    assert made.describe() == f"{name}{argument}"
    if name in ("orca", *(WITH_ARGUMENT.keys() - {"text"})):
        with pytest.raises(SourceError, match=r"no answer had the header endpoint-load-metrics|GET http"):
            made.sample()
    else:
        sample = made.sample()
        assert sample is None or sample.t_ns <= sample.received_ns


@pytest.mark.parametrize("name", sorted(set(ACTUATORS) - {"observe", *STEERED_WITH}))
def test_every_listed_actuator_says_its_name_and_takes_decisions(name: str, root: str) -> None:
    actuator: Any = resolve(name, ACTUATORS)
    made = actuator(root)
    assert made.describe() == name
    made.apply(dict.fromkeys(SERVICES, "round_robin"))

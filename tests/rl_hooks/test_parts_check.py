"""The check of parts: all of the suite's own pass it, and what a part does wrong is told."""

import importlib.util
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rl_hooks.actuators.header import BUILTIN as ACTUATORS
from rl_hooks.control import ActuatorError, InstanceSample, Sample, SourceError
from rl_hooks.decision import ACTIONS
from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from rl_hooks.export.formats.table import FORMATS
from rl_hooks.export.rewards import REWARDS
from rl_hooks.parts_check import main
from rl_hooks.sources.none import BUILTIN as SOURCES
from tests import builders
from tests.processes import Sandbox, sandbox_started

NOWHERE = ("--host", "http://127.0.0.1:9/proxy")
LIBRARIES = {"d4rl": "h5py", "d3rlpy": "d3rlpy", "minari": "minari", "minari-arrow": "minari"}
LIGHT = [name for name in FORMATS if name not in LIBRARIES or importlib.util.find_spec(LIBRARIES[name])]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with sandbox_started() as running:
        yield running


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parts") / "bundle"
    write_bundle(assemble([builders.random_run()]), path)
    return path


@pytest.mark.parametrize("name", ["uniform", "sticky:0.5", *ACTIONS, "epsilon:0.1:round_robin"])
def test_every_policy_of_the_suite_passes(name: str) -> None:
    assert main(["policy", name]) == 0


@pytest.mark.parametrize("name", REWARDS)
def test_every_reward_of_the_suite_passes(name: str) -> None:
    assert main(["reward", f"rl_hooks.export.rewards:{name}"]) == 0


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.filterwarnings("default")
def test_every_format_of_the_suite_passes_and_the_bundle_stays_as_it_is(name: str, bundle: Path) -> None:
    before = sorted(bundle.rglob("*"))
    assert main(["format", name, "--bundle", str(bundle)]) == 0
    assert sorted(bundle.rglob("*")) == before


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("source", name) for name in ("sandbox", "none")),
        *(("actuator", name) for name in ("sandbox", "header")),
        ("injector", "sandbox"),
    ],
)
def test_what_speaks_with_a_target_passes_on_the_sandbox(kind: str, name: str, sandbox: Sandbox) -> None:
    assert name in {**SOURCES, **ACTUATORS}
    assert main([kind, name, "--host", sandbox.host]) == 0


class Part:
    """What a part of a team may do wrong; each test changes one thing."""

    said: Any = "mine"
    answer: Any = None

    def __init__(self, root: str = "") -> None:
        pass

    def describe(self) -> Any:
        return self.said

    def probabilities(self, previous: int | None, observation: Any) -> Sequence[float]:
        return self.answer  # type: ignore[no-any-return]

    def sample(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def apply(self, actions: Mapping[str, str]) -> None:
        if "backpressure" in actions.values():
            raise ActuatorError("the balancer has no such strategy")

    def problems(self, faults: Any) -> Any:
        return self.answer

    def lift(self, fault: Any, handle: str) -> None:
        pass


def sample(**special: Any) -> Sample:
    facts = {"service": 0, "instance": "user-1", "requests_total": 0, "errors_total": 0, "up": None}
    gauges = dict.fromkeys(("cpu", "memory", "health", "queue_depth", "in_flight", "capacity"), math.nan)
    return Sample(5, special.pop("received_ns", 6), (InstanceSample(**{**facts, **gauges, **special}),))


@pytest.mark.parametrize(
    ("kind", "answer", "problem"),
    [
        ("policy", [0.5] * 6, "is no distribution over the 6 actions"),
        ("policy", [1 / 3] * 3, "is no distribution over the 6 actions"),
        ("source", SourceError("nobody there"), "nobody there"),
        ("source", {"cpu": 1}, "a rl_hooks.control.Sample is needed"),
        ("source", Sample(5, 6, ()), "names no instance"),
        ("source", sample(received_ns=4), "t_ns is after received_ns"),
        ("source", sample(cpu=95.0), "cpu is 95.0; a float from 0 to 1 is needed"),
        ("source", sample(service=7), "service 7 is no index of SERVICES"),
        ("source", sample(up=1), "up is 1; True, False or None is needed"),
        ("actuator", None, "backpressure: the balancer has no such strategy"),
        ("injector", None, "problems() returned None for latency"),
    ],
)
def test_what_is_wrong_is_told(
    kind: str, answer: Any, problem: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Part, "answer", answer)
    assert main([kind, f"{__name__}:Part", *(() if kind == "policy" else NOWHERE)]) == 1
    assert f"parts_check: {kind} {__name__}:Part: " in (told := capsys.readouterr().err)
    assert problem in told


def test_a_part_without_a_name_or_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Part, "said", "")
    monkeypatch.setattr(Part, "answer", [])
    assert main(["injector", f"{__name__}:Part", *NOWHERE]) == 1
    assert "describe() returned ''; a name is needed" in capsys.readouterr().err
    assert main(["source", "sndbox", *NOWHERE]) == 1
    assert "source sndbox: is not a known name. Did you mean 'sandbox'?" in capsys.readouterr().err
    assert main(["format", "npz"]) == 2
    assert "format needs --bundle" in capsys.readouterr().err


def nothing(bundle: Any, folder: Path) -> dict[str, Any]:
    return {}


def half(bundle: Any, folder: Path) -> dict[str, Any]:
    (folder / "x").write_text("x")
    return {"parts": {name: {"rows": len(part) // 2} for name, part in bundle.parts.items()}}


@pytest.mark.parametrize(
    ("writer", "problems"), [("nothing", ["wrote no file", "has to return"]), ("half", ["`left_out` does not say"])]
)
def test_a_format_that_loses_rows_or_says_nothing_is_told(
    writer: str, problems: list[str], bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["format", f"{__name__}:{writer}", "--bundle", str(bundle)]) == 1
    told = capsys.readouterr().err
    assert all(problem in told for problem in problems)


@pytest.mark.parametrize("kind", ["policy", "source", "actuator", "injector"])
def test_a_part_that_raises_is_told_with_the_line(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("cpu")

    for method in ("probabilities", "sample", "apply", "problems"):
        monkeypatch.setattr(Part, method, fail)
    assert main([kind, f"{__name__}:Part", *(() if kind == "policy" else NOWHERE)]) == 1
    told = capsys.readouterr().err
    assert re.fullmatch(
        rf"parts_check: {kind} \S+:Part: failed in {Path(__file__).name}, line \d+ .KeyError: 'cpu'.\n", told
    )


@pytest.mark.parametrize("kind", ["reward", "feature", "policy", "source", "actuator", "injector", "format"])
def test_a_name_that_leads_nowhere_is_named_once(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"policy": [], "reward": [], "feature": [], "format": ["--bundle", "x"]}.get(kind, NOWHERE)
    assert main([kind, "nonsense", *options]) == 1
    told = capsys.readouterr().err
    assert re.match(rf"parts_check: {kind} nonsense: (names nothing|is not a known name)", told)
    assert told.count("nonsense") == 1


@pytest.mark.parametrize("kind", ["reward", "feature", "policy", "source", "actuator", "injector", "format"])
def test_a_module_that_cannot_be_imported_is_told(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "half_done.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    options = {"policy": [], "reward": [], "feature": [], "format": ["--bundle", "x"]}.get(kind, NOWHERE)
    assert main([kind, "half_done:Part", *options]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"parts_check: {kind} half_done:Part: cannot be imported (ModuleNotFoundError")
    assert "No module named 'no_such_library'" in told

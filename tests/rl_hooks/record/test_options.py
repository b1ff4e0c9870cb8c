"""From options to a setup: names, policies, and every complaint at once."""

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import configargparse
import pytest

from rl_hooks.control import InstanceSample, Sample
from rl_hooks.decision import SERVICES
from rl_hooks.policies.builtin import Uniform
from rl_hooks.record.options import SetupError, add_options, default_host, make_setup, read_scenario_file
from scenario.load import load_file
from tests.tiny_policy import schema

CONFIG = Path(__file__).resolve().parents[3] / "configs" / "comprehensive_rl_training_config.yaml"
NOWHERE = "http://127.0.0.1:9/proxy"  # the discard port: nothing of ours listens there


def options(*arguments: str) -> argparse.Namespace:
    class Parser(configargparse.ArgumentParser):  # type: ignore[misc]
        def add_argument(self, *args: Any, include_in_web_ui: bool = True, **kwargs: Any) -> Any:
            return super().add_argument(*args, **kwargs)

    parser = Parser()
    add_options(parser)
    return parser.parse_args(list(arguments))  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setup makes the folder for the logs where one stands."""
    monkeypatch.chdir(tmp_path)


def test_defaults_make_the_shipped_scenario() -> None:
    setup = make_setup(options(), NOWHERE)
    assert setup.plan.scenario.name == "comprehensive_rl_training"
    assert (setup.plan.seed, setup.plan.time_scale, setup.plan.user_scale) == (1, 1.0, 1.0)
    assert setup.policy.describe() == "uniform"
    assert (setup.source.describe(), setup.actuator.describe()) == ("none", "header")
    assert setup.folder.parent == Path("runs")
    assert setup.folder.name.startswith("comprehensive_rl_training_")
    assert not setup.is_sandbox


def test_the_manifest_says_all_that_was_decided() -> None:
    setup = make_setup(options("--seed", "7", "--time-scale", "45", "--logging-policy", "sticky:0.25"), NOWHERE)
    facts = setup.facts
    assert (facts["seed"], facts["logging_policy"], facts["target"]) == (7, "sticky:0.25", NOWHERE)
    assert facts["config_sha256"] == load_file(CONFIG).text_sha256
    assert {"suite", "python", "locust", "gevent"} <= facts["versions"].keys()
    assert facts["state"] == "running"


def test_the_peak_load_is_the_busiest_phases() -> None:
    setup = make_setup(options("--time-scale", "45"), NOWHERE)
    load = setup.peak_load()
    busiest = next(phase for phase in setup.plan.phases if phase.name == "evening_purchase_surge")
    assert load["expect"] == dict(setup.plan.expected_rps(busiest))
    assert load["time_scale"] == 45
    assert {product["sku"] for product in load["products"]} == {p.sku for p in setup.plan.scenario.catalogue}


def test_turns_are_scheduled_before_the_run_written_into_its_manifest_and_told() -> None:
    setup = make_setup(options("--logging-policy", "turns:least_loaded,uniform"), NOWHERE)
    turns = setup.facts["turns"]
    plan = setup.plan
    assert [row["first_tick"] for row in turns[1:]] == [row["last_tick"] + 1 for row in turns[:-1]]
    assert (turns[-1]["last_tick"] + 1) * plan.decision_interval_s == plan.duration_s
    assert list(dict.fromkeys(row["phase"] for row in turns)) == [phase.name for phase in plan.phases]
    assert "turns: 36 blocks in 6 strata: fixed:least_loaded 18, uniform 18" in setup.describe()
    assert "turns" not in make_setup(options(), NOWHERE).facts


def test_turns_that_the_run_is_too_short_for_are_refused_before_it() -> None:
    many = "turns:uniform,least_loaded,round_robin,sticky,backpressure,circuit_breaker,sticky:0.1"
    with pytest.raises(SetupError, match="of 60 s: the run has 6, and there are 7 policies; make the run longer"):
        make_setup(options("--scenario-file", "quick_validation_config.yaml", "--logging-policy", many), NOWHERE)


class Trained(Uniform):
    """A policy that was trained for decisions every 2 s."""

    schema = schema()


def test_a_trained_policy_is_refused_where_the_plan_is_another_than_it_was_trained_for() -> None:
    fitting = options("--logging-policy", f"{__name__}:Trained")
    assert make_setup(fitting, NOWHERE).policy == Trained()
    with pytest.raises(SetupError) as caught:
        make_setup(options("--logging-policy", f"epsilon:0.1:{__name__}:Trained", "--time-scale", "6"), NOWHERE)
    assert str(caught.value).splitlines() == [
        "policy epsilon:0.1:uniform does not fit to this run",
        (
            "  observation window: the policy was trained with 60 s of real time, here it is 10 s; a run with 60 s "
            "would fit (time scale and window_seconds decide it)"
        ),
        (
            "  decision interval: the policy was trained with 2 s of real time, here it is 0.333333 s; a run with 2 s "
            "would fit (time scale and --decision-interval decide it)"
        ),
    ]


class Mute:
    """A class that is no source."""

    def __init__(self, root: str) -> None:
        if root != "http://127.0.0.1:9":
            raise RuntimeError("another root")


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--logging-policy", "os:system", "policy os:system: could not be made (TypeError: "),
        ("--metrics-source", f"{__name__}:Mute", f"{__name__}:Mute: lacks describe, sample; a Mute cannot serve here"),
        ("--actuator", f"{__name__}:Mute", f"{__name__}:Mute: lacks describe, apply; a Mute cannot serve here"),
    ],
)
def test_a_part_of_ones_own_that_cannot_serve_is_refused(option: str, value: str, complaint: str) -> None:
    with pytest.raises(SetupError) as caught:
        make_setup(options(option, value), NOWHERE)
    assert complaint in str(caught.value)


def test_logs_that_cannot_be_written_are_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SetupError) as caught:
        make_setup(options("--logs", str(tmp_path / "file" / "logs")), NOWHERE)
    assert (
        str(caught.value)
        == f"--logs {tmp_path / 'file' / 'logs'}: cannot be made (Not a directory); choose another folder"
    )


def test_everything_wrong_is_said_at_once() -> None:
    wrong = options(
        "--user-scale", "0", "--logging-policy", "sticky:2", "--metrics-source", "none", "--actuator", "hedaer"
    )
    with pytest.raises(SetupError) as caught:
        make_setup(wrong, "localhost:8080")
    text = str(caught.value)
    assert "user_scale: 0 is not a number" in text
    assert "--host localhost:8080: not a URL of a web server" in text
    assert "sticky: keep is 2.0" in text
    assert "--actuator hedaer: is not a known name. Did you mean 'header'?" in text


def test_the_files_base_url_is_the_default_target() -> None:
    assert default_host(read_scenario_file(options())) == "http://localhost:8080/proxy"


def test_an_observing_run_has_no_logging_policy_of_ours() -> None:
    setup = make_setup(options("--actuator", "observe"), NOWHERE)
    assert (setup.facts["actuator"], setup.facts["logging_policy"]) == ("observe", "observed")
    assert "logging policy: observed, the balancer decides by itself" in setup.describe()


def test_a_logging_policy_beside_an_observing_actuator_is_refused() -> None:
    with pytest.raises(SetupError) as refused:
        make_setup(options("--actuator", "observe", "--logging-policy", "sticky:0.5"), NOWHERE)
    assert str(refused.value) == (
        "--logging-policy sticky:0.5: with --actuator observe the balancer decides by itself, and nothing is drawn; "
        "leave one of the two out"
    )


class Partial:
    """An actuator of a balancer that has four of the strategies."""

    missing_actions = frozenset({"circuit_breaker", "backpressure"})

    def __init__(self, root: str) -> None:
        del root

    def describe(self) -> str:
        return "partial"

    def apply(self, actions: Mapping[str, str]) -> None:
        assert not self.missing_actions & set(actions.values())


class Switch(Partial):
    """One with one switch for all services."""

    missing_actions = frozenset()
    one_for_all = True


class Nearly(Partial):
    missing_actions = frozenset({"circuit_braker"})


def test_what_a_balancer_lacks_is_told_before_the_run_and_in_its_manifest() -> None:
    setup = make_setup(options("--actuator", f"{__name__}:Partial"), NOWHERE)
    assert (
        "actions: least_loaded, fastest_response, round_robin, weighted_capacity; "
        "not in this balancer: circuit_breaker, backpressure" in setup.describe()
    )
    assert setup.facts["action_space"]["missing"] == ["circuit_breaker", "backpressure"]
    assert setup.facts["action_space"]["one_for_all"] is False
    assert make_setup(options(), NOWHERE).facts["action_space"]["missing"] == []


def test_one_switch_for_all_services_is_told_and_a_policy_that_looks_is_refused() -> None:
    setup = make_setup(options("--actuator", f"{__name__}:Switch"), NOWHERE)
    assert "one decision for all services: the balancer has one switch" in setup.describe()
    assert setup.facts["action_space"]["one_for_all"] is True


@pytest.mark.parametrize(
    ("actuator", "policy", "complaint"),
    [
        ("Partial", "backpressure", "fixed: there is no action 'backpressure'; there are least_loaded, "),
        ("Partial", "turns:uniform,circuit_breaker", "fixed: there is no action 'circuit_breaker'"),
        ("Nearly", "uniform", "Nearly: there is no action 'circuit_braker'; there are least_loaded, "),
    ],
)
def test_an_action_that_is_not_there_is_refused_before_the_run(actuator: str, policy: str, complaint: str) -> None:
    with pytest.raises(SetupError) as caught:
        make_setup(options("--actuator", f"{__name__}:{actuator}", "--logging-policy", policy), NOWHERE)
    assert complaint in str(caught.value)


class Small(Mute):
    """A source that knows two instances of each service, and one of the cart."""

    def __init__(self, root: str) -> None:
        del root

    def describe(self) -> str:
        return "small"

    def sample(self) -> Sample:
        nothing = (math.nan,) * 6
        seen = [InstanceSample(s, f"{SERVICES[s]}-{n}", *nothing, 0, 0, True) for s in range(5) for n in (1, 2)]
        return Sample(1, 2, tuple(one for one in seen if one.instance != "cart-service-2"))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "--action-space instances: the instances are not known (GET http://127.0.0.1:9/api/services: "),
        (
            ("--metrics-source", f"{__name__}:Small"),
            "--action-space instances: cart-service has 1 instances, 2 to 16 are needed",
        ),
        (("--actuator", f"{__name__}:Switch"), "instances are pinned by a header of each request, and --actuator"),
    ],
)
def test_instances_that_cannot_be_decided_among_are_refused(arguments: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(SetupError) as caught:
        make_setup(options("--action-space", "instances", *arguments), NOWHERE)
    assert complaint in str(caught.value)


def test_an_action_space_that_a_form_made_up_is_refused() -> None:
    asked = options()
    asked.action_space = "pods"
    with pytest.raises(SetupError, match="--action-space pods: must be one of strategies, instances"):
        make_setup(asked, NOWHERE)

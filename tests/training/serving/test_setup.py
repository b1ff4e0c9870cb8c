"""What is refused before anything is served: every reason at once, each with its way out."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rl_hooks.decision import SERVICES
from rl_hooks.observation import FEATURE_INDEX, FEATURES, OF_METRICS
from rl_hooks.policies.builtin import Uniform
from scenario.load import find_file, load_file
from scenario.plan import Plan
from tests.tiny_policy import schema
from training.serve import _parser
from training.serving.plan import plan_of_scenario, plan_of_schema
from training.serving.setup import ServeError, make_setup

ALL = ("--source", "sandbox", "--actuator", "sandbox", "--host", "http://127.0.0.1:9/proxy")
SCENARIO = ("--scenario-file", "quick_validation_config.yaml")


class Trained(Uniform):
    schema: Any = schema()


class Blind(Uniform):
    """A policy whose data had no metrics at all."""

    schema: Any = replace(
        schema(),
        normalization=replace(
            schema().normalization,
            mean=tuple(0.0 if feature.name in OF_METRICS else 0.5 for feature in FEATURES),
            std=tuple(1.0 if feature.name in OF_METRICS else 2.0 for feature in FEATURES),
        ),
    )


class Partial(Uniform):
    schema: Any = schema(slo_ms={"cart-service": 100.0})


class OwnReward(Uniform):
    """A policy that was trained with a reward of the team's own."""

    schema: Any = schema(reward_weights={**dict(schema().reward_weights), "within_slo": 0.5})


def options(*arguments: str) -> argparse.Namespace:
    return _parser().parse_args(arguments)


def refusal(*arguments: str) -> list[str]:
    with pytest.raises(ServeError) as caught:
        make_setup(options(*arguments))
    return str(caught.value).splitlines()


def test_a_trained_policy_brings_its_windows_slos_and_weights(tmp_path: Path) -> None:
    setup = make_setup(options(f"{__name__}:Trained", *ALL, "--requests", str(tmp_path / "log"), "--seed", "3"))
    plan = setup.plan
    assert (plan.window_s, plan.decision_interval_s, plan.seed) == (60.0, 2.0, 3)
    assert (dict(plan.slo_ms), dict(plan.scenario.reward_weights)) == (schema().slo_ms, schema().reward_weights)
    assert setup.limits.stale_after_s == 6.0
    assert [phase.name for phase in plan.phases] == ["serving"]
    assert plan.expected_service_rps_at(5.0) == dict.fromkeys(SERVICES, 0.0)
    assert Plan.from_json(plan.to_json()) == plan
    assert setup.describe()[1] == "target: http://127.0.0.1:9/proxy (metrics source sandbox, actuator sandbox)"


def test_a_policy_that_was_not_trained_takes_a_scenarios_and_may_go_without_a_log() -> None:
    setup = make_setup(options("uniform", *ALL, *SCENARIO))
    scenario = load_file(find_file(SCENARIO[1])).scenario()
    assert setup.plan.window_s == scenario.window_s
    assert setup.plan.slo_ms == scenario.service_slo_ms
    assert setup.limits == replace(setup.limits, samples=True, requests=False)
    assert "requests: no access log, features of requests are not known" in setup.describe()


def test_both_ways_to_a_plan_make_the_same_kind() -> None:
    scenario = load_file(find_file(SCENARIO[1])).scenario()
    one, other = plan_of_scenario(scenario, 1, 60.0), plan_of_schema(schema(), 1, float("inf"))
    assert one.duration_s == 60.0
    assert other.duration_s == 10 * 365 * 86_400
    assert one.phases[0].name == other.phases[0].name
    assert one.max_users_per_profile == other.max_users_per_profile == {}


def test_a_new_seed_every_time_unless_one_is_given() -> None:
    seeds = {make_setup(options("uniform", *ALL, *SCENARIO)).plan.seed for _ in range(5)}
    assert len(seeds) > 1


def test_a_trained_policy_is_not_served_without_what_it_was_trained_with() -> None:
    one, other = refusal(f"{__name__}:Trained", *ALL[2:], "--source", "none")
    names = [feature.name for feature in FEATURES if feature.source == "client"]
    assert one == (
        f"policy uniform was trained with {', '.join(names[:3])} and {len(names) - 3} more, which would be missing; "
        "give the balancer's access log with --requests FILE (docs/serving.md)"
    )
    assert other.endswith("which would be missing; name a metrics source with --source")


def test_metrics_that_a_policy_never_knew_are_not_asked_for(tmp_path: Path) -> None:
    given = ("--source", "none", "--requests", str(tmp_path / "log"))
    setup = make_setup(options(f"{__name__}:Blind", *ALL[2:], *given))
    assert not setup.limits.samples
    assert {"cpu_mean", "queue_max", "others_queue_sum"} <= set(OF_METRICS) <= set(FEATURE_INDEX)


class Four:
    """An actuator of a balancer that has four strategies."""

    missing_actions = frozenset({"circuit_breaker", "backpressure"})

    def __init__(self, root: str) -> None:
        del root

    def describe(self) -> str:
        return "four"

    def apply(self, actions: object) -> None:
        """Nothing is told."""


def test_a_balancer_without_some_strategies_is_served_among_the_others() -> None:
    at = ALL.index("--actuator") + 1
    parts = (*ALL[:at], f"{__name__}:Four", *ALL[at + 1 :], *SCENARIO)
    setup = make_setup(options("uniform", *parts, "--explore", "0.4", "--fallback", "round_robin"))
    for policy in (setup.policy, setup.explored(setup.policy), setup.explored(setup.fallback)):
        assert sum(policy.probabilities(None, None)[:4]) == pytest.approx(1)
    assert setup.facts["action_space"]["missing"] == ["circuit_breaker", "backpressure"]
    (complaint,) = refusal("uniform", *parts)
    assert complaint == (
        "--fallback backpressure: fixed: there is no action 'backpressure'; there are least_loaded, fastest_response, "
        "round_robin, weighted_capacity"
    )


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    numbers = ("--explore", "2", "--stale-after", "0", "--duration", "-1", "--metrics-port", "70000")
    parts = ("--source", "sandbocks", "--actuator", "header", "--requests", str(tmp_path), "--host", "nowhere")
    assert refusal("least_load", *parts, *numbers) == [
        "--explore 2: must be from 0 to 1, for example 0.1",
        "--stale-after 0: must be above 0, for example 6",
        "--duration -1: must be above 0, for example 3600",
        "--metrics-port 70000: must be from 0 (a free one) to 65535",
        "--host nowhere: not a URL of a web server; give one like http://localhost:8080/proxy",
        "--actuator header: there are no requests of ours to carry one; name what tells the balancer",
        (
            "policy least_load: is not a known name. Did you mean 'least_loaded'? Known are: backpressure, "
            "circuit_breaker, epsilon, fastest_response, least_loaded, onnx, round_robin, sticky, turns, uniform, "
            "weighted_capacity; or write module:attribute"
        ),
        (
            "--source sandbocks: is not a known name. Did you mean 'sandbox'? Known are: admin, envoy, none, orca, "
            "prometheus, sandbox, text; or write module:attribute"
        ),
        f"{tmp_path}: not a file; name the balancer's access log",
    ]


def test_what_needs_requests_of_ours_or_tells_the_balancer_nothing_cannot_serve() -> None:
    reasons = refusal(f"{__name__}:Blind", *ALL[2:], "--source", "orca", "--actuator", "observe")
    assert set(reasons) >= {
        "--source orca: lives on the answers to requests of ours, and there are none; name another",
        "--actuator observe: tells the balancer nothing, so no policy of ours can decide; name another",
    }


def test_a_policy_without_windows_needs_a_scenario_and_a_trained_one_a_fitting_one(tmp_path: Path) -> None:
    (reason,) = refusal("uniform", *ALL)
    assert reason.endswith("name a scenario that does with --scenario-file FILE")
    log = ("--requests", str(tmp_path / "log"))
    (reason,) = refusal(f"{__name__}:Partial", *ALL, *log)
    assert "has no SLO or reward weight of user-service, inventory-service" in reason
    scenario = tmp_path / "fast.yaml"
    text = find_file(SCENARIO[1]).read_text()
    assert "data_collection_interval_seconds: 3" in text
    scenario.write_text(text)
    head, reason = refusal(f"{__name__}:Trained", *ALL, *log, "--scenario-file", str(scenario))
    assert head == "policy uniform does not fit to this run"
    assert reason.startswith("  decision interval: the policy was trained with 2 s of real time, here it is 3 s")


def test_a_reward_of_ones_own_has_to_come_from_a_scenario(tmp_path: Path) -> None:
    (line,) = refusal(f"{__name__}:OwnReward", *ALL, "--requests", str(tmp_path / "log"))
    assert "was trained with rewards of one's own (within_slo), and its schema has no functions" in line
    assert "--scenario-file FILE" in line


class Pinning(Uniform):
    """A policy that was trained on data of pinned instances."""

    schema: Any = schema(actions=("instance_1", "instance_2", "instance_3"))


def test_a_policy_for_other_actions_is_refused_also_without_a_scenario(tmp_path: Path) -> None:
    said = refusal(f"{__name__}:Pinning", *ALL, "--requests", str(tmp_path / "log"))
    assert "uniform does not fit to this run" in said[0]
    assert "the policy chooses among instance_1, instance_2, instance_3; here they are least_loaded, " in said[1]

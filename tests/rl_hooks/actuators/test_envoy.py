"""Steering by Envoy's runtime: the keys, and a real Envoy whose routes ask for them."""

import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from rl_hooks.actuators.envoy import EnvoyActuator, runtime
from rl_hooks.actuators.named import make_actuator
from rl_hooks.control import ActuatorError
from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.parts import PartError
from scenario.errors import ScenarioError
from tests.processes import wait_until

DEFAULT = "round_robin"


@dataclass(frozen=True)
class Envoy:
    """A running Envoy."""

    url: str
    admin: str

    def applied(self, service: str, **headers: str) -> str:
        answer = requests.get(f"{self.url}/proxy/{service}/x", headers=headers, timeout=10)
        return answer.headers["X-LB-Action"]

    def actions(self) -> dict[str, str]:
        return {service: self.applied(service) for service in SERVICES}


def routes() -> Iterator[dict[str, Any]]:
    """The action of the request's header, else the one in force by the runtime, else the default."""
    for service in SERVICES:
        match = {"prefix": f"/proxy/{service}/"}
        for action in ACTIONS:
            asked = {"name": "x-rl-action", "string_match": {"exact": action}}
            yield route({**match, "headers": [asked]}, action)
        for action in ACTIONS:
            in_force = {"numerator": 100 if action == DEFAULT else 0, "denominator": "HUNDRED"}
            fraction = {"default_value": in_force, "runtime_key": f"rl.{service}.{action}"}
            yield route({**match, "runtime_fraction": fraction}, action)


def route(match: dict[str, Any], action: str) -> dict[str, Any]:
    return {
        "match": match,
        "direct_response": {"status": 200},
        "response_headers_to_add": [{"header": {"key": "X-LB-Action", "value": action}}],
    }


def config(folder: Path) -> dict[str, Any]:
    def listen() -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": 0}}

    types = "type.googleapis.com/envoy.extensions.filters"
    router = {"name": "router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}}
    hosts = [{"name": "shop", "domains": ["*"], "routes": list(routes())}]
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "shop",
        "http_filters": [router],
        "route_config": {"virtual_hosts": hosts},
    }
    filters = [{"name": "http", "typed_config": manager}]
    listener = {"name": "shop", "address": listen(), "filter_chains": [{"filters": filters}]}
    return {
        "admin": {"address": listen()},
        "static_resources": {"listeners": [listener]},
        "layered_runtime": {"layers": [{"name": "admin", "admin_layer": {}}]},
    }


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    program = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")
    if program is None:
        pytest.skip("there is no program `envoy`; install the extra `envoy`")
    folder = tmp_path_factory.mktemp("envoy")
    (folder / "envoy.yaml").write_text(yaml.safe_dump(config(folder)))
    admin = folder / "admin"
    command = [program, "-c", str(folder / "envoy.yaml"), "--concurrency", "1", "--disable-hot-restart"]
    command += ["--admin-address-path", str(admin), "--log-level", "warning"]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_until(lambda: process.poll() is not None or (admin.exists() and admin.read_text()), "Envoy is there")
            assert process.poll() is None, (folder / "log").read_text()
            url = f"http://{admin.read_text()}"
            wait_until(lambda: requests.get(f"{url}/ready", timeout=10).text.strip() == "LIVE", "Envoy is live")
            listeners = requests.get(f"{url}/listeners", timeout=10).text
            yield Envoy(f"http://{listeners.split('::')[1].strip()}", url)
        finally:
            process.terminate()
            process.wait(30)


def test_the_key_of_one_action_is_full_and_those_of_the_others_are_empty() -> None:
    for action in ACTIONS:
        keys = dict(runtime("cart-service", action))
        assert keys == {f"rl.cart-service.{name}": 100 * (name == action) for name in ACTIONS}


@pytest.mark.balancers
def test_a_real_envoy_does_what_was_decided_for_each_service(envoy: Envoy) -> None:
    assert set(envoy.actions().values()) == {DEFAULT}
    actuator = make_actuator("--actuator", f"envoy:{envoy.admin}/", None)
    for turn in range(len(ACTIONS)):
        wanted = {service: ACTIONS[(turn + index) % len(ACTIONS)] for index, service in enumerate(SERVICES)}
        actuator.apply(wanted)
        wait_until(lambda wanted=wanted: envoy.actions() == wanted, "the routes know the runtime")  # type: ignore[misc]
    assert actuator.describe() == f"envoy:{envoy.admin}/"


@pytest.mark.balancers
def test_a_request_that_asks_for_itself_goes_before_the_runtime(envoy: Envoy) -> None:
    EnvoyActuator("", envoy.admin).apply(dict.fromkeys(SERVICES, "backpressure"))
    wait_until(lambda: envoy.applied("cart-service") == "backpressure", "the routes know the runtime")
    assert envoy.applied("cart-service", **{"X-RL-Action": "least_loaded"}) == "least_loaded"
    assert envoy.applied("cart-service", **{"X-RL-Action": "who knows"}) == "backpressure"


@pytest.mark.balancers
def test_an_address_that_is_not_the_admin_interface_is_said(envoy: Envoy) -> None:
    with pytest.raises(ActuatorError, match=r"^POST .*/proxy/cart-service/runtime_modify: answered 200") as caught:
        EnvoyActuator("", f"{envoy.url}/proxy/cart-service").apply({"cart-service": "round_robin"})
    assert caught.value.services == set(SERVICES)


def test_an_envoy_that_is_away_is_said() -> None:
    with pytest.raises(ActuatorError, match=r"^POST http://127\.0\.0\.1:9/runtime_modify: no connection \(Conn"):
        EnvoyActuator("", "http://127.0.0.1:9").apply(dict.fromkeys(SERVICES, "round_robin"))


def test_what_envoy_refuses_is_said() -> None:
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(503)
            self.end_headers()
            self.wfile.write(b"No admin layer specified")

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(ActuatorError, match="answered 503 No admin layer specified"):
            EnvoyActuator("", f"http://127.0.0.1:{server.server_port}").apply({"cart-service": "round_robin"})
        thread.join(10)


@pytest.mark.parametrize("admin", ["9901", "127.0.0.1:9901", "http://", "http://h:port", "ftp://h:1", "http://h/?x=1"])
def test_what_is_no_address_is_refused(admin: str) -> None:
    with pytest.raises(PartError, match=f"{re.escape(admin)}: is no address.* Write for example envoy:http://"):
        make_actuator("--actuator", f"envoy:{admin}", None)


def test_a_login_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(ScenarioError, match="holds a user or a password") as caught:
        EnvoyActuator("", "http://me:s3cret@127.0.0.1:9901")
    assert "s3cret" not in str(caught.value)

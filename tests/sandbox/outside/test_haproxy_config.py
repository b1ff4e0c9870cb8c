"""HAProxy's configuration as text; `test_haproxy` has the laws of a real one."""

import re
from dataclasses import replace

import pytest

from rl_hooks.decision import ACTIONS
from sandbox.outside.haproxy.config import LUA_FILE, Server, haproxy_config
from sandbox.outside.haproxy.example import FOLDER, example, example_files
from sandbox.outside.haproxy.process import config_sha256
from sandbox.parameters import Parameters


def test_the_shipped_example_is_what_is_generated() -> None:
    shipped = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    assert shipped == example_files(), "write it anew: python -m sandbox.outside.haproxy.example"


def test_every_number_that_lua_asks_for_is_given_and_no_other() -> None:
    asked = set(re.findall(r"settings\.(\w+)", LUA_FILE.read_text(encoding="utf-8")))
    given = set(re.findall(r"setenv LB_(\w+)", haproxy_config(example()))) - {"SERVICES", "WORKERS"}
    assert {name.upper() for name in asked} == given


def test_every_action_has_a_strategy_in_lua() -> None:
    lua = LUA_FILE.read_text(encoding="utf-8")
    assert set(re.findall(r"^function strategies\.(\w+)", lua, re.MULTILINE)) == set(ACTIONS)


def test_a_service_has_one_backend_whatever_the_action() -> None:
    backends = re.findall(r"^backend (\S+)", haproxy_config(example()), re.MULTILINE)
    assert sorted(backends) == ["again", "cart-service", "control", "order-service", "unknown"]


def test_timeouts_are_those_of_the_parameters_in_milliseconds() -> None:
    text = haproxy_config(replace(example(), parameters=Parameters().scaled(10)))
    assert "timeout server 800ms" in text and "timeout queue 200ms" in text and "check inter 200ms" in text


def test_the_fingerprint_knows_numbers_and_names_but_no_addresses() -> None:
    layout = example()
    elsewhere = replace(example("/tmp/x"), listen="127.0.0.1:9000")
    moved = {
        name: [replace(one, address="127.0.0.1:1") for one in servers] for name, servers in layout.services.items()
    }
    assert config_sha256(replace(elsewhere, services=moved)) == config_sha256(layout)
    assert config_sha256(replace(layout, parameters=Parameters().scaled(2))) != config_sha256(layout)
    fewer = {"cart-service": [Server("cart-service-1", "192.0.2.11:8080", 2, 16)]}
    assert config_sha256(replace(layout, services=fewer)) != config_sha256(layout)


@pytest.mark.parametrize("control", [None, "127.0.0.1:9"])
def test_what_is_outside_of_proxy_goes_to_the_control_port_or_is_unknown(control: str | None) -> None:
    section = haproxy_config(replace(example(), control=control)).split("backend control from base\n")[1]
    assert ("server control 127.0.0.1:9" in section) == (control is not None)
    assert ("return status 404" in section) == (control is None)

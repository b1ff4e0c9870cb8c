"""A real Prometheus that scrapes a real sandbox."""

import http.server
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from rl_hooks.control import InstanceSample, Sample, SourceError
from rl_hooks.decision import SERVICES
from rl_hooks.sources.prometheus import PrometheusSource
from rl_hooks.sources.sandbox import SandboxSource
from tests.processes import Sandbox, sandbox_started, wait_until
from tests.scraping import needs_prometheus, prometheus_started, put_history

pytestmark = [pytest.mark.balancers, needs_prometheus]
ROOMY_S = 20.0  # what these tests let a sample take on a busy machine


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with sandbox_started("--healthy") as running:
        yield running


def place_of(sandbox: Sandbox) -> str:
    return sandbox.host.removeprefix("http://").removesuffix("/proxy")


def root_of(sandbox: Sandbox) -> str:
    return sandbox.host.removesuffix("/proxy")


@pytest.fixture(scope="module")
def url(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prometheus_started(tmp_path_factory.mktemp("prometheus"), {"sandbox": [place_of(sandbox)]}) as running:
        yield running


def roomy(argument: str) -> PrometheusSource:
    source = PrometheusSource(None, argument)
    source._limit_s = ROOMY_S
    return source


def plain(sample: Sample, without: tuple[str, ...]) -> dict[tuple[int, str], InstanceSample]:
    """The instances by name, less some fields."""
    none: dict[str, None] = dict.fromkeys(without)
    return {(one.service, one.instance): replace(one, **none) for one in sample.instances}  # type: ignore[arg-type]


def test_a_sample_says_what_the_sandbox_says_a_scrape_later(sandbox: Sandbox, url: str) -> None:
    """Every field that the sandbox exposes; an instance is down, so that not all of them are at rest."""
    for _ in range(30):
        requests.get(f"{sandbox.host}/inventory-service/api/inventory/search", params={"query": "a"}, timeout=10)
    fault = {"service": "cart-service", "instance": "cart-service-2", "kind": "crash", "duration_s": 600}
    requests.post(f"{root_of(sandbox)}/control/faults", json=fault, timeout=10).raise_for_status()
    source, state = roomy(url), SandboxSource(root_of(sandbox))
    unlike = ("capacity", "errors_total")  # not exposed; an instance without errors has no series of them

    def is_same() -> bool:
        mine, theirs = plain(source.sample(), unlike), plain(state.sample(), unlike)
        requests_told = {key: one.requests_total or 0 for key, one in mine.items()}
        mine = {key: replace(one, requests_total=requests_told[key]) for key, one in mine.items()}
        return mine == theirs

    wait_until(is_same, "the sample is the state")
    sample = source.sample()
    assert {one.service for one in sample.instances} == set(range(len(SERVICES)))
    down = [one for one in sample.instances if not one.up]
    assert [(one.instance, one.health) for one in down] == [("cart-service-2", 0.0)]
    assert sum(one.requests_total or 0 for one in sample.instances) >= 30


def test_no_value_is_of_a_time_to_come_and_samples_have_times_of_their_own(url: str) -> None:
    source, times = roomy(url), []
    for _ in range(30):
        asked_ns = time.time_ns()
        sample = source.sample()
        assert sample.t_ns <= asked_ns <= sample.received_ns
        times.append(sample.t_ns)
        time.sleep(0.05)
    assert sorted(set(times)) == times
    assert times[-1] - times[0] > 30  # newer values came, not only nanoseconds


def test_a_file_names_series_and_pins_their_job(sandbox: Sandbox, tmp_path: Path) -> None:
    """Scraped by two jobs, everything would count twice."""
    jobs = {"sandbox": [place_of(sandbox)], "again": [place_of(sandbox)]}
    with prometheus_started(tmp_path, jobs) as url:
        with pytest.raises(SourceError, match=r"series of several jobs would be added up \(again, sandbox\)"):
            roomy(url).sample()
        file = tmp_path / "metrics.yaml"
        pinned = "memory: {selector: 'sandbox_instance_memory_utilization{job=\"sandbox\"}'}"
        file.write_text(f"url: '{url}'\nscrape_interval_seconds: 1\nfields: {{{pinned}}}")
        assert {one.memory for one in roomy(str(file)).sample().instances} == {
            one.memory for one in SandboxSource(root_of(sandbox)).sample().instances
        }


@contextmanager
def pod() -> Iterator[http.server.ThreadingHTTPServer]:
    """A pod that exposes its CPU, and what else is in `more` of its server."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(b'process_cpu_usage{pod="cart-service-9"} 0.25\n')
            self.wfile.write(getattr(self.server, "more", b""))

        def log_message(self, *_: object) -> None:
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield running
    finally:
        running.shutdown()
        running.server_close()


def test_a_pod_that_dies_is_marked_then_gone_and_a_silent_prometheus_is_no_sample(tmp_path: Path) -> None:
    with sandbox_started("--healthy") as sandbox, pod() as dying:
        jobs = {"sandbox": [place_of(sandbox)], "pods": [f"127.0.0.1:{dying.server_port}"]}
        with prometheus_started(tmp_path, jobs) as url:
            file = tmp_path / "metrics.yaml"
            file.write_text(
                f"url: '{url}'\nscrape_interval_seconds: 1\nfields:\n"
                "  cpu: 'process_cpu_usage{job=\"pods\"}'\n"
                "  memory: 'sandbox_instance_memory_utilization{job=\"sandbox\"}'\n"
            )
            source = roomy(str(file))

            def cpu() -> float | None:
                """That of the pod; None: it is not in the sample."""
                return next((one.cpu for one in source.sample().instances if one.instance == "cart-service-9"), None)

            wait_until(lambda: cpu() == 0.25, "the pod is there")
            dying.shutdown()
            dying.server_close()
            marked = []
            wait_until(lambda: (now := cpu()) is None or (marked.append(math.isnan(now)) or False), "the pod is gone")
            assert marked[-1] is True  # missing before it was gone
            sandbox.process.kill()

            def is_silent() -> bool:
                try:
                    source.sample()
                except SourceError as error:
                    return "s old; look at its targets and its clock" in str(error)
                return False

            wait_until(is_silent, "the last values are stale")


MORE = b'lb_pod_active_requests{service="cart-service",pod="cart-service-9"} 3\n'


def test_names_that_come_during_a_run_are_read_from_then_on(tmp_path: Path) -> None:
    """A balancer that has sent nothing yet has no series of its pods."""
    with pod() as idle, prometheus_started(tmp_path, {"pods": [f"127.0.0.1:{idle.server_port}"]}) as url:
        source = roomy(url)
        (before,) = source.sample().instances
        assert before.cpu == 0.25
        assert math.isnan(before.in_flight)
        idle.more = MORE  # type: ignore[attr-defined]

        def in_flight() -> float:
            return next(one.in_flight for one in source.sample().instances)

        wait_until(lambda: in_flight() == 3, "the new name is read")


def test_each_run_is_asked_for_what_was_scraped_in_its_time(tmp_path: Path) -> None:
    """Several runs are filled by one command, and the first may have had fewer names than the next."""
    first_s, next_s, labels = 1_700_000_000, 1_700_007_200, '{service="cart-service",pod="cart-service-9",job="pods"}'
    lines = ["# TYPE lb_pod_active_requests gauge", f"lb_pod_active_requests{labels} 3 {next_s}.000"]
    lines += ["# TYPE process_cpu_usage gauge"]
    lines += [f"process_cpu_usage{labels} 0.5 {at_s}.000" for at_s in (first_s, next_s)]
    put_history(tmp_path, lines)
    with pod() as there, prometheus_started(tmp_path, {"pods": [f"127.0.0.1:{there.server_port}"]}) as url:
        source = PrometheusSource(None, url)
        names = []
        for at_s in (first_s, next_s):
            reading, found = source.history((at_s - 60) * 10**9, (at_s + 60) * 10**9)
            names.append([field.name for field in reading.fields if found[field.selector.text]])
    assert names == [["cpu"], ["cpu", "in_flight"]]

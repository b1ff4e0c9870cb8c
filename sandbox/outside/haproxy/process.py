"""HAProxy as a process: found, started in the foreground, told by its runtime socket, reloaded, ended by its pid."""

import hashlib
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from sandbox.outside.balancer import BalancerError, Endpoint, Setup
from sandbox.outside.child import Child
from sandbox.outside.haproxy.config import DEFAULT_ACTION, LUA_FILE, Layout, Server, actions_map, haproxy_config
from sandbox.parameters import Parameters

OLDEST = (2, 6)
"""The version of Debian 12. Older ones lack `http-after-response set-var-fmt` or dynamic `use-server`."""

START_S, ANSWER_S = 10.0, 5.0
_FALLBACK = "/usr/sbin/haproxy"  # not on the path of ordinary users


def start(setup: Setup) -> "HAProxy":
    """HAProxy in front of the endpoints; it listens on return. Raises BalancerError."""
    program = shutil.which("haproxy") or shutil.which(_FALLBACK)
    if program is None:
        raise BalancerError(
            "HAProxy is not installed (looked on PATH and for /usr/sbin/haproxy): apt install haproxy, or use another"
            " balancer, for example --balancer sandbox"
        )
    haproxy = HAProxy(program, _version(program), setup)
    try:
        haproxy.run()
    except BaseException:
        haproxy.stop()
        raise
    return haproxy


class HAProxy:
    """See `sandbox.outside.balancer.ExternalBalancer`."""

    def __init__(self, program: str, version: str, setup: Setup) -> None:
        self._program = program
        self._version = version
        self._folder = setup.folder
        self._layout = _layout(setup)
        self._actions = dict.fromkeys(self._layout.services, DEFAULT_ACTION)
        self._children: list[Child] = []  # the last one serves; those before answer what they had begun, and end
        self._pid = 0

    def describe(self) -> Mapping[str, str]:
        """See ExternalBalancer."""
        return {"kind": "haproxy", "version": self._version, "config_sha256": config_sha256(self._layout)}

    def lines(self) -> Sequence[str]:
        """See ExternalBalancer."""
        metrics = f"http://{self._layout.listen}/balancer/metrics"
        return [f"balancer: haproxy {self._version} metrics={metrics} configuration={self._folder}"]

    def set_actions(self, actions: Mapping[str, str]) -> None:
        """See ExternalBalancer."""
        self._actions.update(actions)
        name = self._folder / "actions.map"
        said = self._tell(";".join(f"set map {name} {service} {action}" for service, action in actions.items()))
        if said.strip():
            raise BalancerError(f"HAProxy did not take its actions: {said.strip()}")

    def set_world(self, parameters: Parameters, workers: Mapping[str, int]) -> None:
        """See ExternalBalancer. HAProxy is reloaded: another process takes the ports over and knows nothing."""
        services = {
            service: [replace(server, workers=workers[server.name]) for server in servers]
            for service, servers in self._layout.services.items()
        }
        self._layout = replace(self._layout, services=services, parameters=parameters)
        self.run()

    def ended(self) -> str | None:
        """See ExternalBalancer."""
        for child in self._children[:-1]:
            child.ended()  # whoever asks for its exit code also takes it out of the table of processes
        return self._children[-1].ended()

    def stop(self) -> None:
        """See ExternalBalancer."""
        for child in self._children:
            child.stop()

    def run(self) -> None:
        """Start a process with the present layout, in the place of the one that runs; it listens on return."""
        shutil.copyfile(LUA_FILE, self._folder / LUA_FILE.name)
        (self._folder / "actions.map").write_text(actions_map(self._actions), encoding="utf-8")
        (self._folder / "haproxy.cfg").write_text(haproxy_config(self._layout), encoding="utf-8")
        command = [self._program, "-db", "-f", str(self._folder / "haproxy.cfg")]
        command += ["-sf", str(self._pid)] if self._pid else []
        self._children.append(Child(command, self._folder / f"haproxy-{len(self._children) + 1}.log"))
        self._children[-1].wait_until(self._answers_anew, START_S, "HAProxy answers on its runtime socket")

    def _answers_anew(self) -> bool:
        """Another process than the one before has the runtime socket; it takes it over when it listens."""
        found = re.search(r"^Pid: (\d+)$", self._try("show info"), re.MULTILINE)
        if found is None or int(found[1]) == self._pid:
            return False
        self._pid = int(found[1])
        return True

    def _try(self, command: str) -> str:
        """What HAProxy answers; nothing when it does not listen yet."""
        try:
            return self._tell(command)
        except BalancerError:
            return ""

    def _tell(self, command: str) -> str:
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(ANSWER_S)
                sock.connect(str(self._folder / "runtime.sock"))
                sock.sendall(f"{command}\n".encode())
                return b"".join(iter(lambda: sock.recv(65536), b"")).decode()
        except OSError as error:
            raise BalancerError(f"HAProxy does not answer on its runtime socket: {error}") from error


def config_sha256(layout: Layout) -> str:
    """Of configuration and strategies, without hosts, ports and folders."""
    services = {
        service: [replace(server, address=server.name) for server in servers]
        for service, servers in layout.services.items()
    }
    control = None if layout.control is None else "control"
    text = haproxy_config(replace(layout, listen="listen", control=control, folder="folder", services=services))
    return hashlib.sha256(text.encode() + LUA_FILE.read_bytes()).hexdigest()


def _layout(setup: Setup) -> Layout:
    services = {
        service: [_server(endpoint, setup.workers[endpoint.instance]) for endpoint in endpoints]
        for service, endpoints in groupby(setup.endpoints, lambda endpoint: endpoint.service)
    }
    return Layout(
        _address(setup.host, setup.port),
        _address(setup.control_host, setup.control_port),
        str(setup.folder),
        services,
        setup.parameters,
    )


def _server(endpoint: Endpoint, workers: int) -> Server:
    return Server(endpoint.instance, _address(endpoint.host, endpoint.port), round(endpoint.capacity), workers)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _version(program: str) -> str:
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\d+)\.(\d+)\S*", said)
    if found is None:
        raise BalancerError(f"{program} -v does not tell a version of HAProxy: {said[:200]!r}")
    if (int(found[1]), int(found[2])) < OLDEST:
        raise BalancerError(
            f"{program} is HAProxy {found[0].removeprefix('version ')}; 2.6 or newer is needed, or another balancer"
        )
    return found[0].removeprefix("version ")

"""Several hosts on this machine: network namespaces behind one bridge, each with a name, an address and a wall clock.

Needs root and what `why_not` names. Time namespaces move only the monotonic clocks, so the wall clock of a host is made
by libfaketime, which leaves the monotonic clock alone here.
"""

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

FAKETIME = Path(f"/usr/lib/{os.uname().machine}-linux-gnu/faketime/libfaketimeMT.so.1")
_NAMED = 'hostname "$0" && exec "$@"'


def why_not(*, clocks: bool = False, loss: bool = False) -> str | None:
    """Why there can be no lab here; None when there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "unshare", *(("nft",) if loss else ())) if shutil.which(tool) is None]
    if missing:
        return f"network namespaces need {', '.join(missing)}"
    if clocks and not FAKETIME.exists():
        return "a wall clock of its own needs libfaketime"
    name = f"try{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"ip netns add: {tried.stderr.strip()}"
    _run("ip", "netns", "del", name)
    return None


class Lab:
    """Hosts by their names, from entering to leaving. This process reaches all of them over the bridge."""

    def __init__(self, *hosts: str) -> None:
        self._tag = f"lab{secrets.token_hex(3)}"  # links outlive their namespace for a moment
        self._net = f"10.{64 + os.getpid() % 64}.{os.getpid() // 64 % 256}"
        self._hosts = hosts

    def __enter__(self) -> "Lab":
        try:
            _run("ip", "link", "add", self._tag, "type", "bridge")
            _run("ip", "addr", "add", f"{self._net}.1/24", "dev", self._tag)
            _run("ip", "link", "set", self._tag, "up")
            for host in self._hosts:
                self._add(host)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in self._hosts:
            _run("ip", "link", "del", self._link(host), check=False)
            _run("ip", "netns", "del", self._namespace(host), check=False)
        _run("ip", "link", "del", self._tag, check=False)

    def address(self, host: str) -> str:
        return f"{self._net}.{10 + self._hosts.index(host)}"

    def on(self, host: str) -> tuple[str, ...]:
        """What goes before a command to run it there; the process keeps its number."""
        return ("ip", "netns", "exec", self._namespace(host), "unshare", "--uts", "sh", "-c", _NAMED, host)

    def cut(self, host: str) -> None:
        """Silence in both directions, without a reset."""
        _run("ip", "link", "set", self._link(host), "down")

    def heal(self, host: str) -> None:
        _run("ip", "link", "set", self._link(host), "up")

    def lose(self, host: str, percent: int) -> None:
        """Lose so many of all packets to and from a host."""
        chains = "".join(
            f"chain {hook} {{ type filter hook {hook} priority 0; numgen random mod 100 < {percent} drop; }}\n"
            for hook in ("input", "output")
        )
        _run(*self.on(host), "nft", "-f", "-", text=f"table inet lossy {{\n{chains}}}\n")

    def _add(self, host: str) -> None:
        inside = ("ip", "-n", self._namespace(host))
        _run("ip", "netns", "add", self._namespace(host))
        peer = ("peer", "name", "eth0", "netns", self._namespace(host))
        _run("ip", "link", "add", self._link(host), "type", "veth", *peer)
        _run("ip", "link", "set", self._link(host), "master", self._tag, "up")
        _run(*inside, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            _run(*inside, "link", "set", device, "up")

    def _namespace(self, host: str) -> str:
        return f"{self._tag}-{host}"

    def _link(self, host: str) -> str:
        return f"{self._tag}v{self._hosts.index(host)}"


class WallClock:
    """The wall clock of processes that are started with `env`; it can be set while they run."""

    def __init__(self, file: Path, ahead_s: float) -> None:
        self._file = file
        self.set(ahead_s)

    @property
    def env(self) -> Mapping[str, str]:
        return {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, ahead_s: float) -> None:
        beside = self._file.with_suffix(".new")
        beside.write_text(f"{ahead_s:+.3f}\n")
        beside.replace(self._file)


def _run(*command: str, text: str | None = None, check: bool = True) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"

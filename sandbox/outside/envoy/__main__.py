"""`python -m sandbox.outside.envoy`: the same configuration for a cluster of one's own, in one file.

    python -m sandbox.outside.envoy --instances instances.txt --listen 0.0.0.0:8080 > envoy.yaml
    envoy -c envoy.yaml --concurrency 1

Without --instances it has addresses of the documentation (192.0.2.0/24): the example in deploy/envoy.
"""

import argparse
import ipaddress
import sys
from collections.abc import Sequence
from pathlib import Path

from rl_hooks.decision import SERVICES
from sandbox.outside.balancer import Endpoint
from sandbox.outside.envoy import config
from sandbox.parameters import CAPACITY_WEIGHTS, Parameters

FORM = "<service> <instance> <IP address> <port> <capacity>, such as: cart-service cart-1 10.0.3.17 8080 2"
ADMIN_PORT = 9901
COMMENT = """\
# Envoy as a load balancer that keeps the contract lb-contract/1, written by `python -m sandbox.outside.envoy`.
# Start it with --concurrency 1: its Lua keeps one table of the instances for all six actions.
# The edge in front of it has to strip X-RL-Action and X-LB-Pin. The admin interface asks nobody: keep it on loopback.
"""


class InstancesError(ValueError):
    """Instances that cannot be used; `problems` are all that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the configuration; the exit code: 2 when the instances or the address cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.outside.envoy", description="Print Envoy's configuration.")
    parser.add_argument("--instances", metavar="FILE", help=f"one a line: {FORM}")
    parser.add_argument("--listen", metavar="IP:PORT", default="0.0.0.0:8080", help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        endpoints = EXAMPLE
        if options.instances is not None:
            endpoints = read_instances(Path(options.instances).read_text(encoding="utf-8"))
        host, _, port = options.listen.rpartition(":")
        listen = str(ipaddress.ip_address(host.strip("[]"))), _port(port)
    except InstancesError as error:
        lines = "\n".join(f"  {problem}" for problem in error.problems)
        print(f"--instances {options.instances}: each line has to be {FORM}\n{lines}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"--instances {options.instances}: cannot be read ({error.strerror})", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"--listen {options.listen}: {error}; give an address like 0.0.0.0:8080", file=sys.stderr)
        return 2
    print(text_of(endpoints, *listen), end="")
    return 0


def text_of(endpoints: Sequence[Endpoint], host: str, port: int) -> str:
    """The file: at the speed of real services, with the admin interface on loopback."""
    place = config.Place(endpoints, host, port, "127.0.0.1", ADMIN_PORT, None)
    return COMMENT + config.to_yaml(config.static(place, Parameters()))


def read_instances(text: str) -> list[Endpoint]:
    """Instances, one a line, in the order in which they take turns. Raises InstancesError."""
    found, problems = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            found.append(_endpoint(line.split()))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    names = [one.instance for one in found]
    problems += [f"{name}: is there twice" for name in sorted({name for name in names if names.count(name) > 1})]
    problems += [f"{service}: has no instance" for service in SERVICES if all(one.service != service for one in found)]
    if problems:
        raise InstancesError(problems)
    return found


def _endpoint(words: list[str]) -> Endpoint:
    if len(words) != 5:
        raise ValueError(f"has {len(words)} words instead of 5")
    service, name, host, port, capacity = words
    if service not in SERVICES:
        raise ValueError(f"{service}: must be one of {', '.join(SERVICES)}")
    if not 0.0 < float(capacity) < 1e6:
        raise ValueError(f"capacity {capacity}: must be above 0")
    return Endpoint(service, name, str(ipaddress.ip_address(host)), _port(port), float(capacity))


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError(f"port {text}: must be from 1 to 65535")
    return int(text)


EXAMPLE = [
    Endpoint(service, f"{service}-{number}", f"192.0.2.{10 * row + number}", 8080, float(capacity))
    for row, service in enumerate(SERVICES, 1)
    for number, capacity in enumerate(CAPACITY_WEIGHTS, 1)
]

if __name__ == "__main__":
    sys.exit(main())

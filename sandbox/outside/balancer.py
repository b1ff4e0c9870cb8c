"""What a balancer outside of the sandbox is to it: a process that listens, is told actions, and ends.

    shoppers --> ExternalBalancer (host:port) --+-- /proxy/<service>/... --> instances, each on a port of its own
                                                '-- everything else -------> the sandbox's control port

An adapter starts the real program (`sandbox.outside.envoy`, `sandbox.outside.haproxy`) and tells it three things: where
the instances listen, which action a service has where a request asks for none, and how fast the model's time runs.
All methods may block for as long as they say; the sandbox calls them beside its event loop.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sandbox.parameters import Parameters


class BalancerError(Exception):
    """The balancer cannot be started, or does not do as it is told; the text is for the person who runs it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one instance listens."""

    service: str
    instance: str
    host: str
    port: int
    capacity: float  # declared, relative to the other instances of the service


@dataclass(frozen=True, slots=True)
class Setup:
    """All a balancer is started with."""

    endpoints: Sequence[Endpoint]  # by service, in the order of their number
    host: str  # where it listens for shoppers
    port: int
    control_host: str  # where the sandbox answers what is not under /proxy/
    control_port: int
    parameters: Parameters  # scaled: timeouts, health checks and breakers are what the sandbox's own balancer has
    workers: Mapping[str, int]  # by instance; another load brings others
    folder: Path  # for its files; it is there, empty, and removed in the end


class ExternalBalancer(Protocol):
    """A balancer that runs. Made by a function of a `Setup` that returns when it listens (`Starter`)."""

    def describe(self) -> Mapping[str, str]:
        """kind ("envoy"), version ("1.40.0") and config_sha256: of its configuration without hosts and ports, so that
        the same balancer of the same sandbox has the same one in every run."""

    def lines(self) -> Sequence[str]:
        """What a person should know about it, as where its admin interface is; printed when it is ready."""

    def set_actions(self, actions: Mapping[str, str]) -> None:
        """The own action of some services, from now on; it is in force on return, within 5 s. Raises BalancerError."""

    def set_world(self, parameters: Parameters, workers: Mapping[str, int]) -> None:
        """Another world is on, on the same ports: take its timeouts, and forget what was learned about the instances.
        In force on return, within 10 s. Raises BalancerError."""

    def ended(self) -> str | None:
        """None while it runs, else how it ended and its last words."""

    def stop(self) -> None:
        """End it by its process id, within 5 s; no error when it has ended."""


Starter = Callable[[Setup], ExternalBalancer]
"""Starts a balancer; returns when it serves, within 20 s. Raises BalancerError, also when the program is not there."""

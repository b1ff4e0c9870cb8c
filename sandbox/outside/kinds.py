"""The balancers that `python -m sandbox --balancer` can start, by name. Each is loaded only when it is asked for."""

from importlib import import_module

from sandbox.outside.balancer import Starter

OWN = "sandbox"
"""The sandbox's own balancer, in its own process: none of these."""

_MODULES = {
    "envoy": "sandbox.outside.envoy.process",
    "haproxy": "sandbox.outside.haproxy.process",
}
KINDS = tuple(_MODULES)


def starter(kind: str) -> Starter:
    """What starts a balancer of this kind: the function `start` of its module."""
    start: Starter = import_module(_MODULES[kind]).start
    return start

"""Steering by request header: every request carries the action in force, so there is nothing to tell the balancer."""

from collections.abc import Mapping


class HeaderActuator:
    def __init__(self, root: str) -> None:
        del root  # the interface of all actuators; the header goes with the requests themselves

    def describe(self) -> str:
        return "header"

    def apply(self, actions: Mapping[str, str]) -> None:
        """Nothing: the users read the decision in force when they send."""


BUILTIN = {
    "header": "rl_hooks.actuators.header:HeaderActuator",
    "sandbox": "rl_hooks.actuators.sandbox:SandboxActuator",
    "http": "rl_hooks.actuators.http:HttpActuator",
    "envoy": "rl_hooks.actuators.envoy:EnvoyActuator",
    "observe": "rl_hooks.actuators.observe:ObserveActuator",
}
"""Short names for `--actuator`."""

WITH_ARGUMENT: dict[str, str] = {
    "http": "configs/actuators/spring.yaml",
    "envoy": "http://127.0.0.1:9901",
}
"""Those of them that need an argument behind a colon, each with an example."""

_ARGUMENTS = {"http": "FILE", "envoy": "URL"}

FORMS = {name: f"{name}:{_ARGUMENTS[name]}" if name in WITH_ARGUMENT else name for name in BUILTIN}
"""How each of them is named, for help texts."""

"""An actuator of a balancer that has four strategies and one switch for all services, here played by the sandbox."""

from collections.abc import Mapping

from rl_hooks.actuators.sandbox import SandboxActuator
from rl_hooks.control import ActuatorError


class OneSwitch(SandboxActuator):
    missing_actions = frozenset({"circuit_breaker", "backpressure"})
    one_for_all = True

    def describe(self) -> str:
        return "one switch"

    def apply(self, actions: Mapping[str, str]) -> None:
        """Raises ActuatorError when the services are to have different actions, or one that is missing."""
        (action,) = {*actions.values()} if len({*actions.values()}) == 1 else ("",)
        if not action or action in self.missing_actions:
            raise ActuatorError(f"cannot do {actions}")
        super().apply(actions)

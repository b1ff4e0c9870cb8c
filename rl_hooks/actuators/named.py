"""Actuators by name: short names, or `module:attribute` of one of your own, which is given the balancer's root."""

from rl_hooks.actuators.header import BUILTIN, WITH_ARGUMENT
from rl_hooks.control import Actuator
from rl_hooks.parts import make_target_part


def make_actuator(option: str, name: str, root: str | None) -> Actuator:
    """The actuator that `option` names. PartError when it cannot be."""
    made: Actuator = make_target_part(f"{option} {name}", name, BUILTIN, WITH_ARGUMENT, ("describe", "apply"), root)
    return made

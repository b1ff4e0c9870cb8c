"""Actuators by name: short names, or `module:attribute` of one of your own, which is given the balancer's root."""

from rl_hooks.action_space import ActionSpace, ActionSpaceError, strategies
from rl_hooks.actuators.header import BUILTIN, WITH_ARGUMENT
from rl_hooks.control import Actuator
from rl_hooks.parts import PartError, make_target_part
from scenario.errors import ScenarioError


def make_actuator(option: str, name: str, root: str | None) -> Actuator:
    """The actuator that `option` names. PartError when it cannot be."""
    place, methods = f"{option} {name}", ("describe", "apply")
    try:
        made: Actuator = make_target_part(place, name, BUILTIN, WITH_ARGUMENT, methods, root, passes=(ScenarioError,))
    except ScenarioError as error:
        raise PartError(f"{place}: cannot be used. {error}") from error
    return made


def space_of(place: str, actuator: Actuator) -> ActionSpace:
    """The strategies that the balancer behind an actuator has. `place` begins the lines of a PartError."""
    try:
        missing = getattr(actuator, "missing_actions", frozenset[str]())
        return strategies(missing, one_for_all=bool(getattr(actuator, "one_for_all", False)))
    except ActionSpaceError as error:
        raise PartError("\n".join(f"{place}: {line}" for line in str(error).splitlines())) from error

"""What makes faults in a target, and how one is named: `sandbox`, `http:FILE`, `command:FILE` or `module:attribute`."""

from collections.abc import Sequence
from typing import Protocol

from rl_hooks.parts import PartError, make_target_part
from scenario.faults import PlanFault

NONE = "none"
BUILTIN = {
    "sandbox": "rl_hooks.faults.sandbox:SandboxInjector",
    "http": "rl_hooks.faults.http:HttpInjector",
    "command": "rl_hooks.faults.command:CommandInjector",
}
"""Short names for `--fault-injector`."""
_WITH_ARGUMENT = {"http": "faults.yaml", "command": "faults.yaml"}
_METHODS = ("describe", "problems", "apply", "lift")


class InjectorError(Exception):
    """An injector that cannot be made, or a fault that it could not apply or lift; the message says why."""


class Injector(Protocol):
    """Makes faults inside the instances of a target and takes them back. One is made per process."""

    def describe(self) -> str: ...

    def problems(self, faults: Sequence[PlanFault]) -> list[str]:
        """Why it cannot make some of these faults, each with its way out; asked before a run starts."""

    def apply(self, fault: PlanFault) -> str:
        """The fault acts from now on. Returns what `lift` needs to find it again. Raises InjectorError."""

    def lift(self, fault: PlanFault, handle: str) -> None:
        """The fault acts no more; also for one that is over already. Raises InjectorError."""


def make_injector(text: str, root: str) -> Injector | None:
    """The injector that `text` names for the target at `root`; None for `none`. Raises InjectorError."""
    if text == NONE:
        return None
    place = f"--fault-injector {text}"
    try:
        injector: Injector = make_target_part(
            place, text, BUILTIN, _WITH_ARGUMENT, _METHODS, root, passes=(InjectorError,)
        )
    except PartError as error:
        raise InjectorError(str(error)) from error
    return injector

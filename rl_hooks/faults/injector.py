"""What makes faults in a target, and how one is named: `sandbox`, `http:FILE`, `command:FILE` or `module:attribute`."""

from collections.abc import Sequence
from typing import Protocol

from scenario.errors import ScenarioError
from scenario.faults import PlanFault
from scenario.refs import resolve

NONE = "none"
BUILTIN = {
    "sandbox": "rl_hooks.faults.sandbox:SandboxInjector",
    "http": "rl_hooks.faults.http:HttpInjector",
    "command": "rl_hooks.faults.command:CommandInjector",
}
"""Short names for `--fault-injector`."""
_WITH_FILE = ("http", "command")
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
    name, colon, file = text.partition(":")
    option = "--fault-injector"
    if name in _WITH_FILE and not file:
        raise InjectorError(f"{option} {text}: needs a file with its templates, as in {name}:faults.yaml")
    reference = name if name in BUILTIN and (not colon or name in _WITH_FILE) else text
    try:
        made = resolve(reference, BUILTIN)
    except ScenarioError as error:
        (problem,) = error.problems
        raise InjectorError(f"{option} {text}: {problem.text}. {problem.way_out}") from error
    if not callable(made):
        raise InjectorError(f"{option} {text}: is a {type(made).__name__}; name a class or a function that makes one")
    try:
        injector: Injector = made(root, file) if name in _WITH_FILE else made(root)
    except InjectorError:
        raise
    except Exception as error:  # somebody else's code: whatever it raises is said, and nothing is started
        raise InjectorError(f"{option} {text}: could not be made ({type(error).__name__}: {error})") from error
    lacking = [method for method in _METHODS if not callable(getattr(injector, method, None))]
    if lacking:
        raise InjectorError(f"{option} {text}: lacks {', '.join(lacking)}; a {type(injector).__name__} cannot serve")
    return injector

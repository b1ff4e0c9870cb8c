"""Names of things in configuration: a short name of a built-in, or `module:attribute` of anything else."""

import importlib
import re
from collections.abc import Mapping

from scenario.errors import Problem, ScenarioError, did_you_mean, show, suggestion

_DOTTED = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
_REFERENCE = re.compile(rf"({_DOTTED}):({_DOTTED})")


def resolve(reference: str, builtins: Mapping[str, str]) -> object:
    """The object that `reference` names. `builtins` gives the `module:attribute` of every short name.

    Raises ScenarioError when there is none. What a module raises by itself while it is imported is passed on.
    """
    target = builtins.get(reference, reference)
    match = _REFERENCE.fullmatch(target)
    if match is None:
        if not builtins:
            raise _error(reference, "names nothing", "Write module:attribute, as in my_module:Something")
        way_out = f"{suggestion(reference, builtins)}; or write module:attribute"
        raise _error(reference, "is not a known name", way_out)
    module_name, attribute = match.groups()
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there; something it needs is not
        way_out = "Check the spelling, and that it is installed or in the folder you start from"
        raise _error(reference, f"there is no module {error.name}", way_out) from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            close = did_you_mean(part, (name for name in dir(found) if not name.startswith("_")))
            way_out = f"Did you mean {show(close)}?" if close else f"Define {part} there"
            raise _error(reference, f"{module_name} has no {part}", way_out)
        found = getattr(found, part)
    return found


def _error(reference: str, text: str, way_out: str) -> ScenarioError:
    return ScenarioError("reference", [Problem(show(reference), text, way_out)])

"""Sources by name: short names, or `module:attribute` of one of your own, which is given the balancer's root."""

from rl_hooks.control import Source
from rl_hooks.parts import PartError, make_target_part
from rl_hooks.sources.none import BUILTIN, WITH_ARGUMENT


def make_source(option: str, name: str, root: str | None) -> Source:
    """The source of metrics that `option` names. PartError when it cannot be."""
    made: Source = make_target_part(f"{option} {name}", name, BUILTIN, WITH_ARGUMENT, ("describe", "sample"), root)
    if getattr(made, "reads_responses", False) and not callable(getattr(made, "push_reports", None)):
        raise PartError(f"{option} {name}: reads responses (reads_responses), but lacks push_reports to be given them")
    return made

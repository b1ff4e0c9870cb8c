"""Sources by name: short names, or `module:attribute` of one of your own, which is given the balancer's root."""

from rl_hooks.control import Source, SourceError
from rl_hooks.parts import PartError, make_target_part
from rl_hooks.sources.none import BUILTIN, WITH_ARGUMENT


def make_source(option: str, name: str, root: str | None) -> Source:
    """The source of metrics that `option` names. PartError when it cannot be."""
    place, needed = f"{option} {name}", ("describe", "sample")
    try:
        made: Source = make_target_part(place, name, BUILTIN, WITH_ARGUMENT, needed, root, passes=(SourceError,))
    except SourceError as error:
        raise PartError(f"{place}: {error}") from error
    if getattr(made, "reads_responses", False) and not callable(getattr(made, "push_reports", None)):
        raise PartError(f"{place}: reads responses (reads_responses), but lacks push_reports to be given them")
    return made

"""Sources by name: short names, or `module:attribute` of one of your own, which is given the balancer's root."""

from rl_hooks.control import Source
from rl_hooks.parts import make_part
from rl_hooks.sources.none import BUILTIN


def make_source(option: str, name: str, root: str | None) -> Source:
    """The source of metrics that `option` names. PartError when it cannot be."""
    made: Source = make_part(f"{option} {name}", name, BUILTIN, ("describe", "sample"), root)
    return made

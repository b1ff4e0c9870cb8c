"""No metrics: only what the responses tell. The observation's balancer features are then missing, not zero."""

from rl_hooks.control import Sample


class NoSource:
    def __init__(self, root: str) -> None:
        del root  # the interface of all sources; there is nothing to ask

    def describe(self) -> str:
        return "none"

    def sample(self) -> Sample | None:
        return None


BUILTIN = {"sandbox": "rl_hooks.sources.sandbox:SandboxSource", "none": "rl_hooks.sources.none:NoSource"}
"""Short names for `--metrics-source`."""

WITH_ARGUMENT: dict[str, str] = {}
"""Those of them that need an argument behind a colon, each with an example."""

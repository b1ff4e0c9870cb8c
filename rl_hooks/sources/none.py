"""No metrics: only what the responses tell. The observation's balancer features are then missing, not zero."""

from rl_hooks.control import Sample


class NoSource:
    def __init__(self, root: str) -> None:
        del root  # the interface of all sources; there is nothing to ask

    def describe(self) -> str:
        return "none"

    def sample(self) -> Sample | None:
        return None


BUILTIN = {
    "sandbox": "rl_hooks.sources.sandbox:SandboxSource",
    "none": "rl_hooks.sources.none:NoSource",
    "admin": "rl_hooks.sources.admin:AdminSource",
    "envoy": "rl_hooks.sources.envoy:EnvoySource",
    "orca": "rl_hooks.sources.orca:OrcaSource",
    "prometheus": "rl_hooks.sources.prometheus:PrometheusSource",
    "text": "rl_hooks.sources.text:TextSource",
}
"""Short names for `--metrics-source`."""

WITH_ARGUMENT: dict[str, str] = {
    "envoy": "http://127.0.0.1:9901",
    "prometheus": "http://127.0.0.1:9090",
    "text": "http://127.0.0.1:8080/metrics",
}
"""Those of them that need an argument behind a colon, each with an example."""

FORMS = ", ".join(f"{name}:..." if name in WITH_ARGUMENT else name for name in BUILTIN)
"""What can be named, for help texts."""

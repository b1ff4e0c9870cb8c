"""The example for a cluster: two services with three instances each, as `deploy/haproxy` has it.

python -m sandbox.outside.haproxy.example            writes deploy/haproxy/haproxy.cfg and actions.map
"""

from pathlib import Path

from sandbox.outside.haproxy.config import DEFAULT_ACTION, Layout, Server, actions_map, haproxy_config
from sandbox.parameters import Parameters

FOLDER = Path(__file__).parents[3] / "deploy" / "haproxy"


def example(folder: str = "/etc/haproxy") -> Layout:
    """Addresses of the range for documentation; workers and weights are what the instances have."""
    return Layout(
        listen=":8080",
        control=None,
        folder=folder,
        services={
            "cart-service": [
                Server("cart-service-1", "192.0.2.11:8080", 2, 16),
                Server("cart-service-2", "192.0.2.12:8080", 1, 8),
                Server("cart-service-3", "192.0.2.13:8080", 1, 8),
            ],
            "order-service": [
                Server("order-service-1", "192.0.2.21:8080", 1, 8),
                Server("order-service-2", "192.0.2.22:8080", 1, 8),
                Server("order-service-3", "192.0.2.23:8080", 1, 8),
            ],
        },
        parameters=Parameters(),
    )


def example_files(folder: str = "/etc/haproxy") -> dict[str, str]:
    """Texts by file name; `strategies.lua` goes beside them."""
    layout = example(folder)
    return {
        "haproxy.cfg": haproxy_config(layout),
        "actions.map": actions_map(dict.fromkeys(layout.services, DEFAULT_ACTION)),
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in example_files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Which instances each service has, before a run that decides among them."""

from collections.abc import Mapping, Sequence
from typing import Any

import requests

from rl_hooks.control import Source, SourceError
from rl_hooks.decision import SERVICES

LISTED_AT = "/api/services"  # of a balancer with an admin API
TIMEOUT_S = 2.0


def known_instances(source: Source, root: str) -> Mapping[str, Sequence[str]]:
    """service -> names of its instances: from the metrics source, or from the balancer's list without one.

    Raises SourceError when neither tells.
    """
    sample = source.sample()
    if sample is None:
        return listed_instances(root)
    found: dict[str, list[str]] = {service: [] for service in SERVICES}
    for instance in sample.instances:
        found[SERVICES[instance.service]].append(instance.instance)
    return found


def listed_instances(root: str) -> Mapping[str, Sequence[str]]:
    """The same from the balancer's admin API. Raises SourceError."""
    url = f"{root}{LISTED_AT}"
    try:
        answer = requests.get(url, timeout=TIMEOUT_S)
        answer.raise_for_status()
        return parse_services(answer.json())
    except (requests.RequestException, ValueError) as error:
        raise SourceError(f"GET {url}: {error}") from error


def parse_services(services: Any) -> dict[str, list[str]]:
    """Turn the JSON of the list into names. Raises ValueError when it has another form.

    >>> parse_services([{"name": "cart-service", "instances": [{"instanceName": "cart-1", "healthy": True}]}])
    {'cart-service': ['cart-1']}
    """
    try:
        found = {one["name"]: [instance["instanceName"] for instance in one["instances"]] for one in services}
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a list of services with instances ({type(error).__name__}: {error})") from error
    if not all(isinstance(name, str) and name for names in found.values() for name in names):
        raise ValueError("not a list of services with instances (an instance without a name)")
    return {service: names for service, names in found.items() if service in SERVICES}

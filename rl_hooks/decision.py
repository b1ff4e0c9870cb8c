"""The contract with the load balancer: its six actions, the five services, and the headers that carry both.

The names and the header contract (lb-contract/1) are what any balancer has to keep to be steered and understood.
`write_request` and `read_request` undo each other, and so do `write_response` and `read_response`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

ACTIONS = (
    "least_loaded",
    "fastest_response",
    "round_robin",
    "weighted_capacity",
    "circuit_breaker",
    "backpressure",
)
"""The balancer's actions. The position is the action's number in every table and bundle."""

SERVICES = ("user-service", "inventory-service", "cart-service", "order-service", "payment-service")
"""The services of the shop. The position is the service's number in every table and bundle."""

MOST_ACTIONS = 16
"""As many as a decision can be made among: instances of a service, for the strategies are fewer."""

ACTION_INDEX: Mapping[str, int] = {name: index for index, name in enumerate(ACTIONS)}
SERVICE_INDEX: Mapping[str, int] = {name: index for index, name in enumerate(SERVICES)}

REQUEST_ACTION = "X-RL-Action"
REQUEST_PIN = "X-LB-Pin"
RESPONSE_ACTION = "X-LB-Action"
RESPONSE_INSTANCE = "X-LB-Instance"
RESPONSE_UPSTREAM_US = "X-LB-Upstream-Us"
RESPONSE_QUEUE_MS = "X-LB-Queue-Ms"
RESPONSE_PROPENSITY = "X-LB-Propensity"
RESPONSE_POLICY = "X-LB-Policy"
RESPONSE_DECISION_ID = "X-LB-Decision-Id"
RESPONSE_LOAD = "endpoint-load-metrics"
"""An instance's own load report (ORCA); what it means is its reader's business."""
NO_INSTANCE = "-"
HOUR_US = 3_600_000_000
_POLICY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:;,/+@()=-]{0,127}")


@dataclass(frozen=True, slots=True)
class Served:
    """What the balancer says it did with one request. `None`: it did not say."""

    action: str | None
    instance: str | None  # None also when no instance was contacted
    upstream_us: int | None
    queue_us: int | None


def write_request(action: str | None) -> dict[str, str]:
    """The request headers that ask for `action`; none at all when the balancer shall use its own."""
    return {} if action is None else {REQUEST_ACTION: action}


def read_request(headers: Mapping[str, str]) -> str | None:
    """The action a request asks for, or None when it asks for none or for one that does not exist."""
    asked = headers.get(REQUEST_ACTION)
    return asked if asked in ACTION_INDEX else None


def write_response(served: Served) -> dict[str, str]:
    """The response headers that tell what was done. Action and instance are always there, the rest where known."""
    headers = {RESPONSE_ACTION: served.action or "", RESPONSE_INSTANCE: served.instance or NO_INSTANCE}
    if served.upstream_us is not None:
        headers[RESPONSE_UPSTREAM_US] = str(served.upstream_us)
    if served.queue_us is not None:
        headers[RESPONSE_QUEUE_MS] = f"{served.queue_us / 1000:.3f}"
    return headers


def read_response(headers: Mapping[str, str]) -> Served:
    """What the response headers tell; anything absent or not readable is None, never a guess."""
    action = headers.get(RESPONSE_ACTION)
    instance = headers.get(RESPONSE_INSTANCE)
    return Served(
        action=action if action in ACTION_INDEX else None,
        instance=None if instance in (None, "", NO_INSTANCE) else instance,
        upstream_us=read_us(headers.get(RESPONSE_UPSTREAM_US), 1),
        queue_us=read_us(headers.get(RESPONSE_QUEUE_MS), 1000),
    )


def one_value(given: object) -> str | None:
    """The value of a header that is there once, or several times with one value; None where nobody can tell.

    >>> one_value("round_robin"), one_value(["round_robin"] * 2), one_value(["round_robin", "least_loaded"])
    ('round_robin', 'round_robin', None)
    """
    if isinstance(given, list) and len(set(given)) == 1:
        given = given[0]
    return given if isinstance(given, str) else None


def read_us(text: str | None, unit_us: int) -> int | None:
    """The microseconds a header states in units of `unit_us`; None when there is none or it makes no sense.

    A header from the network is never trusted: only finite values from 0 up to an hour count.
    """
    if text is None:
        return None
    try:
        value_us = float(text) * unit_us
    except ValueError:
        return None
    return round(value_us) if 0 <= value_us <= HOUR_US else None


def read_propensity(text: object) -> float | None:
    """The probability that a balancer which decides by itself gave its action; None when it makes no sense.

    >>> [read_propensity(text) for text in ("0.25", "1", "0", "1.5", "nan", "often", None)]
    [0.25, 1.0, None, None, None, None, None]
    """
    if not isinstance(text, str):
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value <= 1 else None


def read_policy(text: object) -> str | None:
    """The name of the policy that decided; None when there is none or it is not a plain name of at most 128 letters."""
    return text if isinstance(text, str) and _POLICY_NAME.fullmatch(text) else None

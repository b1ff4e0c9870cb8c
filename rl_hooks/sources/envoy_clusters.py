"""Envoy's `/clusters?format=json` as instances. Pure.

A cluster belongs to the service that its name begins with; a service may have several, one per action, and what an
instance has in them is added up. Zero values are left out of Envoy's JSON: a gauge without a value is 0, not missing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rl_hooks.control import InstanceSample
from rl_hooks.sources.series import service_of

_FAILING = ("failed_active_health_check", "failed_outlier_check", "failed_active_degraded_check")
_DRAINED = ("UNHEALTHY", "TIMEOUT", "DRAINING")
_LARGEST = 2.0**53


@dataclass
class _Host:
    in_flight: float = 0.0
    requests: float = 0.0
    errors: float = 0.0
    up: bool = False  # some cluster sends to it
    weight: float = 0.0


def parse_clusters(content: Any) -> tuple[InstanceSample, ...]:
    """The instances of our services, by the name of their host or else their address. Raises ValueError.

    In flight is `rq_active`; requests that wait in Envoy wait for a cluster and not for an instance, so the queue is
    missing. Health is whether Envoy sends to the instance: 1 or 0.
    """
    hosts: dict[tuple[int, str], _Host] = {}
    try:
        for cluster in content.get("cluster_statuses", []):
            service = service_of(str(cluster["name"]))
            if service is not None:
                for status in cluster.get("host_statuses", []):
                    _add(hosts.setdefault((service, _name(status)), _Host()), status)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not the clusters of an Envoy ({type(error).__name__}: {error})") from error
    return tuple(_instance(*key, host) for key, host in sorted(hosts.items()))


def _name(status: Mapping[str, Any]) -> str:
    if status.get("hostname"):
        return str(status["hostname"])
    address = status["address"]["socket_address"]
    return f"{address['address']}:{address['port_value']}"


def _add(host: _Host, status: Mapping[str, Any]) -> None:
    stats = {str(one["name"]): _number(one.get("value", 0)) for one in status.get("stats", [])}
    host.in_flight += stats.get("rq_active", 0.0)
    host.requests += stats.get("rq_total", 0.0)
    host.errors += stats.get("rq_error", 0.0)
    health = status.get("health_status") or {}
    failing = any(health.get(flag) is True for flag in _FAILING) or health.get("eds_health_status") in _DRAINED
    host.up |= not failing
    host.weight = max(host.weight, _number(status.get("weight", 0)))


def _number(value: Any) -> float:
    """Envoy writes numbers of 64 bits as text. NaN for what is no count."""
    number = math.nan if isinstance(value, bool) else float(value)
    return number if 0 <= number <= _LARGEST else math.nan


def _instance(service: int, name: str, host: _Host) -> InstanceSample:
    return InstanceSample(
        service=service,
        instance=name,
        cpu=math.nan,
        memory=math.nan,
        health=float(host.up),
        queue_depth=math.nan,
        in_flight=host.in_flight,
        capacity=host.weight if host.weight > 0 else math.nan,
        requests_total=None if math.isnan(host.requests) else int(host.requests),
        errors_total=None if math.isnan(host.errors) else int(host.errors),
        up=host.up,
    )

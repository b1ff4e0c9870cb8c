"""Answers of a balancer's admin API: which instances there are, and what it says about each. Pure.

    GET /api/services             [{name, instances: [{instanceName, healthy, ...}], ...}]
    GET /api/metrics/{service}    {instance: {cpuUsagePercent, jvmMemoryUsagePercent, ...}}

Its response times, error rates and request rates are left alone: such balancers give means over the life of a pod.
"""

import math
from collections.abc import Mapping
from typing import Any

from rl_hooks.control import InstanceSample
from rl_hooks.decision import SERVICE_INDEX, SERVICES


def parse_services(content: Any) -> dict[int, dict[str, bool | None]]:
    """Service -> instance -> whether the balancer calls it healthy, None: it does not say. Raises ValueError.

    Services that are not ours are left out.
    """
    try:
        return {
            SERVICE_INDEX[one["name"]]: {
                str(instance["instanceName"]): healthy if isinstance(healthy := instance.get("healthy"), bool) else None
                for instance in one["instances"]
            }
            for one in content
            if one["name"] in SERVICE_INDEX
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a list of services with instances ({type(error).__name__}: {error})") from error


def parse_metrics(content: Any) -> dict[str, tuple[float, float]]:
    """Instance -> CPU and memory utilization, NaN for what is not within 0 to 100 percent. Raises ValueError.

    >>> parse_metrics({"cart-service-1": {"cpuUsagePercent": 25.0, "jvmMemoryUsagePercent": -1}})
    {'cart-service-1': (0.25, nan)}
    """
    if not isinstance(content, Mapping) or not all(isinstance(one, Mapping) for one in content.values()):
        raise ValueError("not the metrics of instances by their names")
    return {
        str(name): (_share(one.get("cpuUsagePercent")), _share(one.get("jvmMemoryUsagePercent")))
        for name, one in content.items()
    }


def instances_of(
    services: Mapping[int, Mapping[str, bool | None]], metrics: Mapping[int, Mapping[str, tuple[float, float]]]
) -> tuple[InstanceSample, ...]:
    """What both answers say; a service that is not in `metrics` gave none, and an instance may be in either only.

    Health is what the balancer says of it: 1 or 0.
    """
    found = []
    for service in range(len(SERVICES)):
        told, measured = services.get(service, {}), metrics.get(service, {})
        for name in sorted(told.keys() | measured.keys()):
            healthy = told.get(name)
            cpu, memory = measured.get(name, (math.nan, math.nan))
            found.append(
                InstanceSample(
                    service=service,
                    instance=name,
                    cpu=cpu,
                    memory=memory,
                    health=math.nan if healthy is None else float(healthy),
                    queue_depth=math.nan,
                    in_flight=math.nan,
                    capacity=math.nan,
                    requests_total=None,
                    errors_total=None,
                    up=healthy,
                )
            )
    return tuple(found)


def _share(percent: Any) -> float:
    known = isinstance(percent, int | float) and not isinstance(percent, bool) and 0 <= percent <= 100
    return percent / 100 if known else math.nan

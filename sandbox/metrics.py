"""What the sandbox shows of itself: /state, /metrics, /api/services and /api/metrics/{service}."""

from collections.abc import Callable, Iterator, Mapping

from rl_hooks.version import VERSION
from sandbox.backend import LATENCY_BOUNDS_S, Backend
from sandbox.balancer import Balancer
from sandbox.proxy import HEALTH_PATH
from sandbox.world import World

Gauge = tuple[str, str, Callable[[Backend], float]]
"""Name, help, and how it is read."""

OWN_BALANCER = {"kind": "sandbox", "version": VERSION, "config_sha256": None}
"""The sandbox's own balancer in `/state`: it has no configuration, its numbers are in `parameters`."""


def state(world: World, t_unix_ns: int, client_requests: int) -> dict[str, object]:
    """The JSON of GET /state: per service the control action, and per instance what a balancer can know."""
    now_s = world.clock.now()
    return {
        "t_unix_ns": t_unix_ns,
        "balancer": OWN_BALANCER,
        "client_requests_total": client_requests,
        "services": _services_state(world, lambda backend: _instance_state(backend, now_s)),
    }


def outside_state(world: World, t_unix_ns: int, balancer: Mapping[str, str]) -> dict[str, object]:
    """The same behind a balancer that is a process of its own. What only that knows is missing: how many requests
    clients made, breakers, latencies as it sees them. `in_flight` and the totals are what the instance itself has
    counted, calls between services and further attempts included."""
    return {
        "t_unix_ns": t_unix_ns,
        "balancer": balancer,
        "services": _services_state(world, _own_state),
    }


def _services_state(world: World, of: Callable[[Backend], dict[str, object]]) -> dict[str, object]:
    return {
        service: {
            "action": balancer.action,
            "instances": {backend.name: of(backend) for backend in balancer.backends},
        }
        for service, balancer in world.balancers.items()
    }


def _own_state(backend: Backend) -> dict[str, object]:
    instance = backend.instance
    return {
        "cpu": round(instance.cpu(), 4),
        "memory": round(instance.memory(), 4),
        "queue_depth": instance.queue_depth,
        "in_flight": instance.in_flight,
        "health": round(instance.health(), 4),
        "up": instance.up,
        "capacity": backend.capacity,
        "requests_total": backend.requests_total,
        "errors_total": backend.errors_total,
    }


def _instance_state(backend: Backend, now_s: float) -> dict[str, object]:
    ewma_s = backend.peak_ewma_s
    return {
        **_own_state(backend),
        "in_flight": backend.in_flight,
        "breaker": backend.breaker.state(now_s),
        "latency_ewma_ms": None if ewma_s is None else round(ewma_s * 1000, 3),
    }


def services(world: World, base_url: str) -> list[dict[str, object]]:
    """The JSON of GET /api/services."""
    return [_service(service, balancer, base_url) for service, balancer in world.balancers.items()]


def _service(service: str, balancer: Balancer, base_url: str) -> dict[str, object]:
    url = f"{base_url}/{service}"
    instances = [
        {
            "serviceName": service,
            "instanceName": backend.name,
            "url": url,
            "healthUrl": url + HEALTH_PATH,
            "healthy": backend.healthy,
        }
        for backend in balancer.backends
    ]
    healthy = sum(backend.healthy for backend in balancer.backends)
    return {"name": service, "instances": instances, "healthyInstances": healthy, "totalInstances": len(instances)}


def service_metrics(balancer: Balancer, now_s: float) -> dict[str, dict[str, float]]:
    """The JSON of GET /api/metrics/{service}; rates and means are recent ones (half-life 5 nominal seconds)."""
    return {backend.name: _pod_metrics(backend, now_s) for backend in balancer.backends}


def _pod_metrics(backend: Backend, now_s: float) -> dict[str, float]:
    recent = backend.recent_total.value(now_s)
    mean_s = backend.recent_latency_s.value(now_s) / recent if recent > 0.01 else 0.0
    error_rate = backend.recent_errors.value(now_s) / recent if recent > 0.01 else 0.0
    return {
        "cpuUsagePercent": round(100 * backend.instance.cpu(), 2),
        "jvmMemoryUsagePercent": round(100 * backend.instance.memory(), 2),
        "uptimeSeconds": round(backend.instance.uptime_s(), 3),
        "avgResponseTimeMs": round(1000 * mean_s, 3),
        "errorRatePercent": round(100 * error_rate, 2),
        "requestRatePerSecond": round(backend.recent_total.rate(now_s), 3),
    }


def prometheus(world: World) -> str:
    """The text of GET /metrics. Code 499: the client went away; 502: refused or reset; 504: timed out."""
    return "\n".join(_prometheus_lines(world)) + "\n"


def outside_prometheus(world: World) -> str:
    """The same behind a balancer that is a process of its own and has its own metrics: what the instances know."""
    return "\n".join(_outside_lines(world)) + "\n"


def _outside_lines(world: World) -> Iterator[str]:
    pods = _pods(world)
    yield "# HELP sandbox_instance_requests_total Requests by instance and code of its answer; 502: it died."
    yield "# TYPE sandbox_instance_requests_total counter"
    for labels, backend in pods:
        for (_, code), count in sorted(backend.codes.items()):
            yield f'sandbox_instance_requests_total{{{labels},code="{code}"}} {count}'
    yield from _gauge_lines(pods, (_IN_FLIGHT, *_INSTANCE_GAUGES))


def _pods(world: World) -> list[tuple[str, Backend]]:
    return [
        (f'service="{service}",pod="{backend.name}"', backend)
        for service, balancer in world.balancers.items()
        for backend in balancer.backends
    ]


def _prometheus_lines(world: World) -> Iterator[str]:
    pods = _pods(world)
    yield "# HELP lb_pod_requests_total Requests by instance, the action that chose it, and the code of its answer."
    yield "# TYPE lb_pod_requests_total counter"
    for labels, backend in pods:
        for (action, code), count in sorted(backend.codes.items()):
            yield f'lb_pod_requests_total{{{labels},action="{action}",code="{code}"}} {count}'
    for service, balancer in world.balancers.items():
        for (action, code), count in sorted(balancer.refused_codes.items()):
            yield f'lb_pod_requests_total{{service="{service}",pod="-",action="{action}",code="{code}"}} {count}'
    yield "# HELP lb_pod_response_time_seconds Time at the instance as the balancer sees it."
    yield "# TYPE lb_pod_response_time_seconds histogram"
    for labels, backend in pods:
        yield from _histogram_lines(labels, backend)
    yield from _gauge_lines(pods, (_ACTIVE, *_INSTANCE_GAUGES))


def _gauge_lines(pods: list[tuple[str, Backend]], gauges: tuple[Gauge, ...]) -> Iterator[str]:
    for name, help_text, read in gauges:
        yield f"# HELP {name} {help_text}"
        yield f"# TYPE {name} gauge"
        for labels, backend in pods:
            yield f"{name}{{{labels}}} {read(backend):.6g}"


def _histogram_lines(labels: str, backend: Backend) -> Iterator[str]:
    total = 0
    for bound, count in zip((*LATENCY_BOUNDS_S, "+Inf"), backend.histogram, strict=True):
        total += count
        yield f'lb_pod_response_time_seconds_bucket{{{labels},le="{bound}"}} {total}'
    yield f"lb_pod_response_time_seconds_sum{{{labels}}} {backend.latency_sum_s:.9g}"
    yield f"lb_pod_response_time_seconds_count{{{labels}}} {total}"


_ACTIVE: Gauge = ("lb_pod_active_requests", "Requests in flight, as the balancer counts them.", lambda b: b.in_flight)
_IN_FLIGHT: Gauge = ("sandbox_instance_in_flight", "Requests inside the instance.", lambda b: b.instance.in_flight)
_INSTANCE_GAUGES: tuple[Gauge, ...] = (
    ("sandbox_instance_cpu_utilization", "CPU utilization over the last second, 0 to 1.", lambda b: b.instance.cpu()),
    ("sandbox_instance_memory_utilization", "Memory utilization, 0 to 1.", lambda b: b.instance.memory()),
    ("sandbox_instance_queue_depth", "Requests waiting for a worker.", lambda b: b.instance.queue_depth),
    ("sandbox_instance_health", "Health score, 0 to 1.", lambda b: b.instance.health()),
    ("sandbox_instance_up", "1 when it listens.", lambda b: int(b.instance.up)),
)

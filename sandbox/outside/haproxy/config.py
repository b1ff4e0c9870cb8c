"""HAProxy's configuration, made from what a cluster has: services, their instances, and the numbers of the strategies.

Text in, text out. The strategies are `strategies.lua` beside this file; see its head for how the two work together.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rl_hooks.decision import (
    ACTIONS,
    NO_INSTANCE,
    REQUEST_ACTION,
    REQUEST_PIN,
    RESPONSE_ACTION,
    RESPONSE_INSTANCE,
    RESPONSE_QUEUE_MS,
    RESPONSE_UPSTREAM_US,
)
from sandbox.parameters import Parameters

LUA_FILE = Path(__file__).with_name("strategies.lua")
DEFAULT_ACTION = "round_robin"
"""What a service does until somebody asks for something else."""

_METHODS = ("GET", "POST", "PUT", "DELETE")
_HEALTH_PATH = "/actuator/health"

_SETTINGS = (
    *("probe_after_s", "peak_ewma_decay_s", "short_queue_per_worker", "request_timeout_s", "queue_timeout_s"),
    *("breaker_consecutive", "breaker_error_rate", "breaker_min_requests", "breaker_window_half_life_s"),
    *("breaker_open_s", "breaker_open_max_s", "breaker_probes", "retry_earn", "retry_saved_max"),
)
"""Parameters that strategies.lua needs, by their names here and there."""


@dataclass(frozen=True, slots=True)
class Server:
    """One instance of a service, as the balancer is told."""

    name: str
    address: str  # host:port
    weight: int  # declared capacity, relative to the others of the service
    workers: int  # requests it works on at once


@dataclass(frozen=True, slots=True)
class Layout:
    """All that the configuration depends on. Times in `parameters` are real seconds."""

    listen: str  # host:port for clients
    control: str | None  # host:port that answers everything outside /proxy/; None: 404
    folder: str  # with strategies.lua and actions.map, and where the sockets are made
    services: Mapping[str, Sequence[Server]]
    parameters: Parameters


def actions_map(actions: Mapping[str, str]) -> str:
    """The text of actions.map: the strategy of a service where no header asks for one.

    >>> actions_map({"cart-service": "least_loaded"})
    'cart-service least_loaded\\n'
    """
    return "".join(f"{service} {action}\n" for service, action in actions.items())


def haproxy_config(layout: Layout) -> str:
    """The text of haproxy.cfg."""
    sections = [
        _global(layout),
        _defaults(layout.parameters),
        _frontend_shop(layout),
        _again(layout),
        *(_service(layout, service, servers) for service, servers in layout.services.items()),
        _unknown(),
        _control(layout),
    ]
    return "\n".join(sections)


# -- Sections ----------------------------------------------------------------------------------------------------------


def _global(layout: Layout) -> str:
    numbers = "\n".join(f"    setenv LB_{name.upper()} {getattr(layout.parameters, name):.6g}" for name in _SETTINGS)
    every = [server for servers in layout.services.values() for server in servers]
    workers = ",".join(f"{server.name}={server.workers}" for server in every)
    return f"""\
# lb-contract/1 on HAProxy 2.6 and later. The strategies are in strategies.lua: one state of the instances for all six.
# Not for a public edge: whoever sends a request chooses its strategy (X-RL-Action) and even its instance (X-LB-Pin).
#
# Switch a service's own strategy while it runs:
#     echo "set map {layout.folder}/actions.map cart-service least_loaded" | socat stdio {layout.folder}/runtime.sock

global
    # One thread: the choice and HAProxy's counters never disagree.
    nbthread 1
    maxconn 4000
    # After a reload the process before it ends at the latest then.
    hard-stop-after 10s
    stats socket {layout.folder}/runtime.sock mode 600 level admin
    # For strategies.lua; times are in seconds.
    setenv LB_SERVICES {",".join(layout.services)}
    setenv LB_WORKERS {workers}
{numbers}
    lua-load {layout.folder}/strategies.lua
"""


def _defaults(parameters: Parameters) -> str:
    return f"""\
defaults base
    mode http
    timeout client 75s
    timeout http-request 10s
    timeout http-keep-alive 75s
    timeout connect {_ms(min(1.0, parameters.request_timeout_s))}
    timeout queue {_ms(parameters.queue_timeout_s)}
    timeout server {_ms(parameters.request_timeout_s)}
    # A client that goes away is no longer in flight anywhere.
    option abortonclose
    # Retries are the circuit breaker's alone, see the backend `again`.
    retries 0
    http-error status 500 {_json('{"error":"The balancer failed"}')}
    http-error status 502 {_json(_FAILED.format(why="connection reset by %[var(txn.server)]"))}
    http-error status 503 {_json(_FAILED.format(why="connection refused by %[var(txn.server)]"))}
    http-error status 504 {_json(_FAILED.format(why="timeout, no answer of %[var(txn.server)] in time"))}

# What clients are told, on HAProxy's own answers too.
defaults contract from base
    http-after-response set-var-fmt(txn.waited_ms) %Tw
    http-after-response set-var(txn.flags) lua.account if {{ var(txn.shop) -m found }}
    http-after-response set-status 425 if {{ var(txn.flags) -m str retry }}
{_contract_headers()}
"""


def _contract_headers() -> str:
    """Rules that write the headers of the contract, unless the inner pass of `again` did so already."""
    own = "if { var(txn.shop) -m found } !{ var(txn.inner) -m found }"
    headers = (
        (RESPONSE_ACTION, "txn.action", DEFAULT_ACTION),
        (RESPONSE_INSTANCE, "txn.server", NO_INSTANCE),
        (RESPONSE_UPSTREAM_US, "txn.upstream_us", "0"),
        (RESPONSE_QUEUE_MS, "txn.queue_ms", "0"),
        ("X-LB-Inflight", "txn.in_flight", "0"),
        ("X-LB-Attempts", "txn.attempts", "0"),
        ("X-LB-Flags", "txn.flags", "-"),
    )
    lines = []
    for name, variable, otherwise in headers:
        lines.append(f"    http-after-response set-header {name} {otherwise} {own}")
        lines.append(
            f"    http-after-response set-header {name} %[var({variable})] {own} {{ var({variable}) -m found }}"
        )
    lines.append("    http-after-response set-header X-Trace-Id %[var(txn.trace)] if { var(txn.trace) -m found }")
    return "\n".join(lines)


def _reading(layout: Layout) -> str:
    """Rules that read a request under /proxy/."""
    asks = f"{{ req.hdr({REQUEST_ACTION}) -m found }}"
    known = f"{{ req.hdr({REQUEST_ACTION}) -m str {' '.join(ACTIONS)} }}"
    pinned = f"{{ req.hdr({REQUEST_PIN}) -m found }}"
    return f"""\
    http-request set-var(txn.shop) bool(true) if {{ path_beg /proxy/ }}
    http-request set-var(txn.service) path,field(3,/)
    http-request set-var(txn.action) var(txn.service),map({layout.folder}/actions.map,{DEFAULT_ACTION})
    http-request set-var(txn.action) req.hdr({REQUEST_ACTION}) if {known}
    http-request set-var(txn.unknown_action) bool(true) if {asks} !{known}
    http-request set-var(txn.pin) req.hdr({REQUEST_PIN}) if {pinned}
    http-request set-var(txn.trace) req.hdr(X-Trace-Id) if {{ req.hdr(X-Trace-Id) -m reg ^[0-9a-f]{{32}}$ }}"""


def _frontend_shop(layout: Layout) -> str:
    allow = ", ".join(_METHODS)
    error = _json(f'{{"error":"Method not allowed: use {allow}"}}')
    other_method = f"!{{ method {' '.join(_METHODS)} }}"
    return f"""\
frontend shop from contract
    bind {layout.listen}
{_reading(layout)}
    http-request return status 405 {error} hdr Allow "{allow}" if {{ var(txn.shop) -m found }} {other_method}
    # The metrics of the contract, and those that HAProxy has itself.
    http-request use-service lua.metrics if {{ path /balancer/metrics }}
    http-request use-service prometheus-exporter if {{ path /haproxy/metrics }}
    use_backend control if !{{ var(txn.shop) -m found }}
    use_backend unknown if !{{ var(txn.service) -m str {" ".join(layout.services)} }}
    use_backend again if {{ var(txn.action) -m str circuit_breaker }} !{{ var(txn.pin) -m found }}
    use_backend %[var(txn.service)]
"""


def _again(layout: Layout) -> str:
    return f"""\
# circuit_breaker retries on another instance. Such requests pass through HAProxy twice: the inner pass chooses anew
# for every attempt, and says 425 when another one shall be made; the outer pass repeats the request on 425 only.
backend again from base
    retries 2
    retry-on 425
    timeout server {_ms(2 * layout.parameters.request_timeout_s)}
    http-request set-header X-LB-Again %rt
    http-response set-var(txn.inner) bool(true)
    server self unix@{layout.folder}/again.sock

frontend inner from contract
    bind unix@{layout.folder}/again.sock mode 600
    http-request set-var(txn.again) req.hdr(X-LB-Again)
    http-request del-header X-LB-Again
{_reading(layout)}
    use_backend %[var(txn.service)]
"""


def _service(layout: Layout, service: str, servers: Sequence[Server]) -> str:
    parameters = layout.parameters
    every = _ms(parameters.health_check_every_s)
    is_health = f"{{ method GET }} {{ var(txn.path) -m str {_HEALTH_PATH} }}"
    up = _json(f'{{"status":"UP","service":"{service}"}}')
    none = _json(f'{{"error":"No healthy instances available for service: {service}"}}')
    shed = _json(f'{{"error":"All instances of {service} have long queues: request shed"}}')
    open_ = _json(f'{{"error":"The circuit breakers of all instances of {service} are open"}}')
    later = f"hdr Retry-After {parameters.retry_after}"
    lines = [
        f"backend {service} from base",
        r"    http-request replace-path /proxy/[^/]*(/.*)? \1",
        "    http-request set-var(txn.path) path",
        f"    http-request return status 503 {none} if {is_health} {{ nbsrv eq 0 }}",
        f"    http-request return status 200 {up} if {is_health}",
        "    http-request lua.choose",
        f"    http-request return status 503 {none} if {{ var(txn.refusal) -m str no_healthy_instance }}",
        f"    http-request return status 503 {shed} {later} if {{ var(txn.refusal) -m str shed }}",
        f"    http-request return status 503 {open_} {later} if {{ var(txn.refusal) -m str breaker_open }}",
        "    http-request set-timeout server var(txn.left_ms)",
        f"    http-request del-header {REQUEST_ACTION}",
        f"    http-request del-header {REQUEST_PIN}",
        "    http-response set-var(txn.heard) bool(true)",
        "    # What Lua chose holds, also a pinned instance that is down.",
        "    option persist",
        "    use-server %[var(txn.server)] if { var(txn.server) -m found }",
        f"    default-server check inter {every} fall {parameters.health_check_failures} rise 1",
        "    # maxconn: as much as an instance takes; what is more waits here and not there, at most `timeout queue`.",
    ]
    for server in servers:
        room = server.workers * (1 + parameters.queue_per_worker)
        lines.append(f"    server {server.name} {server.address} weight {server.weight} maxconn {room}")
    return "\n".join(lines) + "\n"


def _unknown() -> str:
    error = _json('{"error":"No healthy instances available for service: %[var(txn.service),json(utf8s)]"}')
    return f"""\
backend unknown from base
    http-request return status 503 {error}
"""


def _control(layout: Layout) -> str:
    if layout.control is None:
        error = _json('{"error":"not found: the shop is under /proxy/<service>/"}')
        return f"""\
backend control from base
    http-request return status 404 {error}
"""
    return f"""\
# Everything that is no request of a shopper.
backend control from base
    timeout server 60s
    server control {layout.control}
"""


# -- Words -------------------------------------------------------------------------------------------------------------

_FAILED = '{{"error":"Failed to forward request: {why}"}}'


def _json(body: str) -> str:
    """A body in an answer of HAProxy's own; it may contain %[...]."""
    assert json.loads(body.replace("%[", "[")), body
    return f"content-type application/json lf-string '{body}'"


def _ms(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"

"""Envoy's configuration, made of a few functions over plain dictionaries. Pure: no file, no process.

    request -> route by X-RL-Action, else by the service's own action (runtime key `rl.<service>.<action>`)
            -> Lua (`pick.lua`): which instance, from one table for all actions
            -> cluster: `<service>`, or `<service>.circuit_breaker` with outlier detection, retries and a budget

Why not one cluster per action with Envoy's own policies: each would count its own requests in flight only, and choose
by a third of the truth. So the choice is ours, in Lua, and what Envoy does itself is everything else: health checks,
ejection, retries, timeouts, connections. A chosen instance that Envoy holds for sick is not used: Envoy then takes
another one, in turn.

The service's own action, for requests that ask for none, is the one whose runtime key is 100; the keys of the others
are 0, and when all are, it is round_robin. `POST <admin>/runtime_modify?rl.cart-service.least_loaded=100&...` sets it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rl_hooks.decision import ACTIONS, REQUEST_ACTION
from sandbox.outside.balancer import Endpoint
from sandbox.parameters import Parameters

Json = dict[str, Any]

BREAKER = "circuit_breaker"
DEFAULT_ACTION = "round_robin"
METADATA = "envoy.filters.http.lua"
"""Where Lua finds what a route says; the name of its filter."""

ROUTES, CLUSTERS = "shop", "clusters"
CONTROL = "sandbox-control"
UNLIMITED = 1_000_000
"""Envoy breaks circuits at 1024 requests of a cluster unless told otherwise: a hidden seventh strategy."""

UPSTREAM_IDLE_S = 60
"""Below the 75 s after which an instance closes an idle connection, so that no request meets a closing one."""

HEALTH_PATH = "/actuator/health"
LUA = Path(__file__).with_name("pick.lua")


@dataclass(frozen=True, slots=True)
class Place:
    """Where Envoy listens and what is behind it."""

    endpoints: Sequence[Endpoint]
    host: str
    port: int
    admin_host: str
    admin_port: int  # 0: a free one
    control: tuple[str, int] | None  # host and port of what is not under /proxy/; None: there is no such thing


def runtime(actions: Mapping[str, str]) -> dict[str, int]:
    """The runtime keys that make these the services' own actions.

    >>> {key: value for key, value in runtime({"cart-service": "backpressure"}).items() if value}
    {'rl.cart-service.backpressure': 100}
    """
    return {
        f"rl.{service}.{action}": 100 if action == own else 0 for service, own in actions.items() for action in ACTIONS
    }


# -- the whole --------------------------------------------------------------------------------------------------------


def static(place: Place, parameters: Parameters) -> Json:
    """Everything in one file, for a cluster of one's own."""
    listener = _listener(place, parameters, {"route_config": routes(place, parameters, 0)})
    return {
        **_base(place),
        "static_resources": {"listeners": [listener], "clusters": clusters(place, parameters)},
    }


def dynamic(place: Place, parameters: Parameters, folder: Path) -> Json:
    """The part that stays; routes and clusters are read from `folder` again whenever they are replaced there."""
    rds = {"route_config_name": ROUTES, "config_source": _in_file(folder, ROUTES)}
    return {
        **_base(place),
        "dynamic_resources": {"cds_config": _in_file(folder, CLUSTERS)},
        "static_resources": {"listeners": [_listener(place, parameters, {"rds": rds})]},
    }


def discovery(kind: str, version: int, resources: list[Json]) -> Json:
    """A file of `dynamic`'s folder: resources of one kind."""
    url = f"type.googleapis.com/envoy.config.{kind}"
    return {"version_info": str(version), "resources": [{"@type": url, **one} for one in resources]}


def to_yaml(content: Json) -> str:
    """As text that a person can read."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=120)


def config_sha256(place: Place, parameters: Parameters) -> str:
    """Of the configuration as it is, but for hosts and ports, which differ from run to run."""
    endpoints = [Endpoint(one.service, one.instance, "192.0.2.1", 1, one.capacity) for one in place.endpoints]
    same_place = Place(endpoints, "192.0.2.1", 1, "192.0.2.1", 1, None if place.control is None else ("192.0.2.1", 1))
    return hashlib.sha256(to_yaml(static(same_place, parameters)).encode()).hexdigest()


class _Dumper(yaml.SafeDumper):
    """Programs as blocks, and everything written out where it belongs."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _base(place: Place) -> Json:
    return {
        "node": {"id": "balancer", "cluster": "balancer"},
        "admin": {"address": _address(place.admin_host, place.admin_port)},
        # Histograms are merged when they are flushed, and read every second.
        "stats_flush_interval": "1s",
        "layered_runtime": {"layers": [{"name": "start", "static_layer": {}}, {"name": "admin", "admin_layer": {}}]},
    }


# -- listener ---------------------------------------------------------------------------------------------------------


def _listener(place: Place, parameters: Parameters, route_source: Json) -> Json:
    manager = {
        "stat_prefix": "public",
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        **route_source,
        "access_log": [_stats_log(_COUNTS, only_proxied=True)],
        "local_reply_config": _local_replies(),
        "http_filters": [
            _filter(
                METADATA,
                "lua.v3.Lua",
                default_source_code={"inline_string": _program(place, parameters)},
                clear_route_cache=False,
            ),
            _filter(
                "envoy.filters.http.router",
                "router.v3.Router",
                suppress_envoy_headers=True,
                upstream_log=[_stats_log(_ACTIVE)],
                upstream_log_options={"flush_upstream_log_on_upstream_stream": True},
            ),
        ],
    }
    return {
        "name": "public",
        "address": _address(place.host, place.port),
        "enable_reuse_port": False,  # else a second Envoy on this port took half of the connections without a word
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
                            ".HttpConnectionManager",
                            **manager,
                        },
                    }
                ]
            }
        ],
    }


def _program(place: Place, parameters: Parameters) -> str:
    """The Lua program, after the table of instances that it chooses from."""
    lines = ["INSTANCES = {"]
    for service in _services(place):
        lines.append(f'  ["{service}"] = {{')
        for one in _of(place, service):
            address = _authority(one.host, one.port)
            lines.append(f'    {{ name = "{one.instance}", address = "{address}", capacity = {one.capacity:g} }},')
        lines.append("  },")
    lines += ["}", f"SHORT_QUEUE_PER_WORKER = {parameters.short_queue_per_worker}"]
    lines += [f'RETRY_AFTER_S = "{parameters.retry_after}"', ""]
    return "\n".join(lines) + LUA.read_text(encoding="utf-8")


def _filter(name: str, kind: str, **settings: Any) -> Json:
    url = f"type.googleapis.com/envoy.extensions.filters.http.{kind}"
    return {"name": name, "typed_config": {"@type": url, **settings}}


def _local_replies() -> Json:
    """Envoy's own errors as JSON, like the services'. They get the headers of the contract as every answer does; only
    what is no HTTP request at all is answered without them, before there is a route or a filter."""
    none_healthy = {
        "filter": {"response_flag_filter": {"flags": ["UH"]}},
        "body_format_override": {"json_format": {"error": "No healthy instances available for service: %ROUTE_NAME%"}},
    }
    return {"mappers": [none_healthy], "body_format": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}}}


# -- metrics ----------------------------------------------------------------------------------------------------------

_POD = [("service", "%ROUTE_NAME%"), ("pod", "%UPSTREAM_METADATA(lb:instance)%")]
_ACTION = [("action", f"%METADATA(ROUTE:{METADATA}:action)%"), ("code", "%RESPONSE_CODE%")]


def _stat(name: str, tags: list[tuple[str, str]], **settings: Any) -> Json:
    return {"stat": {"name": name, "tags": [{"name": tag, "value_format": text} for tag, text in tags]}, **settings}


_COUNTS = {
    "counters": [_stat("requests_total", _POD + _ACTION, value_fixed=1)],
    "histograms": [
        _stat("response_time_ms", _POD, unit="Milliseconds", value_format="%DURATION%")
    ],  # with all attempts
}
_ACTIVE = {
    "gauges": [
        _stat(
            "active_requests",
            _POD,
            value_fixed=1,
            add_subtract={"add_log_type": "UpstreamPoolReady", "sub_log_type": "UpstreamEnd"},
        )
    ]
}


def _stats_log(stats: Json, only_proxied: bool = False) -> Json:
    """The metrics of the contract, by Envoy's logger of statistics: `envoy_lb_pod_...` on the admin port."""
    proxied = {"filter": "rl", "path": [{"key": "id"}], "value": {"present_match": True}}
    chosen = {"filter": {"metadata_filter": {"matcher": proxied, "match_if_key_not_found": False}}}
    url = "type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config"
    config = {"@type": url, "stats_scope": {"prefix": "lb_pod"}, **stats}
    return {"name": "envoy.access_loggers.stats", **(chosen if only_proxied else {}), "typed_config": config}


# -- routes -----------------------------------------------------------------------------------------------------------


def routes(place: Place, parameters: Parameters, world: int) -> Json:
    """All routes. Lua forgets what it learned about the instances when `world` is another number."""
    told = {"world": world, "decay_s": parameters.peak_ewma_decay_s, "probe_after_s": parameters.probe_after_s}
    told |= {"timeout_s": parameters.request_timeout_s, "check_s": parameters.health_check_every_s}
    found = [
        _route(service, action, match, parameters) for service in _services(place) for action, match in _ways(service)
    ]
    text = "No healthy instances available for this service"
    unknown = {
        "name": "unknown",
        "match": {"prefix": "/proxy/"},
        "direct_response": {"status": 503, "body": {"inline_string": text}},
        "metadata": _metadata(service="", action=DEFAULT_ACTION),
    }
    control = {"name": "control", "match": {"prefix": "/"}, "route": {"cluster": CONTROL, "timeout": "30s"}}
    return {
        "name": ROUTES,
        "virtual_hosts": [
            {
                "name": "all",
                "domains": ["*"],
                "metadata": _metadata(**told),
                "routes": [*found, unknown, *([] if place.control is None else [control])],
                # What only Envoy knows; `pick.lua` completes it.
                "response_headers_to_add": [
                    _header("x-lb-instance", "%UPSTREAM_METADATA(lb:instance)%"),
                    _header("x-lb-upstream-us", "%COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)%"),
                    _header("x-lb-flags", "%RESPONSE_FLAGS%"),
                    _header("x-lb-attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"),
                ],
            }
        ],
    }


def _ways(service: str) -> list[tuple[str, Json]]:
    """The actions of a service and what leads to each, in the order of trying: the header, the runtime key, none."""
    asked = [_is(REQUEST_ACTION.lower(), action) for action in ACTIONS]
    own = [_fraction(f"rl.{service}.{action}") for action in ACTIONS]
    found: list[tuple[str, Json]] = [
        *((action, {"headers": [header]}) for action, header in zip(ACTIONS, asked, strict=True)),
        *((action, {"runtime_fraction": fraction}) for action, fraction in zip(ACTIONS, own, strict=True)),
        (DEFAULT_ACTION, {}),
    ]
    ways: list[tuple[str, Json]] = []
    for action, match in found:
        if action == BREAKER:  # a GET may be sent again whatever happened, anything else only where nothing arrived
            ways.append((action, {**match, "headers": [*match.get("headers", []), _is(":method", "GET")]}))
        ways.append((action, match))
    return ways


def _route(service: str, action: str, match: Json, parameters: Parameters) -> Json:
    prefix = f"/proxy/{service}/"
    route: Json = {"cluster": service, "prefix_rewrite": "/", "timeout": _seconds(parameters.request_timeout_s)}
    if action == BREAKER:
        repeatable = any(header["name"] == ":method" for header in match.get("headers", []))
        route["cluster"] = _breaker(service)
        route["retry_policy"] = {
            "retry_on": "5xx" if repeatable else "connect-failure,refused-stream,reset-before-request",
            "num_retries": 2,  # with the first attempt every instance once
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3"
                        ".PreviousHostsPredicate"
                    },
                }
            ],
            "host_selection_retry_max_attempts": 5,
            "retry_back_off": {"base_interval": "0.001s"},
        }
    return {
        "name": service,
        "match": {"prefix": prefix, **match},
        "route": route,
        "metadata": _metadata(service=service, action=action),
    }


def _metadata(**values: Any) -> Json:
    return {"filter_metadata": {METADATA: values}}


# -- clusters ---------------------------------------------------------------------------------------------------------


def clusters(place: Place, parameters: Parameters) -> list[Json]:
    """Two per service, over the same instances, and one for the control port."""
    found: list[Json] = []
    for service in _services(place):
        found.append(_cluster(service, _of(place, service), parameters))
        breaker = _cluster(_breaker(service), _of(place, service), parameters)
        breaker["outlier_detection"] = _outliers(parameters)
        budget = {"budget_percent": {"value": 100 * parameters.retry_earn}, "min_retry_concurrency": 3}
        breaker["circuit_breakers"]["thresholds"][0]["retry_budget"] = budget
        found.append(breaker)
    if place.control is not None:
        found.append(_bare_cluster(CONTROL, [{"endpoint": {"address": _address(*place.control)}}]))
    return found


def _cluster(name: str, endpoints: Sequence[Endpoint], parameters: Parameters) -> Json:
    members = [
        {
            # Envoy's /clusters names an instance by it (the metrics source `envoy`), and nothing is routed by it.
            "endpoint": {"hostname": one.instance, "address": _address(one.host, one.port)},
            "metadata": {"filter_metadata": {"lb": {"instance": one.instance}}},
        }
        for one in endpoints
    ]
    every = _seconds(parameters.health_check_every_s)
    return {
        **_bare_cluster(name, members),
        "lb_policy": "ROUND_ROBIN",  # where the instance that was chosen is sick
        "common_lb_config": {
            "healthy_panic_threshold": {"value": 0},  # else sick ones are used when most are
            "update_merge_window": "0s",  # else a second change of health within a second takes effect after it
        },
        "health_checks": [
            {
                "timeout": every,
                "interval": every,
                "no_traffic_interval": every,
                "unhealthy_threshold": parameters.health_check_failures,
                "healthy_threshold": 1,
                "http_health_check": {"path": HEALTH_PATH},
            }
        ],
    }


def _bare_cluster(name: str, members: list[Json]) -> Json:
    limits = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": members}]},
        "circuit_breakers": {"thresholds": [dict.fromkeys(limits, UNLIMITED)]},
        "typed_extension_protocol_options": {
            options: {
                "@type": f"type.googleapis.com/{options}",
                "common_http_protocol_options": {"idle_timeout": _seconds(UPSTREAM_IDLE_S)},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


def _outliers(parameters: Parameters) -> Json:
    """The breaker of each instance: open after failures in a row, or a rate of them; longer each time it opens again.
    Envoy has no half-open state: an instance comes back as a whole when its time is over."""
    return {
        "consecutive_5xx": parameters.breaker_consecutive,
        "failure_percentage_threshold": round(100 * parameters.breaker_error_rate),
        "failure_percentage_request_volume": round(parameters.breaker_min_requests),
        "failure_percentage_minimum_hosts": 1,
        "enforcing_failure_percentage": 100,
        "enforcing_success_rate": 0,
        "interval": _seconds(parameters.breaker_window_half_life_s),
        "base_ejection_time": _seconds(parameters.breaker_open_s),
        "max_ejection_time": _seconds(parameters.breaker_open_max_s),
        "max_ejection_percent": 100,
        # A failing instance passes the health check; without this the next check would let it in again.
        "successful_active_health_check_uneject_host": False,
    }


# -- small things -----------------------------------------------------------------------------------------------------


def _services(place: Place) -> list[str]:
    return list(dict.fromkeys(one.service for one in place.endpoints))


def _of(place: Place, service: str) -> list[Endpoint]:
    return [one for one in place.endpoints if one.service == service]


def _breaker(service: str) -> str:
    return f"{service}.{BREAKER}"


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


def _seconds(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def _is(header: str, value: str) -> Json:
    return {"name": header, "string_match": {"exact": value}}


def _header(name: str, value: str) -> Json:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _fraction(key: str) -> Json:
    return {"default_value": {"numerator": 0, "denominator": "HUNDRED"}, "runtime_key": key}


def _in_file(folder: Path, name: str) -> Json:
    source = {"path": str(folder / f"{name}.yaml"), "watched_directory": {"path": str(folder)}}
    return {"path_config_source": source, "resource_api_version": "V3"}

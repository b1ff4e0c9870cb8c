"""What comes from the network, as it should be and as it may be: answers of Prometheus, its text, admin APIs, Envoy."""

import doctest
import json
import math
from types import ModuleType
from typing import Any

import pytest

from rl_hooks.decision import SERVICE_INDEX
from rl_hooks.sources import admin_api, orca, prometheus_api
from rl_hooks.sources.admin_api import instances_of, parse_metrics, parse_services
from rl_hooks.sources.envoy_clusters import parse_clusters
from rl_hooks.sources.exposition import parse_text
from rl_hooks.sources.prometheus_api import parse_intervals, parse_jobs, parse_range, seconds_of
from rl_hooks.sources.series import Selector

CART = SERVICE_INDEX["cart-service"]


@pytest.mark.parametrize("module", [admin_api, orca, prometheus_api])
def test_doctests_hold(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


def answer(result: Any, kind: str = "matrix") -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()


# -- the HTTP API of Prometheus ---------------------------------------------------------------------------------------


def test_raw_values_have_their_own_times() -> None:
    one = {"metric": {"__name__": "up", "job": "a"}, "values": [[1700000000.123, "1"], [1700000001.123, "NaN"]]}
    (series,) = parse_range(answer([one]))
    assert (series.name, series.labels) == ("up", {"job": "a"})
    assert series.t_ns.tolist() == [1_700_000_000_123_000_000, 1_700_000_001_123_000_000]
    assert series.values[0] == 1
    assert math.isnan(series.values[1])


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"<html>", "not JSON"),
        (b"[]", "no success was stated; is this the API of a Prometheus?"),
        (b'{"status": "error", "errorType": "bad_data", "error": "parse error"}', "parse error"),
        (answer([], "vector"), "not a matrix"),
        (answer([{"values": []}]), "a series has no labels"),
        (answer([{"metric": {"a": 1}}]), "a series has no labels"),
        (answer([{"metric": {}, "values": [[2, "1"], [1, "1"]]}]), "are not in order of time"),
        (answer([{"metric": {}, "values": [["x", "1"]]}]), "is no time with a value"),
        (answer([{"metric": {}, "values": [[1e12, "1"]]}]), "is no time with a value"),
        (answer([{"metric": {}, "values": [[1, "many"]]}]), "is no time with a value"),
        (answer([{"metric": {}, "values": [[1]]}]), "is no time with a value"),
    ],
)
def test_an_answer_of_another_form_is_refused(body: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem.replace("?", r"\?")):
        parse_range(body)


def test_jobs_and_their_scrape_intervals_are_read() -> None:
    counted = [{"metric": {"__name__": "a", "job": job}, "value": [1, "1"]} for job in ("x", "y")]
    assert parse_jobs(answer(counted, "vector")) == {"a": {"x", "y"}}
    targets = [{"labels": {"job": "x"}, "scrapeInterval": text} for text in ("1s", "1m30s")]
    body = json.dumps({"status": "success", "data": {"activeTargets": targets}}).encode()
    assert parse_intervals(body) == {"x": 90.0}
    with pytest.raises(ValueError, match="not a list of targets"):
        parse_intervals(b'{"status": "success", "data": {"activeTargets": [{}]}}')


@pytest.mark.parametrize("text", ["", "5", "s", "1x", "-1s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    if text:
        with pytest.raises(ValueError, match="is no duration"):
            seconds_of(text)
    else:
        assert seconds_of(text) == 0


# -- the text format --------------------------------------------------------------------------------------------------

TEXT = b"""# HELP process_cpu_usage The "recent cpu usage"
# TYPE process_cpu_usage gauge
process_cpu_usage{application="cart-service",} 0.25
# TYPE rq counter
rq{pod="a\\"b"} 3
other{pod="b"} 1e400
jvm_memory_max_bytes{area="heap",id="G1 Eden Space",} -1.0 1700000000123
"""
WANTED = [Selector.parse(name) for name in ("process_cpu_usage", "rq", "jvm_memory_max_bytes")]


def test_text_becomes_series_with_the_time_of_the_question_or_their_own() -> None:
    found = {one.name: one for one in parse_text(TEXT, WANTED, 5, {"pod": "cart-service-1"})}
    assert found.keys() == {"process_cpu_usage", "rq", "jvm_memory_max_bytes"}
    assert found["process_cpu_usage"].labels == {"application": "cart-service", "pod": "cart-service-1"}
    assert (found["process_cpu_usage"].values.tolist(), found["process_cpu_usage"].t_ns.tolist()) == ([0.25], [5])
    assert found["jvm_memory_max_bytes"].t_ns.tolist() == [1_700_000_000_123_000_000]


def test_a_counter_keeps_its_name_and_a_label_of_its_own_its_value() -> None:
    """The parser would call it rq_total, and Prometheus itself does not."""
    (one,) = (one for one in parse_text(TEXT, WANTED, 5, {"pod": "cart-service-1"}) if one.name == "rq")
    assert one.labels == {"pod": 'a"b'}


OPEN_METRICS = b"""# TYPE rq counter
# UNIT rq requests
rq_total{pod="a # {b} 7"} 17 # {trace_id="KOO5S4vxi0o"} 0.67
rq_total{pod="b"} 18 1700000000.123 # {trace_id="oHg5SJYRHA0"} 9.8 1699999999.123
rq_created{pod="a # {b} 7"} 1600000000.5
# EOF
"""


def test_open_metrics_have_exemplars_and_times_in_seconds() -> None:
    """An exemplar's value is no time of the sample, and a second is no millisecond: else the values were of 1970."""
    one, two = parse_text(OPEN_METRICS, [Selector.parse("rq_total")], 5, {})
    assert (one.labels, one.values.tolist(), one.t_ns.tolist()) == ({"pod": "a # {b} 7"}, [17], [5])
    assert (two.labels, two.values.tolist(), two.t_ns.tolist()) == ({"pod": "b"}, [18], [1_700_000_000_123_000_000])


@pytest.mark.parametrize("odd", ["\u2028", "\x0c", "\x85", "\x1c"])
def test_only_a_newline_ends_a_line_and_blanks_around_one_mean_nothing(odd: str) -> None:
    text = f'other{{uri="/{odd}{{"}} 1\r\n  rq{{uri="/{odd}"}} 3\t\r\n'
    (one,) = parse_text(text.encode(), WANTED, 5, {})
    assert (one.labels, one.values.tolist()) == ({"uri": f"/{odd}"}, [3])


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe",
        b"<html><body>",
        b'rq{pod="a"} many',
        b'rq{pod="a',
        b"rq",
        b'rq{a="1"} 1\nrq{a="1"} 2',
    ],
)
def test_what_is_no_such_text_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"not text|not the text format of Prometheus"):
        parse_text(body, WANTED, 5, {})


# -- admin APIs -------------------------------------------------------------------------------------------------------


def test_percent_become_shares_and_nonsense_becomes_missing() -> None:
    listed = [
        {"name": "cart-service", "instances": [{"instanceName": "a", "healthy": True}, {"instanceName": "b"}]},
        {"name": "recommendations", "instances": [{"instanceName": "c", "healthy": True}]},
    ]
    pods = {
        "a": {"cpuUsagePercent": 25, "jvmMemoryUsagePercent": -1, "avgResponseTimeMs": 12.0, "errorRatePercent": 3.0},
        "z": {"cpuUsagePercent": 250.0, "jvmMemoryUsagePercent": None},
    }
    a, b, z = instances_of(parse_services(listed), {CART: parse_metrics(pods)})
    assert (a.service, a.instance, a.cpu, a.health, a.up) == (CART, "a", 0.25, 1.0, True)
    assert math.isnan(a.memory)
    assert (a.requests_total, a.errors_total) == (None, None)
    for one in (b, z):
        assert one.up is None
        assert all(math.isnan(value) for value in (one.cpu, one.memory, one.health, one.in_flight, one.queue_depth))


@pytest.mark.parametrize("odd", [None, 3, [3], [{}], [{"name": "cart-service"}], {"a": 1}])
def test_what_is_no_list_of_services_is_refused(odd: Any) -> None:
    with pytest.raises(ValueError, match="not a list of services with instances"):
        parse_services(odd)


@pytest.mark.parametrize("odd", [None, [], {"a": 1}])
def test_what_are_no_metrics_is_refused(odd: Any) -> None:
    with pytest.raises(ValueError, match="not the metrics of instances"):
        parse_metrics(odd)


def host(port: int, health: Any = None, hostname: str = "", **stats: int) -> dict[str, Any]:
    """As Envoy writes it: numbers as text, and no value where it is 0."""
    return {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "stats": [{"name": name, **({"value": str(value)} if value else {})} for name, value in stats.items()],
        "health_status": {"eds_health_status": "HEALTHY"} if health is None else health,
        "weight": 1,
        **({"hostname": hostname} if hostname else {}),
    }


def test_an_instance_in_several_clusters_is_one_instance() -> None:
    clusters = [
        {"name": "cart-service", "host_statuses": [host(1, rq_active=2, rq_total=10, rq_error=1)]},
        {"name": "cart-service:least_loaded", "host_statuses": [host(1, rq_active=3, rq_total=5, rq_error=0)]},
        {"name": "cart-services", "host_statuses": [host(9, rq_active=1)]},
        {"name": "order-service_1", "host_statuses": [host(2, hostname="order-service-1", rq_active=0)]},
        {"name": "user-service"},
    ]
    cart, order = parse_clusters({"cluster_statuses": clusters})
    assert (cart.instance, cart.in_flight, cart.requests_total, cart.errors_total) == ("127.0.0.1:1", 5, 15, 1)
    assert (cart.health, cart.up, cart.capacity) == (1.0, True, 1.0)
    assert math.isnan(cart.queue_depth)
    assert (order.instance, order.in_flight, order.requests_total) == ("order-service-1", 0, 0)


@pytest.mark.parametrize(
    "health",
    [
        {"failed_outlier_check": True, "eds_health_status": "HEALTHY"},
        {"failed_active_health_check": True},
        {"eds_health_status": "DRAINING"},
    ],
)
def test_an_instance_that_envoy_sends_nothing_to_is_down(health: Any) -> None:
    down, up = ({"name": f"cart-service-{n}", "host_statuses": [host(1, one)]} for n, one in enumerate((health, None)))
    (one,) = parse_clusters({"cluster_statuses": [down]})
    assert (one.up, one.health) == (False, 0.0)
    (one,) = parse_clusters({"cluster_statuses": [down, up]})
    assert one.up is True  # another cluster still sends to it


@pytest.mark.parametrize(
    "odd",
    [None, [], {"cluster_statuses": [{}]}, {"cluster_statuses": [{"name": "cart-service", "host_statuses": [{}]}]}],
)
def test_what_are_no_clusters_is_refused(odd: Any) -> None:
    with pytest.raises(ValueError, match="not the clusters of an Envoy"):
        parse_clusters(odd)


# -- load reports -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"cpu_utilization": 0.3, "mem_utilization": 0.5, "named_metrics": {"queue_depth": 4, "cost": 9}}',
        'JSON {"cpuUtilization": 0.3, "memUtilization": 0.5, "namedMetrics": {"queue": 4}}',
        "TEXT cpu_utilization=0.3, mem_utilization=0.5,named_metrics.queue_depth=4,rps_fractional=3",
    ],
)
def test_a_load_report_is_read_in_each_of_its_forms(text: str) -> None:
    assert orca.parse_report(text) == {"cpu": 0.3, "memory": 0.5, "queue_depth": 4.0}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is neither JSON nor TEXT"),
        ("BIN CAESBA==", "the binary form is not read"),
        ("JSON {", "Expecting"),
        ("JSON []", "is no JSON object"),
        ("TEXT cpu_utilization", "is not name=value"),
        ("TEXT cpu_utilization=high", "could not convert"),
        ("TEXT " + "a=1," * 9000, "is longer than"),
    ],
)
def test_what_is_no_load_report_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        orca.parse_report(text)

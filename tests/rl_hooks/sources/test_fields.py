"""The file of a source: what it may say, and everything that can be wrong with it."""

from pathlib import Path

import pytest

from rl_hooks.control import SourceError
from rl_hooks.parts import PartError
from rl_hooks.sources.fields import read_file, target_of, usual_fields
from rl_hooks.sources.named import make_source
from rl_hooks.sources.series import RANGES

GOOD = """
url: http://127.0.0.1:9090
scrape_interval_seconds: 5
stale_after_intervals: 2
labels: {instance: {label: pod, pattern: '(.+)-[a-z0-9]+'}, service: app}
fields:
  in_flight: 'lb_pod_active_requests{job="balancer"}'
  cpu: {selector: 'cpu_percent{job="pods"}', scale: 0.01, valid: [0, 0.9], scrape_interval_seconds: 1}
"""


def written(folder: Path, text: str) -> str:
    path = folder / "metrics.yaml"
    path.write_text(text)
    return str(path)


def test_a_file_says_which_series_and_what_they_mean(tmp_path: Path) -> None:
    reading = read_file(written(tmp_path, GOOD), "prometheus")
    in_flight, cpu = reading.fields
    assert (in_flight.name, in_flight.stale_ns, in_flight.high) == ("in_flight", 10_000_000_000, 1e6)
    assert (cpu.scale, cpu.low, cpu.high, cpu.stale_ns) == (0.01, 0, 0.9, 2_000_000_000)
    assert reading.naming.of({"pod": "cart-service-1-x7k2p", "app": "order-service"}) == (3, "cart-service-1")


def test_all_problems_of_a_file_are_told_at_once_each_with_its_way_out(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
url: http://me:secret@127.0.0.1:9090
stale_after_intervals: 0
adress: x
labels: {instance: {label: pod, pattern: '('}}
authorization: {environment: NOT_SET_ANYWHERE}
fields:
  cpu: {selector: 'rate(x[5m])'}
  memory: {selector: a, valid: [0, 2]}
  queue_depth: {selector: a, scale: big, hue: b}
  in_flight: {selector: a, scale: 0, rate: 1, of: 3}
  errors_total: {selector: a, rate: true}
  latency: x
""",
    )
    with pytest.raises(SourceError) as caught:
        read_file(file, "prometheus")
    assert "secret" not in str(caught.value)
    known = "url, scrape_interval_seconds, stale_after_intervals, timeout_seconds, authorization, labels, fields"
    instead = 'write name{label="value"}, without functions and without a range: raw values are what is read'
    assert str(caught.value).splitlines() == [
        f"{file}: 14 problems",
        f"  unknown key 'adress'; known are {known}",
        "  url: a URL with a user or a password would end in the manifest; use a file with `authorization`",
        "  scrape_interval_seconds: is missing; how often Prometheus scrapes, for example 5",
        "  stale_after_intervals: 0 is not a number above 0",
        f"  fields.cpu: 'rate(x[5m])' is no selector; {instead}",
        "  fields.memory.valid: [0, 2] reaches beyond what memory can be, 0 to 1",
        "  fields.queue_depth: unknown key 'hue'; known are selector, of, rate, scale, valid, scrape_interval_seconds",
        "  fields.in_flight.of: 3 must be a selector",
        "  fields.in_flight.rate: 1 must be true or false",
        "  fields.in_flight.scale: 0 must be a number other than 0, for example 0.01",
        "  fields.errors_total.rate: errors_total is a count since the start of the instance; leave rate out",
        f"  fields: 'latency' is no field; known are {', '.join(RANGES)}",
        "  labels.instance.pattern: '(' is no regular expression (missing ), unterminated subpattern at position 0)",
        "  authorization.environment: NOT_SET_ANYWHERE is not set; export it before the run",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[", "is not YAML"),
        ("fields: " + "[" * 5000, "is nested more than"),
        ("[]", "must be a mapping with `fields`"),
        ("targets: []\nfields: {cpu: a}", "targets: must be a list of URLs, or of mappings"),
        ("targets: [{url: x}, 3, ftp://a]\nfields: {}", "targets[0].url: 'x' is no URL"),
        ("targets: [http://a]", "fields: must give selectors to some of cpu, memory"),
        ("targets: [http://a]\nfields: {cpu: a}\nauthorization: {file: a, environment: b}", "needs either"),
        ("targets: [http://a]\nfields: {cpu: a}\nlabels: [pod]", "labels: may say which label names"),
        ("targets: [http://a]\nfields: {cpu: [a]}", "fields.cpu: must be a selector, or a mapping"),
        ("targets: [{url: http://a, labels: {pod: 1}}]\nfields: {cpu: a}", "targets[0].labels: must give each label"),
    ],
)
def test_a_file_for_text_with_a_problem_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SourceError) as caught:
        read_file(written(tmp_path, text), "text")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "prometheus:nowhere.yaml",
            "nowhere.yaml: cannot be read (No such file or directory); a URL begins with http://",
        ),
        ("prometheus:", "needs more than its name, as in prometheus:http://127.0.0.1:9090"),
        ("prometheus::", "needs more than its name, as in prometheus:http://127.0.0.1:9090"),
        (
            "text:http://a:b@c",
            "a URL with a user or a password would end in the manifest; use a file with `authorization`",
        ),
        ("text:http://:80", "'http://:80' is no URL, for example http://127.0.0.1:9090"),
        ("envoy:http://127.0.0.1:0", "'http://127.0.0.1:0' is no URL, for example http://127.0.0.1:9090"),
    ],
)
def test_an_argument_that_is_wrong_is_told_with_the_option(name: str, message: str) -> None:
    with pytest.raises(PartError) as caught:
        make_source("--metrics-source", name, "http://127.0.0.1:9")
    assert str(caught.value) == f"--metrics-source {name.rstrip(':')}: {message}"


def test_the_usual_names_are_those_of_the_contract_with_any_prefix() -> None:
    counted = next(field for field in usual_fields() if field.name == "requests_total").selector
    assert counted.is_for("lb_pod_requests_total")
    assert counted.is_for("envoy_lb_pod_requests_total")
    assert not counted.is_for("slb_pod_requests_total")


def test_the_name_of_a_host_names_a_pod_only_where_it_names_a_service() -> None:
    assert target_of("http://cart-service-0.cart.shop.svc:8080/actuator/prometheus").labels == {"pod": "cart-service-0"}
    assert target_of("http://127.0.0.1:8080/metrics").labels == {}

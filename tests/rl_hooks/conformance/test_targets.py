"""Every finding, against real servers: one that keeps the contract, and ones that break a part of it."""

import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rl_hooks.conformance.judge import PARTS, Finding, Kept, Need, broken, judge
from rl_hooks.conformance.probe import look
from rl_hooks.decision import ACTIONS
from rl_hooks.record.conformance import main, report
from rl_hooks.target import size_sandbox
from tests.processes import free_port, sandbox_started
from tests.rl_hooks.conformance.targets import Reply, Seen, Twist, target

PRODUCT = {"sku": "A-1", "name": "Thing", "category": "things", "brand": "None", "price": 5.0}
YES, PARTLY, NO, UNKNOWN = Kept.YES, Kept.PARTLY, Kept.NO, Kept.UNKNOWN


def findings(*twists: Twist, **about: float) -> dict[str, Finding]:
    """Name -> finding of a server with these twists."""
    with target(*twists) as host:
        facts = look(host, host.removesuffix("/proxy"), None, **about)  # type: ignore[arg-type]
    found = judge(facts)
    assert "\x1b" not in "".join(report(facts, found))
    return {finding.name: finding for finding in found}


def of_shop(seen: Seen) -> bool:
    """Whether an instance answers it."""
    health = seen.path.endswith("/actuator/health")
    return seen.method == "GET" and not health and seen.service.endswith("-service") and "no-such" not in seen.service


def test_a_target_that_keeps_everything_is_told_so() -> None:
    found = findings()
    assert {name: one.found for name, one in found.items() if one.kept is not YES} == {}
    assert [one for one in found.values() if one.lacks or one.way_out] == []
    assert found["own_errors"].found == "unknown service: 503, malformed JSON: 400, method PATCH: 405"
    assert found["fallback"].found == "its own: round_robin (25)"
    assert found["names"].found.startswith("user-service 2, inventory-service 2")


def changed(name: str, change: Callable[[Seen, Reply], None], which: Callable[[Seen], bool] = of_shop) -> Twist:
    """A twist of the answers to some requests; `name` stands in the test's own name."""

    def twist(seen: Seen, reply: Reply) -> Reply:
        if which(seen):
            change(seen, reply)
        return reply

    twist.__name__ = name
    return twist


def put(header: str, value: str) -> Callable[[Seen, Reply], None]:
    return lambda _, reply: reply.put(header, value) and None


def drop(*headers: str) -> Callable[[Seen, Reply], None]:
    return lambda _, reply: reply.without(*headers) and None


def add(header: str, value: str) -> Callable[[Seen, Reply], None]:
    return lambda _, reply: reply.headers.append((header, value))


def of_the_balancer(seen: Seen) -> bool:
    return bool(seen.service) and not of_shop(seen)


def errors(seen: Seen) -> bool:
    return of_shop(seen) and (seen.service == "user-service" or "NO-SUCH" in seen.path)


def absent(seen: Seen) -> bool:
    return of_shop(seen) and "x-rl-action" not in seen.headers


def unknown(seen: Seen) -> bool:
    return of_shop(seen) and seen.headers.get("x-rl-action") == "conformance_unknown"


def metrics(seen: Seen) -> bool:
    return seen.path == "/metrics"


def hide(seen: Seen, reply: Reply) -> None:
    reply.status, reply.body = 502, b"Bad Gateway"


def forward(seen: Seen, reply: Reply) -> None:
    reply.status, reply.body = 502, b'{"error": "Failed to forward request: 401 Unauthorized"}'


def sick(seen: Seen, reply: Reply) -> None:
    reply.body = b'{"status": "DOWN\\u001b[2J"}'


def html(seen: Seen, reply: Reply) -> None:
    reply.status, reply.headers, reply.body = 200, [("Content-Type", "text/html")], b"<html><h1>Welcome</h1></html>"


def fewer(seen: Seen, reply: Reply) -> None:
    reply.body = b'my_lb_pod_requests_total{service="a",pod_name="b",action="c"} 1\nlb_pod_active_requests 3\n'


def own_choice(seen: Seen, reply: Reply) -> None:
    if "x-lb-pin" in seen.headers:
        reply.put("X-LB-Instance", f"{seen.service}-3")


def new_name(seen: Seen, reply: Reply) -> None:
    reply.put("X-LB-Instance", f"req-{seen.number}")


def closing(seen: Seen, reply: Reply) -> None:
    reply.close = True


@pytest.mark.parametrize(
    ("twist", "name", "kept", "said"),
    [
        (
            changed("down", sick, lambda s: s.path.endswith("cart-service/actuator/health")),
            "health",
            PARTLY,
            "\\x1b[2J",
        ),
        (changed("html", html, lambda s: s.path.endswith("health")), "health", NO, "not with a health report"),
        (changed("no action", drop("x-lb-action")), "action_header", NO, "absent with status"),
        (changed("no instance", drop("x-lb-instance")), "instance_header", NO, "absent with status"),
        (changed("dash", put("X-LB-Instance", "-")), "instance_header", NO, "'-' with status"),
        (changed("all html", html, of_shop), "action_header", NO, "absent with status 200"),
        (changed("escapes", put("X-LB-Instance", "a\x1b]0;b\x07")), "instance_header", NO, "'a\\x1b]0;b\\x07'"),
        (changed("huge", put("X-LB-Instance", "i" * 60_000)), "instance_header", NO, "iiii"),
        (changed("not ascii", put("X-LB-Instance", "caf\xe9")), "instance_header", NO, "with status"),
        (
            changed("bare errors", drop("x-lb-action", "x-lb-instance"), of_the_balancer),
            "own_errors",
            NO,
            "unknown service",
        ),
        (changed("bare 405", drop("x-lb-action"), lambda s: s.method == "PATCH"), "own_errors", PARTLY, "method PATCH"),
        (changed("nginx", drop("x-lb-action"), errors), "service_errors", PARTLY, "401 without X-LB-Action"),
        (changed("twice", add("X-LB-Action", "backpressure")), "one_value", NO, "X-LB-Action on"),
        (changed("names", new_name), "names", NO, "names in"),
        (changed("one", put("X-LB-Instance", "only")), "several", NO, "fewer than two were seen of"),
        (changed("always", put("X-LB-Action", "round_robin")), "obeys", NO, "least_loaded was answered by round_robin"),
        (changed("no own", drop("x-lb-action"), absent), "fallback", PARTLY, "absent action: absent with status"),
        (changed("echo", put("X-LB-Action", "conformance_unknown"), unknown), "fallback", PARTLY, "does not exist"),
        (
            changed("maglev", put("X-LB-Action", "maglev"), absent),
            "fallback",
            PARTLY,
            "its own is maglev, none of the six",
        ),
        (changed("no time", drop("x-lb-upstream-us")), "upstream", NO, "absent"),
        (changed("too long", put("X-LB-Upstream-Us", "9000000")), "upstream", NO, "longer than the whole request"),
        (changed("words", put("X-LB-Upstream-Us", "soon\x1b[1m")), "upstream", NO, "'soon\\x1b[1m' is no time"),
        (changed("nan", put("X-LB-Queue-Ms", "nan")), "queue", NO, "'nan' is no time"),
        (changed("below", put("X-LB-Queue-Ms", "-1")), "queue", NO, "'-1' is no time"),
        (changed("flags", drop("x-lb-flags")), "details", PARTLY, "no X-LB-Flags"),
        (changed("trace", put("X-Trace-Id", "0" * 32)), "trace", NO, "on 0 of"),
        (changed("hidden", hide, errors), "backend_status", NO, "502 with no status of the service"),
        (changed("told", forward, errors), "backend_status", YES, "told in the balancer's own text"),
        (changed("closes", closing, lambda s: True), "reuse", NO, "0 of"),
        (changed("pin", own_choice), "pin", NO, "reached their instance"),
        (changed("sure", put("X-LB-Propensity", "1.5")), "decides_itself", PARTLY, "not valid: X-LB-Propensity '1.5'"),
        (changed("policy", put("X-LB-Policy", "\x1b[31m")), "decides_itself", PARTLY, "X-LB-Policy '\\x1b[31m'"),
        (changed("no p", drop("x-lb-propensity")), "decides_itself", NO, "no X-LB-Propensity"),
        (changed("no id", drop("x-lb-decision-id")), "decides_itself", PARTLY, "no X-LB-Decision-Id"),
        (changed("load", put("endpoint-load-metrics", "[" * 9000)), "orca", PARTLY, "0 of"),
        (changed("no load", drop("endpoint-load-metrics")), "orca", NO, "no endpoint-load-metrics"),
        (changed("service", drop("x-queue-ms", "x-inflight")), "service_headers", PARTLY, "no X-Queue-Ms, X-Inflight"),
        (
            changed("labels", fewer, metrics),
            "metrics",
            PARTLY,
            "lb_pod_requests_total has no label code; lb_pod_active",
        ),
        (changed("page", html, metrics), "metrics", NO, "no lb_pod_requests_total"),
        (changed("admin", html, lambda s: s.path == "/api/services"), "admin", NO, "not a list of services"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_what_is_broken_is_found_and_the_data_is_told_what_it_lacks(
    twist: Twist, name: str, kept: Kept, said: str
) -> None:
    found = findings(twist)[name]
    assert (found.kept, said in found.found) == (kept, True), found.found
    part = next(part for part in PARTS if part.name == name)
    assert (found.lacks, found.way_out) == (("", "") if kept is YES else (part.lacks, part.way_out))


def strip(seen: Seen, reply: Reply) -> Reply | None:
    """An edge that takes the steering headers away: the balancer behind it hears of none."""
    return reply.put("X-LB-Action", "weighted_capacity") if seen.service else None


def test_an_edge_that_strips_the_header_is_not_obeyed_and_nothing_can_leak() -> None:
    found = findings(strip)
    assert found["obeys"].kept is NO
    assert "least_loaded was answered by weighted_capacity (10)" in found["obeys"].found
    assert (found["no_leak"].kept, found["no_leak"].found.startswith("15 requests")) == (YES, True)
    assert found["fallback"].found == "its own: weighted_capacity (25)"
    assert [one.name for one in broken(found.values())] == ["obeys"]


def test_a_balancer_that_has_not_all_actions_obeys_in_part() -> None:
    def three(seen: Seen, reply: Reply) -> Reply | None:
        known = seen.headers.get("x-rl-action") in ACTIONS[:3]
        return None if known or not seen.service else reply.put("X-LB-Action", "round_robin")

    found = findings(three)["obeys"]
    assert found.kept is PARTLY
    assert found.found.startswith("weighted_capacity was answered by round_robin (10); circuit_breaker was")


def test_an_action_that_sticks_to_what_was_asked_before_leaks() -> None:
    """The second of two equal requests is right, so asking in a row does not show it in full; mixing does."""
    state = {"last": "round_robin", "same": 0}
    lock = threading.Lock()

    def late(seen: Seen, reply: Reply) -> Reply | None:
        asked = seen.headers.get("x-rl-action")
        if not of_shop(seen) or asked not in ACTIONS:
            return None
        with lock:
            quick = seen.number < 5 + 5 * (2 * len(ACTIONS) + 5)  # health and what is asked in a row
            applied = asked if quick else str(state["last"])
            state["last"] = asked
        return reply.put("X-LB-Action", applied)

    found = findings(late)["no_leak"]
    assert found.kept in (PARTLY, NO)
    assert " of 90 requests: " in found.found


def test_an_answer_that_comes_late_or_in_drops_is_not_waited_for() -> None:
    def slow(seen: Seen, reply: Reply) -> Reply | None:
        if not of_shop(seen) or seen.service != "cart-service" or seen.number % 6:
            return None
        return Reply(raw=b"HTTP/1.1 200 OK\r\n" + b"X-Drop: 1\r\n" * 1000, drip_s=0.05)

    began_s = time.monotonic()
    found = findings(slow, timeout_s=0.3)["answered"]
    assert found.kept is PARTLY
    assert "cart-service: no answer within 0.3 s" in found.found
    assert time.monotonic() - began_s < 60  # some dozen such answers, not the minute that each would take


def test_the_time_of_the_whole_is_bounded_and_what_was_not_asked_is_told() -> None:
    def slow(seen: Seen, reply: Reply) -> None:
        time.sleep(0.05)

    found = findings(slow, longest_s=1.0)
    assert found["answered"].kept is PARTLY
    assert re.fullmatch(r"0 of \d+ were not; there was no time for \d+ more", found["answered"].found)
    assert "answered" in [one.name for one in broken(found.values())]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 500 + b"\r\n", "HTTPException"),
        (b"HTTP/1.1 200 OK\r\nX-LB-Action: " + b"a" * 70_000 + b"\r\n\r\n", "LineTooLong"),
        (b"\x1b[31mnot HTTP at all\r\n\r\n", "BadStatusLine"),
        (b"", "the connection was closed without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfew", "IncompleteRead"),
    ],
    ids=["headers", "line", "garbage", "nothing", "torn"],
)
def test_what_is_no_answer_is_said_without_being_obeyed(raw: bytes, said: str) -> None:
    def odd(seen: Seen, reply: Reply) -> Reply | None:
        return Reply(raw=raw) if of_shop(seen) else None

    found = findings(odd)
    assert said in found["answered"].found
    assert found["action_header"].found == "no service answered"
    assert found["pin"].kept is UNKNOWN


def test_a_connection_that_the_other_side_closed_while_it_was_idle_is_no_failure() -> None:
    def shutting(seen: Seen, reply: Reply) -> Reply | None:
        if seen.number % 3 or not of_shop(seen):
            return None
        head = "".join(f"{name}: {value}\r\n" for name, value in reply.headers)
        return Reply(raw=f"HTTP/1.1 {reply.status} x\r\n{head}Content-Length: 2\r\n\r\n{{}}".encode())

    found = findings(shutting)
    assert found["answered"].kept is YES
    assert found["reuse"].kept is YES


def test_a_balancer_that_is_steered_otherwise_need_not_obey_the_header() -> None:
    with target(strip) as host:
        facts = look(host, host.removesuffix("/proxy"), None)
    assert broken(judge(facts, steered_by_header=False)) == []
    needs = {one.name: one.need for one in judge(facts, steered_by_header=False)}
    assert (needs["obeys"], needs["no_leak"], needs["fallback"]) == (Need.OPTIONAL, Need.OPTIONAL, Need.REQUIRED)


def test_the_command_prints_a_table_writes_the_findings_and_exits_with_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with target() as host:
        assert main(["--host", host, "--json", str(tmp_path / "found.json")]) == 0
    told = capsys.readouterr().out
    assert "verdict: lb-contract/1 is kept, every required part" in told
    assert "What the data will lack" not in told
    written = json.loads((tmp_path / "found.json").read_text())
    assert (written["kept"], written["contract"]) == (True, "lb-contract/1")
    assert [one["name"] for one in written["findings"]] == [part.name for part in PARTS]
    assert written["instances"]["cart-service"] == ["cart-service-1", "cart-service-2"]


def test_the_command_says_what_is_missing_and_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    with target(changed("none", drop("x-lb-instance", "x-lb-queue-ms"))) as host:
        assert main(["--host", host]) == 1
    told = capsys.readouterr().out
    assert "What the data will lack:\n  X-LB-Instance: who served it (missing): which instance served a request" in told
    assert "verdict: lb-contract/1 is not kept: 3 required parts are not (instance_header, " in told


def test_metrics_are_read_where_they_are_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    def elsewhere(seen: Seen, reply: Reply) -> Reply | None:
        return Reply(404) if metrics(seen) else None

    with target(elsewhere) as host, target() as other:
        url = f"{other.removesuffix('/proxy')}/metrics"
        assert main(["--host", host, "--metrics", url]) == 0
        assert main(["--host", host]) == 0
    first, second = capsys.readouterr().out.split("verdict:")[:2]
    assert f"kept       {url}" in first
    assert "/stats/prometheus: answered 404" in second


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--host", "127.0.0.1"], "--host 127.0.0.1: not a URL of a web server"),
        (["--host", "http://127.0.0.1:9", "--metrics", "nowhere"], "--metrics nowhere: not a URL"),
        (["--host", "http://127.0.0.1:9", "--json", "/nowhere/x.json"], "--json /nowhere/x.json: cannot be written"),
    ],
)
def test_bad_input_is_refused_with_exit_code_2(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert complaint in capsys.readouterr().err


def test_nobody_there_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--host", f"http://127.0.0.1:{free_port()}/proxy"]) == 2
    assert (
        "none of the services answers (Connection refused); start the target, or correct the URL"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("balancer", "optional"),
    [
        (None, {"decides_itself", "orca", "service_headers"}),
        pytest.param("envoy", {"decides_itself", "metrics"}, marks=pytest.mark.balancers),
        pytest.param("haproxy", {"decides_itself", "metrics"}, marks=pytest.mark.balancers),
    ],
)
def test_the_sandbox_keeps_the_contract(balancer: str | None, optional: set[str]) -> None:
    """Whichever balancer is in front; `optional` are the parts that it need not keep."""
    if (
        balancer is not None
        and shutil.which(balancer, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") is None
    ):
        pytest.skip(f"there is no program `{balancer}`")
    load = {"time_scale": 10.0, "expect": {"cart-service GET /api/cart/summary": 50.0}, "products": [PRODUCT]}
    with sandbox_started("--healthy", *(("--balancer", balancer) if balancer is not None else ())) as sandbox:
        root = sandbox.host.removesuffix("/proxy")
        size_sandbox(root, load)  # with service times a tenth as long
        facts = look(sandbox.host, root, None)
        sandbox.stop()
    found = {one.name: one for one in judge(facts)}
    assert {name: one.found for name, one in found.items() if one.kept is not YES and name not in optional} == {}

"""Injectors against real things: a sandbox, an HTTP server, programs. Each has to make a fault and take it back."""

import http.server
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from rl_hooks.faults.injector import BUILTIN, InjectorError, make_injector
from rl_hooks.faults.sandbox import SandboxInjector
from tests.processes import sandbox_started, serving
from tests.rl_hooks.faults.made import fault

HTTP_FILE = """
normal_ms: {cart-service: 40}
headers: {X-Token: $FAULT_TOKEN}
faults:
  latency:
    apply: POST /api/degradation/latency/start?delayMs={delay_ms}&service={service}
    lift: POST /api/degradation/latency/stop
  errors:
    apply: POST /chaos/{instance}/errors
    body: {rate: "{value}", note: "{kind} {percent} %", seconds: "{duration_s}"}
    handle: id
    lift: DELETE /chaos/{handle}
"""


class Calls(http.server.BaseHTTPRequestHandler):
    """Notes every call and answers with a number of its own."""

    seen: list[tuple[str, str, Any, str | None]]
    status = 200

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append((self.command, self.path, json.loads(body) if body else None, self.headers.get("X-Token")))
        content = json.dumps({"id": f"c{len(self.seen)}"}).encode()
        self.send_response(self.status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_DELETE = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing: the test reads what matters."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Calls]]]:
    monkeypatch.setenv("FAULT_TOKEN", "secret")
    handler = type("Handler", (Calls,), {"seen": []})
    with serving(handler) as url:
        yield url, handler


def written(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "faults.yaml"
    path.write_text(content)
    return path


def test_http_calls_are_those_of_the_file(tmp_path: Path, server: tuple[str, type[Calls]]) -> None:
    root, handler = server
    injector = make_injector(f"http:{written(tmp_path, HTTP_FILE)}", root)
    assert injector is not None
    slow = fault(0, value=5.0)
    failing = fault(1, kind="errors", value=0.2, instances=("cart-service-1", "cart-service-3"))
    assert injector.problems([slow, failing]) == []
    handles = [injector.apply(slow), injector.apply(failing)]
    for one, handle in zip((slow, failing), handles, strict=True):
        injector.lift(one, handle)
    body = {"rate": 0.2, "note": "errors 20 %", "seconds": 60.0}
    assert handler.seen == [
        ("POST", "/api/degradation/latency/start?delayMs=160&service=cart-service", None, "secret"),
        ("POST", "/chaos/cart-service-1/errors", body, "secret"),
        ("POST", "/chaos/cart-service-3/errors", body, "secret"),
        ("POST", "/api/degradation/latency/stop", None, "secret"),
        ("DELETE", "/chaos/c2", None, "secret"),
        ("DELETE", "/chaos/c3", None, "secret"),
    ]


def test_an_http_call_that_is_refused_or_not_answered_is_said(tmp_path: Path, server: tuple[str, type[Calls]]) -> None:
    root, handler = server
    injector = make_injector(f"http:{written(tmp_path, HTTP_FILE)}", root)
    assert injector is not None
    handler.status = 503
    with pytest.raises(InjectorError, match=r"POST .*/latency/start\?delayMs=160&service=cart-service: answered 503"):
        injector.apply(fault())
    nowhere = make_injector(f"http:{tmp_path / 'faults.yaml'}", "http://127.0.0.1:9")
    assert nowhere is not None
    with pytest.raises(InjectorError, match=r"^POST http://127\.0\.0\.1:9/api/degradation/latency/stop: "):
        nowhere.lift(fault(), "")


def test_a_redirect_is_not_followed_with_the_secrets_of_the_headers(
    tmp_path: Path, server: tuple[str, type[Calls]]
) -> None:
    root, handler = server
    injector = make_injector(f"http:{written(tmp_path, HTTP_FILE)}", root)
    assert injector is not None
    handler.status = 302
    with pytest.raises(InjectorError, match="answered 302"):
        injector.apply(fault())
    assert len(handler.seen) == 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("faults: " + "[" * 5000, "is nested more than"),
        ("a: &a [x, x]\nfaults: {latency: *a}", "anchors and aliases are not read here"),
        (HTTP_FILE.replace("DELETE /", "DELETE http://me:s3cret@h/"), "faults.errors.lift: holds a user or a password"),
    ],
)
def test_a_hostile_file_is_refused(content: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT_TOKEN", "secret")
    with pytest.raises(InjectorError, match=re.escape(problem)) as caught:
        make_injector(f"http:{written(tmp_path, content)}", "http://127.0.0.1:9")
    assert "s3cret" not in str(caught.value)


def test_what_a_file_cannot_make_is_said_before_a_run(tmp_path: Path, server: tuple[str, type[Calls]]) -> None:
    path = written(tmp_path, HTTP_FILE)
    injector = make_injector(f"http:{path}", server[0])
    assert injector is not None
    faults = [
        fault(0, service="order-service"),
        fault(1, instances=("cart-service-1",)),
        fault(2, kind="errors", value=0.2),
        fault(3, kind="crash", value=None),
    ]
    assert injector.problems(faults) == [
        f"{path}: says nothing of crash; add faults.crash with apply and lift",
        f"{path}: {{delay_ms}} needs normal_ms.order-service, its usual response time",
        (
            f"{path}: cannot make cart-service latency 5 in single instances; use {{instance}} in faults.latency, "
            "or name no instances in the scenario"
        ),
        f"{path}: faults.errors is for one instance; name instances for cart-service errors 0.2",
    ]


def test_all_problems_of_a_file_are_said_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
timeout: 5
timeout_seconds: -1
faults:
  slow: {apply: POST /x, lift: POST /y}
  latency: {apply: start it, lift: "POST /x/{who}"}
  errors: {apply: "POST /x{", hint: 3, lift: POST /y}
  crash: {apply: POST /x}
""",
    )
    with pytest.raises(InjectorError) as caught:
        make_injector(f"http:{path}", "http://127.0.0.1:9")
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: {len(lines) - 1} problems"
    for said in (
        "unknown key 'timeout'; known are timeout_seconds, normal_ms, headers, faults",
        "timeout_seconds: -1 is not a number above 0",
        "faults: 'slow' is no kind of fault; known are latency, errors, timeouts, capacity, antagonist, crash",
        "faults.errors: must hold apply and lift, and may hold body and handle",
        "faults.crash.lift: is missing",
        "faults.latency.apply: 'start it' is no call; write for example: POST /api/degradation/latency/start?",
        "faults.latency.'POST /x/{who}': {who} is no place; known are {service}, ",
    ):
        assert any(said in line for line in lines), said


def test_a_secret_that_is_not_set_is_said(tmp_path: Path) -> None:
    path = written(tmp_path, HTTP_FILE)
    with pytest.raises(InjectorError) as caught:
        make_injector(f"http:{path}", "http://127.0.0.1:9")
    text = "headers.X-Token is $FAULT_TOKEN, but there is no such environment variable; set it"
    assert str(caught.value) == f"{path}: {text}"


def test_commands_are_run_without_a_shell(tmp_path: Path) -> None:
    note = tmp_path / "notes"
    program = f"import sys; open({str(note)!r}, 'a').write(repr(sys.argv[1:]) + '\\n'); print('h' + sys.argv[2])"
    command = json.dumps([sys.executable, "-c", program, "{kind}", "{instance}", "{value}; rm -rf $HOME"])
    lift = json.dumps([sys.executable, "-c", program, "lift", "{handle}"])
    path = written(tmp_path, f"faults: {{errors: {{apply: {command}, lift: {lift}}}}}")
    injector = make_injector(f"command:{path}", "")
    assert injector is not None
    failing = fault(kind="errors", value=0.25, instances=("a", "b"))
    assert injector.problems([failing]) == []
    injector.lift(failing, injector.apply(failing))
    assert note.read_text().splitlines() == [
        "['errors', 'a', '0.25; rm -rf $HOME']",
        "['errors', 'b', '0.25; rm -rf $HOME']",
        "['lift', 'ha']",
        "['lift', 'hb']",
    ]


def test_a_command_that_fails_or_takes_too_long_is_said(tmp_path: Path) -> None:
    fails = json.dumps([sys.executable, "-c", "import sys; sys.exit('no such pod')"])
    hangs = json.dumps([sys.executable, "-c", "import time; time.sleep(60)"])
    path = written(tmp_path, f"timeout_seconds: 0.5\nfaults: {{crash: {{apply: {fails}, lift: {hangs}}}}}")
    injector = make_injector(f"command:{path}", "")
    assert injector is not None
    with pytest.raises(InjectorError, match="ended with 1: no such pod"):
        injector.apply(fault(kind="crash", value=None))
    with pytest.raises(InjectorError, match=r"timed out after 0\.5 seconds"):
        injector.lift(fault(kind="crash", value=None), "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sandbx", "--fault-injector sandbx: is not a known name. Did you mean 'sandbox'?"),
        ("http", "--fault-injector http: needs more than its name, as in http:faults.yaml"),
        ("command:none.yaml", "none.yaml: cannot be read (No such file or directory)"),
        ("json:load_it", "--fault-injector json:load_it: json has no load_it. Did you mean 'load'?"),
        ("math:pi", "--fault-injector math:pi: is a float; name a class or a function that makes one"),
        ("builtins:str", "lacks describe, problems, apply, lift; a str cannot serve"),
        ("builtins:int", "--fault-injector builtins:int: could not be made (ValueError: invalid literal for int()"),
    ],
)
def test_an_injector_that_cannot_be_is_said(text: str, message: str) -> None:
    with pytest.raises(InjectorError) as caught:
        make_injector(text, "http://127.0.0.1:9")
    assert message in str(caught.value)


def test_none_is_no_injector_and_every_other_name_is_one_of_a_class() -> None:
    assert make_injector("none", "http://127.0.0.1:9") is None
    assert isinstance(make_injector("sandbox", "http://127.0.0.1:9"), SandboxInjector)
    assert set(BUILTIN) == {"sandbox", "http", "command"}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    with sandbox_started("--healthy") as running:
        yield running.host.removesuffix("/proxy")


@pytest.mark.parametrize(
    ("kind", "value"),
    [("latency", 5.0), ("errors", 0.2), ("timeouts", 0.2), ("capacity", 0.5), ("antagonist", 0.3), ("crash", None)],
)
@pytest.mark.parametrize("instances", [(), ("cart-service-1", "cart-service-3")])
def test_the_sandbox_makes_every_kind_and_takes_it_back(
    sandbox: str, kind: str, value: float | None, instances: tuple[str, ...]
) -> None:
    injector, one = SandboxInjector(sandbox), fault(kind=kind, value=value, instances=instances)
    assert injector.problems([one]) == []
    handle = injector.apply(one)
    acting = requests.get(f"{sandbox}/control/faults", timeout=10).json()["faults"]
    assert {(each["kind"], each["value"], each["service"]) for each in acting} == {(kind, value, "cart-service")}
    names = {name for each in acting for name in each["instances"]}
    assert names == set(instances or (f"cart-service-{number}" for number in (1, 2, 3)))
    injector.lift(one, handle)
    assert requests.get(f"{sandbox}/control/faults", timeout=10).json()["faults"] == []
    injector.lift(one, handle)  # what is over already is no problem


def test_an_instance_that_the_sandbox_does_not_have_is_said_before_a_run(sandbox: str) -> None:
    assert SandboxInjector(sandbox).problems([fault(instances=("cart-service-9",))]) == [
        "cart-service has no instance cart-service-9; there are cart-service-1, cart-service-2, cart-service-3"
    ]

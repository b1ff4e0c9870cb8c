"""The admin call by template, against a real HTTP server that notes what it is told."""

import http.server
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rl_hooks.actuators.header import BUILTIN, WITH_ARGUMENT
from rl_hooks.actuators.http import HttpActuator
from rl_hooks.actuators.http_file import read_switch_file
from rl_hooks.actuators.named import make_actuator
from rl_hooks.control import ActuatorError
from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.parts import PartError
from scenario.errors import ScenarioError
from tests.processes import serving

ROOT = Path(__file__).resolve().parents[3]
PER_SERVICE = """
call: PUT /routing/{service}
body: {use: "{algorithm}", note: "{{as it is}}"}
headers: {X-Token: $LB_TOKEN}
algorithms: {round_robin: round robin, least_loaded: lc, backpressure: bp}
"""

PROBLEMS = """
cal: is no key of such a file. Did you mean 'call'? Known are: {keys}.
call: 'fetch /x?{{algoritm}}' is no call. Write METHOD URL, for example: {example}.
call: {{algoritm}} is no place. Did you mean 'algorithm'? Known are: algorithm, service.
body: '{{service:9}}': {{service}} must hold a name and nothing else. Write {{{{ and }}}} for braces that are no place.
body: '{{': Single '{{' encountered in format string. Write {{{{ and }}}} for braces that are no place.
algorithms.least_load: is none of our actions. Did you mean 'least_loaded'? Known are: {actions}.
algorithms.backpressure: 'rr' is round_robin already. Leave one out: two names for one thing teach nothing.
algorithms.circuit_breaker: 3 is no name. Write the balancer's name as text.
expect: 200 is no list of statuses. Write for example [200, 204].
headers.A: is $NO_SUCH, but there is no such environment variable. Set it.
headers.B: the environment variable BROKEN holds no value of a header. {way_out}.
headers.C:: is no name of a header. Use letters, digits and hyphens.
headers.D: must be a text. Put it into quotes, or write $NAME of a variable.
timeout_seconds: inf is no number above 0. Give seconds, for example 2.
repeat_seconds: True is no number above 0. Give seconds, for example 2.
""".format(
    keys="algorithms, body, call, expect, headers, repeat_seconds, timeout_seconds",
    actions=", ".join(sorted(ACTIONS)),
    example="POST /api/benchmark/switch?algorithm={algorithm}",
    way_out="Use visible ASCII characters, with spaces between them",
)


class Switch(http.server.BaseHTTPRequestHandler):
    """Notes every call; answers 204, or what `answers` says of a path."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, Any, str | None]]
    answers: dict[str, int]

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append((self.command, self.path, json.loads(body) if body else None, self.headers.get("X-Token")))
        status = self.answers.get(self.path, 204)
        content = b"" if status == 204 else b"no \x1b[31mway"
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PUT = do_GET = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing: the test reads what matters."""


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Switch]]]:
    monkeypatch.setenv("LB_TOKEN", "s3cret")
    handler = type("Handler", (Switch,), {"seen": [], "answers": {}})
    with serving(handler) as url:
        yield url, handler


def written(tmp_path: Path, content: str) -> str:
    path = tmp_path / "switch.yaml"
    path.write_text(content)
    return str(path)


def everywhere(action: str, **other: str) -> dict[str, str]:
    return {**dict.fromkeys(SERVICES, action), **{name.replace("_", "-"): value for name, value in other.items()}}


def test_each_service_is_told_by_the_call_of_the_file(tmp_path: Path, switch: tuple[str, type[Switch]]) -> None:
    root, handler = switch
    file = written(tmp_path, PER_SERVICE)
    actuator: Any = make_actuator("--actuator", f"http:{file}", root)
    actuator.apply(everywhere("round_robin", cart_service="backpressure"))
    assert handler.seen == [
        (
            "PUT",
            f"/routing/{service}",
            {"use": "bp" if service == "cart-service" else "round robin", "note": "{as it is}"},
            "s3cret",
        )
        for service in SERVICES
    ]
    assert actuator.describe() == f"http:{file}"
    assert actuator.one_for_all is False
    assert actuator.missing_actions == {"fastest_response", "weighted_capacity", "circuit_breaker"}


def test_only_what_changed_since_the_last_success_is_sent(tmp_path: Path, switch: tuple[str, type[Switch]]) -> None:
    root, handler = switch
    actuator = HttpActuator(root, written(tmp_path, PER_SERVICE), now_s=lambda: 0.0)
    actuator.apply(everywhere("round_robin"))
    handler.seen.clear()
    actuator.apply(everywhere("round_robin", order_service="least_loaded"))
    assert [path for _, path, _, _ in handler.seen] == ["/routing/order-service"]
    handler.answers["/routing/cart-service"] = 503
    handler.seen.clear()
    for _ in range(2):  # what was refused is not in force, so it is asked for again
        with pytest.raises(ActuatorError):
            actuator.apply(everywhere("round_robin", order_service="least_loaded", cart_service="backpressure"))
    assert [path for _, path, _, _ in handler.seen] == ["/routing/cart-service"] * 2
    handler.seen.clear()  # and back to what was in force before: it may have been heard, so it is told
    handler.answers.clear()
    actuator.apply(everywhere("round_robin", order_service="least_loaded"))
    assert [path for _, path, _, _ in handler.seen] == ["/routing/cart-service"]


def test_what_did_not_change_is_told_again_for_a_balancer_that_forgets(
    tmp_path: Path, switch: tuple[str, type[Switch]]
) -> None:
    root, handler = switch
    now = [0.0]
    actuator = HttpActuator(root, written(tmp_path, f"{PER_SERVICE}\nrepeat_seconds: 10\n"), now_s=lambda: now[0])
    told = []
    for now[0] in (0.0, 9.9, 10.0, 19.0):
        actuator.apply(everywhere("round_robin"))
        told.append(len(handler.seen))
    assert told == [5, 5, 10, 10]


def test_services_that_did_not_take_it_are_named_and_the_others_got_it(
    tmp_path: Path, switch: tuple[str, type[Switch]]
) -> None:
    root, handler = switch
    handler.answers["/routing/cart-service"] = 500
    with pytest.raises(ActuatorError) as caught:
        HttpActuator(root, written(tmp_path, PER_SERVICE)).apply(
            everywhere("round_robin", user_service="fastest_response")
        )
    assert caught.value.services == {"user-service", "cart-service"}
    assert "the balancer has no fastest_response" in str(caught.value)
    assert f"PUT {root}/routing/{{service}}: answered 500 no \\x1b[31mway" in str(caught.value)
    assert len(handler.seen) == 4
    assert "s3cret" not in str(caught.value)


def test_one_switch_is_told_once_and_refuses_to_be_two_things(switch: tuple[str, type[Switch]]) -> None:
    root, handler = switch
    actuator = HttpActuator(root, str(ROOT / "configs/actuators/spring.yaml"))
    assert actuator.one_for_all is True
    assert actuator.missing_actions == set(ACTIONS) - {"least_loaded", "round_robin"}
    actuator.apply(everywhere("least_loaded"))
    actuator.apply(everywhere("round_robin"))
    switched = "/api/benchmark/switch?algorithm="
    assert [(method, path) for method, path, _, _ in handler.seen] == [
        ("POST", f"{switched}least-connections"),
        ("POST", f"{switched}round-robin"),
    ]
    with pytest.raises(ActuatorError, match="cannot be set to least_loaded, round_robin at once") as caught:
        actuator.apply(everywhere("least_loaded", cart_service="round_robin"))
    assert caught.value.services == set(SERVICES)
    handler.answers[f"{switched}least-connections"] = 404
    with pytest.raises(ActuatorError, match="answered 404") as caught:
        actuator.apply(everywhere("least_loaded"))
    assert caught.value.services == set(SERVICES)


def test_a_redirect_is_no_success_and_is_not_followed(tmp_path: Path, switch: tuple[str, type[Switch]]) -> None:
    root, handler = switch
    handler.answers["/s?a=lc"] = 302
    file = written(tmp_path, "call: POST /s?a={algorithm}\nalgorithms: {least_loaded: lc, round_robin: rr}\n")
    with pytest.raises(ActuatorError, match="answered 302"):
        HttpActuator(root, file).apply(everywhere("least_loaded"))
    assert len(handler.seen) == 1


def test_an_answer_without_end_holds_up_no_decision(tmp_path: Path) -> None:
    ended = threading.Event()

    class Endless(Switch):
        long = False

        def answer(self) -> None:
            self.send_response(500)
            self.end_headers()
            try:
                while not ended.wait(0 if self.long else 0.02):
                    self.wfile.write(b"no way " * (1000 if self.long else 1))
            except OSError:
                pass

        do_PUT = answer  # noqa: N815

    content = PER_SERVICE.replace("$LB_TOKEN", "token") + "timeout_seconds: 0.3\n"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        actuator = HttpActuator(f"http://127.0.0.1:{running.server_port}", written(tmp_path, content))
        with pytest.raises(ActuatorError, match=r"no answer within 0.3 s$"):
            actuator.apply(everywhere("round_robin"))
        Endless.long = True
        with pytest.raises(ActuatorError, match=r"answered 500 (no way )+no?") as caught:
            actuator.apply(everywhere("round_robin"))
        ended.set()
        running.shutdown()
    assert len(str(caught.value)) < 400


def test_a_login_in_the_url_is_refused_and_not_shown(tmp_path: Path) -> None:
    file = written(
        tmp_path, "call: POST http://me:s3cret@h/{algorithm}\nalgorithms: {least_loaded: lc, round_robin: rr}\n"
    )
    with pytest.raises(ScenarioError, match=r"call: holds a user or a password. Give it as a header") as caught:
        read_switch_file(file)
    assert "s3cret" not in str(caught.value)


def test_only_the_statuses_of_the_file_mean_yes(tmp_path: Path, switch: tuple[str, type[Switch]]) -> None:
    root, handler = switch
    file = written(
        tmp_path, "call: POST /s?a={algorithm}\nalgorithms: {least_loaded: lc, round_robin: rr}\nexpect: [409]\n"
    )
    with pytest.raises(ActuatorError, match="answered 204"):
        HttpActuator(root, file).apply(everywhere("least_loaded"))
    handler.answers["/s?a=lc"] = 409
    HttpActuator(root, file).apply(everywhere("least_loaded"))


def test_a_balancer_that_is_away_is_waited_for_once_per_decision(tmp_path: Path) -> None:
    actuator = HttpActuator("http://127.0.0.1:9", written(tmp_path, PER_SERVICE.replace("$LB_TOKEN", "token")))
    with pytest.raises(ActuatorError) as caught:
        actuator.apply(everywhere("round_robin"))
    assert caught.value.services == set(SERVICES)
    assert str(caught.value) == "PUT http://127.0.0.1:9/routing/{service}: no connection (Connection refused)"


def test_a_balancer_that_does_not_answer_is_asked_once_per_decision(tmp_path: Path) -> None:
    content = PER_SERVICE.replace("$LB_TOKEN", "token") + "timeout_seconds: 0.3\n"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        root = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(
            ActuatorError, match=r"^PUT http://\S+/routing/{service}: no answer within 0.3 s$"
        ) as caught:
            HttpActuator(root, written(tmp_path, content)).apply(everywhere("round_robin"))
        assert caught.value.services == set(SERVICES)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):  # nobody else came
            silent.accept()


def test_what_goes_wrong_is_said_in_the_same_words_whatever_was_decided(switch: tuple[str, type[Switch]]) -> None:
    """It is told once while it lasts: words that change with the decision would be told at every decision."""
    root, handler = switch
    handler.answers = {f"/api/benchmark/switch?algorithm={name}": 500 for name in ("least-connections", "round-robin")}
    said = set()
    for url in (root, "http://127.0.0.1:9"):
        actuator = HttpActuator(url, str(ROOT / "configs/actuators/spring.yaml"))
        for action in ("least_loaded", "round_robin"):
            with pytest.raises(ActuatorError) as caught:
                actuator.apply(everywhere(action))
            said.add(str(caught.value))
    assert len(said) == 2


def test_all_problems_of_a_file_are_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH", raising=False)
    monkeypatch.setenv("BROKEN", "to\nken")
    file = written(
        tmp_path,
        """
cal: POST /x
call: fetch /x?{algoritm}
body: ["{service:9}", "{"]
algorithms: {least_load: lc, round_robin: rr, backpressure: rr, circuit_breaker: 3}
expect: 200
headers: {A: $NO_SUCH, B: $BROKEN, "C:": x, D: 5}
timeout_seconds: .inf
repeat_seconds: true
""",
    )
    with pytest.raises(PartError) as caught:
        make_actuator("--actuator", f"http:{file}", "http://127.0.0.1:9")
    said = str(caught.value).splitlines()
    assert said[0] == f"--actuator http:{file}: cannot be used. {file}: 15 problems"
    assert [line.strip() for line in said[1:]] == [line.strip() for line in PROBLEMS.strip().splitlines()]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("- call\n", "the whole file: is no mapping. Begin with `call`"),
        ("call: POST /x?{algorithm}\ncall: POST /y\n", "call"),
        ("call: POST /x\nalgorithms: {round_robin: a, least_loaded: b}\n", "call: never says which algorithm"),
        ("call: POST /{algorithm}\nalgorithms: {round_robin: a}\n", "algorithms: one action leaves nothing to decide"),
        ("call: POST /{algorithm}\n", "algorithms: must map our actions to the balancer's names"),
        ("algorithms: {round_robin: a, least_loaded: b}\n", "call: is missing. Write METHOD URL"),
        ("call: [\n", "is not YAML"),
    ],
)
def test_what_is_no_file_of_a_switch_is_refused(content: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=re.escape(complaint)):
        read_switch_file(written(tmp_path, content))


@pytest.mark.parametrize("name", WITH_ARGUMENT)
def test_an_actuator_that_needs_more_than_its_name_says_so_with_an_example(name: str) -> None:
    with pytest.raises(PartError, match=f"needs more than its name, as in {name}:"):
        make_actuator("--actuator", name, "http://127.0.0.1:9")
    assert name in BUILTIN


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PartError, match=r"nowhere\.yaml: 1 problem\n  the whole file: cannot be read"):
        make_actuator("--actuator", f"http:{tmp_path / 'nowhere.yaml'}", "http://127.0.0.1:9")


@pytest.mark.parametrize("file", sorted((ROOT / "configs/actuators").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_can_be_used_as_it_stands(file: Path) -> None:
    read: Mapping[str, str] = read_switch_file(str(file)).algorithms
    assert len(read) >= 2

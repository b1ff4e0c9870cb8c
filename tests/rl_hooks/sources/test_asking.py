"""Asking over HTTP: no longer than a decision can wait, nothing without end, and credentials that nobody sees."""

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rl_hooks.control import SourceError, limit_sampling
from rl_hooks.sources import asking
from rl_hooks.sources.admin import AdminSource
from rl_hooks.sources.asking import Asked, Authorization, Session
from rl_hooks.sources.none import NoSource
from rl_hooks.sources.prometheus import PrometheusSource
from rl_hooks.sources.text import TextSource

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def say(handler: http.server.BaseHTTPRequestHandler, body: bytes, status: int = 200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


# -- slow places ------------------------------------------------------------------------------------------------------


def test_who_asks_waits_as_long_as_it_wants_and_asks_again_only_after_the_answer() -> None:
    may_answer, asked = threading.Event(), []

    def call() -> int:
        asked.append(1)
        may_answer.wait(60)
        return len(asked)

    one = Asked("there", call)
    one.begin()
    with pytest.raises(SourceError, match="there: no answer in the time that a decision can wait"):
        one.take(time.monotonic())
    one.begin()
    with pytest.raises(SourceError, match="there: an earlier question is still without an answer"):
        one.take(time.monotonic() + 60)
    may_answer.set()
    while one._open is not None and not one._open.done.is_set():
        time.sleep(0.001)
    one.begin()
    assert one.take(time.monotonic() + 60) == 2  # the late answer was not taken for that of now


@pytest.mark.parametrize("kind", ["prometheus", "text", "admin"])
def test_a_server_that_sends_a_byte_now_and_then_does_not_hold_up_a_decision(kind: str) -> None:
    ended = threading.Event()

    def trickle(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        try:
            while not ended.wait(0.02):
                handler.wfile.write(b" ")
        except OSError:
            pass

    with server(trickle) as url:
        sources = {
            "prometheus": lambda: PrometheusSource(None, url),
            "text": lambda: TextSource(None, url),
            "admin": lambda: AdminSource(url),
        }
        source = sources[kind]()
        limit_sampling(source, 0.2)
        took = []
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(SourceError, match=r"no answer in the time|earlier question"):
                source.sample()
            took.append(time.monotonic() - began)
        ended.set()
    assert min(took) < 10  # not the 2000 s that the body would take


def test_a_limit_is_told_to_those_who_take_one() -> None:
    source = TextSource(None, "http://127.0.0.1:9")
    limit_sampling(source, 1.0)
    assert source._limit_s == 0.5
    limit_sampling(source, 60.0)
    assert source._limit_s == 0.5  # never longer than before
    limit_sampling(NoSource("http://127.0.0.1:9"), 2.0)


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (500, "500 Internal Server Error it is broken"),
        (302, "302 Found it is broken"),
        (
            401,
            "401 Unauthorized it is broken; a login is given by `authorization` of a file (docs/sources.md)",
        ),
    ],
)
def test_another_status_is_an_error_with_what_was_said(status: int, problem: str) -> None:
    with server(lambda handler: say(handler, b"it is broken", status)) as url, pytest.raises(SourceError) as caught:
        Session().get(url, 10)
    assert str(caught.value) == f"GET {url}: {problem}"


def test_where_a_redirect_leads_is_said() -> None:
    def elsewhere(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "https://login.example/")
        handler.end_headers()

    with server(elsewhere) as url, pytest.raises(SourceError) as caught:
        Session().get(url, 10)
    assert str(caught.value).endswith("302 Found; redirects are not followed, this one leads to https://login.example/")


def test_what_a_server_says_moves_no_cursor() -> None:
    with (
        server(lambda handler: say(handler, b"\x1b[2J is broken", 500)) as url,
        pytest.raises(SourceError, match=r"500 Internal Server Error \\x1b\[2J is broken$"),
    ):
        Session().get(url, 10)


def test_nobody_there_is_said_in_few_words() -> None:
    with pytest.raises(SourceError) as caught:
        Session().get("http://127.0.0.1:9/api/v1/query", 10, {"query": "of many words"})
    assert str(caught.value) == "GET http://127.0.0.1:9/api/v1/query: no connection (Connection refused)"


def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "LARGEST_BYTES", 1000)
    with (
        server(lambda handler: say(handler, b" " * 100_000)) as url,
        pytest.raises(SourceError, match="the answer is longer than 1000 bytes"),
    ):
        Session().get(url, 10)


def test_what_a_prometheus_refuses_is_told_in_its_words() -> None:
    def refuse(handler: http.server.BaseHTTPRequestHandler) -> None:
        say(handler, json.dumps({"status": "error", "error": "query processing would load too many samples"}).encode())

    with server(refuse) as url, pytest.raises(SourceError, match="query processing would load too many samples"):
        PrometheusSource(None, url).sample()


def test_a_target_that_does_not_answer_leaves_its_instances_without_values() -> None:
    broken = threading.Event()

    def one(handler: http.server.BaseHTTPRequestHandler) -> None:
        say(handler, b'process_cpu_usage{pod="cart-service-1"} 0.5', 500 if broken.is_set() else 200)

    def other(handler: http.server.BaseHTTPRequestHandler) -> None:
        say(handler, b'process_cpu_usage{pod="cart-service-2"} 0.25')

    with server(one) as first, server(other) as second:
        source = TextSource(None, f"{first},{second}")
        source.limit(60)
        source._limit_s = 60
        assert [one.cpu for one in source.sample().instances] == [0.5, 0.25]
        broken.set()
        left = source.sample().instances
    assert [(one.instance, one.cpu == one.cpu, one.cpu == 0.25) for one in left] == [
        ("cart-service-1", False, False),
        ("cart-service-2", True, True),
    ]


# -- credentials ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["environment", "file"])
def test_a_credential_goes_into_the_header_and_nowhere_else(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[str | None] = []

    def note(handler: http.server.BaseHTTPRequestHandler) -> None:
        got.append(handler.headers["Authorization"])
        say(handler, b'cpu{pod="cart-service-1"} 0.5')

    token = tmp_path / "token"
    token.write_text("abc123\n")
    monkeypatch.setenv("METRICS_TOKEN", "abc123")
    named = {"environment": "METRICS_TOKEN", "file": str(token)}[place]
    with server(note) as url:
        file = tmp_path / "metrics.yaml"
        file.write_text(f"targets: ['{url}']\nauthorization: {{{place}: '{named}'}}\nfields: {{cpu: cpu}}")
        source = TextSource(None, str(file))
        source._limit_s = 60
        source.sample()
        monkeypatch.setenv("METRICS_TOKEN", "next")
        token.write_text("next")
        source.sample()
    assert got == ["Bearer abc123", "Bearer next"]  # read anew each time: tokens are replaced
    assert "abc123" not in source.describe()


def test_a_credential_that_is_gone_is_told_without_a_word_of_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"the file .*token with the authorization cannot be read"):
        Authorization(file=str(tmp_path / "token")).headers()
    (tmp_path / "token").write_text("a\nb")
    with pytest.raises(SourceError, match="is empty or has several lines; put one value there"):
        Authorization(file=str(tmp_path / "token")).headers()

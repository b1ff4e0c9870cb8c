"""Asking over HTTP for no longer than a decision can wait.

A timeout of a socket is one for each read, and none for a name that does not resolve: a server that sends a byte now
and then would hold up the decisions for as long as it likes. So each place is asked in a thread of its own, and who
asked waits for it as long as it wants to and no longer.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import requests

from rl_hooks.control import SourceError
from rl_hooks.http_call import no_answer, readable

LARGEST_BYTES = 32 << 20
_CHUNK_BYTES = 64 << 10

T = TypeVar("T")


class _Question(Generic[T]):
    """One call, and what came of it."""

    def __init__(self, call: Callable[[], T]) -> None:
        self.done = threading.Event()
        self.answer: T
        self.error: Exception | None = None
        self._call = call
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self.answer = self._call()
        except Exception as error:  # noqa: BLE001  (raised again where somebody waits for it)
            self.error = error
        self.done.set()


class Asked(Generic[T]):
    """What asks one place; never two questions at a time."""

    def __init__(self, what: str, call: Callable[[], T]) -> None:
        self._what = what
        self._call = call
        self._open: _Question[T] | None = None
        self._late = False

    def begin(self) -> None:
        """Ask, unless the question before is still open."""
        self._late = self._open is not None and not self._open.done.is_set()
        if not self._late:
            self._open = _Question(self._call)

    def take(self, deadline_s: float) -> T:
        """The answer, waited for until `deadline_s` of time.monotonic(). SourceError whatever the call raised."""
        assert self._open is not None, "begin comes first"
        if self._late:
            raise SourceError(f"{self._what}: an earlier question is still without an answer")
        if not self._open.done.wait(max(0.0, deadline_s - time.monotonic())):
            raise SourceError(f"{self._what}: no answer in the time that a decision can wait")
        error = self._open.error
        if isinstance(error, SourceError):
            raise error
        if error is not None:
            raise SourceError(f"{self._what}: {type(error).__name__}: {error}") from error
        return self._open.answer


@dataclass(frozen=True)
class Authorization:
    """A header whose value is in an environment variable or a file, so that no command, file or manifest holds it."""

    header: str = "Authorization"
    scheme: str = "Bearer"  # before the value; empty: the value as it is
    environment: str | None = None
    file: str | None = None

    def headers(self) -> dict[str, str]:
        """Read anew each time: tokens of a service account are replaced while a run goes on. Raises SourceError."""
        if self.environment is not None:
            value = os.environ.get(self.environment, "")
            place = f"the environment variable {self.environment}"
        else:
            place = f"the file {self.file}"
            try:
                value = Path(str(self.file)).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise SourceError(f"{place} with the authorization cannot be read ({error})") from error
        if not value.strip() or "\n" in value.strip():
            raise SourceError(f"{place} with the authorization is empty or has several lines; put one value there")
        return {self.header: f"{self.scheme} {value.strip()}".strip()}


def problem_of_url(url: object) -> str | None:
    """What is wrong with a URL; None: nothing."""
    if not isinstance(url, str):
        return f"{url!r} is no URL, for example http://127.0.0.1:9090"
    try:
        parts = urlsplit(url)
        port_is_one = parts.port is None or parts.port > 0
    except ValueError:
        port_is_one = False
    if not port_is_one or parts.scheme not in ("http", "https") or not parts.hostname:
        return f"{url!r} is no URL, for example http://127.0.0.1:9090"
    if parts.username is not None or parts.password is not None:
        return "a URL with a user or a password would end in the manifest; use a file with `authorization`"
    return None


class Session:
    """HTTP to one place over one kept connection; used by one thread at a time."""

    def __init__(self, authorization: Authorization | None = None) -> None:
        self._authorization = authorization
        self._session = requests.Session()

    def get(self, url: str, timeout_s: float, params: Mapping[str, str] | None = None) -> bytes:
        """The body of an answer with status 200. Raises SourceError."""
        headers = self._authorization.headers() if self._authorization is not None else {}
        until_s = time.monotonic() + timeout_s
        try:
            with self._session.get(
                url, params=params, headers=headers, timeout=timeout_s, stream=True, allow_redirects=False
            ) as answer:
                body = b"".join(_chunks(answer, until_s))
        except requests.RequestException as error:
            raise SourceError(f"GET {url}: {no_answer(error, timeout_s)}") from error
        except _TooMuchError as error:
            raise SourceError(f"GET {url}: {error}") from error
        if answer.status_code != 200:
            said = readable(f"{answer.reason} {body[:200].decode('utf-8', 'replace')}")
            raise SourceError(f"GET {url}: {answer.status_code} {said}".rstrip() + _way_out(answer))
        return body


def _way_out(answer: requests.Response) -> str:
    """What helps where who asks is not let in; "" where that is not the matter."""
    if answer.status_code in (401, 403):
        return "; a login is given by `authorization` of a file (docs/sources.md)"
    if answer.is_redirect:
        return f"; redirects are not followed, this one leads to {readable(answer.headers['Location'])}"
    return ""


class _TooMuchError(Exception):
    pass


def _chunks(answer: requests.Response, until_s: float) -> "list[bytes]":
    found, size = [], 0
    for chunk in answer.iter_content(_CHUNK_BYTES):
        found.append(chunk)
        size += len(chunk)
        if size > LARGEST_BYTES:
            raise _TooMuchError(f"the answer is longer than {LARGEST_BYTES} bytes; ask for less")
        if time.monotonic() > until_s:
            raise _TooMuchError("the answer took longer than the timeout")
    return found

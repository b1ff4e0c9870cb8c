"""HTTP calls as a file describes them, with places (`rl_hooks.places`) for what differs from call to call.

A call is `METHOD URL`. A URL that begins with / is one of the target's root. A header whose value is `$NAME` takes it
from the environment, so that no secret stands in a file; no message and no manifest ever holds the value.
"""

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import requests

from rl_hooks.places import fill

_CALL = re.compile(r"(GET|POST|PUT|PATCH|DELETE) (https?://\S+|/\S*)")
_LOGIN = re.compile(r"://[^/?#]*@")
_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")  # of a header: visible ASCII, spaces within
_SHOWN_CHARS = 200
LARGEST_BYTES = 4096
"""Of an answer. What is asked for is a yes and, of a fault, its handle; the rest of a longer answer is not read."""


class CallError(Exception):
    """A call that was not answered, or not as it should have been."""


# -- what a file may say ----------------------------------------------------------------------------------------------


def is_call(call: object) -> bool:
    return isinstance(call, str) and _CALL.fullmatch(call) is not None


def holds_login(text: object) -> bool:
    """Whether a URL in a text has a user or a password; messages and manifests would show them.

    >>> holds_login("POST http://me:secret@h/x"), holds_login("POST http://h/x?to=me@home")
    (True, False)
    """
    return isinstance(text, str) and _LOGIN.search(text) is not None


def header_value(text: str) -> str:
    """What a header's text in a file stands for. ValueError with the way out, never with the value."""
    value = text
    if text.startswith("$"):
        found = os.environ.get(text[1:])
        if found is None:
            raise ValueError(f"is {text}, but there is no such environment variable; set it")
        value = found
    if not _VALUE.fullmatch(value):
        where = f"the environment variable {text[1:]} holds" if value is not text else "is"
        raise ValueError(f"{where} no value of a header; use visible ASCII characters, with spaces between them")
    return value


# -- making a call ----------------------------------------------------------------------------------------------------


def address_of(root: str, call: str, values: Mapping[str, str]) -> tuple[str, str]:
    """Method and URL of a call, its places filled and quoted.

    >>> address_of("http://h:8080", "POST /switch?algorithm={algorithm}", {"algorithm": "round robin"})
    ('POST', 'http://h:8080/switch?algorithm=round%20robin')
    """
    method, url = call.split(" ", 1)
    filled = fill(url, {name: quote(value, safe="") for name, value in values.items()})
    return method, f"{root}{filled}" if filled.startswith("/") else filled


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    text: str  # the first LARGEST_BYTES


def send(session: requests.Session, method: str, url: str, timeout_s: float, shown: str, **about: Any) -> Answer:
    """The answer to one call; `about` as `requests` takes it. Raises CallError when there is none.

    `shown` is what a message calls the call. What goes wrong for a while is told once, so it should not change with
    what the places are filled with. A redirect is an answer like any other: followed, it would turn a POST into a GET
    and carry the headers elsewhere.
    """
    until_s = time.monotonic() + timeout_s
    try:
        with session.request(method, url, timeout=timeout_s, stream=True, allow_redirects=False, **about) as answer:
            return Answer(answer.status_code, _start_of(answer, until_s).decode("utf-8", "replace"))
    except (requests.RequestException, TimeoutError) as error:
        raise CallError(f"{shown}: {no_answer(error, timeout_s)}") from error


def _start_of(answer: requests.Response, until_s: float) -> bytes:
    """The first bytes, one at a time: the timeout of a socket begins anew with each, and decisions wait for this."""
    found = bytearray()
    for byte in answer.iter_content(1):
        found += byte
        if len(found) >= LARGEST_BYTES:
            break
        if time.monotonic() > until_s:
            raise TimeoutError
    return bytes(found)


def no_answer(error: Exception, timeout_s: float) -> str:
    """What went wrong, in few words: the library's own hold the whole query and names of its classes."""
    if isinstance(error, requests.Timeout | TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, requests.ConnectionError):
        return f"no connection{_why(error)}"
    return str(error)


def _why(error: BaseException) -> str:
    """What the system says is wrong with a connection; "" when it does not."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno is not None and found.strerror:
            return f" ({found.strerror})"
        inner = getattr(found, "reason", None) or next((one for one in found.args if isinstance(one, Exception)), None)
        found = found.__cause__ or found.__context__ or (inner if isinstance(inner, Exception) else None)
    return ""


def answered(shown: str, answer: Answer) -> CallError:
    """The error that says that this answer is not the one that was hoped for."""
    return CallError(f"{shown}: answered {answer.status} {readable(answer.text)}".rstrip())


def readable(text: str) -> str:
    """The start of what somebody else sent, for a message: nothing in it moves a cursor.

    >>> readable("no\\x1b[2J way")
    'no\\\\x1b[2J way'
    """
    start = text.strip()[:_SHOWN_CHARS]
    return start if start.isprintable() else ascii(start)[1:-1]

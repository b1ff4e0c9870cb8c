"""HTTP calls as a file describes them, with places (`rl_hooks.places`) for what differs from call to call.

A call is `METHOD URL`. A URL that begins with / is one of the target's root. A header whose value is `$NAME` takes it
from the environment, so that no secret stands in a file; no message and no manifest ever holds the value.
"""

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import requests

from rl_hooks.places import fill

_CALL = re.compile(r"(GET|POST|PUT|PATCH|DELETE) (https?://\S+|/\S*)")
_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")  # of a header: visible ASCII, spaces within
_SHOWN_CHARS = 200


class CallError(Exception):
    """A call that was not answered, or not as it should have been."""


# -- what a file may say ----------------------------------------------------------------------------------------------


def is_call(call: object) -> bool:
    return isinstance(call, str) and _CALL.fullmatch(call) is not None


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


def send(
    session: requests.Session, method: str, url: str, timeout_s: float, shown: str, **about: Any
) -> requests.Response:
    """The answer to one call; `about` as `requests` takes it. Raises CallError when there is none.

    `shown` is what a message calls the call. What goes wrong for a while is told once, so it should not change with
    what the places are filled with.
    """
    try:
        return session.request(method, url, timeout=timeout_s, **about)
    except requests.RequestException as error:
        raise CallError(f"{shown}: {no_answer(error, timeout_s)}") from error


def no_answer(error: requests.RequestException, timeout_s: float) -> str:
    """What went wrong, in few words: the library's own hold the whole query and names of its classes."""
    if isinstance(error, requests.Timeout):
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


def answered(shown: str, answer: requests.Response) -> CallError:
    """The error that says that this answer is not the one that was hoped for."""
    text = answer.text[:_SHOWN_CHARS]
    readable = text if text.isprintable() else ascii(text)[1:-1]
    return CallError(f"{shown}: answered {answer.status_code} {readable}".rstrip())

"""What a balancer's access log tells about its requests: a follower of a file of JSON lines, one object a line.

field                                   meaning
event                                   "start" or "end"; "end" where it is not given
start_ns | start_us | start_ms | start  when the request came: whole units since 1970, or ISO 8601 with a zone
service                                 one of decision.SERVICES; null, "" or "-": the balancer knew none
method, path                            as asked; what varies in a path becomes {} (see `template`)
duration_us | duration_ms               until the answer was sent; only at the end, as all below
status                                  answered to the client; 499: the client went away; 0: no answer
action, instance                        what served it; "-" or nothing: not known, none
upstream_us | _ms, queue_us | _ms       time at the instance and in its queue; optional
backend_status                          of the service itself, where it can differ; optional
request_id                              32 hex digits, also as UUID; unique; needed where starts are told

Other fields are ignored, and a number may be written as a string: not every balancer can do otherwise. Lines of other
services and methods are counted and left out. A line that cannot be read is counted, and the first one is told.

Without starts nobody knows from the log how many requests are in flight; whoever uses it has to treat that as missing.
"""

import functools
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from rl_hooks.control import SourceError
from rl_hooks.decision import ACTION_INDEX, HOUR_US, NO_INSTANCE, SERVICE_INDEX
from rl_hooks.row import Method

MAX_LINE_BYTES = 16 * 1024
READ_BYTES = 1 << 20
POLL_BYTES = 64 << 20  # of one poll; the rest waits for the next one
LONGEST_DURATION_US = (1 << 32) - 2  # 71 minutes, what a request row holds
LONGEST_TEMPLATE = 100
YEAR_2000_NS, YEAR_2200_NS = 946_684_800 * 10**9, 7_258_118_400 * 10**9

_METHODS = {method.name: int(method) for method in Method}
_NO_INSTANCES = (NO_INSTANCE, "<NOSRV>")  # the second is HAProxy's
_REQUEST_ID = re.compile(r"[0-9a-fA-F]{32}")
_NS_OF = {"_ns": 1, "_us": 1000, "_ms": 1_000_000}


class LineError(ValueError):
    """A line that cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line. What follows `request_id` belongs to the end of a request."""

    ended: bool
    start_ns: int
    service: int
    method: int
    endpoint: str  # method and path template
    request_id: tuple[int, int]  # upper and lower 64 bits; zeros: not told
    duration_us: int = 0
    status: int = 0
    backend_status: int = 0  # 0: not told
    action: int | None = None
    instance: str = ""  # "": none, or not told
    upstream_us: int | None = None
    queue_us: int | None = None

    @property
    def moment_ns(self) -> int:
        """Of what it tells."""
        return self.start_ns + self.duration_us * 1000


def parse_line(text: bytes) -> Line | None:
    """What a line says; None when it is about another service or method. Raises LineError."""
    try:
        given = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise LineError("is not JSON") from error
    if not isinstance(given, dict):
        raise LineError("is not a JSON object")
    event = given.get("event", "end")
    if event not in ("start", "end"):
        raise LineError("event is neither start nor end")
    if given.get("service", ...) in (None, "", NO_INSTANCE):
        return None  # the balancer knew no service for it
    service, method, path = (_text(given, name) for name in ("service", "method", "path"))
    if service not in SERVICE_INDEX or method not in _METHODS:
        return None
    about = (_start_ns(given), SERVICE_INDEX[service], _METHODS[method], f"{method} {template(path)}")
    request_id = _request_id(given)
    if event == "start":
        if request_id == (0, 0):
            raise LineError("request_id is not there, so its end could not be found")
        return Line(False, *about, request_id)
    duration_us = _time_us(given, "duration")
    if duration_us is None or duration_us > LONGEST_DURATION_US:
        raise LineError("duration_us is not there" if duration_us is None else "duration_us is longer than 71 minutes")
    instance = given.get("instance")
    action = given.get("action")
    return Line(
        True,
        *about,
        request_id,
        duration_us,
        _status(given, "status"),
        _status(given, "backend_status") if given.get("backend_status") not in (None, "", NO_INSTANCE) else 0,
        ACTION_INDEX.get(action) if isinstance(action, str) else None,
        instance if isinstance(instance, str) and instance not in _NO_INSTANCES else "",
        _known_us(given, "upstream"),
        _known_us(given, "queue"),
    )


@functools.lru_cache(maxsize=4096)
def template(path: str) -> str:
    """The path without what varies from request to request: the query, and every part with a digit or very long.

    >>> template("/api/orders/4711/items?page=2")
    '/api/orders/{}/items'
    """
    parts = path.partition("?")[0].split("/")
    plain = "/".join("{}" if len(part) > 32 or any(map(str.isdigit, part)) else part for part in parts)
    return plain if len(plain) <= LONGEST_TEMPLATE else f"{plain[:LONGEST_TEMPLATE]}..."


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise LineError(f"{name} is not there" if value is None else f"{name} is not a text")
    return value


def _number(name: str, value: Any) -> int | float:
    """A finite number; a balancer may write it as a text."""
    if type(value) is int and -YEAR_2200_NS < value < YEAR_2200_NS:
        return value  # as it nearly always is
    try:
        if isinstance(value, str):
            value = int(value) if value.isdigit() else float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return value
    except (ValueError, OverflowError):
        pass  # told below, like every other value that is none
    raise LineError(f"{name} is not a number")


def _start_ns(given: Mapping[str, Any]) -> int:
    for unit, factor in _NS_OF.items():
        if f"start{unit}" in given:
            start_ns = round(_number(f"start{unit}", given[f"start{unit}"]) * factor)
            break
    else:
        start_ns = _iso_ns(_text(given, "start"))
    if not YEAR_2000_NS <= start_ns < YEAR_2200_NS:
        raise LineError("its start is not a time of this century or the next")
    return start_ns


def _iso_ns(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise LineError("start is not a time in ISO 8601") from error
    if moment.tzinfo is None:
        raise LineError("start has no time zone")
    return round(moment.timestamp() * 1e6) * 1000


def _time_us(given: Mapping[str, Any], name: str) -> int | None:
    """A length of time, which is at least 0."""
    for unit in ("_us", "_ms"):
        value = given.get(f"{name}{unit}")
        if value is not None:
            length_us = round(_number(f"{name}{unit}", value) * _NS_OF[unit] / 1000)
            if length_us < 0:
                raise LineError(f"{name}{unit} is below 0")
            return length_us
    return None


def _known_us(given: Mapping[str, Any], name: str) -> int | None:
    """The same where it may be missing: not told, "-", below 0 as some balancers write it, or not to be believed."""
    try:
        length_us = _time_us(given, name)
    except LineError:
        return None
    return length_us if length_us is not None and length_us <= HOUR_US else None


def _status(given: Mapping[str, Any], name: str) -> int:
    if given.get(name) is None:
        raise LineError(f"{name} is not there")
    status = max(0, _number(name, given[name]))  # HAProxy writes -1 for no answer
    if not status <= 999 or status != int(status):
        raise LineError(f"{name} is not an HTTP status")
    return int(status)


def _request_id(given: Mapping[str, Any]) -> tuple[int, int]:
    value = given.get("request_id")
    if value in (None, "", NO_INSTANCE):
        return 0, 0
    plain = value.replace("-", "") if isinstance(value, str) else ""
    if not _REQUEST_ID.fullmatch(plain):
        raise LineError("request_id is not 32 hex digits or a UUID")
    return int(plain[:16], 16), int(plain[16:], 16)


class AccessLogFollower:
    """Reads the lines that are added to a file from now on, each once.

    The file may come later, be renamed and made anew (the old one is read to its end), or be cut to nothing and go on.
    A last line without an end of line waits for the rest of it. Raises SourceError when `path` cannot be such a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0  # read, of any kind
        self.others = 0  # of these, about other services or methods
        self.unreadable = 0  # of these, not to be understood
        self.first_unreadable: str | None = None  # why, and what it looked like
        self.trouble: str | None = None  # why nothing can be read now; None: it can
        self._file: BinaryIO | None = None
        self._identity = (0, 0)
        self._rest = b""  # of a line whose end has not come yet
        self._skipping = False  # to the end of a line that is too long, or whose beginning was not seen
        if path.exists() and not path.is_file():
            raise SourceError(f"{path}: not a file; name the balancer's access log")
        if not path.parent.is_dir():
            raise SourceError(f"{path}: there is no folder {path.parent}; name the balancer's access log")
        self._open(at_end=True)

    def describe(self) -> str:
        return f"access log {self.path}"

    def poll(self) -> list[Line]:
        """The new lines that are about our services, in order of the file. Never raises: see `trouble`."""
        found: list[Line] = []
        left = POLL_BYTES
        try:
            while left > 0:
                left -= self._read(found, left)
                if left <= 0 or not self._has_successor():
                    break
                self._read(found, left)  # what came between the last reading and the renaming
                self._lose_rest("the log was renamed within it")
                self._open(at_end=False)
            if self._file is not None:
                self.trouble = None
        except OSError as error:
            self.trouble = f"{self.path}: cannot be read ({error.strerror})"
        return found

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, *, at_end: bool) -> None:
        self.close()
        try:
            self._file = file = self.path.open("rb", buffering=0)
        except OSError as error:
            self.trouble = f"{self.path}: cannot be read ({error.strerror})"
            return
        facts = os.fstat(file.fileno())
        self._identity = facts.st_dev, facts.st_ino
        if at_end and facts.st_size:
            file.seek(facts.st_size - 1)
            self._skipping = file.read(1) != b"\n"

    def _has_successor(self) -> bool:
        """Whether the name now stands for another file."""
        try:
            facts = self.path.stat()
        except FileNotFoundError:
            if self._file is None:
                self.trouble = f"{self.path}: there is no such file yet"
            return False
        return stat.S_ISREG(facts.st_mode) and (self._file is None or (facts.st_dev, facts.st_ino) != self._identity)

    def _read(self, found: list[Line], most: int) -> int:
        """Read to the end, or about `most` bytes; how many it were."""
        if self._file is None:
            return 0
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._lose_rest("the log was cut within it")
            self._file.seek(0)
        done = 0
        while done < most:
            content = self._file.read(READ_BYTES)
            if not content:
                break
            done += len(content)
            for text in self._whole_lines(content):
                self._take(text, found)
        return done

    def _whole_lines(self, content: bytes) -> Iterator[bytes]:
        *whole, rest = (self._rest + content).split(b"\n")
        self._rest = b""
        for text in whole:
            if self._skipping:
                self._skipping = False
            else:
                yield text
        if len(rest) > MAX_LINE_BYTES and not self._skipping:
            self._note_unreadable(f"is longer than {MAX_LINE_BYTES} bytes", rest)
            self._skipping = True
        if not self._skipping:
            self._rest = rest

    def _lose_rest(self, why: str) -> None:
        if self._rest:
            self._note_unreadable(f"has no end, {why}", self._rest)
        self._rest, self._skipping = b"", False

    def _take(self, text: bytes, found: list[Line]) -> None:
        if not text.strip():
            return
        if len(text) > MAX_LINE_BYTES:
            self._note_unreadable(f"is longer than {MAX_LINE_BYTES} bytes", text)
            return
        try:
            line = parse_line(text)
        except LineError as error:
            self._note_unreadable(str(error), text)
            return
        self.lines += 1
        if line is None:
            self.others += 1
        else:
            found.append(line)

    def _note_unreadable(self, why: str, text: bytes) -> None:
        self.lines += 1
        self.unreadable += 1
        if self.first_unreadable is None:
            shown = text[:80].decode("utf-8", "replace")
            self.first_unreadable = f"{why}: {shown!r}{'...' if len(text) > 80 else ''}"

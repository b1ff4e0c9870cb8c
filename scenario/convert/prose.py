"""What goes wrong in a service, told in words: "5x normal response time" is a latency_factor of 5.

A text is cut into clauses, and every clause has to be understood as a whole: what is left over might be the point.
"""

import re
from collections.abc import Callable
from typing import Any

from scenario.convert.values import Number, number_of, percent_of, plain_key, share_of, tidy
from scenario.model import SERVICES, one_service

Conditions = dict[str, Any]

_WORDS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "twice": 2,
}  # fmt: skip
_N = r"(\d+(?:\.\d+)?|\.\d+)"
_X = r"(?:x|times)"
_TIME = r"(?:response[ _-]?times?|latency|latencies|delays?)"
_MORE = r"(?:increased?|rise|more|higher|slower|longer|slowdown)"
_SLOW = rf"(?:(?:slower|longer|higher|slowdown|slow)|(?:slower |longer |higher )?{_TIME}(?: increase)?)"
_USUAL = r"(?:normal|usual|baseline|regular|average)"
_ALL = r"(?:all |the |its |incoming )*"
_REQUESTS = r"(?:requests?|calls?|operations?|transactions?|responses?)"
_FAIL = r"(?:fail|fails|failing|are failing|failures?|errors?|error out|return (?:errors?|5xx)|are dropped|5xx errors?)"
_HANG = r"(?:time ?-?outs?|timing out|are timing out|hang|hanging)"


def _as_it_is(number: float) -> float:
    return number


def _percent(number: float) -> float:
    return number / 100


def _increase(number: float) -> float:
    return 1 + number / 100


def _decrease(number: float) -> float:
    return 1 - number / 100


_RULES: tuple[tuple[str, str, Callable[[float], float]], ...] = (
    (rf"{_N} ?{_X} (?:as |the )?(?:{_USUAL} )?{_SLOW}", "latency_factor", _as_it_is),
    (
        rf"{_TIME} (?:is |increase[sd] |rises |up )?(?:to |by |of )?{_N} ?{_X}(?: {_USUAL})?",
        "latency_factor",
        _as_it_is,
    ),
    (rf"{_N} ?{_X} as (?:slow|long)", "latency_factor", _as_it_is),
    (rf"{_N}% {_MORE}(?: (?:in |of )?(?:the )?{_TIME})?", "latency_factor", _increase),
    (rf"{_N}% {_TIME} increase", "latency_factor", _increase),
    (rf"{_TIME} (?:is |was )?(?:increase[sd]?|rises?|up|higher)(?: by)? {_N}%", "latency_factor", _increase),
    (rf"{_N}% of (?:the )?{_USUAL}(?: {_TIME})?", "latency_factor", _percent),
    (rf"{_TIME} (?:at |to |of )?{_N}% of (?:the )?{_USUAL}", "latency_factor", _percent),
    (rf"{_N}% (?:of )?{_ALL}{_REQUESTS} {_FAIL}", "error_rate", _percent),
    (rf"{_N}% (?:of )?{_ALL}{_REQUESTS} {_HANG}", "timeout_rate", _percent),
    (rf"{_N}% (?:error|failure|fail|failed)(?: rate| responses| requests)?", "error_rate", _percent),
    (rf"{_N}% (?:errors|failures|request failures)", "error_rate", _percent),
    (rf"{_N}% time-?outs?(?: rate)?", "timeout_rate", _percent),
    (rf"(?:error|failure)(?:s| rate)? ?(?:of |at |is |to |: ?)?{_N}%", "error_rate", _percent),
    (rf"timeouts?(?: rate)? ?(?:of |at |is |to |: ?)?{_N}%", "timeout_rate", _percent),
    (rf"{_N}% (?:of )?(?:its |the |normal )*capacity", "capacity", _percent),
    (rf"capacity (?:is |at |drops |reduced |limited )*(?:to )?{_N}%", "capacity", _percent),
    (rf"capacity (?:is )?reduced by {_N}%", "capacity", _decrease),
    (rf"{_N}% (?:reduced capacity|capacity reduction|capacity loss)", "capacity", _decrease),
    (rf"{_N}% (?:of )?(?:the )?cpu (?:is )?(?:stolen|taken(?: by others)?|contention|stress)", "antagonist", _percent),
)
_COMPILED = tuple((re.compile(pattern), key, value) for pattern, key, value in _RULES)
_DOWN = re.compile(
    r"(?:is |service |goes |complete(?:ly)? |total |full )*"
    r"(?:down|crash(?:es|ed)?|unavailable|outage|offline|not available)"
)
_FINE = re.compile(
    r"(?:(?:all )?(?:services? )?(?:is |are |back to |return to |returns to )*)?"
    r"(?:normal(?: operations?| conditions?)?|healthy|none|no (?:faults?|issues|failures?|degradation)|"
    r"(?:full )?recover(?:y|ed|s)?|restored|ok|baseline)"
)
_SERVICE_WORDS = {service.removesuffix("-service"): service for service in SERVICES}
_LONGEST = 300

HINTS = (
    ("timeout_rate", ("timeout", "time_out", "hang")),
    ("latency_factor", ("latency", "slow", "delay", "response_time", "degradation")),
    ("error_rate", ("error", "fail", "5xx")),
    ("capacity", ("capacity",)),
    ("antagonist", ("antagonist", "cpu", "noisy")),
    ("crash", ("crash", "down", "outage", "unavailable")),
)


def conditions_of(text: str, hint: str | None = None) -> Conditions | None:
    """The conditions that a text tells; {} when it says that all is well, None when a part of it is not understood.

    `hint` is the condition that the text is about, for a bare number such as "5x" or "30%".

    >>> conditions_of("5x normal response time, 20% of requests fail")
    {'latency_factor': 5, 'error_rate': 0.2}
    >>> conditions_of("200% increase")
    {'latency_factor': 3}
    >>> conditions_of("things get slow") is None
    True
    """
    if len(text) > _LONGEST:
        return None
    found: Conditions = {}
    fine = False
    for clause in _clauses(text):
        read = _clause(clause, hint)
        if read is None:
            return None
        key, value = read
        if not key:
            fine = True
        elif found.setdefault(key, value) != value:
            return None  # it says two things about one
    return found if found or fine else None


def value_of(key: str, value: Any) -> Number | bool | None:
    """The value of one condition: a number, "30%", "5x", or a text that tells this condition and no other."""
    if key == "crash":
        return value if isinstance(value, bool) else {"true": True, "yes": True, "false": False}.get(str(value).lower())
    if isinstance(value, str) and number_of(value) is None and percent_of(value) is None:
        told = conditions_of(value, key)
        return told.get(key) if told and len(told) == 1 else None
    if key == "latency_factor":
        share = percent_of(value)
        return number_of(value) if share is None else share
    return share_of(value)


def hint_of(word: str) -> str | None:
    """The condition that a name such as slow_response or service_timeout is about."""
    plain = plain_key(word)
    return next((key for key, words in HINTS if any(one in plain for one in words)), None)


def service_of(name: str) -> str | None:
    """The service a name means, in more spellings than the loader knows.

    >>> [service_of(name) for name in ("cart_service", "Cart Service", "cartService", "checkout")]
    ['cart-service', 'cart-service', 'cart-service', None]
    """
    return one_service(plain_key(name))


def service_in(text: str) -> tuple[str | None, str]:
    """The one service that a text names at its start or end, and the text without it."""
    for word, service in _SERVICE_WORDS.items():
        name = rf"(?:the )?{word}(?:[ _-]?service)?"
        for pattern in (rf"\s*{name}\b\s*[:,-]?\s*(.+)", rf"\s*(.+?)\s*(?:in|at|for|on|of) {name}\s*"):
            match = re.fullmatch(pattern, text, re.IGNORECASE)
            if match:
                return service, match[1]
        match = re.fullmatch(rf"(\s*{_N} ?%? (?:of )?(?:the |all )*){name} ({_REQUESTS}.*)", text, re.IGNORECASE)
        if match:
            return service, f"{match[1]}{match[3]}"
    return None, text


def _clauses(text: str) -> list[str]:
    plain = re.sub(r"\s+", " ", text.replace("\u00d7", "x").strip().lower().rstrip("."))
    plain = re.sub(r"(\d) %| percent\b", lambda match: f"{match[1] or ''}%", plain)
    for word, value in _WORDS.items():
        plain = re.sub(
            rf"\b{word}\b(?= (?:times|as|the|normal))", f"{value} times" if word == "twice" else f"{value}", plain
        )
    plain = re.sub(r"\bhalf(?= of)", "50%", plain)
    plain = re.sub(r"\ball requests\b(?! are)(?= (?:fail|time))", "100% of requests", plain)
    return [one for one in re.split(r"\s*(?:[,;&+/]| and | with | plus )\s*", plain) if one]


def _clause(clause: str, hint: str | None) -> tuple[str, Number | bool] | None:
    for pattern, key, value in _COMPILED:
        match = pattern.fullmatch(clause)
        if match:
            return key, tidy(value(float(match[1])))
    if _DOWN.fullmatch(clause):
        return "crash", True
    if _FINE.fullmatch(clause):
        return "", True
    return _bare(clause, hint)


def _bare(clause: str, hint: str | None) -> tuple[str, Number | bool] | None:
    match = re.fullmatch(rf"{_N} ?(?:x|times)(?: {_USUAL})?", clause)
    if match and hint == "latency_factor":
        return "latency_factor", tidy(float(match[1]))
    match = re.fullmatch(rf"{_N}%(?: {_USUAL})?", clause)
    if match and hint not in ("crash", None):
        return str(hint), tidy(float(match[1]) / 100)
    return None

"""What was asked of a balancer and what came back: all that is judged. No HTTP in here."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from rl_hooks.decision import SERVICES

CONTRACT = "lb-contract/1"
UNKNOWN_ACTION = "conformance_unknown"
UNKNOWN_PIN = "conformance-no-such-instance"
UNKNOWN_SERVICE = "conformance-no-such-service"


class Why(StrEnum):
    """Why a request was made."""

    HEALTH = "health"
    ASKED = "asked"  # one action, twice in a row
    MIXED = "mixed"  # all actions in turn, on several connections at once
    ABSENT = "absent"  # no action asked for
    UNKNOWN = "unknown"  # an action that does not exist
    PINNED = "pinned"
    UNKNOWN_PIN = "unknown pin"
    NOT_FOUND = "not found"  # something that the service does not have
    NO_SERVICE = "unknown service"
    MALFORMED = "malformed JSON"
    METHOD = "method PATCH"


OF_SERVICES = (Why.ASKED, Why.MIXED, Why.ABSENT, Why.UNKNOWN, Why.PINNED, Why.UNKNOWN_PIN, Why.NOT_FOUND)
"""Requests that an instance answers."""
OF_THE_BALANCER = (Why.NO_SERVICE, Why.MALFORMED, Why.METHOD)
"""Requests that the balancer may have to answer by itself."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to its end."""

    status: int
    headers: tuple[tuple[str, str], ...]  # as they came, one twice is there twice; names in lower case
    body: bytes  # no more than a page of it
    duration_us: int
    reused: bool  # the connection had carried a request before

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for found, value in self.headers if found == name.lower()]

    def get(self, name: str) -> str | None:
        """The value of a header that is there once, or several times with one value; None where nobody can tell."""
        values = set(self.all(name))
        return values.pop() if len(values) == 1 else None


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, and its answer."""

    why: Why
    service: str
    trace_id: str
    action: str | None  # as the request's header said
    pin: str | None
    answer: Answer | None
    error: str = ""  # why there is no answer


@dataclass(frozen=True, slots=True)
class Page:
    """A page at the balancer's root, or why there is none."""

    url: str
    answer: Answer | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was found out about one target."""

    host: str
    asks: tuple[Ask, ...]
    metrics: tuple[Page, ...]  # places where metrics were looked for
    admin: Page | None
    duration_s: float
    not_asked: int = 0  # requests for which there was no time left

    def of(self, *whys: Why) -> list[Ask]:
        return [ask for ask in self.asks if ask.why in whys]

    def answers(self, *whys: Why) -> Iterator[tuple[Ask, Answer]]:
        """Requests that were answered, with their answers."""
        for ask in self.of(*whys):
            if ask.answer is not None:
                yield ask, ask.answer

    def instances(self) -> dict[str, list[str]]:
        """Service -> the instances that said their name, each once, in order."""
        found: dict[str, dict[str, None]] = {service: {} for service in SERVICES}
        for ask, answer in self.answers(*OF_SERVICES):
            name = answer.get("x-lb-instance")
            if name is not None and is_name(name):
                found[ask.service][name] = None
        return {service: sorted(names) for service, names in found.items()}


LONGEST_NAME = 128


def is_name(text: str) -> bool:
    """Whether this can be the name of an instance: visible, and no longer than a person reads."""
    return (
        0 < len(text) <= LONGEST_NAME and text.isascii() and text.isprintable() and text.strip() == text and text != "-"
    )

"""What is wrong with an input, said all at once: every problem with its place and the way out."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

SHOWN_PROBLEMS = 100
"""A hostile file can hold tens of thousands of problems; the message shows this many and says how many more."""

_SHOWN_VALUE_CHARS = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it is, what it is, and what to do about it."""

    place: str  # "training_scenarios.x.traffic_patterns[2].name"; "" is the file as a whole
    text: str
    way_out: str

    def __str__(self) -> str:
        end = "" if self.way_out.endswith("?") else "."
        return f"{self.place or 'the whole file'}: {self.text}. {self.way_out}{end}"


class ScenarioError(Exception):
    """A scenario, or what was asked of it, cannot be used. `str()` is the whole message for the user."""

    def __init__(self, origin: str, problems: Iterable[Problem]) -> None:
        self.origin = origin
        self.problems = tuple(problems)
        super().__init__(self._message())

    def _message(self) -> str:
        count = len(self.problems)
        lines = [f"{self.origin}: {count} problem{'' if count == 1 else 's'}"]
        lines += [f"  {problem}" for problem in self.problems[:SHOWN_PROBLEMS]]
        if count > SHOWN_PROBLEMS:
            lines.append(f"  and {count - SHOWN_PROBLEMS} more, not shown")
        return "\n".join(lines)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word closest to `word`, or None when none is close."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower()[:_SHOWN_VALUE_CHARS], by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """A way out for an unknown word: the closest known word, else all of them."""
    names = sorted(known)
    close = did_you_mean(word, names)
    if close is not None:
        return f"Did you mean {show(close)}? Known are: {', '.join(names)}"
    return f"Known are: {', '.join(names)}" if names else "There are none to choose from"


def show(value: object) -> str:
    """A value of a file as text for a message: quoted, without control characters, never long."""
    text = repr(value[: _SHOWN_VALUE_CHARS + 1]) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN_VALUE_CHARS else f"{text[:_SHOWN_VALUE_CHARS]}..."


def number(value: float) -> str:
    """A number as a person writes it: 12 and not 12.0, 0.95 and not 0.9500000000000001."""
    return f"{value:.10g}"

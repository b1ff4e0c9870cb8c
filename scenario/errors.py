"""What is wrong with an input, said all at once: every problem with its place and the way out."""

import difflib
import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass

SHOWN_PROBLEMS = 100
"""A hostile file can hold tens of thousands of problems; the message shows this many and says how many more."""

_SHOWN_VALUE_CHARS = 60
_SHOWN_NAMES = 30
_COMPARED_NAMES = 1000  # comparing is slow; a file with more names than this is not one that a person reads


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
    by_lower = {name.lower(): name for name in itertools.islice(known, _COMPARED_NAMES)}
    close = difflib.get_close_matches(word.lower()[:_SHOWN_VALUE_CHARS], by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def suggestion(word: str, known: Collection[str]) -> str:
    """A way out for an unknown word: the closest known word and all of them."""
    if not known:
        return "There are none to choose from"
    close = did_you_mean(word, known)
    names = sorted(known) if len(known) <= _SHOWN_NAMES else [*itertools.islice(known, _SHOWN_NAMES)]
    more = f" and {len(known) - len(names)} more" if len(known) > len(names) else ""
    listed = f"Known are: {', '.join(bare(name) for name in names)}{more}"
    return f"Did you mean {show(close)}? {listed}" if close is not None else listed


def show(value: object) -> str:
    """A value of a file as text for a message: quoted, without control characters, never long."""
    text = repr(value[: _SHOWN_VALUE_CHARS + 1]) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN_VALUE_CHARS else f"{text[:_SHOWN_VALUE_CHARS]}..."


def bare(name: str) -> str:
    """A name within a sentence: as it is where that can do no harm, else shown like a value."""
    return name if name.isprintable() and len(name) <= 64 else show(name)


def number(value: float) -> str:
    """A number as a person writes it: 12 and not 12.0, 0.95 and not 0.9500000000000001."""
    return f"{value:.10g}"

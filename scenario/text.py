"""From the bytes of a file to plain values: dict, list, str, int, float, bool, None. Nothing in a file runs.

YAML is read from its events and typed here, so that YAML and JSON mean the same: true and false are the only truth
values, numbers are decimal (1e3 is a number; 1:30, 0x10, 010 and 1_000 are text), dates are text. Tags, anchors and
aliases are refused; so are duplicate keys, keys that are not text, a second document, and anything too large or deep.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scenario.errors import Problem, ScenarioError, show

LARGEST_BYTES = 1024 * 1024
DEEPEST = 32
MOST_VALUES = 50_000
_LONGEST_NUMBER = 40

_NULL = re.compile(r"null|~|")
_BOOL = re.compile(r"true|false")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]")


class _Stop(Exception):  # noqa: N818 - not an error by itself: carries the problem that makes reading on senseless
    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Twice:
    """A key that a mapping has already."""

    place: str
    mapping: dict[str, Any]  # holds the first value
    key: str
    value: Any  # the second one


def read_document(file: str) -> Any:
    """The value of a file. Raises ScenarioError with all that is wrong with it as text, OSError without the file."""
    with Path(file).open("rb") as opened:
        raw = opened.read(LARGEST_BYTES + 1)
    content, problems = parse(raw, file)
    if problems:
        raise ScenarioError(file, problems)
    return content


def parse(raw: bytes, origin: str, twice: list[Twice] | None = None) -> tuple[Any, list[Problem]]:
    """The value of a whole file and the problems that did not keep it from being read.

    Keys that are there twice are problems, unless there is a list `twice` to put them into. JSON when `origin` ends in
    .json, else YAML. Raises ScenarioError when there is nothing to go on with: too large, not UTF-8, a syntax error
    (with line and column).
    """
    if len(raw) > LARGEST_BYTES:
        text = f"is larger than {LARGEST_BYTES} bytes"
        raise ScenarioError(origin, [Problem("", text, "Split it into several files, one scenario each")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = Problem("", f"is not UTF-8 (byte {error.start})", "Save it as UTF-8")
        raise ScenarioError(origin, [problem]) from None
    problems: list[Problem] = []
    try:
        read = _read_json if origin.lower().endswith(".json") else _read_yaml
        return read(text, problems, twice), problems
    except _Stop as stop:
        raise ScenarioError(origin, [*problems, stop.problem]) from None


# YAML


def _read_yaml(text: str, problems: list[Problem], twice: list[Twice] | None) -> Any:
    try:
        return _YamlReader(yaml.parse(text, Loader=yaml.SafeLoader), problems, twice).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = _at(mark) if mark is not None else ""
        raise _Stop(Problem(place, f"is not YAML: {_said(error)}", _yaml_way_out(text, mark))) from None
    except (ValueError, OverflowError):  # from chr(): PyYAML does not look at what \U escapes name
        raise _Stop(Problem("", "holds an escape such as \\U00110000 that names no character", "Remove it")) from None
    except yaml.reader.ReaderError as error:
        what = f"holds the character {error.character!r} ({error.reason})"
        raise _Stop(Problem(f"character {error.position}", what, "Remove it")) from None


def _said(error: yaml.MarkedYAMLError) -> str:
    return ", ".join(part for part in (error.context, error.problem) if part)


def _yaml_way_out(text: str, mark: Any) -> str:
    lines = text.splitlines()
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "Indent with spaces, not tabs"
    return "Correct the syntax there or just before it"


class _YamlReader:
    """Builds values from parser events: the events are a flat stream, so depth and size are ours to limit."""

    def __init__(self, events: Iterator[Any], problems: list[Problem], twice: list[Twice] | None) -> None:
        self._events = events
        self._problems = problems
        self._twice = twice
        self._values = 0

    def document(self) -> Any:
        value: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._report(event, "a second document starts here", "Keep one document per file")
                    break
                value = self._value(next(self._events), "", 0)
        if documents == 0:
            raise _Stop(Problem("", "is empty", "Start from a file in configs/"))
        return value

    def _value(self, event: Any, place: str, depth: int) -> Any:
        self._values += 1
        if self._values > MOST_VALUES:
            raise _Stop(Problem(_at(event.start_mark), f"holds more than {MOST_VALUES} values", "Split the file"))
        if depth > DEEPEST:
            raise _Stop(_too_deep(_at(event.start_mark)))
        if isinstance(event, yaml.AliasEvent):
            way_out = "Write the values out; anchors and aliases are not read here"
            self._report(event, f"an alias (*{show(event.anchor)[1:-1]})", way_out)
            return None
        if event.anchor is not None:
            way_out = "Remove it; anchors and aliases are not read here"
            self._report(event, f"an anchor (&{show(event.anchor)[1:-1]})", way_out)
        if event.tag is not None:
            self._report(
                event, f"a tag ({show(event.tag)[1:-1]})", "Remove it; values are typed by how they are written"
            )
        if isinstance(event, yaml.ScalarEvent):
            value = _typed(event) if event.tag is None else event.value
            return _whole_text(value, place, self._problems)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(place, depth)
        return self._mapping(place, depth)

    def _sequence(self, place: str, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, f"{place}[{len(items)}]", depth + 1))
        return items

    def _mapping(self, place: str, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._value(event, place, depth + 1)
            inside = _join(place, key) if isinstance(key, str) else place
            value = self._value(next(self._events), inside, depth + 1)
            if not isinstance(key, str):
                written = event.value if isinstance(event, yaml.ScalarEvent) else "that is a list or a mapping"
                problem = f"the key {written[:40]} (line {event.start_mark.line + 1}) is not text"
                self._problems.append(Problem(_shown(place), problem, "Put it in quotes if it is a name"))
            elif key in mapping and self._twice is not None:
                self._twice.append(Twice(_shown(inside), mapping, key, value))
            elif key in mapping:
                problem = f"the key is there twice (again in line {event.start_mark.line + 1})"
                self._problems.append(Problem(_shown(inside), problem, "Keep one of them"))
            else:
                mapping[key] = value
        return mapping

    def _report(self, event: Any, text: str, way_out: str) -> None:
        self._problems.append(Problem(_at(event.start_mark), text, way_out))


def _typed(event: Any) -> Any:
    """The value of a scalar: quoted ones are text, plain ones what they look like."""
    text: str = event.value
    return text if not event.implicit[0] or event.style is not None else plain_scalar(text)


def plain_scalar(text: str) -> Any:
    """What a text without quotes means in YAML."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text == "true"
    if len(text) <= _LONGEST_NUMBER:
        if _INT.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text) and not _LEADING_ZERO.match(text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _at(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


# JSON


class _Pairs(list[tuple[str, Any]]):
    """An object of a JSON text before duplicate keys are looked for: only the walk knows its place."""


def _read_json(text: str, problems: list[Problem], twice: list[Twice] | None) -> Any:
    if not text.strip():
        raise _Stop(Problem("", "is empty", "Start from a file in configs/"))
    try:
        value = json.loads(text, object_pairs_hook=_Pairs, parse_int=_json_number, parse_float=_json_number)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _Stop(Problem(place, f"is not JSON: {error.msg}", "Correct the syntax there or just before it")) from None
    except RecursionError:
        raise _Stop(_too_deep("")) from None
    return _Walk(problems, twice).plain(value, "", 0)


def _json_number(text: str) -> Any:
    if len(text) > _LONGEST_NUMBER:
        return text  # refused as text where a number belongs; int() would be quadratic
    return int(text) if _INT.fullmatch(text) else float(text)


class _Walk:
    """Turns pairs into dicts, with the limits of the YAML reader."""

    def __init__(self, problems: list[Problem], twice: list[Twice] | None) -> None:
        self._problems = problems
        self._twice = twice
        self._values = 0

    def plain(self, value: Any, place: str, depth: int) -> Any:
        self._values += 1
        if self._values > MOST_VALUES:
            raise _Stop(Problem("", f"holds more than {MOST_VALUES} values", "Split the file"))
        if depth > DEEPEST:
            raise _Stop(_too_deep(_shown(place)))
        if isinstance(value, _Pairs):
            return self._mapping(value, place, depth)
        if isinstance(value, list):
            return [self.plain(item, f"{place}[{index}]", depth + 1) for index, item in enumerate(value)]
        return _whole_text(value, place, self._problems)

    def _mapping(self, pairs: _Pairs, place: str, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for raw_key, item in pairs:
            key = _whole_text(raw_key, place, self._problems)
            inside = _join(place, key)
            value = self.plain(item, inside, depth + 1)
            if key in mapping and self._twice is not None:
                self._twice.append(Twice(_shown(inside), mapping, key, value))
            elif key in mapping:
                self._problems.append(Problem(_shown(inside), "the key is there twice", "Keep one of them"))
            else:
                mapping[key] = value
        return mapping


def _whole_text(value: Any, place: str, problems: list[Problem]) -> Any:
    """The value, with half characters (lone surrogates) reported and replaced: they can be written to no file."""
    if not isinstance(value, str) or not _SURROGATE.search(value):
        return value
    problems.append(
        Problem(_shown(place), f"{show(value)} holds half a character", "Remove the escape, or write both halves")
    )
    return _SURROGATE.sub("?", value)


def _too_deep(place: str) -> Problem:
    return Problem(place, f"is nested more than {DEEPEST} levels deep", "A scenario file has 6; remove the nesting")


def _join(place: str, key: str) -> str:
    key = key if re.fullmatch(r"[\w$-]{1,64}", key) else show(key)
    return f"{place}.{key}" if place else key


ROOT = "rl_training_scenarios"


def _shown(place: str) -> str:
    """Places are named within the one top-level key that every file has."""
    return place.removeprefix(f"{ROOT}.")

"""The single values of a file against the types of `scenario.schema`, in the words of a user.

What is wrong is reported and taken out, so that the checks of several values at once can go on with the rest: one
mistake never hides another.
"""

import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError

from scenario.convert.keys import looks_old
from scenario.errors import Problem, did_you_mean, number, show, suggestion
from scenario.schema import FileNode, PhaseNode, ScenarioNode, Settings, Suite

Loc = tuple[int | str, ...]

_TO_PHASE = "belongs into a phase, because phases are what the data is judged by"
_NO_POOL = "means nothing here: every shopper has a connection of its own, as browsers have, and no pool is shared"
_CHAOS_WAY_OUT = "Write it into the chaos_parameters of the phase"
REFUSED: Mapping[str, tuple[str, str]] = {
    "simulated_conditions": (_TO_PHASE, "Move it into the traffic_patterns that it is meant for"),
    "failure_timeline": (_TO_PHASE, "Move each entry into its phase, with its minute counted from the phase's start"),
    "chaos_parameters": (_TO_PHASE, "Move it into the traffic_patterns that it is meant for"),
    "chaos_config": ("is not a key", _CHAOS_WAY_OUT),
    "user_variance": ("stands in the wrong place", _CHAOS_WAY_OUT),
    "user_count_variance": ("is not a key", f"{_CHAOS_WAY_OUT} as user_variance"),
    "think_time_variance": ("stands in the wrong place", _CHAOS_WAY_OUT),
    "action_randomness": ("stands in the wrong place", _CHAOS_WAY_OUT),
    "target_products": (_TO_PHASE, "Move it into the traffic_patterns that it is meant for"),
    "ramp_up_time_seconds": ("is a phase's own", "Write ramp_seconds, which holds for every phase"),
    "connection_pool_size": (_NO_POOL, "Remove it; concurrent_users says how many connections there are"),
    "max_connections": (_NO_POOL, "Remove it; concurrent_users says how many connections there are"),
    "pool_size": (_NO_POOL, "Remove it; concurrent_users says how many connections there are"),
    "request_timeout": ("is not a key", "Write request_timeout_seconds"),
    "max_retries": ("is not a key", "Write retry_attempts"),
    "retry_delay": ("is not a key", "Write retry_delay_seconds"),
}
"""Keys that users have in files, where they mean nothing or another key: refused with the reason, never ignored."""

_CONVERTER = "python -m scenario convert FILE"
_PAIR = "Write it as [smallest, largest]"

_PATTERNS: Mapping[str, tuple[str, str]] = {
    "name": ("is not a name", "Use 1 to 64 letters, digits, _ and -; the name becomes part of file names"),
    "sku": ("is not a SKU", "Use 1 to 64 letters, digits, . _ and -, starting with a letter or digit"),
    "zip_code": ("is not a zip code", 'Write "12345" or "12345-6789"'),
    "phone": ("is not a phone number", 'Write digits only, such as "+12025550123"'),
    "function": ("is not a module:attribute", "Write one such as my_rewards:within_slo"),
    "base_url": ("is not an http or https address", "Write one such as http://localhost:8080/proxy, without query"),
}


def check_structure(tree: Any) -> tuple[FileNode | None, dict[str, Any], list[Problem]]:
    """The typed file (None when there are problems), the well-formed part of the tree, and the problems.

    The well-formed part has the file's own keys. A value that is not there was missing or wrong, and is reported.
    """
    if not isinstance(tree, dict):
        problem = Problem("", f"is {_kind(tree)}, not a mapping", "Start with the key rl_training_scenarios")
        return None, {}, [problem]
    try:
        return FileNode.model_validate(tree), tree, []
    except ValidationError as error:
        errors: list[Any] = error.errors(include_url=False, include_context=True)
    misspelt = {_meant(one["loc"]) for one in errors if one["type"] == "extra_forbidden"}
    problems = [_problem(one) for one in errors if one["type"] != "missing" or one["loc"] not in misspelt]
    for one in errors:
        _take_out(tree, one)
    return None, tree, list(dict.fromkeys(problems))  # an empty pair is told once, not per end


def place_of(loc: Iterable[int | str]) -> str:
    """A place as users read it: `training_scenarios.x.traffic_patterns[2].name`."""
    place = ""
    for part in loc:
        if isinstance(part, int):
            place += f"[{part}]"
        elif part != "[key]":
            safe = part if part.replace("-", "_").replace("$", "_").isidentifier() and len(part) <= 64 else show(part)
            place += f".{safe}" if place else safe
    return place.removeprefix("rl_training_scenarios.")


def _problem(error: Any) -> Problem:
    loc: Loc = error["loc"]
    kind: str = error["type"]
    if kind == "extra_forbidden":
        return _unknown(loc)
    if kind == "missing" and isinstance(loc[-1], int):
        found = "1 value" if len(error["input"]) == 1 else "no values"
        return Problem(place_of(loc[:-1]), f"has {found}, not 2", _PAIR)
    if kind == "missing":
        return Problem(place_of(loc[:-1]), f"{loc[-1]} is missing", f"Add it{_hint(loc)}")
    text, way_out = _words(kind, error)
    return Problem(place_of(loc), text, way_out)


def _words(kind: str, error: Any) -> tuple[str, str]:
    """What is wrong with a value, and the way out."""
    loc, value, context = error["loc"], error["input"], error.get("ctx", {})
    is_name = loc[-1] == "[key]"
    if kind == "string_pattern_mismatch":
        what, way_out = _PATTERNS["name" if is_name or loc[-1] not in _PATTERNS else loc[-1]]
        return f"{show(value)} {what}", way_out
    if value is None:
        return "has no value", "Give it one, or leave the key out where that is allowed"
    if kind in ("int_type", "int_from_float"):
        return f"is {_kind(value)}, not a whole number", _number_way_out(value, "a whole number such as 5")
    if kind == "float_type":
        return f"is {_kind(value)}, not a number", _number_way_out(value, "a number such as 0.5")
    if kind == "finite_number":
        return f"is {number(value)}, not a finite number", "Give a finite number"
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        bound = number(context[key])
        return f"is {_short(value)}, which is not {words} {bound}", f"Give a number {words} {bound}"
    if kind == "string_type":
        return f"is {_kind(value)}, not text", "Put it in quotes"
    if kind == "literal_error":
        return f"{show(value)} is not one of {context['expected']}", _closest(value, context["expected"])
    if kind == "string_too_long":
        return f"is longer than {context['max_length']} characters", "Shorten it"
    if kind == "control_characters":
        return "holds control characters", "Remove them; names and descriptions are printed on terminals"
    if kind == "blank":
        return "is blank", "Write something, or leave the key out where that is allowed"
    if kind in ("too_short", "too_long"):
        if context.get("field_type") == "Tuple":
            return f"has {context['actual_length']} values, not 2", _PAIR
        return "is empty", "Add at least one entry"
    return _shape(kind, value)


_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("below", "lt"),
}


def _shape(kind: str, value: Any) -> tuple[str, str]:
    if kind in ("model_type", "model_attributes_type", "dict_type", "mapping_type"):
        return f"is {_kind(value)}, not a mapping", "Write it as keys with values"
    if kind == "list_type":
        return f"is {_kind(value)}, not a list", "Write its entries as a list"
    if kind == "tuple_type":
        return f"is {_kind(value)}, not a pair", _PAIR
    return f"{_kind(value)} is not valid here ({kind})", "Compare with a file in configs/"


def _unknown(loc: Loc) -> Problem:
    key, place = str(loc[-1]), place_of(loc[:-1])
    if key in REFUSED:
        return Problem(place_of(loc), *REFUSED[key])
    text = f"unknown key {show(key)}"
    if len(loc) == 1 and key in Suite.model_fields:
        return Problem(place, text, f"Put {key} under rl_training_scenarios, or convert the file: {_CONVERTER}")
    if looks_old(key):
        return Problem(place, text, f"If the file is of an older tool, convert it: {_CONVERTER}")
    known = _keys_at(loc[:-1])
    if did_you_mean(key, known) is None:
        if key in ScenarioNode.model_fields and _model_at(loc[:-1]) is PhaseNode:
            return Problem(place, text, f"{key} belongs to the scenario, beside traffic_patterns")
        if key in Settings.model_fields:
            return Problem(place, text, f"{key} belongs into base_config or a scenario")
    return Problem(place, text, suggestion(key, known))


def _meant(loc: Loc) -> Loc | None:
    """The place that an unknown key was meant for. A key missing there is the same mistake, told once."""
    key = str(loc[-1])
    close = None if key in REFUSED else did_you_mean(key, _keys_at(loc[:-1]))
    return None if close is None else (*loc[:-1], close)


def _hint(loc: Loc) -> str:
    model = _model_at(loc[:-1])
    description = model.model_fields[str(loc[-1])].description if model and loc[-1] in model.model_fields else None
    return f" ({description})" if description else ""


# The well-formed part


def _take_out(tree: Any, error: Any) -> None:
    """Remove what an error is about. A whole entry of the wrong kind becomes an empty one: it keeps its place."""
    loc: Loc = error["loc"]
    if loc[-1] == "[key]" or (error["type"] == "missing" and isinstance(loc[-1], str)):
        return
    empty = error["type"] in ("model_type", "model_attributes_type")
    while not empty and isinstance(loc[-1], int):  # a wrong end of a pair takes the pair with it
        loc = loc[:-1]
    parent = tree
    for part in loc[:-1]:
        if isinstance(parent, dict) and part not in parent:
            return  # an earlier error took it out
        parent = parent[part]
    if empty:
        parent[loc[-1]] = {}
    else:
        parent.pop(loc[-1], None)


# Which keys exist where


def _keys_at(loc: Loc) -> list[str]:
    model = _model_at(loc)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _model_at(loc: Loc) -> type[BaseModel] | None:
    annotation: Any = FileNode
    for part in loc:
        annotation = _bare(annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            by_key = {field.alias or name: field.annotation for name, field in annotation.model_fields.items()}
            annotation = by_key.get(str(part))
        else:
            annotation = (typing.get_args(annotation) or (None,))[-1]
    annotation = _bare(annotation)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _bare(annotation: Any) -> Any:
    while True:
        origin = typing.get_origin(annotation)
        if origin is Annotated:
            annotation = typing.get_args(annotation)[0]
        elif origin in (typing.Union, types.UnionType):
            annotation = next(arg for arg in typing.get_args(annotation) if arg is not type(None))
        else:
            return annotation


# Words for values


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {_short(value)}"
    if isinstance(value, str):
        return f"the text {show(value)}"
    return "a mapping" if isinstance(value, dict) else "a list"


def _short(value: Any) -> str:
    return number(value) if isinstance(value, float) else show(value)


def _number_way_out(value: Any, like: str) -> str:
    return f"Write {like}, without quotes" if isinstance(value, str) else f"Write {like}"


def _closest(value: Any, expected: str) -> str:
    known = [word.strip(" '") for word in expected.replace(" or ", ",").split(",")]
    close = did_you_mean(value, known) if isinstance(value, str) else None
    return f"Did you mean {show(close)}?" if close else "Choose one of them"

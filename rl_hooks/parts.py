"""Parts named on a command line: a built-in by its short name, or a class of one's own as `module:attribute`.

A built-in that needs something more than its name is given it behind a colon, as in `http:FILE`.
"""

import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scenario.errors import ScenarioError
from scenario.refs import resolve


class PartError(Exception):
    """What a name stands for is not there, cannot be made, or cannot serve as such a part."""


def make_target_part(
    place: str,
    text: str,
    builtin: Mapping[str, str],
    with_argument: Mapping[str, str],
    needed: Sequence[str],
    root: str | None,
    passes: tuple[type[Exception], ...] = (),
) -> Any:
    """A part for the target whose balancer has its root at `root`; see `make_part`.

    `with_argument`: the built-ins that need an argument behind a colon, each with an example of one; they are called
    with (root, argument), all others with (root).
    """
    name, colon, argument = text.partition(":")
    if name not in builtin or (colon and name not in with_argument):
        return make_part(place, text, builtin, needed, root, passes=passes)
    if name not in with_argument:
        return make_part(place, name, builtin, needed, root, passes=passes)
    if not argument.strip(":"):
        raise PartError(f"{place.rstrip(':')}: needs more than its name, as in {name}:{with_argument[name]}")
    return make_part(place, name, builtin, needed, root, argument, passes=passes)


def make_part(
    place: str,
    name: str,
    builtin: Mapping[str, str],
    needed: Sequence[str],
    *arguments: Any,
    passes: tuple[type[Exception], ...] = (),
) -> Any:
    """What `name` names, called with `arguments`; it has to have the methods `needed`.

    `place` begins every message. PartError with what is wrong and what would be right; errors in `passes`, by which a
    part says that its arguments are not right, are passed on.
    """
    try:
        made = resolve(name, builtin)
    except ScenarioError as error:
        (problem,) = error.problems
        raise PartError(f"{place}: {problem.text}. {problem.way_out}") from error
    except Exception as error:
        if name in builtin:
            raise
        raise not_imported(place, error) from error
    if not callable(made):
        raise PartError(f"{place}: is a {type(made).__name__}; name a class or a function that makes one")
    try:
        part = made(*arguments)
    except passes:
        raise
    except Exception as error:  # somebody else's code: whatever it raises is said, and nothing is started
        raise PartError(f"{place}: could not be made ({type(error).__name__}: {error})") from error
    lacking = [method for method in needed if not callable(getattr(part, method, None))]
    if lacking:
        raise PartError(f"{place}: lacks {', '.join(lacking)}; a {type(part).__name__} cannot serve here")
    return part


def where(error: BaseException) -> str:
    """The line that raised what a part of somebody else raised; "" where there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""


def find_rewards(references: Mapping[str, str]) -> dict[str, Any]:
    """The functions that a scenario's `rewards` names, by the component's name. PartError with all that is wrong."""
    found, problems = {}, []
    for name, reference in references.items():
        try:
            found[name] = find_function(f"reward {name} ({reference})", reference)
        except PartError as error:
            problems.append(str(error))
    if problems:
        raise PartError("\n".join(problems))
    return found


def find_function(place: str, reference: str) -> Any:
    """The function that `module:attribute` names. `place` begins every message. Raises PartError."""
    try:
        function = resolve(reference, {})
    except ScenarioError as error:
        (problem,) = error.problems
        raise PartError(f"{place}: {problem.text}. {problem.way_out}") from error
    except Exception as error:
        raise not_imported(place, error) from error
    if not callable(function):
        raise PartError(f"{place}: is a {type(function).__name__}; name a function")
    return function


def not_imported(place: str, error: Exception) -> PartError:
    """Somebody else's module: whatever it raises while it is imported is said, and nothing is started."""
    line = "" if isinstance(error, SyntaxError) else where(error)  # that one says its line
    return PartError(f"{place}: cannot be imported ({type(error).__name__}{line}: {error})")

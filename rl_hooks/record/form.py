"""What the start form of Locust's web UI says, read by the types of our options.

A form posts text. Locust gives it the type of the option's value so far, so that an option without a value stays text,
and answers a word where a number is expected with a bare error.
"""

from collections.abc import Mapping
from typing import Any

from rl_hooks.record.options import SetupError, add_options

_NUMBERS = {int: ("a whole number", "1"), float: ("a number", "1 or 0.5")}


class _Asked(dict[str, Mapping[str, Any]]):
    """Stands where a parser does and notes what is said about each option: name -> its facts."""

    def add_argument(self, flag: str, **about: Any) -> None:
        self[flag.removeprefix("--").replace("-", "_")] = about


def read_form(form: Mapping[str, str]) -> dict[str, Any]:
    """Our options among the form's fields; an empty field is None where nothing has to be said.

    Raises SetupError that names every field that should be a number and is none.
    """
    asked = _Asked()
    add_options(asked)
    values: dict[str, Any] = {}
    problems = []
    for name in sorted(form.keys() & asked.keys()):
        text, kind = form[name].strip(), asked[name].get("type", str)
        if not text and asked[name].get("default") is None:
            values[name] = None
            continue
        if asked[name].get("action") == "store_true":  # Locust's checkbox posts a word
            values[name] = text.lower() == "true"
            if text.lower() not in ("true", "false"):
                problems.append(f"{name}: {text!r} is neither true nor false. Tick the box or leave it.")
            continue
        try:
            values[name] = kind(text)
        except ValueError:
            expected, example = _NUMBERS[kind]
            problems.append(f"{name}: {text!r} is not {expected}. Give one such as {example}.")
    if problems:
        raise SetupError("\n".join(problems))
    return values

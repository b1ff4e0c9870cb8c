"""Places in braces, in texts and in lists and mappings of texts, that are filled with what differs from use to use."""

import string
from collections.abc import Mapping
from typing import Any


def texts_of(template: Any) -> list[str]:
    """Every text in a template: a text, or lists and mappings of templates."""
    if isinstance(template, str):
        return [template]
    if isinstance(template, dict):
        return [text for pair in template.items() for part in pair for text in texts_of(part)]
    parts = template if isinstance(template, list) else ()
    return [text for part in parts for text in texts_of(part)]


def places_of(text: str) -> set[str]:
    """The places in a text. ValueError when a brace is left open, or holds more than a name."""
    found = set()
    for _, name, spec, conversion in string.Formatter().parse(text):
        if spec or conversion:
            raise ValueError(f"{{{name}}} must hold a name and nothing else")
        if name is not None:
            found.add(name)
    return found


def fill(template: Any, values: Mapping[str, str]) -> Any:
    """A template with its places filled."""
    if isinstance(template, str):
        return template.format_map(values)
    if isinstance(template, list):
        return [fill(part, values) for part in template]
    if isinstance(template, dict):
        return {fill(key, values): fill(part, values) for key, part in template.items()}
    return template

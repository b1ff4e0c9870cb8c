"""A converted tree as YAML that people read: keys in the order of the shipped files, small mappings in one line."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from scenario.convert.keys import ROOT
from scenario.errors import show
from scenario.text import plain_scalar

_WIDTH = 120
_LIKE_NUMBER = re.compile(r"[-+]?[0-9][-+0-9_.:eExXoO]*")
_ONE_LINE = {
    "action_probabilities", "user_behavior_distribution", "scenario_weights", "chaos_parameters",
    "service_load_characteristics", "expected_service_stress",
}  # fmt: skip
_ENTRIES_OF_ONE_LINE = {"simulated_conditions", "failure_timeline", "product_catalogue", "shipping_addresses"}


def to_yaml(tree: Mapping[str, Any], origin: str) -> str:
    """The text of a new file. `origin` is named in the comment on top."""
    lines = [
        f"# Converted from {show(origin)[1:-1]} by `python -m scenario convert`, whose report says what changed.",
        "#",
        "#   see what it means, run nothing:   python -m scenario FILE [NAME]",
        "",
        f"{ROOT}:",
    ]
    for section, content in tree[ROOT].items():
        shaped = {section: _shaped(content, section, "")}
        dumped = yaml.dump(shaped, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH - 2)
        lines += ["", *(f"  {line}" if line else "" for line in dumped.splitlines())]
    return "\n".join(lines) + "\n"


class _OneLine(dict[str, Any]):
    """A mapping that is written in one line."""


def _shaped(value: Any, key: str, above: str) -> Any:
    if isinstance(value, Mapping):
        kind = _OneLine if key in _ONE_LINE or above in _ENTRIES_OF_ONE_LINE else dict
        return kind({inner: _shaped(item, inner, key) for inner, item in value.items()})
    if isinstance(value, list):
        return [_shaped(item, "", key) for item in value]
    return value


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key and knows no aliases."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> Any:
    """Quoted where our reader or another one would take it for a number, as zip codes and phone numbers."""
    style = None if isinstance(plain_scalar(value), str) and not _LIKE_NUMBER.fullmatch(value) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _mapping(dumper: _Dumper, value: Mapping[str, Any]) -> Any:
    return dumper.represent_mapping("tag:yaml.org,2002:map", value.items(), flow_style=isinstance(value, _OneLine))


def _list(dumper: _Dumper, value: list[Any]) -> Any:
    is_flat = all(not isinstance(item, Mapping | list) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=is_flat)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(dict, _mapping)
_Dumper.add_representer(_OneLine, _mapping)
_Dumper.add_representer(list, _list)

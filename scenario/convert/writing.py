"""A converted tree as YAML that people read: keys in the order of the shipped files, small mappings in one line."""

from collections.abc import Mapping
from typing import Any

import yaml

from scenario.convert.keys import ROOT
from scenario.errors import show
from scenario.text import plain_scalar

_WIDTH = 120
_ONE_LINE = 110
_BLOCKS = {"service_slo_ms", "reward_weights", "chaos_parameters"}


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
        dumped = yaml.dump({section: content}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)
        lines += ["", *(f"  {line}" if line else "" for line in dumped.splitlines())]
    return "\n".join(lines) + "\n"


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key, writes small values in one line, and knows no aliases."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> Any:
    """Quoted where it would be read as something else than text."""
    style = None if isinstance(plain_scalar(value), str) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _mapping(dumper: _Dumper, value: Mapping[str, Any]) -> Any:
    return dumper.represent_mapping("tag:yaml.org,2002:map", value.items(), flow_style=_is_small(value))


def _list(dumper: _Dumper, value: list[Any]) -> Any:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=_is_flat(value))


def _is_small(value: Mapping[str, Any]) -> bool:
    """Few scalars, or small lists of them, that fit a line."""
    return all(
        not isinstance(item, Mapping) and (not isinstance(item, list) or _is_flat(item)) for item in value.values()
    ) and (
        len(str(value)) <= _ONE_LINE + 60
        and len(value) <= 8
        and "description" not in value
        and "total_users" not in value
    )


def _is_flat(value: list[Any]) -> bool:
    return all(not isinstance(item, Mapping | list) for item in value)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(dict, _mapping)
_Dumper.add_representer(list, _list)

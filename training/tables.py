"""A comparison as people read it on a console, and as JSON. However policies were compared, it looks the same."""

import math
from collections.abc import Mapping
from typing import Any

from training.comparison import Comparison, Difference
from training.outcome import MEASURES, meaning

NONE = "-"
LEAST_WIDTH = 10  # of a column with a policy's values


def lines(found: Comparison) -> list[str]:
    """Values of all policies, what the chosen one differs from each other one by, and what everybody did."""
    parts = [_about(found), _values(found), *(_differences(found, other) for other in found.differences)]
    parts += [_shares(found)] if found.shares else []
    parts += [[*found.notes]] if found.notes else []
    return [line for part in parts for line in ("", *part)][1:]


def to_json(found: Comparison) -> dict[str, Any]:
    """The same as JSON values; null where nothing is known."""
    return {
        "policy": found.chosen,
        **found.about,
        "interval": "95 %",
        "measures": {name: dict(zip(("what", "more_is_better"), meaning(name), strict=True)) for name in _names(found)},
        "values": {
            policy: {name: _finite(value) for name, value in row.items()} for policy, row in found.values.items()
        },
        "differences": {
            other: {name: _difference_json(name, one) for name, one in row.items()}
            for other, row in found.differences.items()
        },
        "action_shares": {
            policy: {phase: dict(zip(found.actions, shares.tolist(), strict=True)) for phase, shares in phases.items()}
            for policy, phases in found.shares.items()
        },
        "notes": list(found.notes),
    }


def verdict(measure: str, one: Difference) -> str:
    """better or worse where the interval leaves 0 out, else nothing.

    >>> verdict("p95_ms", Difference(-20.0, 1.0, 30)), verdict("reward", Difference(0.01, 0.02, 30))
    ('better', '')
    """
    if not one.is_clear:
        return ""
    return "better" if (one.value > 0) == meaning(measure)[1] else "worse"


def _about(found: Comparison) -> list[str]:
    wide = max(len(name) for name in ("policy", *found.about)) + 2
    return [
        f"{name.replace('_', ' '):<{wide}}{_told(value)}"
        for name, value in {"policy": found.chosen, **found.about}.items()
    ]


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _values(found: Comparison) -> list[str]:
    names = _names(found)
    head, *rows = _columns(found.values, {name: name for name in names})
    return [head, *(f"{row}  {meaning(name)[0]}" for name, row in zip(names, rows, strict=True))]


def _names(found: Comparison) -> list[str]:
    """The measures that some policy has, in the order of the tables."""
    there = dict.fromkeys(name for row in found.values.values() for name in row)
    return [*(name for name in MEASURES if name in there), *(name for name in there if name not in MEASURES)]


def _columns(values: Mapping[str, Mapping[str, float]], names: Mapping[str, str]) -> list[str]:
    """A row per name, a column per policy."""
    first = max(len("measure"), *(len(name) for name in names.values())) + 2
    wide = {policy: max(LEAST_WIDTH, len(policy)) for policy in values}
    head = f"{'measure':<{first}}" + "  ".join(f"{policy:>{wide[policy]}}" for policy in values)
    return [
        head,
        *(
            f"{shown:<{first}}"
            + "  ".join(f"{_number(name, row.get(name, math.nan)):>{wide[policy]}}" for policy, row in values.items())
            for name, shown in names.items()
        ),
    ]


def _differences(found: Comparison, other: str) -> list[str]:
    title = f"{found.chosen} less {other}"
    head = f"{'':<24}{'difference':>10}  {'95 % interval':<22}  {'80 % power from':>15}"
    return [title, head, *(_difference(name, one) for name, one in found.differences[other].items())]


def _difference(name: str, one: Difference) -> str:
    interval = f"{_number(name, one.low, '+')} to {_number(name, one.high, '+')}" if one.is_known else NONE
    row = f"{name:<24}{_number(name, one.value, '+'):>10}  {interval:<22}  {_number(name, one.detectable):>15}"
    return f"{row}  {verdict(name, one)}".rstrip()


def _shares(found: Comparison) -> list[str]:
    """A row per policy and phase."""
    named = [(policy, phase, shares) for policy, phases in found.shares.items() for phase, shares in phases.items()]
    first = max([len("actions of"), *(len(policy) for policy, _, _ in named)]) + 2
    second = max([len("phase"), *(len(phase) for _, phase, _ in named)]) + 2
    head = f"{'actions of':<{first}}{'phase':<{second}}" + "  ".join(found.actions)
    return [
        head,
        *(
            f"{policy:<{first}}{phase:<{second}}"
            + "  ".join(f"{share:>{len(name)}.0%}" for name, share in zip(found.actions, shares.tolist(), strict=True))
            for policy, phase, shares in named
        ),
    ]


def _number(measure: str, value: float, sign: str = "") -> str:
    """Shares and rewards with four digits, milliseconds and rates with two.

    >>> _number("reward", 0.87654), _number("p95_ms", -12.345, "+")
    ('0.8765', '-12.35')
    """
    if not math.isfinite(value):
        return NONE
    digits = 2 if measure.endswith(("_ms", "_per_s")) else 4
    return f"{value:{sign}.{digits}f}"


def _difference_json(name: str, one: Difference) -> dict[str, Any]:
    numbers = {
        "value": one.value,
        "low": one.low,
        "high": one.high,
        "standard_error": one.error,
        "detectable": one.detectable,
    }
    return {
        **{key: _finite(value) for key, value in numbers.items()},
        "degrees": one.degrees,
        "verdict": verdict(name, one) or None,
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None

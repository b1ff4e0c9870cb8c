"""Chaos of old files: in a mapping of one of several names, or beside the other keys of a phase or a scenario."""

from collections.abc import Mapping
from typing import Any

from scenario.convert.old import SECOND_S, Old
from scenario.convert.report import at, said
from scenario.convert.values import number_of, pair_of, share_of, tidy

Tree = dict[str, Any]

_VARIANCES: Mapping[str, tuple[str, ...]] = {
    "user_variance": ("user_count_variance", "users_variance", "user_variation", "concurrent_users_variance"),
    "think_time_variance": ("think_time_variation", "think_time_randomness"),
    "action_randomness": (
        "action_variance", "behavior_randomness", "behaviour_randomness", "action_probability_variance",
    ),
}  # fmt: skip
_NESTED = ("chaos_parameters", "chaos_config", "chaos", "chaos_params", "chaos_settings")


def chaos(old: Old) -> Tree | None:
    """chaos_parameters of a phase or a scenario. None: there is no chaos."""
    report = old.report
    out = _nested(old)
    for key, value in _parameters(old).items():
        if out.setdefault(key, value) != value:
            text = f"{said(value)} stands beside {said(out[key])} of the chaos parameters"
            report.refuse(at(old.place, key), text, "Keep one of them")
        else:
            report.note(at(old.place, key), said(value), f"chaos_parameters.{key}", "chaos parameters are one mapping")
    if out and not any(out.get(key) for key in _VARIANCES):
        report.dropped(at(old.place, "chaos_parameters"), out, "chaos that randomizes nothing")
        return None
    return out or None


def _nested(old: Old) -> Tree:
    report, found = old.report, old.take(*_NESTED)
    if found is None:
        return {}
    if not isinstance(found.value, Mapping):
        if found.value is False:
            report.dropped(found.place, found.value, "no chaos")
        else:
            text = f"{said(found.value)} is not a mapping"
            report.refuse(found.place, text, f"Write {', '.join(_VARIANCES)} with their values")
        return {}
    inner = Old(found.value, found.place, report)
    enabled = inner.take("enabled", "active")
    if enabled is not None and enabled.value is not True:
        report.dropped(found.place, found.value, "chaos is not enabled")
        return {}
    if enabled is not None:
        report.dropped(enabled.place, enabled.value, "chaos parameters that are there hold")
    out = _parameters(inner)
    inner.finish([*_VARIANCES, "change_every_seconds"])
    if found.key != "chaos_parameters":
        report.note(found.place, said(found.value), f"chaos_parameters {said(out)}", "renamed")
    return out


def _parameters(old: Old) -> Tree:
    out: Tree = {}
    for key, names in _VARIANCES.items():
        out[key] = old.convert(key, names, _variance, "a share from 0 to below 1")
    stems = ("change_every", "change_interval", "chaos_interval")
    out["change_every_seconds"] = old.time("change_every_seconds", stems, SECOND_S, SECOND_S)
    return {key: value for key, value in out.items() if value is not None}


def _variance(value: Any) -> Any:
    """0.3, 30, "30%", or a range around 1 such as [0.7, 1.3]."""
    if isinstance(value, list | Mapping):
        pair = pair_of(value, number_of)
        if pair is None or abs(pair[0] + pair[1] - 2) > 1e-9:
            return None
        value = tidy(abs(1 - pair[0]))
    return share_of(value)

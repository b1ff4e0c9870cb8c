"""Features of one's own: numbers that the exporter adds to every observation, from what was known before its moment.

A feature is a class without arguments. Its attribute `feature` says what it means, as for every other feature; its
method `at(before)` returns the value, NaN where it is not known. `Before` holds no row from the moment on, so nothing
later can get in, and reaches back over the observation window, so the split stays clean.

Nobody makes such a feature while a run goes on. Training can use it; a policy that needs it is refused wherever it
would have to decide live (its schema says source `exporter`).
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rl_hooks.action_space import instance_labels
from rl_hooks.decision import MOST_ACTIONS, SERVICES
from rl_hooks.export.errors import ExportError
from rl_hooks.observation import FEATURES, Feature, features_of
from rl_hooks.parts import PartError, make_part
from rl_hooks.policy_schema import EXPORTER, NEVER_MISSING
from rl_hooks.request_log import DTYPE, end_ns
from rl_hooks.row import SAMPLES
from rl_hooks.run_reader import Run

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_OURS = frozenset(one.name for one in (*FEATURES, *features_of(instance_labels(MOST_ACTIONS))))


@dataclass(frozen=True)
class Before:
    """What was known about a service at a moment."""

    service: str
    t_ns: int  # the moment, wall-clock
    window_ns: int  # how far the rows reach back
    requests: Array  # rl_hooks.row.REQUESTS: those that ended in [t - window, t), in order of their end
    samples: Array  # rl_hooks.row.SAMPLES: one per instance and sample, taken and received in [t - window, t]
    names: Mapping[str, tuple[str, ...]]  # endpoint, instance, profile, phase: what the columns <kind>_ref point into


class OwnFeature(Protocol):
    """See the module."""

    @property
    def feature(self) -> Feature: ...

    def at(self, before: Before) -> float:
        """The value, from `feature.low` to `feature.high`; NaN: not known."""


@dataclass(frozen=True)
class Named:
    """A feature of one's own with the name it was asked for by."""

    reference: str
    part: OwnFeature

    @property
    def feature(self) -> Feature:
        return self.part.feature


def find_features(references: Sequence[str]) -> tuple[Named, ...]:
    """The features that `--feature` names. Raises ExportError with all that is wrong."""
    found: list[Named] = []
    problems: list[str] = []
    for reference in references:
        place = f"--feature {reference}"
        try:
            part = make_part(place, reference, {}, ("at",))
        except PartError as error:
            problems.append(str(error))
            continue
        wrong = _problems(part, [one.feature.name for one in found]) or _tried(Named(reference, part))
        problems += [f"{place}: {text}" for text in wrong]
        found += [] if wrong else [Named(reference, part)]
    if problems:
        raise ExportError("\n".join(problems))
    return tuple(found)


def own_values(run: Run, window_ns: int, own: Sequence[Named], service: Array, t_ns: Ints) -> npt.NDArray[np.float32]:
    """(n, features of one's own) at n moments. It needs all requests of the run in memory.

    Raises ExportError where a feature fails or leaves its range.
    """
    values = np.full((len(t_ns), len(own)), np.nan, np.float32)
    if not own:
        return values
    for index, name in enumerate(SERVICES):
        mine = np.flatnonzero(service == index)
        past = _Past(run, index, window_ns)
        moments, place = np.unique(t_ns[mine], return_inverse=True)
        known = np.array([_row(own, past.before(name, moment)) for moment in moments.tolist()], np.float32)
        values[mine] = known.reshape(len(moments), len(own))[place]
    return values


def _row(own: Sequence[Named], before: Before) -> list[float]:
    return [_value(one, before) for one in own]


class _Past:
    """The rows of one service, in order of when they became known."""

    def __init__(self, run: Run, service: int, window_ns: int) -> None:
        requests = run.requests[run.requests["service"] == service]
        ends = end_ns(requests)
        order = np.argsort(ends, kind="stable")
        self._requests, self._ends = _read_only(requests[order]), ends[order]
        samples = run.samples[run.samples["service"] == service]
        known = np.maximum(samples["t_ns"], samples["received_ns"]).astype(np.int64)
        order = np.argsort(known, kind="stable")
        self._samples, self._known = _read_only(samples[order]), known[order]
        self._names, self._window_ns = run.names, window_ns

    def before(self, service: str, t_ns: int) -> Before:
        first, last = self._ends.searchsorted([t_ns - self._window_ns, t_ns])
        samples = self._samples[: self._known.searchsorted(t_ns, "right")]
        samples = samples[samples["t_ns"] >= t_ns - self._window_ns]
        return Before(service, t_ns, self._window_ns, self._requests[first:last], samples, self._names)


def _read_only(rows: Array) -> Array:
    rows.flags.writeable = False
    return rows


def _value(one: Named, before: Before) -> float:
    """A feature's value. Raises ExportError where it is none."""
    feature, place = one.feature, f"--feature {one.reference}"
    try:
        value = float(one.part.at(before))
    except Exception as error:  # somebody else's code: whatever it raises is said
        raise ExportError(
            f"{place}: failed for {before.service} with {len(before.requests)} requests and {len(before.samples)} "
            f"samples before the moment ({type(error).__name__}: {error})"
        ) from error
    if math.isnan(value):
        if feature.missing_when == NEVER_MISSING:
            raise ExportError(f"{place}: returned NaN, and its missing_when says never; say there when it is not known")
        return value
    if value < feature.low or (feature.high is not None and value > feature.high):
        high = "any" if feature.high is None else f"{feature.high:g}"
        raise ExportError(f"{place}: returned {value:g}; its range is {feature.low:g} to {high}")
    return value


def _tried(one: Named) -> list[str]:
    """What is wrong with the value where nothing happened yet, as at the start of every run."""
    requests, samples = np.empty(0, DTYPE), np.empty(0, [("incarnation", "<u2"), *SAMPLES.dtype.descr])
    nobody = dict.fromkeys(("endpoint", "instance", "profile", "phase"), ("",))
    try:
        _value(one, Before(SERVICES[0], 0, 1, _read_only(requests), _read_only(samples), nobody))
    except ExportError as error:
        return [str(error).removeprefix(f"--feature {one.reference}: ")]
    return []


def _problems(part: Any, taken: Sequence[str]) -> list[str]:
    """Why an object is no feature; empty: it is one."""
    feature = getattr(part, "feature", None)
    if not isinstance(feature, Feature):
        return ["its attribute `feature` is no rl_hooks.observation.Feature; say there what it means"]
    problems = []
    if _NAME.fullmatch(feature.name) is None:
        problems.append(f"its name {feature.name!r} cannot be a column's; use small letters, digits and _")
    if feature.name in _OURS or feature.name in taken:
        problems.append(f"its name {feature.name} is taken; give it one of its own")
    if feature.source != EXPORTER or feature.window != "window":
        problems.append(f'write source "{EXPORTER}" and window "window": so it is made')
    problems += [f"its {key} says nothing" for key in ("unit", "missing_when") if not getattr(feature, key)]
    return problems

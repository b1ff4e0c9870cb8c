"""Rewards of one's own: functions of the cohorts that a scenario names beside the five.

What has to hold for one: it takes `rewards.Cohorts` of n decisions and returns n floats, each from 0 to 1, or NaN where
it is not defined; the same cohorts give the same numbers; it changes nothing it is given; its docstring says what it
is, which dataset.json repeats.
"""

import functools
from collections.abc import Mapping
from dataclasses import fields

import numpy as np

from rl_hooks.export.errors import ExportError
from rl_hooks.export.rewards import Cohorts, Floats, Reward, one_cohort
from rl_hooks.parts import PartError, find_rewards

EXAMPLES = (
    one_cohort([50, 100, 150], failed=1, instance_requests=[2, 2, 0]),
    one_cohort([900], slo_ms=100, expected=np.nan, instance_requests=[0, 1], instance_capacity=[np.nan, 1]),
    one_cohort([], failed=3),
    one_cohort([], expected=0),
)
"""What every reward has to be able to judge: late, failed and no requests, nothing expected, an instance away."""


def own_rewards(references: Mapping[str, str]) -> dict[str, Reward]:
    """The functions that a scenario's `rewards` names, each of which raises ExportError where its answer is no reward.

    Raises ExportError with all that is wrong with them.
    """
    try:
        found = find_rewards(references)
    except PartError as error:
        raise ExportError(str(error)) from error
    places = {name: f"reward {name} ({reference})" for name, reference in references.items()}
    problems = [f"{places[name]}: {text}" for name in found for text in problems_of(found[name])]
    if problems:
        raise ExportError("\n  ".join(["rewards of one's own cannot be used (docs/extending.md)", *problems]))
    return {name: _checked(places[name], reward) for name, reward in found.items()}


def problems_of(reward: Reward) -> list[str]:
    """Why a function is no reward, by trying it on examples; empty: it is one."""
    told = [] if (reward.__doc__ or "").strip() else ["has no docstring; say what it is and when it is not defined"]
    for example in [*EXAMPLES, _nobody()]:
        problem = _problem(reward, Cohorts(**_copied(example)))
        if problem is not None:
            return [*told, problem]
    return told


def _checked(place: str, reward: Reward) -> Reward:
    """The reward, whose every answer is looked at."""

    @functools.wraps(reward)
    def judge(cohorts: Cohorts) -> Floats:
        try:
            values = _asked(reward, cohorts)
        except PartError as error:
            raise ExportError(f"{place}: {error}") from error
        problem = _wrong(values, len(cohorts.finished))
        if problem is not None:
            raise ExportError(f"{place}: {problem}")
        return values

    return judge


def _wrong(values: object, n: int) -> str | None:
    """What is wrong with the answer for n cohorts; None: nothing."""
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or values.shape != (n,):
        shown = f"{values.dtype} of shape {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        return f"returned {shown} for {n} cohorts; floats of shape ({n},) are needed"
    wrong = values[~(np.isnan(values) | ((values >= 0) & (values <= 1)))]
    return f"returned {wrong[0]:g}; a number from 0 to 1, or NaN, is needed" if len(wrong) else None


def _problem(reward: Reward, cohorts: Cohorts) -> str | None:
    n, before = len(cohorts.finished), _copied(cohorts)
    try:
        values, again = _asked(reward, cohorts), _asked(reward, cohorts)
    except PartError as error:
        return str(error)
    problem = _wrong(values, n)
    if problem is not None:
        return problem
    if not np.array_equal(values, again, equal_nan=True):
        return "returned other numbers for the same cohorts; it may depend on nothing else"
    if any(not np.array_equal(before[name], getattr(cohorts, name), equal_nan=True) for name in before):
        return "changed the cohorts it was given; work on copies"
    return None


def _asked(reward: Reward, cohorts: Cohorts) -> Floats:
    """The reward's answer. Raises PartError with what it raised."""
    try:
        return reward(cohorts)
    except Exception as error:  # somebody else's code: whatever it raises is said
        raise PartError(f"failed on {len(cohorts.finished)} cohorts ({type(error).__name__}: {error})") from error


def _copied(cohorts: Cohorts) -> dict[str, Floats]:
    return {field.name: getattr(cohorts, field.name).copy() for field in fields(cohorts)}


def _nobody() -> Cohorts:
    """No cohort at all, as in a run without decisions."""
    return Cohorts(**{name: values[:0] for name, values in _copied(one_cohort([1], instance_requests=[1])).items()})

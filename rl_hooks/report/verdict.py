"""Verdicts: of one check, and of the data as a whole."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class Verdict(enum.StrEnum):
    """Of one check."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    NOT_APPLICABLE = "not applicable"


class Fitness(enum.StrEnum):
    """Of the data."""

    READY = "ready for offline RL"
    UNJUDGED = "ready for offline RL, not for off-policy evaluation"
    BANDIT = "fit for bandit learning only (no carry-over)"
    IMITATION = "imitation only"
    NOTHING = "do not train"
    DEMONSTRATION = "demonstration size"


EXIT_CODES: Mapping[Fitness, int] = {
    Fitness.READY: 0,
    Fitness.UNJUDGED: 0,
    Fitness.BANDIT: 0,
    Fitness.DEMONSTRATION: 0,
    Fitness.IMITATION: 1,
    Fitness.NOTHING: 1,
}


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    verdict: Verdict
    found: str  # one sentence with the numbers
    numbers: Mapping[str, Any]  # the same for programs: JSON values, None where there is no number
    too_small: bool = False  # if it failed, then because there is little data: more of the same would pass


def not_applicable(reason: str) -> Finding:
    return Finding(Verdict.NOT_APPLICABLE, reason, {})


@dataclass(frozen=True)
class Check:
    """A finding with what it is about."""

    name: str
    title: str
    threshold: str
    meaning: str  # what it means, and what to do when it is bad
    coverage: bool  # it is about which actions were tried where; data that fails it can still be imitated
    finding: Finding


@dataclass(frozen=True)
class Overall:
    """The verdict on the data, and the names of the checks that decided it."""

    fitness: Fitness
    decided_by: tuple[str, ...]
    sentence: str

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.fitness]


def overall(checks: Sequence[Check]) -> Overall:
    """One verdict: the worst that a failed check leads to, or how far data goes where none failed."""
    failed = [check for check in checks if check.finding.verdict is Verdict.FAIL]
    real = [check for check in failed if not check.finding.too_small]
    breaking = _names(check for check in real if not check.coverage)
    if breaking:
        return Overall(Fitness.NOTHING, breaking, "The data is not what a learner would take it for.")
    if real:
        text = "Too little was tried to judge an action that was not logged; the logging policy can be imitated."
        return Overall(Fitness.IMITATION, _names(real), text)
    if failed:
        text = "Nothing is wrong but the amount: a short run that shows how it works. Record more to train on it."
        return Overall(Fitness.DEMONSTRATION, _names(failed), text)
    known = next((check for check in checks if check.name == "propensities_known"), None)
    if known is not None and known.finding.numbers.get("are", "known") != "known":
        text = "No check failed, but what another policy would have earned cannot be estimated without propensities."
        return Overall(Fitness.UNJUDGED, (known.name,), text)
    lasting = next((check for check in checks if check.name == "carry_over"), None)
    if lasting is not None and lasting.finding.numbers.get("lag_steps") == 0:
        text = "An action has no effect beyond its own interval, so there is nothing to plan ahead for."
        return Overall(Fitness.BANDIT, (lasting.name,), text)
    warned = _names(check for check in checks if check.finding.verdict is Verdict.WARN)
    text = "No check failed." if not warned else "No check failed; look at the warnings."
    return Overall(Fitness.READY, warned, text)


def _names(checks: Any) -> tuple[str, ...]:
    return tuple(check.name for check in checks)


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst of some verdicts; pass for none."""
    order = (Verdict.FAIL, Verdict.WARN, Verdict.PASS)
    return next((verdict for verdict in order if verdict in verdicts), Verdict.PASS)

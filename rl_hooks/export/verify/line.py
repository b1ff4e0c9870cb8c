"""One line of the table: what was planned, what happened, and whether that will do."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class Verdict(enum.Enum):
    MET = "met"
    MISSED = "missed"
    TOLD = "told"  # for information: nothing the run could have missed


@dataclass(frozen=True)
class Line:
    """`allowed` is what `actual` was held against: a tolerance, an interval, or what makes the line informative."""

    what: str
    where: str  # a phase, a profile, a service, or empty for the whole run
    planned: str
    actual: str
    allowed: str
    verdict: Verdict


HEAD = ("what", "where", "planned", "actual", "allowed", "verdict")


def met_if(condition: bool) -> Verdict:
    return Verdict.MET if condition else Verdict.MISSED


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def table(lines: Sequence[Line]) -> list[str]:
    """Aligned text with a heading."""
    rows = [HEAD, *((one.what, one.where, one.planned, one.actual, one.allowed, one.verdict.value) for one in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]

"""What the proof has to show, and whether it did. Reads what the steps have written; decides nothing else."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_hooks.decision import ACTIONS

HOLDS, FAILS, OPEN = "holds", "does not hold", "open"


@dataclass(frozen=True)
class Claim:
    """One sentence, a verdict and the numbers behind it. `open`: the numbers leave both possible, or are not there."""

    text: str
    verdict: str
    numbers: str


@dataclass(frozen=True)
class Claims:
    """All of them, for people and as JSON."""

    claims: Sequence[Claim]

    def lines(self) -> list[str]:
        return [line for one in self.claims for line in (f"{one.verdict:<14} {one.text}", f"{'':<14} {one.numbers}")]

    def to_json(self) -> dict[str, Any]:
        return {"claims": [vars(one) for one in self.claims]}


def read(out: Path) -> Claims:
    """The claims about the proof in a folder. Without a live run its claims are open."""
    evaluation = _json(out / "evaluation" / "evaluation.json")
    judged = _json(out / "judge.json")
    assert evaluation is not None and judged is not None
    live = _json(out / "live.json")
    best = max((f"fixed:{name}" for name in ACTIONS), key=lambda name: float(evaluation["values"][name]["reward"]))
    return Claims(
        [
            beats_all(evaluation),
            *(no_worse(evaluation, best, measure) for measure in ("p95_ms", "error_rate")),
            same_sign(evaluation, live, best),
            contains(judged, evaluation, "virtual time"),
            *([] if live is None else [contains(judged, live, "the live run")]),
        ]
    )


def beats_all(evaluation: Mapping[str, Any]) -> Claim:
    """The interval of the paired difference in reward is above 0 for every fixed strategy."""
    found = {name: evaluation["differences"][f"fixed:{name}"]["reward"] for name in ACTIONS}
    closest = min(found, key=lambda name: float(found[name]["low"]))
    fails = [name for name in ACTIONS if found[name]["low"] <= 0]
    return Claim(
        "its reward is above every fixed strategy's, in worlds it was not trained on",
        FAILS if fails else HOLDS,
        f"closest is {closest}: {_interval(found[closest])}" + (f"; not above {', '.join(fails)}" if fails else ""),
    )


def no_worse(evaluation: Mapping[str, Any], best: str, measure: str) -> Claim:
    """Smaller is better. It fails only where it is worse beyond its interval."""
    found = evaluation["differences"][best][measure]
    worse = found["low"] > 0
    return Claim(
        f"its {measure} is no worse than that of the best fixed strategy, {best}",
        FAILS if worse else HOLDS,
        f"difference {_interval(found)}" + ("" if worse or found["high"] <= 0 else "; the interval holds 0"),
    )


def same_sign(evaluation: Mapping[str, Any], live: Mapping[str, Any] | None, best: str) -> Claim:
    """The live difference to the best fixed strategy points where the virtual one does."""
    text = f"live, its reward differs from {best} in the same direction"
    if live is None or best not in live["differences"]:
        return Claim(text, OPEN, "there was no live run")
    virtual, found = evaluation["differences"][best]["reward"], live["differences"][best]["reward"]
    if found["value"] is None or found["low"] is None:
        return Claim(text, OPEN, "the live run cannot tell")
    numbers = f"live {_interval(found)}; a difference of {found['detectable']:.4f} would be seen 80 times of 100"
    same = (found["value"] > 0) == (virtual["value"] > 0)
    clear = found["low"] > 0 or found["high"] < 0
    return Claim(text, HOLDS if same else (FAILS if clear else OPEN), numbers)


def contains(judged: Mapping[str, Any], truth: Mapping[str, Any], where: str) -> Claim:
    """The long-run estimates that are to be trusted hold what the policy earned."""
    value = float(truth["values"][truth["policy"]]["reward"])
    found = [one for one in judged["estimates"][judged["policy"]] if one["question"] == "long run" and one["trusted"]]
    text = f"the off-policy intervals of the long run hold its reward in {where}"
    if not found:
        return Claim(text, OPEN, "no long-run estimate is to be trusted with so little data")
    outside = [one["name"] for one in found if not one["low"] <= value <= one["high"]]
    listed = ", ".join(f"{one['name']} {one['low']:.4f} to {one['high']:.4f}" for one in found)
    return Claim(text, FAILS if outside else HOLDS, f"{value:.4f}; {listed}")


def _interval(one: Mapping[str, Any]) -> str:
    return f"{one['value']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f})"


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

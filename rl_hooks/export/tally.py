"""What a person reads at the end of a run: what came out, what was lost, where it is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rl_hooks.export.bundle import DATASET
from rl_hooks.export.split import TRAIN, VALIDATION

SHOWN_SPANS = 3


def tally(bundle: Path) -> list[str]:
    """The lines for a bundle that was written to `bundle`."""
    facts = json.loads((bundle / DATASET).read_text(encoding="utf-8"))
    counts = facts["counts"]
    return [
        *(line for run in facts["runs"] for line in _run(run)),
        _actions(counts["action_shares"]),
        *_propensities(facts["propensities"]),
        *_transitions(counts),
        *_empty_parts(counts["transitions"], {block["side"] for block in facts["split"]["blocks"]}),
        f"bundle       {bundle}",
    ]


def _run(run: Mapping[str, Any]) -> list[str]:
    ended = run["sessions_by_outcome"]
    requests, unfinished = run["requests"], run["unfinished"]
    share = f"{run['ok'] / (requests - unfinished):.2%} ok" if requests > unfinished else "none ended"
    unknown = f", {unfinished} with unknown end" if unfinished else ""
    return [
        f"run          {run['run_id']} ({run['state']})",
        *([f"             stopped: {run['fault']}"] if run["fault"] else []),
        f"requests     {requests}, {share}{unknown}",
        f"sessions     {ended['sessions']}: {_sessions(ended)}",
        f"decisions    {run['decisions']}{_gaps(run)}",
        *_not_applied(run["not_applied"], run["decisions"]),
        *_backfilled(run["backfill"], run["steps"]),
        *_losses(run["losses"]),
        *_clocks(run["clocks"]),
        *_faults(run["faults"]),
        *(_conversion(name, found) for name, found in run["conversion"].items()),
    ]


def _gaps(run: Mapping[str, Any]) -> str:
    """What the decision loop missed, if anything."""
    missed = ((run["skipped_intervals"], "intervals skipped"), (run["without_sample"], "made without a metrics sample"))
    told = ", ".join(f"{count} {what}" for count, what in missed if count)
    return f" ({told})" if told else ""


def _backfilled(fetched: Mapping[str, Any] | None, steps: int) -> list[str]:
    """How many steps have metrics that were fetched after the run: fewer than moments with values where these were
    older than the observation's window, or where nothing lacked."""
    return [] if fetched is None else [f"backfilled   {fetched['steps']} of {steps} steps, from {fetched['source']}"]


def _not_applied(missed: Mapping[str, Any], decisions: int) -> list[str]:
    """Decisions that the balancer did not take: how many, where, and when."""
    if not missed["decisions"]:
        return []
    where = ", ".join(f"{name} {count}" for name, count in missed["by_service"].items())
    spans = missed["spans"]
    more = [f"             and {len(spans) - SHOWN_SPANS} times more"] if len(spans) > SHOWN_SPANS else []
    return [
        f"not applied  {missed['decisions']} of {decisions} decisions: {where}",
        *(
            f"             {span['decisions']} from {span['from']} until {span['until'] or 'the last one'}"
            for span in spans[:SHOWN_SPANS]
        ),
        *more,
    ]


def _sessions(by_outcome: Mapping[str, int]) -> str:
    return ", ".join(f"{by_outcome[name]} {name}" for name in ("ended", "truncated", "failed"))


def _losses(losses: list[Mapping[str, Any]]) -> list[str]:
    if not losses:
        return ["rows lost    0"]
    lost = sum(loss["missing_rows"] for loss in losses)
    return [f"rows lost    at least {lost}:", *(f"             {loss['text']}" for loss in losses)]


def _clocks(clocks: list[Mapping[str, Any]]) -> list[str]:
    """Of several processes, how well their clocks are known; of any, that it was set."""
    compared = [clock for clock in clocks if clock["uncertainty_s"] is not None]
    corrected = [abs(clock["offset_s"]) for clock in clocks if clock["corrected"]]
    known_ms = 1000 * max((clock["uncertainty_s"] for clock in compared), default=0.0)
    known = f"clocks       {len(compared)} processes, known to {known_ms:.1f} ms"
    moved = f"; {len(corrected)} corrected by up to {max(corrected):.3f} s" if corrected else ""
    steps = [
        f"{clock['process']}: its wall clock was set by {step_s:+.3f} s; its rows kept their time"
        for clock in clocks
        for step_s in clock["steps_s"]
    ]
    lines = [known + moved] if len(compared) > 1 else []
    return [*lines, *(f"{'' if lines or at else 'clocks':<13}{text}" for at, text in enumerate(steps))]


def _faults(faults: Mapping[str, Any]) -> list[str]:
    if faults["without_faults"]:
        return ["faults       left out on request (--no-faults)"]
    if not faults["planned"]:
        return []
    trouble = [f"{faults[name]} {name.replace('_', ' ')}" for name in ("not_applied", "not_lifted") if faults[name]]
    parts = [f"{faults['planned']} planned", f"{faults['applied']} applied", f"{faults['lifted']} lifted", *trouble]
    return [f"faults       {', '.join(parts)} (by {faults['injector']})"]


def _conversion(profile: str, found: Mapping[str, Any]) -> str:
    actual = "no session ended" if found["actual"] is None else f"actual {found['actual']:.1%}"
    return f"conversion   {profile}: planned {found['planned']:.1%}, {actual} of {found['sessions']} sessions"


def _actions(shares: Mapping[str, float | None]) -> str:
    return "actions      " + ", ".join(f"{name} {share or 0:.1%}" for name, share in shares.items())


def _propensities(found: Mapping[str, Any]) -> list[str]:
    """Of a balancer that decides by itself, whether it stated them."""
    if found["stated_by"] == "the logging policy":
        return []
    steps, policies = (
        f"{found['steps_with']} steps with, {found['steps_without']} without",
        ", ".join(found["policies"]),
    )
    return [f"propensities {found['are']}: {steps}; stated by {found['stated_by']}, policies named: {policies}"]


def _transitions(counts: Mapping[str, Any]) -> list[str]:
    parts = counts["transitions"]
    lines = [f"transitions  train {parts['train']}, validation {parts['validation']}, excluded {parts['excluded']}"]
    for name, reason in counts["excluded"].items():
        if reason["rows"]:
            lines.append(f"             excluded {reason['rows']} {name}: {reason['meaning']}")
    if counts["incomplete"]:
        lines.append(f"             dropped {counts['incomplete']}: their interval was not over when the run ended")
    return lines


def _empty_parts(parts: Mapping[str, int], dealt: set[str]) -> list[str]:
    """Why a part of the split has no rows; `dealt` are the parts that time blocks were dealt to."""
    too_short, left_out = "the run is too short for two time blocks", "all its steps are excluded, see above"
    return [
        f"             no {name} part: {left_out if name in dealt else too_short}"
        for name in (TRAIN, VALIDATION)
        if not parts[name]
    ]

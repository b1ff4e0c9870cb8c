"""Whether everything was recorded, for everything that was planned, by a generator that kept up."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rl_hooks.decision import SERVICES
from rl_hooks.report.evidence import GIVE_RUN, Array, Evidence, Floats, Ints, Mask
from rl_hooks.report.state import Case
from rl_hooks.report.verdict import Finding, Verdict, not_applicable, worst
from rl_hooks.run_clocks import process_clock

GAUGES = (
    *("cpu_mean", "cpu_max", "memory_mean", "memory_max", "queue_sum", "queue_max"),
    *("health_min", "health_mean", "in_flight_spread"),
)
"""Features that are read from the metrics source."""

_BY_CHANCE = 5.0  # what was expected less often than this can be missing by chance (Poisson: 0.7 %)


def rows_lost(case: Case) -> Finding:
    evidence = case.evidence
    counts, runs = evidence.facts["counts"], evidence.facts["runs"]
    losses = [loss for run in runs for loss in run["losses"]]
    known = sum(int(loss["missing_rows"]) for loss in losses)
    written = sum(counts["transitions"].values())
    unaccounted = abs(counts["decisions"] - written - counts["incomplete"]) + abs(len(evidence.steps) - written)
    requests, unfinished = (sum(int(run[name]) for run in runs) for name in ("requests", "unfinished"))
    share = unfinished / requests if requests else 0.0
    damaged = Verdict.FAIL if losses or unaccounted else Verdict.PASS
    said = (
        f"{known} rows are known to be lost" if not losses else f"At least {known} rows are lost ({losses[0]['text']})"
    )
    return Finding(
        worst([damaged, case.limits.rows_lost.judge(known), case.limits.requests_unfinished.judge(share)]),
        f"{said}, {unaccounted} decisions are unaccounted for, {unfinished} of {requests} requests have no known end.",
        {"rows_lost": known, "losses": len(losses), "unaccounted": unaccounted, "unfinished_share": share},
    )


def pairs_service_phase(case: Case) -> Finding:
    steps = case.evidence.steps.iloc[case.evidence.judged]
    counts = steps.groupby(["service", "phase"], observed=True).size().to_dict()
    found = {(a, b): int(counts.get((a, b), 0)) for a in SERVICES for b in case.evidence.phases}
    return _pairs(case, found, "decisions", by_chance=_hardly_called(case.evidence))


def _hardly_called(evidence: Evidence) -> frozenset[tuple[str, str]]:
    """(service, phase) that decided for so few planned requests that none can be chance. Unknown without the plan."""
    decided = evidence.steps[["service", "phase"]].drop_duplicates().itertuples(index=False, name=None)
    requests: dict[tuple[str, str], float] = {}
    for part in evidence.recorded:
        for phase in part.plan.phases:
            for service, rps in part.plan.expected_service_rps(phase).items():
                requests[service, phase.name] = requests.get((service, phase.name), 0.0) + rps * phase.duration_s
    return frozenset(pair for pair in decided if requests.get(pair, _BY_CHANCE) < _BY_CHANCE)


def pairs_service_action(case: Case) -> Finding:
    return _action_pairs(case, SERVICES, "service")


def pairs_phase_action(case: Case) -> Finding:
    return _action_pairs(case, case.evidence.phases, "phase")


def pairs_phase_profile(case: Case) -> Finding:
    evidence = case.evidence
    if not evidence.recorded:
        return not_applicable(f"which profiles a phase should have is {GIVE_RUN}")
    seen = sessions_by_pair(evidence)
    planned = dict.fromkeys(
        (phase.name, profile)
        for part in evidence.recorded
        for phase in part.plan.phases
        for profile, users in phase.mix.items()
        if users
    )
    return _pairs(case, {pair: seen.get(pair, 0) for pair in planned}, "sessions", by_chance=frozenset())


def sessions_by_pair(evidence: Evidence) -> dict[tuple[str, str], int]:
    """(phase, profile) -> sessions that sent a request in the phase."""
    columns = evidence.requests[["run_id", "profile", "slot", "session", "phase"]]
    known = columns[columns["phase"].notna() & columns["profile"].notna()].drop_duplicates()
    counts = known.groupby(["phase", "profile"], observed=True).size()
    return {(str(phase), str(profile)): int(count) for (phase, profile), count in counts.items()}


def _action_pairs(case: Case, names: Iterable[str], column: str) -> Finding:
    evidence = case.evidence
    rows = evidence.judged
    label, action = evidence.steps[column].to_numpy()[rows], evidence.action[rows]
    found: dict[tuple[str, str], int] = {}
    rare: set[tuple[str, str]] = set()
    stated = evidence.whole_distribution  # where it is not, what was possible is not known
    default = np.array(evidence.columns.mask.all(axis=0))
    for name in names:
        mine = label == name
        expected = evidence.probabilities[rows[mine]].sum(axis=0)
        # Without a step nobody knows which service's actions were meant, where each has its own.
        there = np.array(evidence.mask[rows[mine]].any(axis=0)) if mine.any() else default
        for number, action_name in enumerate(evidence.labels):
            if not there[number]:
                continue
            found[name, action_name] = int((action[mine] == number).sum())
            # What was never possible is missing on purpose. Where there are no steps at all, (service, phase) decides.
            if mine.sum() / there.sum() < _BY_CHANCE and (not stated or expected[number] > 0 or not mine.any()):
                rare.add((name, action_name))
    finding = _pairs(case, found, "decisions", by_chance=frozenset(rare))
    return replace(finding, found=finding.found + evidence.columns.told())


def _pairs(
    case: Case, counts: Mapping[tuple[str, str], int], what: str, by_chance: frozenset[tuple[str, str]]
) -> Finding:
    if not counts:
        return not_applicable("nothing was planned")
    limit = case.limits.pair_count
    failing = [pair for pair, count in counts.items() if limit.judge(count) is Verdict.FAIL]
    (first, second), fewest = min(counts.items(), key=lambda item: item[1])
    text = f"Fewest: {fewest} {what} for ({first}, {second}), of {len(counts)} pairs"
    named = f"; missing: {', '.join(f'({a}, {b})' for a, b in failing)}." if failing else "."
    return Finding(
        limit.judge(fewest),
        text + named,
        {"fewest": fewest, "missing": [list(pair) for pair in failing], "pairs": len(counts)},
        too_small=bool(failing) and by_chance.issuperset(failing),
    )


def _is_without(run: Mapping[str, Any]) -> bool:
    return run.get("source") == "none" and run.get("backfill") is None


def missing_telemetry(case: Case) -> Finding:
    evidence = case.evidence
    without = {str(run["run_id"]) for run in evidence.facts["runs"] if _is_without(run)}
    of_source = ~evidence.steps["run_id"].isin(without).to_numpy()
    rows = evidence.usable[of_source[evidence.usable]]
    if without and len(rows) == 0:
        text = "Recorded without a metrics source: CPU, memory and queues of the instances are not in the observation."
        return Finding(Verdict.WARN, text, {"share": 1.0})
    if len(rows) == 0:
        return not_applicable("there is no usable step")
    given, absent = given_gauges(evidence)[rows], _never_given(evidence, rows)
    share = float(np.isnan(_gauges(evidence)[rows])[given].mean()) if given.any() else 1.0
    never = f" Never known: {', '.join(absent)}; the source does not give them." if absent else ""
    return Finding(
        worst([case.limits.missing_telemetry.judge(share), Verdict.WARN if without or absent else Verdict.PASS]),
        f"{share:.2%} of the instances' measurements {'that are given ' if absent else ''}"
        f"are missing in the observations.{never}",
        {"share": share, "never_known": absent, "runs_without_a_source": len(without)},
    )


def missing_gauges(evidence: Evidence) -> Floats:
    """(n,) the share of gauges missing at each step, among those that are given there; 0 where none is."""
    given, missing = given_gauges(evidence), np.isnan(_gauges(evidence))
    share: Floats = (given & missing).sum(axis=1) / np.maximum(given.sum(axis=1), 1)
    return share


def given_gauges(evidence: Evidence) -> Mask:
    """(n, gauges) what the step's run ever knew of its service: a source need not give all. A run that knew nothing at
    all was to be given everything."""
    known = ~np.isnan(_gauges(evidence))
    given, runs = np.ones(known.shape, bool), evidence.steps["run_id"].to_numpy()
    for run in np.unique(runs):
        of_run = runs == run
        if not known[of_run].any():
            continue
        for service in range(len(SERVICES)):
            mine = of_run & (evidence.service == service)
            given[mine] = known[mine].any(axis=0)
    return given


def _never_given(evidence: Evidence, rows: Ints) -> list[str]:
    """The gauges that some services are never given, each with these unless it is all of them."""
    given, service, found = given_gauges(evidence)[rows], evidence.service[rows], []
    there = np.unique(service)
    for place, name in enumerate(_gauge_names(evidence)):
        lacking = [SERVICES[one] for one in there if not given[service == one, place].any()]
        if lacking:
            found.append(name if len(lacking) == len(there) else f"{name} of {' and '.join(lacking)}")
    return found


def _gauges(evidence: Evidence) -> Array:
    """(n, gauges) what each step knows."""
    names = [feature["name"] for feature in evidence.features]
    return evidence.observation[:, [names.index(name) for name in _gauge_names(evidence)]]


def _gauge_names(evidence: Evidence) -> list[str]:
    return [str(feature["name"]) for feature in evidence.features if feature["name"] in GAUGES]


def generator(case: Case) -> Finding:
    readings = _events(case, "generator", ("cpu", "lag_p99_s"))
    if isinstance(readings, str):
        return not_applicable(readings)
    by_process: dict[str, list[Mapping[str, Any]]] = {}
    for event in readings:
        by_process.setdefault(str(event.get("process", "")), []).append(event)
    busy = {name: _high(event["cpu"] for event in events) for name, events in by_process.items()}
    late = {name: _high(event["lag_p99_s"] for event in events) for name, events in by_process.items()}
    cpu, lag_s = max(busy.values()), max(late.values())
    share = lag_s / case.evidence.interval_s
    limits = case.limits
    return Finding(
        worst([limits.generator_cpu.judge(cpu), limits.generator_lag.judge(share)]),
        f"The busiest process used {cpu:.0%} of a CPU, its event loop was up to {lag_s * 1000:.0f} ms late "
        "(95th percentiles over the run).",
        {"cpu": cpu, "lag_p99_s": lag_s, "lag_share_of_interval": share, "processes": len(by_process)},
    )


def clock(case: Case) -> Finding:
    readings = _events(case, "clock", ("offset_s", "uncertainty_s"))
    if isinstance(readings, str):
        return not_applicable(readings)
    whose: dict[str, list[Mapping[str, Any]]] = {}
    for event in readings:
        whose.setdefault(str(event.get("process", "")), []).append(event)
    uncertainty_s = max(int(process_clock(events).uncertainty_ns.max()) for events in whose.values()) / 1e9
    share = uncertainty_s / case.evidence.interval_s
    steps = _events(case, "clock_step", ("step_s",))
    number = 0 if isinstance(steps, str) else len(steps)
    return Finding(
        worst([case.limits.clock_uncertainty.judge(share), Verdict.WARN if number else Verdict.PASS]),
        f"Clocks of the processes may be apart by {uncertainty_s * 1000:.1f} ms, {share:.0%} of a decision interval"
        + (f"; {number} times a wall clock was set during the run." if number else "."),
        {"uncertainty_s": uncertainty_s, "share_of_interval": share, "steps": number},
    )


def _events(case: Case, kind: str, numbers: tuple[str, ...]) -> list[Mapping[str, Any]] | str:
    """The events of a kind that hold all the numbers; or why there are none."""
    if not case.evidence.recorded:
        return GIVE_RUN[0].upper() + GIVE_RUN[1:]
    events = [event for part in case.evidence.recorded for event in part.events(kind)]
    whole = [event for event in events if all(isinstance(event.get(name), int | float) for name in numbers)]
    if not whole:
        return f'the run recorded no "{kind}" events with {" and ".join(numbers)}'
    return whole


def _high(values: Iterable[Any]) -> float:
    return float(np.quantile([float(value) for value in values], 0.95))

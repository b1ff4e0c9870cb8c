"""Which facts belong to which decision: its interval, its cohort of requests, what was known when it was made."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.action_space import STRATEGIES, ActionSpace
from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.export import compiled
from rl_hooks.export.backfill import Backfill, fill
from rl_hooks.export.errors import ExportError
from rl_hooks.export.rewards import Cohorts
from rl_hooks.export.sent import FAILED, SATISFIED, TOLERATED, Ended, SentTable
from rl_hooks.observation import Spans, features_of
from rl_hooks.observation_table import Cells, CompletionTable, observations
from rl_hooks.request_log import Batch, end_ns
from rl_hooks.run_reader import Run
from scenario.plan import Plan

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

GAP_INTERVALS = 2.5
"""A decision follows the one before within two intervals. Timers are a little off, so the limit lies above two."""


@dataclass(frozen=True)
class Timeline:
    """The decisions of one run in order of service and time, n of them, each with its interval [t_ns, next_ns)."""

    row: Ints  # (n,) position in run.decisions
    service: Ints  # (n,)
    t_ns: Ints  # (n,)
    next_ns: Ints  # (n,) the service's next decision; t_ns + one interval where none follows within two intervals
    followed: npt.NDArray[np.bool_]  # (n,) the service's next decision is at next_ns, and it is the next row
    complete: npt.NDArray[np.bool_]  # (n,) the run was still recorded at next_ns


@dataclass(frozen=True)
class Observed:
    """What was known at each decision and at the end of its interval.

    `at` is what the decision was made with, where that was recorded; `all_rows` is what it would have been made with,
    had the deciding process known every row of every worker at once. They differ by what was still on its way.
    """

    at: npt.NDArray[np.float32]  # (n, features)
    after: npt.NDArray[np.float32]  # (n, features)
    all_rows: npt.NDArray[np.float32]  # (n, features)
    sample_ns: Ints  # (n,) time of the metrics sample known at the decision, 0: none
    backfilled: npt.NDArray[np.bool_]  # (n,) some of `at` was not known then and was filled in after the run


def plan_start_ns(run: Run) -> int:
    """Wall-clock time of the plan's second 0, from the first event that states both clocks."""
    for event in run.events:
        if "run_time_s" in event:
            run_time_ns: int = round(event["run_time_s"] * 1e9)
            return int(event["t_ns"]) - run_time_ns
    return int(run.manifest["started_unix_ns"])


def spans_of(plan: Plan) -> Spans:
    return Spans.of_seconds(plan.window_s, plan.decision_interval_s)


def given_up_ns(run: Run, plan: Plan) -> Ints:
    """Until when a request whose process died can have been in flight: its client would have given up then."""
    until: Ints = run.in_flight["start_ns"].astype(np.int64) + round(plan.request_timeout_s * 1e9)
    return until


def timeline(run: Run, plan: Plan) -> Timeline:
    """Raises ExportError for a run without decisions or with two decisions of a service at one moment."""
    decisions = run.decisions
    if len(decisions) == 0:
        raise ExportError(
            f"{run.path}: no decisions were recorded, so there is nothing to learn from; record a run first"
        )
    row = np.lexsort((decisions["t_ns"], decisions["service"]))
    service = decisions["service"][row].astype(np.int64)
    t_ns = decisions["t_ns"][row].astype(np.int64)
    interval_ns = spans_of(plan).interval_ns
    ahead_ns = np.append(t_ns[1:] - t_ns[:-1], 0)
    same_service = np.append(service[1:] == service[:-1], False)
    if (same_service & (ahead_ns <= 0)).any():
        first = int(np.flatnonzero(same_service & (ahead_ns <= 0))[0])
        raise ExportError(
            f"{run.path}: {SERVICES[service[first]]} has two decisions at {t_ns[first]} ns; "
            "two processes decided in this run, so it cannot be exported"
        )
    followed = same_service & (ahead_ns <= GAP_INTERVALS * interval_ns)
    next_ns = np.where(followed, t_ns + ahead_ns, t_ns + interval_ns)
    return Timeline(row, service, t_ns, next_ns, followed, followed | (next_ns <= _last_moment_ns(run)))


def _last_moment_ns(run: Run) -> int:
    """Until when the run was recorded: its end as stated, or the last fact of one that was interrupted."""
    if run.manifest.get("ended_unix_ns") is not None:
        return int(run.manifest["ended_unix_ns"])
    last = [run.decisions["t_ns"], run.samples["received_ns"], run.in_flight["start_ns"]]
    ends = (end_ns(batch) for batch in run.batches())
    return max(int(times.max()) for times in itertools.chain(last, ends) if len(times))


def cohort_of(service: Array, start_ns: Array, line: Timeline) -> Ints:
    """The decision in whose interval each request was sent, as a row of the timeline; -1: none."""
    found = np.full(len(start_ns), -1, np.int64)
    for index in range(len(SERVICES)):
        begin, end = np.searchsorted(line.service, (index, index + 1))
        mine = np.flatnonzero(service == index)
        place = begin + np.searchsorted(line.t_ns[begin:end], start_ns[mine], side="right") - 1
        inside = (place >= begin) & (start_ns[mine] < line.next_ns[place])
        found[mine[inside]] = place[inside]
    return found


@dataclass(frozen=True)
class Tallies:
    """What one pass over the requests of a run found."""

    moments_ns: Ints  # (m,) all times of `line`, in order
    ended: CompletionTable  # by when they ended
    sent: SentTable  # by when they were sent


def tally(run: Run, plan: Plan, line: Timeline, *, exact_quantiles: bool, use_compiled: bool | None = None) -> Tallies:
    """One pass over the requests. What it keeps grows with the decisions and with the requests of one window.

    `use_compiled`: with the compiled loops, which give the same bits; None: where they are worth it.
    """
    fast = compiled.worth_it(run.request_count) if use_compiled is None else use_compiled
    moments = np.unique(np.concatenate((line.t_ns, line.next_ns)))
    slide = compiled.slide if fast else None
    ended = CompletionTable(moments, spans_of(plan), exact_quantiles=exact_quantiles, slide=slide)
    sent = SentTable(moments, plan.slo_ms, len(run.names["instance"]))
    for batch in run.batches():
        if fast:
            compiled.add(batch, ended, sent)
        else:
            _add(batch, ended, sent)
    return Tallies(moments, ended, sent)


def _add(batch: Batch, ended: CompletionTable, sent: SentTable) -> None:
    rows = Ended.of(batch)
    moments_passed = ended.add(rows.service, rows.end_ns, rows.duration_us, rows.failed, batch.complete_ns)
    sent.add(rows, moments_passed)


def observe(run: Run, plan: Plan, line: Timeline, found: Tallies, backfill: Backfill | None = None) -> Observed:
    """The observations at every decision and at every end of an interval, with what is missing filled in."""
    moments, spans = found.moments_ns, spans_of(plan)
    in_flight = found.sent.cells.before(found.sent.classes.sum(axis=2), moments) - found.ended.ended()
    for index in range(len(SERVICES)):
        lost = run.in_flight["service"] == index
        for times, change in ((run.in_flight["start_ns"], 1), (given_up_ns(run, plan), -1)):
            in_flight[:, index] += change * np.sort(times[lost]).searchsorted(moments)
    labels, number = ActionSpace.of(run.manifest).labels, sampled_numbers(run)
    values, sample_ns = observations(found.ended, in_flight, run.samples, run.decisions, moments, spans, labels, number)
    here, there = moments.searchsorted(line.t_ns), moments.searchsorted(line.next_ns)
    all_rows, after = values[here, line.service], values[there, line.service]
    at = np.where(recorded_mask(run, line)[:, None], _recorded(run, line), all_rows)
    filled = np.zeros(len(at), bool)
    if backfill is not None:
        number = _numbers(run, backfill.rows, backfill.names)
        more, _ = observations(found.ended, in_flight, backfill.rows, run.decisions, moments, spans, labels, number)
        filled = fill(at, more[here, line.service], labels)
        fill(all_rows, more[here, line.service], labels)
        fill(after, more[there, line.service], labels)
    followed = np.flatnonzero(line.followed)
    after[followed] = at[followed + 1]
    return Observed(at, after, all_rows, sample_ns[here, line.service], filled)


def sampled_numbers(run: Run) -> Ints:
    """(samples,) the number of each sample's instance among its service's actions, -1: none."""
    return _numbers(run, run.samples, run.names["instance"])


def _numbers(run: Run, samples: Array, names: Sequence[str]) -> Ints:
    numbers = np.array(ActionSpace.of(run.manifest).numbers(names, absent=-1), np.int64)
    found: Ints = numbers[samples["service"], samples["instance_ref"]]
    return found


def recorded_mask(run: Run, line: Timeline) -> npt.NDArray[np.bool_]:
    """Which decisions say what they were made with."""
    return _observation_row(run, line) >= 0


def _recorded(run: Run, line: Timeline) -> npt.NDArray[np.float32]:
    """(n, features) what each decision was made with; NaN where it does not say."""
    width = len(features_of(ActionSpace.of(run.manifest).labels))
    found = np.full((len(line.t_ns), width), np.nan, np.float32)
    row = _observation_row(run, line)
    for index in range(width):
        found[row >= 0, index] = run.observations[f"value_{index}"][row[row >= 0]]
    return found


def _observation_row(run: Run, line: Timeline) -> Ints:
    """(n,) the row of run.observations that belongs to each decision, -1: none."""
    if len(run.observations) == 0:
        return np.full(len(line.t_ns), -1, np.int64)
    seen, decided = run.observations, run.decisions[line.row]
    key, wanted = (rows["tick"].astype(np.int64) * len(SERVICES) + rows["service"] for rows in (seen, decided))
    place = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    return np.where(key[place] == wanted, place, -1)


def _of_cohorts(cells: Cells, sums: Array, line: Timeline) -> Array:
    """The sum over each decision's interval; `sums` is (cells, services, ...)."""
    return cells.before(sums, line.next_ns, line.service) - cells.before(sums, line.t_ns, line.service)


def cohorts(run: Run, plan: Plan, line: Timeline, sent: SentTable, sample_ns: Ints) -> Cohorts:
    """The facts that the rewards are made of, one entry per decision."""
    classes = _of_cohorts(sent.cells, sent.classes, line)
    instance_requests, instance_capacity = _per_instance(run, line, sent, sample_ns)
    return Cohorts(
        finished=classes.sum(axis=1).astype(np.float64),
        failed=classes[:, FAILED].astype(np.float64),
        ok_ms=_of_cohorts(sent.cells, sent.ok_us, line) / 1000,
        satisfied=classes[:, SATISFIED].astype(np.float64),
        tolerated=classes[:, TOLERATED].astype(np.float64),
        slo_ms=np.array([plan.slo_ms[name] for name in SERVICES])[line.service],
        expected=_expected(run, plan, line),
        instance_requests=instance_requests,
        instance_capacity=instance_capacity,
    )


def _expected(run: Run, plan: Plan, line: Timeline) -> Floats:
    """Requests the plan expects in each interval, at the users planned in its middle.

    NaN where the plan has no shoppers: a policy served somebody else's traffic, and nobody knows what was to come.
    """
    if not plan.max_users_per_profile:
        return np.full(len(line.t_ns), np.nan)
    middle_ns, place = np.unique((line.t_ns + line.next_ns) // 2, return_inverse=True)
    start_ns = plan_start_ns(run)
    rps = np.zeros((len(middle_ns), len(SERVICES)))
    for index, moment in enumerate(middle_ns.tolist()):
        rates = plan.expected_service_rps_at((moment - start_ns) / 1e9)
        rps[index] = [rates.get(name, 0.0) for name in SERVICES]
    return rps[place, line.service] * (line.next_ns - line.t_ns) / 1e9


def _per_instance(run: Run, line: Timeline, sent: SentTable, sample_ns: Ints) -> tuple[Floats, Floats]:
    """Requests and declared capacity per instance, two (n, instances of a service) tables.

    Available is an instance that the last sample known at the decision did not call down, or that served one of the
    requests. Without a sample: every instance of the service that is named anywhere in the run.
    """
    place = _instance_places(run, sent)
    served = _of_cohorts(sent.cells, sent.served(place), line).astype(np.float64)
    width = served.shape[1]
    capacity = np.full(served.shape, np.nan)
    everywhere = np.arange(width) < (place >= 0).sum(axis=1)[:, None]  # (services, width)
    capacity[sample_ns == 0] = np.where(everywhere[line.service[sample_ns == 0]], 1.0, np.nan)
    decision, sample = _samples_at(run, line, sample_ns)
    rows = run.samples[sample]
    up = (rows["up"] != 0) & (rows["instance_ref"] > 0)
    declared = np.where(rows["capacity"] > 0, rows["capacity"], 1.0)  # also for NaN
    capacity[decision[up], place[rows["service"][up], rows["instance_ref"][up]]] = declared[up]
    capacity[(served > 0) & np.isnan(capacity)] = 1.0
    return served, capacity


def _instance_places(run: Run, sent: SentTable) -> Ints:
    """(services, instance refs) -> the instance's place among its service's own; -1: not one of its."""
    place = np.where(sent.named, 0, -1)
    named = run.samples["instance_ref"] > 0
    place[run.samples["service"][named], run.samples["instance_ref"][named]] = 0
    for row in place:
        mine = np.flatnonzero(row >= 0)
        row[mine] = np.arange(len(mine))
    return place


def _samples_at(run: Run, line: Timeline, sample_ns: Ints) -> tuple[Ints, Ints]:
    """Pairs of (decision, row of run.samples) for the sample that each decision knew."""
    samples = run.samples
    order = np.lexsort((samples["t_ns"], samples["service"]))
    decisions, rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for index in range(len(SERVICES)):
        mine = order[slice(*np.searchsorted(samples["service"][order], (index, index + 1)))]
        deciding = np.flatnonzero((line.service == index) & (sample_ns > 0))
        first = np.searchsorted(samples["t_ns"][mine], sample_ns[deciding], side="left")
        count = np.searchsorted(samples["t_ns"][mine], sample_ns[deciding], side="right") - first
        offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        decisions.append(np.repeat(deciding, count))
        rows.append(mine[np.repeat(first, count) + offset])
    return np.concatenate(decisions), np.concatenate(rows)


HEADER_ACTUATOR = "header"  # as the manifest names it: every request asks by itself, and nobody confirms


@dataclass(frozen=True)
class Applied:
    """Which action the balancer applied to the requests of each decision."""

    action: Ints  # (n,) the one applied to most; the requested one where no request tells
    share: Floats  # (n,) of the requests that tell, those with `action`; NaN where none tells
    valid: npt.NDArray[np.bool_]  # (n,) `action` is the requested one, and it was or may have been applied


def applied(run: Run, line: Timeline, sent: SentTable) -> Applied:
    """The applied action of every decision, from its requests; a draw between actions goes to the requested one."""
    space = ActionSpace.of(run.manifest)
    told_by = _strategies if space.kind == STRATEGIES else _serving_instances
    counts = told_by(run, line, sent, space).astype(np.float64)
    decisions = run.decisions[line.row]
    requested = decisions["action"].astype(np.int64)
    rows = np.arange(len(requested))
    favoured = counts.copy()
    favoured[rows, requested] += 0.5
    told = counts.sum(axis=1)
    action = np.where(told > 0, favoured.argmax(axis=1), requested)
    named = np.where(action < space.size, action, requested)
    share = np.divide(counts[rows, named], told, out=np.full(len(told), np.nan), where=told > 0)
    # An actuator that told the balancer knows that it was heard. A header that nobody answered may have been stripped
    # on the way, so where requests ended and none of them tells, nobody knows what routed them.
    asked = _of_cohorts(sent.cells, sent.classes, line).sum(axis=1) > 0
    unheard = asked & (told == 0) & (run.manifest["actuator"] == HEADER_ACTUATOR)
    valid = (action == requested) & ((told > 0) | (decisions["actuated"] == 1)) & ~unheard
    return Applied(named, share, valid)


def _strategies(run: Run, line: Timeline, sent: SentTable, space: ActionSpace) -> Array:
    """(n, actions) requests by the strategy that the balancer says it applied."""
    del run, space
    found: Array = _of_cohorts(sent.cells, sent.actions, line)[:, : len(ACTIONS)]
    return found


def _serving_instances(run: Run, line: Timeline, sent: SentTable, space: ActionSpace) -> Array:
    """(n, actions + 1) requests by the instance that served them; the last: one that was not there before the run."""
    place = np.array(space.numbers(run.names["instance"], absent=space.size))
    served = _of_cohorts(sent.cells, sent.served(place), line)
    return np.pad(served, ((0, 0), (0, space.size + 1 - served.shape[1])))

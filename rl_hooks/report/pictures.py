"""The pictures of a report card: each a title, one sentence, and SVG or a table that is coloured like a map."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rl_hooks.decision import SERVICES
from rl_hooks.report import stats, svg
from rl_hooks.report.checks.recording import missing_gauges
from rl_hooks.report.evidence import Array, Evidence, Floats, Ints, Recorded
from rl_hooks.report.faults import fault_spans
from rl_hooks.report.state import Case
from rl_hooks.report.svg import Band, Line, Panel

_POINTS = 180  # over the length of a run
_MOST_RUNS = 6  # with pictures over time; a bundle of more says so
_MOST_FAULTS = 40
_MOST_LEVELS = 8  # of logged probability
_LEAST_REQUESTS = 3  # behind a point of a latency band


@dataclass(frozen=True)
class Picture:
    """`body` is HTML; `legend` pairs a class of the style sheet with what it stands for."""

    title: str
    caption: str
    body: str
    legend: tuple[tuple[str, str], ...] = ()


def pictures(case: Case) -> list[Picture]:
    """All pictures that the evidence has something for, in the order in which they are read."""
    evidence = case.evidence
    run_ids = [str(run["run_id"]) for run in evidence.facts["runs"]]
    by_run = {part.run_id: part for part in evidence.recorded}
    found: list[Picture] = []
    for run_id in run_ids[:_MOST_RUNS]:
        named = f" of {run_id}" if len(run_ids) > 1 else ""
        found += _over_time(evidence, run_id, by_run.get(run_id), named)
    found += [*_actions_by_phase(evidence), *_propensities(evidence), *_rewards(evidence), *_coverage(case)]
    found += _recoveries(case)
    return found


def _over_time(evidence: Evidence, run_id: str, part: Recorded | None, named: str) -> Iterator[Picture]:
    scripted = part if part is not None and part.plan.max_users_per_profile else None  # serving has no planned end
    end_s = _end_s(evidence, run_id, scripted)
    bands = _phase_bands(evidence, run_id, scripted)
    if part is not None:
        yield from _users(part, end_s, bands, named)
    yield from _services(evidence, run_id, part, end_s, bands, named)
    yield from _telemetry(evidence, run_id, end_s, named)
    if part is not None:
        yield from _generator(part, end_s, bands, named)


def _users(part: Recorded, end_s: float, bands: Sequence[Band], named: str) -> Iterator[Picture]:
    events = part.events("users")
    if not events:
        return
    counted_s = np.array([part.at_s(event) for event in events])
    planned_s = np.linspace(0, part.plan.duration_s, 4 * _POINTS, endpoint=False)
    mixes = [part.plan.mix_at(t_s) for t_s in planned_s.tolist()]
    panels = []
    for profile in part.plan.max_users_per_profile:
        actual = _corners("actual", "c1", counted_s, [event["counts"].get(profile, 0) for event in events])
        planned = _corners("planned", "c2 dashed", planned_s, [mix[profile] for mix in mixes])
        panels.append(Panel(profile, [actual, planned], height=70))
    caption = "The two lines lie on each other where the load generator did what the scenario says."
    body = svg.stack(
        "Planned and actual users per profile over the time of the run", panels, end_s, bands, _seconds(part)
    )
    yield Picture(f"Users per profile{named}", caption, body, (("c1", "actual"), ("c2", "planned")))


def _corners(name: str, style: str, x: Floats, counts: Sequence[int]) -> Line:
    """A line without the points at which nothing changes: a run of hours has a count for every second."""
    values = np.array(counts, np.float64)
    same = np.zeros(len(values), bool)
    same[1:-1] = (values[1:-1] == values[:-2]) & (values[1:-1] == values[2:])
    return Line(name, style, x[~same], values[~same])


def _services(
    evidence: Evidence, run_id: str, part: Recorded | None, end_s: float, bands: Sequence[Band], named: str
) -> Iterator[Picture]:
    latency, errors, legend = _service_panels(evidence, run_id, part, end_s)
    if not latency:
        return
    label = "Median and 95th percentile of the response time per service over the time of the run"
    caption = "All requests by when they were sent, on a logarithmic scale; gaps are moments with hardly any."
    body = svg.stack(label, latency, end_s, bands, _unit(part))
    yield Picture(f"Response times per service{named}", caption, body, (("c1", "p50"), ("c2", "p95"), *legend))
    label = "Share of failed requests per service over the time of the run"
    caption = "Failures are data: they should come with load, faults and bad actions, and go with them."
    body = svg.stack(label, errors, end_s, bands, _unit(part))
    yield Picture(f"Errors per service{named}", caption, body, (("c3", "failed"), *legend))


def _service_panels(
    evidence: Evidence, run_id: str, part: Recorded | None, end_s: float
) -> tuple[list[Panel], list[Panel], list[tuple[str, str]]]:
    """A panel of response times and one of failures for every service, and what the legend says of faults."""
    requests = evidence.requests[evidence.requests["run_id"] == run_id]
    if len(requests) == 0:
        return [], [], []
    point_s = max(end_s / _POINTS, 1e-9)
    place = np.floor(requests["t_s"].to_numpy() / point_s).astype(np.int64)
    service = requests["service"].to_numpy(str)
    took_ms = requests["duration_us"].to_numpy(np.float64) / 1000
    failed = requests["ok"].eq(False).to_numpy(bool)  # one whose end is unknown has not failed
    middle_s = (np.arange(_POINTS) + 0.5) * point_s
    spans = fault_spans(part) if part is not None else []
    latency, errors = [], []
    for name in SERVICES:
        rows = np.flatnonzero((service == name) & (place >= 0) & (place < _POINTS))
        p50, p95, share = _bands(place[rows], took_ms[rows], failed[rows])
        shaded = [
            Band(span.start_s, span.end_s if span.end_s is not None else end_s, span.text, "fault")
            for span in spans
            if span.service == name
        ]
        lines = [Line("p95", "c2", middle_s, p95), Line("p50", "c1", middle_s, p50)]
        latency.append(Panel(f"{name}, response time", lines, " ms", log=True, bands=shaded))
        top = max(5.0, float(np.nan_to_num(share).max()) * 105)
        line = Line("failed", "c3", middle_s, share * 100)
        errors.append(Panel(f"{name}, failed", [line], " %", top, height=60, bands=shaded))
    return latency, errors, [("fault", "fault")] if spans else []


def _bands(place: Ints, took_ms: Floats, failed: Array) -> tuple[Floats, Floats, Floats]:
    """p50, p95 and share of failures of every point, NaN with too few requests; sorted once, then cut."""
    known = ~np.isnan(took_ms)
    order = np.lexsort((took_ms[known], place[known]))
    where, values = place[known][order], took_ms[known][order]
    ends = np.searchsorted(where, np.arange(_POINTS + 1))
    count = np.diff(ends)
    enough = count >= _LEAST_REQUESTS
    quantiles = []
    for level in (0.5, 0.95):
        at = np.minimum(
            ends[:-1] + np.floor(level * np.maximum(count - 1, 0)).astype(np.int64), max(len(values) - 1, 0)
        )
        quantiles.append(np.where(enough, values[at] if len(values) else 0.0, np.nan))
    total = np.bincount(place, minlength=_POINTS)
    share = np.bincount(place, failed, _POINTS) / np.maximum(total, 1)
    return quantiles[0], quantiles[1], np.where(total >= _LEAST_REQUESTS, share, np.nan)


def _telemetry(evidence: Evidence, run_id: str, end_s: float, named: str) -> Iterator[Picture]:
    mine = (evidence.steps["run_id"] == run_id).to_numpy()
    missing = missing_gauges(evidence)
    points = 90
    place = np.clip((evidence.steps["t_s"].to_numpy() / max(end_s, 1e-9) * points).astype(np.int64), 0, points - 1)
    values = np.full((len(SERVICES), points), np.nan)
    for number in range(len(SERVICES)):
        rows = mine & (evidence.service == number)
        count = np.bincount(place[rows], minlength=points)
        total = np.bincount(place[rows], missing[rows], points)
        values[number] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    share = float(missing[mine].mean()) if mine.any() else 0.0
    body = svg.strip(
        "Share of missing instance measurements per service over time", SERVICES, values, end_s, "s of the run"
    )
    caption = f"Red: measurements that the source gives and observations lack, {share:.2%} of all."
    if share == 0:
        caption = "No measurement of the instances is missing in an observation."
    yield Picture(f"Missing telemetry{named}", caption, body)


def _generator(part: Recorded, end_s: float, bands: Sequence[Band], named: str) -> Iterator[Picture]:
    events = [
        event
        for event in part.events("generator")
        if isinstance(event.get("cpu"), int | float) and isinstance(event.get("lag_p99_s"), int | float)
    ]
    if not events:
        return
    names = sorted({str(event.get("process", "")) for event in events})
    lines: dict[str, list[Line]] = {"cpu": [], "lag_p99_s": []}
    for number, name in enumerate(names):
        mine = [event for event in events if str(event.get("process", "")) == name]
        t_s = np.array([part.at_s(event) for event in mine])
        for key, factor in (("cpu", 100), ("lag_p99_s", 1000)):
            values = np.array([float(event[key]) for event in mine]) * factor
            lines[key].append(Line(name, f"c{number % 6 + 1}", t_s, values))
    panels = [Panel("CPU", lines["cpu"], " %", 105.0), Panel("event loop late by (p99)", lines["lag_p99_s"], " ms")]
    body = svg.stack("CPU and event-loop lag of the load generator's processes", panels, end_s, bands, _seconds(part))
    legend = tuple((f"c{number % 6 + 1}", name) for number, name in enumerate(names[:12]))
    yield Picture(f"Load generator{named}", "A generator at its limit measures itself.", body, legend)


def _actions_by_phase(evidence: Evidence) -> Iterator[Picture]:
    rows = evidence.usable
    phase = evidence.steps["phase"].to_numpy()[rows]
    table = np.zeros((len(evidence.phases), len(evidence.labels)))
    for number, name in enumerate(evidence.phases):
        table[number] = np.bincount(evidence.action[rows[phase == name]], minlength=len(evidence.labels))
    body = heat_table("phase", evidence.phases, evidence.labels, table.astype(int))
    yield Picture("Actions by phase", "Usable decisions; a 0 is a phase in which an action was not tried.", body)


def _propensities(evidence: Evidence) -> Iterator[Picture]:
    rows = evidence.draws(evidence.usable)
    if len(rows) == 0 or not evidence.whole_distribution:  # a balancer that states that of the action it took, or none
        return
    p, action = evidence.probabilities[rows].astype(np.float64), evidence.action[rows]
    reach = stats.z_of(0.99)
    error = np.sqrt((p * (1 - p)).sum(axis=0)) / len(rows)
    share = np.bincount(action, minlength=len(evidence.labels)) / len(rows)
    found = [
        svg.Dot(name, share[a], max(0.0, share[a] - reach * error[a]), share[a] + reach * error[a], p[:, a].mean())
        for a, name in enumerate(evidence.labels)
    ]
    there = evidence.mask[rows]
    found += _by_probability(p[there], np.eye(p.shape[1])[action][there], reach)
    label = "How often actions were taken, with 99 % intervals, and the mean probability that was logged"
    caption = "Dot: how often, with its 99 % interval; bar: how often the log says. They should meet."
    legend = (("c1", "frequency"), ("mark", "mean logged propensity"))
    yield Picture("Propensity against frequency", caption, svg.dots(label, found), legend)


def _by_probability(flat: Floats, taken: Floats, reach: float) -> list[svg.Dot]:
    """The same for groups of (step, action) with about equal logged probability, where the log has several."""
    levels, group = np.unique(np.round(flat, 4), return_inverse=True)
    if len(levels) < 2:
        return []
    if len(levels) > _MOST_LEVELS:
        group = np.searchsorted(np.quantile(flat, np.linspace(0, 1, _MOST_LEVELS + 1)[1:-1]), flat)
    found = []
    for number in np.unique(group):
        mine = group == number
        error = float(np.sqrt((flat[mine] * (1 - flat[mine])).sum()) / mine.sum())
        share = float(taken[mine].mean())
        low, high = flat[mine].min(), flat[mine].max()
        name = f"logged {low:.3f}" if high - low < 1e-6 else f"logged {low:.3f} to {high:.3f}"
        found.append(
            svg.Dot(name, share, max(0.0, share - reach * error), share + reach * error, float(flat[mine].mean()))
        )
    return found


def _rewards(evidence: Evidence) -> Iterator[Picture]:
    rows = evidence.judged
    if len(rows) == 0:
        return
    groups = []
    for number, name in enumerate(evidence.labels):
        values = evidence.reward[rows[evidence.action[rows] == number]]
        groups.append((name, values[np.isfinite(values)]))
    caption = (
        "Share of steps by reward, all services together; the mean is marked. Equal shapes: the action hardly matters."
    )
    yield Picture("Rewards by action", caption, svg.histograms("Histogram of the reward for each action", groups))


def _coverage(case: Case) -> Iterator[Picture]:
    if len(case.evidence.judged) == 0:
        return
    names = [f"state {number + 1}" for number in range(len(case.cells))]
    caption = (
        f"Steps by state cluster and action, clusters by size; cells below {case.limits.cell_samples} are underlined. "
        "A learner can only judge what was tried there."
    )
    labels = case.evidence.labels
    yield Picture("Coverage", caption, heat_table("state", names, labels, case.cells, case.limits.cell_samples))


def _recoveries(case: Case) -> Iterator[Picture]:
    found = case.recoveries
    if not found:
        return
    rows = [
        (item.fault.text, item.seconds, f"{item.seconds:.1f} s" if item.seconds is not None else item.why)
        for item in found[:_MOST_FAULTS]
    ]
    left_out = f" {len(found) - len(rows)} more are not drawn." if len(found) > len(rows) else ""
    caption = f"From the end of a fault until p95 and error rate are back in the band before it.{left_out}"
    yield Picture("Recovery after faults", caption, svg.bars("Time to recover after each fault", rows, "seconds"))


def heat_table(corner: str, rows: Sequence[str], columns: Sequence[str], values: Array, least: int = 1) -> str:
    """A table whose cells are coloured by their number; those below `least` are marked."""
    high = max(1, int(values.max(initial=0)))
    head = "".join(f'<th scope="col">{svg.escape(name)}</th>' for name in columns)
    lines = []
    for name, row in zip(rows, values.tolist(), strict=True):
        cells = "".join(
            f'<td style="--share:{100 * value / high:.0f}%"{" class=few" if value < least else ""}>{value}</td>'
            for value in row
        )
        lines.append(f'<tr><th scope="row">{svg.escape(name)}</th>{cells}</tr>')
    return (
        f'<div class="wide"><table class="heat"><thead><tr><th scope="col">{svg.escape(corner)}</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _end_s(evidence: Evidence, run_id: str, part: Recorded | None) -> float:
    if part is not None:
        return part.plan.duration_s
    steps = evidence.steps[evidence.steps["run_id"] == run_id]
    return float((steps["t_s"] + steps["dt_s"]).max()) if len(steps) else 1.0


def _phase_bands(evidence: Evidence, run_id: str, part: Recorded | None) -> list[Band]:
    if part is not None:
        named = [(phase.name, phase.start_s, phase.end_s) for phase in part.plan.phases]
    else:
        steps = evidence.steps[(evidence.steps["run_id"] == run_id) & (evidence.steps["phase"] != "")]
        spans = steps.groupby("phase", observed=True)["t_s"].agg(["min", "max"]).sort_values("min")
        named = [(str(name), float(row["min"]), float(row["max"])) for name, row in spans.iterrows()]
    return [
        Band(start_s, end_s, name, "phase-b" if number % 2 else "phase-a")
        for number, (name, start_s, end_s) in enumerate(named)
    ]


def _seconds(part: Recorded) -> str:
    scale = part.plan.time_scale
    return "s of the run" if scale == 1 else f"s of the run, at time scale {scale:g}"


def _unit(part: Recorded | None) -> str:
    return _seconds(part) if part is not None else "s of the run"

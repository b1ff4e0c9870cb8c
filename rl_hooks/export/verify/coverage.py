"""What has to be there at all: services, profiles, phases, actions and their pairs, decisions, and every row."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from rl_hooks.action_space import ActionSpace
from rl_hooks.decision import SERVICES
from rl_hooks.export.stated import is_observed
from rl_hooks.export.verify.line import Line, Verdict, met_if, percent
from rl_hooks.run_reader import Run
from scenario.plan import Plan

NAMED = 3  # of what is missing; the rest is counted, so that the table stays readable
LEAST_INTERVALS = 0.99  # a busy machine skips an interval now and then, and the row says so


def coverage_lines(run: Run, plan: Plan) -> list[Line]:
    phases = [phase.name for phase in plan.phases]
    profiles = list(plan.max_users_per_profile)
    decided = run.decisions
    space = ActionSpace.of(run.manifest)
    services = np.array(SERVICES, object)[decided["service"]]
    decided_in = _named(run, "phase", decided)
    return [
        Line("state", "", "complete", str(run.manifest["state"]), "", met_if(run.manifest["state"] == "complete")),
        _rows_lost(run),
        _present("services", SERVICES, np.array(SERVICES, object)[run.requests["service"]], "requests"),
        _present("profiles", profiles, _named(run, "profile", run.requests), "requests"),
        _present("phases", phases, _named(run, "phase", run.requests), "requests"),
        *([] if is_observed(run) else _actions(space, decided, phases, services, decided_in)),
        *_intervals(run, plan),
    ]


def _actions(space: ActionSpace, decided: Any, phases: list[str], services: Any, decided_in: Any) -> list[Line]:
    """What was drawn. A balancer that decides by itself need not try everything."""
    there = [name for number, name in enumerate(space.labels) if any(mine[number] for mine in space.mask())]
    actions = np.array(space.labels, object)[decided["action"]]
    return [
        _present("actions", there, actions, "decisions"),
        _service_pairs(space, services, actions),
        _pairs("phase x action", phases, there, decided_in, actions),
    ]


def _named(run: Run, kind: str, rows: Any) -> Any:
    return np.array(run.names[kind], object)[rows[f"{kind}_ref"]]


def _rows_lost(run: Run) -> Line:
    lost = sum(loss.missing_rows for loss in run.losses)
    actual = f"at least {lost}: {_listed([loss.text for loss in run.losses])}" if run.losses else "0"
    return Line("rows lost", "", "0", actual, "0", met_if(not run.losses))


def _present(what: str, wanted: Iterable[str], values: Any, rows: str) -> Line:
    counts = {name: int((values == name).sum()) for name in wanted}
    return _counted(what, counts, rows)


def _pairs(what: str, firsts: Iterable[str], seconds: Iterable[str], one: Any, other: Any) -> Line:
    seconds = list(seconds)
    counts = {
        f"{first} with {second}": int(((one == first) & (other == second)).sum())
        for first in firsts
        for second in seconds
    }
    return _counted(what, counts, "decisions")


def _service_pairs(space: ActionSpace, services: Any, actions: Any) -> Line:
    """Each service with the actions that it has."""
    counts = {}
    for service, names, mine in zip(SERVICES, space.names, space.mask(), strict=True):
        for label, name, there in zip(space.labels, names, mine, strict=False):
            if there:
                counts[f"{service} with {name}"] = int(((services == service) & (actions == label)).sum())
    return _counted("service x action", counts, "decisions")


def _counted(what: str, counts: dict[str, int], rows: str) -> Line:
    absent = [name for name, count in counts.items() if not count]
    actual = f"{len(counts) - len(absent)}"
    actual += f", missing {_listed(absent)}" if absent else f", the rarest with {min(counts.values())} {rows}"
    return Line(what, "", str(len(counts)), actual, "all", met_if(not absent))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _intervals(run: Run, plan: Plan) -> list[Line]:
    planned = int(plan.duration_s / plan.decision_interval_s + 1e-9)
    allowed = f"at least {percent(LEAST_INTERVALS)}"
    if not len(run.decisions):
        return [Line("decision intervals", "", str(planned), "none", allowed, Verdict.MISSED)]
    lines = []
    for index, service in enumerate(SERVICES):
        made = len(np.unique(run.decisions["tick"][run.decisions["service"] == index]))
        verdict = met_if(made >= LEAST_INTERVALS * planned)
        lines.append(Line("decision intervals", service, str(planned), str(made), allowed, verdict))
    return lines

"""Synthetic runs with defaults: a test states only what is special about its facts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rl_hooks.action_space import STRATEGIES, ActionSpace
from rl_hooks.decision import ACTIONS, MOST_ACTIONS, SERVICES
from rl_hooks.row import IN_FLIGHT, MISSING_U8, MISSING_U32, TABLES, Failure, Intent, Method, Outcome, Table, UserAction
from rl_hooks.run_folder import RunWriter, create_run_folder, update_manifest
from rl_hooks.run_reader import Run
from scenario.load import find_file, load_file
from scenario.model import Phase, Scenario
from scenario.plan import Plan, make_plan

START_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z, a Thursday
INSTANCES = tuple(f"{service}-{number}" for service in SERVICES for number in (1, 2, 3))
NAMES = {
    "endpoint": ("", "GET /api/things"),
    "instance": ("", *INSTANCES),
    "profile": ("", "quick_browser", "careful_shopper"),
    "phase": ("", "morning", "evening"),
    "policy": ("", "uniform", "sticky:0.5"),
}

# A request, a session ... when nothing is said about it.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "requests": {
        "duration_us": 20_000,
        "decision_tick": 0,
        "propensity": 1 / 6,
        "stated_decision": MISSING_U32,
        "upstream_us": MISSING_U32,
        "queue_us": MISSING_U32,
        "endpoint_ref": 1,
        "profile_ref": 1,
        "phase_ref": 1,
        "status": 200,
        "backend_status": 200,
        "method": Method.GET,
        "user_action": UserAction.BROWSE,
        "ok": 1,
        "failure": Failure.NONE,
        "attempt": 1,
        "instance_ref": 1,
    },
    "sessions": {
        "duration_us": 10_000_000,
        "planned_us": 10_000_000,
        "profile_ref": 1,
        "phase_ref": 1,
        "pages": 3,
        "browse": 3,
        "intent": Intent.BROWSE_ONLY,
        "outcome": Outcome.ENDED,
    },
    "decisions": {
        **{f"prob_{index}": 1 / 6 for index in range(len(ACTIONS))},
        "propensity": 1 / 6,
        "policy_ref": 1,
        "phase_ref": 1,
        "actuated": 1,
    },
    "observations": {},
    "samples": {
        "cpu": 0.5,
        "memory": 0.4,
        "health": 1.0,
        "queue_depth": 0.0,
        "in_flight": 1.0,
        "capacity": 1.0,
        "up": 1,
    },
    "in_flight": {
        "decision_tick": 0,
        "stated_decision": MISSING_U32,
        **dict.fromkeys(("endpoint_ref", "profile_ref", "phase_ref", "method", "attempt"), 1),
    },
}
_TABLES = {**TABLES, "in_flight": IN_FLIGHT}
_ORDER = {
    "decisions": ("tick", "service"),
    "observations": ("tick", "service"),
    "samples": ("t_ns", "service", "instance_ref"),
}


def at(seconds: float) -> int:
    """Wall-clock nanoseconds of a moment in the run."""
    return START_NS + round(seconds * 1e9)


def rows(table: str, facts: Iterable[Mapping[str, Any]] | Mapping[str, Any]) -> Any:
    """Rows of a table as the reader gives them: of dicts, or of one dict of columns. The rest are the defaults."""
    columns = facts if isinstance(facts, Mapping) else _columns(list(facts))
    length = len(next(iter(columns.values()))) if columns else 0
    result = np.zeros(length, np.dtype([("incarnation", "<u2"), *_TABLES[table].dtype.descr]))
    for name, value in {**DEFAULTS[table], **columns}.items():
        result[name] = value
    if "seq" in result.dtype.names:
        result["seq"] = np.arange(1, length + 1)
    return result[np.lexsort([result[key] for key in reversed(_ORDER.get(table, ("start_ns",)))])]


def _columns(facts: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = {name for row in facts for name in row}
    for row in facts:
        assert names == set(row), "every row states the same columns"
    return {name: [row[name] for row in facts] for name in sorted(names)}


@cache
def _shipped() -> Scenario:
    return load_file(find_file("comprehensive_rl_training_config.yaml")).scenario()


def scenario(phases: Mapping[str, float] | None = None, **special: Any) -> Scenario:
    """Two phases of two minutes with 20 users; decisions every 2 s, windows of 10 s, episodes of 30 s."""
    first = _shipped().phases[0]
    made: list[Phase] = []
    for name, minutes in (phases or {"morning": 2.0, "evening": 2.0}).items():
        start_min = sum(phase.duration_min for phase in made)
        mix = {"quick_browser": 0.5, "careful_shopper": 0.5}
        made.append(
            replace(
                first,
                name=name,
                start_min=start_min,
                duration_min=minutes,
                users=20,
                intensity="medium",
                distribution=mix,
            )
        )
    defaults = {"window_s": 10.0, "episode_s": 30.0, "decision_interval_s": 2.0, "ramp_s": 6.0}
    return replace(_shipped(), name="tiny", phases=tuple(made), **{**defaults, **special})


def plan(seed: int = 1, time_scale: float = 1.0, **special: Any) -> Plan:
    return make_plan(scenario(**special), seed=seed, time_scale=time_scale)


def run(planned: Plan | None = None, run_id: str = "run", **tables: Any) -> Run:
    """A run of the given rows (numpy tables, see `rows`); tables that are not given are empty."""
    special = {name: tables.pop(name) for name in ("events", "losses", "names", "path", "manifest") if name in tables}
    planned = planned or plan()
    return Run(
        path=special.get("path", Path("runs") / run_id),
        manifest={**manifest(planned, run_id), **special.get("manifest", {})},
        incarnations=(),
        names=special.get("names", NAMES),
        events=tuple(
            special.get("events", ({"t_ns": START_NS, "kind": "phase", "phase": "morning", "run_time_s": 0.0},))
        ),
        losses=tuple(special.get("losses", ())),
        **{name: tables.get(name, rows(name, [])) for name in _TABLES},
    )


def manifest(planned: Plan, run_id: str = "run") -> dict[str, Any]:
    return {
        "run_id": run_id,
        "scenario": planned.scenario.name,
        "plan": planned.to_json(),
        "config_path": "tiny.yaml",
        "config_sha256": "0" * 64,
        "seed": planned.seed,
        "versions": {"python": "3.11"},
        "target": "http://127.0.0.1:8080",
        "balancer": "sandbox",
        "logging_policy": "uniform",
        "source": "sandbox",
        "actuator": "header",
        "started_unix_ns": START_NS - 1_000_000_000,
        "ended_unix_ns": at(planned.duration_s),
        "state": "complete",
    }


def ticks(planned: Plan, until_s: float | None = None) -> Any:
    """Tick numbers of all decision intervals that begin within the plan."""
    return np.arange(int((until_s or planned.duration_s) / planned.decision_interval_s))


def decisions(planned: Plan, rng: np.random.Generator, until_s: float | None = None) -> Any:
    """A uniform decision for every service at every interval."""
    tick = np.repeat(ticks(planned, until_s), len(SERVICES))
    t_s = tick * planned.decision_interval_s
    phases = [phase.name for phase in planned.phases]
    return rows(
        "decisions",
        {
            "t_ns": START_NS + np.round(t_s * 1e9).astype(np.int64),
            "sample_ns": START_NS + np.round(t_s * 1e9).astype(np.int64),
            "tick": tick,
            "service": np.tile(np.arange(len(SERVICES)), len(tick) // len(SERVICES)),
            "action": rng.integers(0, len(ACTIONS), len(tick)),
            "phase_ref": [NAMES["phase"].index(phase_name(planned, t, phases)) for t in t_s],
        },
    )


def phase_name(planned: Plan, t_s: float, known: Sequence[str]) -> str:
    phase = planned.phase_at(float(t_s))
    return phase.name if phase is not None and phase.name in known else ""


def samples(planned: Plan, rng: np.random.Generator, until_s: float | None = None, missing: float = 0.0) -> Any:
    """A sample of every instance, taken 10 ms before each decision and received 2 ms before it."""
    number = ticks(planned, until_s)
    count = len(number) * len(INSTANCES)
    t_ns = START_NS + np.round(np.repeat(number, len(INSTANCES)) * planned.decision_interval_s * 1e9).astype(np.int64)

    def gauge(high: float) -> Any:
        return np.where(rng.random(count) < missing, np.nan, rng.uniform(0, high, count))

    return rows(
        "samples",
        {
            "t_ns": t_ns - 10_000_000,
            "received_ns": t_ns - 2_000_000,
            "cpu": gauge(1),
            "memory": gauge(1),
            "health": gauge(1),
            "queue_depth": np.round(gauge(9)),
            "in_flight": np.round(gauge(9)),
            "capacity": np.tile([1.0, 2.0, np.nan], count // 3),
            "instance_ref": np.tile(np.arange(1, len(INSTANCES) + 1), len(number)),
            "service": np.tile(np.repeat(np.arange(len(SERVICES)), 3), len(number)),
            "up": rng.random(count) > missing / 2,
        },
    )


def requests(
    planned: Plan,
    decided: Any,
    rng: np.random.Generator,
    count: int,
    until_s: float | None = None,
    start_s: float = 0.0,
) -> Any:
    """Requests at random times to random services, one in ten failed, each under the action then in force."""
    start_ns = START_NS + rng.integers(round(start_s * 1e9), round((until_s or planned.duration_s) * 1e9), count)
    start_ns.sort()
    service = rng.choice(len(SERVICES), count, p=(0.1, 0.4, 0.3, 0.15, 0.05))
    interval_ns = round(planned.decision_interval_s * 1e9)
    tick = (start_ns - START_NS) // interval_ns
    table = np.full((int(decided["tick"].max()) + 2, len(SERVICES)), 255)
    table[decided["tick"], decided["service"]] = decided["action"]
    action = table[np.minimum(tick, len(table) - 1), service]
    ok = rng.random(count) > 0.1
    return rows(
        "requests",
        {
            "start_ns": start_ns,
            "duration_us": np.minimum(rng.lognormal(11, 1.5, count), 9_000_000).astype(np.int64),
            "decision_tick": tick,
            "trace_hi": rng.integers(0, 2**63, count),
            "trace_lo": rng.integers(0, 2**63, count),
            "service": service,
            "instance_ref": np.where(rng.random(count) < 0.05, 0, 1 + 3 * service + rng.integers(0, 3, count)),
            "phase_ref": 1,
            "status": np.where(ok, 200, 503),
            "action_requested": action,
            "action_applied": action,
            "ok": ok,
            "failure": np.where(ok, Failure.NONE, Failure.STATUS),
        },
    )


def run_in(space: ActionSpace, source: Run | None = None, seed: int = 11) -> Run:
    """The same facts, decided among the actions of another space, each with the same probability, and applied."""
    source = random_run() if source is None else source
    rng, decided, sent = np.random.default_rng(seed), source.decisions.copy(), source.requests.copy()
    mask = np.array(space.mask())
    shares = mask / mask.sum(axis=1, keepdims=True)
    for number in range(MOST_ACTIONS):
        decided[f"prob_{number}"] = shares[decided["service"], number] if number < space.size else 0
    luck = rng.random((len(decided), 1))
    if space.one_for_all:
        luck = rng.random((int(decided["tick"].max()) + 1, 1))[decided["tick"]]
    decided["action"] = (luck > shares.cumsum(axis=1)[decided["service"]]).sum(axis=1)
    decided["propensity"] = shares[decided["service"], decided["action"]]
    table = np.zeros((int(decided["tick"].max()) + 2, len(SERVICES)), np.int64)
    table[decided["tick"], decided["service"]] = decided["action"]
    action = table[np.minimum(sent["decision_tick"], len(table) - 1), sent["service"]]
    sent["action_requested"] = action
    if space.kind == STRATEGIES:
        sent["action_applied"] = action
    else:
        sent["action_applied"] = MISSING_U8
        names = source.names["instance"]
        refs = np.array([[names.index(mine[min(k, len(mine) - 1)]) for k in range(space.size)] for mine in space.names])
        sent["instance_ref"] = refs[sent["service"], action]
    facts = {**source.manifest, "action_space": space.to_json()}
    return replace(source, decisions=decided, requests=sent, manifest=facts)


def sessions(rng: np.random.Generator, count: int, planned: Plan) -> Any:
    """Sessions of two profiles, a quarter of them with a paid order."""
    start_ns = START_NS + np.sort(rng.integers(0, round(planned.duration_s * 1e9), count))
    paid = rng.random(count) < 0.25
    return rows(
        "sessions",
        {
            "start_ns": start_ns,
            "session": np.arange(count),
            "profile_ref": rng.integers(1, 3, count),
            "orders_placed": paid,
            "orders_paid": paid,
            "intent": np.where(paid, Intent.PURCHASE, Intent.BROWSE_ONLY),
            "outcome": rng.choice([Outcome.ENDED, Outcome.TRUNCATED, Outcome.FAILED], count, p=(0.7, 0.2, 0.1)),
        },
    )


def random_run(
    seed: int = 7,
    count: int = 3000,
    planned: Plan | None = None,
    run_id: str = "run",
    missing: float = 0.1,
    **special: Any,
) -> Run:
    """A complete run of random facts."""
    rng = np.random.default_rng(seed)
    planned = planned or plan()
    decided = decisions(planned, rng)
    users = [
        {
            "t_ns": at(second),
            "kind": "users",
            "run_time_s": float(second),
            "counts": {"quick_browser": 7, "careful_shopper": 5},
        }
        for second in range(1, int(planned.duration_s))
    ]
    return run(
        planned,
        run_id,
        **{
            "decisions": decided,
            "samples": samples(planned, rng, missing=missing),
            "requests": requests(planned, decided, rng, count),
            "sessions": sessions(rng, 60, planned),
            "events": [{"t_ns": START_NS, "kind": "phase", "phase": "morning", "run_time_s": 0.0}, *users],
            **special,
        },
    )


def write_run(source: Run, path: Path, close: bool = True) -> Path:
    """Write a synthetic run with the real writer; not closed is what a kill leaves behind."""
    create_run_folder(path, dict(source.manifest))
    writer = RunWriter(path, "local", max(8, len(source.in_flight)))
    for kind, names in source.names.items():
        for name in names:
            writer.ref(kind, name)
    for event in source.events:
        facts = {name: value for name, value in event.items() if name not in ("t_ns", "kind")}
        writer.event(event["kind"], **facts)
    for name, table in TABLES.items():
        for row in _plain(getattr(source, name), table):
            writer.tables[name].append(*row)
    for row in _plain(source.in_flight, IN_FLIGHT):
        IN_FLIGHT.struct.pack_into(writer.board.map, writer.board.take(), *row, 1)
    if close:
        writer.close()
        update_manifest(path, state="complete")
    else:
        writer.maintain()
    return path


def _plain(table: Any, kind: Table) -> list[tuple[Any, ...]]:
    names = [name for name, _, _ in kind.columns[:-1]]
    return list(zip(*(table[name].tolist() for name in names), strict=True))

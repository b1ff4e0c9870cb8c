"""A synthetic run folder of any size, written fast: the recorder's own files, filled by numpy instead of by requests.

Two workers and a deciding process; 1 % of the requests time out, which puts the 99th percentile at a cliff.
"""

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rl_hooks.decision import ACTIONS, MOST_ACTIONS, SERVICES
from rl_hooks.row import MISSING_U32, REQUESTS, Failure, Method, UserAction
from rl_hooks.run_folder import SEGMENT_BYTES, RunWriter, create_run_folder, update_manifest
from rl_hooks.segments import HEADER, MAGIC, SEALED, layout_checksum
from scenario.load import find_file, load_file
from scenario.plan import Plan, make_plan

START_NS = 1_767_225_600_000_000_000
WINDOW_S, INTERVAL_S, WORKERS, INSTANCES, TIMEOUT_S = 60.0, 1.0, 2, 3, 5.0
SEALED_AFTER_S = 10.0  # as the recorder does
SHARES = (0.1, 0.4, 0.3, 0.15, 0.05)  # of the services

Array = np.ndarray[Any, Any]


def make_run(folder: Path, rows: int, rps: float, seed: int = 1) -> Path:
    """Write a run of `rows` requests at `rps` per second; the same arguments give the same rows."""
    plan = _plan(rows / rps)
    rng = np.random.default_rng(seed)
    manifest = {
        "run_id": f"made_{rows}",
        "scenario": plan.scenario.name,
        "plan": plan.to_json(),
        "config_sha256": "0" * 64,
        "seed": seed,
        "source": "sandbox",
        "actuator": "header",
        "started_unix_ns": START_NS,
        "ended_unix_ns": START_NS + round(plan.duration_s * 1e9),
        "state": "running",
    }
    create_run_folder(folder, manifest)
    actions = _decide(folder, plan, rng)
    for number in range(WORKERS):
        count = rows // WORKERS + (number < rows % WORKERS)
        _work(folder, plan, count, rps / WORKERS, actions, np.random.default_rng([seed, number]))
    update_manifest(folder, state="complete")
    return folder


def _plan(seconds: float) -> Plan:
    shipped = load_file(find_file("comprehensive_rl_training_config.yaml")).scenario()
    phase = replace(shipped.phases[0], start_min=0.0, duration_min=seconds / 60, faults=())
    scenario = replace(
        shipped,
        name="made",
        phases=(phase,),
        window_s=WINDOW_S,
        decision_interval_s=INTERVAL_S,
        episode_s=300.0,
    )
    return make_plan(scenario, seed=1)


def _named(folder: Path, role: str, plan: Plan) -> RunWriter:
    writer = RunWriter(folder, role, 8)
    writer.ref("endpoint", "GET /api/things")
    for service in SERVICES:
        for number in range(INSTANCES):
            writer.ref("instance", f"{service}-{number}")
    writer.ref("profile", "quick_browser")
    writer.ref("phase", plan.phases[0].name)
    writer.ref("policy", "uniform")
    return writer


def _decide(folder: Path, plan: Plan, rng: np.random.Generator) -> Array:
    """A decision per service and second, a little late as timers are, and a sample just before. Returns the actions."""
    writer = _named(folder, "master", plan)
    writer.event("phase", phase=plan.phases[0].name, run_time_s=0.0)
    ticks = int(plan.duration_s / INTERVAL_S)
    actions = rng.integers(0, len(ACTIONS), (ticks, len(SERVICES)))
    late_ns, gauges = rng.integers(0, 5_000_000, ticks).tolist(), rng.random((ticks, 5)).tolist()
    uniform = [1 / len(ACTIONS) if number < len(ACTIONS) else 0.0 for number in range(MOST_ACTIONS)]
    for tick in range(ticks):
        t_ns = START_NS + round(tick * INTERVAL_S * 1e9) + late_ns[tick]
        for service in range(len(SERVICES)):
            chances = [*uniform, 1 / len(ACTIONS)]
            decision = (t_ns, t_ns - 10_000_000, tick, 0, *chances, 1, 1, service, int(actions[tick, service]), 1)
            writer.tables["decisions"].append(*decision)
            for number in range(INSTANCES):
                ref = 1 + service * INSTANCES + number
                sample = (t_ns - 10_000_000, t_ns - 2_000_000, *gauges[tick], 1.0, tick, 0, ref, service, 1)
                writer.tables["samples"].append(*sample)
        if tick % 1000 == 0:
            writer.maintain()
    writer.close()
    return actions


def _work(folder: Path, plan: Plan, count: int, rps: float, actions: Array, rng: np.random.Generator) -> None:
    """One worker's requests in order of completion, in sealed segments."""
    writer = _named(folder, "worker", plan)
    writer.tables["requests"].next_seq = count + 1  # what it says to have written when it closes
    writer.close()
    per_segment = min((SEGMENT_BYTES["requests"] - HEADER.size) // REQUESTS.row_bytes, round(SEALED_AFTER_S * rps))
    under_way, sent, written, number = np.empty(0, REQUESTS.dtype), 0, 0, 0
    while written < count:
        new = min(per_segment, count - sent)
        fresh = _requests(sent, new, rps, actions, rng)
        sent += new
        rows = np.concatenate((under_way, fresh))
        ended_ns = rows["start_ns"] + rows["duration_us"].astype(np.int64) * 1000
        order = np.argsort(ended_ns, kind="stable")
        until = len(rows) if sent == count else int((ended_ns < fresh["start_ns"][-1]).sum())
        rows, under_way = rows[order[:until]], rows[order[until:]]
        rows["seq"] = np.arange(written + 1, written + 1 + len(rows))
        _seal(folder / "requests" / f"{writer.incarnation}.{number:06d}{SEALED}", rows)
        written, number = written + len(rows), number + 1


def _requests(first: int, count: int, rps: float, actions: Array, rng: np.random.Generator) -> Array:
    rows = np.zeros(count, REQUESTS.dtype)
    start_s = (first + np.arange(count) + rng.random(count)) / rps
    service = np.repeat(np.arange(len(SERVICES)), np.round(np.array(SHARES) * 100).astype(int))[
        rng.integers(0, 100, count)
    ]
    tick = np.minimum((start_s / INTERVAL_S).astype(np.int64), len(actions) - 1)
    lost = rng.random(count) < 0.01
    rows["start_ns"] = START_NS + (start_s * 1e9).astype(np.int64)
    rows["duration_us"] = np.where(lost, TIMEOUT_S * 1e6, np.minimum(rng.lognormal(10.5, 0.8, count), 4e6))
    rows["decision_tick"] = tick
    rows["propensity"] = 1 / len(ACTIONS)
    rows["trace_hi"], rows["trace_lo"] = rng.integers(0, 2**63, (2, count))
    rows["service"] = service
    rows["action_requested"] = rows["action_applied"] = actions[tick, service]
    rows["attempt"] = rows["endpoint_ref"] = rows["profile_ref"] = rows["phase_ref"] = 1
    rows["method"], rows["user_action"] = Method.GET, UserAction.BROWSE
    rows["upstream_us"] = rows["queue_us"] = MISSING_U32
    rows["instance_ref"] = np.where(lost, 0, 1 + service * INSTANCES + rng.integers(0, INSTANCES, count))
    rows["status"], rows["ok"] = np.where(lost, 0, 200), ~lost
    rows["failure"] = np.where(lost, Failure.TIMEOUT, Failure.NONE)
    return rows


def _seal(path: Path, rows: Array) -> None:
    body = rows.tobytes()
    header = (MAGIC, layout_checksum(REQUESTS), REQUESTS.row_bytes, int(rows["seq"][0]), len(rows), zlib.crc32(body))
    path.write_bytes(HEADER.pack(*header) + body)

"""The request table of a bundle: one row per request, with names instead of ids and the step it belongs to.

The state as it was known when the request began is in obs.<name>: exact at that moment for the features that change
with every request, and for the rest in the transition with the same run_id, service and decision_tick.
"""

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.export import align
from rl_hooks.export.columns import named
from rl_hooks.export.dataset import Dataset, RunSteps
from rl_hooks.export.request_state import request_state
from rl_hooks.row import MISSING_U8, MISSING_U32, Failure, Method, UserAction

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


def request_table(data: Dataset) -> pa.Table:
    """The requests of all runs in order of run and start; those whose end is unknown have `ok` and its like null."""
    return pa.concat_tables([_of_run(data, part) for part in data.runs]).unify_dictionaries()


def _of_run(data: Dataset, part: RunSteps) -> pa.Table:
    run = part.run
    rows, known = _with_unfinished(run.requests, run.in_flight)
    order = np.argsort(rows["start_ns"], kind="stable")
    rows, known = rows[order], known[order]
    step = np.concatenate((part.cohort, part.unfinished))[order]
    of_step = data.frame[["decision_tick", "episode_id", "split"]].iloc[np.maximum(step, 0)]
    episodes, episode = np.unique(of_step["episode_id"].to_numpy().astype(str), return_inverse=True)
    parts, which = np.unique(of_step["split"].to_numpy().astype(str), return_inverse=True)
    state = request_state(run, part.plan, rows["service"], rows["start_ns"])
    return pa.table(
        {
            "run_id": named(np.zeros(len(rows), np.int64), (part.run_id,)),
            "trace_id": _trace_ids(rows),
            "start_unix_ns": pa.array(rows["start_ns"]),
            "t_s": pa.array((rows["start_ns"] - align.plan_start_ns(run)) / 1e9),
            "duration_us": pa.array(rows["duration_us"], mask=~known),
            "service": named(rows["service"], SERVICES),
            "method": _enum(rows["method"], Method),
            "endpoint": named(rows["endpoint_ref"], run.names["endpoint"], rows["endpoint_ref"] == 0),
            "status": pa.array(rows["status"], mask=~known),
            "backend_status": pa.array(rows["backend_status"], mask=~known | (rows["backend_status"] == 0)),
            "ok": pa.array(rows["ok"] == 1, mask=~known),
            "failure": _enum(rows["failure"], Failure, ~known | (rows["failure"] == Failure.NONE)),
            "attempt": pa.array(rows["attempt"]),
            "instance": named(rows["instance_ref"], run.names["instance"], rows["instance_ref"] == 0),
            "action_requested": named(rows["action_requested"], ACTIONS, rows["action_requested"] == MISSING_U8),
            "action_applied": named(rows["action_applied"], ACTIONS, rows["action_applied"] == MISSING_U8),
            "propensity": pa.array(rows["propensity"]),
            "decision_tick_sent": pa.array(
                rows["decision_tick"].astype(np.int64), mask=rows["decision_tick"] == MISSING_U32
            ),
            "decision_tick": pa.array(of_step["decision_tick"].to_numpy(), mask=step < 0),
            "episode_id": named(episode, tuple(episodes), step < 0),
            "split": named(which, tuple(parts), step < 0),
            **{f"obs.{name}": pa.array(values.astype(np.float32)) for name, values in state.items()},
            "upstream_us": pa.array(rows["upstream_us"], mask=rows["upstream_us"] == MISSING_U32),
            "queue_us": pa.array(rows["queue_us"], mask=rows["queue_us"] == MISSING_U32),
            "response_bytes": pa.array(rows["response_bytes"], mask=~known),
            "profile": named(rows["profile_ref"], run.names["profile"], rows["profile_ref"] == 0),
            "phase": named(rows["phase_ref"], run.names["phase"], rows["phase_ref"] == 0),
            "user_action": _enum(rows["user_action"], UserAction),
            "account": pa.array(rows["account"]),
            "slot": pa.array(rows["slot"]),
            "session": pa.array(rows["session"]),
            "page": pa.array(rows["page"]),
            "process": pa.array(rows["incarnation"]),
            "seq": pa.array(rows["seq"], mask=~known),
        }
    )


def _with_unfinished(requests: Array, in_flight: Array) -> tuple[Array, Mask]:
    """Both kinds of rows in one table, and which of them have a known end."""
    unfinished = np.zeros(len(in_flight), requests.dtype)
    for name in requests.dtype.names or ():
        if name in (in_flight.dtype.names or ()):
            unfinished[name] = in_flight[name]
    unfinished["action_applied"] = MISSING_U8
    unfinished["upstream_us"] = unfinished["queue_us"] = MISSING_U32
    known = np.append(np.ones(len(requests), bool), np.zeros(len(in_flight), bool))
    return np.concatenate((requests, unfinished)), known


def _enum(values: Array, kind: type[IntEnum], missing: Array | None = None) -> pa.Array:
    names = {int(member): member.name if kind is Method else member.name.lower() for member in kind}
    return named(values, tuple(names.get(value, "") for value in range(max(names) + 1)), missing)


def _trace_ids(rows: Array) -> pa.Array:
    """32 hexadecimal digits, as in the X-Trace-Id header."""
    both = np.column_stack((rows["trace_hi"], rows["trace_lo"])).astype(">u8")
    return pa.array(np.frombuffer(both.tobytes().hex().encode(), "S32")).cast(pa.string())

"""The request table of a bundle: one row per request, with names instead of ids and the step it belongs to.

The state as it was known when the request began is in obs.<name>: exact at that moment for the features that change
with every request, and for the rest in the transition with the same run_id, service and decision_tick.
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from rl_hooks.action_space import STRATEGIES, ActionSpace
from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.export import align
from rl_hooks.export.columns import named
from rl_hooks.export.dataset import Dataset, RunSteps
from rl_hooks.export.request_state import RequestStates
from rl_hooks.request_log import DTYPE, in_order
from rl_hooks.row import MISSING_U8, MISSING_U32, Failure, Method, UserAction
from rl_hooks.run_reader import Run

Array = npt.NDArray[Any]


ROWS = 1 << 16  # of one table, which becomes one row group


def request_tables(data: Dataset) -> Iterator[pa.Table]:
    """The requests of all runs in order of run and start; those whose end is unknown have `ok` and its like null.

    They come as tables of 65,536 rows, so that memory does not depend on how many there are; the first may be empty.
    """
    steps = _Steps(data)
    yield _table(steps, data.runs[0], np.empty(0, DTYPE), RequestStates(data.plan))
    for part in data.runs:
        states = RequestStates(part.plan)
        for rows in in_order(part.run.batches(), _unfinished(part.run.in_flight), ROWS):
            yield _table(steps, part, rows, states)


def request_table(data: Dataset) -> pa.Table:
    """All of them in one table, for data sets of a moderate size."""
    return pa.concat_tables(list(request_tables(data))).unify_dictionaries()


class _Steps:
    """What a request tells of its step, with names as positions."""

    def __init__(self, data: Dataset) -> None:
        self.tick = data.frame["decision_tick"].to_numpy()
        self.episode, self.episodes = pd.factorize(data.frame["episode_id"], sort=True)
        self.part, self.parts = pd.factorize(data.frame["split"], sort=True)


def _table(steps: _Steps, part: RunSteps, rows: Array, states: RequestStates) -> pa.Table:
    run = part.run
    known = rows["seq"] > 0
    step = part.rows_of(rows["service"], rows["start_ns"])
    nowhere, step = step < 0, np.maximum(step, 0)
    state = states.of(rows, known)
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
            **_actions(run, rows),
            "propensity": pa.array(rows["propensity"]),
            "decision_tick_sent": pa.array(
                rows["decision_tick"].astype(np.int64), mask=rows["decision_tick"] == MISSING_U32
            ),
            "decision_tick": pa.array(steps.tick[step], mask=nowhere),
            "episode_id": named(steps.episode[step], tuple(steps.episodes), nowhere),
            "split": named(steps.part[step], tuple(steps.parts), nowhere),
            **{f"obs.{name}": pa.array(values.astype(np.float32)) for name, values in state.items()},
            "upstream_us": pa.array(rows["upstream_us"], mask=rows["upstream_us"] == MISSING_U32),
            "queue_us": pa.array(rows["queue_us"], mask=rows["queue_us"] == MISSING_U32),
            "response_bytes": pa.array(rows["response_bytes"], mask=~known),
            "profile": named(rows["profile_ref"], run.names["profile"], rows["profile_ref"] == 0),
            "phase": named(rows["phase_ref"], run.names["phase"], rows["phase_ref"] == 0),
            "user_action": _enum(rows["user_action"], UserAction, rows["user_action"] == MISSING_U8),
            "account": pa.array(rows["account"]),
            "slot": pa.array(rows["slot"]),
            "session": pa.array(rows["session"]),
            "page": pa.array(rows["page"]),
            "process": pa.array(rows["incarnation"]),
            "seq": pa.array(rows["seq"], mask=~known),
        }
    )


def _actions(run: Run, rows: Array) -> dict[str, pa.Array]:
    """What was asked for and what was done. Where instances are pinned the one that served is what was done."""
    space, requested = ActionSpace.of(run.manifest), rows["action_requested"]
    unasked = requested == MISSING_U8
    if space.kind == STRATEGIES:
        unknown = rows["action_applied"] == MISSING_U8
        return {
            "action_requested": named(requested, ACTIONS, unasked),
            "action_applied": named(rows["action_applied"], ACTIONS, unknown),
        }
    names = tuple(dict.fromkeys(name for mine in space.names for name in mine))
    place = np.array([[names.index(name) for name in mine] + [0] * (space.size - len(mine)) for mine in space.names])
    served, nobody = rows["instance_ref"], rows["instance_ref"] == 0
    return {
        "action_requested": named(place[rows["service"], np.where(unasked, 0, requested)], names, unasked),
        "action_applied": named(served, run.names["instance"], nobody),
    }


def _unfinished(in_flight: Array) -> Array:
    """Requests without a known end as rows of the requests table. They have no number (`seq`)."""
    rows = np.zeros(len(in_flight), DTYPE)
    for name in DTYPE.names or ():
        if name in (in_flight.dtype.names or ()):
            rows[name] = in_flight[name]
    rows["action_applied"] = MISSING_U8
    rows["upstream_us"] = rows["queue_us"] = MISSING_U32
    return rows


def _enum(values: Array, kind: type[IntEnum], missing: Array | None = None) -> pa.Array:
    names = {int(member): member.name if kind is Method else member.name.lower() for member in kind}
    return named(values, tuple(names.get(value, "") for value in range(max(names) + 1)), missing)


def _trace_ids(rows: Array) -> pa.Array:
    """32 hexadecimal digits, as in the X-Trace-Id header."""
    both = np.column_stack((rows["trace_hi"], rows["trace_lo"])).astype(">u8")
    return pa.array(np.frombuffer(both.tobytes().hex().encode(), "S32")).cast(pa.string())

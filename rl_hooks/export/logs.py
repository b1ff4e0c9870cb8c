"""The two JSON files per run that users look for in logs/.

    rl_training_results_<scenario>_<start>.json   totals, conversion per profile, every session
    rl_training_metrics_<scenario>_<start>.json   the decision rows, one a line; feature names once, values per row

<start> is the run's start in UTC, so exporting again writes the same files with the same bytes.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rl_hooks.export import facts
from rl_hooks.export.bundle import write_json
from rl_hooks.export.dataset import Dataset, RunSteps
from rl_hooks.export.errors import ExportError
from rl_hooks.export.rewards import REWARDS
from rl_hooks.row import Intent, Outcome
from rl_hooks.run_reader import Run

_ROWS = 1000  # as Python objects in memory at a time
_METRICS = (
    *("service", "decision_tick", "t_unix_ns", "t_s", "dt_s", "phase", "episode_id", "step", "split", "reason"),
    *("action", "action_name", "action_requested", "propensity", "applied_share", "reward", "reward_filled"),
    *(f"reward_{name}" for name in REWARDS),
    *("n_requests", "n_errors", "n_unfinished", "offered_rps", "user_count", "truncated"),
)


def write_logs(data: Dataset, folder: Path) -> list[Path]:
    """Write the files of all runs of a data set; returns their paths. ExportError when the folder cannot be written."""
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part in data.runs:
            started = datetime.fromtimestamp(part.run.manifest["started_unix_ns"] // 1_000_000_000, UTC)
            name = f"{part.run.manifest['scenario']}_{started:%Y%m%dT%H%M%SZ}.json"
            results, metrics = (folder / f"rl_training_{kind}_{name}" for kind in ("results", "metrics"))
            write_json(results, _results(data, part))
            with metrics.open("w", encoding="utf-8") as file:
                file.writelines(_metrics(data, part))
            written += [results, metrics]
    except OSError as error:
        raise ExportError(
            f"{folder}: the log files cannot be written ({error.strerror or error}); choose another place with --logs"
        ) from error
    return written


def _results(data: Dataset, part: RunSteps) -> dict[str, Any]:
    run = part.run
    return {
        **facts.provenance(part),
        "totals": {
            **facts.request_counts(run),
            "sessions": len(run.sessions),
            "sessions_by_outcome": facts.session_counts(run),  # apart: requests have a count `failed` as well
            "orders_paid": int(run.sessions["orders_paid"].sum()),
            "decisions": len(run.decisions),
            "rows_lost": facts.rows_lost(run),
        },
        "action_shares": facts.action_shares(data.frame[data.frame["run_id"] == part.run_id], data.space),
        "conversion": facts.conversion(run, part.plan),
        "sessions": _sessions(run),
    }


def _sessions(run: Run) -> list[dict[str, Any]]:
    columns = {name: run.sessions[name].tolist() for name in run.sessions.dtype.names}
    return [_session(run, dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def _session(run: Run, row: dict[str, int]) -> dict[str, Any]:
    return {
        "profile": run.names["profile"][row["profile_ref"]],
        "phase": run.names["phase"][row["phase_ref"]],
        "slot": row["slot"],
        "session": row["session"],
        "account": row["account"],
        "start": facts.iso_utc(row["start_ns"]),
        "end": facts.iso_utc(row["start_ns"] + row["duration_us"] * 1000),
        "pages": row["pages"],
        "user_actions": {name: row[name] for name in ("browse", "search", "cart", "order", "profile")},
        "cart_adds": row["cart_adds"],
        "orders_placed": row["orders_placed"],
        "orders_paid": row["orders_paid"],
        "intent": Intent(row["intent"]).name.lower(),
        "outcome": Outcome(row["outcome"]).name.lower(),
    }


def _metrics(data: Dataset, part: RunSteps) -> Iterator[str]:
    """Strict JSON with one row a line: indented it would be three times the size."""
    head = {**facts.provenance(part), "observation_names": [feature.name for feature in data.features]}
    opening = json.dumps(head, allow_nan=False, ensure_ascii=False, indent=1).removesuffix("\n}")
    yield f'{opening},\n "rows": [\n'
    names = (*_METRICS, *(f"reward_{name}" for name in data.plan.scenario.rewards))
    mine = np.flatnonzero(data.frame["run_id"].to_numpy() == part.run_id)
    for first in range(0, len(mine), _ROWS):
        chosen = mine[first : first + _ROWS]
        columns = {name: _jsonable(data.frame[name].to_numpy()[chosen]) for name in names}
        columns["observation"] = _jsonable(data.observation[chosen])
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        yield ",\n" if first else ""
        yield ",\n".join(json.dumps(row, allow_nan=False, ensure_ascii=False) for row in rows)
    yield "\n]}\n"


def _jsonable(values: Any) -> list[Any]:
    """Plain Python values, None for NaN. float32 gives its shortest decimal, as numpy prints it."""
    if not np.issubdtype(values.dtype, np.floating):
        return list(values.tolist())
    if values.dtype == np.float32:
        values = values.astype("U32").astype(np.float64)
    plain = values.astype(object)
    plain[np.isnan(values)] = None
    return list(plain.tolist())

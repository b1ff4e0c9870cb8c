"""What the decision table costs: rows per second and core, memory, against pandas' rolling windows; quantile error.

    python -m benchmarks.export [--rows 10000000] [--rounds 3]

Synthetic run folders of a million requests and of `--rows` are written first, in the recorder's own files. Measured is
the way from them to the decision table: checking and reading every segment, windows and quantiles at every decision
and at the end of its interval, cohorts, rewards, applied actions. Every measurement is a process of its own, and CPU
time is counted from after the imports on. Where numba is installed (extra `fast`) the compiled loops of the pass are
loaded before, and what that took is printed apart. Ours and pandas' alternate on the same folder, so their ratio holds
on a shared machine; pandas computes only the 60 s windows (rate, mean, error rate, three quantiles), from columns that
are in memory already, over the first `PANDAS_ROWS` requests.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.made_run import WINDOW_S, make_run
from rl_hooks.decision import SERVICES
from rl_hooks.export import align, compiled, steps
from rl_hooks.observation import FEATURE_INDEX
from rl_hooks.run_reader import Run, read_run
from rl_hooks.segments import checksum_function
from scenario.plan import Plan

SMALL_ROWS, PANDAS_ROWS = 1_000_000, 800_000
LEVELS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
AT_LEAST = {"rows per second and core (millions)": 10.0, "times cheaper than pandas, per row": 20.0}
AT_MOST = {
    "peak memory (MB)": 400.0,
    "peak memory, growth from the small run (MB)": 100.0,
    "quantile error (%)": 0.8,
    "quantile error, exact on request (%)": 1e-5,  # float32
    "difference from pandas (%)": 1e-3,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        what, folder = options.measure
        print(json.dumps(MEASURES[what](Path(folder))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        small = make_run(Path(folder) / "small", SMALL_ROWS, rps=_rps(SMALL_ROWS))
        large = make_run(Path(folder) / "large", options.rows, rps=_rps(options.rows))
        return _report(_measured(small, large, options.rounds))


def _rps(rows: int) -> float:
    """A long run is one of many users, not of many days."""
    return 500.0 if rows < 5_000_000 else 2500.0 if rows < 50_000_000 else 10_000.0


def _measured(small: Path, large: Path, rounds: int) -> dict[str, float]:
    few = _in_own_process("table", small)
    error, apart = _in_own_process("error", small), _in_own_process("apart", small)
    found = [(_in_own_process("table", large), _in_own_process("pandas", large)) for _ in range(rounds)]
    ours = [table for table, _ in found]
    ratios = [pandas["ns_per_row"] / table["ns_per_row"] for table, pandas in found]
    for table, pandas in found:
        print(
            f"{table['rows']:.0f} requests, {table['decisions']:.0f} decisions: {table['ns_per_row']:.0f} ns CPU a row "
            f"(reading and checking {table['read_ns_per_row']:.0f}, of it checksums {table['crc_ns_per_row']:.0f}), "
            f"{table['wall_s']:.1f} s wall, {table['peak_mb']:.0f} MB; pandas {pandas['ns_per_row']:.0f} ns a row"
        )
    loaded = ", ".join(f"{table['load_s']:.1f}" for table in ours)
    is_compiled = compiled.worth_it(int(ours[0]["rows"]))
    print(f"the pass: {f'compiled; loading or compiling it took {loaded} s CPU' if is_compiled else 'numpy'}")
    print(f"{few['rows']:.0f} requests: {few['ns_per_row']:.0f} ns CPU a row, {few['peak_mb']:.0f} MB")
    return {
        "rows per second and core (millions)": 1000 / statistics.median(table["ns_per_row"] for table in ours),
        "times cheaper than pandas, per row": statistics.median(ratios),
        "peak memory (MB)": max(table["peak_mb"] for table in ours),
        "peak memory, growth from the small run (MB)": max(table["peak_mb"] for table in ours) - few["peak_mb"],
        "quantile error (%)": error["histogram_percent"],
        "quantile error, exact on request (%)": error["exact_percent"],
        "difference from pandas (%)": apart["percent"],
    }


def _report(measured: dict[str, float]) -> int:
    missed = False
    for name, value in measured.items():
        target = AT_LEAST.get(name, AT_MOST.get(name, 0.0))
        met = value >= target if name in AT_LEAST else value <= target
        missed |= not met
        bound = "at least" if name in AT_LEAST else "at most"
        print(f"{name:<44} {value:10.4g}   target {bound} {target:g}: {'met' if met else 'missed'}")
    return 1 if missed else 0


def _in_own_process(what: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.export", "--measure", what, str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    return {name: float(value) for name, value in json.loads(done.stdout).items()}


def _table(folder: Path) -> dict[str, float]:
    """Our way, from the folder to the decision table."""
    load_s = _load_compiled() if compiled.worth_it(compiled.WORTH_ROWS) else 0.0  # whatever the size, for its memory
    wall_s, cpu_ns = time.perf_counter(), time.process_time_ns()
    run = read_run(folder)
    read_ns = time.process_time_ns() - cpu_ns
    built = steps.build(run, Plan.from_json(run.manifest["plan"]), exact_quantiles=False)
    cpu_ns, wall_s = time.process_time_ns() - cpu_ns, time.perf_counter() - wall_s
    rows, peak_mb = run.request_count, _peak_mb()
    return {
        "rows": rows,
        "decisions": len(built.frame),
        "ns_per_row": cpu_ns / rows,
        "read_ns_per_row": read_ns / rows,
        "wall_s": wall_s,
        "load_s": load_s,
        "peak_mb": peak_mb,
        "crc_ns_per_row": _crc_ns(folder) / rows,
    }


def _load_compiled() -> float:
    """Load the compiled loops, or compile them if no cache has them, with a small run; the CPU seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        run = read_run(make_run(Path(folder) / "tiny", 1000, rps=_rps(1000)))
        plan = Plan.from_json(run.manifest["plan"])
        line = align.timeline(run, plan)
        cpu_ns = time.process_time_ns()
        align.observe(run, plan, line, align.tally(run, plan, line, exact_quantiles=False, use_compiled=True))
        return (time.process_time_ns() - cpu_ns) / 1e9


def _pandas(folder: Path) -> dict[str, float]:
    """pandas' way for the first rows."""
    run = read_run(folder)
    columns, moments = _asked(run, Plan.from_json(run.manifest["plan"]))
    cpu_ns = time.process_time_ns()
    for service, times in enumerate(moments):
        _rolling(columns, service, times)
    return {"ns_per_row": (time.process_time_ns() - cpu_ns) / PANDAS_ROWS}


def _apart(folder: Path) -> dict[str, float]:
    """How far pandas' values for the first rows are from our exact ones."""
    run = read_run(folder)
    plan = Plan.from_json(run.manifest["plan"])
    line = align.timeline(run, plan)
    columns, moments = _asked(run, plan)
    seen = align.observe(run, plan, line, align.tally(run, plan, line, exact_quantiles=True)).at
    worst = 0.0
    for service, times in enumerate(moments):
        ours = seen[line.service == service][: len(times)]
        for name, values in _rolling(columns, service, times).items():
            worst = max(worst, _difference_percent(values, ours[:, FEATURE_INDEX[name]]))
    return {"percent": worst}


def _asked(run: Run, plan: Plan) -> tuple[dict[str, Any], list[Any]]:
    """The first rows, and the decisions of each service that no later row can matter to."""
    line, columns = align.timeline(run, plan), _first_columns(run)
    until_ns = int(columns["end_ns"].max()) - round(plan.request_timeout_s * 1e9)
    of_service = [line.t_ns[line.service == service] for service in range(len(SERVICES))]
    return columns, [times[times <= until_ns] for times in of_service]


def _first_columns(run: Run) -> dict[str, Any]:
    """The first requests by their start, in order of their end."""
    parts: list[Any] = []
    for batch in run.batches():
        parts.append(np.column_stack([batch[name].astype(np.int64) for name in _COLUMNS]))
        if sum(int((part[:, 0] < batch.complete_ns).sum()) for part in parts) >= PANDAS_ROWS:
            break  # no later batch has one of them
    rows = np.concatenate(parts)
    rows = rows[np.argsort(rows[:, 0], kind="stable")][:PANDAS_ROWS]
    rows = rows[np.argsort(rows[:, 0] + rows[:, 1] * 1000, kind="stable")]
    start_ns, duration_us, service, ok = rows.T
    return {"end_ns": start_ns + duration_us * 1000, "ms": duration_us / 1000, "service": service, "failed": 1.0 - ok}


_COLUMNS = ("start_ns", "duration_us", "service", "ok")


def _rolling(columns: dict[str, Any], service: int, moments_ns: Any) -> dict[str, Any]:
    """Windows [T - 60 s, T) of one service at every T: rows of the requests with rows of the moments among them."""
    mine = columns["service"] == service
    requests = pd.DataFrame({"ms": columns["ms"][mine], "failed": columns["failed"][mine]}, columns["end_ns"][mine])
    asked = pd.DataFrame({"ms": np.nan, "failed": np.nan}, moments_ns)
    both = pd.concat((asked, requests)).sort_index(kind="stable")
    at = np.flatnonzero(both["ms"].isna().to_numpy())
    both.index = pd.to_datetime(both.index)
    windows = both.rolling(f"{WINDOW_S:g}s", closed="left")
    found = {
        "request_rate_rps": windows["ms"].count().fillna(0.0) / WINDOW_S,
        "response_time_mean_ms": windows["ms"].mean(),
        "error_rate": windows["failed"].mean(),
        **{f"response_time_{name}_ms": windows["ms"].quantile(level) for name, level in LEVELS.items()},
    }
    return {name: values.to_numpy()[at] for name, values in found.items()}


def _error(folder: Path) -> dict[str, float]:
    """The largest error of a quantile, of the histogram's and of the exact ones, against numpy on whole windows."""
    run = read_run(folder)
    plan = Plan.from_json(run.manifest["plan"])
    line = align.timeline(run, plan)
    seen = {
        exact: align.observe(run, plan, line, align.tally(run, plan, line, exact_quantiles=exact)).at
        for exact in (False, True)
    }
    chosen = np.random.default_rng(1).choice(len(line.t_ns), 500, replace=False)
    rows = run.requests
    ended_ns, worst = rows["start_ns"] + rows["duration_us"].astype(np.int64) * 1000, {False: 0.0, True: 0.0}
    order = np.argsort(ended_ns, kind="stable")
    ended_ns, service, ms = ended_ns[order], rows["service"][order], rows["duration_us"][order] / 1000
    for row in chosen.tolist():
        inside = slice(*np.searchsorted(ended_ns, (line.t_ns[row] - round(WINDOW_S * 1e9), line.t_ns[row])))
        times = ms[inside][service[inside] == line.service[row]]
        if len(times):
            truth = np.quantile(times, list(LEVELS.values()))
            for exact, values in seen.items():
                ours = values[row, [FEATURE_INDEX[f"response_time_{name}_ms"] for name in LEVELS]]
                worst[exact] = max(worst[exact], _difference_percent(truth, ours))
    return {"histogram_percent": worst[False], "exact_percent": worst[True]}


MEASURES: dict[str, Callable[[Path], dict[str, float]]] = {
    "table": _table,
    "pandas": _pandas,
    "apart": _apart,
    "error": _error,
}


def _difference_percent(truth: Any, ours: Any) -> float:
    """The largest relative difference; infinite where only one of the two is a number."""
    truth, ours = np.nan_to_num(truth, nan=-1.0), np.nan_to_num(ours.astype(np.float64), nan=-1.0)
    apart = np.abs(truth - ours) / np.maximum(np.abs(truth), 1e-12)
    return 100 * float(np.where(truth == ours, 0.0, apart).max(initial=0.0))


def _crc_ns(folder: Path) -> float:
    """What only the checksums cost."""
    spent = 0
    for file in sorted((folder / "requests").iterdir()):
        content, checksum = memoryview(file.read_bytes()), checksum_function()
        began = time.process_time_ns()
        checksum(content)
        spent += time.process_time_ns() - began
    return float(spent)


def _peak_mb() -> float:
    """Peak resident memory of this process since it began (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    sys.exit(main())

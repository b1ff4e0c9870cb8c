"""Both ways to an observation give the same bits: many moments at once, and one after the other."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl_hooks import request_log
from rl_hooks.decision import SERVICES
from rl_hooks.export import align, compiled
from rl_hooks.observation import Observation, ObservationWindow, Spans
from rl_hooks.observation_table import Cells, CompletionTable
from rl_hooks.request_log import end_ns
from rl_hooks.row import REQUESTS
from rl_hooks.run_folder import RunWriter
from rl_hooks.run_reader import Run, read_run
from scenario.plan import Plan
from tests import builders
from tests.builders import at

NO_NUMBA = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="numba is not installed; `make formats` installs it"
)
COMPILED = pytest.param(True, marks=[pytest.mark.formats, NO_NUMBA], id="compiled")
PASSES = pytest.mark.parametrize("use_compiled", [pytest.param(False, id="numpy"), COMPILED])
SPANS = Spans(window_ns=10 * 10**9, interval_ns=2 * 10**9)


def one_after_the_other(run: Run, plan: Plan, line: align.Timeline, exact: bool) -> dict[int, Observation]:
    """The observations by their definition, from the whole run in memory."""
    window = ObservationWindow(align.spans_of(plan), exact_quantiles=exact)
    requests, decided = run.requests, run.decisions
    window.push_starts(requests["service"], requests["start_ns"])
    window.push_starts(run.in_flight["service"], run.in_flight["start_ns"])
    window.push_completions(requests["service"], end_ns(requests), requests["duration_us"], requests["ok"])
    window.push_lost(run.in_flight["service"], align.given_up_ns(run, plan))
    window.push_samples(run.samples)
    window.push_decisions(decided["service"], decided["t_ns"], decided["action"], decided["actuated"])
    moments = np.unique(np.concatenate((line.t_ns, line.next_ns))).tolist()
    return {moment: window.observe(moment) for moment in moments}


def assert_both_ways_agree(run: Run, plan: Plan, exact: bool, use_compiled: bool) -> None:
    line = align.timeline(run, plan)
    seen = align.observe(
        run, plan, line, align.tally(run, plan, line, exact_quantiles=exact, use_compiled=use_compiled)
    )
    expected = one_after_the_other(run, plan, line, exact)
    times = zip(line.service, line.t_ns.tolist(), line.next_ns.tolist(), strict=True)
    for row, (service, t_ns, next_ns) in enumerate(times):
        assert seen.at[row].tobytes() == expected[t_ns].values[service].tobytes()
        assert seen.after[row].tobytes() == expected[next_ns].values[service].tobytes()
        assert seen.sample_ns[row] == expected[t_ns].sample_ns[service]


def irregular_run(seed: int, plan: Plan) -> Run:
    """Late timers, one gap, decisions that could not be applied, samples late, overtaken and missing, lost requests."""
    rng = np.random.default_rng(seed)
    run = builders.random_run(seed=seed, count=2500, planned=plan)
    decided, samples = run.decisions, run.samples
    decided["t_ns"] += rng.integers(0, 4 * 10**8, len(decided)) + np.where(decided["tick"] > 60, 9 * 10**9, 0)
    decided["actuated"] = rng.random(len(decided)) > 0.1
    samples["received_ns"] += rng.integers(0, 5 * 10**9, len(samples))
    exactly = np.searchsorted(decided["t_ns"], samples["received_ns"][::3]).clip(max=len(decided) - 1)
    samples["received_ns"][::3] = decided["t_ns"][exactly]  # received at the very moment of a decision
    samples["t_ns"] -= np.where(rng.random(len(samples)) < 0.1, 3 * 10**9, 0)
    silent = (samples["t_ns"] > at(80)) & (samples["t_ns"] < at(100)) & (samples["service"] < 2)
    run.requests["duration_us"][::50] = 0
    run.requests["duration_us"][1::50] = 30_000_000
    lost = builders.rows("in_flight", [{"start_ns": at(t), "service": t % 5} for t in range(1, 230, 9)])
    kept = np.sort(samples[~silent & (rng.random(len(samples)) > 0.1)], order=("t_ns", "service", "instance_ref"))
    return replace(run, samples=kept, in_flight=lost)


@PASSES
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("window_s", [10.0, 5.0])  # of 5 s: shorter than five intervals
@pytest.mark.parametrize("seed", range(2))
def test_many_moments_at_once_give_the_bits_of_one_after_the_other(
    seed: int, window_s: float, exact: bool, use_compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "BATCH_ROWS", 100)
    plan = builders.plan(seed=seed, window_s=window_s)
    assert_both_ways_agree(irregular_run(seed, plan), plan, exact, use_compiled)


@PASSES
@pytest.mark.parametrize("exact", [False, True])
def test_rows_of_several_processes_in_no_order_give_the_same_bits(
    exact: bool, use_compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "BATCH_ROWS", 64)
    plan = builders.plan()
    source = irregular_run(5, plan)
    folder = builders.write_run(replace(source, requests=source.requests[:0]), tmp_path / "run")
    rng = np.random.default_rng(5)
    of = rng.integers(0, 3, len(source.requests))
    for number in range(3):
        mine = source.requests[of == number]
        order = np.argsort(end_ns(mine) + rng.integers(0, 2 * 10**9, len(mine)))
        write_worker(folder, source, mine[order], backwards=number == 1)
    run = read_run(folder)
    assert run.losses == ()
    assert run.request_count == len(source.requests)
    assert len(run.in_flight) == 0  # every process closed in order
    assert_both_ways_agree(run, plan, exact, use_compiled)
    names = np.array(run.names["instance"], object)
    assert list(names[run.requests["instance_ref"]]) == list(
        np.array(source.names["instance"], object)[source.requests["instance_ref"]]
    )


def write_worker(folder: Path, source: Run, rows: Any, *, backwards: bool) -> None:
    """One process with ids of its own, in segments of 50 rows."""
    writer = RunWriter(folder, "worker", 8)
    own = {}
    for kind, names in source.names.items():
        for name in reversed(names) if backwards else names:
            own[kind, name] = writer.ref(kind, name)
    columns = [name for name, _, _ in REQUESTS.columns[:-1]]
    for number, row in enumerate(rows):
        values = [
            own[name[:-4], source.names[name[:-4]][row[name]]] if name.endswith("_ref") else row[name].item()
            for name in columns
        ]
        writer.tables["requests"].append(*values)
        if number % 50 == 49:
            writer.rotate()
    writer.close()


def test_what_is_held_does_not_grow_with_the_length_of_a_run() -> None:
    moments = builders.START_NS + np.arange(1, 2001) * 2 * 10**9
    table = CompletionTable(moments, SPANS)
    for tick in range(2000):
        ended = builders.START_NS + tick * 2 * 10**9 + np.arange(200) * 10**6
        table.add(np.zeros(200, np.int64), ended, np.full(200, 1000.0), np.empty(0, np.int64), int(ended[0]))
        assert len(table.quantiles._key) + sum(len(key) for _, key in table.quantiles._waiting) <= 200 * (5 + 2 * 40)
    assert table.windows()[0][-1, 0, 0] == 1000


def test_cells_begin_at_their_edges() -> None:
    cells = Cells(np.array([10, 20, 30]))
    where, cell = cells.of(np.array([19, 10, 20, 29]))
    assert (where, cell.tolist()) == (slice(1, 3), [0, 0, 1, 1])
    where, cell = cells.of(np.array([9, 30]))
    assert (where, cell.tolist()) == (slice(0, 4), [0, 3])
    assert cells.before(np.array([1, 2, 4, 8]), np.array([10, 20, 30])).tolist() == [1, 3, 7]


def test_a_time_before_its_end_is_found_in_its_own_cell() -> None:
    cells = Cells(np.array([10, 20, 30]))
    where, cell, over = cells.of_earlier(np.array([5, 12, 19, 31]), np.array([2, 1, 2, 3]))
    assert (where, cell.tolist(), over.tolist()) == (slice(0, 4), [0, 1, 1, 3], [0, 2])


def test_an_empty_service_has_no_quantile_and_no_requests() -> None:
    table = CompletionTable(np.array([at(2)]), SPANS)
    assert np.isnan(table.quantiles_us()).all()
    assert table.ended().tolist() == [[0] * len(SERVICES)]


def tables(use_compiled: bool, seed: int = 3) -> align.Tallies:
    """Of a run in which some requests begin, and others end, exactly at a decision."""
    plan = builders.plan(seed=seed)
    run = irregular_run(seed, plan)
    line, requests = align.timeline(run, plan), run.requests
    begin, end = requests[::20], requests[1::20]
    begin["start_ns"] = np.resize(line.t_ns, len(begin))
    end["start_ns"] = np.resize(line.t_ns, len(end)) - 5_000_000
    end["duration_us"] = 5000
    run = replace(run, requests=requests[np.argsort(requests["start_ns"], kind="stable")])
    return align.tally(run, plan, line, exact_quantiles=False, use_compiled=use_compiled)


@pytest.mark.formats
@NO_NUMBA
def test_the_compiled_pass_makes_the_same_tables_of_what_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "BATCH_ROWS", 100)
    sent, expected = tables(True).sent, tables(False).sent
    for name in ("classes", "actions", "ok_us", "last_end_ns", "named"):
        assert getattr(sent, name).tobytes() == getattr(expected, name).tobytes(), name
    place = np.where(expected.named, np.cumsum(expected.named, axis=1) - 1, -1)
    assert sent.served(place).tolist() == expected.served(place).tolist()
    assert expected.served(place).any()


@pytest.mark.formats
@NO_NUMBA
@pytest.mark.parametrize("column", ["service", "instance_ref"])
def test_the_compiled_pass_refuses_what_lies_outside_of_its_tables(column: str) -> None:
    plan = builders.plan()
    run = irregular_run(0, plan)
    run.requests[column][7] = 200
    message = "a request names a service or an instance that does not exist"
    with pytest.raises(IndexError, match=f"^{re.escape(message)}$"):
        align.tally(run, plan, align.timeline(run, plan), exact_quantiles=False, use_compiled=True)


@pytest.mark.formats
@NO_NUMBA
def test_the_compiled_pass_is_for_runs_that_are_worth_it() -> None:
    assert not compiled.worth_it(compiled.WORTH_ROWS - 1)
    assert compiled.worth_it(compiled.WORTH_ROWS)

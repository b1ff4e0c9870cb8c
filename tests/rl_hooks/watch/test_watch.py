"""Following a run by its files: the same facts as whoever wrote them, each read once, and an end."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl_hooks.decision import ACTIONS
from rl_hooks.reward_so_far import RewardSoFar
from rl_hooks.run_folder import MANIFEST, RunWriter, create_run_folder, update_manifest
from rl_hooks.standing import document
from rl_hooks.watch.__main__ import Screen, main
from rl_hooks.watch.follow import Follower, RowTail
from rl_hooks.watch.text import lines_of, printable
from tests import builders

PLAN = builders.plan()
EXTRA = {"faults": {"injector": "none"}}
ROOT = Path(__file__).resolve().parents[3]


def users(seconds: int) -> list[dict[str, Any]]:
    mix = {"quick_browser": 7, "careful_shopper": 5}
    return [
        {"t_ns": 0, "kind": "users", "run_time_s": float(second), "planned": mix, "counts": mix}
        for second in range(1, seconds)
    ]


def made(folder: Path, *, close: bool = True, events: list[dict[str, Any]] | None = None) -> builders.Run:
    run = builders.random_run(planned=PLAN, manifest=EXTRA, events=users(200) if events is None else events)
    builders.write_run(run, folder, close=close)
    return run


def test_it_says_what_the_files_say(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    standing = Follower(tmp_path / "run").look()
    now = document(standing)
    assert (now["run"], now["state"], now["run_time_s"]) == ("run", "complete", 238.0)  # the last decision's
    assert now["counts"]["requests"] == len(run.requests)
    assert now["counts"]["failed"] == (run.requests["ok"] == 0).sum() > 0
    assert (now["counts"]["decisions"], now["counts"]["skipped"]) == (len(run.decisions), 0)
    last = run.decisions[-5:]
    assert [one["action"] for one in now["services"]] == [ACTIONS[action] for action in last["action"]]
    assert [one["propensity"] for one in now["services"]] == pytest.approx(last["propensity"].tolist())
    assert {one["policy"] for one in now["services"]} == {builders.NAMES["policy"][1]}
    assert now["users"][0] == {"profile": "careful_shopper", "planned": 5, "running": 5}


def test_looking_often_or_once_comes_to_the_same(tmp_path: Path) -> None:
    run = builders.random_run(planned=PLAN, manifest=EXTRA, count=2000)
    create_run_folder(tmp_path / "run", {**run.manifest, "state": "running"})
    writer = RunWriter(tmp_path / "run", "local", 8)
    often = Follower(tmp_path / "run")
    rows = {name: builders._plain(getattr(run, name), writer.tables[name].table) for name in ("requests", "decisions")}
    for part in range(10):
        for name, all_rows in rows.items():
            for row in all_rows[part * len(all_rows) // 10 : (part + 1) * len(all_rows) // 10]:
                writer.tables[name].append(*row)
            if part % 3 == 0:
                writer.tables[name].rotate()
            if part % 4 == 0:
                writer.maintain()
        standing = often.look()
    writer.close()
    once = Follower(tmp_path / "run").look()
    assert (standing.rows, standing.failed, standing.decisions) == (once.rows, once.failed, once.decisions)
    assert standing.rows == len(run.requests)
    assert standing.reward.mean() == pytest.approx(once.reward.mean(), rel=1e-6)
    direct = RewardSoFar(PLAN)
    direct.fold(run.requests)
    direct.settle(once.run_time_s)
    assert direct.decisions == once.reward.decisions > 0


def test_every_row_comes_once(tmp_path: Path) -> None:
    create_run_folder(tmp_path / "run", {})
    writer = RunWriter(tmp_path / "run", "local", 8)
    table = writer.tables["decisions"]
    (row,) = builders._plain(builders.decisions(PLAN, np.random.default_rng(1))[:1], table.table)
    tail = RowTail(tmp_path / "run", writer.incarnation, table.table)
    found: list[int] = []
    for number in range(12):
        table.append(*row)
        if number % 5 == 1:
            table.rotate()
        if number % 3 == 0:
            writer.maintain()
        found += tail.new()["seq"].tolist()
    writer.close()
    found += tail.new()["seq"].tolist()
    assert found == list(range(1, 13))


def test_a_run_whose_leading_process_was_killed_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    source = f"""
import os, signal
from pathlib import Path
from rl_hooks.run_folder import RunWriter, create_run_folder
create_run_folder(Path({str(folder)!r}), {{**{dict(builders.manifest(PLAN), state="running")!r}, **{EXTRA!r}}})
writer = RunWriter(Path({str(folder)!r}), "local", 8)
print("ready", flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", source], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        follower = Follower(folder)
        assert follower.look().state == "running"
        process.kill()
        process.wait()
        assert follower.look().state == "gone"


def test_what_does_not_work_is_said_until_it_works_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    create_run_folder(folder, {**builders.manifest(PLAN), **EXTRA, "state": "running"})
    writer = RunWriter(folder, "local", 8)
    follower = Follower(folder, now_ns=writer.now_ns)
    writer.event("control_fault", text="metrics source x: no answer")
    assert follower.look().trouble == "metrics source x: no answer"
    writer.event("control_recovered")
    assert follower.look().trouble is None
    writer.event("users", run_time_s=3.0, planned={}, counts={})
    assert Follower(folder, now_ns=lambda: writer.now_ns() + 60_000_000_000).look().trouble == (
        "nothing was written for 60 s"
    )
    writer.close()


def test_rows_of_workers_whose_files_are_elsewhere_are_known_by_their_number(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    create_run_folder(folder, {**builders.manifest(PLAN), **EXTRA, "state": "running"})
    writer = RunWriter(folder, "master", 8)
    writer.event("seen", tick=1, observed_ns=1, rows={"worker.a.00000000": [70, 0, 0], "worker.b.00000000": [5, 0, 0]})
    standing = Follower(folder).look()
    assert (standing.rows, standing.failed) == (75, None)
    assert "requests   75 recorded, 0.0/s, how many failed is not known here" in lines_of(document(standing))[2]
    writer.close()


def test_where_rows_of_workers_may_be_is_said_in_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    create_run_folder(folder, {**builders.manifest(PLAN), **EXTRA})
    writer = RunWriter(folder, "master", 8)
    writer.event("seen", tick=1, observed_ns=1, rows={"worker.a.00000000": [70, 0, 0]})
    writer.close()
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert "rows lost: 70\n" in out
    assert "trouble    nothing is here of worker.a.00000000; if they have a --spool, ship that too" in out
    assert "reward so far: not known\n" in out


def test_the_command_ends_with_the_run_and_counts_what_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path / "runs" / "run")
    (next((tmp_path / "runs" / "run" / "samples").glob("*"))).write_bytes(b"")
    assert main(["--runs", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("run  complete  3:58 of 4:00  evening\nusers      12 of 12: careful_shopper 5 of 5, ")
    assert re.search(r"rows lost: [1-9]\d*\n", out)
    assert len(out.splitlines()) == 12


def test_the_newest_run_is_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        made(tmp_path / name)
        update_manifest(tmp_path / name, started_unix_ns=builders.START_NS + (name == "b"))
    assert main(["--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("b  complete")


def test_runs_of_another_version_beside_the_newest_do_not_matter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("new", "old"):
        made(tmp_path / name)
    update_manifest(tmp_path / "old", schema_version=2)
    assert main(["--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("new  complete")
    update_manifest(tmp_path / "new", schema_version=2)
    assert main(["--runs", str(tmp_path)]) == 2
    assert "new/manifest.json: schema version 2, this program reads 4" in capsys.readouterr().err


WRONG = [
    (["{tmp}/none"], "watch: {tmp}/none: there is no such folder; give the folder of a run (it holds manifest.json)\n"),
    (["{tmp}"], "watch: {tmp}: not a run folder, it has no manifest.json\n"),
    (
        ["--runs", "{tmp}"],
        "watch: {tmp}: there is no run in it; start one, name a run folder, or another place with --runs\n",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_a_wrong_place_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([argument.format(tmp=tmp_path) for argument in arguments]) == 2
    assert capsys.readouterr().err == message.format(tmp=tmp_path)


def test_a_manifest_without_a_whole_plan_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / MANIFEST).read_text())
    del manifest["plan"]["phases"]
    (tmp_path / "run" / MANIFEST).write_text(json.dumps(manifest))
    assert main([str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith("watch: plan")


def test_names_cannot_move_the_cursor_of_a_terminal(tmp_path: Path) -> None:
    made(tmp_path / "run")
    standing = Follower(tmp_path / "run").look()
    hostile = replace(standing, run="a\x1b[2J", planned={"x\rb": 1}, trouble="t\x9bm\nnext", faults=["f\x07"])
    lines = lines_of(document(hostile))
    assert all(printable(line) == line for line in lines)
    assert lines[0].startswith("a?[2J  complete")


def test_on_a_terminal_lines_are_written_in_place_and_never_wrap() -> None:
    written: list[str] = []
    screen = Screen(written.append, columns=5)
    screen.show(["123456789", "b"], "morning", 0.0, last=False)
    screen.show(["c", "d", "e"], "morning", 1.0, last=False)
    assert written == ["12345\nb\n", "\x1b[2F\x1b[Jc\nd\ne\n"]


def test_elsewhere_lines_come_every_ten_seconds_at_every_phase_and_at_the_end() -> None:
    written: list[str] = []
    screen = Screen(written.append, columns=None)
    for second in range(16):
        screen.show([str(second)], "morning" if second < 13 else "noon", float(second), last=second == 15)
    assert written == ["0\n", "10\n", "13\n", "15\n"]


def test_ctrl_c_leaves_the_run_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    create_run_folder(folder, {**builders.manifest(PLAN), **EXTRA, "state": "running"})
    writer = RunWriter(folder, "local", 8)
    with subprocess.Popen(
        [sys.executable, "-m", "rl_hooks.watch", str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored where the tests run in the background
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("run  running")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    writer.close()
    assert json.loads((folder / MANIFEST).read_text())["state"] == "running"


def test_who_has_seen_enough_may_close_the_pipe(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    create_run_folder(folder, {**builders.manifest(PLAN), **EXTRA, "state": "running"})
    with subprocess.Popen(
        [sys.executable, "-m", "rl_hooks.watch", str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("run  running")
        process.stdout.close()
        update_manifest(folder, state="complete")  # so that it writes once more
        assert process.wait(30) == 0
        assert process.stderr.read() == ""

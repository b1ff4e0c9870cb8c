"""Following a run by what it writes: new rows and lines of its folder, each read once."""

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rl_hooks.action_space import ActionSpace
from rl_hooks.decision import SERVICES
from rl_hooks.faults.acting import acting
from rl_hooks.reward_so_far import RewardSoFar
from rl_hooks.row import DECISIONS, OBSERVATION_VALUES, OBSERVATIONS, REQUESTS, Table
from rl_hooks.run_folder import WITH_ROWS, RunFolderError, holds_lock, read_incarnations, read_manifest
from rl_hooks.segments import SEALED, read_segment
from rl_hooks.standing import Chosen, Standing, name_of
from scenario.plan import Plan

SILENT_S = 15.0  # real; users are noted every second
GONE = "gone"  # the state of a run whose leading process was killed


class Follower:
    """One run. `look` reads what is new and says how the run stands.

    Raises RunFolderError and ScenarioError when the folder is not that of a run.
    """

    def __init__(self, folder: Path, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._folder = folder
        self._now_ns = now_ns
        manifest = read_manifest(folder)
        self._plan, self._space = Plan.from_json(manifest["plan"]), ActionSpace.of(manifest)
        self._reward = RewardSoFar(self._plan)
        self._tails: dict[tuple[str, str], RowTail] = {}
        self._events: dict[str, LineTail] = {}
        self._rows: dict[str, int] = {}  # incarnation -> request rows, as far as they are known
        self._failed = 0
        self._decisions = 0
        self._last: tuple[str, Any] | None = None  # incarnation and decisions of the newest tick
        self._observation: Any = None
        self._users: Mapping[str, Any] = {"planned": {}, "counts": {}}
        self._run_time_s = 0.0
        self._heard_ns = 0  # when it wrote last
        self._trouble: str | None = None
        self._faults: list[Mapping[str, Any]] = []

    def look(self) -> Standing:
        manifest = read_manifest(self._folder)
        state = self._state(manifest)
        for name in self._incarnations():
            self._read_rows(name)
        for file in sorted((self._folder / "events").glob("*.jsonl")):
            for event in self._events.setdefault(file.name, LineTail(file)).new():
                self._take(event)
        self._reward.settle(self._run_time_s)
        over = state != "running"
        faults, failed = acting(self._faults, self._plan.faults)
        trouble = [manifest.get("fault"), None if over else self._trouble, None if over else self._silence(), *failed]
        chosen, sample_ns, skipped = self._newest()
        return Standing(
            run=self._folder.name,
            state=state,
            facts=manifest,
            plan=self._plan,
            run_time_s=self._run_time_s,
            planned=self._users["planned"],
            running=self._users["counts"],
            failed=None if self._rows.keys() - {name for name, _ in self._tails} else self._failed,
            rows=sum(self._rows.values()),
            rows_lost=None,
            decisions=self._decisions,
            skipped=skipped,
            now_ns=self._heard_ns if over else self._now_ns(),
            sample_ns=sample_ns,
            chosen=chosen,
            observation=self._observation,
            trouble="; ".join(text for text in trouble if text is not None) or None,
            faults=faults,
            reward=self._reward,
            history=(),
        )

    def _state(self, manifest: Mapping[str, Any]) -> str:
        """As the manifest says; a leading process of this machine that was killed cannot say that it is gone."""
        state = str(manifest["state"])
        if state != "running":
            return state
        leading = [who for who in read_incarnations(self._folder) if who.role in ("local", "master")]
        dead = [
            not who.closed
            and who.locked
            and who.host == socket.gethostname()
            and not holds_lock(self._folder, who.name)
            for who in leading
        ]
        return GONE if dead and all(dead) else "running"

    def _silence(self) -> str | None:
        silent_s = (self._now_ns() - self._heard_ns) / 1e9
        if not self._heard_ns or silent_s < SILENT_S:
            return None
        return f"nothing was written for {silent_s:.0f} s"

    def _incarnations(self) -> list[str]:
        names = {file.stem for file in (self._folder / "processes").glob("*.json")}
        return sorted(name for name in names if name.split(".")[0] in WITH_ROWS)

    def _read_rows(self, name: str) -> None:
        requests = self._new(name, REQUESTS)
        self._reward.fold(requests)
        self._failed += int((requests["ok"] == 0).sum())
        self._rows[name] = max(self._rows.get(name, 0), self._tails[name, REQUESTS.name].rows)
        decisions = self._new(name, DECISIONS)
        if len(decisions):
            self._decisions += len(decisions)
            newest = decisions[decisions["tick"] == decisions["tick"].max()].copy()
            self._last = name, newest
            self._hear(int(newest["t_ns"].max()), int(newest["tick"][0]) * self._plan.decision_interval_s)
        observations = self._new(name, OBSERVATIONS)
        if len(observations):
            newest = observations[observations["tick"] == observations["tick"].max()]
            self._observation = np.full((len(SERVICES), OBSERVATION_VALUES), np.nan, np.float32)
            for index in range(OBSERVATION_VALUES):
                self._observation[newest["service"], index] = newest[f"value_{index}"]

    def _new(self, name: str, table: Table) -> Any:
        return self._tails.setdefault((name, table.name), RowTail(self._folder, name, table)).new()

    def _take(self, event: Mapping[str, Any]) -> None:
        match event["kind"]:
            case "users":
                self._users = event
                self._hear(event["t_ns"], event["run_time_s"])
            case "seen":  # rows of workers whose files are elsewhere are known by their number at least
                for name, (rows, *_) in event["rows"].items():
                    self._rows[name] = max(self._rows.get(name, 0), rows)
            case "control_fault":
                self._trouble = event["text"]
            case "control_recovered":
                self._trouble = None
            case "fault":
                self._faults.append(event)

    def _hear(self, t_ns: int, run_time_s: float) -> None:
        self._heard_ns = max(self._heard_ns, t_ns)
        self._run_time_s = max(self._run_time_s, run_time_s)

    def _newest(self) -> tuple[list[Chosen], int | None, int | None]:
        """The newest decisions, the time of the sample that was read for them, and how many intervals were missed."""
        if self._last is None:
            return [], None, None
        name, rows = self._last
        policies = _policies(self._folder, name)
        chosen = [
            Chosen(
                int(row["service"]),
                name_of(self._space, int(row["service"]), int(row["action"])),
                float(row["propensity"]),
                policies.get(int(row["policy_ref"]), ""),
                bool(row["actuated"]),
            )
            for row in rows
        ]
        ticks = self._decisions // len(SERVICES)
        return chosen, int(rows["sample_ns"].max()) or None, int(rows["tick"].max()) + 1 - ticks


class RowTail:
    """The rows of one table of one process as they come, each once."""

    def __init__(self, folder: Path, incarnation: str, table: Table) -> None:
        self.rows = 0  # number of the last row that was read
        self._folder = folder / table.name
        self._incarnation = incarnation
        self._table = table
        self._done: set[int] = set()  # numbers of sealed segments that were read

    def new(self) -> Any:
        parts = [np.empty(0, self._table.dtype)]
        for number, file in self._files():
            try:
                rows = read_segment(file, self._table).rows
            except (
                FileNotFoundError
            ):  # it is being sealed, which gives it another name: its rows come with the next look
                break
            fresh = rows[rows["seq"] > self.rows]
            if len(fresh):
                self.rows = int(fresh["seq"].max())
                parts.append(fresh)
            if file.suffix == SEALED:
                self._done.add(number)
        return np.concatenate(parts)

    def _files(self) -> list[tuple[int, Path]]:
        found = sorted((int(file.name.split(".")[-2]), file) for file in self._folder.glob(f"{self._incarnation}.*"))
        return [(number, file) for number, file in found if number not in self._done]


class LineTail:
    """The whole lines of a file of JSON objects as they come, each once. ValueError when one is damaged."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = 0

    def new(self) -> Iterator[dict[str, Any]]:
        with self._file.open("rb") as lines:
            lines.seek(self._offset)
            *whole, _cut = lines.read().split(b"\n")
        for line in whole:
            self._offset += len(line) + 1
            try:
                yield dict(json.loads(line))
            except ValueError as error:
                raise RunFolderError(
                    f"{self._file}: a line is damaged; export the run, which tells what is lost"
                ) from error


def _policies(folder: Path, incarnation: str) -> dict[int, str]:
    """Id -> name of the logging policies that a process has named so far."""
    names = LineTail(folder / "dictionaries" / f"{incarnation}.jsonl").new()
    return {int(line["id"]): str(line["name"]) for line in names if line["kind"] == "policy"}


def newest(runs: Path) -> Path:
    """The run folder in `runs` that was started last, of those that this version reads.

    Raises RunFolderError when there is none.
    """
    folders = [file.parent for file in sorted(runs.glob("*/manifest.json"))]
    if not folders:
        raise RunFolderError(
            f"{runs}: there is no run in it; start one, name a run folder, or another place with --runs"
        )
    started, problems = {}, []
    for folder in folders:
        try:
            started[folder] = int(read_manifest(folder).get("started_unix_ns", 0))
        except RunFolderError as error:
            problems.append(error)
    if not started:
        raise problems[0]
    return max(started, key=started.__getitem__)

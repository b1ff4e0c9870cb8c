"""What the checks and pictures look at: the tables of a bundle and, where there are, the run folders behind them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rl_hooks.action_space import STRATEGIES, ActionSpace
from rl_hooks.decision import SERVICE_INDEX, SERVICES
from rl_hooks.export import align, schema, split
from rl_hooks.export.bundle import DATASET
from rl_hooks.export.dataset import Dataset, assemble
from rl_hooks.export.formats import parquet
from rl_hooks.export.requests import request_table
from rl_hooks.report.errors import ReportError
from rl_hooks.run_folder import MANIFEST
from rl_hooks.run_reader import Run, read_run
from scenario.plan import Plan

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

BUNDLE = "bundle"  # where the exporter puts it in a run folder
GIVE_RUN = "not in a bundle: give the run folder"
_REQUESTS = ("run_id", "start_unix_ns", "t_s", "duration_us", "service", "ok", "profile", "phase", "slot", "session")


@dataclass(frozen=True)
class Recorded:
    """A run folder with its plan."""

    run: Run
    plan: Plan
    start_ns: int  # wall-clock time of the plan's second 0

    @property
    def run_id(self) -> str:
        return str(self.run.manifest["run_id"])

    def events(self, kind: str) -> list[Mapping[str, Any]]:
        return [event for event in self.run.events if event["kind"] == kind]

    def at_s(self, event: Mapping[str, Any]) -> float:
        """When an event was, in seconds of the plan."""
        return float(event["t_ns"] - self.start_ns) / 1e9


@dataclass(frozen=True)
class Columns:
    """The actions as the checks count them: those that exist, an instance of each service on its own."""

    labels: tuple[str, ...]
    place: Ints  # (services, numbers of actions) -> position in labels; -1: it does not exist
    missing: tuple[str, ...]  # strategies that the balancer does not have, which nobody can try

    @staticmethod
    def of(space: ActionSpace) -> "Columns":
        """
        >>> from rl_hooks.action_space import strategies
        >>> Columns.of(strategies(["circuit_breaker"])).place[0].tolist()
        [0, 1, 2, 3, -1, 4]
        """
        there = np.array(space.mask())
        place = np.full(there.shape, -1, np.int64)
        if space.kind == STRATEGIES:
            place[there] = (np.cumsum(there, axis=1) - 1)[there]
            return Columns(tuple(space.choices(0).there), place, tuple(space.missing_in_order))
        place[there] = np.arange(int(there.sum()))
        names = [(service, name) for service, mine in zip(SERVICES, space.names, strict=True) for name in mine]
        twice = len({name for _, name in names}) < len(names)
        return Columns(tuple(f"{service} {name}" if twice else name for service, name in names), place, ())

    def told(self) -> str:
        """For the text of a check: what is missing on purpose."""
        return f" Not in this balancer: {', '.join(self.missing)}." if self.missing else ""

    @property
    def mask(self) -> Mask:
        """(services, actions) which actions a service has."""
        found = np.zeros((len(self.place), len(self.labels)), bool)
        service, number = np.nonzero(self.place >= 0)
        found[service, self.place[service, number]] = True
        return found

    def spread(self, service: Ints, values: Array) -> Array:
        """(n, numbers of actions) -> (n, actions), 0 for what another service has."""
        found = np.zeros((len(values), len(self.labels)), values.dtype)
        row, number = np.nonzero(self.place[service] >= 0)
        found[row, self.place[service[row], number]] = values[row, number]
        return found


@dataclass(frozen=True)
class Evidence:
    """n steps in order of run, service and time; row i of `steps` belongs to row i of the matrices."""

    origin: str
    facts: Mapping[str, Any]  # the content of dataset.json
    steps: pd.DataFrame  # transitions of all parts (column `split`), without observations
    observation: npt.NDArray[np.float32]  # (n, features)
    next_observation: npt.NDArray[np.float32]  # (n, features)
    columns: "Columns"  # what is counted as an action
    probabilities: npt.NDArray[np.float32]  # (n, actions) of the logging policy
    requests: pd.DataFrame  # the columns _REQUESTS
    recorded: tuple[Recorded, ...]  # the run folders; empty when only a bundle was given

    @cached_property
    def features(self) -> list[Mapping[str, Any]]:
        return list(self.facts["observation"]["features"])

    @cached_property
    def interval_s(self) -> float:
        return float(self.facts["decision_interval_s"])

    @cached_property
    def usable(self) -> Ints:
        """Rows that train or validate."""
        rows: Ints = np.flatnonzero(self.steps["split"].to_numpy() != split.EXCLUDED)
        return rows

    @cached_property
    def judged(self) -> Ints:
        """Usable rows whose reward was measured: what counts as evidence about actions."""
        filled = self.steps["reward_filled"].to_numpy(bool)
        rows: Ints = self.usable[~filled[self.usable]]
        return rows

    @cached_property
    def action(self) -> Ints:
        """(n,) positions in the labels."""
        action: Ints = self.columns.place[self.service, self.steps["action"].to_numpy(np.int64)]
        return action

    @property
    def labels(self) -> tuple[str, ...]:
        return self.columns.labels

    @cached_property
    def mask(self) -> Mask:
        """(n, actions) which actions existed for the step's service."""
        mask: Mask = self.columns.mask[self.service]
        return mask

    @cached_property
    def service(self) -> Ints:
        service: Ints = self.steps["service"].map(SERVICE_INDEX).to_numpy(np.int64)
        return service

    @cached_property
    def draw(self) -> Ints:
        """(n,) the draw that each step's action came from: its own, or one of all services in the interval."""
        if not ActionSpace.of(self.facts).one_for_all:
            return np.arange(len(self.steps))
        tick = self.steps["run_id"].astype(str) + ":" + self.steps["decision_tick"].astype(str)
        number: Ints = pd.factorize(tick)[0].astype(np.int64)
        return number

    def draws(self, rows: Ints) -> Ints:
        """Of these rows the first of each draw: what five services share is one piece of evidence about chance."""
        return rows[np.sort(np.unique(self.draw[rows], return_index=True)[1])]

    @cached_property
    def cluster(self) -> Ints:
        """(n,) steps that may depend on each other: an episode, or a time block where all services share the draws."""
        if not ActionSpace.of(self.facts).one_for_all:
            return self.episode
        block = self.steps["run_id"].astype(str) + ":" + self.steps["block"].astype(str)
        number: Ints = pd.factorize(block)[0].astype(np.int64)
        return number

    @cached_property
    def propensity(self) -> Floats:
        propensity: Floats = self.steps["propensity"].to_numpy(np.float64)
        return propensity

    @cached_property
    def propensities(self) -> str:
        """Of the usable steps, those whose propensity is known: `known` for all of them, `some`, `none`."""
        stated = np.isfinite(self.propensity[self.usable])
        return "known" if stated.all() else "some" if stated.any() else "none"

    @cached_property
    def whole_distribution(self) -> bool:
        """Whether usable steps state the probability of every action; a balancer states that of the one it took."""
        return bool(np.isfinite(self.probabilities[self.usable]).all())

    @cached_property
    def reward(self) -> Floats:
        reward: Floats = self.steps["reward"].to_numpy(np.float64)
        return reward

    @cached_property
    def episode(self) -> Ints:
        """(n,) the episode's number; equal numbers are next to each other."""
        number: Ints = pd.factorize(self.steps["episode_id"])[0].astype(np.int64)
        return number

    @cached_property
    def phases(self) -> list[str]:
        """Names of phases in the order in which they came; the planned ones where the plan is known."""
        planned = [phase.name for part in self.recorded for phase in part.plan.phases]
        seen = self.steps.sort_values("t_s", kind="stable")["phase"]
        return [name for name in dict.fromkeys([*planned, *seen]) if name]


def read_evidence(paths: Sequence[Path]) -> Evidence:
    """The evidence in one bundle, in run folders, or in both. Raises ReportError, or the errors of the readers.

    A run folder brings its bundle along; where there is none, the data set is assembled in memory.
    """
    bundles = [path for path in paths if (path / DATASET).is_file()]
    folders = [path for path in paths if path not in bundles]
    for path in folders:
        if not path.is_dir():
            raise ReportError(f"{path}: there is no such folder; give the folder of a run or a bundle")
        if not (path / MANIFEST).is_file():
            raise ReportError(f"{path}: neither a run folder (no {MANIFEST}) nor a bundle (no {DATASET})")
    if len(bundles) > 1:
        raise ReportError(f"{bundles[0]} and {bundles[1]} are two bundles; ask for one report card after the other")
    inside = folders[0] / BUNDLE if len(folders) == 1 and not bundles else None
    bundle = bundles[0] if bundles else inside if inside is not None and (inside / DATASET).is_file() else None
    runs = [read_run(path) for path in folders]
    if bundle is None:
        return from_dataset(assemble(runs))
    return from_bundle(bundle, runs)


def from_dataset(data: Dataset) -> Evidence:
    """The evidence in a data set that is in memory."""
    parts = {name: parquet.transitions(data, name) for name in split.SPLITS}
    origin = ", ".join(str(part.run.path) for part in data.runs)
    recorded = [part.run for part in data.runs]
    return _evidence(origin, schema.dataset_facts(data), parts, request_table(data).select(_REQUESTS), recorded)


def from_bundle(path: Path, runs: Sequence[Run]) -> Evidence:
    """The evidence in a bundle on disk and in the folders of its runs. ReportError when they do not belong together."""
    try:
        facts = json.loads((path / DATASET).read_text(encoding="utf-8"))
        _check_facts(path, facts)
        files = {
            name: path / "data" / "transitions" / f"{name}-00000-of-00001.parquet"
            for name in (split.TRAIN, split.VALIDATION)
        }
        files[split.EXCLUDED] = path / "data" / "excluded" / "excluded.parquet"
        parts = {name: pq.read_table(file) for name, file in files.items()}
        requests = pq.read_table(path / "data" / "requests" / "requests.parquet", columns=list(_REQUESTS))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ReportError(f"{path}: cannot be read as a bundle ({error}); export the run again") from error
    _check_same(path, facts, runs)
    return _evidence(str(path), facts, parts, requests, runs)


def _check_facts(path: Path, facts: Any) -> None:
    if not isinstance(facts, dict) or facts.get("schema_version") != schema.SCHEMA_VERSION:
        found = facts.get("schema_version") if isinstance(facts, dict) else None
        text = f"{path / DATASET}: schema version {found}, this program reads {schema.SCHEMA_VERSION}"
        raise ReportError(f"{text}; export the run again")


def _check_same(path: Path, facts: Mapping[str, Any], runs: Sequence[Run]) -> None:
    exported = {run["run_id"]: run["decisions"] for run in facts["runs"]}
    for run in runs:
        run_id = run.manifest.get("run_id")
        if exported.get(str(run_id)) != len(run.decisions):
            raise ReportError(
                f"{path} was not made of {run.path} as it is now (it holds {', '.join(exported)}, "
                f"the folder is run {run_id} with {len(run.decisions)} decisions); export the run again"
            )
    missing = [run_id for run_id in exported if run_id not in {run.manifest.get("run_id") for run in runs}]
    if runs and missing:
        raise ReportError(f"{path} also holds {', '.join(missing)}; give the folders of all its runs, or of none")


def _evidence(
    origin: str, facts: Mapping[str, Any], parts: Mapping[str, pa.Table], requests: pa.Table, runs: Sequence[Run]
) -> Evidence:
    frames = [table.to_pandas().assign(split=name) for name, table in parts.items()]
    frame = pd.concat([part for part in frames if len(part)], ignore_index=True)
    frame = frame.sort_values(["run_id", "service", "t_unix_ns"], kind="stable", ignore_index=True)
    if "reason" not in frame:
        frame = frame.assign(reason=None)
    names = [feature["name"] for feature in facts["observation"]["features"]]
    before, after = ([f"{prefix}.{name}" for name in names] for prefix in ("obs", "next"))
    wide = {*before, *after, "action_probs", "action_mask", "observation_mask"}
    space = ActionSpace.of(facts)
    columns, service = Columns.of(space), frame["service"].map(SERVICE_INDEX).to_numpy(np.int64)
    probabilities = np.array(frame["action_probs"].tolist(), np.float32).reshape(len(frame), space.size)
    plans = [Plan.from_json(run.manifest["plan"]) for run in runs]
    return Evidence(
        origin=origin,
        facts=facts,
        steps=frame[[name for name in frame if name not in wide]].copy(),
        observation=frame[before].to_numpy(np.float32),
        next_observation=frame[after].to_numpy(np.float32),
        columns=columns,
        probabilities=columns.spread(service, probabilities),
        requests=requests.to_pandas(),
        recorded=tuple(Recorded(run, plan, align.plan_start_ns(run)) for run, plan in zip(runs, plans, strict=True)),
    )

"""All that a bundle holds, in memory: the steps of one or several runs with their episodes and their split."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rl_hooks.action_space import ActionSpace
from rl_hooks.decision import SERVICES
from rl_hooks.export import align, episodes, split, steps
from rl_hooks.export.backfill import Backfill, read_backfill
from rl_hooks.export.errors import ExportError
from rl_hooks.export.own_features import Named
from rl_hooks.export.rewards import names_of
from rl_hooks.observation import Feature, features_of
from rl_hooks.request_log import end_ns
from rl_hooks.run_reader import Run
from scenario.plan import Plan

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

_NEEDED = ("run_id", "scenario", "plan", "started_unix_ns", "state")  # of a manifest


@dataclass(frozen=True)
class RunSteps:
    """A run with its plan, and where its steps are among all of them."""

    run: Run
    plan: Plan
    intervals: steps.Intervals
    offset: int  # row of its first step in the data set's frame
    incomplete: int
    backfill: Backfill | None = None

    @property
    def run_id(self) -> str:
        return str(self.run.manifest["run_id"])

    def rows_of(self, service: Array, start_ns: Array) -> npt.NDArray[np.int64]:
        """The row of the data set's frame that requests belong to, -1: none."""
        found = self.intervals.step_of(service, start_ns)
        return np.where(found >= 0, found + self.offset, -1)


@dataclass(frozen=True)
class Dataset:
    """n steps in order of run, service and time; row i of `frame` belongs to row i of the matrices."""

    runs: tuple[RunSteps, ...]
    frame: pd.DataFrame
    observation: npt.NDArray[np.float32]  # (n, features)
    next_observation: npt.NDArray[np.float32]  # (n, features)
    all_rows: npt.NDArray[np.float32]  # (n, features) the observation with every row of every worker known
    episodes: pd.DataFrame
    reward_means: Mapping[str, float]  # service -> mean over train; what a step without a finished request gets
    exact_quantiles: bool
    own: tuple[Named, ...] = ()  # features of one's own, whose columns are behind all others

    @property
    def features(self) -> tuple[Feature, ...]:
        """What the columns of the matrices mean."""
        return (*features_of(self.space.labels), *(one.feature for one in self.own))

    @property
    def plan(self) -> Plan:
        """What the runs have in common (windows, weights, SLOs) can be read from the plan of any."""
        return self.runs[0].plan

    @property
    def space(self) -> ActionSpace:
        """What all decisions were made among."""
        return ActionSpace.of(self.runs[0].run.manifest)

    def rows(self, name: str) -> npt.NDArray[np.bool_]:
        """The steps of one part of the split."""
        chosen: npt.NDArray[np.bool_] = self.frame["split"].to_numpy() == name
        return chosen


def assemble(runs: Sequence[Run], *, exact_quantiles: bool = False, own: tuple[Named, ...] = ()) -> Dataset:
    """One data set of several runs. Raises ExportError when they do not fit together or one cannot be exported."""
    _check_readable(runs)
    runs = sorted(runs, key=lambda run: str(run.manifest["run_id"]))  # the bundle does not depend on who came first
    plans = [Plan.from_json(run.manifest["plan"]) for run in runs]
    _check_fit(runs, plans)
    fetched = [read_backfill(run.path) for run in runs]
    built = [
        steps.build(run, plan, exact_quantiles=exact_quantiles, backfill=more, own=own)
        for run, plan, more in zip(runs, plans, fetched, strict=True)
    ]
    dealt = [_deal(run, plan, part) for run, plan, part in zip(runs, plans, built, strict=True)]
    frame, means = split.fill_rewards(pd.concat(dealt, ignore_index=True))
    frame = _with_episodes(frame, align.spans_of(plans[0]).interval_ns)
    offsets = np.cumsum([0, *(len(part.frame) for part in built)])
    return Dataset(
        runs=tuple(
            RunSteps(run, plan, part.intervals, int(offset), part.incomplete, more)
            for run, plan, part, offset, more in zip(runs, plans, built, offsets, fetched, strict=False)
        ),
        frame=frame,
        observation=np.concatenate([part.observation for part in built]),
        next_observation=np.concatenate([part.next_observation for part in built]),
        all_rows=np.concatenate([part.all_rows for part in built]),
        episodes=episodes.episode_table(frame),
        reward_means=means,
        exact_quantiles=exact_quantiles,
        own=own,
    )


def horizon_requests(run: Run, plan: Plan) -> Iterator[tuple[Ints, Ints]]:
    """When requests were sent and from when on no step can see them, a batch at a time, also of those in flight."""
    horizon_ns = align.spans_of(plan).horizon_ns
    for batch in run.batches():
        yield batch["start_ns"], end_ns(batch) + horizon_ns
    yield run.in_flight["start_ns"].astype(np.int64), align.given_up_ns(run, plan) + horizon_ns


def _deal(run: Run, plan: Plan, part: steps.Steps) -> pd.DataFrame:
    """The run's steps with their block, side and, where excluded, the reason."""
    if len(part.frame) == 0:
        raise ExportError(f"{run.path}: no decision interval was over when the run ended; record a longer run")
    spans = align.spans_of(plan)
    frame = part.frame.assign(block=episodes.block_of(part.frame, spans.interval_ns, round(plan.episode_s * 1e9)))
    side = split.sides(frame, plan.seed)
    usable = split.reasons(frame, np.zeros(len(frame), bool)) == ""
    reason = split.reasons(frame, split.purge(frame, side, usable, part.spans))
    return frame.assign(side=side, reason=reason, split=np.where(reason == "", side, split.EXCLUDED).astype(object))


def _with_episodes(frame: pd.DataFrame, interval_ns: int) -> pd.DataFrame:
    cut = episodes.cut(episodes.stretch_starts(frame, interval_ns), frame["split"].to_numpy())
    first_of_run = frame.assign(episode=cut.episode).groupby("run_id", sort=False)["episode"].transform("first")
    numbers = cut.episode - first_of_run.to_numpy()
    ids = [f"{run_id}:{number:05d}" for run_id, number in zip(frame["run_id"], numbers, strict=True)]
    return frame.assign(episode_id=np.array(ids, object), step=cut.step, terminated=False, truncated=cut.truncated)


def _check_readable(runs: Sequence[Run]) -> None:
    """Refuse a run that is no more than a gap.

    So it is with files of another layout, recorded by another version: a bundle without a single request would replace
    the good one that was made then.
    """
    for run in runs:
        lacking = [name for name in _NEEDED if name not in run.manifest]
        if lacking:
            raise ExportError(f"{run.path}: its manifest.json lacks {', '.join(lacking)}; restore it as it was written")
        for table in ("decisions", "requests"):
            texts = [loss.text for loss in run.losses if loss.table == table]
            if texts and (run.request_count if table == "requests" else len(run.decisions)) == 0:
                lines = [f"{run.path}: none of its {table} can be read, nothing was exported", *texts]
                raise ExportError("\n  ".join(lines))


def _check_fit(runs: Sequence[Run], plans: Sequence[Plan]) -> None:
    """All runs must mean the same by a feature and by a reward."""
    seen: dict[str, Run] = {}
    for run in runs:
        run_id = str(run.manifest["run_id"])
        if run_id in seen:
            raise ExportError(_twice(seen[run_id], run))
        seen[run_id] = run
    first, meaning = runs[0], _meaning(runs[0], plans[0])
    for run, plan in zip(runs[1:], plans[1:], strict=True):
        other = _meaning(run, plan)
        differing = [f"{key} ({meaning[key]} and {other[key]})" for key in meaning if meaning[key] != other[key]]
        if differing:
            raise ExportError(
                f"{first.path} and {run.path} do not fit into one bundle, they differ in {', '.join(differing)}; "
                "export them one by one"
            )


def _twice(one: Run, other: Run) -> str:
    run_id, both = one.manifest["run_id"], f"{one.path} and {other.path}"
    if one.manifest["started_unix_ns"] == other.manifest["started_unix_ns"]:
        return f"{both} are the same run ({run_id}); name it once"
    return (
        f"{both} are two runs with one run_id ({run_id}), so their episodes could not be told apart; "
        "give one of them another run_id in its manifest.json"
    )


def _meaning(run: Run, plan: Plan) -> dict[str, Any]:
    """What features, actions and rewards depend on."""
    stated = plan.scenario.reward_weights
    weights = {name: stated[name] for name in names_of(stated)}  # a policy's schema, and so serving, has another order
    slo_ms = {name: plan.slo_ms[name] for name in SERVICES}
    space = ActionSpace.of(run.manifest)
    return {
        "actions": "; ".join(space.describe()) or "all strategies",
        "names of actions": "; ".join(", ".join(names) for names in dict.fromkeys(space.names)),
        "observation window": f"{plan.window_s:g} s",
        "decision interval": f"{plan.decision_interval_s:g} s",
        "reward weights": ", ".join(f"{name} {weight:g}" for name, weight in weights.items()),
        "rewards of one's own": ", ".join(f"{name} {what}" for name, what in plan.scenario.rewards.items()) or "none",
        "SLO": ", ".join(f"{name} {value:g} ms" for name, value in slo_ms.items()),
    }

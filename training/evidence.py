"""Bundles as the estimators take them. Everything that makes them unfit to judge a policy on is told at once."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rl_hooks.action_space import ActionSpace
from rl_hooks.decision import SERVICE_INDEX
from rl_hooks.export.formats.source import Bundle, read_bundle
from rl_hooks.export.split import TRAIN, VALIDATION
from rl_hooks.policy_schema import PolicyFeature
from rl_hooks.report.checks.learning import carry_over
from rl_hooks.report.evidence import from_bundle
from rl_hooks.report.state import Case
from rl_hooks.report.thresholds import Thresholds
from training.errors import TrainingError
from training.estimators import Array, Floats, Log

PARTS = {VALIDATION: (VALIDATION,), TRAIN: (TRAIN,), "both": (TRAIN, VALIDATION)}


@dataclass(frozen=True)
class Evidence:
    """n logged steps with what was known at each."""

    log: Log
    raw: Array  # (n, features) in physical units, NaN: not known
    next_raw: Array  # (n, features) at the next decision
    space: ActionSpace
    service: Array  # (n,)
    observations: Array  # (n, columns) encoded, with the statistics of the first bundle
    next_observations: Array  # (n, columns)
    features: tuple[PolicyFeature, ...]  # what the columns of `raw` mean
    window_s: float
    decision_interval_s: float
    runs: tuple[str, ...]
    logging_policies: tuple[str, ...]
    carry_over: int | None  # last lag in steps at which an action still has an effect; None: it cannot be told


def read(paths: Sequence[Path], part: str) -> Evidence:
    """The steps of a part of all bundles. Raises TrainingError, and ExportError when one is no bundle."""
    bundles = [read_bundle(path) for path in paths]
    frames = [bundle.parts[name].frame for bundle in bundles for name in PARTS[part] if name in bundle.parts]
    _refuse([*_unlike(bundles), *([] if frames else [f"{part} has no steps: give more data, or another --part"])])
    frame = pd.concat(frames, ignore_index=True)
    _refuse(_unfit(frame))
    encoding = bundles[0].encoding
    raw, next_raw = (
        frame[[f"{at}.{name}" for name in encoding.features]].to_numpy(np.float32) for at in ("obs", "next")
    )
    return Evidence(
        log=log_of(frame),
        raw=raw,
        next_raw=next_raw,
        space=ActionSpace.of(bundles[0].facts),
        service=frame["service"].map(SERVICE_INDEX).to_numpy(np.int64),
        observations=encoding.encode(raw),
        next_observations=encoding.encode(next_raw),
        features=features_of(bundles[0]),
        window_s=float(bundles[0].facts["windows_s"]["window"]),
        decision_interval_s=float(bundles[0].facts["decision_interval_s"]),
        runs=tuple(sorted(frame["run_id"].unique())),
        logging_policies=tuple(sorted(frame["logging_policy"].unique())),
        carry_over=_carry_over(paths),
    )


def features_of(bundle: Bundle) -> tuple[PolicyFeature, ...]:
    """What the columns of a bundle's observations mean, also of features that only the exporter makes."""
    names = [field.name for field in fields(PolicyFeature)]
    told = bundle.facts["observation"]["features"]
    return tuple(PolicyFeature(**{name: feature[name] for name in names}) for feature in told)


def log_of(frame: pd.DataFrame) -> Log:
    """Steps of a bundle's transitions as estimators take them."""
    block = frame["run_id"].astype(str) + ":" + frame["block"].astype(str)
    return Log(
        action=frame["action"].to_numpy(np.int64),
        logged=_probabilities(frame),
        reward=frame["reward"].to_numpy(np.float64),
        measured=~frame["reward_filled"].to_numpy(bool),
        sequence=pd.factorize(frame["episode_id"])[0].astype(np.int64),
        cluster=pd.factorize(block)[0].astype(np.int64),
    )


def _probabilities(frame: pd.DataFrame) -> Floats:
    return np.array(frame["action_probs"].to_list(), np.float64).reshape(len(frame), -1)


def _carry_over(paths: Sequence[Path]) -> int | None:
    """As the report card measures it, on all steps of each bundle; the longest one."""
    lags = [carry_over(Case(from_bundle(path, []), Thresholds())).numbers.get("lag_steps") for path in paths]
    return max((int(lag) for lag in lags if lag is not None), default=None)


# -- what is refused -------------------------------------------------------------------------------------------------


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise TrainingError("; ".join(problems))


def _unlike(bundles: Sequence[Bundle]) -> list[str]:
    """Why bundles are not one body of evidence."""
    first, problems, seen = bundles[0], [], dict[str, Path]()
    space = ActionSpace.of(first.facts)
    for bundle in bundles:
        if bundle.encoding.features != first.encoding.features or ActionSpace.of(bundle.facts) != space:
            problems.append(f"{bundle.path}: other features or actions than {first.path}; judge them one by one")
        if _seconds(bundle) != _seconds(first):
            problems.append(
                f"{bundle.path}: other windows or decision intervals than {first.path}; judge them one by one"
            )
        if bundle.facts["reward_weights_sha256"] != first.facts["reward_weights_sha256"]:
            problems.append(f"{bundle.path}: other reward weights than {first.path}; judge them one by one")
        for run in bundle.facts["runs"]:
            if run["run_id"] in seen:
                problems.append(f"{bundle.path}: run {run['run_id']} is also in {seen[run['run_id']]}; give it once")
            seen[run["run_id"]] = bundle.path
    return problems


def _seconds(bundle: Bundle) -> tuple[Any, Any]:
    return bundle.facts["windows_s"], bundle.facts["decision_interval_s"]


def _unfit(frame: pd.DataFrame) -> list[str]:
    """Why no estimate can be made of these steps."""
    again = "export the run folder again, or record with a logging policy that states its probabilities"
    probabilities = _probabilities(frame)
    propensity = frame["propensity"].to_numpy(np.float64)
    taken = probabilities[np.arange(len(frame)), frame["action"].to_numpy(np.int64)]
    lacking = ~((propensity > 0) & (propensity <= 1))
    without = int(lacking.sum())
    unlike = int((np.abs(taken - propensity) > 1e-5).sum())
    problems = []
    if without == len(frame):
        problems.append(
            "no step has a propensity: the balancer decided by itself and stated none, so what another policy would "
            "have earned cannot be estimated; let it answer with X-LB-Propensity, or record with a logging policy"
        )
    elif without:
        runs = ", ".join(sorted(frame.loc[lacking, "run_id"].astype(str).unique()))
        problems.append(
            f"{without} of {len(frame)} steps have no propensity in (0, 1], all of them in {runs}: leave such runs out "
            f"where a balancer decided by itself and stated none, else {again}"
        )
    elif unlike:
        problems.append(f"{unlike} of {len(frame)} steps have a propensity unlike their action_probs: {again}")
    elif float(np.nanmax(probabilities, axis=1).min()) > 1 - 1e-6:
        problems.append("the logging policy never had a choice, so it tells about no other policy: record with uniform")
    if frame["action_differs"].any():
        problems.append(
            f"{int(frame['action_differs'].sum())} steps ran under another action than the one drawn: export again, "
            "the exporter leaves them out"
        )
    if frame["reward_filled"].all():
        problems.append("no step has a measured reward: record with more users")
    elif frame.loc[~frame["reward_filled"], ["run_id", "block"]].drop_duplicates().shape[0] < 2:
        problems.append("all measured rewards are of one time block, so there is no interval: record longer")
    return problems

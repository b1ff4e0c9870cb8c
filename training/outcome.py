"""What came of a run: the numbers people compare policies by, of the whole run or of any part of it.

Requests and decisions are those of the exporter: a decision is judged by the requests sent under it, whenever they
ended. A request whose end is unknown (its process died) is in no number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.export import steps
from rl_hooks.export.rewards import REWARDS
from rl_hooks.run_reader import Run, read_run
from scenario.plan import Plan

Array = npt.NDArray[Any]

MEASURES: Mapping[str, tuple[str, bool]] = {
    "reward": ("weighted reward per decision with a request, 0 to 1", True),
    **{f"reward_{name}": ("component of it, 0 to 1", True) for name in REWARDS},
    "requests_per_s": ("requests that ended, per second", True),
    "goodput_per_s": ("requests that succeeded within their service's SLO, per second", True),
    "mean_ms": ("response time of the successful requests", False),
    "p95_ms": ("95th percentile of the same", False),
    "p99_ms": ("99th percentile of the same", False),
    "error_rate": ("share of the requests that failed", False),
}
"""Name -> (what it is, whether more is better), in the order of the tables. Fairness is `reward_load_balance`: Jain's
index over the instances of a service, mean over its decisions. A scenario's own rewards come behind them."""
_OWN = ("component of one's own, 0 to 1", True)


def meaning(name: str) -> tuple[str, bool]:
    """What a measure is, and whether more is better."""
    return MEASURES.get(name, _OWN)


@dataclass(frozen=True)
class Outcome:
    """One run: n decisions and m requests."""

    decisions: pd.DataFrame  # (n rows) service, decision_tick, phase, policy_version, action, n_finished, rewards ...
    requests: pd.DataFrame  # (m rows) service, decision_tick (-1: before the first decision), duration_ms, ok, in_slo
    interval_s: float

    def of_ticks(self, ticks: Array) -> "Outcome":
        """The part of the run that was decided at these ticks."""
        decisions, requests = (frame[frame["decision_tick"].isin(ticks)] for frame in (self.decisions, self.requests))
        return Outcome(decisions, requests, self.interval_s)

    def measures(self) -> dict[str, float]:
        """The numbers of MEASURES and of a scenario's own rewards; NaN where nothing defines one."""
        judged = self.decisions[self.decisions["n_finished"] > 0]
        duration_s = self.decisions["decision_tick"].nunique() * self.interval_s
        good_ms = self.requests["duration_ms"][self.requests["ok"]].to_numpy()
        p95_ms, p99_ms = np.quantile(good_ms, [0.95, 0.99]) if len(good_ms) else (np.nan, np.nan)
        values = {
            "reward": judged["reward"].mean(),
            **{f"reward_{name}": judged[f"reward_{name}"].mean() for name in REWARDS},
            "requests_per_s": _per(len(self.requests), duration_s),
            "goodput_per_s": _per(int(self.requests["in_slo"].sum()), duration_s),
            "mean_ms": good_ms.mean() if len(good_ms) else np.nan,
            "p95_ms": p95_ms,
            "p99_ms": p99_ms,
            "error_rate": 1 - self.requests["ok"].mean() if len(self.requests) else np.nan,
        }
        own = [name for name in judged if str(name).startswith("reward_") and name not in MEASURES]
        return {name: float(values[name]) for name in MEASURES} | {name: float(judged[name].mean()) for name in own}

    def action_shares(self) -> dict[str, float]:
        """Of the decisions, in the order of ACTIONS."""
        shares = np.bincount(self.decisions["action"], minlength=len(ACTIONS)) / max(len(self.decisions), 1)
        return dict(zip(ACTIONS, shares.tolist(), strict=True))


def read_outcome(path: Path) -> Outcome:
    """The outcome of a run folder. Raises RunFolderError or ExportError when it cannot be read."""
    run = read_run(path)
    plan = Plan.from_json(run.manifest["plan"])
    built = steps.build(run, plan, exact_quantiles=False)
    return Outcome(built.frame, _requests(run, plan, built), plan.decision_interval_s)


def _requests(run: Run, plan: Plan, built: steps.Steps) -> pd.DataFrame:
    slo_ms = np.array([plan.slo_ms[name] for name in SERVICES])
    ticks = np.append(built.frame["decision_tick"].to_numpy(), -1)
    parts = []
    for batch in run.batches():
        service, start_ns, duration_us, ok = batch.columns("service", "start_ns", "duration_us", "ok")
        duration_ms, good = duration_us / 1000, ok == 1
        parts.append(
            pd.DataFrame(
                {
                    "service": service,
                    "decision_tick": ticks[built.intervals.step_of(service, start_ns)],
                    "duration_ms": duration_ms,
                    "ok": good,
                    "in_slo": good & (duration_ms <= slo_ms[service]),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _per(count: int, duration_s: float) -> float:
    return count / duration_s if duration_s > 0 else np.nan

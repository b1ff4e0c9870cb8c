"""Every threshold of the report card, stated once. A YAML file can replace any of them.

action_share: {fail: 0.01, warn: 0.05}      # shares as numbers from 0 to 1
stationarity: {warn: null}                  # null: this is never a reason
state_clusters: 20
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from rl_hooks.report.errors import ReportError
from rl_hooks.report.verdict import Verdict
from scenario.errors import Problem, ScenarioError, number, show, suggestion

ABOVE, BELOW = "above", "below"


@dataclass(frozen=True, slots=True)
class Limit:
    """Where a number becomes a reason to warn and where to fail; None: never."""

    fail: float | None
    warn: float | None
    bad: str = ABOVE  # which side of the limit is bad; the limit itself is still good
    unit: str = ""  # for people; with a leading "%" the number is a share

    def judge(self, value: float) -> Verdict:
        """The verdict on one number.

        >>> [str(Limit(0.2, 0.02).judge(share)) for share in (0.02, 0.1, 0.3)]
        ['pass', 'warn', 'fail']
        """
        if self._is_bad(value, self.fail):
            return Verdict.FAIL
        return Verdict.WARN if self._is_bad(value, self.warn) else Verdict.PASS

    def describe(self) -> str:
        """The limits in words.

        >>> Limit(0.2, 0.02, unit="%").describe()
        'fail above 20 %, warn above 2 %'
        """
        named = (("fail", self.fail), ("warn", self.warn))
        return ", ".join(f"{name} {self.bad} {self._text(limit)}" for name, limit in named if limit is not None)

    def _is_bad(self, value: float, limit: float | None) -> bool:
        return limit is not None and (value > limit if self.bad == ABOVE else value < limit)

    def _text(self, limit: float) -> str:
        shown = limit * 100 if self.unit.startswith("%") else limit
        return f"{number(shown)} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Limits and settings of the checks, with their defaults."""

    rows_lost: Limit = Limit(0, None, unit="rows")
    requests_unfinished: Limit = Limit(None, 0.001, unit="% of requests with unknown end")
    pair_count: Limit = Limit(1, 30, BELOW, "per pair")
    action_share: Limit = Limit(0.02, 0.08, BELOW, "%")
    propensity_calibration: Limit = Limit(0.01, None, BELOW, "(corrected p-value)")
    propensity_smallest: Limit = Limit(None, 0.02, BELOW, "(smallest propensity)")
    impossible: Limit = Limit(0.01, 0, unit="% of the steps")  # for the action that was impossible most often
    overlap: Limit = Limit(0.5, 0.8, BELOW, "% of the cells")
    ess_uniform: Limit = Limit(0.1, 0.3, BELOW, "% of the steps")
    ess_constant: Limit = Limit(200, 1000, BELOW, "steps")
    action_effect: Limit = Limit(0.05, 0.01, unit="(p-value)")
    carry_over_of_episode: Limit = Limit(0.2, None, unit="% of the median episode")
    carry_over_steps: Limit = Limit(None, 10, unit="steps")  # 0 steps are a warning of their own
    concentrability: Limit = Limit(50, 20)
    propensity_beaten: Limit = Limit(0.02, 0.005, unit="nats")
    transitions: Limit = Limit(5_000, 20_000, BELOW)
    episodes: Limit = Limit(20, 50, BELOW)
    effective_rewards: Limit = Limit(200, 500, BELOW)
    reward_one_value: Limit = Limit(None, 0.95, unit="% of one value")
    missing_telemetry: Limit = Limit(0.2, 0.02, unit="%")
    dead_features: Limit = Limit(0.5, 0, unit="% of a source's measurements")
    markov: Limit = Limit(None, 0.05, unit="R2")
    stationarity: Limit = Limit(None, 0.3, unit="KS distance")
    users_off: Limit = Limit(0.05, 0, unit="% of the planned users")  # `users_tolerance` of them never fail
    traffic_rates: Limit = Limit(0.001, 0.05, BELOW, "(corrected p-value)")
    generator_cpu: Limit = Limit(0.95, 0.8, unit="%")
    generator_lag: Limit = Limit(0.25, 0.1, unit="% of the decision interval")
    recovery_left: Limit = Limit(None, 0, unit="faults")  # not over within their phase, or not applied
    action_differs: Limit = Limit(0.05, 0.005, unit="%")
    clock_uncertainty: Limit = Limit(0.5, 0.1, unit="% of the decision interval")

    state_clusters: int = 30  # at most; fewer where a cluster would have less than `cluster_steps`
    cluster_steps: int = 360
    cell_samples: int = 30
    carry_over_lags: int = 12  # at most; never more than a third of the median episode
    randomizations: int = 999
    frozen_stretch_steps: int = 30  # one value that long, away from the limits of the feature, is frozen
    frozen_share: float = 0.1  # of the steps in such stretches
    drift_steps: int = 50  # least steps of a service in a third of a phase
    users_tolerance: float = 1
    users_settle_s: float = 2.0  # real seconds that users may take after a ramp
    recovery_intervals: int = 5  # decision intervals in one point of the recovery; at least a second


def load_thresholds(path: Path | None) -> Thresholds:
    """The defaults with what `path` replaces. Raises ReportError with every problem of the file at once."""
    if path is None:
        return Thresholds()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ReportError(f"{path}: cannot be read as YAML ({error})") from error
    return override(content if content is not None else {}, str(path))


def override(content: Any, origin: str) -> Thresholds:
    """The defaults with the given ones instead. Raises ReportError with every problem at once."""
    if not isinstance(content, dict):
        raise ReportError(f"{origin}: not a mapping of threshold names; write lines such as state_clusters: 20")
    default = Thresholds()
    known = [field.name for field in fields(Thresholds)]
    problems: list[Problem] = []
    changes: dict[str, Any] = {}
    for key, value in content.items():
        if key not in known:
            problems.append(Problem(show(key), "is not a threshold", suggestion(str(key), known)))
            continue
        old = getattr(default, key)
        changed = _limit(key, old, value) if isinstance(old, Limit) else _setting(key, old, value)
        problems += changed if isinstance(changed, list) else []
        changes[key] = changed
    if not problems:
        thresholds = replace(default, **changes)
        problems = _too_few_randomizations(thresholds)
    if problems:
        raise ReportError(str(ScenarioError(origin, problems)))
    return thresholds


def _too_few_randomizations(thresholds: Thresholds) -> list[Problem]:
    """The smallest p-value there can be is 1 / (randomizations + 1), and it is corrected for the number of lags."""
    least = 20 * thresholds.carry_over_lags
    if thresholds.randomizations >= least:
        return []
    text = f"{thresholds.randomizations} cannot tell {thresholds.carry_over_lags} lags from chance at 5 %"
    return [Problem("randomizations", text, f"Give at least {least}")]


def _limit(key: str, old: Limit, value: Any) -> Limit | list[Problem]:
    if not isinstance(value, Mapping):
        return [Problem(key, f"{show(value)} is not a pair of limits", "Write {fail: NUMBER, warn: NUMBER}")]
    problems = [
        Problem(f"{key}.{show(name)}", "is not a limit", suggestion(str(name), ("fail", "warn")))
        for name in value
        if name not in ("fail", "warn")
    ]
    problems += [
        Problem(f"{key}.{name}", f"{show(limit)} is not a number", "Give a number, or null for never")
        for name, limit in value.items()
        if name in ("fail", "warn") and limit is not None and not _is_number(limit)
    ]
    if problems:
        return problems
    new = replace(old, **value)
    if new.fail is not None and new.warn is not None and new._is_bad(new.warn, new.fail):
        text = f"fails at {number(new.fail)} before it warns at {number(new.warn)}"
        return [Problem(key, text, f"What is {new.bad} the limit is bad, so fail lies {new.bad} warn")]
    return new


def _setting(key: str, old: float, value: Any) -> Any:
    whole = isinstance(old, int)
    if not _is_number(value) or value <= 0 or (whole and not isinstance(value, int)):
        kind = "whole number" if whole else "number"
        return [Problem(key, f"{show(value)} is not a {kind} above 0", f"The default is {number(old)}")]
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")

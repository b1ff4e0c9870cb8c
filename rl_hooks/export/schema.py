"""dataset.json: what every column means, where the rows came from, what was left out and why."""

from dataclasses import asdict
from typing import Any

from rl_hooks.decision import SERVICES
from rl_hooks.export import align, facts, rewards, split
from rl_hooks.export.dataset import Dataset, RunSteps
from rl_hooks.export.own_rewards import own_rewards
from rl_hooks.histogram import BUCKETS_PER_OCTAVE
from rl_hooks.observation import THRESHOLDS
from rl_hooks.run_reader import Run
from rl_hooks.version import VERSION
from scenario.plan import Plan

SCHEMA_VERSION = 1
MASK_RULE = "A value that was not known is NaN in obs.<name> and next.<name> and False in observation_mask, never zero."
PRIVILEGED = ("phase", "pattern", "intensity", "faults", "user_count")
"""Columns that the load generator knows and a deployed balancer does not; no feature is made of them."""


def dataset_facts(data: Dataset) -> dict[str, Any]:
    """The content of dataset.json, without the list of files."""
    return {
        "schema_version": SCHEMA_VERSION,
        "made_by": {"name": "locust-rl-balancer", "version": VERSION},
        "complete": not any(part.run.losses for part in data.runs),
        "actions": list(data.space.labels),
        "action_space": data.space.to_json(),
        "services": list(SERVICES),
        **_common(data.plan),
        "observation": _observation(data),
        "rewards": _rewards(data),
        "privileged_columns": list(PRIVILEGED),
        "split": _split(data),
        "propensities": _propensities(data),
        "counts": _counts(data),
        "runs": [_run(data, part) for part in data.runs],
    }


def _common(plan: Plan) -> dict[str, Any]:
    """What holds for every run of the data set."""
    spans = align.spans_of(plan)
    names = ("window", "last5", "last1")
    return {
        "decision_interval_s": plan.decision_interval_s,
        "windows_s": {name: length / 1e9 for name, length in zip(names, spans.lengths_ns, strict=True)},
        "reward_weights": dict(plan.scenario.reward_weights),
        "reward_weights_sha256": rewards.weights_sha256(plan.scenario.reward_weights),
        "slo_ms": dict(plan.slo_ms),
    }


def _losses(run: Run) -> list[dict[str, Any]]:
    """What could not be read of a run, with places inside the run folder."""
    return [
        {
            "incarnation": loss.incarnation,
            "table": loss.table,
            "missing_rows": loss.missing_rows,
            "text": loss.text.replace(f"{run.path}/", ""),
            "from": None if loss.from_ns is None else facts.iso_utc(loss.from_ns),
            "to": None if loss.to_ns is None else facts.iso_utc(loss.to_ns),
        }
        for loss in run.losses
    ]


def _observation(data: Dataset) -> dict[str, Any]:
    quantiles: dict[str, Any] = {"method": "exact"}
    if not data.exact_quantiles:
        quantiles = {"method": "log-linear histogram", "buckets_per_octave": BUCKETS_PER_OCTAVE, "error_max": 0.0078}
    return {
        "columns": (
            "obs.<name> at the decision, as it was made with; next.<name> at the end of its interval; "
            "all.<name> at the decision with every row of every worker known; raw units, float32"
        ),
        "features": [
            *(asdict(feature) for feature in data.features[: len(data.features) - len(data.own)]),
            *({**asdict(one.feature), "class": one.reference} for one in data.own),
        ],
        "mask_rule": MASK_RULE,
        "pattern_thresholds": asdict(THRESHOLDS),
        "quantiles": quantiles,
    }


def _rewards(data: Dataset) -> dict[str, Any]:
    own = data.plan.scenario.rewards
    functions = {**rewards.REWARDS, **own_rewards(own)}
    return {
        "cohort": "requests of the service sent in [t, t + dt_s), whenever they end",
        "components": [
            {
                "name": name,
                "unit": "share",
                "low": 0,
                "high": 1,
                "formula": (function.__doc__ or "").split(" Range")[0],
                **({"function": own[name]} if name in own else {}),
            }
            for name, function in functions.items()
        ],
        "reward": "weighted sum; a missing component leaves its weight to the others in proportion",
        "reward_01": "equal to reward, which lies in [0, 1]",
        "filled": "no request ended (reward_filled): the mean reward of the service over train",
        "mean_over_train": dict(data.reward_means),
    }


def _split(data: Dataset) -> dict[str, Any]:
    blocks = data.frame.groupby(["run_id", "block"], sort=False)[["phase", "side"]].first().reset_index()
    return {
        "rule": "whole time blocks with all services; purged behind each border until no request is seen by both sides",
        "validation_share": split.VALIDATION_SHARE,
        "seeds": {part.run_id: part.plan.seed for part in data.runs},
        "blocks": blocks.to_dict("records"),
        "episodes": {name: int((data.episodes["split"] == name).sum()) for name in split.SPLITS},
    }


def _propensities(data: Dataset) -> dict[str, Any]:
    """What is known of the probabilities that actions of train and validation were drawn with."""
    kept = data.frame[~data.rows(split.EXCLUDED)]
    known = kept["propensity"].notna()
    probabilities = kept[[f"prob_{index}" for index in range(data.space.size)]]
    observed = bool(data.frame["observed"].any())
    return {
        "are": "known" if known.all() and (len(kept) or not observed) else "some" if known.any() else "none",
        "steps_with": int(known.sum()),
        "steps_without": int((~known).sum()),
        "whole_distribution": bool(probabilities.notna().to_numpy().all()) and (bool(len(kept)) or not observed),
        "stated_by": "the balancer"
        if data.frame["observed"].all()
        else "several"
        if observed
        else "the logging policy",
        "policies": sorted(str(name) for name in kept["policy_version"].unique()),
    }


def _counts(data: Dataset) -> dict[str, Any]:
    reason = data.frame.loc[data.rows(split.EXCLUDED), "reason"].value_counts()
    return {
        "decisions": sum(len(part.run.decisions) for part in data.runs),
        "transitions": {name: int(data.rows(name).sum()) for name in split.SPLITS},
        "excluded": {
            name: {"rows": int(reason.get(name, 0)), "meaning": meaning} for name, meaning in split.REASONS.items()
        },
        "incomplete": sum(part.incomplete for part in data.runs),
        "without_finished_request": int(data.frame["reward_filled"].sum()),
        "not_applied": sum(facts.not_applied(part.run)["decisions"] for part in data.runs),
        "action_differs": int(data.frame["action_differs"].sum()),
        "requests_unfinished": int(data.frame["n_unfinished"].sum()),
        "rows_lost": sum(facts.rows_lost(part.run) for part in data.runs),
        "action_shares": facts.action_shares(data.frame, data.space),
    }


def _backfill(data: Dataset, part: RunSteps) -> dict[str, Any] | None:
    """Where metrics that a run did not have were fetched after it, and how many steps have some of them."""
    if part.backfill is None:
        return None
    mine = data.frame["run_id"] == part.run_id
    return {
        **part.backfill.facts,
        "samples": len(part.backfill.rows),
        "steps": int(data.frame.loc[mine, "metrics_backfilled"].sum()),
    }


def _run(data: Dataset, part: RunSteps) -> dict[str, Any]:
    run = part.run
    return {
        **facts.provenance(part),
        "steps": int((data.frame["run_id"] == part.run_id).sum()),
        "decisions": len(run.decisions),
        **facts.decision_gaps(run),
        "not_applied": facts.not_applied(run),
        "incomplete": part.incomplete,
        "samples": len(run.samples),
        "backfill": _backfill(data, part),
        "losses": _losses(run),
        "clocks": facts.clocks(run),
        **facts.request_counts(run),
        "sessions_by_outcome": facts.session_counts(run),
        "conversion": facts.conversion(run, part.plan),
        "faults": facts.faults(run),
    }

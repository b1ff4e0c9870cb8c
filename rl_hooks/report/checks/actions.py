"""Which actions were tried, where, and whether their probabilities are what the log says."""

from typing import Any

import numpy as np

from rl_hooks.decision import SERVICES
from rl_hooks.report import stats
from rl_hooks.report.evidence import Floats, Ints
from rl_hooks.report.state import SEED, Case, episode_folds, state_matrix
from rl_hooks.report.verdict import Finding, Verdict, not_applicable, worst

NO_STEPS = "there is no usable step with a measured reward"
NO_PROPENSITIES = "cannot be computed: the balancer decided by itself and stated no propensities"
NO_DISTRIBUTION = "cannot be computed: the balancer stated the probability of the action it took, not of the others"


def propensities_known(case: Case) -> Finding:
    evidence = case.evidence
    rows = evidence.usable
    if len(rows) == 0:
        return not_applicable("there is no usable step")
    known = int(np.isfinite(evidence.propensity[rows]).sum())
    whole = "" if evidence.whole_distribution or not known else ", that of the action taken alone"
    text = {
        "known": f"Every one of {len(rows)} usable steps has its propensity{whole}.",
        "some": f"{known} of {len(rows)} usable steps have their propensity{whole}: estimators refuse the data.",
        "none": f"None of {len(rows)} usable steps has a propensity: the balancer decided by itself and stated none. "
        "What another policy would have earned cannot be estimated.",
    }
    return Finding(
        Verdict.PASS if evidence.propensities == "known" else Verdict.WARN,
        text[evidence.propensities],
        {"are": evidence.propensities, "steps_with": known, "whole_distribution": evidence.whole_distribution},
    )


def action_share(case: Case) -> Finding:
    evidence = case.evidence
    rows = evidence.judged
    if len(rows) == 0:
        return not_applicable(NO_STEPS)
    labels = evidence.labels
    counts, logged = np.zeros((len(SERVICES), len(labels))), np.zeros((len(SERVICES), len(labels)))
    np.add.at(counts, (evidence.service[rows], evidence.action[rows]), 1)
    np.add.at(logged, evidence.service[rows], evidence.probabilities[rows])
    steps = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # A service without steps is no case, and neither is an action that it does not have.
    no_case = (counts.sum(axis=1, keepdims=True) == 0) | ~evidence.columns.mask
    shares, meant_shares = np.where(no_case, 1.0, counts / steps), np.where(no_case, 1.0, logged / steps)
    service, action = np.unravel_index(int(shares.argmin()), shares.shape)
    smallest, limit = float(shares.min()), case.limits.action_share
    rare = [limit.judge(share) is Verdict.FAIL for share in shares.flat]
    if not evidence.whole_distribution:  # what was meant is not known: what is rare counts as meant to be
        meant_shares = shares
    meant = [limit.judge(share) is Verdict.FAIL for share in meant_shares.flat]
    return Finding(
        limit.judge(smallest),
        f"The rarest action is {labels[int(action)]} for {SERVICES[int(service)]}, {smallest:.1%} of its "
        f"{counts[service].sum():.0f} steps.{evidence.columns.told()}",
        {"smallest": smallest, "shares": dict(zip(labels, (counts.sum(axis=0) / counts.sum()).tolist(), strict=True))},
        # The logging policy gave it more: a service that was hardly called has had bad luck.
        too_small=not any(one and other for one, other in zip(rare, meant, strict=True)),
    )


def propensity(case: Case) -> Finding:
    evidence = case.evidence
    rows = evidence.usable
    if len(rows) == 0:
        return not_applicable("there is no usable step")
    if evidence.propensities == "none":
        return not_applicable(NO_PROPENSITIES)
    if not evidence.whole_distribution:
        return _stated_propensity(case)
    p = evidence.probabilities[rows].astype(np.float64)
    logged, action = evidence.propensity[rows], evidence.action[rows]
    invalid = int((~((logged > 0) & (logged <= 1))).sum())
    unequal = int((np.abs(p[np.arange(len(rows)), action] - logged) > 1e-5).sum())
    unsummed = int((np.abs(p.sum(axis=1) - 1) > 1e-4).sum())
    drawn = evidence.draws(rows)
    mean, error, p_value = calibration(evidence.probabilities[drawn].astype(np.float64), evidence.action[drawn])
    corrected = stats.holm(p_value)
    smallest = float(np.nanmin(logged)) if len(logged) > invalid else 0.0
    broken = invalid + unequal + unsummed
    verdict = worst(
        [
            Verdict.FAIL if broken else Verdict.PASS,
            case.limits.propensity_calibration.judge(min(corrected)),
            case.limits.propensity_smallest.judge(smallest),
        ]
    )
    reach = stats.z_of(0.99)
    off = int(np.argmin(p_value))
    text = f"mean of 1(A=a)/p from {mean.min():.3f} to {mean.max():.3f}, smallest propensity {smallest:.3f}."
    if broken:
        counts = (
            f"{invalid} propensities outside (0, 1], {unequal} unlike their distribution, {unsummed} not summing to 1"
        )
        text = f"{counts}; {text}"
    elif min(corrected) < (case.limits.propensity_calibration.fail or 0):
        name = evidence.labels[off]
        text = f"{name} was drawn {mean[off]:.3f} times as often as logged (p {corrected[off]:.2g}); {text}"
    return Finding(
        verdict,
        text[0].upper() + text[1:],
        {
            "smallest": smallest,
            "invalid": invalid,
            "unlike_distribution": unequal,
            "not_summing_to_1": unsummed,
            "actions": {
                name: {
                    "mean": float(mean[index]),
                    "interval_99": [
                        float(mean[index] - reach * error[index]),
                        float(mean[index] + reach * error[index]),
                    ],
                    "p_holm": corrected[index],
                }
                for index, name in enumerate(evidence.labels)
            },
        },
    )


def _stated_propensity(case: Case) -> Finding:
    """What can be said where only the probability of the action taken is known: the means, with the spread that the
    weights show themselves."""
    evidence = case.evidence
    rows = evidence.usable[np.isfinite(evidence.propensity[evidence.usable])]
    p, action = evidence.propensity[rows], evidence.action[rows]
    weights = np.where(action[:, None] == np.arange(len(evidence.labels)), 1 / p[:, None], 0.0)
    tried: Any = (weights > 0).any(axis=0)  # what was never taken may have been impossible, which nobody stated
    mean, error = weights.mean(axis=0), weights.std(axis=0) / len(rows) ** 0.5
    p_value = [
        stats.two_sided_p((one - 1) / reach) if took and reach > 0 else 1.0
        for one, reach, took in zip(mean.tolist(), error.tolist(), tried.tolist(), strict=True)
    ]
    corrected, smallest, limits = stats.holm(p_value), float(p.min()), case.limits
    off = int(np.argmin(p_value))
    verdict = worst([limits.propensity_calibration.judge(min(corrected)), limits.propensity_smallest.judge(smallest)])
    text = (
        f"mean of 1(A=a)/p from {mean[tried].min():.3f} to {mean[tried].max():.3f}, smallest propensity {smallest:.3f}."
    )
    if limits.propensity_calibration.judge(min(corrected)) is Verdict.FAIL:
        name = evidence.labels[off]
        text = f"{name} was taken {mean[off]:.3f} times as often as stated (p {corrected[off]:.2g}); {text}"
    return Finding(
        verdict,
        "As the balancer stated: " + text,
        {
            "smallest": smallest,
            "invalid": int((~((p > 0) & (p <= 1))).sum()),
            "actions": {
                name: {"mean": float(mean[index]), "p_holm": corrected[index]}
                for index, name in enumerate(evidence.labels)
            },
        },
    )


def calibration(p: Floats, action: Ints) -> tuple[Floats, Floats, list[float]]:
    """Per action the mean of 1(A = a) / p(a), its standard error under the log, and the p-value of the mean being 1.

    Over the steps at which the action was possible; the others are the business of `impossible`. Draws are independent
    given the past, so 1(A = a) / p(a) - 1 is a martingale difference with variance (1 - p) / p: no clustering is
    needed (Li, Chen, Kleban & Gupta 2015). An action that was never possible has the mean 1.
    """
    chosen, possible = np.eye(p.shape[1])[action], p > 0
    count = np.maximum(possible.sum(axis=0), 1)
    off = np.divide(chosen - p, p, out=np.zeros_like(p), where=possible).sum(axis=0) / count
    variance = np.divide(1 - p, p, out=np.zeros_like(p), where=possible).sum(axis=0)
    error = np.sqrt(np.maximum(variance, 0)) / count
    p_value = [
        stats.two_sided_p(mean / reach) if reach > 0 else float(abs(mean) < 1e-9)
        for mean, reach in zip(off.tolist(), error.tolist(), strict=True)
    ]
    return off + 1, error, p_value


def impossible(case: Case) -> Finding:
    evidence = case.evidence
    rows = evidence.usable
    if len(rows) == 0:
        return not_applicable("there is no usable step")
    if not evidence.whole_distribution:
        return not_applicable(NO_DISTRIBUTION if evidence.propensities != "none" else NO_PROPENSITIES)
    there = evidence.mask[rows]
    never = ((evidence.probabilities[rows] <= 0) & there).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    worst_action = int(np.argmax(never))
    share = float(never[worst_action])
    text = f"{evidence.labels[worst_action]} had probability 0 at {share:.1%} of the steps."
    return Finding(
        case.limits.impossible.judge(share),
        text if share else "Every action could have been drawn at every step.",
        {"share": share, "actions": dict(zip(evidence.labels, never.tolist(), strict=True))},
    )


def overlap(case: Case) -> Finding:
    if len(case.evidence.judged) == 0:
        return not_applicable(NO_STEPS)
    needed, cells = case.limits.cell_samples, case.cells[case.possible]
    share = float((cells >= needed).mean())
    enlarged = float((cells * _enlargement(case) >= needed).mean())
    return Finding(
        case.limits.overlap.judge(share),
        f"{share:.0%} of {cells.size} cells ({len(case.cells)} state clusters x {len(case.evidence.labels)} actions) "
        f"have {needed} steps or more.",
        {"share": share, "clusters": len(case.cells), "fewest": int(cells.min())},
        too_small=case.limits.overlap.judge(enlarged) is not Verdict.FAIL,
    )


def ess_uniform(case: Case) -> Finding:
    rows = _with_propensity(case)
    if len(rows) == 0:
        return _nothing_to_weigh(case)
    size = stats.effective_size(1 / case.evidence.mask[rows].sum(axis=1) / case.evidence.propensity[rows])
    share = size / len(rows)
    return Finding(
        case.limits.ess_uniform.judge(share),
        f"{len(rows)} logged steps are worth {size:.0f} ({share:.0%}) for judging the uniform policy.",
        {"effective": size, "share": share, "steps": len(rows)},
    )


def ess_constant(case: Case) -> Finding:
    evidence = case.evidence
    rows = _with_propensity(case)
    if len(rows) == 0:
        return _nothing_to_weigh(case)
    weights = 1 / evidence.propensity[rows]
    labels = evidence.labels
    sizes = [stats.effective_size(np.where(evidence.action[rows] == a, weights, 0.0)) for a in range(len(labels))]
    worst_action = int(np.argmin(sizes))
    return Finding(
        case.limits.ess_constant.judge(min(sizes)),
        f'The fewest, {min(sizes):.0f} effective steps, are there for judging "always {labels[worst_action]}".',
        {"smallest": min(sizes), "actions": dict(zip(labels, sizes, strict=True))},
        too_small=case.limits.ess_constant.judge(min(sizes) * _enlargement(case)) is not Verdict.FAIL,
    )


def concentrability(case: Case) -> Finding:
    if len(case.evidence.judged) == 0:
        return not_applicable(NO_STEPS)
    inverse, weight = inverse_shares(case)
    order = np.argsort(inverse)
    reached = np.cumsum(weight[order]) / weight.sum()
    p99 = float(inverse[order][int(np.searchsorted(reached, 0.99))])
    # With a handful of steps per cell, chance alone leaves one empty.
    per_cell = case.cells.sum(axis=1) / case.possible.sum(axis=1)
    thin = _enlargement(case) > 1 and float(per_cell.min()) < 10
    return Finding(
        case.limits.concentrability.judge(p99),
        f"Where an action is rarest it has a share of 1/{p99:.0f} in its state cluster (99th percentile).",
        {"p99": p99, "largest": float(inverse.max())},
        too_small=thin,
    )


def inverse_shares(case: Case) -> tuple[Floats, Floats]:
    """1 / share of every possible cell in its cluster, and how many steps of the uniform policy fall into the cell.

    A cell without a step has less than one of them; half a step is taken.
    """
    cells = case.cells.astype(np.float64)
    size = cells.sum(axis=1, keepdims=True)
    inverse = size / np.maximum(cells, 0.5)
    return inverse[case.possible], np.broadcast_to(size, cells.shape)[case.possible]


def propensity_beaten(case: Case) -> Finding:
    evidence = case.evidence
    rows = evidence.usable
    if not evidence.whole_distribution:
        return not_applicable(NO_DISTRIBUTION if evidence.propensities != "none" else NO_PROPENSITIES)
    folds = episode_folds(evidence, rows)
    if len(np.unique(folds)) < 2:
        return not_applicable("it needs two time blocks to learn on one and ask about the other")
    p = evidence.probabilities[rows].astype(np.float64)
    gain = stats.classifier_gain(state_matrix(evidence, rows), evidence.action[rows], p, folds)
    nats = float(gain.mean())
    # The mean over blocks has an error; a gain within it is none.
    error = float(gain.std() / len(gain) ** 0.5)
    certain = nats - stats.z_of(0.99) * error
    return Finding(
        case.limits.propensity_beaten.judge(nats) if certain > 0 else Verdict.PASS,
        f"A classifier that sees the observation predicts actions better than the log by {nats:+.4f} nats per step.",
        {"nats": nats, "standard_error": error, "seed": SEED},
    )


def action_differs(case: Case) -> Finding:
    steps = case.evidence.steps
    differ = steps["action_differs"].to_numpy(bool)
    share = float(differ.mean()) if len(differ) else 0.0
    not_applied = case.evidence.facts["counts"].get("not_applied") or 0  # bundles of old do not say
    said = f" {not_applied} decisions could not be applied." if not_applied else ""
    return Finding(
        case.limits.action_differs.judge(share),
        f"{int(differ.sum())} of {len(differ)} steps ({share:.2%}) ran under another action than the one drawn, "
        f"or under one that nobody told.{said}",
        {"share": share, "steps": int(differ.sum()), "not_applied": not_applied},
    )


def _nothing_to_weigh(case: Case) -> Finding:
    evidence = case.evidence
    return not_applicable(NO_PROPENSITIES if len(evidence.judged) and evidence.propensities == "none" else NO_STEPS)


def _enlargement(case: Case) -> float:
    """How many times more steps the data would need to be of a size to train on; 1: it is."""
    return max(1.0, (case.limits.transitions.fail or 0) / max(1, len(case.evidence.judged)))


def _with_propensity(case: Case) -> Ints:
    """One judged step per draw: the others of a draw that all services share tell about the same choice."""
    rows = case.evidence.draws(case.evidence.judged)
    p = case.evidence.propensity[rows]
    kept: Ints = rows[(p > 0) & (p <= 1)]
    return kept

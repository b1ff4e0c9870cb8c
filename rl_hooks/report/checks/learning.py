"""Whether there is something to learn: effects of actions, how long they last, how much evidence there is."""

import numpy as np

from rl_hooks.report import stats
from rl_hooks.report.checks.actions import NO_DISTRIBUTION, NO_PROPENSITIES
from rl_hooks.report.evidence import Array, Floats, Ints
from rl_hooks.report.state import SEED, Case, episode_folds, state_matrix
from rl_hooks.report.verdict import Finding, Verdict, not_applicable, worst

SIGNIFICANT = 0.05  # Holm-corrected over the lags
NO_CHOICE = "the logging policy never had a choice, so effects of actions cannot be told"


def action_effect(case: Case) -> Finding:
    evidence = case.evidence
    rows = evidence.judged
    if len(rows) < 2:
        return not_applicable("there are no two usable steps with a measured reward")
    if not evidence.whole_distribution:
        return not_applicable(NO_DISTRIBUTION if evidence.propensities != "none" else NO_PROPENSITIES)
    residual, action = case.residual[rows], evidence.action[rows]
    p = evidence.probabilities[rows].astype(np.float64)
    if _no_choice(p):
        return not_applicable(NO_CHOICE)
    rng = np.random.default_rng([SEED, 1])
    p_value = stats.redraw_p(*by_draw(residual, action, p, evidence.draw[rows]), rng, case.limits.randomizations)
    effects = _effects(residual, action, p)
    labels = evidence.labels
    spread = float(np.nanmax(effects) - np.nanmin(effects))
    best, least = int(np.nanargmax(effects)), int(np.nanargmin(effects))
    verdict = case.limits.action_effect.judge(p_value)
    return Finding(
        verdict,
        f"Rewards differ by up to {spread:.4f} between {labels[best]} and {labels[least]} (p {p_value:.3g}).",
        {
            "p": p_value,
            "spread": spread,
            "effects": {name: _number(value) for name, value in zip(labels, effects.tolist(), strict=True)},
            "randomizations": case.limits.randomizations,
            "seed": SEED,
        },
        too_small=case.limits.transitions.judge(len(evidence.usable)) is Verdict.FAIL,
    )


def by_draw(residual: Floats, action: Ints, p: Floats, draw: Ints) -> tuple[Floats, Ints, Floats]:
    """The same with one row per draw: what all services got together under the action that they shared."""
    _, first, number = np.unique(draw, return_index=True, return_inverse=True)
    return np.bincount(number, residual).astype(np.float64), action[first], p[first]


def carry_over(case: Case) -> Finding:
    if len(case.evidence.usable) and case.evidence.propensities == "none":
        return not_applicable(f"{NO_PROPENSITIES}, so what an action does cannot be told from what led to it")
    if _no_choice(case.evidence.probabilities[case.evidence.usable]):
        return not_applicable(NO_CHOICE)
    longest = min(case.limits.carry_over_lags, int(case.episode_steps // 3))
    if longest < 1:
        return not_applicable("the episodes are shorter than three steps")
    tested = stats.holm(lag_p_values(case, longest))
    if not tested:
        return not_applicable("too few episodes are long enough to look back in them")
    lag = max((number for number, p in enumerate(tested, 1) if p < SIGNIFICANT), default=0)
    limits = case.limits
    share = lag / case.episode_steps
    verdict = worst(
        [
            limits.carry_over_of_episode.judge(share),
            limits.carry_over_steps.judge(lag),
            Verdict.WARN if lag == 0 else Verdict.PASS,
        ]
    )
    reached = " (the last one looked at)" if lag == longest else ""
    text = f"The last lag with an effect is {lag}{reached}; the median episode has {case.episode_steps:.0f} steps."
    return Finding(
        verdict,
        text,
        {"lag_steps": lag, "episode_steps": case.episode_steps, "p_holm_by_lag": tested, "lags_tested": longest},
    )


def lag_p_values(case: Case, longest: int) -> list[float]:
    """p-values that the action 1, 2, ... `longest` steps ago has no effect beside those of all the other lags.

    Reward on the actions of all lags together, so that a policy which repeats itself does not pass the effect of the
    last action on to the one before; clustered by episode (sign flips of whole episodes). Empty with too few episodes.
    """
    evidence = case.evidence
    usable = evidence.usable
    actions = len(evidence.labels)
    episode, chosen = evidence.episode[usable], np.eye(actions)[evidence.action[usable]]
    inside = np.zeros(len(usable), bool)
    inside[longest:] = episode[longest:] == episode[:-longest]
    measured = ~evidence.steps["reward_filled"].to_numpy(bool)[usable]
    rows = np.flatnonzero(inside & measured)
    clusters = np.unique(evidence.cluster[usable[rows]])
    if len(clusters) < actions or len(rows) < 2 * actions * (longest + 1):
        return []
    lagged = [chosen[rows - lag][:, 1:] for lag in range(longest + 1)]
    design = np.column_stack([_centred(block, episode[rows]) for block in lagged])
    reward = _centred(evidence.reward[usable[rows]][:, None], episode[rows])[:, 0]
    inverse = np.linalg.pinv(design.T @ design).astype(np.float64)
    rng = np.random.default_rng([SEED, 2])
    width = actions - 1
    number = np.unique(evidence.cluster[usable[rows]], return_inverse=True)[1]
    found = []
    for lag in range(1, longest + 1):
        scores = _lag_scores(design, reward, inverse, slice(lag * width, (lag + 1) * width))
        totals = np.column_stack([np.bincount(number, scores[:, column]) for column in range(width)])
        found.append(stats.sign_flip_p(totals.astype(np.float64), rng, case.limits.randomizations))
    return found


def _lag_scores(design: Floats, reward: Floats, inverse: Floats, mine: slice) -> Floats:
    """(n, actions - 1) scores of the columns `mine` beside all others, had they no effect (Frisch-Waugh-Lovell)."""
    beta = inverse @ (design.T @ reward)
    alone = design @ inverse[:, mine] @ np.linalg.pinv(inverse[mine, mine])  # what the others do not explain of them
    residual = reward - design @ beta + alone @ beta[mine]
    scores: Floats = alone * residual[:, None]
    return scores


def _centred(values: Floats, episode: Ints) -> Floats:
    number = np.unique(episode, return_inverse=True)[1]
    count = np.bincount(number)
    means = np.column_stack([np.bincount(number, values[:, index]) / count for index in range(values.shape[1])])
    result: Floats = values - means[number]
    return result


def transitions(case: Case) -> Finding:
    rows = len(case.evidence.usable)
    return _size(case.limits.transitions.judge(rows), f"{rows} transitions train or validate.", rows)


def episodes(case: Case) -> Finding:
    number = len(np.unique(case.evidence.episode[case.evidence.usable]))
    return _size(case.limits.episodes.judge(number), f"{number} episodes train or validate.", number)


def effective_rewards(case: Case) -> Finding:
    evidence = case.evidence
    rows = evidence.judged
    total = 0.0
    for service in np.unique(evidence.service[rows]):
        mine = rows[evidence.service[rows] == service]
        total += stats.effective_count(evidence.reward[mine], np.unique(evidence.episode[mine], return_inverse=True)[1])
    text = f"{len(rows)} measured rewards are worth {total:.0f} independent ones."
    return _size(case.limits.effective_rewards.judge(total), text, total)


def _size(verdict: Verdict, text: str, count: float) -> Finding:
    return Finding(verdict, text, {"count": count}, too_small=True)


def markov(case: Case) -> Finding:
    evidence = case.evidence
    usable = evidence.usable
    follows = np.zeros(len(usable), bool)
    follows[1:] = evidence.episode[usable[1:]] == evidence.episode[usable[:-1]]
    measured = ~evidence.steps["reward_filled"].to_numpy(bool)[usable]
    here = np.flatnonzero(follows & measured)
    rows, before = usable[here], usable[here - 1]
    folds = episode_folds(evidence, rows)
    if len(np.unique(folds)) < 2:
        return not_applicable("it needs two time blocks to learn on one and ask about the other")
    chosen = np.eye(len(evidence.labels))
    now = np.column_stack((state_matrix(evidence, rows), chosen[evidence.action[rows]]))
    past = (state_matrix(evidence, before), chosen[evidence.action[before]], case.residual[before])
    reward = evidence.reward[rows]
    without = stats.r_squared(reward, stats.ridge_predictions(now, reward, folds))
    more = stats.r_squared(reward, stats.ridge_predictions(np.column_stack((now, *past)), reward, folds))
    gain = more - without
    return Finding(
        case.limits.markov.judge(gain),
        f"The step before adds {gain:+.3f} to an R2 of {without:.3f} in predicting the next reward.",
        {"gain": gain, "r2": without, "r2_with_one_more_lag": more},
    )


def stationarity(case: Case) -> Finding:
    """The distance is the mean over services: one service's chance does not decide, one service's drift is diluted."""
    distances = drift(case)
    if not distances:
        return not_applicable(f"no phase has {case.limits.drift_steps} steps of a service in a third, outside its ramp")
    (phase, feature), furthest = max(distances.items(), key=lambda item: item[1])
    limit = case.limits.stationarity.warn
    far = {f"{a}: {b}": value for (a, b), value in distances.items() if limit is not None and value > limit}
    return Finding(
        case.limits.stationarity.judge(furthest),
        f"Furthest from its start is {feature} in {phase}, KS distance {furthest:.2f}; {len(far)} of {len(distances)} "
        "features of a phase are beyond the limit.",
        {"largest": furthest, "beyond": far, "compared": len(distances)},
    )


def drift(case: Case) -> dict[tuple[str, str], float]:
    """(phase, feature) -> KS distance of first to last third of the phase, mean over runs and services."""
    evidence, least = case.evidence, case.limits.drift_steps
    steps = evidence.steps
    chosen = np.flatnonzero((steps["pattern"] == "steady").to_numpy() & (steps["split"] != "excluded").to_numpy())
    policy_made = ("one-hot", "intervals")  # classes, and how long an action has been held
    measured = [index for index, feature in enumerate(evidence.features) if feature["unit"] not in policy_made]
    found: dict[tuple[str, str], list[float]] = {}
    groups = steps.iloc[chosen].groupby(["run_id", "phase", "service"], sort=False, observed=True).indices
    for (_, phase, _), places in groups.items():
        rows = chosen[places]
        t_s = steps["t_s"].to_numpy()[rows]
        third = (t_s.max() - t_s.min()) / 3
        parts = rows[t_s <= t_s.min() + third], rows[t_s >= t_s.max() - third]
        for index in measured:
            first, last = (
                values[~np.isnan(values)] for values in (evidence.observation[part, index] for part in parts)
            )
            if min(len(first), len(last)) >= least:
                name = str(evidence.features[index]["name"])
                found.setdefault((str(phase), name), []).append(stats.ks_distance(first, last))
    return {key: float(np.mean(values)) for key, values in found.items()}


def _no_choice(p: Array) -> bool:
    stated = p[np.isfinite(p).any(axis=1)]
    return bool((np.nanmax(stated, axis=1) > 1 - 1e-6).all())


def _effects(residual: Floats, action: Ints, p: Floats) -> Floats:
    """Self-normalized mean of the residual under each action; NaN for one never taken."""
    weight = 1 / np.maximum(p[np.arange(len(action)), action], 1e-9)
    actions = p.shape[1]
    total = np.bincount(action, weight, actions)
    effects: Floats = np.divide(
        np.bincount(action, weight * residual, actions), total, out=np.full(actions, np.nan), where=total > 0
    )
    return effects


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None

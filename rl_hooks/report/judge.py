"""The table of checks, in the order in which a person reads them, and the report card that they make."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rl_hooks.report.checks import actions, consistency, fidelity, learning, recording
from rl_hooks.report.evidence import Evidence
from rl_hooks.report.state import Case
from rl_hooks.report.thresholds import Limit, Thresholds
from rl_hooks.report.verdict import Check, Finding, Overall, Verdict, overall

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Kind:
    """One check: what it is called, what it means and what to do, which limits it has, and who does it."""

    name: str
    title: str
    meaning: str
    limits: tuple[str, ...]
    check: Callable[[Case], Finding]
    exact: str = ""  # what fails without a limit
    coverage: bool = False


_PAIR_DO = "Where one is missing, nothing can be learnt about it: record longer, or look for what kept it away."
_RATE_DO = "Outside, the traffic is not the scenario's: look for refused or failing shoppers in the results file."

KINDS: tuple[Kind, ...] = (
    Kind(
        "rows_lost",
        "Rows lost or unaccounted",
        "Every row that was written has to be there. Lost rows are gaps in observations and rewards: record again.",
        ("rows_lost", "requests_unfinished"),
        recording.rows_lost,
        "fail on any damage",
    ),
    Kind(
        "pairs_service_phase",
        "Every service in every phase",
        f"Each pair needs steps with a measured reward. {_PAIR_DO}",
        ("pair_count",),
        recording.pairs_service_phase,
    ),
    Kind(
        "pairs_phase_profile",
        "Every planned profile in every phase",
        f"Each pair needs sessions. {_PAIR_DO}",
        ("pair_count",),
        recording.pairs_phase_profile,
    ),
    Kind(
        "pairs_service_action",
        "Every action for every service",
        f"Each pair needs steps with a measured reward. {_PAIR_DO}",
        ("pair_count",),
        recording.pairs_service_action,
        coverage=True,
    ),
    Kind(
        "pairs_phase_action",
        "Every action in every phase",
        f"Each pair needs steps with a measured reward. {_PAIR_DO}",
        ("pair_count",),
        recording.pairs_phase_action,
        coverage=True,
    ),
    Kind(
        "transitions_hold",
        "Steps follow from each other",
        "The next observation is the following row's, an episode has one end, components add up to the reward. "
        "A breach is a fault of the exporter or a changed file: export again.",
        (),
        consistency.transitions_hold,
        "fail on any violation",
    ),
    Kind(
        "leakage",
        "Nothing is in both splits",
        "What train and validation share makes validation look better than it is: export again, do not split by rows.",
        (),
        consistency.leakage,
        "fail on any",
    ),
    Kind(
        "reward",
        "Rewards are sound",
        "A reward that never changes teaches nothing: raise the load, or change the SLOs so that they can be missed.",
        ("reward_one_value",),
        consistency.reward,
        "fail when constant, not a number or outside 0 to 1",
    ),
    Kind(
        "missing_telemetry",
        "Telemetry is there",
        "The share of the instances' measurements that observations lack, of those that the source ever gave; a "
        "warning names the others. Look at the metrics source and its interval.",
        ("missing_telemetry",),
        recording.missing_telemetry,
    ),
    Kind(
        "dead_features",
        "Features are alive",
        "Measurements that never change or stand still tell a learner nothing, and a deployed policy lies: look at "
        "their source. It fails when most of what the clients or the balancer measure is dead.",
        ("dead_features",),
        consistency.dead_features,
    ),
    Kind(
        "action_differs",
        "Requested action was applied",
        "Such steps are excluded. Many of them mean that the balancer does not obey: look at its actuator or headers.",
        ("action_differs",),
        actions.action_differs,
    ),
    Kind(
        "action_share",
        "Every action is tried",
        "The smallest share of an action in the steps of a service. Log with a policy that explores more.",
        ("action_share",),
        actions.action_share,
        coverage=True,
    ),
    Kind(
        "propensities_known",
        "Propensities are known",
        "The probability that each action was drawn with. Without it data serves offline RL and imitation, and no "
        "estimate of another policy: let the balancer state X-LB-Propensity, or record with a logging policy.",
        (),
        actions.propensities_known,
        "warn where one is not",
    ),
    Kind(
        "propensity",
        "Propensities are true",
        "Importance weights 1(A=a)/p have mean 1 when propensities are true (99 % interval, Holm-corrected over "
        "actions). Otherwise every off-policy estimate is wrong: find out who else chose actions.",
        ("propensity_calibration", "propensity_smallest"),
        actions.propensity,
        "fail when one is outside (0, 1] or unlike its distribution",
    ),
    Kind(
        "impossible",
        "Every action can be drawn at every step",
        "What had probability 0 cannot be weighted up: the mean of 1(A=a)/p falls below 1. Holding an action for some "
        "intervals does this; a sticky policy keeps actions without it.",
        ("impossible",),
        actions.impossible,
        coverage=True,
    ),
    Kind(
        "propensity_beaten",
        "Nothing unlogged chose the actions",
        "A cross-fitted classifier that sees the observation must not explain the actions better than the log does "
        "(counted when beyond its 99 % error). Otherwise something chose that was not logged.",
        ("propensity_beaten",),
        actions.propensity_beaten,
    ),
    Kind(
        "overlap",
        "Actions are tried in every state",
        "State clusters (k-means on observations) x actions with enough steps. Marginal shares are blind to this. "
        "Log with a policy that explores everywhere.",
        ("overlap",),
        actions.overlap,
        coverage=True,
    ),
    Kind(
        "ess_uniform",
        "Effective sample size, uniform policy",
        "Kish's (sum w)^2 / sum w^2 of the importance weights. Small: few steps carry all the weight.",
        ("ess_uniform",),
        actions.ess_uniform,
        coverage=True,
    ),
    Kind(
        "ess_constant",
        "Effective sample size, constant policies",
        'How many steps there are to judge "always this action", the simplest alternative. Record more.',
        ("ess_constant",),
        actions.ess_constant,
        coverage=True,
    ),
    Kind(
        "concentrability",
        "No action is rare where it may be wanted",
        "99th percentile of 1 / share of an action in its state cluster: how far a learnt policy can leave the data.",
        ("concentrability",),
        actions.concentrability,
        coverage=True,
    ),
    Kind(
        "action_effect",
        "Actions matter",
        "Randomization test of the action's effect on its own reward: actions are drawn again from the logged "
        "probabilities. No effect: the load is too low for routing to matter. Raise users or inject faults.",
        ("action_effect",),
        learning.action_effect,
    ),
    Kind(
        "carry_over",
        "Actions last, but not too long",
        "The last lag at which an action still has an effect beside all others (clustered by episode). 0: a bandit is "
        "enough, or intervals are long. Many: intervals are short. Beyond a fifth of an episode: longer episodes.",
        ("carry_over_of_episode", "carry_over_steps"),
        learning.carry_over,
        "warn at 0",
    ),
    Kind(
        "transitions",
        "Transitions",
        "Below, offline RL gains nothing over the best fixed action: record more.",
        ("transitions",),
        learning.transitions,
    ),
    Kind(
        "episodes",
        "Episodes",
        "Intervals and splits are by episode; a few of them tell nothing: record more.",
        ("episodes",),
        learning.episodes,
    ),
    Kind(
        "effective_rewards",
        "Effective number of rewards",
        "Neighbouring rewards resemble each other; this many independent ones are worth as much. Record longer.",
        ("effective_rewards",),
        learning.effective_rewards,
    ),
    Kind(
        "markov",
        "Observations are enough",
        "If the step before still helps to predict the next reward, the observation lacks something: stack two.",
        ("markov",),
        learning.markov,
    ),
    Kind(
        "stationarity",
        "Phases are steady",
        "Features of the first and the last third of a phase, outside its ramp (mean over services). Far apart: the "
        "system was still on its way, or something changed that the observation does not hold.",
        ("stationarity",),
        learning.stationarity,
    ),
    Kind(
        "users",
        "Users are on plan",
        "Counted against planned users, in total and per profile, outside ramps. Off: the generator could not keep up. "
        "One user off never fails.",
        ("users_off",),
        fidelity.users,
    ),
    Kind(
        "profile_mix",
        "Profile mix is on plan",
        f"Mean users per phase and profile. {_RATE_DO}",
        ("traffic_rates",),
        fidelity.profile_mix,
    ),
    Kind(
        "conversion",
        "Conversion is on plan",
        f"Sessions with a paid order, per profile. {_RATE_DO}",
        ("traffic_rates",),
        fidelity.conversion,
    ),
    Kind(
        "abandonment",
        "Cart abandonment is on plan",
        f"Carts without an order, per profile. {_RATE_DO}",
        ("traffic_rates",),
        fidelity.abandonment,
    ),
    Kind(
        "generator",
        "Load generator kept up",
        "A saturated generator measures itself: use workers, fewer users, or another machine.",
        ("generator_cpu", "generator_lag"),
        recording.generator,
    ),
    Kind(
        "clock",
        "Clocks agree",
        "Requests are assigned to decisions by time: synchronize the clocks, or run on one machine.",
        ("clock_uncertainty",),
        recording.clock,
    ),
    Kind(
        "recovery",
        "Services recover after faults",
        "Time until p95 and error rate are back within what they were before the fault; late: not in the phase in "
        "which it was lifted, with no more users. A fault that could not be applied counts too: look at the injector.",
        ("recovery_left",),
        fidelity.recovery,
    ),
)


@dataclass(frozen=True)
class ReportCard:
    """All checks of one set of data, and the verdict."""

    case: Case
    checks: tuple[Check, ...]
    overall: Overall

    def to_json(self) -> dict[str, Any]:
        """The content of report_card.json."""
        return {
            "schema_version": SCHEMA_VERSION,
            "verdict": str(self.overall.fitness),
            "exit_code": self.overall.exit_code,
            "decided_by": list(self.overall.decided_by),
            "sentence": self.overall.sentence,
            "runs": [str(run["run_id"]) for run in self.case.evidence.facts["runs"]],
            "checks": [_check_json(check) for check in self.checks],
        }


def judge(evidence: Evidence, limits: Thresholds) -> ReportCard:
    """Every check on `evidence`, and the verdict."""
    case = Case(evidence, limits)
    checks = tuple(
        Check(kind.name, kind.title, threshold(kind, limits), kind.meaning, kind.coverage, kind.check(case))
        for kind in KINDS
    )
    return ReportCard(case, checks, overall(checks))


def threshold(kind: Kind, limits: Thresholds) -> str:
    """The limits of a check in words."""
    named: Sequence[Limit] = [getattr(limits, name) for name in kind.limits]
    return "; ".join(text for text in (kind.exact, *(limit.describe() for limit in named)) if text)


def _check_json(check: Check) -> dict[str, Any]:
    finding = check.finding
    return {
        "name": check.name,
        "title": check.title,
        "verdict": str(finding.verdict),
        "found": finding.found,
        "numbers": dict(finding.numbers),
        "threshold": check.threshold,
        "meaning": check.meaning,
        "by_size_alone": finding.verdict is Verdict.FAIL and finding.too_small,
    }

"""`python -m sandbox.virtual.compare POLICY POLICY ...`: which policy earns more, over many seeds.

Every policy decides for all services in the same worlds: a seed fixes shoppers and weather, so differences are paired
by seed. Printed are mean rewards per decision, judged as the exporter judges them, and the difference to the first
policy with its 95 % interval over the seeds (Student's t, 2.0 standard errors at 60 seeds, wider for fewer).
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from rl_hooks.parts import PartError, find_rewards
from rl_hooks.policies.builtin import LoggingPolicy, PolicyError
from rl_hooks.policies.named import check_fit, make_policy
from sandbox.virtual.simulation import Conditions
from sandbox.virtual.stepped import Steered, SteppedRun
from scenario.errors import ScenarioError
from scenario.load import find_file, load_file
from scenario.model import Scenario
from scenario.plan import make_plan

T_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Quantile 0.975 of Student's t for 1 to 9 degrees of freedom; from there on 2.26 is on the safe side."""


def mean_reward(
    scenario: Scenario, policy: LoggingPolicy, seed: int, conditions: Conditions, options: argparse.Namespace
) -> float:
    """Of all decisions of all services of one run that sent a request and whose requests have all ended."""
    plan = make_plan(scenario, seed, options.time_scale, options.user_scale, faults=not options.no_faults)
    run = SteppedRun(plan, conditions, Steered(policy))
    rewards: list[float] = []
    while not run.over:
        run.advance({})
        rewards += run.settle()
    return float(np.mean(rewards))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: compared; 2: nothing was begun."""
    options = _parser().parse_args(arguments)
    try:
        policies = [make_policy(text) for text in options.policies]
        scenario = load_file(find_file(options.scenario_file)).scenario(options.scenario)
        find_rewards(scenario.rewards)
        plan = make_plan(scenario, options.seed, options.time_scale, options.user_scale)
        for policy in policies:
            check_fit(policy, plan.window_s, plan.decision_interval_s)
    except (ScenarioError, PartError, PolicyError) as error:
        print(f"sandbox.virtual.compare: {error}", file=sys.stderr)
        return 2
    seeds = range(options.seed, options.seed + max(2, options.seeds))
    conditions = Conditions(options.healthy, options.utilization)
    table = np.array(
        [[mean_reward(scenario, policy, seed, conditions, options) for seed in seeds] for policy in policies]
    )
    print(f"{scenario.name}, seeds {seeds[0]} to {seeds[-1]}: mean reward per decision, and against the first policy")
    for policy, rewards in zip(policies, table, strict=True):
        differences = rewards - table[0]
        half_width = float(differences.std(ddof=1)) / len(seeds) ** 0.5 * T_95[min(len(seeds) - 2, len(T_95) - 1)]
        print(f"{policy.describe():<28} {rewards.mean():.4f}  {differences.mean():+.4f} +- {half_width:.4f}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox.virtual.compare", description=__doc__)
    parser.add_argument("policies", metavar="POLICY", nargs="+", help="as --policy of python -m sandbox.virtual")
    parser.add_argument("--scenario-file", default="comprehensive_rl_training_config.yaml", metavar="FILE")
    parser.add_argument("--scenario", metavar="NAME")
    parser.add_argument("--seed", type=int, default=1, help="the first one (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="at least 2 (default: %(default)s)")
    parser.add_argument("--time-scale", type=float, default=1.0)
    parser.add_argument("--user-scale", type=float, default=1.0)
    parser.add_argument("--no-faults", action="store_true")
    parser.add_argument("--healthy", action="store_true")
    parser.add_argument("--utilization", type=float, metavar="U")
    return parser


if __name__ == "__main__":
    sys.exit(main())

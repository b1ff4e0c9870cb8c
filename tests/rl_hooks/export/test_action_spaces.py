"""Bundles and report cards of runs with other actions than the six strategies."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from rl_hooks.action_space import ActionSpace, instances, strategies
from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from rl_hooks.export.errors import ExportError
from rl_hooks.export.formats import bandit
from rl_hooks.export.formats.source import read_bundle
from rl_hooks.export.verify.coverage import coverage_lines
from rl_hooks.export.verify.line import Verdict as Met
from rl_hooks.report import stats
from rl_hooks.report.checks.learning import by_draw
from rl_hooks.report.evidence import from_dataset
from rl_hooks.report.judge import judge
from rl_hooks.report.thresholds import Thresholds
from rl_hooks.report.verdict import Verdict
from rl_hooks.run_reader import Run
from scenario.plan import Plan
from tests import builders
from tests.builders import run_in
from tests.rl_hooks.report import made

LIMITS = Thresholds(randomizations=99)
FOUR = strategies(["circuit_breaker", "backpressure"])
NAMES = {service: [f"{service}-{number}" for number in (1, 2, 3)] for service in SERVICES}
PODS = instances({**NAMES, "cart-service": NAMES["cart-service"][:2]})
"""Three instances of each service, of the cart two."""
SWITCH = strategies(["backpressure"], one_for_all=True)
SPACES = pytest.mark.parametrize("space", [FOUR, PODS], ids=["strategies", "instances"])


def written(run: Run, out: Path) -> Path:
    write_bundle(assemble([run]), out)
    return out


def transitions(bundle: Path) -> pd.DataFrame:
    return pd.concat(
        [
            pd.read_parquet(path)
            for path in sorted((bundle / "data").glob("*/*.parquet"))
            if "req" not in path.name and "samples" not in path.name
        ],
        ignore_index=True,
    )


@SPACES
def test_every_step_says_which_actions_there_were_and_what_each_had(tmp_path: Path, space: ActionSpace) -> None:
    steps = transitions(written(run_in(space), tmp_path / "bundle"))
    assert len(steps) > 100
    for service, mine in steps.groupby("service"):
        index = SERVICES.index(str(service))
        there = np.array(space.available(index))
        assert (np.stack(mine["action_mask"].to_list()) == there).all()
        probabilities = np.stack(mine["action_probs"].to_list())
        assert probabilities.shape[1] == space.size
        assert np.allclose(probabilities, there / there.sum())
        assert list(mine["action_name"]) == [space.names[index][number] for number in mine["action"]]
        assert not mine["action_differs"].any()


@SPACES
def test_dataset_json_and_formats_follow_the_space(tmp_path: Path, space: ActionSpace) -> None:
    bundle = read_bundle(written(run_in(space), tmp_path / "bundle"))
    assert ActionSpace.of(bundle.facts) == space
    assert bundle.actions == space.labels
    assert len(bundle.encoding.features) == len(bundle.facts["observation"]["features"])
    rounds = bandit.feedback(bundle.parts["train"], len(bundle.actions))
    assert rounds["n_actions"] == space.size
    assert rounds["pi_b"].shape[1] == space.size
    shares = bundle.facts["counts"]["action_shares"]
    assert set(shares) == {name for service in range(5) for name in space.choices(service).there}


@SPACES
def test_the_report_card_counts_what_exists(space: ActionSpace) -> None:
    source = made.made_run(8.0)
    evidence = from_dataset(assemble([run_in(space, source)]))
    checks = {check.name: check.finding for check in judge(evidence, LIMITS).checks}
    for name in ("pairs_service_action", "pairs_phase_action", "impossible", "action_share", "propensity"):
        assert checks[name].verdict is Verdict.PASS, (name, checks[name].found)
    assert checks["ess_uniform"].numbers["share"] == pytest.approx(1)
    there = {name for service in range(5) for name in space.choices(service).there}
    assert set(checks["ess_constant"].numbers["actions"]) == there
    assert set(checks["action_share"].numbers["shares"]) == there
    told = "Not in this balancer: circuit_breaker, backpressure." in checks["action_share"].found
    assert told == (space is FOUR)


def test_a_strategy_that_exists_and_was_never_tried_is_still_missing() -> None:
    source = made.made_run(2.0)
    run = run_in(FOUR, source)
    tried = replace(run, decisions=run.decisions[run.decisions["action"] != ACTIONS.index("round_robin")])
    checks = {check.name: check.finding for check in judge(from_dataset(assemble([tried])), LIMITS).checks}
    assert checks["pairs_service_action"].verdict is Verdict.FAIL
    assert "(user-service, round_robin)" in checks["pairs_service_action"].found


def test_what_all_services_share_is_one_draw_to_the_report_card() -> None:
    """As many draws as intervals: intervals around shares are wider than five times as many draws would give."""
    source = made.made_run(8.0)
    shared = from_dataset(assemble([run_in(SWITCH, source)]))
    ticks = len(
        set(zip(shared.steps["run_id"][shared.judged], shared.steps["decision_tick"][shared.judged], strict=True))
    )
    assert len(shared.draws(shared.judged)) == ticks < len(shared.judged) / 2
    checks = {check.name: check.finding for check in judge(shared, LIMITS).checks}
    assert checks["propensity"].verdict is not Verdict.FAIL
    assert sum(checks["ess_constant"].numbers["actions"].values()) <= ticks
    apart = from_dataset(assemble([run_in(strategies(["backpressure"]), source)]))
    assert len(apart.draws(apart.judged)) == len(apart.judged)


def test_a_shock_that_all_services_share_is_no_effect_of_the_action_they_share() -> None:
    """Of 200 runs without an effect about 5 % may find one; with every service's row on its own half of them do."""
    rng, found, rows_found = np.random.default_rng(4), 0, 0
    p = np.full((300, 6), 1 / 6)
    for _ in range(200):
        tick = np.repeat(np.arange(60), 5)
        action, residual = rng.integers(0, 6, 60)[tick], rng.normal(size=60)[tick] + 0.1 * rng.normal(size=300)
        found += stats.redraw_p(*by_draw(residual, action, p, tick), rng, 99) <= 0.05
        rows_found += stats.redraw_p(residual, action, p, rng, 99) <= 0.05
    assert found <= 22
    assert rows_found > 60


@SPACES
def test_the_table_of_plan_and_run_asks_for_what_exists(space: ActionSpace) -> None:
    run = run_in(space)
    lines = {line.what: line for line in coverage_lines(run, Plan.from_json(run.manifest["plan"]))}
    assert lines["actions"].verdict is Met.MET
    assert lines["service x action"].planned == str(sum(sum(space.available(number)) for number in range(5)))


def test_runs_with_other_actions_do_not_go_into_one_bundle() -> None:
    one, other = run_in(FOUR), builders.random_run(run_id="other")
    with pytest.raises(
        ExportError, match=r"they differ in actions \(all strategies and actions: least_loaded, .*backpressure\)"
    ):
        assemble([one, other])


# -- pinned instances -------------------------------------------------------------------------------------------------


def served_elsewhere(run: Run, service: str, name: str, tick: int, share: float = 1.0) -> Run:
    """Some of the requests that a service was sent in an interval, served by another instance than the pinned one."""
    sent = run.requests.copy()
    mine = np.flatnonzero((sent["service"] == SERVICES.index(service)) & (sent["decision_tick"] == tick))
    sent["instance_ref"][mine[: round(share * len(mine))]] = run.names["instance"].index(name)
    return replace(run, requests=sent)


def step_of(run: Run, service: str, tick: int) -> pd.Series:
    frame = assemble([run]).frame
    return frame[(frame["service"] == service) & (frame["decision_tick"] == tick)].iloc[0]


def test_the_applied_action_is_the_instance_that_served() -> None:
    run = run_in(PODS, builders.random_run(count=9000))
    decided = run.decisions[(run.decisions["tick"] == 40) & (run.decisions["service"] == 1)][0]
    other = (int(decided["action"]) + 1) % 3
    step = step_of(
        served_elsewhere(run, "inventory-service", f"inventory-service-{other + 1}", 40), "inventory-service", 40
    )
    assert (step["action"], step["action_requested"]) == (other, decided["action"])
    assert step["action_name"] == f"inventory-service-{other + 1}"
    assert step["action_differs"]
    assert np.isnan(step["propensity"])
    assert step["reason"] == "action_differs"
    few = step_of(
        served_elsewhere(run, "inventory-service", f"inventory-service-{other + 1}", 40, 0.2), "inventory-service", 40
    )
    assert not few["action_differs"]
    assert 0.5 < few["applied_share"] < 1


def test_an_instance_that_was_not_there_before_the_run_is_no_action_and_the_step_is_marked() -> None:
    run = run_in(PODS, builders.random_run(count=9000))
    step = step_of(served_elsewhere(run, "cart-service", "cart-service-3", 30), "cart-service", 30)
    assert step["action_differs"]
    assert step["action"] == step["action_requested"]
    assert step["applied_share"] == 0


def test_requests_name_the_instance_that_was_asked_for_and_the_one_that_served(tmp_path: Path) -> None:
    bundle = written(run_in(PODS), tmp_path / "bundle")
    requests = pq.read_table(bundle / "data" / "requests" / "requests.parquet").to_pandas()
    served = requests["instance"].notna()
    assert (requests["action_applied"].astype(str)[served] == requests["instance"].astype(str)[served]).all()
    inside = served & requests["decision_tick_sent"].notna()
    asked = requests["action_requested"].astype(str)[inside]
    assert (asked.str.rsplit("-", n=1).str[0] == requests["service"].astype(str)[inside]).all()

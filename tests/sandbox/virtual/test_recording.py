"""A run folder of virtual time is one that the exporter and the report card read, the same for the same seed."""

import json
from pathlib import Path

import numpy as np
import pytest

from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.export.align import plan_start_ns
from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from rl_hooks.export.replay import replay
from rl_hooks.export.verify.__main__ import main as verify
from rl_hooks.report.__main__ import main as report
from rl_hooks.run_reader import Run, read_run
from sandbox.virtual.recording import Totals, start_unix_ns
from sandbox.virtual.simulation import Conditions
from scenario.model import Fault
from scenario.plan import Plan
from tests.sandbox.virtual import runs

SLOW_CART = Fault("cart-service", "latency", 5.0, ("cart-service-1",), 0.5, 1.0)


@pytest.fixture(scope="module")
def totals(tmp_path_factory: pytest.TempPathFactory) -> Totals:
    return runs.run(tmp_path_factory.mktemp("virtual") / "one", faults=(SLOW_CART,))


@pytest.fixture(scope="module")
def recorded(totals: Totals) -> Run:
    return read_run(totals.folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_seed_gives_the_same_run_folder_to_the_byte(totals: Totals, tmp_path: Path) -> None:
    runs.run(tmp_path / "one", faults=(SLOW_CART,))
    one, other = contents(totals.folder), contents(tmp_path / "one")
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


def test_another_seed_gives_another_run(totals: Totals, tmp_path: Path) -> None:
    runs.run(tmp_path / "two", seed=2, faults=(SLOW_CART,))
    one, two = read_run(totals.folder), read_run(tmp_path / "two")
    assert len(one.requests) != len(two.requests) or (one.requests["duration_us"] != two.requests["duration_us"]).any()
    assert two.manifest["started_unix_ns"] - one.manifest["started_unix_ns"] == 86_400 * 10**9


def test_everything_is_there_and_it_says_that_it_is_virtual(totals: Totals, recorded: Run) -> None:
    assert recorded.losses == ()
    assert recorded.manifest["virtual"] is True
    assert recorded.manifest["state"] == "complete"
    assert recorded.manifest["started_unix_ns"] == start_unix_ns(1) == plan_start_ns(recorded)
    assert len(recorded.in_flight) == 0
    assert (len(recorded.requests), len(recorded.sessions)) == (totals.requests, totals.sessions)
    assert len(recorded.decisions) == totals.decisions == 120 * 5
    assert set(np.unique(recorded.decisions["action"])) == set(range(len(ACTIONS)))
    assert totals.failed == (recorded.requests["ok"] == 0).sum()


def test_every_request_was_sent_under_its_decision_and_served_as_asked(recorded: Run) -> None:
    requests = recorded.requests
    assert (requests["action_applied"] == requests["action_requested"]).all()
    chosen = {(d["tick"], d["service"]): (d["action"], d["t_ns"]) for d in recorded.decisions}
    interval_ns = 2 * 10**9
    for row in requests:
        action, t_ns = chosen[row["decision_tick"], row["service"]]
        assert row["action_requested"] == action
        if row["decision_tick"] < 119:  # the last decision holds until everybody has left
            assert t_ns <= row["start_ns"] < t_ns + interval_ns


def test_rows_tell_what_the_balancer_did(recorded: Run) -> None:
    """Of an answered request: time in the queue, within that at the instance, within that with the network's 2 ms."""
    rows = recorded.requests[recorded.requests["ok"] == 1]
    assert (rows["queue_us"] <= rows["upstream_us"]).all()
    assert (rows["queue_us"] > 0).any() and (rows["queue_us"] == 0).any()
    once = rows["action_applied"] != ACTIONS.index("circuit_breaker")  # the others do not try again
    on_the_way_us = rows["duration_us"].astype(int) - rows["upstream_us"].astype(int)
    assert (on_the_way_us[once] >= 1_999).all() and (on_the_way_us[once] <= 2_001).all()
    assert (rows["response_bytes"] > 0).mean() > 0.9
    served = {recorded.names["instance"][ref].rpartition("-")[0] for ref in np.unique(rows["instance_ref"])}
    assert served == set(SERVICES)


def test_the_rows_alone_give_the_recorded_observations_again(recorded: Run) -> None:
    plan = Plan.from_json(recorded.manifest["plan"])
    seen = recorded.observations
    for again in replay(recorded, plan):
        mine = seen[seen["tick"] == again.tick]
        values = np.array([[row[f"value_{index}"] for index in range(43)] for row in mine], np.float32)
        np.testing.assert_array_equal(values, again.values)


def test_users_are_those_of_the_plan(recorded: Run) -> None:
    plan = Plan.from_json(recorded.manifest["plan"])
    counted = [event for event in recorded.events if event["kind"] == "users"]
    assert len(counted) == 241
    for event in counted[1:-1]:
        assert event["counts"] == dict(plan.mix_at(event["run_time_s"] - 1))


def test_the_faults_of_the_plan_act_and_are_told(recorded: Run) -> None:
    told = [event for event in recorded.events if event["kind"] == "fault"]
    start_ns = recorded.manifest["started_unix_ns"]
    assert [(event["what"], (event["t_ns"] - start_ns) / 1e9) for event in told] == [("applied", 30), ("lifted", 90)]
    sick = recorded.names["instance"].index("cart-service-1")
    mine = recorded.requests[recorded.requests["instance_ref"] == sick]
    at_s = (mine["start_ns"] - start_ns) / 1e9
    during = mine["upstream_us"][(at_s > 30) & (at_s < 90)]
    before = mine["upstream_us"][at_s < 30]
    assert np.median(during) > 2 * np.median(before)


def test_it_exports_verifies_and_gets_a_report(recorded: Run, tmp_path: Path) -> None:
    write_bundle(assemble([recorded], exact_quantiles=False), tmp_path / "bundle", {})
    facts = json.loads((tmp_path / "bundle" / "dataset.json").read_text())
    assert facts["runs"][0]["virtual"] is True
    assert report([str(tmp_path / "bundle"), str(recorded.path)]) in (0, 1)
    assert "in virtual time" in (tmp_path / "bundle" / "report_card.html").read_text()


def test_a_healthy_world_fails_nothing(tmp_path: Path) -> None:
    assert runs.run(tmp_path / "run", conditions=Conditions(healthy=True)).failed == 0


def test_verify_finds_the_run_as_planned(recorded: Run, capsys: pytest.CaptureFixture[str]) -> None:
    verify([str(recorded.path)])
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith(("users", "mix"))]
    assert lines != [] and all("off" not in line.split() for line in lines)

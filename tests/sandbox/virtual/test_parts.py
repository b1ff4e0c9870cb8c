"""The parts around the model in virtual time: what they say is what the live ones say."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from profiles import shop
from profiles.base import Call
from profiles.session import Outcome, SessionSummary
from rl_hooks.decision import SERVICES
from rl_hooks.policies.builtin import Uniform
from rl_hooks.sources.sandbox import parse_state
from sandbox.balancer import Exchange
from sandbox.clock import VirtualClock
from sandbox.metrics import state
from sandbox.virtual import compare
from sandbox.virtual.__main__ import main
from sandbox.virtual.access import WorldInjector, WorldSource
from sandbox.virtual.shopper import target_of
from sandbox.virtual.simulation import Conditions, Simulation
from scenario.faults import PlanFault
from scenario.plan import Plan
from tests.sandbox.virtual import runs
from tests.tiny_policy import schema


class Trained(Uniform):
    """A policy that was trained for decisions every 2 s."""

    schema = schema()


class Book:
    """A ledger that keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.took_us: list[int] = []
        self.open: set[Call] = set()
        self.summaries: list[SessionSummary] = []

    def begin(self, call: Call) -> None:
        self.open.add(call)

    def ended(self, call: Call, exchange: Exchange | None, duration_us: int, response_bytes: int) -> None:
        self.open.remove(call)
        self.calls.append(call)
        self.took_us.append(duration_us)

    def session_ended(self, summary: SessionSummary) -> None:
        self.summaries.append(summary)


def simulate(plan: Plan, conditions: Conditions | None = None) -> tuple[Simulation, Book]:
    book = Book()
    return Simulation(plan, conditions or Conditions(healthy=True), 10**18, lambda _: book, lambda *_: None), book


@pytest.fixture
def ran() -> Iterator[tuple[Simulation, Book]]:
    simulation, book = simulate(runs.plan())
    simulation.run_until(60.0)
    yield simulation, book


def endpoints(book: Book) -> list[str]:
    return [f"{call.service} {call.endpoint}" for call in book.calls]


def test_events_due_at_a_moment_run_after_what_is_decided_at_it() -> None:
    clock, seen = VirtualClock(), list[float]()
    for at_s in (1.0, 2.0, 3.0):
        clock.call_later(at_s, lambda: seen.append(clock.now()))
    clock.run_before(2.0)
    assert (seen, clock.now()) == ([1.0], 2.0)
    clock.run_before(3.5)
    assert (seen, clock.now()) == ([1.0, 2.0, 3.0], 3.5)


def test_the_source_says_what_the_state_page_says(ran: tuple[Simulation, Book]) -> None:
    world, now_ns = ran[0].world, ran[0].now_ns()
    mine = WorldSource(world, ran[0].now_ns).sample()
    assert mine == parse_state(state(world, now_ns, 0), now_ns)
    assert any(one.in_flight for one in mine.instances)


def test_an_injector_makes_a_fault_where_it_is_told_to_and_takes_it_back(ran: tuple[Simulation, Book]) -> None:
    world = ran[0].world
    injector = WorldInjector(world)
    fault = PlanFault(0, "p", "cart-service", "latency", 5.0, ("cart-service-2", "cart-service-1"), 0.0, 1.0, "text")
    handle = injector.apply(fault)
    assert [one["instances"] for one in world.faults.active()] == [["cart-service-2"], ["cart-service-1"]]
    injector.lift(fault, handle)
    assert world.faults.active() == []
    assert injector.problems([replace(fault, instances=("cart-9",))]) == [
        "cart-service has no instance cart-9; there are cart-service-1, cart-service-2, cart-service-3"
    ]


def test_a_path_is_read_as_the_balancer_reads_it() -> None:
    assert target_of(shop.search("Oak & Shelf").path) == ("/api/inventory/search", {"query": "Oak & Shelf"})
    assert target_of(shop.open_product("A/1").path) == ("/api/inventory/products/A/1", {})


def test_shoppers_sign_in_before_anything_else_and_nothing_fails(ran: tuple[Simulation, Book]) -> None:
    book = ran[1]
    firsts: dict[tuple[str, int, int], str] = {}
    for call, endpoint in zip(book.calls, endpoints(book), strict=True):
        firsts.setdefault((call.visit.profile, call.visit.slot, call.visit.session), endpoint)
    assert set(firsts.values()) == {shop.REGISTER.key}
    assert all(call.ok for call in book.calls)


def test_a_token_that_the_shop_forgot_is_replaced_once_and_the_request_is_sent_again(
    ran: tuple[Simulation, Book],
) -> None:
    simulation, book = ran
    simulation.world.shop.accounts._tokens.clear()
    before = len(book.calls)
    simulation.run_until(70.0)
    later = [(c.service, c.endpoint, c.status, c.attempt) for c in book.calls[before:]]
    refused = [place for place, (*_, status, _) in enumerate(later) if status == 502]
    assert refused != []
    assert {call[1] for call in later} >= {shop.LOGIN.call}
    again = [call for call in later if call[3] == 2]
    assert len(again) >= len(refused) * 0.9
    assert all(call[2] < 400 for call in again)


def test_a_shopper_waits_no_longer_than_its_timeout() -> None:
    simulation, book = simulate(replace(runs.plan(), request_timeout_s=0.5))
    for instance in simulation.world.instances["cart-service"]:
        instance.pause(20.0)
    simulation.run_until(10.0)
    gave_up = [took for call, took in zip(book.calls, book.took_us, strict=True) if call.failure == "timeout"]
    assert set(gave_up) == {500_000}
    assert max(book.took_us) == 500_000
    assert {call.attempt for call in book.calls if call.service == "cart-service"} == {1, 2, 3}
    assert not any(call.ok for call in book.calls if call.service == "cart-service")


def test_whoever_is_told_to_leave_ends_what_is_in_flight_and_leaves(ran: tuple[Simulation, Book]) -> None:
    simulation, book = ran
    simulation.run_until(simulation.plan.duration_s)
    simulation.drain()
    assert book.open == set()
    cut = [one for one in book.summaries if one.outcome is Outcome.TRUNCATED]
    assert len(cut) >= 15  # of the last phase's users, and of the first one's that had to go
    assert simulation.run_time_s < simulation.plan.duration_s + simulation.plan.request_timeout_s


def test_the_command_leaves_a_run_folder_per_day_and_says_how_fast_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--scenario-file", "quick_validation_config.yaml", "--time-scale", "15", "--days", "2"]
    assert main([*options, "--seed", "7", "--policy", "sticky:0.5", "--run-folder", str(tmp_path / "day")]) == 0
    out = capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["day_7", "day_8"]
    assert "times as fast as real time" in out
    assert f"python -m rl_hooks.export {tmp_path / 'day_7'} {tmp_path / 'day_8'} --out DIR" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policy", "least_load"], "Did you mean 'least_loaded'"),
        (["--scenario-file", "no.yaml"], "no such file"),
        (["--utilization", "9"], "--utilization: must be from 0.01 to 3"),
        (["--days", "0"], "--days: must be 1 or more"),
        (["--policy", f"{__name__}:Trained", "--time-scale", "45"], "a run with 60 s would fit"),
    ],
)
def test_what_cannot_be_run_is_refused_with_a_message(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_there_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("text")
    assert main(["--scenario-file", "quick_validation_config.yaml", "--run-folder", str(tmp_path)]) == 2
    assert "there already and not empty" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "text"


def test_policies_are_compared_in_the_same_worlds(capsys: pytest.CaptureFixture[str]) -> None:
    options: list[Any] = ["--scenario-file", "quick_validation_config.yaml", "--time-scale", "15", "--seeds", "2"]
    assert compare.main(["round_robin", "round_robin", "uniform", *options]) == 0
    _, first, same, other = capsys.readouterr().out.splitlines()
    assert first == same
    assert "+0.0000 +- 0.0000" in same
    assert other.split()[0] == "uniform" and "+0.0000" not in other
    assert compare.main(["uniform", "--scenario-file", "no.yaml"]) == 2
    assert compare.main(["uniform", f"{__name__}:Trained", *options]) == 2
    assert "a run with 60 s would fit" in capsys.readouterr().err


def test_all_services_are_reached(ran: tuple[Simulation, Book]) -> None:
    assert {call.service for call in ran[1].calls} == set(SERVICES)

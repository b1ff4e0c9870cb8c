"""The dispatcher with Locust's own worker nodes, without users or network."""

import inspect
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator

import gevent
import locust.runners
import pytest
from locust import User, argument_parser, constant, task
from locust.dispatch import UsersDispatcher
from locust.env import Environment
from locust.runners import WorkerNode, WorkerRunner

from shapes import patches
from shapes.dispatch import MixDispatcher, NotInstalledError, install, state_of


class Alpha(User):
    wait_time = constant(1)

    @task
    def idle(self) -> None:
        pass


class Beta(Alpha):
    pass


class Gamma(Alpha):
    pass


CLASSES = [Alpha, Beta, Gamma]


@pytest.fixture
def environment() -> Iterator[Environment]:
    environment = Environment(user_classes=list(CLASSES))
    environment.create_local_runner()
    install(environment, stop_timeout_s=5.0)
    yield environment
    environment.runner.greenlet.kill(block=True)


@pytest.fixture
def nodes() -> list[WorkerNode]:
    return [WorkerNode(f"host_{i}") for i in range(2)]


@pytest.fixture
def dispatcher(environment: Environment, nodes: list[WorkerNode]) -> MixDispatcher:
    return make(environment, nodes)


def make(environment: Environment, nodes: list[WorkerNode]) -> MixDispatcher:
    return environment.dispatcher_class(worker_nodes=list(nodes), user_classes=list(CLASSES))


def order(dispatcher: MixDispatcher, mix: dict, rate: float = 1000.0) -> list[Counter]:
    """The total mix of every iteration of one cycle."""
    dispatcher.new_dispatch(sum(mix.values()), rate, mix)
    return totals(dispatcher)


def totals(dispatcher: MixDispatcher) -> list[Counter]:
    return [sum(map(Counter, placement.values()), Counter()) for placement in dispatcher]


def test_a_mix_is_reached_at_once_when_the_rate_covers_the_change(dispatcher: MixDispatcher) -> None:
    assert order(dispatcher, {Alpha: 4, Beta: 2}) == [Counter(Alpha=4, Beta=2)]
    assert order(dispatcher, {Alpha: 1, Gamma: 5}, rate=5.0) == [Counter(Alpha=1, Gamma=5)]


def test_an_exchange_at_a_constant_total_respects_the_spawn_rate(
    dispatcher: MixDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    order(dispatcher, {Alpha: 6})
    pauses_s: list[float] = []
    monkeypatch.setattr("shapes.dispatch.gevent.sleep", pauses_s.append)
    steps = order(dispatcher, {Beta: 6}, rate=2.0)
    assert steps == [Counter(Alpha=4, Beta=2), Counter(Alpha=2, Beta=4), Counter(Beta=6)]
    assert len(pauses_s) == 2
    assert all(0 < pause_s <= 1.0 for pause_s in pauses_s)


def test_the_same_mix_again_sends_the_same_counts_again(dispatcher: MixDispatcher) -> None:
    mix = {Alpha: 3, Beta: 1}
    order(dispatcher, mix)
    assert order(dispatcher, mix) == [Counter(Alpha=3, Beta=1)]


def test_users_of_a_lost_worker_are_made_good_at_once_and_the_rest_stays(
    dispatcher: MixDispatcher, nodes: list[WorkerNode]
) -> None:
    order(dispatcher, {Alpha: 5, Beta: 5})
    kept = dict(dispatcher._users_on_workers["host_1"])
    dispatcher.remove_worker(nodes[0])
    assert dispatcher.rebalance_waits
    dispatcher.new_dispatch(10, 1.0)  # what Locust does, with the rate of the last order
    [placement] = list(dispatcher)
    assert placement == {"host_1": {"Alpha": 5, "Beta": 5, "Gamma": 0}}
    assert all(placement["host_1"][name] >= n for name, n in kept.items())
    assert not dispatcher.rebalance_waits
    assert not dispatcher.dispatch_in_progress


def test_a_worker_that_joins_gets_its_share_and_only_the_surplus_moves(dispatcher: MixDispatcher) -> None:
    order(dispatcher, {Alpha: 6, Beta: 3})
    before = {worker: dict(users) for worker, users in dispatcher._users_on_workers.items()}
    dispatcher.add_worker(WorkerNode("host_2"))
    dispatcher.new_dispatch(9, 1.0)
    [placement] = list(dispatcher)
    assert sum(map(Counter, placement.values()), Counter()) == Counter(Alpha=6, Beta=3)
    assert [sum(users.values()) for users in placement.values()] == [3, 3, 3]
    for worker, users in before.items():
        assert all(placement[worker][name] <= n for name, n in users.items())


def test_a_worker_lost_during_a_cycle_is_made_good_at_once_and_the_cycle_goes_on_at_its_rate(
    dispatcher: MixDispatcher, nodes: list[WorkerNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shapes.dispatch.gevent.sleep", lambda _: None)
    order(dispatcher, {Alpha: 6})
    dispatcher.new_dispatch(6, 1.0, {Beta: 6})
    steps = []
    for placement in dispatcher:
        if not steps:
            dispatcher.remove_worker(nodes[1])
        steps.append(placement)
    assert [sum(map(Counter, step.values()), Counter()).total() for step in steps] == [6] * len(steps)
    assert steps[-1] == {"host_0": {"Alpha": 0, "Beta": 6, "Gamma": 0}}
    assert len(steps) > 2
    assert not dispatcher.dispatch_in_progress


def test_a_dispatcher_made_in_the_middle_of_a_run_starts_from_the_reported_users(
    environment: Environment, dispatcher: MixDispatcher, nodes: list[WorkerNode]
) -> None:
    order(dispatcher, {Alpha: 3, Beta: 2})
    nodes[0].user_classes_count = {"Alpha": 3}
    nodes[1].user_classes_count = {"Beta": 1}
    again = make(environment, nodes)
    again.new_dispatch(5, 1.0)
    [placement] = list(again)
    assert placement["host_0"] == {"Alpha": 3, "Beta": 0, "Gamma": 0}
    assert placement["host_1"] == {"Alpha": 0, "Beta": 2, "Gamma": 0}


def test_a_newer_cycle_ends_an_older_one_even_while_it_sleeps_itself(dispatcher: MixDispatcher) -> None:
    dispatcher.new_dispatch(4, 1.0, {Alpha: 4})
    older = iter(dispatcher)
    next(older)  # Locust now sends it to the workers; meanwhile another greenlet starts a cycle
    dispatcher.new_dispatch(3, 1.0, {Beta: 3})
    dispatcher._wait_between_dispatch = 0.05
    newer = gevent.spawn(totals, dispatcher)
    gevent.sleep(0)  # the newer cycle sleeps between two iterations
    assert dispatcher.dispatch_in_progress
    with gevent.Timeout(20):
        assert list(older) == []
        assert newer.get()[-1] == Counter(Beta=3)
    assert not dispatcher.dispatch_in_progress


def test_users_asked_for_by_hand_do_not_change_the_mix(
    dispatcher: MixDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    order(dispatcher, {Alpha: 3})
    dispatcher.new_dispatch(4, 100.0)
    assert totals(dispatcher) == [Counter(Alpha=3)]
    assert caplog.messages == ["The plan says 3 users; 4 asked for by hand are ignored"]


@pytest.mark.parametrize(
    ("total", "mix", "message"),
    [
        (3, {Alpha: 2}, "the mix {'Alpha': 2} does not add up to 3 users"),
        (1, {Alpha: 2, Beta: -1}, "the mix {'Alpha': 2, 'Beta': -1} does not add up to 1 users"),
        (1, {User: 1}, "the mix names user classes that this run does not have: User"),
    ],
)
def test_a_mix_that_cannot_be_is_refused(dispatcher: MixDispatcher, total: int, mix: dict, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        dispatcher.new_dispatch(total, 1.0, mix)
    assert str(refused.value) == message


def test_without_a_mix_it_is_locusts_own_dispatcher(dispatcher: MixDispatcher, nodes: list[WorkerNode]) -> None:
    own = UsersDispatcher(worker_nodes=list(nodes), user_classes=list(CLASSES))
    for total in (7, 3, 5):
        own.new_dispatch(total, 1000.0)
        dispatcher.new_dispatch(total, 1000.0)
        assert list(dispatcher) == list(own)


def test_two_environments_share_nothing(environment: Environment) -> None:
    other = Environment(user_classes=list(CLASSES))
    other.create_local_runner()
    install(other, stop_timeout_s=5.0)
    try:
        state_of(environment).mix = {"Alpha": 1}
        assert state_of(other).mix is None
        assert not hasattr(MixDispatcher, "state")
    finally:
        other.runner.greenlet.kill(block=True)


def test_the_mix_is_forgotten_when_the_run_stops(environment: Environment) -> None:
    state_of(environment).mix = {"Alpha": 1}
    environment.events.test_stop.fire(environment=environment)
    assert state_of(environment).mix is None


def test_installing_twice_changes_nothing(environment: Environment) -> None:
    dispatcher_class, runner_class = environment.dispatcher_class, type(environment.runner)
    install(environment, stop_timeout_s=9.0)
    assert (environment.dispatcher_class, type(environment.runner)) == (dispatcher_class, runner_class)
    assert environment.stop_timeout == 5.0


def test_a_configured_stop_timeout_is_kept_and_a_missing_one_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "shapes")
    for configured, expected in ((30.0, 30.0), (None, 7.5)):
        environment = Environment(user_classes=list(CLASSES), stop_timeout=configured)
        environment.create_local_runner()
        install(environment, stop_timeout_s=7.5)
        environment.runner.greenlet.kill(block=True)
        assert environment.stop_timeout == expected
    assert caplog.messages == ["No --stop-timeout given: users that leave have 7.5 s to finish"]


def test_installing_before_there_is_a_runner_is_refused() -> None:
    with pytest.raises(NotInstalledError, match="call it in an init listener"):
        install(Environment(user_classes=list(CLASSES)), stop_timeout_s=5.0)


def test_a_stop_timeout_of_zero_is_refused() -> None:
    environment = Environment(user_classes=list(CLASSES))
    environment.create_local_runner()
    try:
        with pytest.raises(ValueError, match="stop_timeout_s must be > 0, got 0"):
            install(environment, stop_timeout_s=0)
    finally:
        environment.runner.greenlet.kill(block=True)


def test_the_default_options_are_built_once_and_are_locusts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(argument_parser, "default_args_dict", argument_parser.default_args_dict)
    original = argument_parser.default_args_dict()
    patches.memoise_default_options()
    memoised = argument_parser.default_args_dict
    monkeypatch.setattr(argument_parser, "get_empty_argument_parser", None)  # no parser can be built from here on
    assert memoised() == original
    patches.memoise_default_options()
    assert argument_parser.default_args_dict is memoised


def test_a_clock_that_is_set_is_no_silence_of_the_master(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(locust.runners), "time", time)
    patches.measure_silence_steadily()
    patches.measure_silence_steadily()
    before = locust.runners.time.time()
    assert abs(before - time.time()) < 5
    monkeypatch.setattr(time, "time", lambda: before + 90)
    assert locust.runners.time.time() - before < 60


def test_locust_still_measures_silence_by_the_wall_clock() -> None:
    """When this fails, Locust no longer needs `measure_silence_steadily`, or uses more of the module `time`."""
    assert "time.time() - MASTER_HEARTBEAT_TIMEOUT" in inspect.getsource(WorkerRunner.heartbeat_timeout_checker)
    assert set(re.findall(r"\btime\.(\w+)\(", inspect.getsource(locust.runners))) == {"time"}


def test_locust_still_asks_for_the_default_options_with_every_spawn_message() -> None:
    """When this fails, Locust no longer needs `memoise_default_options`: remove it."""
    code = WorkerRunner.handle_message.__code__
    nested = [const for const in code.co_consts if hasattr(const, "co_names")]
    assert any("default_args_dict" in part.co_names for part in [code, *nested])
    assert locust.runners.argument_parser is argument_parser

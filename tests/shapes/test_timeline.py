"""What the timeline says when it cannot go on, and what it orders; with real runners, without a server."""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import gevent
import pytest
from locust import User, constant, task
from locust.env import Environment
from locust.runners import STATE_RUNNING, WorkerNode

from shapes.dispatch import install
from shapes.timeline import RESEND_AFTER_TICKS, RESEND_STEP, Timeline


class Alpha(User):
    profile_name = "alpha"
    wait_time = constant(60)

    @task
    def idle(self) -> None:
        pass


class Beta(Alpha):
    profile_name = "beta"


class Twin(Alpha):
    pass


class Stubborn(User):
    """Does not end when asked, and takes long to end when killed."""

    profile_name = "stubborn"

    @task
    def work(self) -> None:
        gevent.sleep(60)

    def on_stop(self) -> None:
        gevent.sleep(60)


class Plain(User):
    """A user class that belongs to no profile."""


@dataclass(frozen=True)
class Steady:
    """The two members of a Plan that the timeline asks for."""

    mix: Mapping[str, int]
    duration_s: float = 600.0

    def mix_at(self, t_s: float) -> Mapping[str, int]:
        return self.mix


@pytest.fixture
def started() -> Iterator[list[Environment]]:
    environments: list[Environment] = []
    yield environments
    for environment in environments:
        environment.runner.quit()


def timeline_for(
    started: list[Environment],
    plan: Steady | None,
    classes: tuple[type[User], ...] = (Alpha, Beta),
    wired: bool = True,
    stop_timeout_s: float = 5.0,
) -> Timeline:
    timeline = Timeline()
    environment = Environment(user_classes=list(classes), shape_class=timeline)
    environment.create_local_runner()
    started.append(environment)
    if wired:
        install(environment, stop_timeout_s=stop_timeout_s)
    if plan is not None:
        timeline.plan_for = lambda _: plan
    timeline.reset_time()
    return timeline


@pytest.mark.parametrize(
    ("plan", "classes", "wired", "message"),
    [
        (
            None,
            (Alpha,),
            True,
            "the timeline has no plan: set environment.shape_class.plan_for in an init listener",
        ),
        (
            Steady({"alpha": 1, "gamma": 1}),
            (Alpha, Beta, Plain),
            True,
            "no user class for gamma: the plan needs a class with this profile_name; this run has alpha, beta",
        ),
        (Steady({"alpha": 1}), (Alpha, Twin), True, "Alpha and Twin both have profile_name 'alpha'"),
        (
            Steady({"alpha": 1}),
            (Alpha,),
            False,
            "users per class need shapes.dispatch.install(environment, stop_timeout_s) at init",
        ),
    ],
)
def test_what_is_missing_ends_the_run_with_a_message(
    started: list[Environment],
    caplog: pytest.LogCaptureFixture,
    plan: Steady | None,
    classes: tuple[type[User], ...],
    wired: bool,
    message: str,
) -> None:
    timeline = timeline_for(started, plan, classes, wired)
    assert timeline.tick() is None
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == f"The timeline stops the run: {message}"
    assert record.exc_info is None
    assert started[0].process_exit_code == 1


def test_a_hook_that_raises_ends_the_run_in_order_with_its_traceback(
    started: list[Environment], caplog: pytest.LogCaptureFixture
) -> None:
    timeline = timeline_for(started, Steady({"alpha": 2, "beta": 1}))

    def on_tick(run_time_s: float, planned: Mapping[str, int], actual: Mapping[str, int]) -> None:
        if sum(actual.values()) == 3:
            raise OSError("the disk is full")

    timeline.on_tick = on_tick
    runner = started[0].runner
    runner.start_shape()
    shape = runner.shape_greenlet
    with gevent.Timeout(30):
        shape.join()
    assert shape.successful()
    assert runner.user_count == 0
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "The timeline stops the run: the disk is full"
    assert record.exc_info is not None
    assert started[0].process_exit_code == 1


def test_busy_test_start_listeners_run_once_and_hold_the_clock(started: list[Environment]) -> None:
    timeline = timeline_for(started, Steady({"alpha": 2}))
    environment = started[0]
    begun: list[int] = []
    ready = gevent.event.Event()

    def prepare(**_: object) -> None:
        begun.append(environment.runner.user_count)
        ready.wait(20)

    environment.events.test_start.add_listener(prepare)
    ticks: list[float] = []
    timeline.on_tick = lambda run_time_s, planned, actual: ticks.append(run_time_s)
    original, asked, let_go = timeline.tick, [], []

    def tick() -> object:
        asked.append(True)
        if len(asked) == 3:
            let_go.append(time.perf_counter())
            ready.set()
        return original()

    timeline.tick = tick
    environment.runner.start_shape()
    with gevent.Timeout(30):
        while not ticks:
            gevent.sleep(0.05)
    assert begun == [0]
    assert timeline.start_time > let_go[0]


def test_an_order_that_is_not_carried_out_is_given_again_and_said(
    started: list[Environment], caplog: pytest.LogCaptureFixture
) -> None:
    timeline = timeline_for(started, Steady({"alpha": 3, "beta": 1}))
    started[0].runner.state = STATE_RUNNING  # nobody carries the orders out
    orders = [timeline.tick() for _ in range(2 * RESEND_AFTER_TICKS + 1)]
    assert orders[0] == (4, 4.0, {Alpha: 3, Beta: 1})
    assert orders[RESEND_AFTER_TICKS - 1] == orders[0]
    assert orders[RESEND_AFTER_TICKS] == (4, 4.0 + RESEND_STEP, {Alpha: 3, Beta: 1})
    assert orders[2 * RESEND_AFTER_TICKS][1] > orders[RESEND_AFTER_TICKS][1]
    assert caplog.messages[0] == (
        "Users differ from the plan (Alpha 0 instead of 3, Beta 0 instead of 1): the order is sent again"
    )
    assert len(caplog.messages) == 2


def test_workers_that_came_while_locust_was_busy_get_their_order_with_the_next_tick(started: list[Environment]) -> None:
    timeline = timeline_for(started, Steady({"alpha": 2}))
    runner = started[0].runner
    runner.state = STATE_RUNNING
    runner._users_dispatcher = started[0].dispatcher_class([WorkerNode("host_0")], [Alpha, Beta])
    users, rate, mix = timeline.tick()
    runner._users_dispatcher.new_dispatch(users, rate, mix)
    list(runner._users_dispatcher)
    assert timeline.tick() == (users, rate, mix)
    runner._users_dispatcher.add_worker(WorkerNode("host_1"))
    assert timeline.tick() == (users, rate + RESEND_STEP, mix)


def test_users_that_do_not_finish_in_time_are_ended_and_counted(
    started: list[Environment], caplog: pytest.LogCaptureFixture
) -> None:
    timeline_for(started, Steady({"stubborn": 2}, duration_s=1.5), (Stubborn,), stop_timeout_s=0.5)
    runner = started[0].runner
    runner.start_shape()
    shape = runner.shape_greenlet
    with gevent.Timeout(30):
        shape.join()
    assert runner.user_count == 2
    runner.user_greenlets.kill()
    assert [message for message in caplog.messages if "users" in message] == [
        (
            "2 users did not finish within the stop timeout of 0.5 s and are ended now, requests in flight are cut. "
            "Use a longer --stop-timeout."
        ),
        "The run ends with 2 users still there",
    ]


def test_classes_that_the_plan_does_not_name_are_ordered_to_zero(started: list[Environment]) -> None:
    timeline = timeline_for(started, Steady({"alpha": 2}), (Alpha, Beta, Plain))
    assert timeline.tick() == (2, 2.0, {Alpha: 2, Beta: 0, Plain: 0})


def test_a_new_run_asks_for_its_plan(started: list[Environment]) -> None:
    timeline = timeline_for(started, Steady({"alpha": 2}))
    timeline.plan_for = lambda _: Steady({"beta": 1})
    assert timeline.tick() == (2, 2.0, {Alpha: 2, Beta: 0})
    timeline.reset_time()
    assert timeline.tick() == (1, 1.0, {Alpha: 0, Beta: 1})

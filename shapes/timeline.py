"""The load shape that follows a plan: users of every profile, phase after phase, then an orderly end.

    run time   0        ramp_s                phase end                     plan.duration_s        drained
               |--ramp----|-- exactly the mix ----|--ramp--|-- next mix ...-------|-- 0 users, rest ends --|  end

Locust asks once a second, so a change is in force up to a second (and the time to start the users) after the plan's
moment. `tests/shapes/test_live.py` holds the drawing.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import gevent
from locust import LoadTestShape, User
from locust.env import Environment
from locust.runners import STATE_INIT, STATE_STOPPED, WORKER_REPORT_INTERVAL, MasterRunner, Runner

from scenario.errors import ScenarioError
from shapes import mix as mixes
from shapes.dispatch import MixDispatcher, MixState, NotInstalledError, running_counts, state_of

if TYPE_CHECKING:
    from scenario.plan import Plan

logger = logging.getLogger(__name__)

RESEND_AFTER_TICKS = 4  # workers report every 3 s; what differs longer than that is no old report
RESEND_STEP = 1e-6  # makes the same order a new one for Locust, which compares it with the last
DRAIN_GRACE_S = 1.0  # for a local run, beyond the stop timeout

Order = tuple[int, float, dict[type[User], int]]  # what tick() returns: users, changes per second, users per class


class TimelineError(Exception):
    """The timeline cannot be followed; the message says what to do."""


def _no_plan(environment: Environment) -> "Plan":
    raise TimelineError("the timeline has no plan: set environment.shape_class.plan_for in an init listener")


def _ignore_tick(run_time_s: float, planned: Mapping[str, int], actual: Mapping[str, int]) -> None:
    pass


class Timeline(LoadTestShape):
    """Follows the plan that `plan_for` gives at the start of every run.

    Locust makes the instance when it imports the locustfile, before there is a plan. The composition root sets, on the
    instance or in a subclass (`staticmethod`):

    - `plan_for(environment) -> Plan`, asked once or twice at the start of every run;
    - `on_tick(run_time_s, planned, actual)`, called about once a second from the start of the run to the last user:
      users per profile as planned for this moment, and running as far as this process knows at this moment, that is
      before the tick's own order is carried out. Users told to stop are not counted (see `shapes.dispatch`).

    `get_run_time()` is the plan's clock, in real seconds. It begins when the `test_start` listeners are through and,
    on a master, a worker is there.

    Whatever goes wrong here (no plan, a profile without a user class, a hook that raises) is logged as an error, ends
    the run in order and makes the exit code 1. An exception out of `tick` would end it without a word to the users.
    """

    plan_for: Callable[[Environment], "Plan"] = staticmethod(_no_plan)
    on_tick: Callable[[float, Mapping[str, int], Mapping[str, int]], None] = staticmethod(_ignore_tick)

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._forget()

    def _forget(self) -> None:
        self._plan: Plan | None = None
        self._failed = False
        self._order: Order | None = None  # the last one given
        self._ticks_off = 0  # ticks in a row in which running users differed from the last order
        self._drain_ends: float | None = None  # perf_counter() when the drain is given up

    def reset_time(self) -> None:
        """Begin a run; Locust calls it when the shape starts and, on a master, again when the test starts."""
        super().reset_time()  # type: ignore[no-untyped-call]
        self._forget()
        try:
            state_of(self._environment())  # Locust's own dispatcher would take a mix for a list of classes
            self._plan = self.plan_for(self._environment())
        except Exception as error:  # noqa: BLE001 - reported, and the run is ended
            self._fail(error)

    def tick(self) -> Order | None:  # type: ignore[override]
        """The users to run now, or None when the last one has left. Never raises."""
        if not self._failed:
            try:
                return self._follow()
            except Exception as error:  # noqa: BLE001 - reported, and the run is ended
                self._fail(error)
        return self._drain()

    def _follow(self) -> Order | None:
        runner = self._runner()
        while self._plan is None:  # plan_for is busy in the greenlet that starts the run
            gevent.sleep(0.05)
            if self._failed:
                return self._drain()
        if runner.state in (STATE_INIT, STATE_STOPPED):
            return self._begin(runner, self._plan)
        run_time_s: float = self.get_run_time()  # type: ignore[no-untyped-call]
        over = run_time_s >= self._plan.duration_s
        planned = {} if over else dict(self._plan.mix_at(run_time_s))
        classes = self._classes_by_profile(planned)
        running = running_counts(runner)
        actual = {profile: running.get(cls.__name__, 0) for profile, cls in classes.items()}
        self.on_tick(run_time_s, {profile: planned.get(profile, 0) for profile in classes}, actual)
        if over:
            return self._drain()
        mix = {classes[profile]: n for profile, n in planned.items()}
        return self._order_for(mix, ask_again=self._should_ask_again(runner, running))

    def _begin(self, runner: Runner, plan: "Plan") -> Order:
        """The first order, which makes Locust start the run; the clock stands still until it has."""
        if isinstance(runner, MasterRunner):
            _wait_for_a_worker(runner)
        self.start_time = time.perf_counter()
        if self._order is not None and not isinstance(runner, MasterRunner):
            return self._order  # test_start listeners are busy, and a new order would kill the greenlet they run in
        planned = plan.mix_at(0.0)
        classes = self._classes_by_profile(planned)
        return self._order_for({classes[profile]: n for profile, n in planned.items()}, ask_again=True)

    def _should_ask_again(self, runner: Runner, running: Mapping[str, int]) -> bool:
        """Whether the last order has not been carried out for so long that it has to be given again."""
        if self._order is None:
            return False
        ordered = {cls.__name__: n for cls, n in self._order[2].items()}
        missing = {name: (running.get(name, 0), n) for name, n in ordered.items() if running.get(name, 0) != n}
        self._ticks_off = self._ticks_off + 1 if missing else 0
        if self._ticks_off >= RESEND_AFTER_TICKS:
            self._ticks_off = 0
            differences = ", ".join(f"{name} {is_} instead of {should}" for name, (is_, should) in missing.items())
            logger.warning("Users differ from the plan (%s): the order is sent again", differences)
            return True
        dispatcher = runner._users_dispatcher
        return isinstance(dispatcher, MixDispatcher) and dispatcher.rebalance_waits

    def _order_for(self, mix: Mapping[type[User], int], *, ask_again: bool) -> Order:
        """An order with every class of the run, and a rate that lets it be carried out within a second.

        The rate has to cover the whole change: a master is blocked until an order is carried out, and would skip
        what the plan says in the meantime.
        """
        wanted = {cls: mix.get(cls, 0) for cls in self._environment().user_classes}
        last = {} if self._order is None else self._order[2]
        if self._order is None or wanted != last:
            self._ticks_off = 0
            rate = mixes.spawn_rate(_by_name(last), _by_name(wanted))
        else:
            rate = self._order[1] + (RESEND_STEP if ask_again else 0.0)
        self._order = (sum(wanted.values()), rate, wanted)
        return self._order

    def _classes_by_profile(self, planned: Mapping[str, int]) -> dict[str, type[User]]:
        """The user class of every profile of the run; every planned profile has exactly one."""
        found: dict[str, type[User]] = {}
        for cls in self._environment().user_classes:
            profile = getattr(cls, "profile_name", None)
            if profile in found:
                raise TimelineError(f"{found[profile].__name__} and {cls.__name__} both have profile_name {profile!r}")
            if profile is not None:
                found[profile] = cls
        lacking = sorted(planned.keys() - found.keys())
        if lacking:
            raise TimelineError(
                f"no user class for {', '.join(lacking)}: the plan needs a class with this profile_name; "
                f"this run has {', '.join(sorted(found)) or 'none'}"
            )
        return found

    def _drain(self) -> Order | None:
        """Order all users away and wait until the last has finished, at most the stop timeout."""
        runner = self.runner
        if runner is None or runner.state == STATE_INIT:
            return None
        now = time.perf_counter()
        if self._drain_ends is None:
            grace_s = 2 * WORKER_REPORT_INTERVAL if isinstance(runner, MasterRunner) else DRAIN_GRACE_S
            self._drain_ends = now + runner.environment.stop_timeout + grace_s
            self._state().alive.clear()
            return self._order_for({}, ask_again=False)
        left = self._users_left(runner)
        if left == 0:
            return None
        if now >= self._drain_ends:
            logger.warning("The run ends with %s users still there", "an unknown number of" if left is None else left)
            return None
        return self._order_for({}, ask_again=self._should_ask_again(runner, running_counts(runner)))

    def _users_left(self, runner: Runner) -> int | None:
        """Users still alive, stopping ones included; None while a worker has not reported since the drain began."""
        if not isinstance(runner, MasterRunner):
            return runner.user_count
        alive = self._state().alive
        workers = [client.id for client in runner.clients.ready + runner.clients.spawning + runner.clients.running]
        if any(worker not in alive for worker in workers):
            return None
        return sum(alive[worker] for worker in workers)

    def _fail(self, error: Exception) -> None:
        self._failed = True
        known = isinstance(error, TimelineError | NotInstalledError | ScenarioError)
        logger.error("The timeline stops the run: %s", error, exc_info=None if known else error)
        if self.runner is not None and self.runner.environment.process_exit_code is None:
            self.runner.environment.process_exit_code = 1

    def _runner(self) -> Runner:
        if self.runner is None:
            raise TimelineError("the timeline has no runner: Locust attaches it when it makes the runner")
        return self.runner

    def _environment(self) -> Environment:
        return self._runner().environment

    def _state(self) -> MixState:
        return state_of(self._environment())


def _wait_for_a_worker(runner: MasterRunner) -> None:
    """Wait inside tick(), because Locust ends the shape when a master without workers gets any message.

    Right after a run it has none for as long as the stop timeout: a worker sleeps that long before it is ready again.
    """
    if not runner.worker_count:
        logger.warning("The timeline waits for the first worker")
    while not runner.worker_count:
        gevent.sleep(0.1)


def _by_name(mix: Mapping[type[User], int]) -> dict[str, int]:
    return {cls.__name__: n for cls, n in mix.items()}

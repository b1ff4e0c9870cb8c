"""Exactly as many users of each class as a mix says, on any number of workers.

Locust picks classes by weight when users are added, removes the latest whatever their class, and does nothing when
the total stays the same. `MixDispatcher` takes its place through `Environment.dispatcher_class`: a shape's tick returns
`(total, spawn_rate, {user class: users})`, and Locust hands the third element through to `new_dispatch`.

*Running* users are those that were not told to stop. That is what the dispatcher counts, what workers report and what
is held against the plan. Users told to stop (*stopping*) finish their page visit beside them, for at most the stop
timeout; their requests are real load and are recorded, their seats in the mix are not theirs any more.
"""

import logging
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import gevent
from locust import User
from locust.dispatch import UsersDispatcher
from locust.env import Environment
from locust.runners import MasterRunner, Runner, WorkerNode, WorkerRunner

from shapes import mix as mixes
from shapes import patches

logger = logging.getLogger(__name__)


class NotInstalledError(Exception):
    """A shape asks for exact users per class, but this environment has Locust's own dispatcher."""


@dataclass(slots=True)
class MixState:
    """What one environment's dispatchers share: Locust replaces the dispatcher at every run and 60 s after a loss."""

    mix: dict[str, int] | None = None  # class name -> users, as last asked for; None: no run, or one without a mix
    cycle: int = 0  # serial number of the latest dispatch cycle; older ones end
    alive: dict[str, int] = field(default_factory=dict)  # worker id -> users in its last report, stopping ones too


def install(environment: Environment, stop_timeout_s: float) -> None:
    """Make `environment` follow exact mixes; call it in an `init` listener, on master, workers and local runs alike.

    Without a stop timeout Locust cuts users in the middle of a request. `stop_timeout_s`, real seconds, is set when
    none is configured; it should be longer than the longest page visit. A second call changes nothing.
    """
    runner = environment.runner
    if runner is None:
        raise NotInstalledError("install(environment) needs environment.runner: call it in an init listener")
    if issubclass(environment.dispatcher_class, MixDispatcher):
        return
    if not stop_timeout_s > 0:
        raise ValueError(f"stop_timeout_s must be > 0, got {stop_timeout_s}")
    state = MixState()
    environment.dispatcher_class = type("MixDispatcher", (MixDispatcher,), {"state": state})
    environment.events.test_stop.add_listener(lambda **_: _forget(state))  # type: ignore[no-untyped-call]
    if not environment.stop_timeout:
        environment.stop_timeout = stop_timeout_s
        if not isinstance(runner, WorkerRunner):  # workers get theirs from the master
            logger.info("No --stop-timeout given: users that leave have %g s to finish", stop_timeout_s)
    patches.let_users_leave_in_order(runner)
    patches.measure_silence_steadily()
    if isinstance(runner, WorkerRunner):
        patches.memoise_default_options()
    if isinstance(runner, MasterRunner):

        def note(client_id: str, data: Mapping[str, Any], **_: Any) -> None:
            state.alive[client_id] = data["user_count"]

        environment.events.worker_report.add_listener(note)  # type: ignore[no-untyped-call]


def state_of(environment: Environment) -> MixState:
    """The state `install` made for this environment; `NotInstalledError` without it."""
    dispatcher_class = environment.dispatcher_class
    if not issubclass(dispatcher_class, MixDispatcher):
        raise NotInstalledError("users per class need shapes.dispatch.install(environment, stop_timeout_s) at init")
    return dispatcher_class.state


def running_counts(runner: Runner) -> dict[str, int]:
    """Running users per class name: of this process, or as the workers last reported to this master."""
    if isinstance(runner, MasterRunner):
        return dict(runner.reported_user_classes_count)
    return runner.user_classes_count


class MixDispatcher(UsersDispatcher):
    """Brings about `{user class: users}` exactly; without such a mix it is Locust's own dispatcher.

    A new mix is approached at the spawn rate, an exchange of one user for another counting as one. Users of a lost
    worker are made good at once, as is everything when Locust itself starts a cycle to rebalance: they were ramped up
    already. Every cycle yields at least once: asking for the same mix again sends its absolute counts again, and
    workers replace users that ended by themselves.
    """

    state: ClassVar[MixState]  # of the environment; set on the subclass that `install` makes

    def __init__(self, worker_nodes: list[WorkerNode], user_classes: list[type[User]]) -> None:
        super().__init__(worker_nodes, user_classes)
        self._owed = 0  # changes to make at once in the next iteration
        if self.state.mix is not None:
            # 60 s after a loss the master starts over with a new dispatcher in the middle of a run. From zeros it would
            # tell every worker to end its users; what the workers report is where they really are.
            for node in worker_nodes:
                here = self._users_on_workers[node.id]
                here.update({name: node.user_classes_count.get(name, 0) for name in here})
            self._current_user_count = self.get_current_user_count()

    def __iter__(self) -> Iterator[dict[str, dict[str, int]]]:
        # One iterator per cycle: Locust may start a cycle from another greenlet while this one sleeps between two
        # iterations, and going on with that one's generator would raise "generator already executing".
        return map(self._fast_users_on_workers_copy, self._dispatcher_generator)

    @property
    def rebalance_waits(self) -> bool:
        """Workers came or went while Locust was between two states, and no cycle was started for them."""
        return self._rebalance and not self._dispatch_in_progress

    def new_dispatch(
        self,
        target_user_count: int,
        spawn_rate: float,
        user_classes: list[type[User]] | Mapping[type[User], int] | None = None,
    ) -> None:
        """Begin a cycle; a mapping is the exact mix and has to add up to `target_user_count`."""
        if isinstance(user_classes, Mapping):
            self.state.mix = self._checked(target_user_count, user_classes)
        elif self.state.mix is None:
            super().new_dispatch(target_user_count, spawn_rate, user_classes)
            return
        else:
            if target_user_count != (planned := sum(self.state.mix.values())):
                logger.warning("The plan says %d users; %d asked for by hand are ignored", planned, target_user_count)
            self._owed = mixes.changes(mixes.counts(self._users_on_workers), self.state.mix)
        mix = dict(self.state.mix)
        super().new_dispatch(sum(mix.values()), spawn_rate, None)
        self.state.cycle += 1
        self._dispatcher_generator = self._cycle(self.state.cycle, mix)

    def _checked(self, total: int, user_classes: Mapping[type[User], int]) -> dict[str, int]:
        mix = {user_class.__name__: n for user_class, n in user_classes.items()}
        unknown = sorted(mix.keys() - {user_class.__name__ for user_class in self._original_user_classes})
        if unknown:
            raise ValueError(f"the mix names user classes that this run does not have: {', '.join(unknown)}")
        if sum(mix.values()) != total or min(mix.values(), default=0) < 0:
            raise ValueError(f"the mix {mix} does not add up to {total} users")
        return mix

    def _cycle(self, serial: int, mix: dict[str, int]) -> Generator[dict[str, dict[str, int]]]:
        self._dispatch_in_progress = True
        try:
            while True:
                began = time.perf_counter()
                self._rebalance = False
                mixes.advance(self._users_on_workers, mix, self._user_count_per_dispatch_iteration + self._owed)
                self._owed = 0
                self._current_user_count = self.get_current_user_count()
                yield self._users_on_workers
                done = mixes.changes(mixes.counts(self._users_on_workers), mix) == 0
                if done and not self._rebalance:
                    return
                if not self._rebalance:
                    gevent.sleep(max(0.0, self._wait_between_dispatch - (time.perf_counter() - began)))
                if self.state.cycle != serial:
                    return
        finally:
            if self.state.cycle == serial:
                self._dispatch_in_progress = False  # Locust's own leaks True after a rebalance at an equal total

    def _prepare_rebalance(self) -> None:
        """Keep users where they run, as far as totals stay even; those of lost workers become owed."""
        if self.state.mix is None:
            super()._prepare_rebalance()
            return
        before = mixes.counts(self._users_on_workers)
        nobody = {user_class.__name__: 0 for user_class in self._original_user_classes}
        self._users_on_workers = {
            node.id: dict(self._users_on_workers.get(node.id, nobody)) for node in self._worker_nodes
        }
        mixes.even_out(self._users_on_workers)
        self._owed += mixes.changes(mixes.counts(self._users_on_workers), before)
        self._current_user_count = self.get_current_user_count()
        self._rebalance = True


def _forget(state: MixState) -> None:
    state.mix = None
    state.alive.clear()

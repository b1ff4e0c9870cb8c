"""What has to change in a Locust runner so that users leave in order and spawn messages cost nothing.

Every change is made to one runner or once per process by `shapes.dispatch.install`, never on import. Locust is pinned
to 2.47 because of this file and `shapes.dispatch`; a test says when a change is no longer needed.
"""

import logging
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gevent
from locust import User, argument_parser, runners
from locust.runners import STATE_CLEANUP, LocalRunner, Runner, WorkerRunner, locust_exception_handler
from locust.user.task import LOCUST_STATE_RUNNING, LOCUST_STATE_STOPPING

logger = logging.getLogger(__name__)


def let_users_leave_in_order(runner: Runner) -> None:
    """Make a runner that owns users count and stop them as `_OrderlyStop` describes; once per runner."""
    if isinstance(runner, LocalRunner | WorkerRunner) and not isinstance(runner, _OrderlyStop):
        # The class of this one runner: other environments of the process keep Locust's own.
        runner.__class__ = type(type(runner).__name__, (_OrderlyStop, type(runner)), {})


def memoise_default_options() -> None:
    """Build Locust's default options once per process instead of once per option and spawn message.

    `WorkerRunner.handle_message` calls `default_args_dict()` for each of some 55 options: as many argument parsers,
    0.2 s in which no user of the worker runs. During a ramp that is a fake latency spike every second.
    """
    original = argument_parser.default_args_dict
    if getattr(original, "memoised", False):
        return
    options = original()

    def default_args_dict() -> dict[str, Any]:
        return dict(options)

    default_args_dict.memoised = True  # type: ignore[attr-defined]
    argument_parser.default_args_dict = default_args_dict


def measure_silence_steadily() -> None:
    """Let Locust's runners take a clock for the time of day that nobody sets, once per process.

    By the wall clock a worker whose time is set forward by a minute believes that its master is gone and quits at once,
    and one whose master's time is set back discards every change of users as older than the one before.
    """
    names = vars(runners)
    if isinstance(names["time"], SimpleNamespace):
        return
    ahead_s = time.time() - time.monotonic()
    names["time"] = SimpleNamespace(time=lambda: time.monotonic() + ahead_s)


class _OrderlyStop(Runner):
    """A runner whose counts are the *running* users, and whose ramp-downs only ever ask.

    A user told to stop finishes its task first (a page visit) and stays in `user_greenlets` until then. Locust counts
    it among the running: a class that shrinks and grows again within that time gets too few new users, and once the
    old ones are gone it stays too small. Locust also waits for it inside the greenlet that spawns users, which the
    next spawn message kills: then nobody enforces the stop timeout. Here such a user no longer counts, is never
    told to stop twice, and has its own deadline, the stop timeout. Without a stop timeout everything is Locust's own.
    """

    @property
    def user_classes_count(self) -> dict[str, int]:
        # stop() waits for the users named here; at the end of a run that must be everybody who is still alive.
        if self.state == STATE_CLEANUP:
            return super().user_classes_count
        counts = {user_class.__name__: 0 for user_class in self.user_classes}
        for user in _users(self):
            if not _is_stopping(user):
                counts[type(user).__name__] += 1
        return counts

    def stop_users(self, user_classes_stop_count: dict[str, int]) -> None:
        timeout_s = self.environment.stop_timeout
        if self.state == STATE_CLEANUP or not timeout_s:
            super().stop_users(user_classes_stop_count)
            return
        leaving = []
        for name, n in user_classes_stop_count.items():
            running = [user for user in _users(self) if type(user).__name__ == name and not _is_stopping(user)]
            leaving += running[:n]
        for user in leaving:
            _ask_to_stop(user)
        if leaving:
            deadline = self.greenlet.spawn(_end_by_deadline, [user.greenlet for user in leaving], timeout_s)
            deadline.link_exception(locust_exception_handler(self.environment))


def _users(runner: Runner) -> Iterator[User]:
    for greenlet in list(runner.user_greenlets):
        if greenlet.args:  # gevent clears them when the greenlet is killed, though its on_stop may still run
            yield greenlet.args[0]


def _is_stopping(user: User) -> bool:
    return user._state == LOCUST_STATE_STOPPING


def _ask_to_stop(user: User) -> None:
    """What `User.stop(force=False)` does, but without waiting for one that can go at once."""
    if user._state == LOCUST_STATE_RUNNING:
        user.stop(force=False)
    else:  # between two tasks or not yet begun: nothing is in flight
        user._state = LOCUST_STATE_STOPPING
        user.group.killone(user.greenlet, block=False)


def _end_by_deadline(greenlets: list[gevent.Greenlet], timeout_s: float) -> None:
    gevent.joinall(greenlets, timeout=timeout_s)
    late = [greenlet for greenlet in greenlets if not greenlet.dead]
    if late:
        logger.warning(
            "%d users did not finish within the stop timeout of %g s and are ended now, requests in flight are cut. "
            "Use a longer --stop-timeout.",
            len(late),
            timeout_s,
        )
        gevent.killall(late)

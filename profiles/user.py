"""The Locust user: one shopper after the other on one seat, until it is told to stop.

A session of its own (`profiles.session`) decides what happens; this file gives it real time, a network and an end.
"""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from gevent.event import Event
from locust import FastHttpUser
from locust.env import Environment
from locust.exception import StopTest, StopUser
from locust.user.task import LOCUST_STATE_RUNNING, LOCUST_STATE_WAITING

from profiles import journeys, shop
from profiles.answers import Answer
from profiles.base import SIGNING_IN, Runtime
from profiles.client import ShopClient, tame
from profiles.running import ACCOUNT_POLL_S, RunningSession
from profiles.seats import NoAccountFreeError, Seat
from profiles.session import Outcome, Session, SessionKey

T = TypeVar("T")

logger = logging.getLogger(__name__)


class ShopUser(FastHttpUser):
    """A user of one profile. `profiles.shoppers.user_classes` makes the concrete classes.

    It reads `environment.rl_runtime` (a `profiles.base.Runtime`) when it is made.

    Told to stop, it wakes from any pause at once, finishes the request in flight but not the page, and reports its
    session as truncated. Killed, it loses the request in flight and does the rest all the same.
    """

    abstract = True
    profile_name = ""

    def __init__(self, environment: Environment) -> None:
        runtime = getattr(environment, "rl_runtime", None)
        if not isinstance(runtime, Runtime):
            raise StopTest("The shoppers have no plan: set environment.rl_runtime before users start.")
        plan = runtime.plan
        self.network_timeout = self.connection_timeout = plan.request_timeout_s
        super().__init__(environment)
        tame(self.client)
        self._runtime = runtime
        self._profile = plan.scenario.profiles[self.profile_name]
        self._stop_asked = Event()
        self._seat: Seat | None = None
        self._live: RunningSession | None = None
        self._shop = ShopClient(
            self.client,
            runtime.steering,
            timeout_s=plan.request_timeout_s,
            retries=plan.scenario.retry_attempts,
            retry_delay_s=plan.retry_delay_s,
            dynamics_scale=plan.dynamics_scale,
            sleep=self.pause,
        )

    def next_visit(self) -> str:
        """Waits for the next page visit, ending sessions and beginning new ones on the way; its user action."""
        while True:
            live = self._live or self._begin_session()
            self.pause(live.real_s_until(live.session.due_s))
            if live.is_over():
                self._end_session(live.session.outcome())
                continue
            now = self._runtime.segment_now()
            if live.session.user_id is None and not self._sign_in(now.name):
                live.session.skip_visit(live.now_s(), now.pace)
                continue
            visit = live.session.next_visit(live.now_s(), now.pace, now.weights, now.target_products)
            live.visit = visit
            if visit is not None:
                live.info = live.describe(now.name, visit.user_action)
                return visit.user_action

    def make_visit(self) -> None:
        """Makes the visit that `next_visit` came back for."""
        live = self._live
        assert live is not None and live.visit is not None
        session, visit, info = live.session, live.visit, live.info
        time_scale = self._runtime.plan.time_scale

        def send(step: shop.Step) -> Answer:
            began = time.perf_counter()
            answer = self._shop.send(step, info)
            session.request_took((time.perf_counter() - began) * time_scale)
            return answer

        def think() -> None:
            self.pause(min(visit.think_s(session.profile) / time_scale, live.time_left_s()))

        journeys.run(journeys.page_visit(session, visit), send, think, live.is_over)

    def pause(self, real_s: float) -> None:
        """Sleeps, and wakes at once to raise StopUser when the user is told to stop."""
        if self._stop_asked.wait(real_s):
            raise StopUser

    def check_stop(self) -> None:
        if self._stop_asked.is_set():
            raise StopUser

    def stop(self, force: bool = False) -> bool:
        if self._stop_asked.is_set() and not force:
            return False  # it is on its way already; Locust calls a second order an error
        self._stop_asked.set()
        return bool(super().stop(force))

    def on_stop(self) -> None:
        """Locust calls this however the user ends: told to stop, or killed."""
        live, seat = self._live, self._seat
        self._live = self._seat = None
        try:
            if live is not None:
                ended = live.session.outcome() if live.is_over() else Outcome.TRUNCATED
                self._runtime.on_session_end(live.summary(ended))
        finally:
            self.client.client.close()
            if live is not None:
                self._runtime.accounts.give_back(live.account)
            if seat is not None:
                self._runtime.seats.give_back(seat)

    def _begin_session(self) -> RunningSession:
        runtime, plan = self._runtime, self._runtime.plan
        if self._seat is None:
            self._seat = self._ask(lambda: runtime.seats.take(self.profile_name))
        account = self._lease_account()
        key = SessionKey(plan.seed, self.profile_name, self._seat.slot, self._seat.session)
        self._seat.session += 1
        session = Session(self._profile, key, plan.scenario.catalogue, plan.scenario.addresses)
        live = self._live = RunningSession(
            session,
            account,
            shop.credentials(plan.scenario.name, account),
            runtime.segment_now().name,
            plan.time_scale,
            time.perf_counter,
            runtime.unix_ns,
        )
        self._shop.begin_session(session.reference, self._sign_in_again, live.time_left_s)
        return live

    def _end_session(self, outcome: Outcome) -> None:
        live, self._live = self._live, None
        assert live is not None
        try:
            self._runtime.on_session_end(live.summary(outcome))
        finally:
            self._runtime.accounts.give_back(live.account)

    def _lease_account(self) -> int:
        warned = False
        while True:
            try:
                return self._ask(self._runtime.accounts.lease)
            except NoAccountFreeError as error:
                if not warned:
                    logger.warning("A %s waits for an account: %s.", self.profile_name, error)
                warned = True
            self.pause(ACCOUNT_POLL_S)

    def _ask(self, question: Callable[[], T]) -> T:
        """Asks something that the master may have to answer. A user that waits so is ended at once by Locust."""
        self.check_stop()
        self._state = LOCUST_STATE_WAITING
        answer = question()
        self._state = LOCUST_STATE_RUNNING
        return answer

    def _sign_in(self, phase: str) -> bool:
        """Registers where needed and logs in; whether it worked."""
        live = self._live
        assert live is not None
        session, info, registered = live.session, live.describe(phase, SIGNING_IN), self._runtime.registered
        journeys.run(
            journeys.sign_in(session, live.credentials, live.account in registered),
            send=lambda step: self._shop.send(step, info),
            pause=self.check_stop,
            time_is_over=live.is_over,
        )
        if session.user_id is None:
            return False
        registered.add(live.account)
        self._shop.sign_in(session.token, session.user_id)
        return True

    def _sign_in_again(self) -> bool:
        """The shop does not accept the token any more."""
        live = self._live
        assert live is not None
        live.session.user_id = None
        self._shop.sign_out()
        signed_in = self._sign_in(live.info.phase)
        self.check_stop()
        return signed_in

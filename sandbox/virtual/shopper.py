"""One shopper in virtual time: what `profiles.user.ShopUser` is in real time, as a coroutine on the model's clock.

Sessions, journeys, the rules of trying again and the judging of answers are those of the live shoppers. What is left
out is HTTP: a request goes from the shopper into the world as the object it would be parsed into, and the answer comes
back as the text it would be sent as.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from random import Random
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote

from profiles import journeys, shop
from profiles.answers import Answer, Failure, judge, no_answer
from profiles.base import SIGNING_IN, Call, VisitInfo
from profiles.running import ACCOUNT_POLL_S, RunningSession
from profiles.seats import Accounts, NoAccountFreeError, Seat, Seats
from profiles.session import Outcome, Session, SessionKey, SessionSummary, Visit
from profiles.tries import SIGN_IN, Patience, Try, Wait, tries
from sandbox.balancer import Exchange
from sandbox.clock import VirtualClock
from sandbox.gauges import Deadline, TimeoutLine
from sandbox.proxy import answer_of
from sandbox.shop.calls import Request
from sandbox.world import World
from scenario.plan import Plan, Segment

NETWORK_S = 0.002
"""Real seconds that a request spends between shopper and balancer, there and back: what it is between Locust and the
sandbox on one machine (measured: 1.6 to 2.0 ms). All of it is spent on the way there."""

SHORTEST_WAIT_S = 1e-6
"""A wait that is lost in the rounding of the clock would never end: the time it waits for would never come."""

Life = Generator[Try | float, Any, None]
"""What a shopper does: yields a request to send and is sent its answer, or real seconds to wait."""

_LOW_64 = (1 << 64) - 1
_CATALOGUE = frozenset({shop.CATEGORY, shop.PRODUCT, shop.SEARCH})


class Ledger(Protocol):
    """Who is told of every request and session."""

    def begin(self, call: Call) -> Any:
        """A request is about to be sent: sets `call.start_ns`, tick, action and propensity."""

    def ended(self, call: Call, exchange: Exchange | None, duration_us: int, response_bytes: int) -> None:
        """It has ended; what came of it is in `call`. No exchange: the shopper gave up before the balancer answered."""

    def session_ended(self, summary: SessionSummary) -> None: ...


@dataclass
class Floor:
    """What all shoppers of a run share."""

    plan: Plan
    clock: VirtualClock
    world: World
    ledger: Ledger
    now_ns: Callable[[], int]  # wall-clock time
    network_s: float = NETWORK_S
    seats: Seats = field(default_factory=Seats)
    registered: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        plan = self.plan
        self.accounts = Accounts(range(plan.accounts))
        self.patience = Patience(
            plan.request_timeout_s, plan.scenario.retry_attempts, plan.retry_delay_s, plan.dynamics_scale
        )
        self.timeouts = TimeoutLine(self.clock, plan.request_timeout_s)
        self.traces = Random(f"{plan.seed}/traces")
        self._catalogue_answers: dict[tuple[shop.Endpoint, str], Answer] = {}

    def segment_now(self) -> Segment:
        """What holds now; the last segment while users end after the plan's end."""
        return self.plan.segment_at(self.clock.now()) or self.plan.segments[-1]

    def judged(self, step: shop.Step, exchange: Exchange) -> tuple[Answer, int]:
        """What a shopper makes of the answer, and its length in bytes."""
        endpoint = step.endpoint
        status, body, come_back = answer_of(exchange, endpoint.service, target_of(step.path)[0])
        if status == 200 and endpoint in _CATALOGUE:  # texts that never change are read once
            known = self._catalogue_answers.get((endpoint, body))
            if known is None:
                known = self._catalogue_answers[endpoint, body] = judge(endpoint, status, body.encode())
            return known, len(body)
        data = body.encode()
        retry_after = str(self.world.parameters.retry_after) if come_back else None
        return judge(endpoint, status, data, retry_after), len(data)


@lru_cache(4096)
def target_of(path: str) -> tuple[str, dict[str, str]]:
    """Path without the service and query of a step's path, as the balancer reads them. Nobody changes the query.

    >>> target_of("/inventory-service/api/inventory/search?query=Table%20Lamp")
    ('/api/inventory/search', {'query': 'Table Lamp'})
    """
    place, _, query = path.partition("?")
    return "/" + unquote(place).split("/", 2)[2], dict(parse_qsl(query, keep_blank_values=True))


class Shopper:
    """One seat's shopper after the other, from `start` until it was told to `stop`; `on_left` is called once."""

    def __init__(self, floor: Floor, profile: str, on_left: Callable[["Shopper"], None]) -> None:
        self.profile_name = profile
        self._floor = floor
        self._clock = floor.clock
        self._on_left = on_left
        self._profile = floor.plan.scenario.profiles[profile]
        self._time_scale = floor.plan.time_scale
        self._random: Random  # of the pauses before another try; the seat's
        self._stop_asked = False
        self._timer: Any = None
        self._running: RunningSession | None = None
        self._seat: Seat | None = None
        self._reference = ""
        self._token: str | None = None
        self._info: VisitInfo | None = None
        self._try: Try | None = None  # in flight
        self._call: Call | None = None
        self._sent_s = 0.0
        self._exchange: Exchange | None = None
        self._deadline: Deadline | None = None
        self._life = self._live()

    def start(self) -> None:
        """Come in."""
        self._go_on(None)

    def stop(self) -> None:
        """Leave: at once, or when the request in flight has ended."""
        self._stop_asked = True
        if self._timer is not None:
            self._timer.cancel()
            self._leave()

    # The coroutine and the clock

    def _wake(self) -> None:
        self._timer = None
        self._go_on(None)

    def _go_on(self, value: Any) -> None:
        while True:
            order = self._life.send(value)
            if isinstance(order, Try):
                self._send(order)
                return
            if self._stop_asked:
                self._leave()
                return
            if order > 0.0:
                self._timer = self._clock.call_later(max(order, SHORTEST_WAIT_S), self._wake)
                return
            value = None

    def _leave(self) -> None:
        self._life.close()
        floor, running = self._floor, self._running
        if running is not None:
            outcome = running.session.outcome() if running.is_over() else Outcome.TRUNCATED
            floor.ledger.session_ended(running.summary(outcome))
            floor.accounts.give_back(running.account)
        if self._seat is not None:
            floor.seats.give_back(self._seat)
        self._on_left(self)

    def _send(self, order: Try) -> None:
        floor, endpoint = self._floor, order.step.endpoint
        trace = floor.traces.getrandbits(128) or 1
        assert self._info is not None
        call = Call(
            self._info,
            endpoint.service,
            endpoint.method,
            endpoint.call,
            order.attempt,
            trace >> 64,
            trace & _LOW_64,
        )
        floor.ledger.begin(call)
        self._call, self._try, self._exchange = call, order, None
        self._sent_s = self._clock.now()
        self._deadline = floor.timeouts.start(partial(self._gave_up, call))
        self._clock.call_later(floor.network_s, partial(self._arrive, call))

    def _arrive(self, call: Call) -> None:
        order = self._try
        if call is not self._call or order is None:
            return  # given up on the way
        step = order.step
        path, query = target_of(step.path)
        request = Request(step.endpoint.method, path, query, step.body, self._token, self._reference)
        exchange = self._floor.world.send(call.service, request, partial(self._answered, call), action=call.action)
        if call is self._call:
            self._exchange = exchange

    def _answered(self, call: Call, exchange: Exchange) -> None:
        order = self._try
        assert order is not None
        answer, response_bytes = self._floor.judged(order.step, exchange)
        self._end(call, answer, exchange, response_bytes)

    def _gave_up(self, call: Call) -> None:
        if self._exchange is not None:
            self._exchange.cancel()
        self._end(call, no_answer(Failure.TIMEOUT, "Timeout"), None, 0)

    def _end(self, call: Call, answer: Answer, exchange: Exchange | None, response_bytes: int) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._call = self._try = self._exchange = self._deadline = None
        call.ok = answer.failure is None
        call.failure = answer.failure.value if answer.failure is not None else None
        call.status = answer.status
        call.backend_status = answer.backend_status
        duration_us = round((self._clock.now() - self._sent_s) * 1e6)
        self._floor.ledger.ended(call, exchange, duration_us, response_bytes)
        self._go_on(answer)

    # What it does

    def _live(self) -> Life:
        while True:
            running = yield from self._begin_session()
            session = running.session
            while True:
                yield running.real_s_until(session.due_s)
                if running.is_over():
                    break
                now = self._floor.segment_now()
                if session.user_id is None and not (yield from self._sign_in(now.name)):
                    session.skip_visit(running.now_s(), now.pace)
                    continue
                visit = session.next_visit(running.now_s(), now.pace, now.weights, now.target_products)
                if visit is not None:
                    self._info = running.info = running.describe(now.name, visit.user_action)
                    yield from self._make_visit(running, visit)
                    yield 0.0
            self._end_session(session.outcome())

    def _begin_session(self) -> Generator[float, Any, RunningSession]:
        floor = self._floor
        if self._seat is None:
            self._seat = floor.seats.take(self.profile_name)
            seat = f"{self.profile_name}/{self._seat.slot}/{self._seat.session}"
            self._random = Random(f"{floor.plan.seed}/{seat}/pauses")
        account = yield from self._lease_account()
        scenario = floor.plan.scenario
        key = SessionKey(floor.plan.seed, self.profile_name, self._seat.slot, self._seat.session)
        self._seat.session += 1
        session = Session(self._profile, key, scenario.catalogue, scenario.addresses)
        running = self._running = RunningSession(
            session,
            account,
            shop.credentials(scenario.name, account),
            floor.segment_now().name,
            self._time_scale,
            self._clock.now,
            floor.now_ns,
        )
        self._reference, self._token = session.reference, None
        return running

    def _lease_account(self) -> Generator[float, Any, int]:
        while True:
            try:
                return self._floor.accounts.lease()
            except NoAccountFreeError:
                yield ACCOUNT_POLL_S

    def _end_session(self, outcome: Outcome) -> None:
        running, self._running = self._running, None
        assert running is not None
        self._floor.ledger.session_ended(running.summary(outcome))
        self._floor.accounts.give_back(running.account)

    def _make_visit(self, running: RunningSession, visit: Visit) -> Life:
        session, now = running.session, self._clock.now
        walking = journeys.walk(journeys.page_visit(session, visit), running.is_over)
        answer: Answer | None = None
        while True:
            try:
                step = walking.send(answer)
            except StopIteration:
                return
            if step is None:
                answer = None
                yield min(visit.think_s(session.profile) / self._time_scale, running.time_left_s())
                continue
            began_s = now()
            answer = yield from self._try_step(step, running)
            session.request_took((now() - began_s) * self._time_scale)

    def _sign_in(self, phase: str) -> Generator[Try | float, Any, bool]:
        """Registers where needed and logs in; whether it worked."""
        running = self._running
        assert running is not None
        session, registered = running.session, self._floor.registered
        before, self._info = self._info, running.describe(phase, SIGNING_IN)
        journey = journeys.sign_in(session, running.credentials, running.account in registered)
        walking = journeys.walk(journey, running.is_over)
        answer: Answer | None = None
        while True:
            try:
                step = walking.send(answer)
            except StopIteration:
                break
            if step is None:
                answer = None
                yield 0.0
            else:
                answer = yield from self._try_step(step, running)
        self._info = before
        if session.user_id is None:
            return False
        registered.add(running.account)
        self._token = session.token
        return True

    def _try_step(self, step: shop.Step, running: RunningSession) -> Generator[Try | float, Any, Answer]:
        walk = tries(step, self._floor.patience, self._random, running.time_left_s)
        result: Any = None
        while True:
            try:
                order = walk.send(result)
            except StopIteration as done:
                answer: Answer = done.value
                return answer
            if isinstance(order, Try):
                result = yield order
            elif isinstance(order, Wait):
                result = yield order.real_s
            else:
                assert order is SIGN_IN
                result = yield from self._sign_in_again(running)

    def _sign_in_again(self, running: RunningSession) -> Generator[Try | float, Any, bool]:
        """The shop does not accept the token any more."""
        running.session.user_id = None
        self._token = None
        signed_in = yield from self._sign_in(running.info.phase)
        yield 0.0
        return signed_in

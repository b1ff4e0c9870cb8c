"""The balancer of one service: choose, send, retry where that is safe, and account for everything.

    request --> choose --> send to the instance --> answer --> on_answer(exchange)
                  |  ^                                |
          refuse: 503  '-- circuit_breaker only: GET, or no byte was delivered, and the budget has one

The state of the instances (`Backend`) is one for all strategies. Every request is counted in flight at its instance
from sending until it is answered, times out or its client goes away, whichever is first, and exactly once.
"""

from collections.abc import Callable, Sequence

from sandbox.backend import Backend
from sandbox.breaker import RetryBudget
from sandbox.clock import Clock
from sandbox.gauges import Deadline, TimeoutLine
from sandbox.instance import Ended, Job
from sandbox.parameters import Parameters
from sandbox.strategies import DEFAULT_ACTION, make_strategies

MAX_ATTEMPTS = 3  # every instance once

TIMEOUT_CODE, LOST_CODE, CLIENT_GONE_CODE = 504, 502, 499
"""Codes in the counts for a request without an answer: timed out, refused or reset, client went away."""

_CODE_OF_END = {
    Ended.FAILED: 500,
    Ended.FULL: 503,
    Ended.EXPIRED: 503,
    Ended.REFUSED: LOST_CODE,
    Ended.RESET: LOST_CODE,
}
_FLAG_OF_END = {
    Ended.FAILED: "failed",
    Ended.FULL: "queue_full",
    Ended.EXPIRED: "queue_timeout",
    Ended.REFUSED: "refused",
    Ended.RESET: "reset",
}


class Exchange:
    """One request on its way through the balancer, and in the end its answer."""

    __slots__ = (
        "_balancer",
        "_deadline",
        "_job",
        "_sent_s",
        "_ticket",
        "action",
        "attempts",
        "backend",
        "code",
        "finished",
        "flags",
        "in_flight_at_choice",
        "method",
        "on_answer",
        "pin",
        "queue_s",
        "response",
        "served",
        "tried",
        "upstream_s",
        "work",
    )

    def __init__(
        self,
        balancer: "Balancer",
        method: str,
        action: str,
        pin: str | None,
        work: Callable[[Job, Backend], None] | None,
        on_answer: Callable[["Exchange"], None],
    ) -> None:
        self._balancer = balancer
        self._deadline: Deadline | None = None
        self._job: Job | None = None
        self._sent_s = 0.0
        self._ticket = 0
        self.method = method
        self.action = action
        self.pin = pin
        self.work = work
        self.on_answer: Callable[[Exchange], None] = on_answer
        self.attempts = 0
        self.tried: tuple[Backend, ...] = ()
        self.finished = False
        self.flags: tuple[str, ...] = ()  # what was special, in order
        self.backend: Backend | None = None  # the instance of the last attempt
        self.in_flight_at_choice = 0  # there, before this request
        self.upstream_s = 0.0  # of the last attempt
        self.queue_s = 0.0  # at the instance, of the last attempt
        self.code = 0  # of the instance; *_CODE without an answer; 503 with no instance contacted
        self.served = False  # True when the shop answered, whatever its status
        self.response: object = None  # the shop's answer

    def cancel(self) -> None:
        """The client went away: give up at once. In a queue the request is taken out, in a worker it runs on."""
        if not self.finished:
            self._balancer.client_gone(self)


class Balancer:
    """See the module. `action` is the service's control action: it serves requests that ask for none.

    `statement` are the headers that say who chose it; none where that was somebody else.
    """

    def __init__(self, service: str, backends: Sequence[Backend], clock: Clock, parameters: Parameters) -> None:
        self.service = service
        self.backends = tuple(backends)
        self.action = DEFAULT_ACTION
        self.statement: tuple[tuple[bytes, bytes], ...] = ()
        self.refused_codes: dict[tuple[str, int], int] = {}  # (action, code): answers without an instance
        self.received = 0
        self.answered = 0
        self.failed = 0  # of those answered: no answer of the shop, or one of 500 and above
        self._clock = clock
        self._parameters = parameters
        self._strategies = make_strategies(parameters)
        self._budget = RetryBudget(parameters)
        self._timeouts = TimeoutLine(clock, parameters.request_timeout_s)
        self._healthy = self.backends
        self._health_timer = clock.call_later(parameters.health_check_every_s, self._check_health)

    @property
    def in_flight(self) -> int:
        """Requests at instances, as the balancer counts them."""
        return sum(backend.in_flight for backend in self.backends)

    def send(
        self,
        method: str,
        on_answer: Callable[[Exchange], None],
        *,
        work: Callable[[Job, Backend], None] | None = None,
        action: str | None = None,
        pin: str | None = None,
    ) -> Exchange:
        """Send one request. `work(job, backend)` makes the instance's answer; `on_answer` is called once, possibly
        before this returns, and never after `Exchange.cancel`."""
        exchange = Exchange(self, method, action or self.action, pin, work, on_answer)
        self.received += 1
        self._attempt(exchange)
        return exchange

    def client_gone(self, exchange: Exchange) -> None:
        """See `Exchange.cancel`."""
        backend = exchange.backend
        if backend is not None:
            self._give_up(exchange, backend)
            backend.breaker.forget(exchange._ticket)
            backend.count(self._clock.now(), exchange.action, CLIENT_GONE_CODE, exchange.upstream_s)
        exchange.finished = True
        self.answered += 1

    def close(self) -> None:
        """No more health checks; requests under way still get their answers."""
        self._health_timer.cancel()

    # Choosing

    def _attempt(self, exchange: Exchange) -> None:
        candidates: Sequence[Backend] = self._healthy
        if exchange.tried:
            candidates = [backend for backend in candidates if backend not in exchange.tried]
        if not candidates:
            self._refuse(exchange, "no_healthy_instance")
            return
        now_s = self._clock.now()
        backend = self._pinned(exchange) if exchange.pin is not None else None
        if backend is None:
            strategy = self._strategies[exchange.action]
            backend = strategy.choose(candidates, now_s)
            if backend is None:
                self._refuse(exchange, strategy.refusal)
                return
        self._send_to(exchange, backend, now_s)

    def _pinned(self, exchange: Exchange) -> Backend | None:
        """The instance that was asked for, even a sick one; a name that we do not have is ignored, and flagged."""
        for backend in self.backends:
            if backend.name == exchange.pin:
                exchange.flags += ("pinned",)
                return backend
        exchange.flags += ("unknown_pin",)
        return None

    def _refuse(self, exchange: Exchange, flag: str) -> None:
        exchange.flags += (flag,)
        exchange.code = 503
        key = (exchange.action, 503)
        self.refused_codes[key] = self.refused_codes.get(key, 0) + 1
        self._answer(exchange)

    def _send_to(self, exchange: Exchange, backend: Backend, now_s: float) -> None:
        exchange.backend = backend
        exchange.attempts += 1
        exchange.in_flight_at_choice = backend.in_flight
        exchange._sent_s = now_s
        if exchange.action == "circuit_breaker":
            exchange._ticket = backend.breaker.admit(now_s)
            if exchange.attempts == 1:
                self._budget.earn()
        else:
            exchange._ticket = backend.breaker.watch(now_s)
        backend.in_flight += 1
        backend.seen_s = now_s
        if exchange._deadline is None:  # one timeout for all attempts together
            exchange._deadline = self._timeouts.start(lambda: self._timed_out(exchange))
        work = exchange.work
        exchange._job = None
        job = backend.instance.submit(
            lambda job, ended: self._ended(exchange, backend, job, ended),
            None if work is None else lambda job: work(job, backend),
        )
        if not exchange.finished and exchange.backend is backend:  # else it was refused at once
            exchange._job = job

    # Ends

    def _ended(self, exchange: Exchange, backend: Backend, job: Job, ended: Ended) -> None:
        now_s = self._clock.now()
        backend.in_flight -= 1
        exchange.upstream_s = now_s - exchange._sent_s
        exchange.queue_s = job.queue_s if ended is not Ended.EXPIRED else exchange.upstream_s
        if ended is Ended.SERVED:
            exchange.served = True
            exchange.response = job.response
            code = getattr(job.response, "status", 200)
        else:
            exchange.flags += (_FLAG_OF_END[ended],)
            code = _CODE_OF_END[ended]
        exchange.code = code
        heard = ended is not Ended.REFUSED and ended is not Ended.RESET
        if heard:
            backend.reported_queue = backend.instance.queue_depth
            backend.observe_latency(now_s, exchange.upstream_s)
        backend.breaker.record(exchange._ticket, code < 500, now_s)
        backend.count(now_s, exchange.action, code, exchange.upstream_s)
        if code >= 500 and self._may_retry(exchange, ended):
            exchange.tried += (backend,)
            exchange.flags += ("retried",)
            exchange.served = False
            exchange.response = None
            self._attempt(exchange)
        else:
            self._answer(exchange)

    def _may_retry(self, exchange: Exchange, ended: Ended) -> bool:
        """Only where the request cannot take effect twice, another instance is there, and the budget allows it."""
        if exchange.action != "circuit_breaker" or exchange.attempts >= MAX_ATTEMPTS or exchange.pin is not None:
            return False
        if exchange.method != "GET" and ended is not Ended.REFUSED:
            return False
        now_s = self._clock.now()
        others = any(
            other is not exchange.backend and other not in exchange.tried and other.breaker.allows(now_s)
            for other in self._healthy
        )
        return others and self._budget.spend()

    def _timed_out(self, exchange: Exchange) -> None:
        backend = exchange.backend
        if exchange.finished or backend is None:
            return
        now_s = self._clock.now()
        self._give_up(exchange, backend)
        exchange.flags += ("timeout",)
        exchange.code = TIMEOUT_CODE
        backend.observe_latency(now_s, exchange.upstream_s)
        backend.breaker.record(exchange._ticket, False, now_s)
        backend.count(now_s, exchange.action, TIMEOUT_CODE, exchange.upstream_s)
        self._answer(exchange)

    def _give_up(self, exchange: Exchange, backend: Backend) -> None:
        """Stop waiting for the instance; nothing it still does with the request is ours any more."""
        backend.in_flight -= 1
        exchange.upstream_s = self._clock.now() - exchange._sent_s
        if exchange._deadline is not None:
            exchange._deadline.cancel()
        if exchange._job is not None:
            backend.instance.abandon(exchange._job)
            exchange.queue_s = exchange._job.queue_s

    def _answer(self, exchange: Exchange) -> None:
        exchange.finished = True
        if exchange._deadline is not None:
            exchange._deadline.cancel()
        self.answered += 1
        if exchange.code >= 500:
            self.failed += 1
        exchange.on_answer(exchange)

    # Health checks

    def _check_health(self) -> None:
        """Asks whether somebody listens, as shallow checks do: an instance that answers errors passes."""
        for backend in self.backends:
            if backend.instance.up:
                backend.failed_checks = 0
                backend.healthy = True
            else:
                backend.failed_checks += 1
                backend.healthy = backend.failed_checks < self._parameters.health_check_failures
        self._healthy = tuple(backend for backend in self.backends if backend.healthy)
        self._health_timer = self._clock.call_later(self._parameters.health_check_every_s, self._check_health)

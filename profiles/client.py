"""Sending the shopper's requests with Locust's fast HTTP client.

Every try is one request event and one truthful row: the client below is kept from repeating, redirecting or raising on
its own, and what came of a request is in its `Call` before the event fires.
"""

import time
from collections.abc import Callable
from random import Random
from typing import Any

import brotli  # type: ignore[import-untyped]
from gevent import Timeout
from geventhttpclient.client import HTTPClient, HTTPClientPool
from locust.contrib.fasthttp import FastHttpSession, LocustUserAgent

from profiles import shop
from profiles.answers import Answer, Failure, judge, no_answer
from profiles.base import Call, Steering, VisitInfo
from profiles.tries import Patience, Try, Wait, tries


class Unrepeating(HTTPClientPool):
    """Connections of one user, without the repeats of geventhttpclient.

    It sends a GET, PUT or DELETE again, up to its pool's size, when the connection was closed before the answer. The
    server then sees requests of which there is no row. Dead idle connections are noticed before they are used.
    """

    def get_client(self, url: Any) -> HTTPClient:
        client = super().get_client(url)
        client._connection_pool.size = -1  # read for nothing but the number of repeats, which is size + 1
        return client


class PlainAgent(LocustUserAgent):
    """Reports every answer as it is: no status is an exception."""

    valid_response_codes = frozenset(range(100, 1000))


def tame(session: FastHttpSession) -> None:
    """Gives the session an agent that makes exactly the requests it is asked for and reports each of them."""
    stock = session.client
    session.client = PlainAgent(
        client_pool=Unrepeating(**stock.clientpool.client_args),
        cookiejar=session.cookiejar,
        headers=stock.default_headers,
        max_retries=0,
        max_redirects=0,
    )


class ShopClient:
    """The requests of one user: headers, judging, and trying again by the rules of `profiles.tries`.

    `sleep(seconds)` is the user's: it raises when the user was told to stop.
    """

    def __init__(
        self,
        session: FastHttpSession,
        steering: Steering,
        *,
        timeout_s: float,
        retries: int,
        retry_delay_s: float,
        dynamics_scale: float,
        sleep: Callable[[float], None],
    ) -> None:
        self._session = session
        self._steering = steering
        self._timeout_s = timeout_s
        self._patience = Patience(timeout_s, retries, retry_delay_s, dynamics_scale)
        self._sleep = sleep
        # Trace ids and retry pauses are no choices of the session: they must differ from run to run.
        self._random = Random()
        self._headers: dict[str, str] = {}
        self.begin_session("", lambda: False, lambda: float("inf"))

    def begin_session(
        self, reference: str, sign_in_again: Callable[[], bool], time_left_s: Callable[[], float]
    ) -> None:
        """A new shopper: new identity, no cookies. `time_left_s` is the session's, in real seconds."""
        self._session.cookiejar.clear()
        # Without compression there is nothing to unpack, which is cheap and cannot fail.
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity", "X-Session-ID": reference}
        self._sign_in_again = sign_in_again
        self._time_left_s = time_left_s

    def sign_in(self, token: str, user_id: str) -> None:
        self._headers["Authorization"] = f"Bearer {token}"
        self._headers["X-User-ID"] = user_id

    def sign_out(self) -> None:
        self._headers.pop("Authorization", None)
        self._headers.pop("X-User-ID", None)

    def send(self, step: shop.Step, visit: VisitInfo) -> Answer:
        """Sends a step as often as the rules of `profiles.tries` say; the answer that counts."""
        walk = tries(step, self._patience, self._random, self._time_left_s)
        result: Any = None
        while True:
            try:
                order = walk.send(result)
            except StopIteration as done:
                answer: Answer = done.value
                return answer
            if isinstance(order, Try):
                result = self._try(order.step, visit, order.attempt)
            elif isinstance(order, Wait):
                result = self._sleep(order.real_s)
            else:
                result = self._sign_in_again()

    def _try(self, step: shop.Step, visit: VisitInfo, attempt: int) -> Answer:
        """One request, one event. The whole answer is read within the request timeout."""
        endpoint = step.endpoint
        trace = self._random.getrandbits(128) or 1
        call = Call(visit, endpoint.service, endpoint.method, endpoint.call, attempt, trace >> 64, trace & _LOW_64)
        headers = {**self._headers, "X-Trace-Id": f"{trace:032x}"}
        payload = step.payload
        if payload is not None:
            headers["Content-Type"] = "application/json"
        headers.update(self._steering.begin(call))
        began_s = time.perf_counter()
        timer = Timeout.start_new(self._timeout_s)
        try:
            response = self._session.request(
                endpoint.method,
                step.path,
                name=endpoint.key,
                data=payload,
                headers=headers,
                catch_response=True,
                context={"call": call},
            )
        except (ValueError, brotli.error) as error:
            # A body in an encoding that we did not ask for: the client raises instead of reporting.
            timer.close()
            return self._report_unreadable(step, call, began_s, error)
        finally:
            timer.close()
        with response:
            answer = _answer(endpoint, response)
            _fill(call, answer)
            if answer.ok:
                response.success()  # type: ignore[no-untyped-call]
            else:
                response.failure(answer.reason)  # type: ignore[no-untyped-call]
        return answer

    def _report_unreadable(self, step: shop.Step, call: Call, began_s: float, error: Exception) -> Answer:
        answer = no_answer(Failure.CONTENT, type(error).__name__)
        _fill(call, answer)
        self._session.request_event.fire(
            request_type=call.method,
            name=step.endpoint.key,
            response_time=(time.perf_counter() - began_s) * 1e3,
            response_length=0,
            response=None,
            context={"call": call},
            exception=error,
            start_time=call.start_ns / 1e9,
            url=step.path,
        )
        return answer


_LOW_64 = (1 << 64) - 1


def _answer(endpoint: shop.Endpoint, response: Any) -> Answer:
    """The answer in an entered response; trouble on the way is in the event's exception."""
    error = response.request_meta["exception"]
    if error is not None:
        cause = getattr(error, "original", error)
        kind = Failure.TIMEOUT if isinstance(cause, TimeoutError | Timeout) else Failure.CONNECTION
        return no_answer(kind, type(cause).__name__, response.status_code)
    return judge(endpoint, response.status_code, response.content or b"", response.headers.get("retry-after"))


def _fill(call: Call, answer: Answer) -> None:
    call.ok = answer.failure is None
    call.failure = answer.failure.value if answer.failure is not None else None
    call.status = answer.status
    call.backend_status = answer.backend_status

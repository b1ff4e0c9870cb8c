"""When a request is sent again: the rules of a patient shopper, without a network and a clock.

`tries` is a generator that says what to do next and is sent what came of it; it returns the answer that counts:

    Try(step, attempt)   one request                                     -> its Answer
    Wait(seconds)        a pause, real seconds                           -> nothing
    SIGN_IN              the shop does not accept the token any more     -> whether signing in again worked

Who sends requests walks it: `profiles.client` with Locust, `sandbox.virtual` on a virtual clock.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from profiles import shop
from profiles.answers import UNAUTHORIZED, Answer, Failure, no_answer

LONGEST_PAUSE_DOUBLINGS = 6


@dataclass(slots=True)
class Try:
    """Send this step now; `attempt` is 1 for the first time."""

    step: shop.Step
    attempt: int


@dataclass(slots=True)
class Wait:
    """Wait before what comes next."""

    real_s: float


class SignIn:
    """Sign in again."""


SIGN_IN: Final = SignIn()

Tries = Generator[Try | Wait | SignIn, Any, Answer]


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how fast a shopper tries again. Times are real seconds."""

    timeout_s: float
    retries: int
    retry_delay_s: float
    dynamics_scale: float

    def pause_s(self, retries: int, answer: Answer, random: Random) -> float:
        """The pause before another try: it doubles each time and is spread by half of it; longer if the shop asks."""
        backoff_s = self.retry_delay_s * 2.0 ** min(retries, LONGEST_PAUSE_DOUBLINGS) * random.uniform(0.5, 1.5)
        asked_s = min(answer.retry_after_s / self.dynamics_scale, self.timeout_s)
        return max(backoff_s, asked_s)


def tries(step: shop.Step, patience: Patience, random: Random, time_left_s: Callable[[], float]) -> Tries:
    """Tries a step until it is answered well, is not worth another try, or the tries are used up.

    `time_left_s` is the session's, in real seconds.
    """
    attempt, retries, signed_in_again = 1, 0, step.endpoint in (shop.LOGIN, shop.REGISTER)
    while True:
        answer: Answer = yield Try(step, attempt)
        if answer.ok:
            return answer
        if answer.meant_status == UNAUTHORIZED and not step.account_known:
            if signed_in_again or not (yield SIGN_IN):
                return answer
            signed_in_again = True
            attempt += 1
            continue
        may_have_worked = step.lookup is not None and (attempt > 1 or not answer.refused)
        again = answer.worth_retrying and retries < patience.retries
        pause_s = patience.pause_s(retries, answer, random)
        if not step.finishes and pause_s >= time_left_s():
            again = False
            pause_s = 0.0
        if again or may_have_worked:
            yield Wait(pause_s)
        if may_have_worked:
            found = yield from _look_up(step, patience, random, time_left_s)
            if found is None or found.ok:
                return found or answer
        if not again:
            return answer
        retries += 1
        attempt += 1


def _look_up(
    step: shop.Step, patience: Patience, random: Random, time_left_s: Callable[[], float]
) -> Generator[Try | Wait | SignIn, Any, Answer | None]:
    """What became of a step whose answer was lost: its answer, a failure when it did nothing, None: not known."""
    assert step.lookup is not None
    answer = yield from tries(step.lookup.step, patience, random, time_left_s)
    if not answer.ok:
        return None
    learned = step.lookup.find(answer.learned)
    if learned is None:
        return no_answer(Failure.CONTENT, "no effect")
    return Answer(answer.status, 0, None, "", learned)

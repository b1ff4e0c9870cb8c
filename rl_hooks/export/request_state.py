"""What was known about a service at the moment a request to it began.

Exact for what our own requests say, with the rows of all workers. Gauges and quantiles change only from decision to
decision, so a request is joined with the observation of the decision in force (`decision_tick`) instead of carrying 40
columns of its own.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.decision import SERVICES
from rl_hooks.export import align
from rl_hooks.run_reader import Run
from scenario.plan import Plan

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

STATE = ("in_flight", "response_time_mean_ms", "error_rate", "request_rate_rps")
"""The features that every request has of its own; they mean what they mean in an observation."""


def request_state(run: Run, plan: Plan, service: Array, start_ns: Array) -> dict[str, Floats]:
    """STATE for requests that began at `start_ns`: of what happened strictly before, NaN where it is not known."""
    window_ns = align.spans_of(plan).window_ns
    sent = np.concatenate((run.requests["start_ns"], run.in_flight["start_ns"])).astype(np.int64)
    sent_to = np.concatenate((run.requests["service"], run.in_flight["service"]))
    gone_ns = np.concatenate((align.end_ns(run.requests), align.given_up_ns(run, plan)))
    state = {name: np.full(len(start_ns), np.nan) for name in STATE}
    for index in range(len(SERVICES)):
        mine = np.flatnonzero(service == index)
        t_ns = np.asarray(start_ns)[mine].astype(np.int64)
        begun, gone = (np.sort(times[sent_to == index]) for times in (sent, gone_ns))
        state["in_flight"][mine] = np.searchsorted(begun, t_ns) - np.searchsorted(gone, t_ns)
        ended = Ended.of(run.requests[run.requests["service"] == index])
        count, failed, total_ms = ended.within(t_ns - window_ns, t_ns)
        state["request_rate_rps"][mine] = count / (window_ns / 1e9)
        state["response_time_mean_ms"][mine] = _ratio(total_ms, count)
        state["error_rate"][mine] = _ratio(failed, count)
    return state


class Ended:
    """Requests in order of their end; answers how many ended in a window, how many of them failed, how long all took.

    >>> ended = Ended(np.array([5, 10, 20]), np.array([0, 1, 0]), np.array([2.0, 4.0, 8.0]))
    >>> [values.tolist() for values in ended.within(np.array([5]), np.array([20]))]
    [[2], [1], [6.0]]
    """

    def __init__(self, end_ns: Array, failed: Array, took_ms: Array) -> None:
        order = np.argsort(end_ns, kind="stable")
        self._end_ns = end_ns[order]
        self._failed = np.append(0, np.cumsum(failed[order]))
        self._took_ms = np.append(0.0, np.cumsum(took_ms[order]))

    @classmethod
    def of(cls, requests: Array) -> "Ended":
        """Of rows of the requests table."""
        return cls(align.end_ns(requests), (requests["ok"] == 0).astype(np.int64), requests["duration_us"] / 1000)

    def within(self, since_ns: Array, until_ns: Array) -> tuple[Array, Array, Array]:
        """Count, failed and summed milliseconds of those that ended in [since, until), for each pair of moments."""
        first, last = (np.searchsorted(self._end_ns, moments) for moments in (since_ns, until_ns))
        return last - first, self._failed[last] - self._failed[first], self._took_ms[last] - self._took_ms[first]


def _ratio(part: Array, whole: Array) -> Floats:
    result: Floats = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return result

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
from rl_hooks.request_log import end_ns
from scenario.plan import Plan

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

STATE = ("in_flight", "response_time_mean_ms", "error_rate", "request_rate_rps")
"""The features that every request has of its own; they mean what they mean in an observation."""


class RequestStates:
    """STATE of the requests of one run, which come in order of their start, a table at a time.

    What it keeps are the requests that are in flight or in the window.
    """

    def __init__(self, plan: Plan) -> None:
        self._window_ns = align.spans_of(plan).window_ns
        self._give_up_ns = round(plan.request_timeout_s * 1e9)
        # Of each service: requests sent and gone before those in the arrays, and the times of those; and what ended.
        self._sent = [0] * len(SERVICES)
        self._sent_ns = [np.empty(0, np.int64)] * len(SERVICES)
        self._gone = [0] * len(SERVICES)
        self._gone_ns = [np.empty(0, np.int64)] * len(SERVICES)
        self._ended = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64))] * len(SERVICES)

    def of(self, rows: Array, known: Array) -> dict[str, Floats]:
        """Of what happened strictly before each start, NaN where it is not known; `known`: whose end is known.

        `rows` are all requests that began from the last ones of the call before on.
        """
        state = {name: np.full(len(rows), np.nan) for name in STATE}
        for index in range(len(SERVICES)):
            mine = np.flatnonzero(rows["service"] == index)
            if len(mine):
                for name, values in self._of_service(index, rows[mine], known[mine]).items():
                    state[name][mine] = values
        return state

    def _of_service(self, index: int, rows: Array, known: Array) -> dict[str, Floats]:
        t_ns = rows["start_ns"].astype(np.int64)
        until_ns = np.where(known, end_ns(rows), t_ns + self._give_up_ns)
        gone_ns = np.sort(np.append(self._gone_ns[index], until_ns))
        new = (until_ns[known], (rows["ok"][known] == 0).astype(np.int64), rows["duration_us"][known].astype(np.int64))
        ended_ns, failed, took_us = (np.append(old, more) for old, more in zip(self._ended[index], new, strict=True))
        sent_ns = np.append(self._sent_ns[index], t_ns)
        begun = self._sent[index] + np.searchsorted(sent_ns, t_ns)
        count, failures, total_us = Ended(ended_ns, failed, took_us).within(t_ns - self._window_ns, t_ns)
        state = {
            "in_flight": (begun - self._gone[index] - np.searchsorted(gone_ns, t_ns)).astype(np.float64),
            "request_rate_rps": count / (self._window_ns / 1e9),
            "response_time_mean_ms": _ratio(total_us / 1000, count),
            "error_rate": _ratio(failures, count),
        }
        before, past = (int(np.searchsorted(times, t_ns[-1])) for times in (sent_ns, gone_ns))
        self._sent[index] += before
        self._sent_ns[index] = sent_ns[before:]
        self._gone[index] += past
        self._gone_ns[index] = gone_ns[past:]
        kept = ended_ns >= t_ns[-1] - self._window_ns
        self._ended[index] = (ended_ns[kept], failed[kept], took_us[kept])
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

    def within(self, since_ns: Array, until_ns: Array) -> tuple[Array, Array, Array]:
        """Count, failed and summed milliseconds of those that ended in [since, until), for each pair of moments."""
        first, last = (np.searchsorted(self._end_ns, moments) for moments in (since_ns, until_ns))
        return last - first, self._failed[last] - self._failed[first], self._took_ms[last] - self._took_ms[first]


def _ratio(part: Array, whole: Array) -> Floats:
    result: Floats = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return result

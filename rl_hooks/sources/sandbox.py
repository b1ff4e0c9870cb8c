"""Metrics of the embedded sandbox: `GET /state` at the root of the balancer."""

import math
import time
from collections.abc import Mapping
from typing import Any

import requests

from rl_hooks.control import InstanceSample, Sample, SourceError
from rl_hooks.decision import SERVICE_INDEX

TIMEOUT_S = 2.0


class SandboxSource:
    """Reads the state of all instances in one request over one kept connection."""

    def __init__(self, root: str) -> None:
        self._url = f"{root}/state"
        self._session = requests.Session()

    def describe(self) -> str:
        return "sandbox"

    def sample(self) -> Sample:
        """The state of all instances. Raises SourceError when there is no answer or one of another form."""
        try:
            answer = self._session.get(self._url, timeout=TIMEOUT_S)
            answer.raise_for_status()
            return parse_state(answer.json(), time.time_ns())
        except (requests.RequestException, ValueError) as error:
            raise SourceError(f"GET {self._url}: {error}") from error


def parse_state(state: Any, received_ns: int) -> Sample:
    """Turn the JSON of `/state` into a sample. Raises ValueError when it has another form.

    A value out of its range becomes missing: better a gap than nonsense.
    """
    try:
        instances = tuple(
            _instance(SERVICE_INDEX[service], name, values)
            for service, report in sorted(state["services"].items())
            for name, values in sorted(report["instances"].items())
        )
        return Sample(int(state["t_unix_ns"]), received_ns, instances)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not the state of a sandbox ({type(error).__name__}: {error})") from error


def _instance(service: int, name: str, values: Mapping[str, Any]) -> InstanceSample:
    return InstanceSample(
        service=service,
        instance=name,
        cpu=_within(values.get("cpu"), 0, 1),
        memory=_within(values.get("memory"), 0, 1),
        health=_within(values.get("health"), 0, 1),
        queue_depth=_within(values.get("queue_depth"), 0, 1e6),
        in_flight=_within(values.get("in_flight"), 0, 1e6),
        capacity=_within(values.get("capacity"), 0, 1e9),
        requests_total=int(values.get("requests_total", 0)),
        errors_total=int(values.get("errors_total", 0)),
        up=values["up"] if isinstance(values.get("up"), bool) else None,
    )


def _within(value: Any, low: float, high: float) -> float:
    known = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    return float(value) if known else math.nan

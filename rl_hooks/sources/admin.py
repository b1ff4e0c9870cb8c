"""Metrics by a balancer's admin API, at its root beside the proxy."""

import json
import time
from functools import partial
from typing import Any

from rl_hooks.control import Sample, SourceError
from rl_hooks.decision import SERVICES
from rl_hooks.sources.admin_api import instances_of, parse_metrics, parse_services
from rl_hooks.sources.asking import Asked, Session

TIMEOUT_S = 1.0


class AdminSource:
    """Asks for the services and for the metrics of each, all at once."""

    def __init__(self, root: str) -> None:
        self._limit_s = TIMEOUT_S
        self._root = root
        paths = ("/api/services", *(f"/api/metrics/{service}" for service in SERVICES))
        self._asked = [Asked(f"{root}{path}", partial(self._get, path, Session())) for path in paths]

    def describe(self) -> str:
        return "admin"

    def limit(self, seconds: float) -> None:
        """A sample may take no longer."""
        self._limit_s = min(self._limit_s, seconds)

    def sample(self) -> Sample:
        """What the balancer says now. Raises SourceError without the services, or without the metrics of any.

        The metrics of a service that does not answer are missing.
        """
        t_ns, until_s = time.time_ns(), time.monotonic() + self._limit_s
        for asked in self._asked:
            asked.begin()
        listed, *by_service = self._asked
        metrics, wrong = {}, []
        try:
            services = parse_services(listed.take(until_s))
            for service, asked in enumerate(by_service):
                try:
                    metrics[service] = parse_metrics(asked.take(until_s))
                except (SourceError, ValueError) as error:
                    wrong.append(f"{SERVICES[service]}: {error}")
        except ValueError as error:
            raise SourceError(f"GET {self._root}/api/services: {error}") from error
        if not metrics:
            raise SourceError("; ".join(wrong))
        return Sample(t_ns, time.time_ns(), instances_of(services, metrics))

    def _get(self, path: str, session: Session) -> Any:
        """In a thread of its own."""
        body = session.get(f"{self._root}{path}", self._limit_s)
        try:
            return json.loads(body)
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise SourceError(f"GET {self._root}{path}: not JSON ({error})") from error

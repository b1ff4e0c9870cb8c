"""Metrics by Envoy's admin interface: `GET /clusters?format=json`."""

import json
import time
from typing import Any

from rl_hooks.control import Sample, SourceError
from rl_hooks.sources.asking import Asked, Session, problem_of_url
from rl_hooks.sources.envoy_clusters import parse_clusters

TIMEOUT_S = 1.0


class EnvoySource:
    """Reads the Envoy whose admin interface has the URL `argument`."""

    def __init__(self, root: str | None, argument: str) -> None:
        """Raises SourceError for what is no URL."""
        del root  # the interface of all sources; the admin interface has an address of its own
        if (problem := problem_of_url(argument)) is not None:
            raise SourceError(problem)
        self._url = f"{argument.rstrip('/')}/clusters"
        self._name = f"envoy:{argument}"
        self._limit_s = TIMEOUT_S
        self._session = Session()
        self._asked = Asked(self._url, self._get)

    def describe(self) -> str:
        return self._name

    def limit(self, seconds: float) -> None:
        """A sample may take no longer."""
        self._limit_s = min(self._limit_s, seconds)

    def sample(self) -> Sample:
        """What Envoy counts now. Raises SourceError."""
        t_ns, until_s = time.time_ns(), time.monotonic() + self._limit_s
        self._asked.begin()
        try:
            instances = parse_clusters(self._asked.take(until_s))
        except ValueError as error:
            raise SourceError(f"GET {self._url}: {error}") from error
        if not instances:
            way_out = "name the clusters so that they begin with the service's name"
            raise SourceError(f"GET {self._url}: no cluster is one of our services; {way_out}")
        return Sample(t_ns, time.time_ns(), instances)

    def _get(self) -> Any:
        """In a thread of its own."""
        return json.loads(self._session.get(self._url, self._limit_s, {"format": "json"}))

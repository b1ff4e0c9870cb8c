"""What a serving policy tells about itself: Prometheus metrics at /metrics, and /healthz for a probe."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import make_wsgi_app

from rl_hooks.control import Step
from rl_hooks.decision import ACTIONS, SERVICES

PREFIX = "rl_serve"
STEP_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
PROPENSITY_BUCKETS = (0.02, 0.05, 0.1, 0.2, 0.5, 0.9, 0.99, 1.0)
HEALTHY_INTERVALS = 3.0  # the loop decides in time while its last decision is no older


class Metrics:
    """All of them, in a registry of their own. `policy`: facts that do not change, as labels of one info metric."""

    def __init__(self, policy: Mapping[str, str]) -> None:
        self.registry = CollectorRegistry()
        self.decisions = self._make(Counter, "decisions", "Decisions made", ["service", "action", "policy"])
        self.propensity = self._make(
            Histogram,
            "propensity",
            "Probability of the action taken, under the policy that took it",
            ["service"],
            buckets=PROPENSITY_BUCKETS,
        )
        self.age_s = self._make(Gauge, "telemetry_age_seconds", "Age of the newest fact; NaN: none yet", ["kind"])
        self.fallback = self._make(Gauge, "fallback_active", "1 while the fallback decides")
        self.fallbacks = self._make(Counter, "fallbacks", "Times the fallback took over", ["reason"])
        self.step_s = self._make(
            Histogram, "step_seconds", "From reading the metrics to the decision recorded", buckets=STEP_BUCKETS_S
        )
        self.skipped = self._make(Counter, "skipped_ticks", "Decision intervals that were missed")
        self._rows = self._make(Counter, "rows", "Rows recorded", ["table"])
        self._lines = self._make(Counter, "access_log_lines", "Lines read of the access log, by kind", ["kind"])
        self._counted: dict[tuple[str, str], int] = {}
        self.errors = self._make(Counter, "errors", "What failed while deciding went on", ["part"])
        for part in ("source", "actuator", "policy", "access_log"):
            self.errors.labels(part)
        self._make(Info, "policy", "The policy that serves").info(dict(policy))

    def decided(self, step: Step) -> None:
        """One interval's decisions."""
        for decision in step.decisions:
            service = SERVICES[decision.service]
            self.decisions.labels(service, ACTIONS[decision.action], decision.policy).inc()
            self.propensity.labels(service).observe(decision.propensity)

    def count_rows(self, table: str, total: int) -> None:
        """There are `total` rows in a table now."""
        self._raise_to(self._rows, "rows", table, total)

    def count_lines(self, kind: str, total: int) -> None:
        """`total` lines of a kind were read by now."""
        self._raise_to(self._lines, "lines", kind, total)

    def watch_age(self, kind: str, newest_ns: Callable[[], int | None]) -> None:
        """Tell the age of the newest fact of a kind as it is when somebody asks."""

        def age_s() -> float:
            t_ns = newest_ns()
            return math.nan if t_ns is None else (time.time_ns() - t_ns) / 1e9

        self.age_s.labels(kind).set_function(age_s)

    def _raise_to(self, counter: Any, name: str, label: str, total: int) -> None:
        counter.labels(label).inc(total - self._counted.get((name, label), 0))
        self._counted[name, label] = total

    def _make(self, kind: Any, name: str, text: str, labels: Iterable[str] = (), **special: Any) -> Any:
        return kind(f"{PREFIX}_{name}", text, list(labels), registry=self.registry, **special)


class Health:
    """Whether the loop decides in time."""

    def __init__(self, interval_s: float) -> None:
        self._limit_s = HEALTHY_INTERVALS * interval_s
        self._decided_s: float | None = None

    def decided(self) -> None:
        self._decided_s = time.monotonic()

    def complaint(self) -> str | None:
        """What is wrong, None: nothing."""
        if self._decided_s is None:
            return "no decision yet"
        age_s = time.monotonic() - self._decided_s
        return f"the last decision is {age_s:.1f} s old" if age_s > self._limit_s else None


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class names it so)
        """A scrape every few seconds is no news."""


class Endpoint:
    """Serves both pages in a thread of its own from construction until `close`. OSError when the port is taken."""

    def __init__(self, metrics: Metrics, health: Health, host: str, port: int) -> None:
        scrape = make_wsgi_app(metrics.registry)

        def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            path = environ.get("PATH_INFO", "")
            if path == "/metrics":
                pages: Iterable[bytes] = scrape(environ, start_response)
                return pages
            status, text = _health_page(health) if path == "/healthz" else (HTTPStatus.NOT_FOUND, "try /metrics")
            body = f"{text}\n".encode()
            length = str(len(body))
            headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", length)]
            start_response(f"{status.value} {status.phrase}", headers)
            return [body]

        self._server = make_server(host, port, app, _Server, _Quiet)
        self.port: int = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _health_page(health: Health) -> tuple[HTTPStatus, str]:
    complaint = health.complaint()
    return (HTTPStatus.OK, "ok") if complaint is None else (HTTPStatus.SERVICE_UNAVAILABLE, complaint)

"""One instance as an HTTP server: what it answers, without sockets. A real service, not a balancer.

Its statuses are its own (401 is 401, and not a balancer's 502), and with every answer it tells how it is: how long the
request waited and took, what is inside, and the load report of ORCA that balancers read (`endpoint-load-metrics`).

Calls between services come as requests too, to `/internal/calls/<number>`: the number names work that the caller left
in `Calls`, as two services that share a database would name a row of it. They are load like any other.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from urllib.parse import parse_qsl

from sandbox.backend import Backend
from sandbox.instance import Ended, Instance, Job
from sandbox.outside.calls import INTERNAL, Calls
from sandbox.proxy import HEALTH_PATH, METHODS, BadBodyError, Headers, HttpReply, HttpRequest, parse_json, read_headers
from sandbox.shop.calls import Request, Response, encode_json
from sandbox.stage import Stage
from sandbox.world import World

Answer = Callable[[HttpReply | None], None]

_STATUS_OF_END = {Ended.FAILED: 500, Ended.FULL: 503, Ended.EXPIRED: 503}
_TEXT_OF_END = {Ended.FAILED: "failed", Ended.FULL: "queue full", Ended.EXPIRED: "queue timeout"}
RESET_CODE = 502
"""In the counts: the instance died with the request in its hands, and nobody got an answer."""


@dataclass(slots=True)
class Visit:
    """A request inside an instance."""

    instance: Instance
    job: Job

    def cancel(self) -> None:
        """Whoever asked went away: out of the queue; in a worker it runs on."""
        self.instance.abandon(self.job)


class Door:
    """The instance `number` (from 0) of `service`, in whatever world is on."""

    def __init__(self, stage: Stage, calls: Calls, service: str, number: int) -> None:
        self._stage = stage
        self._calls = calls
        self._service = service
        self._number = number

    def open(self, request: HttpRequest, answer: Answer) -> Visit | None:
        """Handle a request; `answer` is called once, possibly before this returns; None ends the connection without
        an answer, as a process that dies does. The visit can be cancelled; None when nothing was begun."""
        world = self._stage.world
        backend = world.balancers[self._service].backends[self._number]
        asked = read_headers(request.headers)
        trace: Headers = [] if asked.trace_id is None else [(b"x-trace-id", asked.trace_id)]
        if request.method == "GET" and request.path == HEALTH_PATH:
            health = {"status": "UP", "service": self._service, "instance": backend.name}
            answer(_reply(200, encode_json(health), trace))
            return None
        if request.method not in METHODS:
            allow = ", ".join(METHODS)
            answer(error_reply(405, f"Method not allowed: use {allow}", [*trace, (b"allow", allow.encode())]))
            return None
        if request.path.startswith(INTERNAL):
            work = partial(self._run_call, request.path, backend.instance)
        else:
            try:
                body = parse_json(request.body)
            except BadBodyError as error:
                answer(error_reply(400, f"Malformed JSON body: {error}", trace))
                return None
            query = dict(parse_qsl(request.query.decode("latin-1"), keep_blank_values=True))
            self._stage.note_request()
            shop = Request(request.method, request.path, query, body, asked.token, asked.session_id)
            work = partial(world.work, self._service, shop, backend.instance)
        job = backend.instance.submit(lambda job, ended: self._over(world, backend, job, ended, trace, answer), work)
        return None if job.over else Visit(backend.instance, job)

    def _run_call(self, path: str, instance: Instance, job: Job) -> None:
        instance.reply(job, self._calls.run(path))

    def _over(self, world: World, backend: Backend, job: Job, ended: Ended, trace: Headers, answer: Answer) -> None:
        """The request has ended: count it, and say so."""
        now_s = world.clock.now()
        response = job.response if ended is Ended.SERVED and isinstance(job.response, Response) else None
        code = response.status if response is not None else _STATUS_OF_END.get(ended, RESET_CODE)
        balancer = world.balancers[self._service]
        balancer.answered += 1
        balancer.failed += code >= 500
        if ended is not Ended.REFUSED:
            backend.count(now_s, "", code, now_s - job.submitted_s)
        if code == RESET_CODE and response is None:
            answer(None)
            return
        headers = [*trace, *_load_headers(world, backend, job, ended)]
        if response is not None:
            answer(_reply(code, response.body or "", headers))
        else:
            answer(error_reply(code, f"{backend.name}: {_TEXT_OF_END[ended]}", headers))


def error_reply(status: int, text: str, headers: Headers) -> HttpReply:
    """An error of the service's own."""
    return _reply(status, encode_json({"error": text}), headers)


def _reply(status: int, body: str, headers: Headers) -> HttpReply:
    data = body.encode()
    if status != HTTPStatus.NO_CONTENT:
        headers = [*headers, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))]
    return HttpReply(status, headers, data)


def _load_headers(world: World, backend: Backend, job: Job, ended: Ended) -> Headers:
    """How the instance is, as this answer leaves it. CPU, rates and errors are means over the last seconds."""
    instance, now_s = backend.instance, world.clock.now()
    inside_s = now_s - job.submitted_s
    queue_s = inside_s if ended is Ended.EXPIRED else job.queue_s
    load = {
        "cpu_utilization": round(instance.cpu(), 4),
        "mem_utilization": round(instance.memory(), 4),
        "application_utilization": round(instance.in_flight / instance.workers, 4),
        "rps_fractional": round(backend.recent_total.rate(now_s), 3),
        "eps": round(backend.recent_errors.rate(now_s), 3),
        "named_metrics": {
            "workers": instance.workers,
            "capacity": backend.capacity,
            "queue_depth": instance.queue_depth,
            "in_flight": instance.in_flight,
        },
    }
    return [
        (b"x-queue-ms", b"%.3f" % (queue_s * 1000)),
        (b"x-service-ms", b"%.3f" % ((inside_s - queue_s) * 1000)),
        (b"x-queue-depth", b"%d" % instance.queue_depth),
        (b"x-inflight", b"%d" % instance.in_flight),
        (b"endpoint-load-metrics", b"JSON " + json.dumps(load, separators=(",", ":")).encode()),
    ]

"""What the sandbox answers outside /proxy: health, state, metrics, and control over actions and faults.

None of it asks who is calling: it is meant for the loopback interface.
"""

from collections.abc import Callable, Mapping

from rl_hooks.decision import ACTIONS
from sandbox import metrics
from sandbox.faults import FaultError
from sandbox.proxy import BadBodyError, HttpReply, HttpRequest, json_reply, parse_json, text_reply
from sandbox.stage import LoadError, Stage, read_load

PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Control:
    """See the module. `unix_ns` tells the time of day; `balancer` describes one that is a process of its own."""

    def __init__(
        self,
        stage: Stage,
        base_url: str,
        unix_ns: Callable[[], int],
        balancer: Mapping[str, str] | None = None,
    ) -> None:
        def state(_: HttpRequest) -> HttpReply:
            if balancer is not None:
                return json_reply(200, metrics.outside_state(stage.world, unix_ns(), balancer))
            return json_reply(200, metrics.state(stage.world, unix_ns(), stage.client_requests))

        def text(_: HttpRequest) -> HttpReply:
            told = metrics.prometheus(stage.world) if balancer is None else metrics.outside_prometheus(stage.world)
            return text_reply(200, told, PROMETHEUS_TYPE)

        self._stage = stage
        self._base_url = base_url
        self._unix_ns = unix_ns
        self._routes: dict[str, dict[str, Callable[[HttpRequest], HttpReply]]] = {
            "/actuator/health": {"GET": lambda _: json_reply(200, {"status": "UP"})},
            "/state": {"GET": state},
            "/metrics": {"GET": text},
            "/api/services": {"GET": lambda _: json_reply(200, metrics.services(stage.world, base_url))},
            "/control/load": {"PUT": self._set_load},
            "/control/actions": {"GET": self._actions, "PUT": self._set_actions},
            "/control/faults": {"GET": self._faults, "POST": self._inject, "DELETE": self._lift_all},
        }

    def handle(self, request: HttpRequest) -> HttpReply:
        """The answer to a request outside /proxy."""
        path = request.path
        methods = self._routes.get(path)
        if methods is None and path.startswith("/api/metrics/"):
            methods = {"GET": self._service_metrics}
        if methods is None and path.startswith("/control/faults/"):
            methods = {"DELETE": self._lift}
        if methods is None:
            return json_reply(404, {"error": "not found: the shop is under /proxy/<service>/, see also /state"})
        handler = methods.get(request.method)
        if handler is None:
            allow = ", ".join(methods)
            return json_reply(405, {"error": f"Method not allowed: use {allow}"}, [(b"allow", allow.encode())])
        return handler(request)

    def _service_metrics(self, request: HttpRequest) -> HttpReply:
        balancer = self._stage.world.balancers.get(request.path.removeprefix("/api/metrics/"))
        if balancer is None:
            return _problems(404, [f"service: must be one of {', '.join(self._stage.world.balancers)}"])
        return json_reply(200, metrics.service_metrics(balancer, self._stage.world.clock.now()))

    def _set_load(self, request: HttpRequest) -> HttpReply:
        """Be ready for another load; the answer says what was made of it."""
        try:
            self._stage.set_load(read_load(parse_json(request.body)))
        except BadBodyError as error:
            return _problems(400, [f"not JSON: {error}"])
        except LoadError as error:
            return _problems(400, list(error.problems))
        return json_reply(200, {"lines": self._stage.world.sizing.describe()})

    def _actions(self, request: HttpRequest) -> HttpReply:
        del request
        return json_reply(200, {"actions": {name: one.action for name, one in self._stage.world.balancers.items()}})

    def _set_actions(self, request: HttpRequest) -> HttpReply:
        """All or nothing; services that are not named keep their action."""
        try:
            body = parse_json(request.body)
        except BadBodyError as error:
            return _problems(400, [f"not JSON: {error}"])
        actions = body.get("actions") if isinstance(body, dict) and set(body) == {"actions"} else None
        if not isinstance(actions, dict) or not actions:
            return _problems(400, ['must be {"actions": {"<service>": "<action>"}} with at least one service'])
        problems = [
            f"{service[:40]!r}: service must be one of {', '.join(self._stage.world.balancers)}"
            for service in actions
            if service not in self._stage.world.balancers
        ]
        problems += [
            f"{service[:40]}: action must be one of {', '.join(ACTIONS)}"
            for service, action in actions.items()
            if action not in ACTIONS
        ]
        if problems:
            return _problems(400, problems)
        if self._stage.world.decides is not None:
            way_out = "start it without --decides, or leave the actions to it (--actuator observe)"
            return _problems(409, [f"this sandbox decides by itself ({self._stage.world.decides.policy}): {way_out}"])
        self._stage.world.set_actions(actions)
        return self._actions(request)

    def _faults(self, request: HttpRequest) -> HttpReply:
        del request
        return json_reply(200, {"faults": self._stage.world.faults.active()})

    def _inject(self, request: HttpRequest) -> HttpReply:
        try:
            fault_id = self._stage.world.faults.inject(parse_json(request.body))
        except BadBodyError as error:
            return _problems(400, [f"not JSON: {error}"])
        except FaultError as error:
            return _problems(400, list(error.problems))
        return json_reply(201, {"id": fault_id})

    def _lift(self, request: HttpRequest) -> HttpReply:
        if not self._stage.world.faults.lift(request.path.removeprefix("/control/faults/")):
            return _problems(404, ["no such fault acts now; GET /control/faults lists those that do"])
        return json_reply(200, {"lifted": 1})

    def _lift_all(self, request: HttpRequest) -> HttpReply:
        del request
        return json_reply(200, {"lifted": self._stage.world.faults.lift_all()})


def _problems(status: int, problems: list[str]) -> HttpReply:
    return json_reply(status, {"error": "; ".join(problems), "problems": problems})

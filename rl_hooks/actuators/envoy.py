"""Steering Envoy by its runtime: the route of the action in force matches, those of the others do not.

Envoy's routes ask for the runtime key `rl.<service>.<action>` by `runtime_fraction`; 100 lets every request through
that carries no action of its own, 0 none.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

import requests

from rl_hooks.control import ActuatorError
from rl_hooks.decision import ACTIONS
from rl_hooks.http_call import CallError, answered, holds_login, send
from scenario.errors import Problem, ScenarioError

TIMEOUT_S = 2.0
IN_FORCE, NOT_IN_FORCE = 100, 0  # percent, of routes whose fraction has the denominator HUNDRED


class EnvoyActuator:
    def __init__(self, root: str, admin: str) -> None:
        del root  # the interface of all actuators; the admin interface listens elsewhere
        self._name = f"envoy:{admin}"
        self._url = f"{_checked(self._name, admin)}/runtime_modify"
        self._session = requests.Session()

    def describe(self) -> str:
        return self._name

    def apply(self, actions: Mapping[str, str]) -> None:
        """Set the keys of all services in one call, which Envoy takes as a whole: it knows them also after a restart.

        Raises ActuatorError when it does not take them.
        """
        shown = f"POST {self._url}"
        keys = {key: str(value) for service, action in actions.items() for key, value in runtime(service, action)}
        try:
            answer = send(self._session, "POST", self._url, TIMEOUT_S, shown, params=keys)
            if answer.status != 200 or answer.text.strip() != "OK":
                raise answered(shown, answer)
        except CallError as error:
            raise ActuatorError(str(error)) from error


def runtime(service: str, action: str) -> list[tuple[str, int]]:
    """The runtime keys of a service and their values when `action` is in force.

    >>> runtime("cart-service", "round_robin")[2]
    ('rl.cart-service.round_robin', 100)
    """
    return [(f"rl.{service}.{name}", IN_FORCE if name == action else NOT_IN_FORCE) for name in ACTIONS]


def _checked(name: str, admin: str) -> str:
    """The address of the admin interface, without a slash at its end. Raises ScenarioError."""
    if holds_login(admin):
        problem = Problem("the URL", "holds a user or a password, which the manifest would show", "Leave it out")
        raise ScenarioError("envoy", [problem])
    try:
        parts = urlsplit(admin)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.query:
            return admin.rstrip("/")
        why = "is no address of Envoy's admin interface"
    except ValueError as error:
        why = f"is no address ({error})"
    raise ScenarioError(name, [Problem(admin, why, "Write for example envoy:http://127.0.0.1:9901")])

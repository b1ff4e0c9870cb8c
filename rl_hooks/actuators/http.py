"""Steering by a call of the balancer's admin API that a file describes (`rl_hooks.actuators.http_file`)."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests

from rl_hooks.actuators.http_file import read_switch_file
from rl_hooks.control import ActuatorError
from rl_hooks.decision import SERVICES
from rl_hooks.http_call import CallError, address_of, answered, send
from rl_hooks.places import fill

EVERY_SERVICE = "*"
_NOT_AGAIN = ": not asked again"  # after a call to the same host of which the error tells


@dataclass(frozen=True)
class _Told:
    """What a switch was last told with success, and when."""

    algorithm: str
    at_s: float


class HttpActuator:
    """Tells a switch only what changed since it last took something, and all of it after a failure.

    `one_for_all`: there is one switch for all services. `missing_actions`: those the balancer does not have.
    """

    def __init__(self, root: str, file: str, now_s: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._name = f"http:{file}"
        self._file = read_switch_file(file)
        self._session = requests.Session()
        self._now_s = now_s
        self._told: dict[str, _Told] = {}  # service, or EVERY_SERVICE -> what is in force there
        self.missing_actions = self._file.missing_actions
        self.one_for_all = self._file.one_for_all

    def describe(self) -> str:
        return self._name

    def apply(self, actions: Mapping[str, str]) -> None:
        """Set each service's algorithm. Raises ActuatorError that names the services where it could not be."""
        if self.one_for_all and len(set(actions.values())) > 1:
            names = ", ".join(sorted(set(actions.values())))
            raise ActuatorError(f"{self._file.call}: one switch for all services cannot be set to {names} at once")
        switches = {EVERY_SERVICE: next(iter(actions.values()))} if self.one_for_all and actions else actions
        failed: dict[str, str] = {}
        silent: set[str] = set()  # hosts that did not answer: the rest of the decision does not wait for them again
        for switch, action in switches.items():
            try:
                self._set(switch, action, silent)
            except CallError as error:
                self._told.pop(switch, None)  # it may have been heard all the same
                failed[switch] = str(error)
        if failed:
            services = frozenset(SERVICES) if EVERY_SERVICE in failed else frozenset(failed)
            texts = [text for text in dict.fromkeys(failed.values()) if not text.endswith(_NOT_AGAIN)]
            raise ActuatorError("; ".join(texts), services)

    def _set(self, switch: str, action: str, silent: set[str]) -> None:
        algorithm = self._file.algorithms.get(action)
        if algorithm is None:
            raise CallError(f"the balancer has no {action}")
        told, now_s = self._told.get(switch), self._now_s()
        if told is not None and told.algorithm == algorithm and now_s - told.at_s < self._file.repeat_s:
            return
        self._call({"service": switch, "algorithm": algorithm}, silent)
        self._told[switch] = _Told(algorithm, now_s)

    def _call(self, values: Mapping[str, str], silent: set[str]) -> None:
        method, url = address_of(self._root, self._file.call, values)
        host, template = urlsplit(url).netloc, self._file.call.split(" ", 1)[1]
        shown = f"{method} {self._root if template.startswith('/') else ''}{template}"
        if host in silent:
            raise CallError(f"{shown}{_NOT_AGAIN}")
        try:
            answer = send(
                self._session,
                method,
                url,
                self._file.timeout_s,
                shown,
                json=fill(self._file.body, values),
                headers=self._file.headers,
            )
        except CallError:
            silent.add(host)
            raise
        if answer.status not in self._file.expect:
            raise answered(shown, answer)

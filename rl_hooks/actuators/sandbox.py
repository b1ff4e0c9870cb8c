"""Steering the sandbox by its control API, so that calls between services follow the decision too.

The users' own requests carry the header as well; both say the same.
"""

from collections.abc import Mapping

import requests

from rl_hooks.control import ActuatorError

TIMEOUT_S = 2.0


class SandboxActuator:
    def __init__(self, root: str) -> None:
        self._url = f"{root}/control/actions"
        self._session = requests.Session()

    def describe(self) -> str:
        return "sandbox"

    def apply(self, actions: Mapping[str, str]) -> None:
        """Set the strategy of each service. Raises ActuatorError when the sandbox does not take it."""
        try:
            answer = self._session.put(self._url, json={"actions": dict(actions)}, timeout=TIMEOUT_S)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise ActuatorError(f"PUT {self._url}: {error}") from error

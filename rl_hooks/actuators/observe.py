"""No steering: the balancer decides by itself, and its answers say what it did.

Requests carry no action. Which action was applied, with which probability and by which policy is read from the answers
(X-LB-Action, X-LB-Propensity, X-LB-Policy, X-LB-Decision-Id); docs/observe.md.
"""

from collections.abc import Mapping


class ObserveActuator:
    observes = True  # nothing is drawn and nothing is sent; see `Controller.step`

    def __init__(self, root: str) -> None:
        del root  # the interface of all actuators; there is nothing to tell

    def describe(self) -> str:
        return "observe"

    def apply(self, actions: Mapping[str, str]) -> None:
        """Never called: there are no actions of ours."""
        raise NotImplementedError(f"the balancer decides by itself, and is not to be told {dict(actions)}")

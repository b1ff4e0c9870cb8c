"""Stands where the logging policy does when the balancer decides by itself: nothing of ours is drawn."""

from collections.abc import Sequence

from rl_hooks.policies.builtin import PolicyError

OBSERVED = "observed"


class Observed:
    def describe(self) -> str:
        return OBSERVED

    def probabilities(self, previous: int | None, observation: Sequence[float] | None = None) -> tuple[float, ...]:
        """There are none of ours. Raises PolicyError."""
        raise PolicyError("the balancer decides by itself, so nothing is drawn; leave --actuator observe out to draw")

"""What happens to an instance by itself: antagonists, stop-the-world pauses and incidents, each at random times.

Every instance has its own weather with its own generator, so what happens to one does not depend on the traffic.
"""

import math
from collections.abc import Callable
from random import Random

from sandbox.clock import Clock
from sandbox.instance import Effect, Instance
from sandbox.parameters import Parameters


class Weather:
    """The weather of one instance, from now on until `end`."""

    def __init__(self, instance: Instance, clock: Clock, rng: Random, parameters: Parameters) -> None:
        self._instance = instance
        self._clock = clock
        self._rng = rng
        self._p = parameters
        self._over = False
        self._after(parameters.antagonist_every_s, self._antagonist_comes)
        self._after(parameters.pause_every_s, self._pause)
        self._after(parameters.incident_every_s, self._incident_begins)

    def end(self) -> None:
        """Nothing happens from now on."""
        self._over = True

    def _after(self, mean_s: float, happen: Callable[[], None]) -> None:
        if not self._over:
            self._clock.call_later(self._rng.expovariate(1.0 / mean_s), happen)

    def _antagonist_comes(self) -> None:
        share = self._rng.uniform(self._p.antagonist_share_low, self._p.antagonist_share_high)
        self._instance.set_effect("weather: antagonist", Effect(antagonist=share))
        self._after(self._p.antagonist_for_s, self._antagonist_goes)

    def _antagonist_goes(self) -> None:
        self._instance.remove_effect("weather: antagonist")
        self._after(self._p.antagonist_every_s, self._antagonist_comes)

    def _pause(self) -> None:
        self._instance.pause(self._rng.lognormvariate(math.log(self._p.pause_median_s), self._p.pause_sigma))
        self._after(self._p.pause_every_s, self._pause)

    def _incident_begins(self) -> None:
        """Half of the incidents fail fast, half are slow."""
        fails = self._rng.random() < 0.5
        effect = (
            Effect(error_rate=self._p.incident_error_rate)
            if fails
            else Effect(latency_factor=self._p.incident_latency_factor)
        )
        self._instance.set_effect("weather: incident", effect)
        self._after(self._p.incident_for_s, self._incident_ends)

    def _incident_ends(self) -> None:
        self._instance.remove_effect("weather: incident")
        self._after(self._p.incident_every_s, self._incident_begins)

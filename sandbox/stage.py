"""The world that is on now, and what it is told to expect.

A load that is announced (`PUT /control/load`) brings a new world on, sized for it, on the same clock and port. So a
sandbox that runs all day is right for every run, at any time scale. What was ordered in the world before is gone;
requests under way there still get their answers.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rl_hooks.decision import SERVICES
from sandbox.balancer import Balancer
from sandbox.shop.catalogue import DEFAULT_CATALOGUE, CatalogueError, Product, check_catalogue
from sandbox.sizing import ExpectError, check_expectation
from sandbox.world import World

IDLE_S = 1.0
"""Real seconds without a client's request after which a run counts as over."""


class LoadError(ValueError):
    """A load that makes no sense; `problems` are all that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Load:
    """What to be ready for."""

    time_scale: float = 1.0
    expected_rps: Mapping[str, float] | None = None  # by endpoint key, without fan-out; None: the modest default
    products: tuple[Product, ...] = DEFAULT_CATALOGUE


class Stage:
    """See the module. `build` makes a world for a load."""

    def __init__(self, build: Callable[[Load], World], load: Load) -> None:
        self._build = build
        self._earlier: list[Mapping[str, Balancer]] = []  # of earlier worlds, which may still answer
        self.client_requests = 0  # requests from outside that asked a service for something, health aside
        self._last_request_s = -math.inf
        self.on_new_world: Callable[[], object] = lambda: None  # told when another one is on
        self.world = build(load)

    def note_request(self) -> None:
        """A request from outside asks a service for something."""
        self.client_requests += 1
        self._last_request_s = self.world.clock.now()

    def set_load(self, load: Load) -> None:
        """Bring the world for `load` on. LoadError while somebody else's run is going on: it would lose its world."""
        idle_s = self.world.clock.now() - self._last_request_s
        if idle_s < IDLE_S:
            way_out = "wait until it has ended, or start a sandbox of your own with --port 0"
            raise LoadError([f"another run is going on here, its last request came {idle_s:.1f} s ago; {way_out}"])
        old, self.world = self.world, self._build(load)
        self._earlier.append(old.balancers)
        old.close()
        self.on_new_world()

    def tally(self) -> Mapping[str, tuple[int, int]]:
        """Requests (answered, failed) per service since the start, calls between services included."""
        worlds = [*self._earlier, self.world.balancers]
        return {
            service: (sum(one[service].answered for one in worlds), sum(one[service].failed for one in worlds))
            for service in SERVICES
        }


def read_load(content: object) -> Load:
    """`{"time_scale": S, "expect": {endpoint key: calls/s}, "products": [...]}`; raises LoadError with all problems."""
    if not isinstance(content, dict):
        raise LoadError(["must be an object with time_scale, expect and products"])
    problems = [f"{str(key)[:40]}: unknown field" for key in content if key not in ("time_scale", "expect", "products")]
    scale = content.get("time_scale")
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not 0.0 < scale < 1e6:
        problems.append("time_scale: must be a number above 0, for example 45")
    expected: Mapping[str, float] = {}
    products: tuple[Product, ...] = ()
    try:
        expected = check_expectation(content.get("expect"))
    except ExpectError as error:
        problems += [f"expect: {problem}" for problem in error.problems]
    try:
        products = check_catalogue(content.get("products"))
    except CatalogueError as error:
        problems += [f"products: {problem}" for problem in error.problems]
    if problems or not isinstance(scale, int | float):
        raise LoadError(problems)
    return Load(float(scale), expected, products)

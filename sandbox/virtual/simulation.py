"""A plan in virtual time: the sandbox's world, the shoppers, and the plan's users and faults, on one virtual clock.

    decisions   |       |       |       |       |      every decision interval, by whoever owns the simulation
    events       ..  . ....  .. .  .... .  ..  .       shoppers and the model, each at its own time
    users       |   |   |   |   |   |   |   |   |      once a second, as Locust asks its shape

At one moment a decision comes first, so a request that is sent at that moment is sent under it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random

from rl_hooks.faults.schedule import Change, changes
from sandbox.clock import VirtualClock
from sandbox.parameters import Parameters
from sandbox.shop.catalogue import Product
from sandbox.sizing import Sizing, size
from sandbox.virtual.shopper import NETWORK_S, Floor, Ledger, Shopper
from sandbox.world import World
from scenario.plan import Plan

DEFAULT_UTILIZATION, HEALTHY_UTILIZATION = 0.85, 0.5
USERS_EVERY_S = 1.0


@dataclass(frozen=True)
class Conditions:
    """What the world is like, as the sandbox's options say it."""

    healthy: bool = False  # no antagonists, pauses and incidents
    utilization: float | None = None  # of the busiest service at the expected load; None: 0.85, or 0.5 when healthy
    seed: int | None = None  # of all that is drawn in the world; None: the plan's
    network_s: float = NETWORK_S

    def parameters(self, time_scale: float) -> Parameters:
        return replace(Parameters(), weather=not self.healthy).scaled(time_scale)

    def sizing(self, plan: Plan) -> Sizing:
        """The sizes a live sandbox takes when it is told to expect the plan."""
        target = self.utilization
        if target is None:
            target = HEALTHY_UTILIZATION if self.healthy else DEFAULT_UTILIZATION
        return size(dict(plan.design_rps()), plan.time_scale, target)


class Simulation:
    """See the module. `on_users(run_time_s, planned, actual)` is called once a second, before users change.

    The plan's seed fixes everything: shoppers, world and weather.
    """

    def __init__(
        self,
        plan: Plan,
        conditions: Conditions,
        start_unix_ns: int,
        make_ledger: Callable[[Callable[[], int]], Ledger],
        on_users: Callable[[float, Mapping[str, int], Mapping[str, int]], None],
    ) -> None:
        self.plan = plan
        self.clock = VirtualClock()
        self.sizing = conditions.sizing(plan)
        self.world = World(
            self.clock,
            conditions.parameters(plan.time_scale),
            self.sizing,
            seed=plan.seed if conditions.seed is None else conditions.seed,
            products=[Product(p.sku, p.name, p.category, p.brand, p.price) for p in plan.scenario.catalogue],
            start_unix_s=start_unix_ns / 1e9,
        )
        self._start_unix_ns = start_unix_ns
        self._floor = Floor(plan, self.clock, self.world, make_ledger(self.now_ns), self.now_ns, conditions.network_s)
        self._on_users = on_users
        self._here: dict[str, list[Shopper]] = {name: [] for name in plan.max_users_per_profile}
        self._leaving = 0
        self._leaves = Random(f"{plan.seed}/leaves")  # who goes when users get fewer; Locust takes any
        self.clock.call_later(0.0, self._look_at_users)

    def now_ns(self) -> int:
        """Wall-clock time."""
        return self._start_unix_ns + round(self.clock.now() * 1e9)

    @property
    def run_time_s(self) -> float:
        """Real seconds since the plan's start."""
        return self.clock.now()

    def schedule_faults(self, carry_out: Callable[[Change, float], None]) -> None:
        """Call `carry_out(change, now_s)` for every change of the plan's faults when it is due."""

        def at(change: Change) -> Callable[[], None]:
            return lambda: carry_out(change, self.clock.now())

        for change in changes(self.plan.faults):
            self.clock.call_later(change.at_s - self.clock.now(), at(change))

    def run_until(self, t_s: float) -> None:
        """Everything before `t_s` of the plan happens."""
        self.clock.run_before(t_s)

    def drain(self) -> None:
        """All shoppers leave; what they have in flight ends."""
        while self._leaving or any(self._here.values()):
            self.clock.step()
        self.world.close()

    def _look_at_users(self) -> None:
        now_s = self.clock.now()
        over = now_s >= self.plan.duration_s
        planned = dict.fromkeys(self._here, 0) if over else dict(self.plan.mix_at(now_s))
        self._on_users(now_s, planned, {name: len(shoppers) for name, shoppers in self._here.items()})
        for name, wanted in planned.items():
            self._bring_to(name, wanted)
        if not over:
            self.clock.call_later(min(USERS_EVERY_S, max(0.0, self.plan.duration_s - now_s)), self._look_at_users)

    def _bring_to(self, profile: str, wanted: int) -> None:
        here = self._here[profile]
        while len(here) > wanted:
            self._leaving += 1
            here.pop(self._leaves.randrange(len(here))).stop()
        while len(here) < wanted:
            shopper = Shopper(self._floor, profile, self._left)
            here.append(shopper)
            shopper.start()

    def _left(self, shopper: Shopper) -> None:
        self._leaving -= 1

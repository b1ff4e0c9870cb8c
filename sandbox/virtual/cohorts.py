"""What became of the requests of every decision, as far as it is known: the facts behind the rewards, while they grow.

A decision is judged by the requests that were sent under it, whenever they end (`rl_hooks.export.rewards`). At the next
decision a few of them are still on their way:

- one that has waited longer than its service's SLO counts as a success that took the time it has waited, which is the
  least it will have taken: an action that makes requests hang is not judged by the others alone;
- one that has not is left out.

Such a reward is *provisional*; it is *settled* when the last request of the cohort has ended, and then it is the
exporter's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from profiles.base import Call
from profiles.session import SessionSummary
from rl_hooks.control import InstanceSample
from rl_hooks.decision import SERVICE_INDEX, SERVICES
from rl_hooks.record.recorder import InForce
from sandbox.balancer import Exchange
from sandbox.virtual.window import VirtualWindow


@dataclass(slots=True)
class Cohort:
    """The requests of one service sent under one decision."""

    slo_ms: float
    expected: float  # requests the plan expects in the interval
    capacity: dict[str, float]  # of the instances that were up at the decision
    failed: int = 0
    ok_ms: list[float] = field(default_factory=list)
    served: dict[str, int] = field(default_factory=dict)  # instance -> requests
    open: dict[Call, int] = field(default_factory=dict)  # on their way -> wall-clock time of sending

    @property
    def sent(self) -> int:
        return self.failed + len(self.ok_ms) + len(self.open)

    def known_ms(self, now_ns: int) -> list[float]:
        """Response times of the successes, and of those on their way that have waited longer than the SLO."""
        waiting = [(now_ns - start_ns) / 1e6 for start_ns in self.open.values()]
        return [*self.ok_ms, *(waited for waited in waiting if waited > self.slo_ms)]


class CohortLedger:
    """Keeps the cohorts of the last decisions and feeds the observation window."""

    def __init__(self, in_force: InForce, window: VirtualWindow, now_ns: Callable[[], int]) -> None:
        self.cohorts: dict[tuple[int, int], Cohort] = {}  # (tick, service) -> cohort
        self._in_force = in_force
        self._window = window
        self._now_ns = now_ns

    def begin_interval(
        self, tick: int, instances: Sequence[InstanceSample], slo_ms: Mapping[str, float], expected: Mapping[str, float]
    ) -> None:
        """A decision takes effect: what is sent from now on is its cohort. `instances`: as it knew them."""
        for service, name in enumerate(SERVICES):
            capacity = {
                one.instance: one.capacity if one.capacity > 0 else 1.0
                for one in instances
                if one.service == service and one.up is not False
            }
            self.cohorts[tick, service] = Cohort(slo_ms[name], expected.get(name, 0.0), capacity)

    def begin(self, call: Call) -> None:
        """See `sandbox.virtual.shopper.Ledger`."""
        service = SERVICE_INDEX[call.service]
        call.action, _, _, call.propensity = self._in_force.by_service[call.service]
        call.tick = self._in_force.tick
        call.start_ns = self._now_ns()
        self._window.started(service, call.start_ns)
        cohort = self.cohorts.get((call.tick, service))
        if cohort is not None:
            cohort.open[call] = call.start_ns

    def ended(self, call: Call, exchange: Exchange | None, duration_us: int, response_bytes: int) -> None:
        """See `sandbox.virtual.shopper.Ledger`."""
        service = SERVICE_INDEX[call.service]
        self._window.ended(service, call.start_ns + duration_us * 1000, duration_us, call.ok)
        cohort = self.cohorts.get((call.tick or 0, service))
        if cohort is None or cohort.open.pop(call, None) is None:
            return
        if call.ok:
            cohort.ok_ms.append(duration_us / 1000)
        else:
            cohort.failed += 1
        if exchange is not None and exchange.backend is not None:
            name = exchange.backend.name
            cohort.served[name] = cohort.served.get(name, 0) + 1

    def session_ended(self, summary: SessionSummary) -> None:
        """Sessions play no part in a reward."""

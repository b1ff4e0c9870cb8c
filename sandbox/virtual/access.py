"""A world as the decision loop and the fault agent know a live sandbox: metrics source, actuator, fault injector.

They read and set the model itself where the live ones make HTTP calls; what they say and do is the same.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rl_hooks.control import InstanceSample, Sample
from rl_hooks.decision import SERVICE_INDEX
from sandbox.backend import Backend
from sandbox.world import World
from scenario.faults import PlanFault

NAME = "sandbox"


class WorldSource:
    """The state of all instances, with the values and the rounding of GET /state."""

    def __init__(self, world: World, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._backends = [
            (SERVICE_INDEX[service], backend)
            for service, balancer in sorted(world.balancers.items())
            for backend in sorted(balancer.backends, key=lambda backend: backend.name)
        ]

    def describe(self) -> str:
        return NAME

    def sample(self) -> Sample:
        """See `rl_hooks.control.Source`."""
        now_ns = self._now_ns()
        return Sample(now_ns, now_ns, tuple(_instance(service, backend) for service, backend in self._backends))


class WorldActuator:
    """Sets the strategies of the balancers."""

    def __init__(self, world: World) -> None:
        self._world = world

    def describe(self) -> str:
        return NAME

    def apply(self, actions: Mapping[str, str]) -> None:
        """See `rl_hooks.control.Actuator`."""
        self._world.set_actions(actions)


class WorldInjector:
    """Makes the faults of a plan inside the instances."""

    def __init__(self, world: World) -> None:
        self._world = world

    def describe(self) -> str:
        return NAME

    def problems(self, faults: Sequence[PlanFault]) -> list[str]:
        """Instances that a fault names and the sandbox does not have."""
        names = {
            service: sorted(instance.name for instance in group) for service, group in self._world.instances.items()
        }
        named = {(fault.service, name) for fault in faults for name in fault.instances}
        return [
            f"{service} has no instance {name}; there are {', '.join(names[service])}"
            for service, name in sorted(named)
            if name not in names[service]
        ]

    def apply(self, fault: PlanFault) -> str:
        wanted: dict[str, Any] = {"service": fault.service, "kind": fault.kind}
        if fault.value is not None:
            wanted["value"] = fault.value
        targets: Sequence[dict[str, str]] = [{"instance": name} for name in fault.instances] or [{}]
        return ",".join(self._world.faults.inject({**wanted, **target}) for target in targets)

    def lift(self, fault: PlanFault, handle: str) -> None:
        for fault_id in handle.split(","):
            self._world.faults.lift(fault_id)


def _instance(service: int, backend: Backend) -> InstanceSample:
    instance = backend.instance
    return InstanceSample(
        service=service,
        instance=backend.name,
        cpu=round(instance.cpu(), 4),
        memory=round(instance.memory(), 4),
        health=round(instance.health(), 4),
        queue_depth=float(instance.queue_depth),
        in_flight=float(backend.in_flight),
        capacity=backend.capacity,
        requests_total=backend.requests_total,
        errors_total=backend.errors_total,
        up=instance.up,
    )

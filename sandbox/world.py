"""Everything together: services with their instances, balancers, weather, faults and the shop, on one clock.

The live server and simulations build the same `World`; only the clock differs.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random

from rl_hooks.decision import ACTION_INDEX
from sandbox.backend import Backend
from sandbox.balancer import Balancer, Exchange
from sandbox.clock import Clock
from sandbox.decides import Decider, Decides
from sandbox.faults import Faults
from sandbox.instance import Instance, Job
from sandbox.parameters import CAPACITY_WEIGHTS, Parameters
from sandbox.shop.calls import Call, FanOut, Reply, Request, Response
from sandbox.shop.catalogue import DEFAULT_CATALOGUE, Product
from sandbox.shop.shop import Shop
from sandbox.sizing import ServiceSize, Sizing
from sandbox.weather import Weather

Outbound = Callable[[Call, Callable[[Response | None], None]], None]
"""Makes a call between services; tells the answer once, None where there is none: no answer, or 500 and above."""


class World:
    """See the module. `parameters` are scaled already; `seed` fixes all that is drawn, not the timing of requests.
    `outbound` makes the calls between services; None: they go through the world's own balancers."""

    def __init__(
        self,
        clock: Clock,
        parameters: Parameters,
        sizing: Sizing,
        *,
        seed: int = 0,
        products: Sequence[Product] = DEFAULT_CATALOGUE,
        start_unix_s: float = 0.0,
        outbound: Outbound | None = None,
        decides: Decides | None = None,
    ) -> None:
        self.clock = clock
        self._call = outbound or self._through_balancer
        self.parameters = parameters
        self.sizing = sizing
        self.shop = Shop(Random(f"{seed}:shop"), clock.now, parameters, products=products, start_unix_s=start_unix_s)
        self.instances: Mapping[str, tuple[Instance, ...]] = {
            size.service: _instances(size, clock, parameters, seed) for size in sizing.services
        }
        self.balancers: Mapping[str, Balancer] = {
            service: Balancer(
                service,
                [
                    Backend(index, instance, float(weight), parameters)
                    for index, (instance, weight) in enumerate(zip(instances, CAPACITY_WEIGHTS, strict=True))
                ],
                clock,
                parameters,
            )
            for service, instances in self.instances.items()
        }
        self.decides = decides  # who chooses the control actions; None: whoever sets them
        self._decider = None if decides is None else Decider(decides, self.balancers, clock, seed, start_unix_s)
        self.faults = Faults(self.instances, clock, parameters)
        self.weather = [
            Weather(instance, clock, Random(f"{seed}:{instance.name}:weather"), parameters)
            for instances in self.instances.values()
            for instance in instances
            if parameters.weather
        ]

    def send(
        self,
        service: str,
        request: Request,
        on_answer: Callable[[Exchange], None],
        *,
        action: str | None = None,
        pin: str | None = None,
    ) -> Exchange:
        """A client's request to `service`; see `Balancer.send`. The answer waits for the calls it makes to others."""
        return self.balancers[service].send(
            request.method,
            on_answer,
            work=lambda job, backend: self.work(service, request, backend.instance, job),
            action=action,
            pin=pin,
        )

    def work(self, service: str, request: Request, instance: Instance, job: Job) -> None:
        """What `instance` of `service` does with a request that was computed: answer it, after calls to others."""
        self._continue(instance, job, self.shop.handle(service, request))

    def close(self) -> None:
        """Another world follows: no more weather and health checks here, so that nothing stays on the clock."""
        if self._decider is not None:
            self._decider.close()
        for weather in self.weather:
            weather.end()
        for balancer in self.balancers.values():
            balancer.close()

    def set_actions(self, actions: Mapping[str, str]) -> None:
        """The control action of some services, from now on. `ValueError` for an unknown name; then none is set."""
        for service, action in actions.items():
            if service not in self.balancers or action not in ACTION_INDEX:
                raise ValueError(f"{service}: {action}")
        for service, action in actions.items():
            self.balancers[service].action = action

    def _continue(self, instance: Instance, job: Job, reply: Reply) -> None:
        if isinstance(reply, Response):
            instance.reply(job, reply)
        else:
            self._fan_out(instance, job, reply)

    def _fan_out(self, instance: Instance, job: Job, fan_out: FanOut) -> None:
        """Make all calls, under each service's control action, and go on with the answers."""
        answers: list[Response | None] = [None] * len(fan_out.calls)
        missing = len(answers)

        def on_answer(position: int, answer: Response | None) -> None:
            nonlocal missing
            answers[position] = answer
            missing -= 1
            if missing:
                return
            if job.over:
                fan_out.undo()
            else:
                self._continue(instance, job, fan_out.then(answers))

        for position, call in enumerate(fan_out.calls):
            self._call(call, partial(on_answer, position))

    def _through_balancer(self, call: Call, on_answer: Callable[[Response | None], None]) -> None:
        self.balancers[call.service].send(
            call.method,
            lambda exchange: on_answer(_good_answer(exchange.response)),
            work=partial(_run_call, call),
        )


def _good_answer(response: object) -> Response | None:
    return response if isinstance(response, Response) and response.status < 500 else None


def _run_call(call: Call, job: Job, backend: Backend) -> None:
    backend.instance.reply(job, call.run())


def _instances(size: ServiceSize, clock: Clock, parameters: Parameters, seed: int) -> tuple[Instance, ...]:
    names = [f"{size.service}-{number}" for number in range(1, len(size.workers) + 1)]
    return tuple(
        Instance(
            name,
            clock,
            Random(f"{seed}:{name}"),
            workers=workers,
            mean_service_s=size.mean_service_s,
            parameters=parameters,
        )
        for name, workers in zip(names, size.workers, strict=True)
    )

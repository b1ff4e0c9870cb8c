"""Every action as a logging policy for live runs: `tests.sandbox.virtual.fixed:round_robin`."""

from functools import partial

from rl_hooks.policies.builtin import Fixed

least_loaded = partial(Fixed, "least_loaded")
fastest_response = partial(Fixed, "fastest_response")
round_robin = partial(Fixed, "round_robin")
weighted_capacity = partial(Fixed, "weighted_capacity")
circuit_breaker = partial(Fixed, "circuit_breaker")
backpressure = partial(Fixed, "backpressure")

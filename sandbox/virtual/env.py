"""`LoadBalancerSandbox-v0`: the sandbox in virtual time as a Gymnasium environment.

    import gymnasium
    from sandbox.virtual import env

    env.register()
    balancer = gymnasium.make("LoadBalancerSandbox-v0", service="cart-service")

One step is one decision interval. The decision process is that of a bundle: one per service, the agent decides for one
and `others` for the rest; or the joint one (`service=None`) with an action per service. An episode is a time block of a
phase as the exporter cuts them; it is truncated at its end, never terminated. `reset()` goes on with the next block of
the run and begins a new run behind the last; `reset(seed=...)` begins the run of that seed.

Observation: the values of `ObservationWindow` in the encoding of the bundle's formats, (value - mean) / std with 0 for
what is not known, and a column known.<name> for each feature that can be missing. Without `encoding` mean is 0 and std
is 1: physical units. Values beyond the bounds of the box are set to them.

Reward: see `sandbox.virtual.cohorts`; of the joint process, the mean over the services. `info["settled"]` maps earlier
ticks to their final rewards once all requests of their cohorts have ended. An interval without requests has the mean of
the service's rewards so far in the run (0 before the first).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from rl_hooks.decision import ACTIONS, SERVICE_INDEX, SERVICES
from rl_hooks.export.formats.encoding import NEVER_MISSING, Encoding
from rl_hooks.observation import FEATURES
from rl_hooks.policies.named import check_fit, make_policy
from sandbox.virtual.simulation import Conditions
from sandbox.virtual.stepped import Steered, SteppedRun
from scenario.load import find_file, load_file
from scenario.plan import make_plan

Floats = npt.NDArray[np.float32]

ID = "LoadBalancerSandbox-v0"
ENTRY_POINT = "sandbox.virtual.env:LoadBalancerSandboxEnv"
MOST_STEPS = 100_000
"""Of an episode, for those who ask for a limit; episodes end by themselves long before."""
HIGHEST = 1e6
"""Stands for "no upper limit" in physical units: boxes have finite bounds, as in the Minari format."""


def register() -> None:
    """Make the environment known to Gymnasium; again does nothing."""
    if ID not in gymnasium.registry:
        gymnasium.register(ID, entry_point=ENTRY_POINT, max_episode_steps=MOST_STEPS)


class LoadBalancerSandboxEnv(gymnasium.Env[Floats, Any]):
    """See the module. `encoding`: {"mean": [...], "std": [...]} of every feature, as in a format's facts."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium's own attribute)

    def __init__(
        self,
        scenario_file: str = "comprehensive_rl_training_config.yaml",
        scenario: str | None = None,
        service: str | None = "inventory-service",
        others: str = "uniform",
        time_scale: float = 1.0,
        user_scale: float = 1.0,
        healthy: bool = False,
        utilization: float | None = None,
        faults: bool = True,
        encoding: Mapping[str, Sequence[float]] | None = None,
        render_mode: None = None,
    ) -> None:
        if service is not None and service not in SERVICE_INDEX:
            raise ValueError(f"service: {service!r} is none of {', '.join(SERVICES)}; None for all of them")
        self.render_mode = render_mode
        self._scenario = load_file(find_file(scenario_file)).scenario(scenario)
        self._make_plan = lambda seed: make_plan(self._scenario, seed, time_scale, user_scale, faults=faults)
        self._conditions = Conditions(healthy, utilization)
        self._agent_services = tuple(range(len(SERVICES))) if service is None else (SERVICE_INDEX[service],)
        policy, plan = make_policy(others), self._make_plan(0)
        check_fit(policy, plan.window_s, plan.decision_interval_s)
        self._steered = Steered(policy)
        self._encoding = _encoding(encoding)
        low, high = _bounds(self._encoding)
        count = len(self._agent_services)
        self.observation_space = gymnasium.spaces.Box(np.tile(low, count), np.tile(high, count), dtype=np.float32)
        self.action_space = (
            gymnasium.spaces.Discrete(len(ACTIONS))
            if service is not None
            else gymnasium.spaces.MultiDiscrete([len(ACTIONS)] * len(SERVICES))
        )
        self._run: SteppedRun | None = None
        self._ended = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """The next episode; see the module."""
        super().reset(seed=seed)
        run = self._run
        if seed is not None or run is None or run.over:
            run_seed = int(self.np_random.integers(2**31)) if seed is None else seed
            run = self._run = SteppedRun(self._make_plan(run_seed), self._conditions, self._steered)
        elif not self._ended:
            run.skip_block()  # the rest of the episode happens, under the other policy alone
            if run.over:
                self._ended = True
                return self.reset()
        self._ended = False
        return self._vector(run), {**run.labels(), "seed": run.plan.seed}

    def step(self, action: Any) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """One decision interval under `action`, an index of ACTIONS or one per service."""
        run = self._run
        if run is None or self._ended:
            raise gymnasium.error.ResetNeeded("the episode is over: call reset() for the next one")
        chosen = np.atleast_1d(np.asarray(action)).tolist()
        tick, block = run.tick, run.block
        labels = run.labels()
        run.advance(dict(zip(self._agent_services, chosen, strict=True)))
        judged = [run.reward(tick, service) for service in self._agent_services]
        reward = float(np.mean([value for value, _ in judged]))
        self._ended = run.over or run.block != block
        cohorts = [run.ledger.cohorts[tick, service] for service in self._agent_services]
        info = {
            **labels,
            "n_requests": sum(cohort.sent for cohort in cohorts),
            "n_unfinished": sum(len(cohort.open) for cohort in cohorts),
            "components": judged[0][1] if len(judged) == 1 else {},
            "settled": run.settled(self._agent_services),
        }
        return self._vector(run), reward, False, self._ended, info

    def _vector(self, run: "SteppedRun") -> Floats:
        encoded = self._encoding.encode(run.observations[list(self._agent_services)]).ravel()
        space = self.observation_space
        assert isinstance(space, gymnasium.spaces.Box)
        clipped: Floats = np.clip(encoded, space.low, space.high)
        return clipped


def _encoding(given: Mapping[str, Sequence[float]] | None) -> Encoding:
    count = len(FEATURES)
    mean, std = (np.zeros(count), np.ones(count)) if given is None else (np.array(given[k]) for k in ("mean", "std"))
    if len(mean) != count or len(std) != count:
        raise ValueError(f"encoding: needs mean and std of all {count} features")
    can_miss = np.array([feature.missing_when != NEVER_MISSING for feature in FEATURES])
    return Encoding(tuple(feature.name for feature in FEATURES), mean, std, can_miss)


def _bounds(encoding: Encoding) -> tuple[Floats, Floats]:
    """Of one service's vector; 0, which stands for what is not known, is inside."""
    low = np.array([[feature.low for feature in FEATURES]], float)
    high = np.array([[HIGHEST if feature.high is None else feature.high for feature in FEATURES]], float)
    lowest, highest = encoding.encode(low)[0], encoding.encode(high)[0]
    known = len(lowest) - len(FEATURES)
    lowest[len(lowest) - known :] = 0.0
    return np.minimum(lowest, 0.0), np.maximum(highest, 0.0)

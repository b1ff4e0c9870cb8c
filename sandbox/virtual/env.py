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
import pandas as pd

from rl_hooks.control import Controller, Sample
from rl_hooks.decision import ACTIONS, SERVICE_INDEX, SERVICES
from rl_hooks.export.episodes import block_of
from rl_hooks.export.formats.encoding import NEVER_MISSING, Encoding
from rl_hooks.export.rewards import REWARDS, TOLERATED_SLO, Cohorts, components, weighted_sum
from rl_hooks.faults.schedule import Change
from rl_hooks.observation import FEATURE_INDEX, FEATURES, Spans
from rl_hooks.policies.builtin import LoggingPolicy
from rl_hooks.record.recorder import InForce
from sandbox.virtual.access import WorldActuator, WorldInjector, WorldSource
from sandbox.virtual.cohorts import Cohort, CohortLedger
from sandbox.virtual.policies import make_policy
from sandbox.virtual.recording import start_unix_ns
from sandbox.virtual.simulation import Simulation, Weather
from sandbox.virtual.window import VirtualWindow
from scenario.load import find_file, load_file
from scenario.plan import Plan, make_plan

Floats = npt.NDArray[np.float32]

ID = "LoadBalancerSandbox-v0"
ENTRY_POINT = "sandbox.virtual.env:LoadBalancerSandboxEnv"
MOST_STEPS = 100_000
"""Of an episode, for those who ask for a limit; episodes end by themselves long before."""
HIGHEST = 1e6
"""Stands for "no upper limit" in physical units: boxes have finite bounds, as in the Minari format."""

_FIRST_SERVICE = FEATURE_INDEX[f"service_{SERVICES[0]}"]


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
        self._weather = Weather(healthy, utilization)
        self._agent_services = tuple(range(len(SERVICES))) if service is None else (SERVICE_INDEX[service],)
        self._steered = _Steered(make_policy(others))
        self._encoding = _encoding(encoding)
        low, high = _bounds(self._encoding)
        count = len(self._agent_services)
        self.observation_space = gymnasium.spaces.Box(np.tile(low, count), np.tile(high, count), dtype=np.float32)
        self.action_space = (
            gymnasium.spaces.Discrete(len(ACTIONS))
            if service is not None
            else gymnasium.spaces.MultiDiscrete([len(ACTIONS)] * len(SERVICES))
        )
        self._run: _Run | None = None
        self._ended = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """The next episode; see the module."""
        super().reset(seed=seed)
        run = self._run
        if seed is not None or run is None or run.over:
            run_seed = int(self.np_random.integers(2**31)) if seed is None else seed
            run = self._run = _Run(self._make_plan(run_seed), self._weather, self._steered)
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

    def _vector(self, run: "_Run") -> Floats:
        encoded = self._encoding.encode(run.observations[list(self._agent_services)]).ravel()
        space = self.observation_space
        assert isinstance(space, gymnasium.spaces.Box)
        clipped: Floats = np.clip(encoded, space.low, space.high)
        return clipped


class _Steered:
    """The agent's actions for its services, another policy for the others."""

    def __init__(self, others: LoggingPolicy) -> None:
        self.actions: Mapping[int, int] = {}
        self._others = others

    def describe(self) -> str:
        return f"agent, others {self._others.describe()}"

    def probabilities(self, previous: int | None, observation: Any) -> Sequence[float]:
        service = int(np.argmax(observation[_FIRST_SERVICE : _FIRST_SERVICE + len(SERVICES)]))
        action = self.actions.get(service)
        if action is None:
            return self._others.probabilities(previous, observation)
        return [float(index == action) for index in range(len(ACTIONS))]


class _Looked:
    """Source and window in one, for a loop that looks before it knows its action: what was seen at a moment is seen
    again by the decision of the same moment."""

    def __init__(self, source: WorldSource, window: VirtualWindow) -> None:
        self.sample_now: Sample | None = None
        self.seen: Mapping[str, Any] = {}
        self._source = source
        self._window = window
        self._observations: Any = None
        self.decided = window.decided

    def describe(self) -> str:
        return self._source.describe()

    def look(self, t_ns: int) -> Any:
        self.sample_now = self._source.sample()
        self._observations = self._window.observe(t_ns, self.sample_now)
        return self._observations

    def sample(self) -> Sample | None:
        return self.sample_now

    def observe(self, t_ns: int, sample: Sample | None) -> Any:
        return self._observations


class _Run:
    """A plan on its way, one decision after the other. `tick` is the decision that is due."""

    def __init__(self, plan: Plan, weather: Weather, policy: _Steered) -> None:
        self.plan = plan
        self.tick = 0
        self._policy = policy
        self._blocks = _blocks(plan)
        self._in_force = InForce()
        window = VirtualWindow(Spans.of_seconds(plan.window_s, plan.decision_interval_s))

        def make_ledger(now_ns: Any) -> CohortLedger:
            self.ledger = CohortLedger(self._in_force, window, now_ns)
            return self.ledger

        self._simulation = Simulation(plan, weather, start_unix_ns(plan.seed), make_ledger, lambda *_: None)
        world, now_ns = self._simulation.world, self._simulation.now_ns
        self._injector, self._handles = WorldInjector(world), dict[int, str]()
        self._simulation.schedule_faults(self._change)
        self._looked = _Looked(WorldSource(world, now_ns), window)
        self._controller = Controller(policy, self._looked, WorldActuator(world), plan.seed, now_ns, self._looked)
        self._sums = np.zeros((len(SERVICES), 2))  # of rewards so far, and how many
        self.observations = self._looked.look(now_ns())

    @property
    def over(self) -> bool:
        return self.tick >= len(self._blocks)

    @property
    def block(self) -> int:
        return -1 if self.over else self._blocks[self.tick]

    def labels(self) -> dict[str, Any]:
        """What a deployed balancer does not know."""
        t_s = self.tick * self.plan.decision_interval_s
        phase = self.plan.phase_at(t_s)
        return {"tick": self.tick, "t_s": t_s, "phase": "" if phase is None else phase.name}

    def advance(self, actions: Mapping[int, int]) -> None:
        """Decide, and let one interval pass. Services without an action decide by the other policy."""
        plan, interval_s = self.plan, self.plan.decision_interval_s
        self._policy.actions = actions
        begin_s, end_s = self.tick * interval_s, min((self.tick + 1) * interval_s, plan.duration_s)
        expected = plan.expected_service_rps_at((begin_s + end_s) / 2)
        sample = self._looked.sample_now
        self.ledger.begin_interval(
            self.tick,
            sample.instances if sample is not None else (),
            plan.slo_ms,
            {name: rate * (end_s - begin_s) for name, rate in expected.items()},
        )
        self._controller.step(self.tick, self._take_effect)
        self._simulation.run_until(end_s)
        self.tick += 1
        self.observations = self._looked.look(self._simulation.now_ns())

    def skip_block(self) -> None:
        """The rest of the episode happens under the other policy alone."""
        block = self.block
        while self.block == block:
            self.advance({})
        self.settled(())

    def reward(self, tick: int, service: int) -> tuple[float, dict[str, float]]:
        """The reward of a decision as far as it is known now, and its components."""
        cohort = self.ledger.cohorts[tick, service]
        table = components(_facts(cohort, self._simulation.now_ns()))
        value = float(weighted_sum(table, self.plan.scenario.reward_weights)[0])
        names = {name: part for name, part in zip(REWARDS, table[0].tolist(), strict=True) if not np.isnan(part)}
        if np.isnan(value):
            total, count = self._sums[service]
            return float(total / count) if count else 0.0, names
        self._sums[service] += (value, 1)
        return value, names

    def settled(self, services: Sequence[int]) -> dict[int, float]:
        """The final rewards of decisions whose last request has ended since the last call, by tick; the mean over
        `services`. They are forgotten."""
        found: dict[int, float] = {}
        for tick in sorted({tick for tick, _ in self.ledger.cohorts if tick < self.tick}):
            keys = [(tick, service) for service in range(len(SERVICES))]
            if any(self.ledger.cohorts[tick, service].open for service in services):
                continue
            if services:
                final = [self._final(self.ledger.cohorts[tick, service]) for service in services]
                known = [value for value in final if not np.isnan(value)]
                if known:
                    found[tick] = float(np.mean(known))
            for key in keys:
                del self.ledger.cohorts[key]
        return found

    def _final(self, cohort: Cohort) -> float:
        return float(weighted_sum(components(_facts(cohort, 0)), self.plan.scenario.reward_weights)[0])

    def _take_effect(self, t_ns: int, decisions: Sequence[Any]) -> None:
        chosen = [(decision.service, decision.action, decision.propensity) for decision in decisions]
        self._in_force.set(decisions[0].tick, chosen)

    def _change(self, change: Change, now_s: float) -> None:
        if change.begins:
            self._handles[change.fault.index] = self._injector.apply(change.fault)
        else:
            self._injector.lift(change.fault, self._handles.pop(change.fault.index))


def _facts(cohort: Cohort, now_ns: int) -> Cohorts:
    """One cohort as the reward functions take it."""
    times, slo_ms = np.array(cohort.known_ms(now_ns), float), cohort.slo_ms
    names = sorted(cohort.capacity.keys() | cohort.served.keys())

    def one(value: float) -> npt.NDArray[np.float64]:
        return np.array([value], float)

    return Cohorts(
        finished=one(len(times) + cohort.failed),
        failed=one(cohort.failed),
        ok_ms=one(times.sum()),
        satisfied=one((times <= slo_ms).sum()),
        tolerated=one(((times > slo_ms) & (times <= TOLERATED_SLO * slo_ms)).sum()),
        slo_ms=one(slo_ms),
        expected=one(cohort.expected),
        instance_requests=np.array([[cohort.served.get(name, 0) for name in names]], float),
        instance_capacity=np.array([[cohort.capacity.get(name, 1.0) for name in names]], float),
    )


def _blocks(plan: Plan) -> list[int]:
    """The time block of every decision, as the exporter cuts them."""
    interval_ns = round(plan.decision_interval_s * 1e9)
    phases: list[str] = []
    while (phase := plan.phase_at(len(phases) * plan.decision_interval_s)) is not None:
        phases.append(phase.name)
    ticks = np.arange(len(phases))
    frame = pd.DataFrame({"decision_tick": ticks, "t_unix_ns": ticks * interval_ns, "phase": phases})
    blocks: list[int] = block_of(frame, interval_ns, round(plan.episode_s * 1e9)).tolist()
    return blocks


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

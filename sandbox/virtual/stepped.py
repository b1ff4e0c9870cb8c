"""A run in virtual time for somebody who decides step by step, with the reward of every decision.

Nothing is recorded; the run goes through the same states as the recorded one of the same plan, world and actions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rl_hooks.control import Controller, Sample
from rl_hooks.decision import ACTIONS, SERVICES
from rl_hooks.export.episodes import block_of
from rl_hooks.export.own_rewards import own_rewards
from rl_hooks.export.rewards import TOLERATED_SLO, Cohorts, components, names_of, weighted_sum
from rl_hooks.faults.schedule import Change
from rl_hooks.observation import FEATURE_INDEX, Spans
from rl_hooks.policies.builtin import LoggingPolicy
from rl_hooks.record.recorder import InForce
from sandbox.virtual.access import WorldActuator, WorldInjector, WorldSource
from sandbox.virtual.cohorts import Cohort, CohortLedger
from sandbox.virtual.recording import start_unix_ns
from sandbox.virtual.simulation import Conditions, Simulation
from sandbox.virtual.window import VirtualWindow
from scenario.plan import Plan

_FIRST_SERVICE = FEATURE_INDEX[f"service_{SERVICES[0]}"]


class Steered:
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


class SteppedRun:
    """A plan on its way, one decision after the other. `tick` is the decision that is due."""

    def __init__(self, plan: Plan, conditions: Conditions, policy: Steered) -> None:
        self.plan = plan
        self.tick = 0
        self._policy = policy
        self._own = own_rewards(plan.scenario.rewards)
        self._blocks = _blocks(plan)
        self._in_force = InForce()
        window = VirtualWindow(Spans.of_seconds(plan.window_s, plan.decision_interval_s))

        def make_ledger(now_ns: Any) -> CohortLedger:
            self.ledger = CohortLedger(self._in_force, window, now_ns)
            return self.ledger

        self._simulation = Simulation(plan, conditions, start_unix_ns(plan.seed), make_ledger, lambda *_: None)
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
        table = components(_facts(cohort, self._simulation.now_ns()), self._own)
        weights = self.plan.scenario.reward_weights
        value = float(weighted_sum(table, weights)[0])
        parts = zip(names_of(weights), table[0].tolist(), strict=True)
        names = {name: part for name, part in parts if not np.isnan(part)}
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

    def settle(self) -> list[float]:
        """The final rewards, of every service, of the decisions of which every request has ended since the last call;
        those without a request have none. They are forgotten."""
        done = [key for key, cohort in self.ledger.cohorts.items() if key[0] < self.tick and not cohort.open]
        final = [self._final(self.ledger.cohorts.pop(key)) for key in done]
        return [value for value in final if not np.isnan(value)]

    def _final(self, cohort: Cohort) -> float:
        return float(weighted_sum(components(_facts(cohort, 0), self._own), self.plan.scenario.reward_weights)[0])

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

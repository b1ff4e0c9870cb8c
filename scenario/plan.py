"""The plan: a scenario at a seed, a time scale and a user scale. All that the running parts share; it answers "at t".

Times of a plan are REAL seconds from the start of the run: nominal seconds divided by the time scale. Drawn for two
phases (held by tests/scenario/test_plan.py::test_the_drawing_of_the_docstring):

    users  80 |      ___________
              |     /           \\
           40 |    /             \\__________
              |   /               |         |
            0 |__/________________|_________|___ t
              0  ramp_s           start_s   duration_s
                 |--- phase 0 ----|-phase 1-|

A phase with chaos is several segments, each of which begins with a ramp as a phase does (`scenario.chaos`).
"""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from scenario import chaos, visits
from scenario.describe import describe
from scenario.errors import Problem, ScenarioError, number
from scenario.faults import PlanFault
from scenario.mix import apportion, between
from scenario.model import PACE, SERVICES, Frozen, Phase, Scenario

DYNAMICS_LIMIT = 10.0
"""Service times reach their floor of 5 ms at this time scale, so the system's own times are not divided by more."""
SHORTEST_DECISION_INTERVAL_S = 0.2
"""Timers and actuation are not finer than this, in real seconds."""

EXTREME_OVERLOAD = 1.4
"""A sandbox that is made for 0.85 utilization comes to 1.2 in an extreme phase: beyond 1, as a flash sale is."""


@dataclass(frozen=True, slots=True)
class PlanPhase(Frozen):
    """One phase of a plan. Times in real seconds from the start of the run."""

    index: int
    name: str
    start_s: float
    duration_s: float
    intensity: str
    pace: float  # pauses are multiplied by it
    users: int
    users_asked: int  # the file's users x user scale; less than `users` when a profile would have got nobody
    mix: Mapping[str, int]  # every profile of the plan -> users; sums to `users`
    weights: Mapping[str, float]  # user action -> weight as the phase gives it

    @property
    def end_s(self) -> float:
        return self.start_s + self.duration_s


@dataclass(frozen=True, slots=True)
class Segment(Frozen):
    """A stretch of a phase in which nothing changes once its ramp is over: the whole phase, unless there is chaos.

    Times in real seconds from the start of the run.
    """

    index: int
    phase_index: int
    name: str  # of the phase
    start_s: float
    duration_s: float
    ramp_s: float  # how long users take to change at its start
    users: int
    mix: Mapping[str, int]  # every profile of the plan -> users; sums to `users`
    pace: float  # pauses are multiplied by it
    weights: Mapping[str, float]  # user action -> weight
    target_products: tuple[str, ...]  # SKUs; the only ones of interest; empty: the whole catalogue


@dataclass(frozen=True)
class Plan(Frozen):
    """What a run does and when. Made by `make_plan`; equal inputs make equal plans."""

    scenario: Scenario
    seed: int
    time_scale: float
    user_scale: float
    phases: tuple[PlanPhase, ...]
    segments: tuple[Segment, ...]
    faults: tuple[PlanFault, ...]  # in order of their start
    without_faults: bool  # the scenario's faults were left out on request
    duration_s: float
    decision_interval_s: float  # >= SHORTEST_DECISION_INTERVAL_S
    decision_interval_asked_s: float  # nominal / time scale; smaller than the former when that had to be raised
    dynamics_scale: float  # what service times, SLOs, timeouts and retry delays are divided by
    compressed: bool  # the time scale is beyond DYNAMICS_LIMIT: dynamics are not those of real time
    window_s: float
    episode_s: float
    ramp_s: float
    request_timeout_s: float
    retry_delay_s: float
    slo_ms: Mapping[str, float]  # service -> response time it should keep
    max_users_per_profile: Mapping[str, int]
    accounts: int  # the scenario's total_users, more when the user scale needs more

    def phase_at(self, t_s: float) -> PlanPhase | None:
        """The phase at `t_s`; None before the start and from the end on."""
        if not 0 <= t_s < self.duration_s:
            return None
        return self.phases[bisect_right(self._starts, t_s) - 1]

    def segment_at(self, t_s: float) -> Segment | None:
        """The segment at `t_s`; None before the start and from the end on."""
        if not 0 <= t_s < self.duration_s:
            return None
        return self.segments[bisect_right(self._segment_starts, t_s) - 1]

    def mix_at(self, t_s: float) -> Mapping[str, int]:
        """Users per profile at `t_s`: on the way at the start of each segment, then exactly its mix.

        The first segment comes from nobody. Nobody before the start and from the end on.
        """
        segment = self.segment_at(t_s)
        if segment is None:
            return self._nobody
        into_s = t_s - segment.start_s
        if into_s >= segment.ramp_s:
            return segment.mix
        before = self.segments[segment.index - 1].mix if segment.index else self._nobody
        return MappingProxyType(between(before, segment.mix, into_s / segment.ramp_s))

    def in_ramp(self, t_s: float) -> bool:
        """Whether users are still on the way to their segment's mix at `t_s`."""
        segment = self.segment_at(t_s)
        return segment is not None and t_s - segment.start_s < segment.ramp_s

    def faults_at(self, t_s: float) -> tuple[PlanFault, ...]:
        """The faults planned to be in force at `t_s`."""
        return tuple(fault for fault in self.faults if fault.start_s <= t_s < fault.end_s)

    def expected_rps(self, phase: PlanPhase) -> Mapping[str, float]:
        """Endpoint key -> requests per real second that the phase is expected to send once its ramps are over.

        The mean over its segments; retries are not in it.
        """
        mine = [segment for segment in self.segments if segment.phase_index == phase.index]
        rates: dict[str, float] = {}
        for segment in mine:
            for endpoint, rate in self._rps(segment, segment.mix).items():
                rates[endpoint] = rates.get(endpoint, 0.0) + rate * segment.duration_s / phase.duration_s
        return MappingProxyType(rates)

    def expected_service_rps(self, phase: PlanPhase) -> Mapping[str, float]:
        """The same by service."""
        return _by_service(self.expected_rps(phase))

    def expected_service_rps_at(self, t_s: float) -> Mapping[str, float]:
        """Service -> requests per real second expected at `t_s`, with the users planned then; zero outside the run."""
        segment = self.segment_at(t_s)
        return _by_service(self._rps(segment, self.mix_at(t_s)) if segment is not None else {})

    def design_rps(self) -> Mapping[str, float]:
        """Endpoint key -> requests per real second that a system for this scenario is made for: the busiest segment's.

        An extreme phase is meant to be more than it can take, so only 1 / EXTREME_OVERLOAD of it counts.
        """
        rates: list[dict[str, float]] = []
        for segment in self.segments:
            share = 1 / EXTREME_OVERLOAD if self.phases[segment.phase_index].intensity == "extreme" else 1.0
            rates.append({key: rate * share for key, rate in self._rps(segment, segment.mix).items()})
        totals = [sum(one.values()) for one in rates]
        return MappingProxyType(rates[totals.index(max(totals))])

    def describe(self, host: str | None = None) -> list[str]:
        """What a person reads before a run against `host`, or against the target that the file names."""
        return describe(self, host)

    def to_json(self) -> dict[str, Any]:
        """The whole plan with its scenario, as JSON values; `from_json` undoes it."""
        plain = _plain(self)
        assert isinstance(plain, dict)
        return plain

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Plan":
        """The plan that `to_json` wrote. Raises ScenarioError when it is not one."""
        try:
            return TypeAdapter(Plan).validate_python(dict(data))
        except ValidationError as error:
            raise ScenarioError("plan", [_damage(first) for first in error.errors()]) from None

    @cached_property
    def _starts(self) -> tuple[float, ...]:
        return tuple(phase.start_s for phase in self.phases)

    @cached_property
    def _segment_starts(self) -> tuple[float, ...]:
        return tuple(segment.start_s for segment in self.segments)

    @cached_property
    def _nobody(self) -> Mapping[str, int]:
        return MappingProxyType(dict.fromkeys(self.max_users_per_profile, 0))

    def _rps(self, segment: Segment, mix: Mapping[str, int]) -> Mapping[str, float]:
        rates: dict[str, float] = {}
        for profile, users in mix.items():
            for endpoint, rate in self._user_rps[segment.index, profile].items() if users else ():
                rates[endpoint] = rates.get(endpoint, 0.0) + users * rate
        return MappingProxyType(rates)

    @cached_property
    def _user_rps(self) -> Mapping[tuple[int, str], Mapping[str, float]]:
        """(segment, profile) -> endpoint -> requests per real second of one user, new accounts included."""
        table: dict[tuple[int, str], Mapping[str, float]] = {}
        sessions = 0.0
        for segment in self.segments:
            of_segment = {
                name: visits.calls_per_user_s(self.scenario.profiles[name], segment.weights, segment.pace)
                for name, users in self._ever(segment).items()
                if users
            }
            logins = sum(segment.mix[name] * rates[visits.LOGIN] for name, rates in of_segment.items())
            started = logins * segment.duration_s * self.time_scale
            new = min(max(self.accounts - sessions, 0.0), started) / started if started else 0.0
            sessions += started
            for name, rates in of_segment.items():
                rates[visits.REGISTER] = new * rates[visits.LOGIN]
                table[segment.index, name] = {key: rate * self.time_scale for key, rate in rates.items()}
        return table

    def _ever(self, segment: Segment) -> Mapping[str, int]:
        """Users per profile that are there at any time of the segment, so also those only ramping down."""
        before = self.segments[segment.index - 1].mix if segment.index else self._nobody
        return {name: max(users, before[name]) for name, users in segment.mix.items()}


def make_plan(
    scenario: Scenario,
    seed: int = 0,
    time_scale: float = 1.0,
    user_scale: float = 1.0,
    decision_interval_s: float | None = None,
    *,
    faults: bool = True,
) -> Plan:
    """The plan of `scenario`; with `faults` False nothing goes wrong in it, and it says so.

    `time_scale` divides all times, `user_scale` multiplies users (at least one for every profile with a share).
    `decision_interval_s` replaces the scenario's own; it is NOMINAL seconds too, so it is divided by the time scale
    and raised to 0.2 s. Raises ScenarioError with every problem of the three numbers.
    """
    nominal_interval_s = scenario.decision_interval_s if decision_interval_s is None else decision_interval_s
    _check_numbers(time_scale=time_scale, user_scale=user_scale, decision_interval=nominal_interval_s)
    dynamics_scale = min(time_scale, DYNAMICS_LIMIT)
    asked_s = nominal_interval_s / time_scale
    phases = _plan_phases(scenario, time_scale, user_scale)
    interval_s = max(asked_s, SHORTEST_DECISION_INTERVAL_S)
    _check_interval(interval_s, phases, time_scale)
    segments = _segments(scenario, phases, seed, time_scale)
    planned = _faults(scenario, time_scale)
    most_users = max(segment.users for segment in segments)
    return Plan(
        scenario=scenario,
        seed=seed,
        time_scale=time_scale,
        user_scale=user_scale,
        phases=phases,
        segments=segments,
        faults=planned if faults else (),
        without_faults=bool(planned) and not faults,
        duration_s=scenario.duration_min * 60 / time_scale,
        decision_interval_s=interval_s,
        decision_interval_asked_s=asked_s,
        dynamics_scale=dynamics_scale,
        compressed=time_scale > DYNAMICS_LIMIT,
        window_s=scenario.window_s / time_scale,
        episode_s=scenario.episode_s / time_scale,
        ramp_s=scenario.ramp_s / time_scale,
        request_timeout_s=scenario.request_timeout_s / dynamics_scale,
        retry_delay_s=scenario.retry_delay_s / dynamics_scale,
        slo_ms={service: slo_ms / dynamics_scale for service, slo_ms in scenario.service_slo_ms.items()},
        max_users_per_profile={name: max(part.mix[name] for part in segments) for name in phases[0].mix},
        accounts=max(scenario.total_users, math.ceil(scenario.total_users * user_scale), most_users),
    )


def _plan_phases(scenario: Scenario, time_scale: float, user_scale: float) -> tuple[PlanPhase, ...]:
    names = _profiles_with_users(scenario)
    phases = []
    for index, phase in enumerate(scenario.phases):
        asked = math.floor(phase.users * user_scale + 0.5)
        users = max(asked, sum(share > 0 for share in phase.distribution.values()))
        mix = apportion(users, phase.distribution)
        phases.append(
            PlanPhase(
                index=index,
                name=phase.name,
                start_s=phase.start_min * 60 / time_scale,
                duration_s=phase.duration_min * 60 / time_scale,
                intensity=phase.intensity,
                pace=PACE[phase.intensity],
                users=users,
                users_asked=asked,
                mix={name: mix.get(name, 0) for name in names},
                weights=phase.weights,
            )
        )
    return tuple(phases)


def _segments(scenario: Scenario, phases: tuple[PlanPhase, ...], seed: int, time_scale: float) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    for phase, nominal in zip(phases, scenario.phases, strict=True):
        ramp_s = scenario.ramp_s if nominal.ramp_s is None else nominal.ramp_s
        fewest = sum(share > 0 for share in nominal.distribution.values())
        for stretch in chaos.stretches(nominal, seed, scenario.name):
            users = max(fewest, math.floor(phase.users * stretch.users_factor + 0.5))
            mix = apportion(users, nominal.distribution)
            segments.append(
                Segment(
                    index=len(segments),
                    phase_index=phase.index,
                    name=phase.name,
                    start_s=phase.start_s + stretch.start_min * 60 / time_scale,
                    duration_s=stretch.duration_min * 60 / time_scale,
                    ramp_s=ramp_s / time_scale,
                    users=users,
                    mix={name: mix.get(name, 0) for name in phase.mix},
                    pace=phase.pace * stretch.pace_factor,
                    weights=stretch.weights,
                    target_products=nominal.target_products,
                )
            )
    return tuple(segments)


def _faults(scenario: Scenario, time_scale: float) -> tuple[PlanFault, ...]:
    found = [(phase, fault) for phase in scenario.phases for fault in phase.faults]
    return tuple(
        PlanFault(
            index=index,
            phase=phase.name,
            service=fault.service,
            kind=fault.kind,
            value=fault.value,
            instances=fault.instances,
            start_s=(phase.start_min + fault.start_min) * 60 / time_scale,
            end_s=(phase.start_min + fault.start_min + fault.duration_min) * 60 / time_scale,
            text=str(fault),
        )
        for index, (phase, fault) in enumerate(found)
    )


def _profiles_with_users(scenario: Scenario) -> list[str]:
    """Profiles with a share in any phase, in the order of the file's definitions."""

    def has_share(phase: Phase, name: str) -> bool:
        return phase.distribution.get(name, 0.0) > 0

    return [name for name in scenario.profiles if any(has_share(phase, name) for phase in scenario.phases)]


def _check_numbers(**values: float) -> None:
    problems = [
        Problem(name, f"{number(value)} is not a number between 0.000001 and 1000000", "Give one such as 1 or 0.5")
        for name, value in values.items()
        if not 1e-6 <= value <= 1e6
    ]
    if problems:
        raise ScenarioError("plan", problems)


def _check_interval(interval_s: float, phases: tuple[PlanPhase, ...], time_scale: float) -> None:
    shortest = min(phases, key=lambda phase: phase.duration_s)
    if interval_s <= shortest.duration_s:
        return
    text = (
        f"{number(interval_s)} s of real time is longer than the phase {shortest.name}, "
        f"{number(shortest.duration_s)} s at time scale {number(time_scale)}"
    )
    way_out = "Choose a smaller time scale or a shorter interval, so that every phase has a decision of its own"
    raise ScenarioError("plan", [Problem("decision_interval", text, way_out)])


def _by_service(rates: Mapping[str, float]) -> Mapping[str, float]:
    totals = dict.fromkeys(SERVICES, 0.0)
    for endpoint, rate in rates.items():
        totals[endpoint.split(" ", 1)[0]] += rate
    return MappingProxyType(totals)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _damage(error: Any) -> Problem:
    place = ".".join(str(part) for part in error["loc"])
    return Problem(place, f"cannot be read back ({error['msg']})", "Use the plan as it was written")

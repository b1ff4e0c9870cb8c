"""A run in virtual time, recorded: the run folder that a live run leaves, with the same tables, events and manifest.

Its manifest says "virtual": true. Its wall-clock times are those of a virtual day: day number `seed` after 2000-01-01
UTC, so runs of other seeds follow each other and fit into one bundle.
"""

import platform
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiles.base import Call
from rl_hooks.control import Controller
from rl_hooks.decision import ACTION_INDEX, SERVICE_INDEX
from rl_hooks.faults.agent import Agent
from rl_hooks.observation import Spans
from rl_hooks.policies.builtin import LoggingPolicy
from rl_hooks.policies.turns import Turns, turns_facts
from rl_hooks.record.decisions import Attendance, DecisionLog
from rl_hooks.record.recorder import InForce, Recorder
from rl_hooks.row import MISSING_U8, MISSING_U32
from rl_hooks.run_folder import RunFolderError, RunWriter, Writer, create_run_folder, update_manifest
from rl_hooks.version import VERSION
from sandbox.balancer import Exchange
from sandbox.virtual.access import NAME, WorldActuator, WorldInjector, WorldSource
from sandbox.virtual.simulation import Conditions, Simulation
from sandbox.virtual.window import VirtualWindow
from scenario.plan import Plan

FIRST_DAY_UNIX_S = 946_684_800  # 2000-01-01T00:00:00Z
DAYS = 36_500  # then it begins anew: times are 64-bit nanoseconds
DAY_S = 86_400
TARGET = "sandbox in virtual time"
SPARE_BOARD_PLACES = 256


def start_unix_ns(seed: int) -> int:
    """When the run of a seed begins, on the wall clock of its data."""
    return (FIRST_DAY_UNIX_S + seed % DAYS * DAY_S) * 10**9


@dataclass(frozen=True)
class Totals:
    """What came of a run."""

    folder: Path
    duration_s: float  # virtual
    requests: int
    failed: int
    sessions: int
    decisions: int
    events: int  # of the simulation


class RowLedger(Recorder):
    """The live recorder's rows, with what the balancer did taken from the exchange instead of from headers."""

    failed = 0

    def __init__(self, writer: RunWriter, in_force: InForce, window: VirtualWindow, now_ns: Callable[[], int]) -> None:
        super().__init__(writer, in_force, _raise, now_ns)
        self._window = window

    def begin(self, call: Any) -> Mapping[str, str]:
        """See `Recorder.begin`."""
        headers = super().begin(call)
        self._window.started(SERVICE_INDEX[call.service], call.start_ns)
        return headers

    def ended(self, call: Call, exchange: Exchange | None, duration_us: int, response_bytes: int) -> None:
        """See `sandbox.virtual.shopper.Ledger`."""
        if exchange is None:
            self.write(call, duration_us, 0, 0, MISSING_U8, MISSING_U32, MISSING_U32)
        else:
            self.write(
                call,
                duration_us,
                response_bytes,
                0 if exchange.backend is None else self._instances[exchange.backend.name],
                ACTION_INDEX[exchange.action],
                round(exchange.upstream_s * 1e6),
                round(exchange.queue_s * 1e6),
            )
        self.failed += not call.ok
        self._window.ended(SERVICE_INDEX[call.service], call.start_ns + duration_us * 1000, duration_us, call.ok)


def record(
    plan: Plan,
    folder: Path,
    policy: LoggingPolicy | Turns,
    conditions: Conditions,
    config: Mapping[str, Any],
    progress: Callable[[float], None] = lambda _: None,
) -> Totals:
    """Run the plan and leave its run folder. `config`: path and checksum of the scenario file, for the manifest.

    Raises RunFolderError when the folder cannot be made or written. `progress` hears the virtual time once a minute.
    """
    started_ns = start_unix_ns(plan.seed)
    create_run_folder(folder, _facts(plan, folder, policy, conditions, config, started_ns))
    try:
        return _record(plan, folder, policy, conditions, started_ns, progress)
    except OSError as error:
        raise RunFolderError(f"{folder}: rows can no longer be kept ({error.strerror}); free some space") from error


def _record(
    plan: Plan,
    folder: Path,
    policy: LoggingPolicy | Turns,
    conditions: Conditions,
    started_ns: int,
    progress: Callable[[float], None],
) -> Totals:
    window = VirtualWindow(Spans.of_seconds(plan.window_s, plan.decision_interval_s))
    in_force = InForce()
    now_s: list[Callable[[], int]] = []
    token = f"{zlib.crc32(f'{plan.scenario.name}/{plan.seed}/{policy.describe()}'.encode()):08x}"
    who = Writer("virtual", 0, token, lambda: now_s[0]() if now_s else started_ns)
    writer = RunWriter(folder, "local", 2 * sum(plan.max_users_per_profile.values()) + SPARE_BOARD_PLACES, who)
    window.name_rows(writer.incarnation)
    attendance = Attendance(writer)

    def on_users(run_time_s: float, planned: Mapping[str, int], actual: Mapping[str, int]) -> None:
        phase = plan.phase_at(run_time_s)
        attendance.note(run_time_s, None if phase is None else phase.name, planned, actual)

    def make_ledger(now_ns: Callable[[], int]) -> RowLedger:
        now_s.append(now_ns)
        ledger = RowLedger(writer, in_force, window, now_ns)
        ledger.know(plan.scenario.profiles, [phase.name for phase in plan.phases])
        ledgers.append(ledger)
        return ledger

    ledgers: list[RowLedger] = []
    simulation = Simulation(plan, conditions, started_ns, make_ledger, on_users)
    world = simulation.world
    agent = Agent(WorldInjector(world), writer, lambda _: None)
    simulation.schedule_faults(agent.carry_out)
    controller = Controller(
        policy, WorldSource(world, simulation.now_ns), WorldActuator(world), plan.seed, simulation.now_ns, window
    )
    log = DecisionLog(writer, in_force, window, lambda tick, chosen: None)
    tick = 0
    while (phase := plan.phase_at(tick * plan.decision_interval_s)) is not None:
        simulation.run_until(tick * plan.decision_interval_s)
        log.record(controller.step(tick, log.take_effect), phase.name)
        writer.maintain()
        tick += 1
        if tick % max(1, round(60 / plan.decision_interval_s)) == 0:
            progress(simulation.run_time_s)
    simulation.run_until(plan.duration_s)
    simulation.drain()
    agent.lift_all()
    writer.close()
    update_manifest(folder, state="complete", ended_unix_ns=simulation.now_ns(), fault=None)
    rows = writer.rows()
    return Totals(
        folder=folder,
        duration_s=simulation.run_time_s,
        requests=rows["requests"],
        failed=ledgers[0].failed,
        sessions=rows["sessions"],
        decisions=rows["decisions"],
        events=simulation.clock.events_run,
    )


def _facts(
    plan: Plan,
    folder: Path,
    policy: LoggingPolicy | Turns,
    conditions: Conditions,
    config: Mapping[str, Any],
    started_ns: int,
) -> dict[str, Any]:
    """The manifest of a live run against the sandbox, and that it was virtual."""
    return {
        "run_id": folder.name,
        "virtual": True,
        "scenario": plan.scenario.name,
        "plan": plan.to_json(),
        **config,
        "seed": plan.seed,
        "versions": {"suite": VERSION, "python": platform.python_version()},
        "target": TARGET,
        "healthy": conditions.healthy,
        "utilization": conditions.sizing(plan).target,
        "balancer": NAME,
        "logging_policy": policy.describe(),
        **turns_facts(policy),
        "source": NAME,
        "actuator": NAME,
        "faults": {
            "injector": NAME,
            "injector_spec": NAME,
            "root": TARGET,
            "planned": len(plan.faults),
            "without_faults": plan.without_faults,
            "list": [fault.to_json() for fault in plan.faults],
        },
        "started_unix_ns": started_ns,
        "ended_unix_ns": None,
        "state": "running",
    }


def _raise(message: str) -> None:
    """Nothing else goes on here whose end would have to be waited for."""
    raise OSError(0, message)

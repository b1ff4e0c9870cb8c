"""A master and its workers on one run folder, and what tests ask of the run they leave."""

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from rl_hooks.row import MISSING_U32
from rl_hooks.run_reader import Run
from scenario.plan import Plan
from tests.lab import Lab
from tests.processes import Locust, free_port, locust_started, rows_written, wait_until


class Team:
    """A master, its workers and their run folder; everything ends with the test.

    In a lab the master is on the host "master", and every worker on the host of its name up to the first dot.
    """

    def __init__(self, place: Path, host: str, lab: Lab | None = None) -> None:
        self._lab = lab
        self.folder = place / "run"
        self._place = place
        self._host = host
        self._port = str(free_port())
        self._stack = ExitStack()

    def __enter__(self) -> "Team":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def master(self, *options: str, workers: int, env: Mapping[str, str] | None = None) -> Locust:
        where = ("--run-folder", str(self.folder), "--logs", str(self._place / "logs"), "--host", self._host)
        bind = ("--master", "--master-bind-port", self._port, "--expect-workers", str(workers), "--enable-rebalancing")
        return self._start("master", "--headless", *where, *bind, *options, env=env)

    def forking(self, *options: str) -> Locust:
        """A master that makes its two workers itself."""
        where = ("--run-folder", str(self.folder), "--logs", str(self._place / "logs"), "--host", self._host)
        ports = ("--master-bind-port", self._port, "--master-port", self._port)
        return self._start("both", "--headless", "--processes", "2", *where, *ports, *options)

    def worker(self, name: str, *options: str, env: Mapping[str, str] | None = None) -> Locust:
        master = self._lab.address("master") if self._lab is not None else "127.0.0.1"
        where = ("--worker", "--master-host", master, "--master-port", self._port)
        return self._start(name, *where, *options, env=env)

    def _start(self, name: str, *options: str, env: Mapping[str, str] | None = None) -> Locust:
        on = self._lab.on(name.partition(".")[0]) if self._lab is not None else ()
        return self._stack.enter_context(locust_started(self._place / f"{name}.log", *options, on=on, env=env))

    def wait_for_rows(self, rows: int) -> None:
        wait_until(lambda: rows_written(self.folder) > rows, f"{rows} rows are written")


def roles(run: Run) -> Counter[tuple[str, bool]]:
    return Counter((who.role, who.closed) for who in run.incarnations)


def follows_the_master(run: Run, incarnation: int) -> None:
    """Every request of a worker asked for what the master had decided in that tick, and the balancer did it."""
    rows = run.requests[(run.requests["incarnation"] == incarnation) & (run.requests["decision_tick"] != MISSING_U32)]
    decided = {(d["tick"], d["service"]): (d["action"], d["propensity"]) for d in run.decisions}
    assert all(decided[r["decision_tick"], r["service"]] == (r["action_requested"], r["propensity"]) for r in rows), (
        "a request carries another decision than its tick's"
    )
    heard = rows[rows["status"] != 0]  # what the balancer did with others is not known
    assert (heard["action_applied"] == heard["action_requested"]).all()


def workers_of(run: Run) -> list[int]:
    return [i for i, who in enumerate(run.incarnations) if who.role == "worker"]


def exact_in(run: Run) -> set[str]:
    """The phases in which the users, as the workers reported them, were the plan's."""
    users = [event for event in run.events if event["kind"] == "users"]
    plan = Plan.from_json(run.manifest["plan"])
    exact = [event for event in users if event["planned"] == event["counts"] and any(event["planned"].values())]
    return {phase.name for event in exact if (phase := plan.phase_at(event["run_time_s"])) is not None}

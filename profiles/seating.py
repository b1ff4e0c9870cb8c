"""Seats and accounts over Locust's messages: the master hands them out, and every worker owns what it was given.

    worker                                   master
      | -- ask {id, what, profile} ------------> |   lowest free slot
      | -- ask {id, what, spare} --------------> |   a block of accounts in turn; spare: only what nobody has
      | <- grant {id, run, slot, session} ------ |
      | -- return {run, ...} ------------------> |
      | <- recall ------------------------------ |   accounts ran out: give back what nobody uses

A worker asks when it needs something and asks again until it is answered, because messages to a worker that has just
connected are lost. In a local run, and on the master itself, users ask the pure allocators directly.

What a worker held when it died is taken back when somebody else asks and the master knows it as gone: at once after an
orderly end, about 4 s after a crash (Locust's missed heartbeats). A worker that was only cut off for so long and comes
back keeps its users, so an account of its may then be in use twice until they end; its sessions keep their own numbers.
"""

import itertools
import logging
from collections import deque
from typing import Any, Protocol

from gevent.event import AsyncResult
from gevent.lock import BoundedSemaphore
from locust.env import Environment
from locust.exception import RPCError
from locust.rpc import Message
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from profiles.base import AccountSource, SeatSource
from profiles.seats import Accounts, NoAccountFreeError, Seat, Seats

logger = logging.getLogger(__name__)

ASK, GRANT, RETURN, RECALL = "shop_ask", "shop_grant", "shop_return", "shop_recall"
ACCOUNT_BLOCK = 20
"""Accounts that a worker gets at a time, as long as there are plenty."""
ASK_AGAIN_S = 1.0
WARN_AFTER_ASKS = 10


class Desk(Protocol):
    """Where the users of this process get their seats and accounts."""

    def open(self, accounts: int) -> tuple[SeatSource, AccountSource]:
        """Fresh seats and accounts 0 to `accounts` - 1 for a run that is about to start; call it in `test_start`.

        On a worker the numbers are the master's.
        """
        ...


def install(environment: Environment) -> Desk:
    """The desk of this process, its messages registered; call it once, in `init`, when Locust has made the runner."""
    runner = environment.runner
    if isinstance(runner, MasterRunner):
        desk = MasterDesk(runner)
        runner.register_message(ASK, desk.on_ask)
        runner.register_message(RETURN, desk.on_return)
        return desk
    if isinstance(runner, WorkerRunner):
        window = WorkerWindow(runner)
        runner.register_message(GRANT, window.on_grant)
        runner.register_message(RECALL, window.on_recall)
        return window
    return LocalDesk()


class LocalDesk:
    """All users are in this process."""

    def open(self, accounts: int) -> tuple[Seats, Accounts]:
        return Seats(), Accounts(range(accounts))


class MasterDesk:
    """Answers the workers from the seats and accounts of the current run."""

    def __init__(self, runner: MasterRunner) -> None:
        self._runner = runner
        self._run = 0
        self._seats = Seats()
        self._accounts = Accounts(())
        self._granted: dict[
            tuple[str, int], dict[str, Any]
        ] = {}  # by worker and ask: an ask repeated is answered alike

    def open(self, accounts: int) -> tuple[Seats, Accounts]:
        """A new run. What workers still hold of the one before means nothing any more."""
        self._run += 1
        self._seats, self._accounts = Seats(), Accounts(range(accounts))
        self._granted = {}
        return self._seats, self._accounts

    def on_ask(self, environment: Environment, msg: Message, **_: object) -> None:
        worker, ask = msg.node_id, msg.data
        if self._run == 0:
            return  # no run yet; the worker asks again
        self._take_back(worker)
        grant = self._granted.get((worker, ask["id"]))
        if grant is None:
            grant = self._granted[worker, ask["id"]] = self._grant(worker, ask)
        self._runner.send_message(GRANT, grant, worker)
        if grant.get("accounts") == [] and not ask["spare"]:
            for other in self._present(worker) - {worker}:
                self._runner.send_message(RECALL, None, other)

    def on_return(self, environment: Environment, msg: Message, **_: object) -> None:
        if msg.data["run"] != self._run:
            return
        if "seat" in msg.data:
            self._seats.give_back(Seat(*msg.data["seat"]), msg.node_id)
        self._accounts.give_back_block(msg.data.get("accounts", ()), msg.node_id)

    def _grant(self, worker: str, ask: dict[str, Any]) -> dict[str, Any]:
        answer = {"id": ask["id"], "run": self._run}
        if ask["what"] == "seat":
            seat = self._seats.take(ask["profile"], worker)
            return {**answer, "seat": [seat.profile, seat.slot, seat.session]}
        return {**answer, "accounts": self._accounts.lease_block(ACCOUNT_BLOCK, worker)}

    def _take_back(self, asking: str) -> None:
        present = self._present(asking)
        seats, accounts = self._seats.take_back(present), self._accounts.take_back(present)
        if seats or accounts:
            logger.info("Took back %d seats and %d accounts of workers that are gone.", len(seats), len(accounts))

    def _present(self, asking: str) -> set[str]:
        """The workers that are there; whoever asks is."""
        return {client.id for client in self._runner.clients.all if client.state != STATE_MISSING} | {asking}


class WorkerWindow:
    """A worker's side: asks, waits for the answers, keeps the worker's own accounts."""

    def __init__(self, runner: WorkerRunner) -> None:
        self._runner = runner
        self._ids = itertools.count(1)
        self._waiting: dict[int, AsyncResult[dict[str, Any]]] = {}
        self._abandoned: set[int] = set()  # asked for by users that were ended before the answer came
        self._accounts = WorkerAccounts(self)

    def open(self, accounts: int) -> tuple["WorkerSeats", "WorkerAccounts"]:
        self._accounts = WorkerAccounts(self)
        return WorkerSeats(self), self._accounts

    def ask(self, what: str, **details: object) -> dict[str, Any]:
        """The master's grant. Waits for it as long as it takes; whoever waits may be killed meanwhile."""
        number = next(self._ids)
        answer: AsyncResult[dict[str, Any]] = AsyncResult()
        self._waiting[number] = answer
        self._abandoned.add(number)
        try:
            self._wait(answer, {"id": number, "what": what, **details})
            self._abandoned.discard(number)
        finally:
            del self._waiting[number]
            if number in self._abandoned and answer.ready():
                self._return_unused(number, answer.get())
        grant: dict[str, Any] = answer.get()
        return grant

    def give_back(self, run: int, **what: object) -> None:
        self._send(RETURN, {"run": run, **what})

    def on_grant(self, environment: Environment, msg: Message, **_: object) -> None:
        """A grant may come twice, when it was asked for twice: only the first one counts."""
        number = msg.data["id"]
        if number in self._waiting:
            self._waiting[number].set(msg.data)
        elif number in self._abandoned:
            self._return_unused(number, msg.data)

    def on_recall(self, environment: Environment, msg: Message, **_: object) -> None:
        self._accounts.give_back_idle()

    def _wait(self, answer: "AsyncResult[dict[str, Any]]", ask: dict[str, Any]) -> None:
        for tries in itertools.count(1):
            self._send(ASK, ask)
            if answer.wait(ASK_AGAIN_S) is not None:
                return
            if tries % WARN_AFTER_ASKS == 0:
                waited_s = tries * ASK_AGAIN_S
                logger.warning("The master has not answered a request for %s for %d s.", ask["what"], waited_s)

    def _return_unused(self, number: int, grant: dict[str, Any]) -> None:
        self._abandoned.discard(number)
        self.give_back(grant["run"], **{key: grant[key] for key in ("seat", "accounts") if key in grant})

    def _send(self, kind: str, data: dict[str, Any]) -> None:
        try:
            self._runner.send_message(kind, data)
        except RPCError as error:
            # Locust mends the connection itself; an ask is repeated, and what is not returned is taken back.
            logger.warning("A %s message did not reach the master: %s", kind, error)


class WorkerSeats:
    def __init__(self, window: WorkerWindow) -> None:
        self._window = window
        self._runs: dict[tuple[str, int], int] = {}

    def take(self, profile: str) -> Seat:
        grant = self._window.ask("seat", profile=profile)
        seat = Seat(*grant["seat"])
        self._runs[seat.profile, seat.slot] = grant["run"]
        return seat

    def give_back(self, seat: Seat) -> None:
        run = self._runs.pop((seat.profile, seat.slot))
        self._window.give_back(run, seat=[seat.profile, seat.slot, seat.session])


class WorkerAccounts:
    """The accounts that this worker owns for now, leased in turn.

    As long as the master has accounts that nobody has, new ones come before used ones: in the end the workers have
    divided all of them, and a run with workers has as many different users as one without.
    """

    def __init__(self, window: WorkerWindow) -> None:
        self._window = window
        self._run = 0
        self._new: deque[int] = deque()
        self._used: deque[int] = deque()
        self._more = True  # the master may have some that nobody has
        self._asking = BoundedSemaphore()  # one block at a time: many users start at once

    def lease(self) -> int:
        with self._asking:
            if not self._new and (self._more or not self._used):
                grant = self._window.ask("accounts", spare=bool(self._used))
                self._run, self._more = grant["run"], bool(grant["accounts"])
                self._new.extend(grant["accounts"])
            idle = self._new or self._used
            if not idle:
                raise NoAccountFreeError("all accounts are in use; raise total_users in the scenario")
            return idle.popleft()

    def give_back(self, account: int) -> None:
        self._used.append(account)

    def give_back_idle(self) -> None:
        """The master is short of accounts."""
        idle = [*self._new, *self._used]
        if idle:
            self._new.clear()
            self._used.clear()
            self._window.give_back(self._run, accounts=idle)

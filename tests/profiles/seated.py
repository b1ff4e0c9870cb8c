"""One node of a distributed run for the test of the seats: `seated.py master PORT ACCOUNTS WORKERS` or `seated.py
worker PORT`. Reads commands from stdin, answers each with one line of JSON. No users run: it takes seats itself.
"""

import json
import sys
from typing import Any

import gevent
from gevent.fileobject import FileObject
from locust import User
from locust.env import Environment

from profiles import seating
from profiles.seats import NoAccountFreeError


class Nobody(User):
    tasks = [lambda user: None]  # noqa: RUF012 - Locust's own way


def main() -> None:
    role, port = sys.argv[1], int(sys.argv[2])
    environment = Environment(user_classes=[Nobody])
    if role == "master":
        environment.create_master_runner("127.0.0.1", port)
    else:
        environment.create_worker_runner("127.0.0.1", port)
    desk = seating.install(environment)
    seats, accounts = desk.open(int(sys.argv[3]) if role == "master" else 0)
    held: dict[tuple[str, int], Any] = {}
    say("ready")
    for line in FileObject(sys.stdin, "r"):
        command, *details = json.loads(line)
        match command:
            case "workers":
                while len(environment.runner.clients.ready) < details[0]:  # type: ignore[union-attr]
                    gevent.sleep(0.01)
                say(details[0])
            case "take":
                seat = seats.take(details[0])
                held[seat.profile, seat.slot] = seat
                say([seat.slot, seat.session])
            case "take_many":
                taken = [job.get() for job in [gevent.spawn(seats.take, details[0]) for _ in range(details[1])]]
                held |= {(seat.profile, seat.slot): seat for seat in taken}
                say(sorted(seat.slot for seat in taken))
            case "leave":
                seat = held.pop((details[0], details[1]))
                seat.session = details[2]
                seats.give_back(seat)
                say(None)
            case "lease_many":
                leased = [job.get() for job in [gevent.spawn(accounts.lease) for _ in range(details[0])]]
                say(leased)
            case "lease":
                say(lease(accounts))
            case "give_back":
                for account in details[0]:
                    accounts.give_back(account)
                say(None)
            case "killed_asking":
                asking = gevent.spawn(seats.take, details[0])
                gevent.sleep(0)
                asking.kill()
                say(None)
            case "free":  # messages of two workers overtake each other, so the master says when it has the seat back
                while details[1] >= seats._made.get(details[0], 0) or tuple(details) in seats._holders:  # type: ignore[union-attr]
                    gevent.sleep(0.01)
                say(None)
            case "open":
                seats, accounts = desk.open(details[0])
                held = {}
                say(None)
            case "missing":
                while any(
                    client.state != "missing" for client in environment.runner.clients.all if client.id == details[0]
                ):  # type: ignore[union-attr]
                    gevent.sleep(0.05)
                say(None)
            case "id":
                say(environment.runner.client_id)  # type: ignore[union-attr]


def lease(accounts: Any) -> Any:
    try:
        return accounts.lease()
    except NoAccountFreeError as error:
        return str(error)


def say(value: object) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()

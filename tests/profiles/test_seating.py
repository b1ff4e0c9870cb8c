"""Seats and accounts of a real master and real workers on loopback."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DEADLINE_S = 40


class Node:
    """A process with a master or a worker in it."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("seated.py")), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
        )
        assert self.process.stdout is not None and self.process.stdin is not None
        assert json.loads(self.process.stdout.readline()) == "ready"

    def __call__(self, *command: object) -> Any:
        assert self.process.stdout is not None and self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)


Cluster = tuple[Node, Node, Node]


@pytest.fixture
def cluster() -> Iterator[Callable[[int], Cluster]]:
    nodes: list[Node] = []

    def start(accounts: int) -> Cluster:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        nodes.append(Node("master", port, accounts))
        nodes.extend(Node("worker", port) for _ in range(2))
        assert nodes[0]("workers", 2) == 2
        return nodes[0], nodes[1], nodes[2]

    yield start
    for node in nodes:
        node.kill()
        for pipe in (node.process.stdin, node.process.stdout):
            assert pipe is not None
            pipe.close()


def test_seats_are_unique_over_workers_and_sessions_go_on(cluster: Callable[[int], Cluster]) -> None:
    master, one, two = cluster(10)
    taken = one("take_many", "quick", 20) + two("take_many", "quick", 20)
    assert sorted(taken) == list(range(40))
    assert one("take", "bulk") == [0, 0]
    one("leave", "bulk", 0, 5)
    master("free", "bulk", 0)
    assert two("take", "bulk") == [0, 5]
    two("killed_asking", "bulk")
    master("free", "bulk", 1)
    assert one("take", "bulk")[0] == 1  # what the killed one was given came back
    master("open", 10)
    for worker in (one, two):
        worker("open", 0)
    assert two("take", "bulk") == [0, 0]


def test_every_account_has_one_holder_and_idle_ones_are_recalled(cluster: Callable[[int], Cluster]) -> None:
    _, one, two = cluster(30)
    first = one("lease_many", 5)
    second = two("lease_many", 8)
    assert len({*first, *second}) == 13
    one("give_back", first[:2])
    rest = []
    while isinstance(account := two("lease"), int) or len(rest) + 8 + 3 < 30:
        if isinstance(account, int):  # otherwise the other worker is just being asked for its idle ones
            rest.append(account)
    assert account == "all accounts are in use; raise total_users in the scenario"
    assert sorted([*first[2:], *second, *rest]) == list(range(30))


def test_workers_go_through_all_accounts_before_any_comes_again(cluster: Callable[[int], Cluster]) -> None:
    """Sessions one after the other on two workers: together they use every account, and each keeps to its share."""
    _, *workers = cluster(50)
    used: list[list[int]] = [[], []]
    for _ in range(60):
        for worker, mine in zip(workers, used, strict=True):
            mine.append(worker("lease"))
            worker("give_back", mine[-1:])
    shares = [set(mine) for mine in used]
    assert shares[0] | shares[1] == set(range(50))
    assert not shares[0] & shares[1]
    for mine, share in zip(used, shares, strict=True):
        assert set(mine[: len(share)]) == share  # in turn
        assert mine[len(share) :] == mine[: len(mine) - len(share)]


def test_what_a_killed_worker_held_is_taken_back(cluster: Callable[[int], Cluster]) -> None:
    master, one, two = cluster(4)
    worker = one("id")
    assert one("take_many", "quick", 3) == [0, 1, 2]
    assert len(one("lease_many", 4)) == 4
    assert isinstance(two("lease"), str)
    one.kill()
    master("missing", worker)
    assert two("take", "quick") == [0, 1000]
    assert sorted(two("lease_many", 4)) == [0, 1, 2, 3]

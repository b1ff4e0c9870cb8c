"""The image is built and one overlay is run with it: processes, volumes, users and limits as the manifests say.

In place of a kubelet the test starts the sidecar before Locust and ends it after it. It cannot show what only a
cluster does: scheduling, probes, disruption budgets, network policies, autoscaling.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rl_hooks.run_reader import read_run
from tests.deploy import containers
from tests.deploy.containers import Engine, Node
from tests.deploy.manifests import overlay, pods_of

WHY_NOT = containers.missing()
pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]
WORKERS = 2


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with closing(Engine(tmp_path_factory.mktemp("engine"))) as made:
        made.build()
        yield made


class Cluster(Node):
    """The overlay `ci` with its sandbox and workers; the quick scenario in half a minute."""

    def __init__(self, engine: Engine, place: Path) -> None:
        objects = overlay("ci")
        super().__init__(engine, place, objects, LOCUST_TIME_SCALE="60")
        self._pods = {one.owner["metadata"]["name"]: one for one in pods_of(objects)}
        self.shelf = place / "shelf"

    def begin_without_master(self) -> None:
        sandbox = self.start(self._pods["rl-sandbox"], "sandbox")
        self.wait_for(sandbox, "sandbox ready")
        self.ships = [self.start(self._pods["rl-worker"], "ship", index) for index in range(WORKERS)]
        self.workers = [self.start(self._pods["rl-worker"], "locust", index) for index in range(WORKERS)]

    def begin(self) -> None:
        self.begin_without_master()
        self.begin_master()

    def begin_master(self) -> None:
        self.ships.append(self.start(self._pods["rl-master"], "ship"))
        self.master = self.start(self._pods["rl-master"], "locust")

    def end_sidecars(self) -> list[int]:
        for name in self.ships:
            self.terminate(name)
        return [self.ended(name) for name in self.ships]

    def export(self) -> int:
        name = self.start(self._pods["rl-export"], "export")
        return self.ended(name)

    def probe(self, worker: str) -> int:
        command: list[str] = self._pods["rl-worker"].container("locust")["readinessProbe"]["exec"]["command"]
        return self.exec(worker, *command)


def test_a_run_is_recorded_shipped_and_exported_by_the_containers_of_the_manifests(
    engine: Engine, tmp_path: Path
) -> None:
    with Cluster(engine, tmp_path) as cluster:
        cluster.begin_without_master()
        assert [cluster.probe(worker) for worker in cluster.workers] == [1, 1]  # not ready without a master
        cluster.begin_master()
        cluster.wait_for(cluster.master, "0:10 of 0:30")
        assert [cluster.probe(worker) for worker in cluster.workers] == [0, 0]
        assert cluster.exec(cluster.master, "touch", "/app/x") != 0
        assert cluster.exec(cluster.master, "sh", "-c", 'test "$(cat /proc/1/comm)" = locust') == 0
        assert cluster.ended(cluster.master) == 0, cluster.log(cluster.master)
        assert [cluster.ended(worker) for worker in cluster.workers] == [0, 0]
        assert cluster.end_sidecars() == [0, 0, 0], [cluster.log(name) for name in cluster.ships]
        assert cluster.export() == 0, cluster.log(cluster.names[-1])
        run = read_run(cluster.shelf / "ci")
        assert run.losses == ()
        assert {who.role for who in run.incarnations} == {"master", "worker"}
        assert len({who.name for who in run.incarnations}) >= 1 + WORKERS
        assert (cluster.shelf / "bundles" / "ci" / "dataset.json").exists()


def test_sigterm_ends_a_run_in_order_and_nothing_is_lost(engine: Engine, tmp_path: Path) -> None:
    with Cluster(engine, tmp_path) as cluster:
        cluster.begin()
        cluster.wait_for(cluster.master, "0:10 of 0:30")
        for name in (cluster.master, *cluster.workers):
            cluster.terminate(name)
        assert cluster.ended(cluster.master) == 1, cluster.log(cluster.master)  # interrupted
        assert [cluster.ended(worker) for worker in cluster.workers] == [0, 0]
        assert cluster.end_sidecars() == [0, 0, 0]
        run = read_run(cluster.shelf / "ci")
        assert run.losses == ()
        assert all(who.closed for who in run.incarnations)
        assert run.manifest["state"] == "interrupted"
        assert cluster.export() == 0, cluster.log(cluster.names[-1])

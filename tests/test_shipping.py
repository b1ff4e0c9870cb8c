"""A master and workers that share no folder, each with a shipper beside it, as real processes."""

import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from rl_hooks.run_reader import read_run
from tests.processes import free_port, locust_started, rows_written, sandbox_started, wait_until
from tests.replayed import check_replay
from tests.rl_hooks.ship.written import bundle, shipping

pytestmark = pytest.mark.slow


def test_hosts_that_share_no_folder_record_each_for_itself_and_the_store_has_the_run(tmp_path: Path) -> None:
    """The store is away for most of the run, which nobody but the shippers notices."""
    store, away, logs = tmp_path / "store", tmp_path / "away", tmp_path / "logs"
    hosts = {name: tmp_path / name for name in ("master", "one", "two")}
    for folder in (store, logs, *hosts.values()):
        folder.mkdir()
    port = str(free_port())
    with ExitStack() as stack:
        sandbox = stack.enter_context(sandbox_started("--healthy"))
        before = sandbox.client_requests()
        shippers = [
            stack.enter_context(shipping(folder, "--to", store, log=logs / f"{name}.ship"))
            for name, folder in hosts.items()
        ]
        where = ("--host", sandbox.host, "--run-folder", str(hosts["master"] / "run"), "--no-export")
        bind = ("--master", "--master-bind-port", port, "--expect-workers", "2", "--enable-rebalancing")
        master = stack.enter_context(locust_started(logs / "master", "--headless", *where, *bind))
        workers = [
            stack.enter_context(
                locust_started(logs / name, "--worker", "--master-port", port, "--spool", str(hosts[name]))
            )
            for name in ("one", "two")
        ]
        wait_until(lambda: rows_written(store / "run") > 0, "rows arrive while the run goes on")
        store.rename(away)
        assert master.ended() == 0, master.said
        assert [worker.ended() for worker in workers] == [0, 0], workers[0].said + workers[1].said
        away.rename(store)
        wait_until(lambda: read_run(store / "run").losses == (), "everything has arrived")
        for shipper in shippers:
            shipper.send_signal(signal.SIGTERM)
        assert [shipper.wait(60) for shipper in shippers] == [0, 0, 0]
        assert "trying again" in (logs / "one.ship").read_text()
        run = read_run(store / "run")
        assert run.losses == ()
        assert Counter((who.role, who.closed) for who in run.incarnations) == {("master", True): 1, ("worker", True): 2}
        assert run.request_count == sandbox.client_requests() - before
        assert run.manifest["state"] == "complete"
    assert not any((hosts["master"] / "run" / "requests").iterdir())
    check_replay(store / "run")
    assert bundle(store / "run", tmp_path / "bundle")

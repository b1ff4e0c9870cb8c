"""Shipping to S3 and reading there, against a real server and its outages."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rl_hooks.export.__main__ import main as export
from tests.processes import ROOT, wait_until
from tests.rl_hooks.ship.s3_server import BUCKET, Server, s3_server
from tests.rl_hooks.ship.written import bundle, files, ship, shipping, writing, written

pytestmark = pytest.mark.s3

TIMEOUT_S = 60
PLACE = f"s3://{BUCKET}/some/where"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with s3_server(tmp_path / "server.log") as running:
        yield running


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of forty sealed segments; to be read only."""
    return written(tmp_path_factory.mktemp("whole") / "run", pieces=10)


def objects(folder: Path, below: str = "some/where/run") -> dict[str, bytes]:
    """What should be in the bucket of a run that closed in order."""
    found = files(folder).items()
    return {f"{below}/{name}": content for name, content in found if not name.startswith("in_flight/")}


def command(module: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    whole_command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(whole_command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def refused(capsys: pytest.CaptureFixture[str], run: str, tmp_path: Path, *options: str) -> str:
    arguments = [run, "--out", str(tmp_path / "bundle"), "--logs", str(tmp_path / "logs"), *options]
    assert export(arguments) == 2
    assert not (tmp_path / "bundle").exists()
    return capsys.readouterr().err


# -- what arrives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "kill"])
def test_what_arrives_exports_to_the_same_bytes(server: Server, tmp_path: Path, end: str) -> None:
    run = written(tmp_path / "run", end=end)
    done = ship(run, "--to", PLACE, "--endpoint-url", server.url)
    assert (done.returncode, done.stderr) == (0, "")
    here = bundle(run, tmp_path / "here")
    assert bundle(f"{PLACE}/run", tmp_path / "there") == here
    if end == "close":
        assert server.objects() == objects(run)


def test_report_and_verify_read_it_there(server: Server, whole: Path, tmp_path: Path) -> None:
    assert ship(whole, "--to", PLACE, "--once").returncode == 0
    for module, options in (("rl_hooks.report", ("--out", tmp_path / "card")), ("rl_hooks.export.verify", ())):
        here = command(module, whole, *options)
        there = command(module, f"{PLACE}/run", *options)
        assert (there.returncode, there.stderr) == (here.returncode, "")
        assert there.stdout == here.stdout
    assert (tmp_path / "card" / "report_card.json").exists()


def test_a_prefix_is_not_needed_and_a_slash_at_the_end_means_nothing(
    server: Server, whole: Path, tmp_path: Path
) -> None:
    assert ship(whole, "--to", f"s3://{BUCKET}/", "--once").returncode == 0
    assert server.objects() == objects(whole, "run")
    assert bundle(f"s3://{BUCKET}/run/", tmp_path / "there") == bundle(whole, tmp_path / "here")


def test_shipping_again_puts_nothing(server: Server, whole: Path) -> None:
    assert ship(whole, "--to", PLACE, "--once").returncode == 0
    puts = server.asked_for("PUT")
    assert puts == len(objects(whole))
    assert ship(whole, "--to", PLACE, "--once").returncode == 0
    assert server.asked_for("PUT") == puts


def test_a_cache_is_not_fetched_again_and_what_is_wrong_in_it_is(server: Server, whole: Path, tmp_path: Path) -> None:
    assert ship(whole, "--to", PLACE, "--once").returncode == 0
    arguments = [f"{PLACE}/run", "--out", str(tmp_path / "bundle"), "--logs", str(tmp_path / "logs")]
    arguments += ["--cache", str(tmp_path / "cache")]
    assert export(arguments) == 0
    cached = tmp_path / "cache" / BUCKET / "some" / "where" / "run"
    assert {f"some/where/run/{name}": content for name, content in files(cached).items()} == server.objects()
    gets = server.asked_for("GET")
    assert export(arguments) == 0
    assert server.asked_for("GET") == gets
    wrong = min((cached / "requests").iterdir())
    wrong.write_bytes(bytes(wrong.stat().st_size))
    assert export(arguments) == 0
    assert server.asked_for("GET") == gets + 1
    assert wrong.read_bytes() == server.objects()[f"some/where/run/requests/{wrong.name}"]


# -- what can happen on the way ---------------------------------------------------------------------------------------


def test_a_server_that_hangs_holds_up_nobody_but_the_shipper(server: Server, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = writing(run, pieces=20, pause_s=0.1)
    wait_until((run / "manifest.json").exists, "the run has begun")
    with shipping(run, "--to", PLACE, log=tmp_path / "log") as shipper:
        wait_until(lambda: server.asked_for("PUT") > 3, "something has arrived")
        server.send(signal.SIGSTOP)
        assert process.wait(TIMEOUT_S) == 0
        assert shipper.poll() is None
        server.send(signal.SIGCONT)
        assert shipper.wait(TIMEOUT_S) == 0
    assert server.objects() == objects(run)


def test_what_a_server_lost_while_it_was_away_is_shipped_again(server: Server, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    process = writing(run, pieces=20, pause_s=0.1)
    wait_until((run / "manifest.json").exists, "the run has begun")
    with shipping(run, "--to", PLACE, log=log) as shipper:
        wait_until(lambda: server.asked_for("PUT") > 3, "something has arrived")
        server.kill()
        wait_until(lambda: "trying again in 1 s" in log.read_text(), "the shipper has noticed")
        assert process.wait(TIMEOUT_S) == 0
        server.start()  # with an empty bucket
        assert shipper.wait(TIMEOUT_S) == 0
    said = log.read_text()
    assert f"ship: {PLACE}: cannot be reached (" in said
    assert "ship: shipping again after " in said
    assert "Traceback" not in said
    assert server.objects() == objects(run)


def test_a_server_that_is_away_at_the_start_is_waited_for(server: Server, whole: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    server.kill()
    with shipping(whole, "--to", PLACE, log=log) as shipper:
        wait_until(lambda: "trying again" in log.read_text(), "the shipper has noticed")
        server.start()
        assert shipper.wait(TIMEOUT_S) == 0
    assert "; what is recorded stays on this disk until it is back\n" in log.read_text()
    assert server.objects() == objects(whole)


def test_a_shipper_that_is_killed_again_and_again_loses_and_doubles_nothing(
    server: Server, whole: Path, tmp_path: Path
) -> None:
    run, delete = tmp_path / "run", "--delete-after-shipping"
    shutil.copytree(whole, run)
    for puts in (1, 6, 17, 37):
        with shipping(run, "--to", PLACE, delete, log=tmp_path / "log") as shipper:
            while shipper.poll() is None and server.asked_for("PUT") < puts:
                pass
            shipper.send_signal(signal.SIGKILL)
            assert shipper.wait(TIMEOUT_S) == -signal.SIGKILL, "the kill came too late to cut anything off"
    assert ship(run, "--to", PLACE, "--once", delete).returncode == 0
    assert server.objects() == objects(whole)
    assert server.asked_for("PUT") <= len(objects(whole)) + 4  # one may be put again after each kill
    assert not list(run.rglob("*.seg"))


def test_the_last_pass_ends_in_time_though_the_server_hangs(server: Server, whole: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = "import sys, rl_hooks.ship.__main__ as ship; ship.LAST_PASS_S = 1.0; sys.exit(ship.main(sys.argv[1:]))"
    server.send(signal.SIGSTOP)
    with log.open("w") as file:
        arguments = [sys.executable, "-u", "-c", program, str(whole), "--to", PLACE]
        process = subprocess.Popen(arguments, stdout=file, stderr=file, cwd=ROOT)
    try:
        wait_until(lambda: "shipping " in log.read_text(), "it has begun")
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 3
    finally:
        process.kill()
        process.wait(TIMEOUT_S)
        server.send(signal.SIGCONT)
    assert "did not end within 1 s" in log.read_text()


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_bucket_that_does_not_exist(server: Server, whole: Path, tmp_path: Path, capsys: Any) -> None:
    text = (
        "s3://nothing/at/all: NoSuchBucket (The specified bucket does not exist); make the bucket, or correct its name"
    )
    done = ship(whole, "--to", "s3://nothing/at/all")
    assert (done.returncode, done.stderr) == (2, f"ship: {text}\n")
    assert refused(capsys, "s3://nothing/at/all", tmp_path) == f"export: {text}\n"


def test_no_credentials(server: Server, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for module, arguments in (("rl_hooks.ship", (whole, "--to", PLACE)), ("rl_hooks.export.verify", (PLACE,))):
        done = command(module, *arguments)
        assert done.returncode == 2
        word = module.split(".")[-1]
        text = f"{word}: {PLACE}: no credentials (Unable to locate credentials); set AWS_ACCESS_KEY_ID and "
        assert done.stderr.startswith(text)
        assert done.stderr.count("\n") == 1


def test_an_object_whose_content_is_another_one(server: Server, whole: Path, tmp_path: Path, capsys: Any) -> None:
    assert ship(whole, "--to", PLACE, "--once").returncode == 0
    client, name = server.client(), min(name for name in server.objects() if "/requests/" in name)
    there = client.get_object(Bucket=BUCKET, Key=name)
    content = there["Body"].read()
    client.put_object(Bucket=BUCKET, Key=name, Body=content[:-1] + b"!", Metadata=there["Metadata"])
    text = f"s3://{BUCKET}/{name}: the checksum differs from the one it was put there with; ship it again"
    assert refused(capsys, f"{PLACE}/run", tmp_path) == f"export: {text}\n"
    assert ship(whole, "--to", PLACE, "--once").returncode == 0


def test_an_object_that_somebody_else_put_there_is_taken_as_it_is(server: Server, whole: Path, tmp_path: Path) -> None:
    for name, content in objects(whole).items():
        server.client().put_object(Bucket=BUCKET, Key=name, Body=content)
    assert bundle(f"{PLACE}/run", tmp_path / "there") == bundle(whole, tmp_path / "here")


def test_an_object_that_has_vanished(server: Server, whole: Path, tmp_path: Path) -> None:
    from rl_hooks.stores.place import open_store
    from rl_hooks.stores.store import StoreError

    store = open_store(PLACE)
    with pytest.raises(StoreError) as caught, (tmp_path / "file").open("wb") as file:
        store.get("run/manifest.json", file)
    text = f"{PLACE}/run/manifest.json: has vanished since it was listed; try again, or ship it again"
    assert str(caught.value) == text


def test_a_place_that_is_no_run_says_what_there_is(server: Server, whole: Path, tmp_path: Path, capsys: Any) -> None:
    nothing = f"export: {PLACE}: no run is there (manifest.json is missing); "
    assert refused(capsys, PLACE, tmp_path) == f"{nothing}check the URL, and that the run was shipped\n"
    assert ship(whole, "--to", PLACE, "--once").returncode == 0
    assert refused(capsys, PLACE, tmp_path) == f"{nothing}name one of the runs: run\n"
    server.client().delete_object(Bucket=BUCKET, Key="some/where/run/manifest.json")
    text = "the part of the process that led it has not arrived; ship it too"
    assert refused(capsys, f"{PLACE}/run", tmp_path).endswith(
        f"/run: no run is there (manifest.json is missing); {text}\n"
    )


def test_a_cache_that_cannot_be_written(server: Server, whole: Path, tmp_path: Path, capsys: Any) -> None:
    assert ship(whole, "--to", PLACE, "--once").returncode == 0
    (tmp_path / "file").write_text("in the way")
    target = tmp_path / "file" / BUCKET / "some" / "where" / "run"
    text = f"{target}: {PLACE}/run cannot be written there (Not a directory); free some space or choose another place"
    said = refused(capsys, f"{PLACE}/run", tmp_path, "--cache", str(tmp_path / "file"))
    assert said == f"export: {text} with --cache\n"


def test_a_bundle_and_a_report_need_a_place_here(capsys: Any) -> None:
    assert export([f"{PLACE}/run"]) == 2
    assert (
        capsys.readouterr().err == "export: a bundle of a run in S3 needs a place of its own; give it with --out DIR\n"
    )
    done = command("rl_hooks.report", f"{PLACE}/run")
    assert done.returncode == 2
    assert done.stderr == "report: the report card of a run in S3 needs a place; give it with --out DIR\n"

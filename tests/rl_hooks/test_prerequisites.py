"""What a person reads before a run that cannot begin. kubectl is a process boundary: a script on PATH stands for it."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rl_hooks import prerequisites
from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from rl_hooks.export.logs import write_logs
from rl_hooks.prerequisites import Check, State, bytes_needed, check_all, check_disk, check_host, check_packages
from rl_hooks.prerequisites import check_pods as check
from rl_hooks.run_reader import read_run
from tests import builders
from tests.processes import free_port

Kubectl = Callable[..., Path]


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    """Puts a kubectl of this test on PATH; it writes its arguments into the file that is returned."""

    def install(pods: str = "", context: str = "echo dev-cluster") -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        said = tmp_path / "said"
        script = folder / "kubectl"
        script.write_text(f'#!/bin/sh\necho "$@" >> {said}\ncase "$1" in\nconfig) {context} ;;\nget) {pods} ;;\nesac\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return said

    return install


def listing(tmp_path: Path, pods: Sequence[dict[str, Any]]) -> str:
    """The shell command that prints these pods as kubectl does."""
    file = tmp_path / "pods.json"
    file.write_text(json.dumps({"kind": "List", "items": pods}))
    return f"cat {file}"


def pod(name: str, phase: str = "Running", ready: bool = True, **status: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": {"name": name, "namespace": "shop"},
        "status": {"phase": phase, "conditions": conditions, **status},
    }


def waiting(container: str, reason: str) -> list[dict[str, Any]]:
    return [{"name": container, "state": {"waiting": {"reason": reason}}}]


# -- pods -------------------------------------------------------------------------------------------------------------


def test_without_kubectl_nothing_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check() == Check("pods", State.NOT_CHECKED, "kubectl is not installed")


def test_without_a_context_nothing_is_checked(kubectl: Kubectl) -> None:
    kubectl(context="echo error: current-context is not set >&2; exit 1")
    text = "kubectl has no current context (error: current-context is not set)"
    assert check("shop") == Check("pods", State.NOT_CHECKED, text)


def test_pods_that_run_and_jobs_that_are_done_are_well(kubectl: Kubectl, tmp_path: Path) -> None:
    said = kubectl(listing(tmp_path, [pod("cart-1"), pod("cart-2"), pod("seed-job", "Succeeded", ready=False)]))
    text = "namespace shop of context dev-cluster: all 2 are running and ready"
    assert check() == Check("pods", State.OK, text)
    assert said.read_text().splitlines() == ["config current-context", "get pods --output=json"]


def test_every_pod_that_is_not_ready_is_named_with_its_reason(kubectl: Kubectl, tmp_path: Path) -> None:
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no memory"}
    pods = [
        pod("well"),
        pod("crashing", ready=False, containerStatuses=waiting("cart", "CrashLoopBackOff")),
        pod("pulling", "Pending", ready=False, containerStatuses=waiting("order", "ImagePullBackOff")),
        pod("nowhere", "Pending", ready=False, conditions=[unschedulable]),
        pod("thrown-out", "Failed", ready=False, reason="Evicted"),
        pod("starting", ready=False),
        pod(
            "broken", ready=False, containerStatuses=[{"name": "pay", "state": {"terminated": {"reason": "OOMKilled"}}}]
        ),
    ]
    leaving = pod("leaving")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    said = kubectl(listing(tmp_path, [*pods, leaving]))
    found = check("shop")
    assert found.state is State.FAILED
    assert found.text.splitlines() == [
        "namespace shop of context dev-cluster: 7 of 8 are not running and ready",
        "crashing: Running, cart CrashLoopBackOff",
        "pulling: Pending, order ImagePullBackOff",
        "nowhere: Pending, Unschedulable (no memory)",
        "thrown-out: Failed, Evicted",
        "starting: Running, not ready",
        "broken: Running, pay OOMKilled",
        "leaving: is being deleted",
    ]
    assert found.way_out == (
        "See: kubectl describe pod NAME --namespace=shop; wait or mend, "
        "or set KUBECONFIG=/dev/null when the target is in no cluster"
    )
    assert said.read_text().splitlines()[1] == "get pods --output=json --namespace=shop"


@pytest.mark.parametrize(
    ("pods", "why"),
    [
        ("echo Unable to connect to the server >&2; exit 1", "Unable to connect to the server"),
        ("exit 7", "exit code 7"),
        ("echo well", "it did not answer with a list of pods"),
        ("echo '{}'", "it did not answer with a list of pods"),
    ],
)
def test_a_cluster_that_does_not_answer_fails_who_has_named_a_namespace(kubectl: Kubectl, pods: str, why: str) -> None:
    kubectl(pods)
    text = f"the pods of context dev-cluster cannot be listed: {why}"
    assert check() == Check("pods", State.NOT_CHECKED, text)
    named = check("shop")
    assert (named.state, named.text) == (State.FAILED, text)
    assert named.way_out is not None
    assert named.way_out.startswith("Check the access with: kubectl get pods, or set KUBECONFIG=/dev/null")


def test_a_namespace_without_pods_fails_who_has_named_it(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl(listing(tmp_path, []))
    assert check() == Check("pods", State.NOT_CHECKED, "the default namespace of context dev-cluster has no pods")
    assert check("shoop") == Check(
        "pods",
        State.FAILED,
        "namespace shoop of context dev-cluster has no pods",
        "Name the namespace of the target with --namespace",
    )


def test_a_kubectl_that_hangs_is_given_up_with_the_helper_it_started(
    kubectl: Kubectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prerequisites, "KUBECTL_S", 0.3)
    pid = tmp_path / "pid"
    kubectl(f"sleep 60 & echo $! > {pid}; wait")
    assert check().text == "the pods of context dev-cluster cannot be listed: no answer within 0.3 s"
    helper = Path("/proc") / pid.read_text().strip() / "stat"
    deadline = time.monotonic() + 10
    while helper.exists() and helper.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < deadline, "the helper is still there"
        time.sleep(0.01)


def test_a_kubectl_that_cannot_be_started_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "kubectl"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    text = "kubectl has no current context (kubectl cannot be started: No such file or directory)"
    assert check() == Check("pods", State.NOT_CHECKED, text)


# -- disk -------------------------------------------------------------------------------------------------------------


def test_the_estimate_covers_what_a_run_of_the_plan_leaves(tmp_path: Path) -> None:
    planned = builders.plan(phases={"morning": 10.0, "evening": 10.0})
    expected = sum(sum(planned.expected_service_rps(phase).values()) * phase.duration_s for phase in planned.phases)
    folder = builders.write_run(builders.random_run(planned=planned, count=round(expected)), tmp_path / "run")
    data = assemble([read_run(folder)])
    write_bundle(data, folder / "bundle")
    write_logs(data, tmp_path / "logs")
    left = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert left < bytes_needed(planned)
    assert left > 0.1 * (bytes_needed(planned) - prerequisites.FIXED_BYTES)  # and no refusal out of thin air


def test_the_estimate_grows_with_requests_and_with_decisions() -> None:
    base, longer = builders.plan(), builders.plan(phases={"morning": 20.0, "evening": 20.0})
    often = builders.plan(decision_interval_s=1.0)
    assert bytes_needed(base) < bytes_needed(often) < bytes_needed(longer)


def test_a_plan_that_needs_more_than_there_is_is_refused(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    found = check_disk(free + 10**13, tmp_path / "not" / "made" / "yet")
    assert found.state is State.FAILED
    assert found.text.endswith("GB needed at most")
    assert found.text.startswith(f"{tmp_path / 'not' / 'made' / 'yet'}: ")
    assert found.way_out is not None
    assert found.way_out.endswith(
        "GB, choose another place for the run folder, or send fewer requests (smaller --user-scale)"
    )
    assert check_disk(1, tmp_path / "not" / "made" / "yet").state is State.OK


@pytest.mark.root
def test_a_disk_that_is_nearly_full_is_seen(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)], check=False).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        (disk / "others").write_bytes(bytes(6 << 20))
        found = check_disk(bytes_needed(builders.plan()), disk / "runs" / "one")
        assert found.state is State.FAILED
        assert found.text.startswith(f"{disk / 'runs' / 'one'}: 2 MB free, about ")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


# -- packages, target, all together -----------------------------------------------------------------------------------


def test_the_packages_that_are_asked_for_are_here() -> None:
    assert check_packages().state is State.OK


def test_packages_that_are_missing_or_do_not_fit_are_all_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "pyproject.toml"
    lines = ["numpy<1", "no-such-package>=2", "another-one", "pandas>=1", "elsewhere; sys_platform == 'none'"]
    project.write_text(f"[project]\ndependencies = {lines}\n")
    monkeypatch.setattr(prerequisites, "PYPROJECT", project)
    found = check_packages()
    assert found.state is State.FAILED
    assert found.text.startswith("numpy ")
    assert found.text.split("; ", 1)[0].endswith(" does not fit (<1 is needed)")
    assert found.text.split("; ", 1)[1] == (
        "no-such-package is missing (>=2 is needed); another-one is missing (any version is needed)"
    )
    assert found.way_out == (
        "Run `make run`, which installs them, or: python -m pip install --require-hashes -r requirements.lock"
    )


def test_a_target_that_is_not_there_fails_with_the_way_out() -> None:
    host = f"http://127.0.0.1:{free_port()}/proxy"
    found = check_host(host)
    assert found.state is State.FAILED
    assert found.text.splitlines()[0] == f"target {host}: 5 of 5 services are not ready"
    assert found.way_out is not None
    assert found.way_out.startswith("Nothing listens there. ")


def test_a_host_that_is_no_url_fails() -> None:
    text = "--host balancer: not a URL of a web server; give one like http://localhost:8080/proxy"
    assert check_host("balancer") == Check("target", State.FAILED, text)


def test_all_is_checked_whatever_fails(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl(listing(tmp_path, [pod("cart-1", "Pending", ready=False)]))
    host = f"http://127.0.0.1:{free_port()}/proxy"
    huge = builders.plan(phases={"morning": 1e9, "evening": 1.0}, decision_interval_s=1.0)
    found = check_all([huge, builders.plan()], host, tmp_path / "run", "shop")
    assert [(check.name, str(check.state)) for check in found] == [
        ("target", "failed"),
        ("disk space", "failed"),
        ("packages", "ok"),
        ("pods", "failed"),
    ]


def test_a_sandbox_of_our_own_needs_no_pods(kubectl: Kubectl, tmp_path: Path) -> None:
    said = kubectl("exit 1")
    found = check_all(builders.plan(), None, tmp_path / "run")
    assert [str(check) for check in found if check.state is State.NOT_CHECKED] == [
        "not checked  target       a sandbox is started with the run",
        "not checked  pods         the sandbox needs none",
    ]
    assert not said.exists()


def test_a_check_is_printed_with_its_way_out_below() -> None:
    check = Check("pods", State.FAILED, "two things\nthis and that", "Do something")
    assert str(check).splitlines() == [
        "failed       pods         two things",
        "                          this and that",
        "                          Do something",
    ]

"""What has to hold before a run begins: target, disk space, Python packages, and the pods where a cluster is known.

Every check is made, whatever the others say, so that a person reads all that is missing at once.
"""

import enum
import json
import os
import shutil
import signal
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from rl_hooks.decision import SERVICES
from rl_hooks.row import DECISIONS, OBSERVATIONS, REQUESTS, SAMPLES
from rl_hooks.target import TargetError, check_target
from scenario.plan import Plan

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"  # not there where the suite is installed
DISTRIBUTION = "locust-rl-balancer"

# Disk space, from runs of the sandbox: a request takes 25 bytes of a bundle, a decision 500, and 1,000 in logs/.
BUNDLE_BYTES_PER_REQUEST = 60
BUNDLE_BYTES_PER_DECISION = 4096
INSTANCES_PER_SERVICE = 4  # of which each decision has a metrics sample
FIXED_BYTES = 64 << 20  # segments are allocated before they are needed, by every process
MARGIN = 2.0  # for retries, for other formats, for a second export beside the first

KUBECTL_S = 10.0
NO_CLUSTER = "or set KUBECONFIG=/dev/null when the target is in no cluster"


class State(enum.StrEnum):
    OK = "ok"
    FAILED = "failed"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Check:
    """One prerequisite: `text` says what was found, `way_out` what to do about it where it failed."""

    name: str
    state: State
    text: str
    way_out: str | None = None

    @property
    def problem(self) -> str:
        """What is wrong and what to do, for a message by itself."""
        return f"{self.text}\n  {self.way_out}" if self.way_out is not None else self.text

    def __str__(self) -> str:
        way_out = f"\n{'':26}{self.way_out}" if self.way_out is not None else ""
        text = self.text.replace("\n", f"\n{'':26}")
        return f"{self.state:<13}{self.name:<13}{text}{way_out}"


def check_all(
    plan: Plan | Sequence[Plan], host: str | None, run_dir: Path, namespace: str | None = None
) -> list[Check]:
    """All checks, each with its outcome. Never raises for a prerequisite that is not there.

    `plan` is that of the run, or those of several that follow each other; `host` None means a sandbox that is started
    with the run; `run_dir` is the folder of the run or one that it will be in, and need not exist; `namespace` is that
    of the cluster, None the one of kubectl's current context.
    """
    plans = [plan] if isinstance(plan, Plan) else list(plan)
    return [
        check_host(host),
        check_disk(sum(bytes_needed(one) for one in plans), run_dir),
        check_packages(),
        check_pods(namespace) if host is not None else _no_pods_needed(),
    ]


def check_host(host: str | None) -> Check:
    """Whether every service of the target says that it is up."""
    if host is None:
        return Check("target", State.NOT_CHECKED, "a sandbox is started with the run")
    try:
        check_target(host)
    except TargetError as error:
        *found, way_out = str(error).splitlines()
        if not found:  # a URL that is none: one line says it all
            return Check("target", State.FAILED, way_out)
        return Check("target", State.FAILED, "\n".join(found), way_out.strip())
    return Check("target", State.OK, f"{host}: all {len(SERVICES)} services are up")


# -- disk -------------------------------------------------------------------------------------------------------------


def bytes_needed(plan: Plan) -> int:
    """What a run of `plan` and its bundle may take, with a margin: an upper estimate, not a forecast."""
    requests = sum(sum(plan.expected_service_rps(phase).values()) * phase.duration_s for phase in plan.phases)
    decisions = plan.duration_s / plan.decision_interval_s * len(SERVICES)
    per_request = REQUESTS.row_bytes + BUNDLE_BYTES_PER_REQUEST
    per_decision = DECISIONS.row_bytes + OBSERVATIONS.row_bytes + INSTANCES_PER_SERVICE * SAMPLES.row_bytes
    per_decision += BUNDLE_BYTES_PER_DECISION
    return round(FIXED_BYTES + MARGIN * (requests * per_request + decisions * per_decision))


def check_disk(needed: int, run_dir: Path) -> Check:
    """Whether there is room for `needed` bytes where the run folder is or will be."""
    place = next(path for path in (run_dir.absolute(), *run_dir.absolute().parents) if path.exists())
    elsewhere = "choose another place for the run folder"
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        text = f"{place}: its free space cannot be read ({error.strerror})"
        return Check("disk space", State.FAILED, text, f"Make it readable, or {elsewhere}")
    text = f"{run_dir}: {_size(free)} free, about {_size(needed)} needed at most"
    if free >= needed:
        return Check("disk space", State.OK, text)
    way_out = f"Free {_size(needed - free)}, {elsewhere}, or send fewer requests (smaller --user-scale)"
    return Check("disk space", State.FAILED, text, way_out)


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


# -- packages ---------------------------------------------------------------------------------------------------------


def check_packages() -> Check:
    """Whether the packages that pyproject.toml asks for are installed, in versions that it allows."""
    needed = [one for one in _requirements() if one.marker is None or one.marker.evaluate({"extra": ""})]
    problems = [problem for one in needed if (problem := _package_problem(one)) is not None]
    if not problems:
        return Check("packages", State.OK, f"all {len(needed)} that are needed are installed")
    way_out = "Run `make run`, which installs them, or: python -m pip install --require-hashes -r requirements.lock"
    return Check("packages", State.FAILED, "; ".join(problems), way_out)


def _requirements() -> list[Requirement]:
    if PYPROJECT.exists():
        lines = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        lines = metadata.requires(DISTRIBUTION) or []
    return [Requirement(line) for line in lines]


def _package_problem(needed: Requirement) -> str | None:
    try:
        installed = metadata.version(needed.name)
    except metadata.PackageNotFoundError:
        return f"{needed.name} is missing ({needed.specifier or 'any version'} is needed)"
    if needed.specifier.contains(installed, prereleases=True):
        return None
    return f"{needed.name} {installed} does not fit ({needed.specifier} is needed)"


# -- pods -------------------------------------------------------------------------------------------------------------


class _KubectlError(Exception):
    """kubectl did not answer; the message says why."""


def check_pods(namespace: str | None = None) -> Check:
    """Whether all pods of the namespace are running and ready; those of jobs that are done are left out.

    Where no cluster is configured nothing is checked. Where one is configured but does not answer, that is a failure
    only for somebody who has named a namespace.
    """
    if shutil.which("kubectl") is None:
        return Check("pods", State.NOT_CHECKED, "kubectl is not installed")
    try:
        context = _kubectl("config", "current-context").strip()
    except _KubectlError as error:
        return Check("pods", State.NOT_CHECKED, f"kubectl has no current context ({error})")
    try:
        answer = _kubectl("get", "pods", "--output=json", *([f"--namespace={namespace}"] if namespace else []))
        pods = [_Pod(item) for item in json.loads(answer)["items"]]
    except (_KubectlError, ValueError, KeyError, TypeError) as error:
        why = str(error) if isinstance(error, _KubectlError) else "it did not answer with a list of pods"
        text = f"the pods of context {context} cannot be listed: {why}"
        return _only_if_named(namespace, text, f"Check the access with: kubectl get pods, {NO_CLUSTER}")
    known = namespace or (pods[0].namespace if pods else None)
    where = f"{f'namespace {known}' if known else 'the default namespace'} of context {context}"
    waiting = [pod for pod in pods if not pod.is_done]
    if not waiting:
        return _only_if_named(namespace, f"{where} has no pods", "Name the namespace of the target with --namespace")
    problems = [f"{pod.name}: {pod.problem}" for pod in waiting if pod.problem is not None]
    if not problems:
        return Check("pods", State.OK, f"{where}: all {len(waiting)} are running and ready")
    text = "\n".join([f"{where}: {len(problems)} of {len(waiting)} are not running and ready", *problems])
    option = f" --namespace={namespace}" if namespace else ""
    return Check("pods", State.FAILED, text, f"See: kubectl describe pod NAME{option}; wait or mend, {NO_CLUSTER}")


def _no_pods_needed() -> Check:
    return Check("pods", State.NOT_CHECKED, "the sandbox needs none")


def _only_if_named(namespace: str | None, text: str, way_out: str) -> Check:
    if namespace is None:
        return Check("pods", State.NOT_CHECKED, text)
    return Check("pods", State.FAILED, text, way_out)


class _Pod:
    """What `kubectl get pods` says about one pod."""

    def __init__(self, item: Mapping[str, Any]) -> None:
        self.name = str(item["metadata"]["name"])
        self.namespace = str(item["metadata"]["namespace"])
        status = item["status"]
        self.is_done = status.get("phase") == "Succeeded"
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", ()))
        self.problem: str | None = None
        if "deletionTimestamp" in item["metadata"]:
            self.problem = "is being deleted"
        elif status.get("phase") != "Running" or not ready:
            self.problem = f"{status.get('phase', 'Unknown')}, {next(_reasons(status), 'not ready')}"


def _reasons(status: Mapping[str, Any]) -> Iterator[str]:
    """Why a pod is not ready, the most telling first."""
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    for kind in ("waiting", "terminated"):
        for container in containers:
            reason = container.get("state", {}).get(kind, {}).get("reason")
            if reason and reason not in ("PodInitializing", "Completed"):
                yield f"{container['name']} {reason}"
    if status.get("reason"):
        yield str(status["reason"])
    for condition in status.get("conditions", ()):
        if condition["status"] != "True" and condition.get("reason"):
            yield f"{condition['reason']} ({condition['message']})" if condition.get("message") else condition["reason"]


def _kubectl(*arguments: str) -> str:
    """What kubectl prints. Raises _KubectlError when it fails or takes longer than KUBECTL_S.

    It may have started a helper for credentials, which keeps its output open: files instead of pipes, and the whole
    session is ended.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            process = subprocess.Popen(
                ["kubectl", *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
        except OSError as error:
            raise _KubectlError(f"kubectl cannot be started: {error.strerror}") from error
        try:
            code = process.wait(KUBECTL_S)
        except subprocess.TimeoutExpired as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise _KubectlError(f"no answer within {KUBECTL_S:g} s") from error
        out.seek(0)
        err.seek(0)
        if code:
            said = err.read().strip().splitlines()
            raise _KubectlError(said[-1] if said else f"exit code {code}")
        return out.read()

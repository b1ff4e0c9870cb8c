"""Real containers without a cluster and without a registry: a base image made of Debian packages, buildah and podman.

All pods of an overlay share one network that has a loopback interface and nothing else, so Services are names for it.
What a kubelet does beside starting processes (native sidecars last, probes, eviction) is up to the tests.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.deploy import commands
from tests.deploy.manifests import ROOT, Object, Pods

TOOLS = ("buildah", "podman", "runc", "mmdebstrap", "netavark", "catatonit")
IMAGE, BASE = "localhost/locust-rl-balancer:test", "localhost/python:test"
TIMEOUT_S = 900
USER = 10001

# runc and cgroupfs: crun and systemd's manager want the second version of cgroups alone. The limits are below the
# hard ones of a process that may not raise them.
ENGINE = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def missing() -> str | None:
    """Why images cannot be built here, None when they can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "needs root"
    places = os.pathsep.join([os.environ["PATH"], "/usr/lib/podman", "/usr/libexec/podman", "/usr/sbin"])
    absent = [tool for tool in TOOLS if shutil.which(tool, path=places) is None]
    return f"needs {', '.join(absent)}" if absent else None


class Engine:
    """Podman and buildah with a store of their own in `place`."""

    def __init__(self, place: Path) -> None:
        self._place = place
        (place / "containers.conf").write_text(ENGINE)
        store = f'[storage]\ndriver = "overlay"\ngraphroot = "{place}/store"\nrunroot = "{place}/run"\n'
        (place / "storage.conf").write_text(store)
        self._environment = {
            **os.environ,
            "CONTAINERS_CONF": str(place / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(place / "storage.conf"),
        }

    def call(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            words, cwd=ROOT, env=self._environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
        assert done.returncode == 0 or not check, f"{' '.join(words)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done

    def build(self) -> None:
        """The image of deploy/Dockerfile, of wheels that were fetched before: the build itself asks no network."""
        base, wheels = self._place / "base.tar", self._place / "wheels"
        packages = "--include=python3,python3-venv,ca-certificates"
        self.call("mmdebstrap", "--variant=minbase", packages, "bookworm", str(base))
        self.call("podman", "import", str(base), BASE)
        base.unlink()
        lock = ("--require-hashes", "--only-binary=:all:", "--python-version", "3.11", "-r", "requirements.lock")
        self.call(sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(wheels), *lock)
        settings = self._place / "pip.conf"
        settings.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        self.call(
            *("buildah", "build", "--isolation", "chroot", "--build-arg", f"PYTHON_IMAGE={BASE}"),
            *("--volume", f"{wheels}:/wheels:ro", "--secret", f"id=pip,src={settings}"),
            *("--ignorefile", "deploy/Dockerfile.dockerignore", "-f", "deploy/Dockerfile", "-t", IMAGE, "."),
        )

    def close(self) -> None:
        """Give back the gigabyte that images take."""
        self.call("podman", "rmi", "--all", "--force", check=False)
        shutil.rmtree(self._place)


class Node:
    """One overlay on this machine: its pods in one network, their volumes in `place`."""

    def __init__(self, engine: Engine, place: Path, objects: Sequence[Object], **settings: str) -> None:
        self._engine = engine
        self._place = place
        self._objects = objects
        self._settings = settings  # environment variables instead of those of the overlay
        self._name = f"rl-{place.name}"[:40].rstrip("-_").lower()
        self.names: list[str] = []

    def __enter__(self) -> "Node":
        services = [o["metadata"]["name"] for o in self._objects if o["kind"] == "Service"]
        (self._place / "hosts").write_text(f"127.0.0.1 localhost {' '.join(services)}\n")
        self._engine.call("podman", "pod", "create", "--name", self._name, "--network", "none")
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.call("podman", "pod", "rm", "--force", "--time", "0", self._name, check=False)

    def volume(self, pods: Pods, index: int, name: str) -> Path:
        """The folder that stands for a volume: claims of the namespace are shared, others are of one pod."""
        kind = next((volume for volume in pods.spec.get("volumes", ()) if volume["name"] == name), {})
        shared = "persistentVolumeClaim" in kind or "configMap" in kind
        path = self._place / (name if shared else f"{pods.owner['metadata']['name']}-{index}-{name}")
        if not path.exists():
            path.mkdir()
            if "configMap" in kind:
                data = next(o["data"] for o in self._objects if o["metadata"]["name"] == kind["configMap"]["name"])
                for file, text in data.items():
                    (path / file).write_text(text)
            os.chown(path, USER, USER)
        return path

    def start(self, pods: Pods, container: str, index: int = 0) -> str:
        """Start one container as its manifest says; its name here."""
        about = pods.container(container)
        variables = {**commands.environment(about, self._objects), **self._settings}
        first, *rest = commands.words(about, variables)
        name = f"{self._name}-{pods.owner['metadata']['name']}-{index}-{container}"
        context = {**pods.spec["securityContext"], **about["securityContext"]}
        limits = about["resources"]["limits"]
        self._engine.call(
            *("podman", "run", "--detach", "--pod", self._name, "--name", name),
            *("--volume", f"{self._place / 'hosts'}:/etc/hosts:ro"),
            *("--user", f"{context['runAsUser']}:{context['runAsGroup']}"),
            *(f"--read-only={str(context['readOnlyRootFilesystem']).lower()}", "--read-only-tmpfs=false"),
            *("--cap-drop", *context["capabilities"]["drop"], "--security-opt", "no-new-privileges"),
            *("--memory", limits["memory"].replace("i", "").lower()),
            *(word for key, value in variables.items() for word in ("--env", f"{key}={value}")),
            *(word for mount in about.get("volumeMounts", ()) for word in self._mount(pods, index, mount)),
            *("--entrypoint", json.dumps([first])),
            *(IMAGE, *rest),
        )
        self.names.append(name)
        return name

    def _mount(self, pods: Pods, index: int, mount: Mapping[str, str]) -> tuple[str, str]:
        folder = self.volume(pods, index, mount["name"])
        return "--volume", f"{folder}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}"

    def exec(self, name: str, *words: str) -> int:
        return self._engine.call("podman", "exec", name, *words, check=False).returncode

    def log(self, name: str) -> str:
        done = self._engine.call("podman", "logs", name)
        return done.stdout + done.stderr

    def wait_for(self, name: str, text: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while text not in (said := self.log(name)):
            assert time.monotonic() < deadline, said
            assert self.is_running(name), said
            time.sleep(0.2)

    def is_running(self, name: str) -> bool:
        return self._engine.call("podman", "inspect", "--format", "{{.State.Running}}", name).stdout.strip() == "true"

    def terminate(self, name: str) -> None:
        self._engine.call("podman", "kill", "--signal", "TERM", name)

    def ended(self, name: str) -> int:
        """Its exit code, once it has ended."""
        return int(self._engine.call("podman", "wait", name).stdout)

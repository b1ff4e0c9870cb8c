"""Rendered manifests: what `kubectl kustomize` makes of a folder, and the parts of it that tests look at."""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (KUBERNETES / "components").iterdir())

Object = dict[str, Any]


@functools.cache
def kubectl() -> str:
    """The one of the test environment, else the one of the machine."""
    beside = Path(sys.executable).parent / "kubectl"
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    assert found is not None, "kubectl is missing; it is in requirements-dev.lock"
    return found


@functools.cache
def rendered_text(folder: Path) -> str:
    # No cluster is asked: kustomize works on files alone.
    environment = {**os.environ, "KUBECONFIG": os.devnull}
    command = [kubectl(), "kustomize", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", done.stderr  # warnings of deprecated fields
    return done.stdout


def render(folder: Path) -> list[Object]:
    """The objects of a kustomization, new ones each time: tests may change them."""
    return read(rendered_text(folder))


def overlay(name: str) -> list[Object]:
    return render(KUBERNETES / "overlays" / name)


def copy_of(place: Path) -> Path:
    """Base and components in `place`, for overlays of a test's own; kustomize follows no absolute paths."""
    for kind in ("base", "components"):
        shutil.copytree(KUBERNETES / kind, place / kind)
    return place


def read(text: str) -> list[Object]:
    return [found for found in yaml.safe_load_all(text) if found is not None]


def identify(found: Mapping[str, Any]) -> str:
    return f"{found['kind']}/{found['metadata']['name']}"


def the(objects: Sequence[Object], kind: str, name: str) -> Object:
    """The object of that kind whose name is `name`, with or without the hash of its content behind it."""
    fitting = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] in (name, _with_hash(o, name))]
    assert len(fitting) == 1, f"{len(fitting)} of {kind}/{name}"
    return fitting[0]


def _with_hash(found: Object, name: str) -> str | None:
    base, _, digest = found["metadata"]["name"].rpartition("-")
    return found["metadata"]["name"] if found["kind"] == "ConfigMap" and base == name and len(digest) == 10 else None


@dataclass(frozen=True)
class Pods:
    """What makes pods, and the pod that it makes."""

    owner: Object
    template: Object

    @property
    def name(self) -> str:
        return identify(self.owner)

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.template["metadata"].get("labels", {})
        return labels

    @property
    def spec(self) -> Object:
        spec: Object = self.template["spec"]
        return spec

    @property
    def containers(self) -> list[Object]:
        """All of them, those that run before the others first."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    def container(self, name: str) -> Object:
        return next(container for container in self.containers if container["name"] == name)

    @property
    def claim_templates(self) -> list[str]:
        return [claim["metadata"]["name"] for claim in self.owner["spec"].get("volumeClaimTemplates", ())]


def pods_of(objects: Sequence[Object]) -> Iterator[Pods]:
    for found in objects:
        if found["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield Pods(found, found["spec"]["template"])
        elif found["kind"] == "CronJob":
            yield Pods(found, found["spec"]["jobTemplate"]["spec"]["template"])


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector, as of a NetworkPolicy, takes pods with such labels."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for rule in selector.get("matchExpressions", ()):
        assert rule["operator"] == "In", "teach this function the operator"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return True

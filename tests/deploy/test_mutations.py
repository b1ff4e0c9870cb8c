"""A gate is worth what it finds: every mistake that is put into an overlay here has to be named."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.deploy.gate import findings
from tests.deploy.manifests import Object, overlay, the

Objects = list[Object]


def pod(objects: Objects, kind: str, name: str) -> Any:
    return the(objects, kind, name)["spec"]["template"]["spec"]


def worker(objects: Objects) -> Any:
    return pod(objects, "StatefulSet", "rl-worker")


def locust(objects: Objects) -> Any:
    return worker(objects)["containers"][0]


def put(place: Any, key: Any, value: Any) -> None:
    place[key] = value


def drop(objects: Objects, kind: str, name: str) -> None:
    objects.remove(the(objects, kind, name))


# What is done to the overlay `production` -> a part of what the gate has to say about it.
MISTAKES: dict[str, tuple[Callable[[Objects], object], str]] = {
    # names that lead nowhere
    "no scenario": (lambda o: drop(o, "ConfigMap", "rl-scenario"), "rl-worker: ConfigMap/rl-scenario-"),
    "no settings": (lambda o: drop(o, "ConfigMap", "rl-run"), "container locust: ConfigMap/rl-run-"),
    "no claim": (lambda o: drop(o, "PersistentVolumeClaim", "rl-shelf"), "PersistentVolumeClaim/rl-shelf is not there"),
    "no account": (lambda o: drop(o, "ServiceAccount", "rl-worker"), "ServiceAccount/rl-worker is not there"),
    "no service of a set": (lambda o: drop(o, "Service", "rl-worker"), "rl-worker: Service/rl-worker is not there"),
    "no master's service": (lambda o: drop(o, "Service", "rl-master"), "there is no Service/rl-master"),
    "wrong secret": (
        lambda o: put(worker(o)["initContainers"][0]["envFrom"][1]["secretRef"], "name", "s3"),
        "container ship: Secret/s3 is not there",
    ),
    "wrong key": (
        lambda o: put(
            the(o, "CronJob", "rl-export")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["env"][
                0
            ]["valueFrom"]["configMapKeyRef"],
            "key",
            "RUNS",
        ),
        "has no RUNS",
    ),
    "unknown variable": (
        lambda o: worker(o)["initContainers"][0]["command"].append("$(S3_ENDPOINT)"),
        "container ship: nothing sets $(S3_ENDPOINT)",
    ),
    "wrong master": (lambda o: put(locust(o)["args"], 2, "rl-mastr"), "there is no Service/rl-mastr"),
    "unknown volume": (lambda o: put(locust(o)["volumeMounts"][0], "name", "spol"), "volume spol is not there"),
    "unused volume": (lambda o: worker(o)["volumes"].append({"name": "old", "emptyDir": {}}), "volume old is not used"),
    "one mount over another": (
        lambda o: put(locust(o)["volumeMounts"][0], "mountPath", "/tmp"),
        "two volumes are mounted at /tmp",
    ),
    "selector of others": (
        lambda o: put(
            the(o, "StatefulSet", "rl-worker")["spec"]["selector"]["matchLabels"], "app.kubernetes.io/component", "w"
        ),
        "its selector does not take its own pods",
    ),
    "service without pods": (
        lambda o: put(the(o, "Service", "rl-master")["spec"]["selector"], "app.kubernetes.io/component", "mstr"),
        "Service/rl-master: its selector takes no pods",
    ),
    "wrong target port": (
        lambda o: put(the(o, "Service", "rl-master")["spec"]["ports"][1], "targetPort", "ui"),
        "has no port ui",
    ),
    "probe of no port": (
        lambda o: put(
            pod(o, "StatefulSet", "rl-master")["containers"][0]["livenessProbe"]["httpGet"], "port", "metrics"
        ),
        "its livenessProbe asks port metrics",
    ),
    "no such port": (
        lambda o: put(pod(o, "StatefulSet", "rl-master")["containers"][0]["ports"][0], "containerPort", 75557),
        "there is no port 75557",
    ),
    "policy for a port nobody has": (
        lambda o: put(the(o, "NetworkPolicy", "rl-master")["spec"]["ingress"][0]["ports"][0], "port", 5558),
        "nobody listens on port 5558",
    ),
    "policy for nobody": (
        lambda o: put(
            the(o, "NetworkPolicy", "rl-worker")["spec"]["podSelector"]["matchLabels"],
            "app.kubernetes.io/component",
            "x",
        ),
        "NetworkPolicy/rl-worker: it takes no pods",
    ),
    "policy that lets nobody in": (
        lambda o: put(
            the(o, "NetworkPolicy", "rl-master")["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"],
            "app.kubernetes.io/component",
            "wrkr",
        ),
        "there are no pods of those it lets through",
    ),
    "nothing is closed": (lambda o: drop(o, "NetworkPolicy", "rl-deny"), "no network policy closes it"),
    "budget for nobody": (
        lambda o: put(
            the(o, "PodDisruptionBudget", "rl-worker")["spec"]["selector"]["matchLabels"], "app.kubernetes.io/name", "x"
        ),
        "StatefulSet/rl-worker: it has no disruption budget",
    ),
    "scaler of nothing": (
        lambda o: put(the(o, "HorizontalPodAutoscaler", "rl-worker")["spec"]["scaleTargetRef"], "kind", "Deployment"),
        "Deployment/rl-worker is not there",
    ),
    "spread of others": (
        lambda o: put(
            worker(o)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
            "app.kubernetes.io/component",
            "x",
        ),
        "it spreads other pods than its own",
    ),
    "near nobody": (lambda o: drop(o, "Deployment", "rl-files"), "it wants to be near pods that are not there"),
    "same name twice": (lambda o: o.append(the(o, "Service", "rl-master")), "Service/rl-master: is there 2 times"),
    "name with capitals": (
        lambda o: put(the(o, "Service", "rl-worker")["metadata"], "name", "rl_Worker"),
        "not a name that DNS knows",
    ),
    "other namespace": (
        lambda o: put(the(o, "Service", "rl-worker")["metadata"], "namespace", "default"),
        "not in the namespace that is made",
    ),
    # what Pod Security "restricted" refuses
    "root": (lambda o: put(worker(o)["securityContext"], "runAsUser", 0), "it runs as root"),
    "may be root": (lambda o: put(worker(o)["securityContext"], "runAsNonRoot", False), "runAsNonRoot has to be true"),
    "no seccomp": (lambda o: worker(o)["securityContext"].pop("seccompProfile"), "it has no seccomp profile"),
    "more privileges": (
        lambda o: locust(o)["securityContext"].pop("allowPrivilegeEscalation"),
        "allowPrivilegeEscalation has to be false",
    ),
    "privileged": (lambda o: put(locust(o)["securityContext"], "privileged", True), "it is privileged"),
    "all capabilities": (lambda o: locust(o)["securityContext"].pop("capabilities"), "has to drop ALL capabilities"),
    "one more capability": (
        lambda o: put(locust(o)["securityContext"]["capabilities"], "add", ["NET_RAW"]),
        "has to drop ALL capabilities and add none",
    ),
    "host network": (lambda o: put(worker(o), "hostNetwork", True), "hostNetwork is not allowed"),
    "host folder": (
        lambda o: put(worker(o)["volumes"], 1, {"name": "tmp", "hostPath": {"path": "/tmp"}}),
        "volume tmp is of a kind that is not allowed",
    ),
    "host port": (
        lambda o: put(pod(o, "StatefulSet", "rl-master")["containers"][0]["ports"][0], "hostPort", 5557),
        "hostPort is not allowed",
    ),
    "sidecar as root": (
        lambda o: put(worker(o)["initContainers"][0]["securityContext"], "runAsUser", 0),
        "container ship: it runs as root",
    ),
    # rules of this house
    "latest": (lambda o: put(locust(o), "image", "locust-rl-balancer:latest"), "has no fixed version"),
    "no tag": (lambda o: put(locust(o), "image", "registry.example:5000/rl"), "has no fixed version"),
    "writable root": (
        lambda o: put(locust(o)["securityContext"], "readOnlyRootFilesystem", False),
        "its root file system is not read-only",
    ),
    "no limits": (lambda o: locust(o)["resources"].pop("limits"), "limits of CPU and memory are missing"),
    "wrong amount": (lambda o: put(locust(o)["resources"]["limits"], "memory", "1Gb"), "1Gb is no amount of memory"),
    "more than asked for": (
        lambda o: put(locust(o)["resources"]["limits"], "cpu", "2"),
        "requests and limits differ",
    ),
    "service variables": (lambda o: worker(o).pop("enableServiceLinks"), "enableServiceLinks has to be false"),
    "a name of Locust's": (
        lambda o: put(the(o, "Service", "rl-master")["metadata"], "name", "locust-master"),
        "other pods would take it for options of Locust",
    ),
    "token undecided": (
        lambda o: worker(o).pop("automountServiceAccountToken"),
        "automountServiceAccountToken is not decided",
    ),
    "no readiness": (lambda o: locust(o).pop("readinessProbe"), "it has no readiness probe"),
    "scales in": (
        lambda o: put(
            the(o, "HorizontalPodAutoscaler", "rl-worker")["spec"]["behavior"]["scaleDown"], "selectPolicy", "Max"
        ),
        "it may take workers away during a run",
    ),
    "scaled and fixed": (
        lambda o: put(the(o, "StatefulSet", "rl-worker")["spec"], "replicas", 3),
        "every apply sets the number back",
    ),
    "scaled by another container": (
        lambda o: put(
            the(o, "HorizontalPodAutoscaler", "rl-worker")["spec"]["metrics"][0]["containerResource"],
            "container",
            "app",
        ),
        "has no container app",
    ),
    "rights to write": (
        lambda o: o.append(
            {
                "kind": "Role",
                "metadata": {"name": "more", "namespace": "locust-rl"},
                "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]}],
            }
        ),
        "it may do more than read metrics",
    ),
    "rights everywhere": (
        lambda o: o.append({"kind": "ClusterRole", "metadata": {"name": "all", "namespace": "locust-rl"}}),
        "nothing here needs rights in the whole cluster",
    ),
    "binding to nothing": (
        lambda o: o.append(
            {
                "kind": "RoleBinding",
                "metadata": {"name": "rl", "namespace": "locust-rl"},
                "roleRef": {"kind": "Role", "name": "rl-metric"},
            }
        ),
        "Role/rl-metric is not there",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_the_gate_names_a_mistake(name: str) -> None:
    make, expected = MISTAKES[name]
    objects = overlay("production")
    make(objects)
    found = findings(objects)
    assert any(expected in problem for problem in found), found


def test_a_budget_for_a_job_says_how_many_stay() -> None:
    objects = overlay("ci")
    spec = the(objects, "PodDisruptionBudget", "rl-master")["spec"]
    spec["maxUnavailable"] = spec.pop("minAvailable")
    assert any("maxUnavailable needs pods of something that can be scaled" in problem for problem in findings(objects))


def test_a_target_and_a_scrape_job_have_to_exist() -> None:
    objects = overlay("sandbox")
    the(objects, "Service", "rl-sandbox")["spec"]["ports"][0]["port"] = 80
    found = [problem for problem in findings(objects) if "Service/rl-sandbox has no port 8080" in problem]
    assert [problem.partition("-")[0] for problem in found] == ["ConfigMap/rl", "ConfigMap/rl"]

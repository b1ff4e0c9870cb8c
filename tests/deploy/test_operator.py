"""The example for the Locust operator: the operator is not here, so its rules are written down from its documents.

https://github.com/AbdelrhmanHamouda/locust-k8s-operator, docs/api_reference.md and internal/resources/command.go of 2.3
"""

import pytest
import yaml

from tests.deploy import commands
from tests.deploy.gate import findings
from tests.deploy.manifests import ROOT, Object

CLAIM, TEST = yaml.safe_load_all((ROOT / "deploy" / "operator" / "locusttest.yaml").read_text())
SPEC = TEST["spec"]
FIELDS = {
    "": {"image", "master", "worker", "testFiles", "scheduling", "env", "volumes", "volumeMounts", "security"},
    "master": {"command", "resources", "labels", "annotations", "autostart", "autoquit", "extraArgs"},
    "worker": {"command", "replicas", "resources", "labels", "annotations", "extraArgs"},
    "testFiles": {"configMapRef", "libConfigMapRef", "srcMountPath", "libMountPath"},
    "env": {"configMapRefs", "secretRefs", "variables", "secretMounts"},
    "security": {"podSecurityContext", "containerSecurityContext"},
}


def line(role: str) -> list[str]:
    """What the operator makes of a command: its own options come behind it."""
    command = SPEC[role]["command"].split()
    if role == "worker":
        return ["locust", *command, "--worker", "--master-port=5557", "--master-host=rl-training-master"]
    own = ["--master", "--master-port=5557", f"--expect-workers={SPEC['worker']['replicas']}"]
    assert not SPEC["master"]["autostart"]  # it would add --autostart and --autoquit, which do not go with --headless
    assert not SPEC["master"]["autoquit"]["enabled"]
    return ["locust", *command, *own, "--enable-rebalancing", "--only-summary"]


def pods(role: str) -> Object:
    """The pods it makes, so far as Pod Security and mounts are concerned."""
    mounts = [
        {"name": mount["name"], "mountPath": mount["mountPath"]}
        for mount in SPEC["volumeMounts"]
        if mount.get("target", "both") in (role, "both")
    ]
    files = {"name": "files", "configMap": {"name": SPEC["testFiles"]["configMapRef"]}}
    container = {
        "name": f"{role}-locust",
        "image": SPEC["image"],
        "resources": SPEC[role]["resources"],
        "securityContext": SPEC["security"]["containerSecurityContext"],
        "volumeMounts": [*mounts, {"name": "files", "mountPath": SPEC["testFiles"]["srcMountPath"]}],
    }
    spec = {
        "containers": [container],
        "volumes": [*SPEC["volumes"], files],
        "securityContext": SPEC["security"]["podSecurityContext"],
        "enableServiceLinks": False,  # not the operator's: its Services have other names
        "automountServiceAccountToken": True,
    }
    return {"kind": "Job", "metadata": {"name": role}, "spec": {"template": {"metadata": {}, "spec": spec}}}


@pytest.mark.parametrize("place", FIELDS)
def test_the_operator_knows_every_field(place: str) -> None:
    assert set(SPEC[place] if place else SPEC) <= FIELDS[place]


@pytest.mark.parametrize("role", ["master", "worker"])
def test_its_pods_are_found_fit_for_a_restricted_namespace(role: str) -> None:
    scenario = {"kind": "ConfigMap", "metadata": {"name": "rl-scenario"}, "data": {}}
    found = findings([pods(role), CLAIM, scenario])
    assert [problem for problem in found if "network policy" not in problem] == []


@pytest.mark.parametrize("role", ["master", "worker"])
def test_locust_understands_what_the_operator_makes_of_the_commands(role: str) -> None:
    variables = commands.IN_THE_IMAGE | {entry["name"]: entry["value"] for entry in SPEC["env"]["variables"]}
    options = commands.understood(line(role), variables)
    assert options.scenario_file == "/etc/rl/scenario.yaml"
    if role == "master":
        assert options.headless
        assert options.run_folder.startswith("/data/runs/")

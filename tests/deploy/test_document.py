"""docs/kubernetes.md: what it names exists, and the overlay in it can be rendered."""

import re
from pathlib import Path

import pytest
import yaml

from rl_hooks.version import VERSION
from scenario.load import load_file
from tests.deploy.gate import findings
from tests.deploy.manifests import COMPONENTS, OVERLAYS, ROOT, copy_of, overlay, render, the

TEXT = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
COMMANDS = "\n".join(re.findall(r"```\n(.*?)```", TEXT, re.DOTALL)) + "\n".join(re.findall(r"`(kubectl [^`]+)`", TEXT))
KINDS = {"job": "Job", "statefulset": "StatefulSet", "deploy": "Deployment", "cronjob": "CronJob", "svc": "Service"}


@pytest.mark.parametrize("name", ["sandbox", "ci"])
def test_objects_that_commands_name_exist(name: str) -> None:
    part = COMMANDS[COMMANDS.index(f"overlays/{name}") :].partition("\n\n")[0]
    named = re.findall(r"\b(job|statefulset|deploy|cronjob|svc)/(rl-[\w-]+)", part)
    assert named
    for kind, which in named:
        assert the(overlay("ci" if kind == "job" else name), KINDS[kind], which)


def test_folders_that_commands_name_exist() -> None:
    named = set(re.findall(r"\bdeploy/[\w./-]+", TEXT)) - {
        "deploy/rl-files",
        "deploy/kubernetes/overlays/mine/kustomization.yaml",
    }
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert set(re.findall(r"`([\w-]+)`", " ".join(re.findall(r"^\| (`.*?) \|", TEXT, re.MULTILINE)))) == set(COMPONENTS)
    assert set(re.findall(r"overlays/([\w-]+)", COMMANDS)) <= set(OVERLAYS)


def test_images_that_are_named_are_of_this_version() -> None:
    assert set(re.findall(r"locust-rl-balancer:([\d.]+\d)", TEXT)) | set(re.findall(r"newTag: (\S+)", TEXT)) == {
        VERSION
    }


def test_the_overlay_in_it_is_found_right(tmp_path: Path) -> None:
    (content,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    mine = copy_of(tmp_path) / "overlays" / "mine"
    mine.mkdir(parents=True)
    (mine / "kustomization.yaml").write_text(content)
    (mine / "scenario.yaml").write_bytes((ROOT / "configs" / "quick_validation_config.yaml").read_bytes())
    objects = render(mine)
    assert findings(objects) == []
    assert the(objects, "Namespace", yaml.safe_load(content)["namespace"])
    assert the(objects, "StatefulSet", "rl-worker")["spec"]["replicas"] == 4
    settings = the(objects, "ConfigMap", "rl-run")["data"]
    assert settings["LOCUST_SCENARIO"] in load_file(mine / "scenario.yaml").scenarios
    assert the(objects, "ConfigMap", "rl-scenario")["data"] == {"scenario.yaml": (mine / "scenario.yaml").read_text()}

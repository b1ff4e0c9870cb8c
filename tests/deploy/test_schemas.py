"""The manifests against the schemas of Kubernetes itself: unknown fields and wrong types."""

import pytest

from tests.deploy.manifests import KUBERNETES, OVERLAYS, Object, identify, overlay, render, the

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs the extra `deploy-test`")

pytestmark = pytest.mark.kubernetes

VERSIONS = ("1.29", "1.33", "1.37")  # the first with native sidecars, one between, the newest there is
FOLDERS = [*(f"overlays/{name}" for name in OVERLAYS), "target-metrics"]


def problems(objects: list[Object], version: str) -> list[str]:
    found = []
    for one in objects:
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            found.append(f"{identify(one)}: {getattr(error, 'message', 'no such kind in this version')}")
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_kubernetes_knows_every_field(folder: str, version: str) -> None:
    assert problems(render(KUBERNETES / folder), version) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_misspelt_field_a_wrong_type_and_an_unknown_kind_are_found(version: str) -> None:
    objects = overlay("production")
    workers = the(objects, "StatefulSet", "rl-worker")["spec"]
    workers["podManagmentPolicy"] = workers.pop("podManagementPolicy")
    the(objects, "Service", "rl-master")["spec"]["ports"][0]["port"] = "5557"
    the(objects, "HorizontalPodAutoscaler", "rl-worker")["apiVersion"] = "autoscaling/v3"
    named = {problem.partition(":")[0] for problem in problems(objects, version)}
    assert named == {"StatefulSet/rl-worker", "Service/rl-master", "HorizontalPodAutoscaler/rl-worker"}

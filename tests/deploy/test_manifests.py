"""The manifests as kustomize renders them: nothing leads nowhere, and what they promise about a run is so."""

import re
from pathlib import Path

import pytest
import yaml

from rl_hooks.record.lead import WORKERS_CLOSE_S
from rl_hooks.ship.__main__ import LAST_PASS_S
from rl_hooks.version import VERSION
from scenario.load import ScenarioFile, find_file, load_file, load_text
from tests.deploy import commands
from tests.deploy.gate import MADE_BY_HAND, findings
from tests.deploy.manifests import (
    COMPONENTS,
    KUBERNETES,
    OVERLAYS,
    ROOT,
    Object,
    Pods,
    copy_of,
    overlay,
    pods_of,
    render,
    the,
)

STOP_GRACE_S = float(re.search(r"STOP_GRACE_S = ([\d.]+)", (ROOT / "locustfile.py").read_text())[1])  # type: ignore[index]
SEALING_S = 10.0  # a process seals its segments in much less
OPERATOR = ROOT / "deploy" / "operator" / "locusttest.yaml"
DOCUMENT = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")

every_overlay = pytest.mark.parametrize("name", OVERLAYS)


def pods(objects: list[Object], name: str) -> Pods:
    return next(one for one in pods_of(objects) if one.owner["metadata"]["name"] == name)


def scenarios(objects: list[Object]) -> ScenarioFile:
    """The scenario file that master and workers of an overlay read."""
    path = Path(commands.environment(pods(objects, "rl-master").container("locust"), objects)["LOCUST_SCENARIO_FILE"])
    if not path.is_absolute():  # one of the image
        return load_file(find_file(path))
    mount, text = path.parent, the(objects, "ConfigMap", "rl-scenario")["data"][path.name]
    for name in ("rl-master", "rl-worker"):
        one = pods(objects, name)
        places = {mount["mountPath"]: mount["name"] for mount in one.container("locust")["volumeMounts"]}
        source = next(volume for volume in one.spec["volumes"] if volume["name"] == places[str(mount)])
        assert source["configMap"]["name"] == the(objects, "ConfigMap", "rl-scenario")["metadata"]["name"]
    return load_text(text)


# -- the gate ---------------------------------------------------------------------------------------------------------


@every_overlay
def test_the_gate_finds_nothing_in_an_overlay(name: str) -> None:
    assert findings(overlay(name)) == []


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_component_goes_with_the_base_alone(name: str, tmp_path: Path) -> None:
    scraped = ["sandbox"] if name == "prometheus" else []
    assert findings(with_the_base([*scraped, name], tmp_path)) == []


def test_all_components_go_together(tmp_path: Path) -> None:
    assert findings(with_the_base(COMPONENTS, tmp_path)) == []


def with_the_base(components: list[str], place: Path) -> list[Object]:
    """An overlay as somebody else would write it, with names for what the base leaves open."""
    mine = copy_of(place) / "overlays" / "mine"
    mine.mkdir(parents=True)
    content = {
        "namespace": "locust-rl",
        "resources": ["../../base"],
        "components": [f"../../components/{name}" for name in components],
        "images": [{"name": "locust-rl-balancer", "newTag": VERSION}],
        "configMapGenerator": [
            {"name": "rl-run", "behavior": "merge", "literals": ["S3_BUCKET=mine", "S3_PREFIX=runs"]}
        ],
    }
    (mine / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return render(mine)


def test_what_has_to_be_made_by_hand_is_in_the_document() -> None:
    for kind, name in MADE_BY_HAND:
        assert f"create {kind.lower()} generic {name}" in DOCUMENT


def test_reading_metrics_is_all_that_the_master_may_do() -> None:
    rights = render(KUBERNETES / "target-metrics")
    assert {found["kind"] for found in rights} == {"Role", "RoleBinding"}
    assert findings(rights) == []
    account = the(rights, "RoleBinding", "rl-metrics")["subjects"][0]
    master = the(overlay("production"), "ServiceAccount", account["name"])
    assert account["namespace"] == master["metadata"]["namespace"]


def test_only_the_master_in_production_gets_a_token() -> None:
    allowed = {
        (name, one.owner["metadata"]["name"])
        for name in OVERLAYS
        for one in pods_of(overlay(name))
        if one.spec["automountServiceAccountToken"]
    }
    assert allowed == {("production", "rl-master")}


# -- what is run ------------------------------------------------------------------------------------------------------


@every_overlay
def test_every_program_understands_its_command_line(name: str) -> None:
    objects = overlay(name)
    understood = set()
    for one in pods_of(objects):
        for container in one.containers:
            if container["name"] in ("prometheus", "files"):  # not programs of ours
                continue
            variables = commands.environment(container, objects)
            line = commands.words(container, variables)
            assert commands.understood(line, variables)
            understood.add(container["name"])
    assert understood >= {"locust", "ship", "export"}


@every_overlay
def test_master_and_workers_read_the_same_options_and_scenario(name: str) -> None:
    objects = overlay(name)
    containers = [pods(objects, which).container("locust") for which in ("rl-master", "rl-worker")]
    master, worker = (commands.environment(container, objects) for container in containers)
    assert master == worker
    assert master["LOCUST_SCENARIO"] in scenarios(objects).scenarios


@every_overlay
def test_what_is_recorded_is_shipped_and_what_is_shipped_is_exported(name: str) -> None:
    objects = overlay(name)
    places = set()
    for which in ("rl-master", "rl-worker"):
        one = pods(objects, which)
        locust, ship = one.container("locust"), one.container("ship")
        assert ship["restartPolicy"] == "Always"  # a native sidecar: it ends after Locust
        options = read_options(ship, objects)
        recording, shipping = ({m["mountPath"]: m["name"] for m in c["volumeMounts"]} for c in (locust, ship))
        assert recording[str(options.place)] == shipping[str(options.place)] == "spool"
        places.add(options.to)
    assert read_options(pods(objects, "rl-worker").container("locust"), objects).spool == "/data/runs"
    (place,) = places
    exported = read_options(pods(objects, "rl-export").container("export"), objects)
    assert exported.runs == [f"{place}/{the(objects, 'ConfigMap', 'rl-run')['data']['RUN']}"]
    held = {mount["mountPath"]: mount["name"] for mount in pods(objects, "rl-files").container("files")["volumeMounts"]}
    assert held == {"/shelf": "shelf"}
    assert str(exported.out).startswith("/shelf/")


def read_options(container: Object, objects: list[Object]) -> commands.Namespace:
    variables = commands.environment(container, objects)
    return commands.understood(commands.words(container, variables), variables)


@every_overlay
def test_nothing_is_written_outside_of_volumes(name: str) -> None:
    objects = overlay(name)
    for which in ("rl-master", "rl-worker"):
        container = pods(objects, which).container("locust")
        options = read_options(container, objects)
        writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
        written = [options.run_folder or "/data/runs/x", *([options.logs] if which == "rl-master" else [])]
        assert [path for path in written if not path.startswith(tuple(writable))] == []


def test_the_run_in_ci_is_one_headless_run_with_as_many_workers_as_there_are() -> None:
    objects = overlay("ci")
    master = the(objects, "Job", "rl-master")
    options = read_options(pods(objects, "rl-master").container("locust"), objects)
    assert options.headless
    assert options.no_export
    assert options.expect_workers == the(objects, "StatefulSet", "rl-worker")["spec"]["replicas"]
    assert options.run_folder == f"/data/runs/{the(objects, 'ConfigMap', 'rl-run')['data']['RUN']}"
    assert master["spec"]["template"]["spec"]["restartPolicy"] == "Never"


# -- how it ends ------------------------------------------------------------------------------------------------------


@every_overlay
def test_pods_have_the_time_to_end_in_order(name: str) -> None:
    """Users finish what they have in flight, rows are sealed, and the sidecar ships what is left."""
    objects = overlay(name)
    leaving_s = max(plan.request_timeout_s for plan in scenarios(objects).scenarios.values()) + STOP_GRACE_S
    last_rows_s = leaving_s + WORKERS_CLOSE_S  # the master waits for them
    for which, needed_s in (("rl-worker", leaving_s), ("rl-master", leaving_s + last_rows_s)):
        grace_s = pods(objects, which).spec["terminationGracePeriodSeconds"]
        assert grace_s >= needed_s + SEALING_S + LAST_PASS_S


@pytest.mark.parametrize("name", ["production"])
def test_workers_are_never_taken_away_during_a_run(name: str) -> None:
    scaler = the(overlay(name), "HorizontalPodAutoscaler", "rl-worker")
    assert scaler["spec"]["behavior"]["scaleDown"] == {"selectPolicy": "Disabled"}


@every_overlay
def test_applying_again_restarts_no_run(name: str) -> None:
    sets = [found for found in overlay(name) if found["kind"] == "StatefulSet"]
    assert sets
    assert {found["spec"]["updateStrategy"]["type"] for found in sets} == {"OnDelete"}


# -- said once --------------------------------------------------------------------------------------------------------


def test_the_scenario_of_the_base_is_the_shipped_one() -> None:
    shipped = ROOT / "configs" / "comprehensive_rl_training_config.yaml"
    assert (KUBERNETES / "base" / "scenario.yaml").read_bytes() == shipped.read_bytes()


def test_images_are_of_this_version() -> None:
    ours = {
        container["image"].rpartition("/")[2]
        for name in OVERLAYS
        for one in pods_of(overlay(name))
        for container in one.containers
        if "locust-rl-balancer" in container["image"]
    }
    assert ours == {f"locust-rl-balancer:{VERSION}"}
    assert f"image: registry.example/locust-rl-balancer:{VERSION}\n" in OPERATOR.read_text()


def test_the_readiness_of_a_worker_asks_for_the_port_of_its_master() -> None:
    objects = overlay("sandbox")
    port = the(objects, "Service", "rl-master")["spec"]["ports"][0]["port"]
    probe = pods(objects, "rl-worker").container("locust")["readinessProbe"]["exec"]["command"]
    assert f":{port:04X} 01 " in probe

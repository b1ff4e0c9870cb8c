"""What schemas do not see in manifests: names that lead nowhere, pods that admission would refuse, rules of this house.

`findings` looks at the objects of one overlay and returns a sentence for each mistake, and nothing for none.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import yaml

from tests.deploy.manifests import Object, Pods, identify, matches, pods_of

MADE_BY_HAND = {("Secret", "rl-s3")}  # docs/kubernetes.md says how
SCALABLE = ("Deployment", "StatefulSet")
LONG_RUNNING = {"locust", "sandbox", "prometheus"}
READING = {"get", "list", "watch"}
LOCUSTS_NAMES = re.compile(r"locust(-|$)")  # Services of such names make variables that Locust takes for its options
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
VOLUME_KINDS = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def findings(objects: Sequence[Object]) -> list[str]:
    pods = list(pods_of(objects))
    return [
        *_unique(objects),
        *(problem for one in pods for problem in (*_references(one, objects), *_restricted(one), *_house(one))),
        *_services(objects, pods),
        *_policies(objects, pods),
        *_budgets(objects, pods),
        *_autoscalers(objects, pods),
        *_rights(objects),
        *_hosts(objects, pods),
    ]


# -- names ------------------------------------------------------------------------------------------------------------


def _unique(objects: Sequence[Object]) -> Iterator[str]:
    for name, times in Counter(map(identify, objects)).items():
        if times > 1:
            yield f"{name}: is there {times} times"
    for found in objects:
        if not NAME.fullmatch(found["metadata"]["name"]):
            yield f"{identify(found)}: not a name that DNS knows"
        namespaces = {o["metadata"]["name"] for o in objects if o["kind"] == "Namespace"}
        if namespaces and found["kind"] != "Namespace" and found["metadata"].get("namespace") not in namespaces:
            yield f"{identify(found)}: not in the namespace that is made"


def _exists(objects: Iterable[Object], kind: str, name: str) -> bool:
    return (kind, name) in MADE_BY_HAND or any(o["kind"] == kind and o["metadata"]["name"] == name for o in objects)


def _references(pods: Pods, objects: Sequence[Object]) -> Iterator[str]:
    spec, where = pods.spec, pods.name
    selector = pods.owner["spec"].get("selector")
    if selector is not None and not matches(selector, pods.labels):
        yield f"{where}: its selector does not take its own pods"
    account = spec.get("serviceAccountName")
    if account is not None and not _exists(objects, "ServiceAccount", account):
        yield f"{where}: ServiceAccount/{account} is not there"
    service = pods.owner["spec"].get("serviceName")
    if service is not None and not _exists(objects, "Service", service):
        yield f"{where}: Service/{service} is not there"
    for spread in spec.get("topologySpreadConstraints", ()):
        if not matches(spread["labelSelector"], pods.labels):
            yield f"{where}: it spreads other pods than its own"
    for term in (
        spec.get("affinity", {}).get("podAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", ())
    ):
        if not any(matches(term["labelSelector"], other.labels) for other in pods_of(objects)):
            yield f"{where}: it wants to be near pods that are not there"
    yield from _volumes(pods, objects)
    for twice in _twice(container["name"] for container in pods.containers):
        yield f"{where}: two containers are named {twice}"
    for container in pods.containers:
        yield from _container(f"{where}, container {container['name']}", container, objects)


def _volumes(pods: Pods, objects: Sequence[Object]) -> Iterator[str]:
    where, volumes = pods.name, pods.spec.get("volumes", ())
    for volume in volumes:
        for kind, key, name in (
            ("ConfigMap", "configMap", "name"),
            ("Secret", "secret", "secretName"),
            ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"),
        ):
            if key in volume and not _exists(objects, kind, volume[key].get(name, "")):
                yield f"{where}: {kind}/{volume[key].get(name)} is not there"
    known = [*(volume["name"] for volume in volumes), *pods.claim_templates]
    mounted = {mount["name"] for container in pods.containers for mount in container.get("volumeMounts", ())}
    yield from (f"{where}: two volumes are named {name}" for name in _twice(known))
    yield from (f"{where}: volume {name} is not there" for name in sorted(mounted - set(known)))
    yield from (f"{where}: volume {name} is not used" for name in sorted(set(known) - mounted))


def _container(where: str, container: Object, objects: Sequence[Object]) -> Iterator[str]:
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
    for port in ports.values():
        if not 1 <= port <= 65535:
            yield f"{where}: there is no port {port}"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        for how in ("httpGet", "tcpSocket"):
            asked = container.get(probe, {}).get(how, {}).get("port")
            if asked is not None and asked not in ports and asked not in ports.values():
                yield f"{where}: its {probe} asks port {asked}, which it does not have"
    for twice in _twice(mount["mountPath"] for mount in container.get("volumeMounts", ())):
        yield f"{where}: two volumes are mounted at {twice}"
    known = set()
    for source in container.get("envFrom", ()):
        for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if key in source:
                name = source[key]["name"]
                known |= _keys(objects, kind, name)
                if not _exists(objects, kind, name):
                    yield f"{where}: {kind}/{name} is not there"
    for variable in container.get("env", ()):
        known.add(variable["name"])
        reference = variable.get("valueFrom", {}).get("configMapKeyRef")
        if reference is not None and reference["key"] not in _keys(objects, "ConfigMap", reference["name"]):
            yield f"{where}: ConfigMap/{reference['name']} has no {reference['key']}"
    for word in (*container.get("command", ()), *container.get("args", ())):
        for name in re.findall(r"\$\((\w+)\)", word):
            if name not in known:
                yield f"{where}: nothing sets $({name})"


def _keys(objects: Iterable[Object], kind: str, name: str) -> set[str]:
    return {key for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name) for key in o.get("data", {})}


def _twice(names: Iterable[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]


# -- Pod Security, level "restricted" ---------------------------------------------------------------------------------
# https://kubernetes.io/docs/concepts/security/pod-security-standards/


def _restricted(pods: Pods) -> Iterator[str]:
    where, spec = pods.name, pods.spec
    pod = spec.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"{where}: {field} is not allowed"
    for volume in spec.get("volumes", ()):
        if not set(volume) - {"name"} <= VOLUME_KINDS:
            yield f"{where}: volume {volume['name']} is of a kind that is not allowed"
    if pod.get("sysctls"):
        yield f"{where}: sysctls are not allowed"
    for container in pods.containers:
        place = f"{where}, container {container['name']}"
        own = container.get("securityContext", {})
        both = {**pod, **own}
        if both.get("runAsNonRoot") is not True:
            yield f"{place}: runAsNonRoot has to be true"
        if both.get("runAsUser", 1) == 0:
            yield f"{place}: it runs as root"
        if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{place}: it has no seccomp profile"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{place}: allowPrivilegeEscalation has to be false"
        if own.get("privileged"):
            yield f"{place}: it is privileged"
        capabilities = own.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
            yield f"{place}: it has to drop ALL capabilities and add none"
        if own.get("procMount", "Default") != "Default":
            yield f"{place}: procMount is not allowed"
        if any(port.get("hostPort") for port in container.get("ports", ())):
            yield f"{place}: hostPort is not allowed"


# -- rules of this house ----------------------------------------------------------------------------------------------


def _house(pods: Pods) -> Iterator[str]:
    where, spec = pods.name, pods.spec
    if spec.get("enableServiceLinks") is not False:
        yield f"{where}: enableServiceLinks has to be false, or Services make variables that Locust takes for options"
    if "automountServiceAccountToken" not in spec:
        yield f"{where}: automountServiceAccountToken is not decided"
    for container in pods.containers:
        place = f"{where}, container {container['name']}"
        tag = container["image"].rpartition("/")[2].partition(":")[2]
        if "@sha256:" not in container["image"] and tag in ("", "latest"):
            yield f"{place}: its image {container['image']} has no fixed version"
        if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
            yield f"{place}: its root file system is not read-only"
        resources = container.get("resources", {})
        for kind in ("requests", "limits"):
            if not {"cpu", "memory"} <= set(resources.get(kind, {})):
                yield f"{place}: {kind} of CPU and memory are missing"
            for name, amount in resources.get(kind, {}).items():
                if not QUANTITY.fullmatch(str(amount)):
                    yield f"{place}: {amount} is no amount of {name}"
        if container["name"] in LONG_RUNNING and "readinessProbe" not in container:
            yield f"{place}: it has no readiness probe"
        if container["name"] == "locust" and resources.get("requests") != resources.get("limits"):
            yield f"{place}: requests and limits differ, so it can be evicted for what it was promised"


def _services(objects: Sequence[Object], pods: Sequence[Pods]) -> Iterator[str]:
    for service in (o for o in objects if o["kind"] == "Service"):
        where, spec = identify(service), service["spec"]
        if LOCUSTS_NAMES.match(service["metadata"]["name"]):
            yield f"{where}: other pods would take it for options of Locust"
        behind = [one for one in pods if matches({"matchLabels": spec["selector"]}, one.labels)]
        if not behind:
            yield f"{where}: its selector takes no pods"
        for port in spec.get("ports", ()):
            for one in behind:
                if port["targetPort"] not in _ports(one):
                    yield f"{where}: {one.name} has no port {port['targetPort']}"


def _ports(pods: Pods) -> set[str | int]:
    found = [port for container in pods.containers for port in container.get("ports", ())]
    return {port["name"] for port in found} | {port["containerPort"] for port in found}


def _policies(objects: Sequence[Object], pods: Sequence[Pods]) -> Iterator[str]:
    policies = [o for o in objects if o["kind"] == "NetworkPolicy"]
    for one in pods:
        closed = {kind for p in policies if matches(p["spec"]["podSelector"], one.labels) for kind in _denied(p)}
        if closed != {"Ingress", "Egress"}:
            yield f"{one.name}: no network policy closes it"
    for policy in policies:
        where, spec = identify(policy), policy["spec"]
        if not any(matches(spec["podSelector"], one.labels) for one in pods):
            yield f"{where}: it takes no pods"
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(direction, ()):
                for peer in rule.get(side, ()):
                    others = [one for one in pods if matches(peer["podSelector"], one.labels)]
                    if not others:
                        yield f"{where}: there are no pods of those it lets through"
                    listening = (
                        others
                        if direction == "egress"
                        else [one for one in pods if matches(spec["podSelector"], one.labels)]
                    )
                    for port in rule["ports"]:
                        if not any(port["port"] in _ports(one) for one in listening):
                            yield f"{where}: nobody listens on port {port['port']}"


def _denied(policy: Object) -> set[str]:
    """The directions that it closes and does not open again itself."""
    spec = policy["spec"]
    return {kind for kind in spec["policyTypes"] if not spec.get(kind.lower())}


def _budgets(objects: Sequence[Object], pods: Sequence[Pods]) -> Iterator[str]:
    for budget in (o for o in objects if o["kind"] == "PodDisruptionBudget"):
        where, spec = identify(budget), budget["spec"]
        behind = [one for one in pods if matches(spec["selector"], one.labels)]
        if not behind:
            yield f"{where}: it takes no pods"
        if "maxUnavailable" in spec and any(one.owner["kind"] not in SCALABLE for one in behind):
            yield f"{where}: maxUnavailable needs pods of something that can be scaled; say minAvailable"
    for one in pods:
        if any(container["name"] == "locust" for container in one.containers) and not any(
            o["kind"] == "PodDisruptionBudget" and matches(o["spec"]["selector"], one.labels) for o in objects
        ):
            yield f"{one.name}: it has no disruption budget"


def _autoscalers(objects: Sequence[Object], pods: Sequence[Pods]) -> Iterator[str]:
    for scaler in (o for o in objects if o["kind"] == "HorizontalPodAutoscaler"):
        where, spec = identify(scaler), scaler["spec"]
        target = spec["scaleTargetRef"]
        scaled = [one for one in pods if one.name == f"{target['kind']}/{target['name']}"]
        if not scaled:
            yield f"{where}: {target['kind']}/{target['name']} is not there"
        for one in scaled:
            if "replicas" in one.owner["spec"]:
                yield f"{where}: {one.name} says replicas too, so every apply sets the number back"
            names = {container["name"] for container in one.containers}
            asked = {metric["containerResource"]["container"] for metric in spec["metrics"]}
            yield from (f"{where}: {one.name} has no container {name}" for name in sorted(asked - names))
        if spec.get("behavior", {}).get("scaleDown", {}).get("selectPolicy") != "Disabled":
            yield f"{where}: it may take workers away during a run"
        if spec["minReplicas"] > spec["maxReplicas"]:
            yield f"{where}: minReplicas is above maxReplicas"


def _rights(objects: Sequence[Object]) -> Iterator[str]:
    for found in objects:
        if found["kind"] in ("ClusterRole", "ClusterRoleBinding"):
            yield f"{identify(found)}: nothing here needs rights in the whole cluster"
        if found["kind"] == "Role":
            for rule in found["rules"]:
                if set(rule["verbs"]) - READING or rule["apiGroups"] != ["metrics.k8s.io"]:
                    yield f"{identify(found)}: it may do more than read metrics"
        if found["kind"] == "RoleBinding" and not _exists(objects, found["roleRef"]["kind"], found["roleRef"]["name"]):
            yield f"{identify(found)}: {found['roleRef']['kind']}/{found['roleRef']['name']} is not there"


def _hosts(objects: Sequence[Object], pods: Sequence[Pods]) -> Iterator[str]:
    """Hosts without a dot are Services of the same namespace."""
    for where, host, port in _named_hosts(objects, pods):
        service = next((o for o in objects if o["kind"] == "Service" and o["metadata"]["name"] == host), None)
        if service is None:
            yield f"{where}: there is no Service/{host}"
        elif port not in {entry["port"] for entry in service["spec"].get("ports", ())}:
            yield f"{where}: Service/{host} has no port {port}"


def _named_hosts(objects: Sequence[Object], pods: Sequence[Pods]) -> Iterator[tuple[str, str, int]]:
    for one in pods:
        for container in one.containers:
            words = container.get("args", ())
            for option, host in pairwise(words):
                if option == "--master-host":
                    yield f"{one.name}, container {container['name']}", host, 5557
    for config in (o for o in objects if o["kind"] == "ConfigMap"):
        target = re.fullmatch(r"https?://([a-z0-9-]+):(\d+)(/.*)?", config["data"].get("LOCUST_HOST", ""))
        if target:
            yield identify(config), target[1], int(target[2])
        for job in _scrape_jobs(config["data"]):
            for entry in job["static_configs"]:
                for scraped in entry["targets"]:
                    host, _, port = scraped.partition(":")
                    yield identify(config), host, int(port)


def _scrape_jobs(data: Mapping[str, str]) -> list[Any]:
    return list(yaml.safe_load(data["config.yml"])["scrape_configs"]) if "config.yml" in data else []

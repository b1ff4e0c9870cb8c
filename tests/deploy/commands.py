"""What a container runs, as the kubelet would start it: its words and its environment."""

import importlib
import re
from argparse import Namespace
from collections.abc import Mapping, Sequence

from locust.argument_parser import get_parser

from rl_hooks.record.options import add_options
from tests.deploy.manifests import Object

IN_THE_IMAGE = {"LOCUST_LOCUSTFILE": "/app/locustfile.py"}


def environment(container: Object, objects: Sequence[Object]) -> dict[str, str]:
    """Its variables. Of a Secret only the name is known here, so it gives none."""
    maps = {o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"}
    found = dict(IN_THE_IMAGE)
    for source in container.get("envFrom", ()):
        if "configMapRef" in source:
            found |= maps[source["configMapRef"]["name"]]
    for variable in container.get("env", ()):
        reference = variable.get("valueFrom", {}).get("configMapKeyRef")
        found[variable["name"]] = variable["value"] if reference is None else maps[reference["name"]][reference["key"]]
    return found


def words(container: Object, variables: Mapping[str, str]) -> list[str]:
    """Its command line; the image's entrypoint is Locust."""
    given = [*container.get("command", ["locust"]), *container.get("args", ())]
    return [re.sub(r"\$\((\w+)\)", lambda name: variables[name[1]], word) for word in given]


def understood(line: Sequence[str], variables: Mapping[str, str]) -> Namespace:
    """The options of a command line of ours, read by the program that it starts."""
    if line[0] == "locust":
        parser = get_parser()
        add_options(parser)
        options: Namespace = parser.parse_args(list(line[1:]), env_vars=dict(variables))
        return options
    python, dash_m, module, *rest = line
    assert (python, dash_m) == ("python", "-m")
    parsed: Namespace = importlib.import_module(f"{module}.__main__")._parser().parse_args(rest)
    return parsed

"""The command-line options of the suite, and what follows from them before anything is started.

Locust's own `--config` and `--profile` are taken, hence `--scenario-file` and `--scenario`.
"""

import importlib.metadata
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from rl_hooks.action_space import ALL_STRATEGIES, INSTANCES, KINDS, STRATEGIES, ActionSpace, ActionSpaceError, instances
from rl_hooks.actuators.header import FORMS as ACTUATORS
from rl_hooks.actuators.named import make_actuator, space_of
from rl_hooks.control import Actuator, Source, SourceError
from rl_hooks.decision import REQUEST_PIN
from rl_hooks.faults.injector import NONE, Injector, InjectorError, make_injector
from rl_hooks.parts import PartError, find_rewards
from rl_hooks.policies.builtin import LoggingPolicy
from rl_hooks.policies.named import RUN_FORMS, make_policies, make_run_policy
from rl_hooks.policies.observed import Observed
from rl_hooks.policies.turns import Turns, turns_facts
from rl_hooks.sources.instances import LISTED_AT, known_instances
from rl_hooks.sources.named import make_source
from rl_hooks.sources.none import FORMS as SOURCES
from rl_hooks.target import TargetError, root_of
from rl_hooks.version import VERSION
from scenario.errors import ScenarioError
from scenario.faults import PlanFault
from scenario.load import ScenarioFile, find_file, load_file
from scenario.plan import Plan, make_plan

DEFAULT_SCENARIO_FILE = "comprehensive_rl_training_config.yaml"
DEFAULT_HOST = "http://127.0.0.1:8080/proxy"
PROBE_TIMEOUT_S = 2.0
SANDBOX, HEADER = "sandbox", "header"


class SetupError(Exception):
    """What was asked for cannot be run; the message lists every reason with its way out."""


# Flag -> what argparse and Locust's web UI need to know. Types stay plain: Locust sends the values to the workers as
# msgpack. What is left out of the web form concerns this machine's files.
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "--scenario-file": {
        "default": DEFAULT_SCENARIO_FILE,
        "metavar": "FILE",
        "include_in_web_ui": False,
        "help": "scenario file, YAML or JSON; a bare name is also looked up in configs/",
    },
    "--scenario": {"metavar": "NAME", "help": "scenario of the file; not needed when it holds only one"},
    "--seed": {"type": int, "default": 1, "help": "fixes every choice of the shoppers and of the logging policy"},
    "--time-scale": {"type": float, "default": 1.0, "help": "divides every duration of the run"},
    "--user-scale": {"type": float, "default": 1.0, "help": "multiplies the users of every phase"},
    "--decision-interval": {
        "type": float,
        "metavar": "SECONDS",
        "help": "decision interval before time scale, instead of the scenario's",
    },
    "--logging-policy": {
        "default": "uniform",
        "help": f"policy that routes while we record: {RUN_FORMS}",
    },
    "--action-space": {
        "choices": list(KINDS),
        "default": STRATEGIES,
        "help": f"what a decision chooses among: the balancer's strategies, or the instances of each service, which "
        f"requests then pin by {REQUEST_PIN}",
    },
    "--metrics-source": {"default": "auto", "help": f"auto, {SOURCES} or module:attribute"},
    "--actuator": {"default": "auto", "help": f"auto, {', '.join(ACTUATORS.values())} or module:attribute"},
    "--fault-injector": {
        "default": "auto",
        "help": "makes the scenario's faults: auto, none, sandbox, http:FILE, command:FILE or module:attribute",
    },
    "--no-faults": {"action": "store_true", "help": "leave the scenario's faults out; the data says so"},
    "--run-folder": {
        "metavar": "PATH",
        "include_in_web_ui": False,
        "help": "folder of this run; by default runs/<scenario>_<UTC time>",
    },
    "--spool": {
        "metavar": "DIR",
        "include_in_web_ui": False,
        "help": "of a worker: record into DIR/<run id>, to be shipped, instead of into the master's folder",
    },
    "--logs": {
        "default": "logs",
        "metavar": "PATH",
        "include_in_web_ui": False,
        "help": "folder for the JSON files that the export writes",
    },
    "--no-export": {
        "action": "store_true",
        "include_in_web_ui": False,
        "help": "leave the export out; python -m rl_hooks.export RUN does it later",
    },
}


def add_options(parser: Any, scenarios: ScenarioFile | None = None) -> None:
    """Add the suite's options to Locust's parser.

    They go to the parser itself, not to a group of it, because only those reach the start form of the web UI.
    With `scenarios` the form offers the file's scenarios.
    """
    for flag, about in OPTIONS.items():
        variable = "LOCUST_" + flag.removeprefix("--").replace("-", "_").upper()
        names = {"choices": list(scenarios.scenarios)} if flag == "--scenario" and scenarios is not None else {}
        parser.add_argument(flag, env_var=variable, **about, **names)


@dataclass(frozen=True)
class Setup:
    """Everything that is decided before a run."""

    plan: Plan
    host: str
    folder: Path
    policy: LoggingPolicy | Turns
    source: Source
    actuator: Actuator
    injector: str  # as --fault-injector names it, without `auto`
    space: ActionSpace
    facts: Mapping[str, Any]  # for the manifest

    @property
    def is_sandbox(self) -> bool:
        return bool(self.facts["balancer"] == SANDBOX)

    def peak_load(self) -> dict[str, Any]:
        """What a sandbox has to know to size itself: the calls it is to be made for, in real time, and the products."""
        products = [
            {"sku": p.sku, "name": p.name, "category": p.category, "brand": p.brand, "price": p.price}
            for p in self.plan.scenario.catalogue
        ]
        return {"time_scale": self.plan.time_scale, "expect": dict(self.plan.design_rps()), "products": products}

    def describe(self) -> list[str]:
        """What a person should know before the run starts, one fact a line."""
        return [
            *self.plan.describe(self.host),
            f"target: {self.host} (metrics source {self.source.describe()}, actuator {self.actuator.describe()})",
            *self.space.describe(),
            f"logging policy: {self.policy.describe()}"
            + (", the balancer decides by itself" if isinstance(self.policy, Observed) else ""),
            *([f"turns: {self.policy.summary()}"] if isinstance(self.policy, Turns) else []),
            f"faults: {len(self.plan.faults)}, made by {self.injector}" if self.plan.faults else "faults: none",
            f"run folder: {self.folder}",
        ]


def read_scenario_file(options: Any) -> ScenarioFile:
    """The scenario file the options name. Raises ScenarioError."""
    return load_file(find_file(options.scenario_file))


def default_host(file: ScenarioFile) -> str:
    """The target when no --host is given: the file's base_url, else where the sandbox listens."""
    return next((scenario.base_url for scenario in file.scenarios.values() if scenario.base_url), DEFAULT_HOST)


def make_setup(options: Any, host: str) -> Setup:
    """Decide everything from the options. Raises SetupError with all that is wrong."""
    problems: list[str] = []
    plan = _attempt(problems, lambda: _plan(options))
    _attempt(problems, lambda: find_rewards(plan.scenario.rewards) if plan is not None else None)
    root = _attempt(problems, lambda: root_of(host))
    state = _sandbox_state(root) if root is not None else None
    kind = "" if state is None else SANDBOX
    source_name = _named(options.metrics_source, SANDBOX if kind == SANDBOX else "none")
    if options.action_space not in KINDS:  # a form can post anything
        problems.append(f"--action-space {options.action_space}: must be one of {', '.join(KINDS)}")
    pinned = options.action_space == INSTANCES
    actuator_name = _named(options.actuator, SANDBOX if kind == SANDBOX and not pinned else HEADER)
    source = _attempt(problems, lambda: make_source("--metrics-source", source_name, root))
    actuator = _attempt(problems, lambda: make_actuator("--actuator", actuator_name, root))
    space = None
    if pinned and source is not None and root is not None:
        space = _attempt(problems, lambda: _pinned(actuator_name, source, root))
    elif not pinned and actuator is not None:
        space = _attempt(problems, lambda: space_of(f"--actuator {actuator_name}", actuator))
    # Which words name an instance is not known without the instances: that they are not is told already.
    if space is not None or not pinned:
        policy = _attempt(problems, lambda: _policy(options.logging_policy, plan, space))
    else:
        policy = None
    injector_name = _named(options.fault_injector, SANDBOX if kind == SANDBOX else NONE)
    faults = plan.faults if plan is not None else ()
    injector = _attempt(problems, lambda: _make_injector(injector_name, root, host, faults))
    _attempt(problems, lambda: _writable(Path(options.logs)))
    if getattr(actuator, "observes", False):
        policy = _attempt(problems, lambda: _observed(options)) or policy
    if problems or plan is None or policy is None or source is None or actuator is None or space is None:
        raise SetupError("\n".join(problems))
    started_ns = time.time_ns()
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(started_ns // 10**9))
    folder = Path(options.run_folder or Path("runs") / f"{plan.scenario.name}_{stamp}")
    file = read_scenario_file(options)
    facts = {
        "run_id": folder.name,
        "scenario": plan.scenario.name,
        "plan": plan.to_json(),
        "config_path": str(file.path),
        "config_sha256": file.text_sha256,
        "seed": plan.seed,
        "versions": versions(),
        "target": host,
        "balancer": kind or "unknown",
        "action_space": space.to_json(),
        "balancer_details": None if state is None else state.get("balancer"),  # which one, as the sandbox says
        "logging_policy": policy.describe(),
        **turns_facts(policy),
        "source": source.describe(),
        "actuator": actuator.describe(),
        "faults": {
            "injector": NONE if injector is None else injector.describe(),
            "injector_spec": injector_name,
            "root": root,
            "planned": len(faults),
            "without_faults": plan.without_faults,
            "list": [fault.to_json() for fault in faults],
        },
        "started_unix_ns": started_ns,
        "ended_unix_ns": None,
        "state": "running",
    }
    return Setup(plan, host, folder, policy, source, actuator, injector_name, space, facts)


def _make_injector(name: str, root: str | None, host: str, faults: tuple[PlanFault, ...]) -> Injector | None:
    """The injector, sure to know how to make `faults`."""
    way_out = "name what makes them with --fault-injector, or leave them out with --no-faults"
    try:
        injector = make_injector(name, root or "")
        if injector is None and faults:
            raise SetupError(
                f"the scenario has {len(faults)} faults, the first is {faults[0].text}, and nothing is known that "
                f"makes faults in {host}; {way_out}"
            )
        problems = injector.problems(faults) if injector is not None else []
    except InjectorError as error:
        raise SetupError(str(error)) from error
    if problems:
        raise SetupError(
            "\n".join([f"--fault-injector {name} cannot make the scenario's faults; {way_out}", *problems])
        )
    return injector


def _pinned(actuator: str, source: Source, root: str) -> ActionSpace:
    """The instances that there are now."""
    place = f"--action-space {INSTANCES}"
    problems = []
    if actuator != HEADER:
        problems.append(
            f"{place}: instances are pinned by a header of each request, and --actuator {actuator} sends none; "
            f"leave it out or say --actuator {HEADER}"
        )
    try:
        space = instances(known_instances(source, root))
    except SourceError as error:
        problems.append(
            f"{place}: the instances are not known ({error}); name a metrics source that knows them with "
            f"--metrics-source, or let the balancer list them at {LISTED_AT}"
        )
    except ActionSpaceError as error:
        problems += [f"{place}: {line}" for line in str(error).splitlines()]
    if problems:
        raise SetupError("\n".join(problems))
    return space


def _policy(text: str, plan: Plan | None, space: ActionSpace | None) -> LoggingPolicy | Turns | None:
    """Who decides. Without plan and actions nobody can, but what is wrong with the names is told all the same."""
    if plan is None or space is None:
        make_policies(text, space or ALL_STRATEGIES)
        return None
    return make_run_policy(text, plan, space)


def _observed(options: Any) -> Observed:
    """Nobody of ours decides. Raises SetupError when somebody was asked to."""
    if options.logging_policy != OPTIONS["--logging-policy"]["default"]:
        raise SetupError(
            f"--logging-policy {options.logging_policy}: with --actuator {options.actuator} the balancer decides by "
            "itself, and nothing is drawn; leave one of the two out"
        )
    return Observed()


def _writable(logs: Path) -> None:
    """Make the folder of the logs now: a run of hours shall not end with an export that cannot write."""
    try:
        logs.mkdir(parents=True, exist_ok=True)
        writable = os.access(logs, os.W_OK)
    except OSError as error:
        raise SetupError(f"--logs {logs}: cannot be made ({error.strerror}); choose another folder") from error
    if not writable:
        raise SetupError(f"--logs {logs}: cannot be written; choose another folder")


def versions() -> dict[str, str]:
    """Versions of what makes the data, for the manifest."""
    packages = ("locust", "gevent", "geventhttpclient")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"suite": VERSION, "python": platform.python_version(), **found}


def _plan(options: Any) -> Plan:
    scenario = read_scenario_file(options).scenario(options.scenario or None)
    return make_plan(
        scenario,
        options.seed,
        options.time_scale,
        options.user_scale,
        options.decision_interval,
        faults=not options.no_faults,
    )


def _sandbox_state(root: str) -> Mapping[str, Any] | None:
    """What `/state` at the root says when it is a sandbox; None: an unknown balancer."""
    try:
        answer = requests.get(f"{root}/state", timeout=PROBE_TIMEOUT_S)
        state = answer.json() if answer.ok else None
    except (requests.RequestException, ValueError):
        return None
    return state if isinstance(state, dict) and "services" in state else None


def _named(text: str, automatic: str) -> str:
    return automatic if text == "auto" else text


def _attempt(problems: list[str], make: Any) -> Any:
    """The result of `make`, or None with its complaint added to `problems`."""
    try:
        return make()
    except (ScenarioError, SetupError, TargetError, PartError, ValueError) as error:
        problems.append(str(error))
        return None

"""Who may import whom. A breach is silent: one careless import makes a reward load Locust and replace sockets."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rl_hooks.decision
import scenario.model

ROOT = Path(__file__).resolve().parents[1]
OURS = {"scenario", "profiles", "shapes", "rl_hooks", "sandbox", "training", "locustfile", "rl_training_executor"}
NUMERIC = {"numpy"}
HTTP = {"requests"}
TABLES = {"numpy", "pandas", "pyarrow"}
LOCUST = {"locust", "gevent", "geventhttpclient"}
SERVER = {"uvicorn", "httptools", "uvloop", "asyncio", "requests"}
LIGHT = {"scenario.errors", "scenario.faults", "scenario.model", "scenario.refs"}  # of the scenario, without pydantic
FACTS = {"rl_hooks.action_space", "rl_hooks.decision", "rl_hooks.row", "rl_hooks.version"}
FEATURES = {"rl_hooks.observation", "rl_hooks.observation_table", "rl_hooks.histogram", "rl_hooks.timed_facts"}
FOLDER = {"rl_hooks.run_folder", "rl_hooks.run_reader", "rl_hooks.request_log", "rl_hooks.segments"}
FOLDER |= {"rl_hooks.clock", "rl_hooks.run_clocks"}
LIVE = {"rl_hooks.live", "rl_hooks.report_rows", "rl_hooks.observation"}
LOOP = {"rl_hooks.control", "rl_hooks.policies", "rl_hooks.sources", "rl_hooks.actuators", "rl_hooks.target"}
STORES = {"rl_hooks.stores"}
STANDING = {"rl_hooks.standing", "rl_hooks.reward_so_far", "rl_hooks.faults.acting"}
EXPORT = (
    FACTS
    | FOLDER
    | FEATURES
    | TABLES
    | STORES
    | {"rl_hooks.export", "rl_hooks.faults.schedule", "rl_hooks.live", "scenario", "yaml"}
    | {"rl_hooks.parts", "rl_hooks.policy_schema"}
)

RECORD = FACTS | FOLDER | LOOP | LIVE | HTTP | LOCUST
RECORD |= {"rl_hooks.record", "rl_hooks.faults", "rl_hooks.parts", "scenario"}

MODEL = {  # of the sandbox: pure code, the same live and in virtual time
    *("sandbox.backend", "sandbox.balancer", "sandbox.breaker", "sandbox.clock", "sandbox.faults", "sandbox.gauges"),
    "sandbox.decides",
    *("sandbox.instance", "sandbox.parameters", "sandbox.processor", "sandbox.proxy", "sandbox.shop", "sandbox.sizing"),
    *("sandbox.stage", "sandbox.strategies", "sandbox.weather", "sandbox.world"),
}
SANDBOX = MODEL | {"sandbox.access_log", "sandbox.control", "sandbox.metrics", "sandbox.server"}
OUTSIDE = {"sandbox.outside.balancer", "sandbox.parameters", "rl_hooks.decision"}  # all that an adapter knows of it
SHOPPERS = {  # the live shoppers' own rules, without Locust
    *("profiles.answers", "profiles.base", "profiles.cart", "profiles.choice", "profiles.journeys", "profiles.running"),
    *("profiles.seats", "profiles.session", "profiles.shop", "profiles.tries"),
}
VIRTUAL = (
    MODEL
    | SHOPPERS
    | FACTS
    | FEATURES
    | NUMERIC
    | {"sandbox.virtual", "scenario", "rl_hooks.control", "rl_hooks.policies", "rl_hooks.live", "rl_hooks.run_folder"}
    | {"rl_hooks.faults.agent", "rl_hooks.faults.schedule", "rl_hooks.record.decisions", "rl_hooks.record.recorder"}
)
LEARN = NUMERIC | {"torch", "training.network", "training.inputs", "training.settings", "training.transitions"}
ESTIMATES = NUMERIC | {"training.estimators", "rl_hooks.report.stats"}
READ = {"training.errors", "rl_hooks.action_space", "rl_hooks.decision", "rl_hooks.export", "rl_hooks.report"}
READ |= {"rl_hooks.policy_schema"}

SERVE = FACTS | FEATURES | LOOP | LIVE | NUMERIC | {"training.serving", "rl_hooks.run_folder", "rl_hooks.policy_schema"}
SERVE |= {"rl_hooks.parts", "rl_hooks.record.decisions", "rl_hooks.record.recorder", "scenario"}

# Modules (a name covers what is below it; the longest name that fits decides) -> what they may import besides the
# standard library: packages of others by their name, modules of ours by a name that covers them.
RULES: dict[str, set[str]] = {
    "scenario": {"scenario", "yaml", "pydantic", "pydantic_core", "annotated_types"},
    "profiles": {"profiles", "scenario", "brotli"} | LOCUST,
    "profiles.background": {"profiles.reader", "profiles.shop", "scenario"},
    "profiles.products": {"profiles.answers", "profiles.reader", "profiles.shop", "scenario"},
    "profiles.reader": {"profiles.answers", "profiles.shop"} | HTTP,
    "profiles.choice": {"profiles.choice", "scenario"},
    "profiles.cart": {"profiles.cart", "profiles.choice", "scenario"},
    "profiles.session": {"profiles.choice", "profiles.cart", "profiles.session", "profiles.shop", "scenario"},
    "profiles.seats": set(),
    "shapes": {"shapes", "scenario"} | LOCUST,
    "shapes.mix": set(),
    "rl_hooks": FACTS | FOLDER | FEATURES | NUMERIC,
    "rl_hooks.segments": FACTS | FOLDER | NUMERIC | {"isal"},
    "rl_hooks.action_space": {"rl_hooks.decision"},
    "rl_hooks.clock": set(),
    "rl_hooks.control": FACTS | LOOP | NUMERIC,
    "rl_hooks.policy_schema": {"rl_hooks.policy_schema"},
    "rl_hooks.policies": FACTS | LOOP | NUMERIC,
    "rl_hooks.policies.builtin": {"rl_hooks.action_space", "rl_hooks.decision"},
    "rl_hooks.policies.turns": {"rl_hooks.policies.builtin"},
    "rl_hooks.policies.observed": {"rl_hooks.policies.builtin"},
    "rl_hooks.policies.named": FACTS | LOOP | FEATURES | {"rl_hooks.parts"},
    "rl_hooks.policies.onnx": FACTS | LOOP | FEATURES | NUMERIC | {"rl_hooks.policy_schema", "onnxruntime"},
    "rl_hooks.sources": FACTS | LOOP | NUMERIC | HTTP,
    "rl_hooks.sources.asking": HTTP | {"rl_hooks.control", "rl_hooks.http_call"},
    "rl_hooks.sources.series": FACTS | NUMERIC | {"rl_hooks.control"},
    "rl_hooks.sources.exposition": NUMERIC | {"prometheus_client", "rl_hooks.sources.series"},
    "rl_hooks.sources.prometheus_api": NUMERIC | {"rl_hooks.http_call", "rl_hooks.sources.series"},
    "rl_hooks.sources.admin_api": FACTS | {"rl_hooks.control"},
    "rl_hooks.sources.envoy_clusters": FACTS | {"rl_hooks.control", "rl_hooks.sources.series"},
    "rl_hooks.sources.orca": FACTS | NUMERIC | {"rl_hooks.control", "rl_hooks.sources.series"},
    "rl_hooks.sources.fields": {"rl_hooks.control", "rl_hooks.sources", "scenario.errors", "scenario.text"},
    "rl_hooks.sources.named": FACTS | LOOP | {"rl_hooks.parts"},
    "rl_hooks.actuators": FACTS | LOOP | NUMERIC | HTTP,
    "rl_hooks.actuators.named": FACTS | LOOP | {"rl_hooks.parts", "scenario.errors"},
    "rl_hooks.actuators.observe": set(),
    "rl_hooks.actuators.http": FACTS | LOOP | HTTP | {"rl_hooks.http_call", "rl_hooks.places"},
    "rl_hooks.actuators.http_file": FACTS
    | {"rl_hooks.http_call", "rl_hooks.places", "scenario.errors", "scenario.text"},
    "rl_hooks.actuators.envoy": FACTS | LOOP | HTTP | {"rl_hooks.http_call", "scenario.errors"},
    "rl_hooks.conformance": FACTS | {"rl_hooks.conformance"},
    "rl_hooks.conformance.judge": FACTS | {"rl_hooks.conformance", "scenario.errors"},
    "rl_hooks.conformance.probe": FACTS | {"rl_hooks.conformance.facts", "scenario.errors"},
    "rl_hooks.record.conformance": {"rl_hooks.conformance", "rl_hooks.target", "scenario.errors"},
    "rl_hooks.http_call": HTTP | {"rl_hooks.places"},
    "rl_hooks.places": set(),
    "rl_hooks.parts": {"scenario.errors", "scenario.refs"},
    "rl_hooks.parts_check": LOOP
    | NUMERIC
    | {"rl_hooks.decision", "rl_hooks.export", "rl_hooks.faults", "rl_hooks.observation", "rl_hooks.parts", *LIGHT},
    "rl_hooks.target": FACTS | HTTP,
    "rl_hooks.faults": FACTS
    | FOLDER
    | HTTP
    | {"rl_hooks.faults", "rl_hooks.parts", "rl_hooks.places", "scenario.text", *LIGHT},
    "rl_hooks.faults.http": HTTP | {"rl_hooks.faults", "rl_hooks.http_call", *LIGHT},
    "rl_hooks.prerequisites": FACTS | HTTP | {"rl_hooks.target", "scenario", "packaging"},
    "rl_hooks.live": FACTS | FEATURES | NUMERIC | {"rl_hooks.control", "rl_hooks.report_rows"},
    "rl_hooks.report_rows": FACTS | FOLDER,
    "rl_hooks.record": RECORD,
    "rl_hooks.record.form": RECORD | {"flask"},
    "rl_hooks.reward_so_far": FACTS | NUMERIC | {"rl_hooks.export.rewards", "scenario.plan"},
    "rl_hooks.standing": FACTS | {"rl_hooks.observation", "rl_hooks.reward_so_far", "scenario.plan"},
    "rl_hooks.watch": FACTS | FOLDER | NUMERIC | STANDING | {"rl_hooks.watch", "scenario.errors", "scenario.plan"},
    "rl_hooks.watch.text": set(),
    "rl_hooks.webui.board": STANDING
    | {"rl_hooks.action_space", "rl_hooks.control", "rl_hooks.record", "rl_hooks.run_folder"},
    "rl_hooks.webui.downloads": set(),
    "rl_hooks.webui.exports": {"gevent"},
    "rl_hooks.webui.login": {"gevent", "flask", "flask_login"},
    "rl_hooks.webui.tab": {"gevent", "flask", "rl_hooks.record.lead", "rl_hooks.webui"},
    "rl_hooks.record.statements": FACTS | FOLDER | {"rl_hooks.record.recorder"},
    "rl_hooks.export": EXPORT,
    "rl_hooks.export.backfill": EXPORT | {"rl_hooks.sources.series"},
    "rl_hooks.export.fetch_metrics": EXPORT
    | {"rl_hooks.control", "rl_hooks.parts", "rl_hooks.sources.named", "rl_hooks.sources.series"},
    "rl_hooks.export.compiled": EXPORT | {"numba"},
    "rl_hooks.export.formats.d4rl": EXPORT | {"h5py"},
    "rl_hooks.export.formats.d3rlpy_buffer": EXPORT | {"d3rlpy"},
    "rl_hooks.export.formats.minari_dataset": EXPORT | {"minari", "gymnasium"},
    "rl_hooks.report": (
        FACTS | FOLDER | FEATURES | TABLES | STORES | {"rl_hooks.report", "rl_hooks.export", "scenario", "yaml"}
    ),
    "rl_hooks.ship": STORES | {"rl_hooks.ship", "rl_hooks.row", "rl_hooks.run_folder", "rl_hooks.segments"},
    "rl_hooks.stores": STORES,
    "rl_hooks.stores.fetch": STORES | {"rl_hooks.run_folder"},
    "rl_hooks.stores.s3": STORES | {"boto3", "botocore"},
    "sandbox": {*SANDBOX, "rl_hooks.decision", "rl_hooks.version", "uvicorn", "httptools", "uvloop"},
    "sandbox.__main__": {*SANDBOX, "sandbox.outside"},
    "sandbox.outside": {*SANDBOX, "sandbox.outside", "uvicorn", "httptools"},
    "sandbox.outside.balancer": {"sandbox.parameters"},
    "sandbox.outside.calls": MODEL,
    "sandbox.outside.child": {"sandbox.outside.balancer", "rl_hooks.children"},
    "sandbox.outside.client": {"httptools"},
    "sandbox.outside.door": MODEL | {"sandbox.outside.calls"},
    "sandbox.outside.kinds": OUTSIDE,
    "sandbox.outside.haproxy": OUTSIDE | {"sandbox.outside.child", "sandbox.outside.haproxy"},
    "sandbox.outside.haproxy.config": {"sandbox.parameters", "rl_hooks.decision"},
    "sandbox.outside.envoy": OUTSIDE | {"sandbox.outside.envoy", "yaml"},
    "sandbox.outside.envoy.process": OUTSIDE | {"sandbox.outside.child", "sandbox.outside.envoy", "envoy"},
    "sandbox.virtual": VIRTUAL,
    "sandbox.virtual.__main__": VIRTUAL | {"rl_hooks.parts"},
    "sandbox.virtual.compare": VIRTUAL | {"rl_hooks.parts"},
    "sandbox.virtual.stepped": VIRTUAL | {"pandas", "rl_hooks.export"},
    "sandbox.virtual.env": VIRTUAL | {"gymnasium", "rl_hooks.export"},
    "training": {"training"},
    "training.__main__": {"training", "rl_hooks.action_space", "rl_hooks.export.errors"},
    "training.actors": LEARN,
    "training.cql": LEARN | {"d3rlpy", "structlog", "rl_hooks.export.formats.d3rlpy_buffer"},
    "training.claims": {"rl_hooks.decision"},
    "training.comparison": NUMERIC | {"training.estimators", "rl_hooks.decision"},
    "training.estimators": ESTIMATES,
    "training.evaluate": {
        "training",
        "rl_hooks.decision",
        "rl_hooks.export",
        "rl_hooks.policies",
        "rl_hooks.run_folder",
    },
    "training.evidence": ESTIMATES | READ | {"pandas"},
    "training.fqe": ESTIMATES | {"torch"},
    "training.inputs": NUMERIC | {"rl_hooks.export.formats.encoding"},
    "training.judge": NUMERIC | {"training", "rl_hooks.export", "rl_hooks.report.errors"},
    "training.serve": SERVE,
    "training.serving": SERVE,
    "training.serving.metrics": SERVE | {"prometheus_client"},
    "training.live": NUMERIC
    | {"pandas", "training", "rl_hooks.action_space", "rl_hooks.export.bundle", "rl_hooks.export.errors"}
    | {"rl_hooks.policies.turns", "rl_hooks.run_folder", "scenario.errors"},
    "training.network": LEARN | {"onnx", "rl_hooks.policies.onnx", "rl_hooks.policy_schema"},
    "training.proof": {"training", "rl_hooks.decision", "scenario"},
    "training.study": NUMERIC
    | {"training", "rl_hooks.decision", "rl_hooks.export", "rl_hooks.policies", "scenario"}
    | {"rl_hooks.run_folder"},
    "training.settings": {"training.errors", "scenario.errors", "yaml"},
    "training.train": LEARN | FACTS | {"training", "rl_hooks.policies.onnx", "rl_hooks.policy_schema"},
    "training.transitions": NUMERIC
    | {
        "training",
        "rl_hooks.action_space",
        "rl_hooks.decision",
        "rl_hooks.observation",
        "rl_hooks.policy_schema",
        "rl_hooks.export.formats.source",
        "rl_hooks.export.split",
    },
    "training.virtual": NUMERIC | {"training", "rl_hooks.decision", "rl_hooks.policies.named", "rl_hooks.version"},
    "training.outcome": NUMERIC | {"pandas", "rl_hooks.decision", "rl_hooks.export", "rl_hooks.run_reader", "scenario"},
    "training.pictures": {"training.comparison", "training.outcome", "rl_hooks.report.svg"},
    "training.tables": {"training.comparison", "training.outcome"},
    "training.targets": (
        ESTIMATES
        | {"training.errors", "rl_hooks.action_space", "rl_hooks.decision", "rl_hooks.policies"}
        | {"rl_hooks.policy_schema"}
    ),
}

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("scenario", "profiles", "shapes", "rl_hooks", "sandbox", "training")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def covers(name: str, module: str) -> bool:
    return module == name or module.startswith(name + ".")


def rule_of(module: str) -> set[str]:
    return RULES[max((name for name in RULES if covers(name, module)), key=len)]


def imports_of(path: Path) -> set[str]:
    """Every module that is imported anywhere in a file, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide who is imported"
            assert node.module is not None
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_its_package_may(module: str) -> None:
    allowed = rule_of(module)
    breaches = [
        name
        for name in sorted(imports_of(MODULES[module]))
        if name.split(".")[0] not in sys.stdlib_module_names and not any(covers(right, name) for right in allowed)
    ]
    assert breaches == []


def test_the_rules_are_about_modules_that_exist() -> None:
    assert [name for name in RULES if name not in MODULES] == []


def test_packages_say_nothing_in_their_init() -> None:
    assert [name for name, path in MODULES.items() if path.name == "__init__.py" and path.read_text().strip()] == []


@pytest.mark.parametrize(
    "module",
    [
        *("scenario.plan", "profiles.session", "rl_hooks.control", "rl_hooks.run_reader"),
        *(
            "rl_hooks.export.bundle",
            "rl_hooks.report.judge",
            "rl_hooks.record.decisions",
            "rl_hooks.record.conformance",
        ),
    ],
)
def test_pure_modules_load_neither_locust_nor_gevent(module: str) -> None:
    program = f"import sys, {module}; print(sorted({LOCUST!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_model_and_virtual_time_load_neither_a_server_nor_a_client() -> None:
    program = f"import sys, sandbox.virtual.__main__; print(sorted({{*{LOCUST!r}, *{SERVER!r}}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("module", ["rl_hooks.ship.__main__", "rl_hooks.export.__main__", "rl_hooks.record.worker"])
def test_only_who_uses_s3_loads_its_library(module: str) -> None:
    program = f"import sys, {module}; print(sorted({{'boto3', 'botocore'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_shipper_is_small_and_nobody_who_records_knows_of_it() -> None:
    program = f"import sys, rl_hooks.ship.__main__; print(sorted({{*{LOCUST!r}, *{TABLES!r}}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    recording = [module for module in MODULES if covers("rl_hooks.record", module) or module == "rl_hooks.run_folder"]
    named = {name for module in recording for name in imports_of(MODULES[module])}
    assert [name for name in named if covers("rl_hooks.ship", name) or covers("rl_hooks.stores", name)] == []


def test_who_watches_a_run_loads_neither_locust_nor_what_reads_tables() -> None:
    unwanted = f"{{*{LOCUST!r}, 'pandas', 'pyarrow'}}"
    program = f"import sys, rl_hooks.watch.__main__; print(sorted({unwanted} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    program = "import sys, rl_hooks.webui.tab; print(sorted({'pandas', 'pyarrow'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_live_and_virtual_time_run_one_model() -> None:
    """Nothing of the model and of the shoppers' rules is written twice: both sides import the same."""
    virtual = set().union(*(imports_of(path) for module, path in MODULES.items() if covers("sandbox.virtual", module)))
    server, users = (
        set().union(*(imports_of(MODULES[module]) for module in modules))
        for modules in (("sandbox.__main__", "sandbox.proxy"), ("profiles.user", "profiles.client"))
    )
    assert {"sandbox.world.World", "sandbox.sizing.size", "sandbox.parameters.Parameters"} <= virtual & server
    rules = {"profiles.journeys", "profiles.answers.judge", "profiles.tries.tries", "profiles.running.RunningSession"}
    assert rules | {"profiles.session.Session"} <= virtual & users


def test_both_sides_of_the_boundary_know_the_same_services() -> None:
    """The scenario may not import the balancer's contract, so this fact is stated twice."""
    assert scenario.model.SERVICES == rl_hooks.decision.SERVICES

"""`python -m training.serve POLICY ...`: a policy that decides beside a balancer, without Locust.

    metrics source --+                                      +--> actuator: the balancer's strategy per service
    access log ------+--> window --> policy or fallback ----+--> run folder: decisions with what they were drawn from
                                                            +--> /metrics, /healthz

The loop is the one that records: `rl_hooks.control.Controller`, once per decision interval. By stale telemetry a fixed
strategy decides instead; every decision is recorded under the name and the distribution of who really made it.
"""

import argparse
import ipaddress
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rl_hooks.actuators.header import FORMS as ACTUATORS
from rl_hooks.decision import ACTIONS
from rl_hooks.policies.named import FORMS
from rl_hooks.run_folder import RunFolderError
from rl_hooks.sources.none import FORMS as SOURCES
from training.serving.setup import ServeError, Setup, make_setup

EXIT_BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: ended in order; 1: stopped by a fault; 2: refused; 3: rows are missing."""
    options = _parser().parse_args(arguments)
    sys.path.append(str(Path.cwd()))  # where a policy, a source or an actuator of the user's is
    try:
        from training.serving.metrics import Endpoint, Health, Metrics
        from training.serving.service import Service
    except ImportError as error:
        return _refuse(f'needs prometheus-client ({error}); install the extra `serve` (pip install ".[serve]")')
    try:
        setup = make_setup(options)
        metrics, health = Metrics(_policy_facts(setup)), Health(setup.plan.decision_interval_s)
        endpoint = Endpoint(metrics, health, options.metrics_host, options.metrics_port)
    except ServeError as error:
        return _refuse(str(error))
    except OSError as error:
        place = f"--metrics-host {options.metrics_host} --metrics-port {options.metrics_port}"
        return _refuse(f"{place}: cannot listen there ({error.strerror}); choose others, 0 is a free port")
    try:
        service = Service(setup, metrics, health, _say)
    except RunFolderError as error:
        endpoint.close()
        return _refuse(str(error))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: service.ended.set())
    host = options.metrics_host
    lines = [*setup.describe(), f"metrics: http://{host}:{endpoint.port}/metrics, health: /healthz"]
    if not _is_loopback(host):
        lines.append(f"warning: {host} is not a loopback address: everybody who can reach it can read the metrics")
    print("\n".join(lines), flush=True)
    code = service.run()
    endpoint.close()
    print("\n".join(service.tally()), flush=True)
    return code


def _policy_facts(setup: Setup) -> dict[str, str]:
    schema = getattr(setup.policy, "schema", None)
    return {
        "policy": setup.policy.describe(),
        "algorithm": "" if schema is None else schema.algorithm,
        "fallback": setup.fallback.action,
        "explore": f"{setup.explore:g}",
    }


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _say(text: str) -> None:
    print(f"training.serve: {text}", file=sys.stderr, flush=True)


def _refuse(message: str) -> int:
    _say(message)
    return EXIT_BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.serve",
        description="Let a policy choose a balancer's strategy for every service, once per decision interval.",
    )
    add = parser.add_argument
    add("policy", metavar="POLICY", help=FORMS)
    add("--host", required=True, metavar="URL", help="the balancer; source and actuator are given its root")
    add("--source", required=True, help=f"metrics: {SOURCES} or module:attribute")
    controls = ", ".join(form for name, form in ACTUATORS.items() if name not in ("header", "observe"))
    add("--actuator", required=True, help=f"what tells the balancer: {controls} or module:attribute")
    add("--requests", metavar="FILE", help="the balancer's access log, JSON lines (docs/serving.md)")
    add("--explore", type=float, default=0.0, metavar="EPS", help="share of uniform draws (default: %(default)s)")
    add("--fallback", default="backpressure", choices=ACTIONS, help="decides by stale telemetry (default: %(default)s)")
    add("--stale-after", type=float, metavar="SECONDS", help="(default: three decision intervals)")
    add("--scenario-file", metavar="FILE", help="its windows, SLOs and reward weights, instead of the policy's own")
    add("--scenario", metavar="NAME", help="scenario of the file; not needed when it holds only one")
    add("--metrics-port", type=int, default=9464, help="0 takes a free one (default: %(default)s)")
    add("--metrics-host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (default: %(default)s)")
    add("--run-folder", metavar="PATH", help="folder of this run (default: runs/serving_<UTC time>)")
    add("--seed", type=int, help="fixes what is drawn (default: a new one every time)")
    add("--duration", type=float, metavar="SECONDS", help="end by itself after that long (default: when it is told to)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""The system under test: its addresses, whether it is ready for a run, and what the sandbox is told before one."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests

from rl_hooks.decision import SERVICES

HEALTH_PATH = "actuator/health"
HEALTH_TIMEOUT_S = 5.0


class TargetError(Exception):
    """The target cannot be used; the message says what was tried and what to do."""


def root_of(host: str) -> str:
    """The root of the balancer that serves `host`: `http://h:8080/proxy` -> `http://h:8080`.

    Raises TargetError when `host` is not the URL of a web server.
    """
    try:
        parts = urlsplit(host)
        parts.port  # noqa: B018  (reading it is what checks it)
    except ValueError as error:
        raise TargetError(f"--host {host}: not a URL ({error}); give one like http://localhost:8080/proxy") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TargetError(f"--host {host}: not a URL of a web server; give one like http://localhost:8080/proxy")
    return f"{parts.scheme}://{parts.netloc}"


def check_target(host: str) -> None:
    """Ask every service for its health. Raises TargetError that lists each answer and says what to do."""
    root_of(host)
    answers = {service: _health(f"{host.rstrip('/')}/{service}/{HEALTH_PATH}") for service in SERVICES}
    if any(answer is not None for answer in answers.values()):
        raise TargetError(_explain(host, answers))


def size_sandbox(root: str, load: Mapping[str, Any]) -> list[str]:
    """Tell the sandbox what is coming, so that it sizes itself: `PUT /control/load`.

    `load` has the time scale, the calls per second to expect at the peak, and the products that will be asked for.
    Returns the sandbox's lines about what it made of it. Raises TargetError when it refuses.
    """
    url = f"{root}/control/load"
    try:
        answer = requests.put(url, json=load, timeout=HEALTH_TIMEOUT_S)
        content = answer.json()
        if answer.ok:
            return [str(line) for line in content["lines"]]
        problems = [str(problem) for problem in content["problems"]]
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        raise TargetError(f"PUT {url}: {error}; is this a sandbox of another version? Start it anew") from error
    raise TargetError(f"PUT {url}: the sandbox refuses the load\n" + "\n".join(f"  {problem}" for problem in problems))


def _health(url: str) -> str | None:
    """None when the service is up, otherwise what happened instead."""
    try:
        answer = requests.get(url, timeout=HEALTH_TIMEOUT_S)
        status = answer.json().get("status") if answer.ok else None
    except requests.ConnectionError:
        return f"GET {url}: no connection"
    except requests.Timeout:
        return f"GET {url}: no answer within {HEALTH_TIMEOUT_S:g} s"
    except (ValueError, AttributeError):
        return f"GET {url}: answered {answer.status_code}, but not with a health report"
    except requests.RequestException as error:
        return f"GET {url}: {error}"
    if not answer.ok:
        return f"GET {url}: answered {answer.status_code}"
    return None if status == "UP" else f"GET {url}: says status {status!r}, not 'UP'"


def _explain(host: str, answers: Mapping[str, str | None]) -> str:
    failed = {service: answer for service, answer in answers.items() if answer is not None}
    lines = [f"target {host}: {len(failed)} of {len(answers)} services are not ready"]
    lines += [f"  {service}: {answer}" for service, answer in failed.items()]
    if all(answer.endswith("no connection") for answer in failed.values()) and len(failed) == len(answers):
        lines.append("  Nothing listens there. Start the target, correct --host, or start the sandbox: make sandbox")
    elif all(answer.endswith("answered 404") for answer in failed.values()) and len(failed) == len(answers):
        lines.append("  Is the path right? --host is the URL before /<service>/; for the sandbox it ends with /proxy.")
    else:
        lines.append("  Wait until these services are up, or look at their instances; then start again.")
    return "\n".join(lines)

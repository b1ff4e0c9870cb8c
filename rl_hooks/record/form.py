"""What the start form of Locust's web UI says, read by the types of our options, and what it is answered.

A form posts text. Locust gives it the type of the option's value so far, so that an option without a value stays text,
and answers a word where a number is expected with a bare error.
"""

from collections.abc import Mapping
from typing import Any

import gevent
from flask import request
from gevent.lock import BoundedSemaphore

from rl_hooks.record.lead import Lead
from rl_hooks.record.options import SetupError, add_options

_NUMBERS = {int: ("a whole number", "1"), float: ("a number", "1 or 0.5")}


class _Asked(dict[str, Mapping[str, Any]]):
    """Stands where a parser does and notes what is said about each option: name -> its facts."""

    def add_argument(self, flag: str, **about: Any) -> None:
        self[flag.removeprefix("--").replace("-", "_")] = about


def read_form(form: Mapping[str, str]) -> dict[str, Any]:
    """Our options among the form's fields; an empty field is None where nothing has to be said.

    Raises SetupError that names every field that should be a number and is none.
    """
    asked = _Asked()
    add_options(asked)
    values: dict[str, Any] = {}
    problems = []
    for name in sorted(form.keys() & asked.keys()):
        text, kind = form[name].strip(), asked[name].get("type", str)
        if not text and asked[name].get("default") is None:
            values[name] = None
            continue
        if asked[name].get("action") == "store_true":  # Locust's checkbox posts a word
            values[name] = text.lower() == "true"
            if text.lower() not in ("true", "false"):
                problems.append(f"{name}: {text!r} is neither true nor false. Tick the box or leave it.")
            continue
        try:
            values[name] = kind(text)
        except ValueError:
            expected, example = _NUMBERS[kind]
            problems.append(f"{name}: {text!r} is not {expected}. Give one such as {example}.")
    if problems:
        raise SetupError("\n".join(problems))
    return values


def watch_start_form(web_ui: Any, lead: Lead) -> None:
    """Let the start form say what is wrong: Locust would answer that all is well, and say it in its log alone."""
    views, one_at_a_time = web_ui.app.view_functions, BoundedSemaphore()
    locusts_start, locusts_stop = views["locust.swarm"], views["locust.stop"]

    def start() -> Any:
        with one_at_a_time:
            try:
                read(request.form)
            except SetupError as error:
                return refused(str(error))
            lead.take_refusal()
            answer = locusts_start()
            refusal = lead.take_refusal()
            if refusal is not None:
                gevent.joinall([lead.runner.shape_greenlet] if lead.runner.shape_greenlet else [])
                return refused(refusal)
            if lead.runner.shape_greenlet is None:  # Stop came while the target was asked for its health
                lead.stop()
                return refused("the run was stopped before it began")
            return answer

    def read(form: Mapping[str, str]) -> None:
        if lead.run is not None and lead.run.ending is not None:
            lead.run.ending.join()
        if lead.run is not None:
            raise SetupError("a run is going on, and its options cannot be changed; stop it first")
        lead.form |= read_form(form)

    def refused(message: str) -> Any:
        return {"success": False, "message": message, "host": lead.environment.host}

    def stop() -> Any:
        answer = locusts_stop()
        lead.give_up()
        return answer

    views["locust.swarm"] = web_ui.auth_required_if_enabled(start)
    views["locust.stop"] = web_ui.auth_required_if_enabled(stop)

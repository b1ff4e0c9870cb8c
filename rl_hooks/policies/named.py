"""Policies by name: the one place that knows what `--logging-policy` and its relatives may say.

text                      policy
uniform, sticky:0.5       those that log (rl_hooks.policies.builtin)
least_loaded, ...         one action, always: a strategy; an instance by its name, or instance_2 for each second one
onnx:FILE                 a trained policy
epsilon:0.1:BASE          any of these, with a share of uniform draws
module:attribute          one of your own
turns:POLICY,POLICY,...   several of these that take turns, where a whole run is decided (rl_hooks.policies.turns)
"""

from collections.abc import Callable, Sequence
from typing import Any

from rl_hooks.action_space import ALL_STRATEGIES, ActionSpace
from rl_hooks.decision import SERVICES
from rl_hooks.parts import PartError, make_part
from rl_hooks.policies.builtin import BUILTIN, EpsilonGreedy, Fixed, LoggingPolicy, PolicyError, by_service
from rl_hooks.policies.turns import RunPlan, Turns, take_turns

TURNS = "turns"
FORMS = "uniform, sticky:KEEP, an action as a fixed strategy, epsilon:EPS:POLICY, onnx:FILE or module:attribute"
"""For the help of an option."""
RUN_FORMS = f"{FORMS}, or turns:POLICY,POLICY,... of them"
"""The same, where a whole run is decided."""


def make_run_policy(text: str, plan: RunPlan, space: ActionSpace = ALL_STRATEGIES) -> LoggingPolicy | Turns:
    """Who decides in a run: the policy that `text` names, or several with a schedule for the plan.

    Raises PolicyError with all reasons why a policy cannot be made or does not fit to the plan or to the actions.
    """
    policies = make_policies(text, space)
    _told_together(lambda policy: check_fit(policy, plan.window_s, plan.decision_interval_s, space), policies)
    return take_turns(policies, plan) if _take_turns(text) else policies[0]


def make_policies(text: str, space: ActionSpace = ALL_STRATEGIES) -> list[LoggingPolicy]:
    """Everybody who is to decide in a run, as far as it can be told without a plan. Raises PolicyError."""
    if not _take_turns(text):
        return [make_policy(text, space)]
    names = text.partition(":")[2].split(",")
    if not all(names):
        raise PolicyError(f"policy {text}: names nobody in one place; write for example turns:least_loaded,round_robin")
    return _told_together(lambda name: make_policy(name, space), names)


def make_policy(text: str, space: ActionSpace = ALL_STRATEGIES) -> LoggingPolicy:
    """The policy that `text` names. Raises PolicyError with what would be right."""
    kind, colon, rest = text.partition(":")
    if kind == TURNS:
        raise PolicyError(f"policy {text}: policies take turns in a run with a plan only, and not within a policy")
    if text in space.words():
        return _fixed(text, space)
    if kind == "onnx":
        return _from_file(text, rest)
    if kind == "epsilon":
        return _exploring(text, rest, space)
    if kind in BUILTIN and colon:
        if kind != "sticky":
            raise PolicyError(f"policy {text}: {kind} takes no parameter")
        return _made(text, kind, space, _number(text, rest, "sticky:0.5"))
    return _made(text, text, space)


def check_fit(
    policy: LoggingPolicy,
    window_s: float,
    decision_interval_s: float,
    space: ActionSpace = ALL_STRATEGIES,
    features: Sequence[Any] | None = None,
) -> None:
    """Raises PolicyError with all reasons why a policy does not fit to a run with these actions and real seconds.

    A policy is a trained one when it has a `schema`. `features`: what an observation holds; None: what one holds live.
    """
    by_service(policy, space)
    schema = getattr(policy, "schema", None)
    if schema is None:
        return
    from rl_hooks.observation import features_of  # here, because it needs numpy, and most policies do not

    there = features_of(space.labels) if features is None else features
    problems: list[str] = schema.problems(space.labels, there, window_s, decision_interval_s)
    if problems:
        raise PolicyError("\n  ".join([f"policy {policy.describe()} does not fit to this run", *problems]))


def _take_turns(text: str) -> bool:
    return text.partition(":")[0] == TURNS


def _told_together(ask: Callable[[Any], Any], about: Sequence[Any]) -> list[Any]:
    """What `ask` answers for each. Raises one PolicyError with all complaints."""
    answers, complaints = [], []
    for one in about:
        try:
            answers.append(ask(one))
        except PolicyError as error:
            complaints.append(str(error))
    if complaints:
        raise PolicyError("\n".join(complaints))
    return answers


def _from_file(text: str, path: str) -> LoggingPolicy:
    if not path:
        raise PolicyError(f"policy {text}: names no file; write for example onnx:policy.onnx")
    from rl_hooks.policies.onnx import OnnxPolicy  # here, because it needs numpy, and most policies do not

    return OnnxPolicy(path)


def _fixed(text: str, space: ActionSpace) -> LoggingPolicy:
    """A strategy that the balancer does not have is told here: the policy could never be followed."""
    choices = [space.choices(service) for service in range(len(SERVICES))]
    mine = next((one for one in choices if one.index(text) is not None), choices[0])
    return Fixed(text, choices=mine)


def _exploring(text: str, rest: str, space: ActionSpace) -> LoggingPolicy:
    share, colon, base = rest.partition(":")
    example = "epsilon:0.1:backpressure"
    if not colon or not base:
        raise PolicyError(f"policy {text}: names no policy to explore around; write for example {example}")
    return EpsilonGreedy(make_policy(base, space), _number(text, share, example))


def _number(text: str, word: str, example: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise PolicyError(f"policy {text}: {word!r} is not a number; write for example {example}") from error


def _made(text: str, name: str, space: ActionSpace, *arguments: float) -> LoggingPolicy:
    # The other forms are among the names, so that a slip of the pen is told what it was meant to be.
    names = {**dict.fromkeys(space.words(), ""), "epsilon": "", "onnx": "", TURNS: "", **BUILTIN}
    needed = ("describe", "probabilities")
    try:
        made: LoggingPolicy = make_part(f"policy {text}", name, names, needed, *arguments, passes=(PolicyError,))
    except PartError as error:
        raise PolicyError(str(error)) from error
    return made

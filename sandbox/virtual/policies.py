"""Policies by name: those that log a live run, and every action as a fixed strategy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rl_hooks.decision import ACTION_INDEX, ACTIONS
from rl_hooks.policies.builtin import BUILTIN, LoggingPolicy, PolicyError
from scenario.refs import resolve


@dataclass(frozen=True)
class Fixed:
    """Always the same action: a strategy to compare with. Its data covers nothing else."""

    action: str

    def describe(self) -> str:
        return f"fixed:{self.action}"

    def probabilities(self, previous: int | None, observation: Any = None) -> Sequence[float]:
        return tuple(float(index == ACTION_INDEX[self.action]) for index in range(len(ACTIONS)))


def make_policy(text: str) -> LoggingPolicy:
    """The policy that `text` names: an action, `uniform`, `sticky:0.5`, or `module:attribute`.

    Raises PolicyError or ScenarioError with what would be right.
    """
    if text in ACTION_INDEX:
        return Fixed(text)
    name, _, parameter = text.partition(":")
    try:
        arguments = (float(parameter),) if name in BUILTIN and parameter else ()
        made: Any = resolve(name if name in BUILTIN else text, {**BUILTIN, **dict.fromkeys(ACTIONS, "")})
        policy: LoggingPolicy = made(*arguments)
    except PolicyError:
        raise
    except (ValueError, TypeError) as error:
        raise PolicyError(f"--policy {text}: {error}; write for example uniform, sticky:0.5 or {ACTIONS[0]}") from error
    lacking = [method for method in ("describe", "probabilities") if not callable(getattr(policy, method, None))]
    if lacking:
        raise PolicyError(f"--policy {text}: lacks {', '.join(lacking)}")
    return policy

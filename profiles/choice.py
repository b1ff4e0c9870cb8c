"""What a shopper wants and what it does next: draws only, no state and no clock.

The probabilities are those of `scenario.visits`, which the plan's expected request rates follow from too. Every draw
takes a number in [0, 1) from the caller's own generator, so a seed fixes every choice.
"""

import enum
from collections.abc import Mapping
from typing import TypeVar

from scenario import visits
from scenario.model import Profile

Choice = TypeVar("Choice")


class Intent(enum.Enum):
    """What a session is for. It is drawn at the start, independently of how long the session is."""

    BROWSE_ONLY = "browse_only"
    ABANDON = "abandon"
    PURCHASE = "purchase"


def draw_intent(profile: Profile, u: float) -> Intent:
    """The intent of a session of `profile` for a uniform `u` in [0, 1)."""
    return Intent(pick(visits.intents(profile), u))


def free_visit_shares(profile: Profile, phase_weights: Mapping[str, float], intent: Intent) -> dict[str, float]:
    """The probability of each user action in a free visit: profile probability times phase weight over the actions
    that the intent allows. A session for which these are all zero browses.

    The order of the keys is that of `scenario.model.USER_ACTIONS`; it is part of what a seed fixes.
    """
    weights = visits.choice_weights(profile, phase_weights)
    allowed = {action: weights[action] for action in visits.ALLOWED[intent.value] if weights[action] > 0.0}
    total = sum(allowed.values())
    return {action: weight / total for action, weight in allowed.items()} if total > 0.0 else {"browse": 1.0}


def pick(shares: Mapping[Choice, float], u: float) -> Choice:
    """The key that a uniform `u` in [0, 1) falls on when the shares stand side by side in their order.

    Keys without a share are never picked. Raises ValueError when none has one.
    """
    position = u * sum(shares.values())
    present = [(key, share) for key, share in shares.items() if share > 0.0]
    if not present:
        raise ValueError("no choice has a share above zero")
    for key, share in present:
        if position < share:
            return key
        position -= share
    return present[-1][0]  # rounding left the position at the very end

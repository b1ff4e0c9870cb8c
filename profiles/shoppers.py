"""The user classes of a scenario: one per profile, made from configuration alone.

Each class has a TaskSet of its own whose tasks are the user actions, weighted by the profile's probabilities, as
`locust --show-task-ratio` shows them. What a user does next comes from its session, which knows the phase and the
intent as well (`get_next_task`).
"""

import math
import re
import types
from collections.abc import Callable, Mapping

from locust import TaskSet

from profiles.user import ShopUser
from scenario.model import USER_ACTIONS, Profile

FINEST_SHARE = 1000
"""Probabilities are shown by whole numbers of tasks that sum to about this at most."""


class ShopperTasks(TaskSet):
    """What a shopper does: one task per page visit, chosen by the user's session."""

    user: ShopUser

    def get_next_task(self) -> Callable[["ShopperTasks"], None]:
        return TASKS[self.user.next_visit()]

    def wait(self) -> None:
        """The session waits by itself, before its next visit; this only gives way."""
        self.user.pause(0.0)


def browse(tasks: ShopperTasks) -> None:
    tasks.user.make_visit()


def search(tasks: ShopperTasks) -> None:
    tasks.user.make_visit()


def cart(tasks: ShopperTasks) -> None:
    tasks.user.make_visit()


def order(tasks: ShopperTasks) -> None:
    tasks.user.make_visit()


def profile(tasks: ShopperTasks) -> None:
    tasks.user.make_visit()


TASKS: Mapping[str, Callable[[ShopperTasks], None]] = dict(
    zip(USER_ACTIONS, (browse, search, cart, order, profile), strict=True)
)


def user_classes(profiles: Mapping[str, Profile], base: type[ShopUser] = ShopUser) -> list[type[ShopUser]]:
    """One class per profile, in the order of `profiles`, with the attribute `profile_name`.

    The name of a class is the profile's in CamelCase ("quick_browser": QuickBrowser); where two profiles would share
    one, the later gets a number.
    """
    classes: dict[str, type[ShopUser]] = {}
    for profile_name, shopper in profiles.items():
        name = _free_name(_camel_case(profile_name), classes)
        classes[name] = _user_class(name, profile_name, shopper, base)
    return list(classes.values())


def _user_class(name: str, profile_name: str, shopper: Profile, base: type[ShopUser]) -> type[ShopUser]:
    task_set = type(f"{name}Tasks", (ShopperTasks,), {"tasks": _task_counts(shopper)})
    members = {
        "profile_name": profile_name,
        "tasks": [task_set],
        "abstract": False,
        "__doc__": shopper.description,
        "__module__": base.__module__,
    }
    made: type[ShopUser] = types.new_class(name, (base,), exec_body=lambda namespace: namespace.update(members))
    return made


def _task_counts(shopper: Profile) -> dict[Callable[[ShopperTasks], None], int]:
    """Tasks and how often each is listed: whole numbers in proportion to the profile's probabilities."""
    counts = {
        TASKS[user_action]: max(1, round(probability * FINEST_SHARE))
        for user_action, probability in shopper.user_actions.items()
        if probability > 0.0
    }
    common = math.gcd(*counts.values())
    return {task: count // common for task, count in counts.items()}


def _camel_case(profile_name: str) -> str:
    name = "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", profile_name))
    return name if name[:1].isalpha() else f"Profile{name}"


def _free_name(name: str, taken: Mapping[str, object]) -> str:
    free, number = name, 2
    while free in taken:
        free, number = f"{name}{number}", number + 1
    return free

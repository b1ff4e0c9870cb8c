"""Which actions there are: what a decision chooses among, for each service. Everybody asks here, nobody counts to six.

    kind         an action is                    which exist
    strategies   one of `decision.ACTIONS`       the same for every service, some may be missing in a balancer
    instances    an instance of the service      each service's own; where it has fewer than others, a mask says so

An action's number is its position in the service's own list of names. `labels` name the numbers where services are
looked at together: the strategies, or instance_1, instance_2, ... for the first, the second ... of each service.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rl_hooks.decision import ACTIONS, MOST_ACTIONS, REQUEST_ACTION, REQUEST_PIN, SERVICES

STRATEGIES, INSTANCES = "strategies", "instances"
KINDS = (STRATEGIES, INSTANCES)
FEWEST_INSTANCES = 2


class ActionSpaceError(ValueError):
    """Actions that cannot be decided among; the message lists every reason."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What one service's decision is made among."""

    labels: tuple[str, ...]
    names: tuple[str, ...]  # the service's own, in the order of the labels; may be shorter
    available: tuple[bool, ...]  # one per label
    of_others: frozenset[str] = frozenset()  # names that only other services have

    @property
    def there(self) -> list[str]:
        """The names that can be chosen."""
        return [name for name, there in zip(self.names, self.available, strict=False) if there]

    @property
    def listed(self) -> str:
        return ", ".join(self.there)

    def index(self, name: str) -> int | None:
        """The number of an action by its name or its label; None when it does not exist here."""
        for names in (self.names, self.labels):
            if name in names and self.available[names.index(name)]:
                return names.index(name)
        return None


@dataclass(frozen=True, slots=True)
class ActionSpace:
    """See the module. `to_json` and `from_json` undo each other."""

    kind: str
    names: tuple[tuple[str, ...], ...]  # (services,) each the service's own actions by their numbers
    missing: frozenset[str] = frozenset()  # strategies that this balancer does not have
    one_for_all: bool = False  # one decision for all services

    @property
    def labels(self) -> tuple[str, ...]:
        return ACTIONS if self.kind == STRATEGIES else instance_labels(max(map(len, self.names)))

    @property
    def size(self) -> int:
        return max(map(len, self.names))

    @property
    def is_whole(self) -> bool:
        """All six strategies, decided for each service on its own."""
        return self.kind == STRATEGIES and not self.missing and not self.one_for_all

    @property
    def header(self) -> str:
        """The request header that asks for an action."""
        return REQUEST_ACTION if self.kind == STRATEGIES else REQUEST_PIN

    def name(self, service: int, action: int) -> str:
        return self.names[service][action]

    def available(self, service: int) -> tuple[bool, ...]:
        """(size,) which actions exist for a service."""
        names = self.names[service]
        return tuple(number < len(names) and names[number] not in self.missing for number in range(self.size))

    def mask(self) -> tuple[tuple[bool, ...], ...]:
        """(services, size)"""
        return tuple(self.available(service) for service in range(len(SERVICES)))

    def choices(self, service: int) -> Choices:
        mine = self.names[service]
        others = frozenset(name for names in self.names for name in names if name not in mine)
        return Choices(self.labels, mine, self.available(service), others)

    def numbers(self, names: Sequence[str], *, absent: int) -> list[list[int]]:
        """(services, names) the number of each of these instances among a service's own; `absent`: it is none of them.

        Where strategies are decided among, instances have no numbers.
        """
        if self.kind == STRATEGIES:
            return [[absent] * len(names) for _ in SERVICES]
        known = [{name: number for number, name in enumerate(mine)} for mine in self.names]
        return [[mine.get(name, absent) for name in names] for mine in known]

    def words(self) -> tuple[str, ...]:
        """Everything that names a fixed action."""
        return tuple(dict.fromkeys([*self.labels, *(name for names in self.names for name in names)]))

    def describe(self) -> list[str]:
        """What a person should know before a run, one fact a line; nothing where nothing is special."""
        lines = []
        if self.kind == INSTANCES:
            counts = ", ".join(f"{name} {len(mine)}" for name, mine in zip(SERVICES, self.names, strict=True))
            lines.append(f"actions: an instance of the service, pinned by {REQUEST_PIN} ({counts})")
        if self.missing:
            there = ", ".join(name for name in ACTIONS if name not in self.missing)
            lines.append(f"actions: {there}; not in this balancer: {', '.join(self.missing_in_order)}")
        if self.one_for_all:
            lines.append("one decision for all services: the balancer has one switch")
        return lines

    @property
    def missing_in_order(self) -> list[str]:
        return [name for name in ACTIONS if name in self.missing]

    def to_json(self) -> dict[str, Any]:
        """As `action_space` of a manifest and of dataset.json."""
        return {
            "kind": self.kind,
            "names": {service: list(names) for service, names in zip(SERVICES, self.names, strict=True)},
            "missing": self.missing_in_order,
            "one_for_all": self.one_for_all,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "ActionSpace":
        names = tuple(tuple(data["names"][service]) for service in SERVICES)
        return ActionSpace(str(data["kind"]), names, frozenset(data["missing"]), bool(data["one_for_all"]))

    @staticmethod
    def of(facts: Mapping[str, Any]) -> "ActionSpace":
        """That of a manifest or a dataset.json; one that does not say has all strategies for each service."""
        told = facts.get("action_space")
        return ALL_STRATEGIES if told is None else ActionSpace.from_json(told)


def instance_labels(count: int) -> tuple[str, ...]:
    """What the first, the second ... instance of each service are called together.

    >>> instance_labels(2)
    ('instance_1', 'instance_2')
    """
    return tuple(f"instance_{number}" for number in range(1, count + 1))


def are_instances(labels: Sequence[str]) -> bool:
    return tuple(labels) == instance_labels(len(labels))


def strategies(missing: Iterable[str] = (), *, one_for_all: bool = False) -> ActionSpace:
    """The strategies without those that are missing. Raises ActionSpaceError when there is nothing to decide."""
    missing = frozenset(missing)
    problems = [f"there is no action {name!r}; there are {', '.join(ACTIONS)}" for name in sorted(missing - {*ACTIONS})]
    left = [name for name in ACTIONS if name not in missing]
    if len(left) < 2:
        problems.append(f"of the actions {', '.join(left) or 'none'} is left, and a decision needs two or more")
    if problems:
        raise ActionSpaceError("\n".join(problems))
    return ActionSpace(STRATEGIES, (ACTIONS,) * len(SERVICES), missing, one_for_all)


def instances(names: Mapping[str, Sequence[str]]) -> ActionSpace:
    """The instances of each service (service -> names), in order of their names, numbers in them by value.

    Raises ActionSpaceError when a service has fewer than two or more than the tables hold.

    >>> instances({service: ["b10", "b9"] for service in SERVICES}).names[0]
    ('b9', 'b10')
    """
    problems = []
    for service in SERVICES:
        count = len(set(names.get(service, ())))
        if not FEWEST_INSTANCES <= count <= MOST_ACTIONS:
            problems.append(f"{service} has {count} instances, {FEWEST_INSTANCES} to {MOST_ACTIONS} are needed")
    if problems:
        raise ActionSpaceError("\n".join(problems))
    return ActionSpace(INSTANCES, tuple(tuple(sorted(set(names[service]), key=_natural)) for service in SERVICES))


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    parts: list[str] = [""]
    for letter in name:
        if parts[-1] and parts[-1].isdecimal() == letter.isdecimal():
            parts[-1] += letter
        else:
            parts.append(letter)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts[1:])


ALL_STRATEGIES = ActionSpace(STRATEGIES, (ACTIONS,) * len(SERVICES))
EVERY_STRATEGY = ALL_STRATEGIES.choices(0)

"""How a policy is trained: every number once, each with its reason. A YAML file can replace any of them."""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from scenario.errors import suggestion
from training.errors import TrainingError

ALGORITHMS = ("cql", "awac", "cloning")


@dataclass(frozen=True)
class Settings:
    """The defaults are those of docs/proof.md."""

    gamma: float = 0.9
    """Discount per decision. Ten decisions ahead is where effects of an action have been seen to end; 0.97 and more
    only add noise."""
    alpha: float = 0.1
    """Conservatism of CQL. 1 and more lose to the best fixed strategy: an exploring log needs little of it."""
    steps: int = 6_000
    """Updates per network. Much longer training loses what it has won."""
    batch: int = 256
    learning_rate: float = 3e-4
    hidden: tuple[int, ...] = (64, 64)
    """Units per layer: 27,000 transitions do not fill more."""
    target_every: int = 250
    """Updates between copies of the network to its target."""
    members: int = 3
    """Networks, each with a seed of its own, whose values are averaged: differences between actions are small, and a
    single network's errors are as large."""
    average_from: float = 1 / 3
    """Share of the updates after which weights are averaged (Polyak & Juditsky 1992)."""
    checkpoints: int = 3
    """Ends of training to choose from, by validation: evenly spaced, the last one at `steps`."""
    temperature: float = 0.3
    """Of AWAC's weights exp(advantage / temperature), advantages in standard deviations of the reward."""
    largest_weight: float = 20.0
    """Of AWAC: no transition counts for more than that many."""
    seed: int = 1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


_RANGES: dict[str, tuple[float, float]] = {
    "gamma": (0, 0.9999),
    "alpha": (0, 1e3),
    "steps": (1, 10**7),
    "batch": (1, 10**6),
    "learning_rate": (1e-9, 1),
    "target_every": (1, 10**7),
    "members": (1, 100),
    "average_from": (0, 0.99),
    "checkpoints": (1, 100),
    "temperature": (1e-3, 1e3),
    "largest_weight": (1, 1e6),
    "seed": (0, 2**31 - 1),
}


def read_settings(path: Path) -> Settings:
    """The defaults with what a YAML file replaces. Raises TrainingError with every problem of it."""
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TrainingError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(given, dict):
        raise TrainingError(f"{path}: must be a mapping like `gamma: 0.9`")
    problems = [problem for key, value in given.items() for problem in _problems(str(key), value)]
    if problems:
        raise TrainingError(
            "\n  ".join([f"{path}: {len(problems)} problem{'s' if len(problems) > 1 else ''}", *problems])
        )
    return replace(Settings(), **{key: _value(key, value) for key, value in given.items()})


def _value(key: str, value: Any) -> Any:
    return tuple(value) if key == "hidden" else type(getattr(Settings(), key))(value)


def _problems(key: str, value: Any) -> list[str]:
    names = [field.name for field in fields(Settings)]
    if key not in names:
        return [f"{key}: is not known; {suggestion(key, names)}"]
    if key == "hidden":
        if isinstance(value, list) and value and all(_is_whole(size) and 1 <= size <= 4096 for size in value):
            return []
        return [f"hidden: must be a list of whole numbers from 1 to 4096, for example [64, 64], found {value!r}"]
    low, high = _RANGES[key]
    whole = isinstance(getattr(Settings(), key), int)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and low <= value <= high and (not whole or _is_whole(value)):
        return []
    return [f"{key}: must be a {'whole ' if whole else ''}number from {low:g} to {high:g}, found {value!r}"]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

"""What a trained policy was made for: its actions, features, windows and units. A model file carries it with it.

    PolicySchema.to_metadata() --> property `rl_policy` of the ONNX file --> from_metadata(), then `problems`

A network is numbers in, numbers out: it does not notice that a feature changed its meaning or that decisions are made
four times as often as in its data. So whoever uses a policy compares the schema with what it is used for, and refuses.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

METADATA_KEY = "rl_policy"
MAX_METADATA_CHARS = 1 << 20
NEVER_MISSING = "never"
EXPORTER = "exporter"
"""Source of a feature that is made after the run, so that no policy can be given it while it decides."""

_MADE_LATER = (
    "the exporter made it after the run, and nothing makes it while a policy decides; train on a bundle that was "
    "exported without --feature, or judge on one that was exported with it"
)
_NOT_LEARNED = "the policy does not know it; export without this --feature, or train anew"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHOWN_CHARS = 60


class SchemaError(ValueError):
    """What should be a policy's schema is not one; the message lists every problem."""


class Meaning(Protocol):
    """What a feature means, as `rl_hooks.observation.Feature` states it."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def window(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def missing_when(self) -> str: ...


@dataclass(frozen=True, slots=True)
class PolicyFeature:
    """One number of the observation that a policy takes."""

    name: str
    unit: str
    window: str  # window, last5 or last1 (intervals), or now
    source: str  # client or balancer
    missing_when: str

    @staticmethod
    def of(feature: Meaning) -> "PolicyFeature":
        """The part of a feature's meaning that a policy depends on."""
        return PolicyFeature(feature.name, feature.unit, feature.window, feature.source, feature.missing_when)


@dataclass(frozen=True, slots=True)
class Normalization:
    """How the model turns raw values into its inputs; it is inside the model, here it is for whoever reads.

    As `rl_hooks.export.formats.encoding` has it, of the value within its range: (value - mean) / std with 0 where not
    known, and a column known.<name> for each feature that can be missing. Both are 0 for a feature that is not used.
    """

    columns: tuple[str, ...]  # obs.<name> of every feature, then known.<name> of those that can be missing
    mean: tuple[float, ...]  # (features,) of train
    std: tuple[float, ...]  # (features,) of train, > 0
    low: tuple[float, ...]  # (features,) smaller values count as this
    high: tuple[float, ...]  # (features,) larger values count as this
    used: tuple[float, ...]  # (features,) 1, or 0 for a feature that the model does not look at


@dataclass(frozen=True, slots=True)
class PolicySchema:
    """See the module. `to_json` and `from_json` undo each other."""

    name: str  # letters, digits and _ . -
    algorithm: str
    actions: tuple[str, ...]  # in the order of the model's values
    features: tuple[PolicyFeature, ...]  # in the order of the model's inputs
    window_s: float  # real seconds
    decision_interval_s: float  # real seconds
    normalization: Normalization
    gamma: float  # discount per decision, 0 to 1
    reward_weights: Mapping[str, float]  # component -> weight
    slo_ms: Mapping[str, float]  # service -> response time it should keep
    data: Mapping[str, str]  # file of the bundle -> its sha256
    made_by: Mapping[str, str]  # name and version of what made it

    def knew(self, feature: str) -> bool:
        """Whether train had any value of a feature: where it had none, the encoding leaves mean 0 and std 1."""
        index = [one.name for one in self.features].index(feature)
        return (self.normalization.mean[index], self.normalization.std[index]) != (0.0, 1.0)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "actions": list(self.actions),
            "features": [asdict(feature) for feature in self.features],
            "normalization": {name: list(values) for name, values in asdict(self.normalization).items()},
            **{name: dict(getattr(self, name)) for name in ("reward_weights", "slo_ms", "data", "made_by")},
        }

    @staticmethod
    def from_json(data: Any) -> "PolicySchema":
        """The schema that `to_json` wrote. Raises SchemaError with every problem: unknown, missing, out of range."""
        reader = _Reader()
        found = reader.schema(data)
        if reader.problems or found is None:
            count = len(reader.problems)
            head = f"no schema of a policy, {count} problem{'' if count == 1 else 's'}"
            raise SchemaError("\n  ".join([head, *reader.problems]))
        return found

    def to_metadata(self) -> str:
        """The text that a model file carries under METADATA_KEY."""
        return json.dumps(self.to_json(), sort_keys=True, allow_nan=False)

    @staticmethod
    def from_metadata(text: str) -> "PolicySchema":
        """The schema in a model file's property. Raises SchemaError."""
        if len(text) > MAX_METADATA_CHARS:
            raise SchemaError(
                f"{len(text)} characters are no schema of a policy; at most {MAX_METADATA_CHARS} are read"
            )
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SchemaError(f"no schema of a policy, it is not JSON ({error})") from error
        return PolicySchema.from_json(data)

    def problems(
        self, actions: Sequence[str], features: Sequence[Meaning], window_s: float, decision_interval_s: float
    ) -> list[str]:
        """Why the policy does not fit to a run with these, each with what would fit; empty: it does."""
        there = [PolicyFeature.of(feature) for feature in features]
        others = set(actions) != set(self.actions)  # each has features of its own, which would only hide why
        return [
            *self._of_actions(tuple(actions)),
            *([] if others else self._of_features(there)),
            *_of_seconds("observation window", self.window_s, window_s, "window_seconds"),
            *_of_seconds("decision interval", self.decision_interval_s, decision_interval_s, "--decision-interval"),
        ]

    def _of_actions(self, actions: tuple[str, ...]) -> list[str]:
        if actions == self.actions:
            return []
        text = f"actions: the policy chooses among {', '.join(self.actions)}; here they are {', '.join(actions)}"
        if set(actions) != set(self.actions):
            return [f"{text}; use it where its own are chosen among (--action-space), or train one for these"]
        return [f"{text}; {self._other_version()}"]

    def _of_features(self, there: Sequence[PolicyFeature]) -> list[str]:
        known = {feature.name: feature for feature in there}
        mine = {feature.name: feature for feature in self.features}
        lacking = [name for name in mine if name not in known]
        made_later = [name for name in lacking if mine[name].source == EXPORTER]
        problems = [
            f"feature {name}: the policy needs it, and it is not there" for name in lacking if name not in made_later
        ]
        more = [feature for name, feature in known.items() if name not in mine]
        problems += [f"feature {one.name}: the policy does not know it" for one in more if one.source != EXPORTER]
        for name, feature in mine.items():
            if name in known and known[name] != feature:
                one, other = asdict(feature), asdict(known[name])
                differing = [f"{key} {one[key]!r}, here {other[key]!r}" for key in one if one[key] != other[key]]
                problems.append(f"feature {name}: the policy was trained with {', '.join(differing)}")
        if not (problems or lacking or more) and list(known) != list(mine):
            problems.append("features: the policy takes the same ones in another order")
        return [
            *(f"feature {name}: {_MADE_LATER}" for name in made_later),
            *(f"feature {one.name}: {_NOT_LEARNED}" for one in more if one.source == EXPORTER),
            *(f"{problem}; {self._other_version()}" for problem in problems),
        ]

    def _other_version(self) -> str:
        return f"use it with what made it ({' '.join(self.made_by.values())}), or train it anew"


def _of_seconds(what: str, mine_s: float, there_s: float, option: str) -> list[str]:
    """Floats of two files: the same up to rounding."""
    if math.isclose(mine_s, there_s, rel_tol=1e-6):
        return []
    way_out = f"a run with {mine_s:g} s would fit (time scale and {option} decide it)"
    return [f"{what}: the policy was trained with {mine_s:g} s of real time, here it is {there_s:g} s; {way_out}"]


class _Reader:
    """Reads a schema and gathers every problem on the way."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def schema(self, data: Any) -> PolicySchema | None:
        given = self._keys("", data, PolicySchema)
        features = [self._feature(f"features[{i}]", one) for i, one in enumerate(self._list("features", given))]
        normalization = self._keys("normalization", given.get("normalization"), Normalization)
        schema = PolicySchema(
            name=self._text("name", given.get("name"), _NAME),
            algorithm=self._text("algorithm", given.get("algorithm")),
            actions=self._texts("actions", given),
            features=tuple(features),
            window_s=self._number("window_s", given.get("window_s"), _is_positive, "above 0"),
            decision_interval_s=self._number(
                "decision_interval_s", given.get("decision_interval_s"), _is_positive, "above 0"
            ),
            normalization=Normalization(
                columns=self._texts("normalization.columns", normalization),
                mean=self._numbers("normalization.mean", normalization, lambda _: True, "finite"),
                std=self._numbers("normalization.std", normalization, _is_positive, "above 0"),
                low=self._numbers("normalization.low", normalization, lambda _: True, "finite"),
                high=self._numbers("normalization.high", normalization, lambda _: True, "finite"),
                used=self._numbers("normalization.used", normalization, lambda value: value in (0, 1), "0 or 1"),
            ),
            gamma=self._number("gamma", given.get("gamma"), lambda value: 0 <= value <= 1, "from 0 to 1"),
            reward_weights=self._amounts("reward_weights", given, lambda value: value >= 0, "of 0 or more"),
            slo_ms=self._amounts("slo_ms", given, _is_positive, "above 0"),
            data=self._names("data", given, _SHA256),
            made_by=self._names("made_by", given, None),
        )
        if not self.problems:
            self._consistent(schema)
        return None if self.problems else schema

    def _consistent(self, schema: PolicySchema) -> None:
        names = [feature.name for feature in schema.features]
        for what, listed in (("actions", schema.actions), ("features", names)):
            if not listed or len(set(listed)) != len(listed):
                self.problems.append(f"{what}: names that are all different are needed, found {_shown(list(listed))}")
        can_miss = [feature.name for feature in schema.features if feature.missing_when != NEVER_MISSING]
        columns = (*(f"obs.{name}" for name in names), *(f"known.{name}" for name in can_miss))
        if schema.normalization.columns != columns:
            self.problems.append(
                "normalization.columns: obs.<name> of every feature in their order is needed, then known.<name> of "
                "those that can be missing"
            )
        for key in ("mean", "std", "low", "high", "used"):
            count = len(getattr(schema.normalization, key))
            if count != len(names):
                self.problems.append(f"normalization.{key}: {len(names)} numbers are needed, found {count}")

    def _feature(self, place: str, data: Any) -> PolicyFeature:
        given = self._keys(place, data, PolicyFeature)
        return PolicyFeature(
            **{
                field.name: self._text(f"{place}.{field.name}", given.get(field.name))
                for field in fields(PolicyFeature)
            }
        )

    def _keys(self, place: str, data: Any, kind: Any) -> Mapping[str, Any]:
        """The object's entries; what is unknown or missing is a problem. A missing one is told once, here."""
        names = [field.name for field in fields(kind)]
        if not isinstance(data, dict):
            if data is not _TOLD:
                self.problems.append(f"{place or 'the whole text'}: an object is needed, found {_shown(data)}")
            return dict.fromkeys(names, _TOLD)
        dot = f"{place}." if place else ""
        self.problems += [f"{dot}{_shown_name(name)}: is not known; leave it out" for name in data if name not in names]
        self.problems += [f"{dot}{name}: is missing" for name in names if name not in data]
        return {**dict.fromkeys(names, _TOLD), **data}

    def _list(self, key: str, given: Mapping[str, Any], place: str | None = None) -> list[Any]:
        value = given.get(key)
        if isinstance(value, list):
            return value
        self._wrong(place or key, value, "a list is needed")
        return []

    def _texts(self, place: str, given: Mapping[str, Any]) -> tuple[str, ...]:
        values = self._list(place.rpartition(".")[2], given, place)
        return tuple(self._text(f"{place}[{index}]", value) for index, value in enumerate(values))

    def _numbers(
        self, place: str, given: Mapping[str, Any], is_right: Callable[[float], bool], range_: str
    ) -> tuple[float, ...]:
        values = self._list(place.rpartition(".")[2], given, place)
        return tuple(self._number(f"{place}[{index}]", value, is_right, range_) for index, value in enumerate(values))

    def _object(self, key: str, given: Mapping[str, Any]) -> dict[str, Any]:
        value = given.get(key)
        if isinstance(value, dict) and value:
            return value
        self._wrong(key, value, "an object with entries is needed")
        return {}

    def _amounts(
        self, key: str, given: Mapping[str, Any], is_right: Callable[[float], bool], range_: str
    ) -> dict[str, float]:
        return {
            name: self._number(f"{key}.{_shown_name(name)}", value, is_right, range_)
            for name, value in self._object(key, given).items()
        }

    def _names(self, key: str, given: Mapping[str, Any], form: re.Pattern[str] | None) -> dict[str, str]:
        return {
            name: self._text(f"{key}.{_shown_name(name)}", value, form)
            for name, value in self._object(key, given).items()
        }

    def _text(self, place: str, value: Any, form: re.Pattern[str] | None = None) -> str:
        if isinstance(value, str) and value and value.isprintable() and (form is None or form.fullmatch(value)):
            return value
        needed = {None: "a text", _NAME: "a name of letters, digits and _ . -", _SHA256: "a sha256 in hex"}[form]
        self._wrong(place, value, f"{needed} is needed")
        return ""

    def _number(self, place: str, value: Any, is_right: Callable[[float], bool], range_: str) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and math.isfinite(value) and is_right(value):
            return float(value)
        self._wrong(place, value, f"a number {range_} is needed")
        return 0.0

    def _wrong(self, place: str, value: Any, needed: str) -> None:
        if value is not _TOLD:
            self.problems.append(f"{place}: {needed}, found {_shown(value)}")


_TOLD = object()
"""Stands for a value whose absence is a problem already told."""


def _is_positive(value: float) -> bool:
    return value > 0


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


def _shown_name(name: str) -> str:
    return name if name.isprintable() and len(name) <= _SHOWN_CHARS else _shown(name)

"""A trained policy from an ONNX file: the greedy choice of its action values.

    observation    float32 (batch, features)  raw physical units, NaN: not known; the model normalizes by itself
    action_values  float32 (batch, actions)   what the model expects of each action
    action         int64 (batch,)             the best one

The file carries its `rl_hooks.policy_schema.PolicySchema` as the metadata property `rl_policy`. It is not trusted: its
size is bounded, and it can make the runtime read no other file.
"""

import copy
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_hooks.action_space import EVERY_STRATEGY, Choices, instance_labels
from rl_hooks.decision import ACTIONS
from rl_hooks.observation import features_of
from rl_hooks.policies.builtin import LoggingPolicy, PolicyError
from rl_hooks.policy_schema import METADATA_KEY, Meaning, PolicySchema, SchemaError

INPUT, VALUES, ACTION = "observation", "action_values", "action"
NOT_THERE = -1e9
"""Value of an action that did not exist where the policy was trained: below all others, and a number."""
MAX_BYTES = 64 << 20  # a network for 43 features has some 100 kB
ANEW = "export it anew with the suite's training"


class OnnxPolicy:
    """A LoggingPolicy that takes the action with the highest value of those that exist, with probability 1.

    Raises PolicyError when the file is not there, is no such model, was made for other actions or features, or when
    onnxruntime is not installed.
    """

    def __init__(
        self, path: str | Path, features: Sequence[Meaning] | None = None, actions: Sequence[str] | None = None
    ) -> None:
        """`features`: what an observation holds here, in its order; None: what one holds live. `actions`: what is
        chosen among here; None: whatever the policy was trained for."""
        self.path, self._features, self._actions = Path(path), features, actions
        content = _read(self.path)
        self._session = _session(self.path, content)
        self.schema = _schema(self.path, self._session)
        self.name = f"{self.schema.name}-{hashlib.sha256(content).hexdigest()[:8]}"
        self._choices = EVERY_STRATEGY
        _check_form(self.path, self._session, len(self.schema.features), self.labels)
        self._check_fit()
        self._check_answers()

    @property
    def labels(self) -> tuple[str, ...]:
        """What it chooses among: instances where it was trained for as many, else the strategies."""
        count = len(self.schema.actions)
        return instance_labels(count) if self.schema.actions == instance_labels(count) else ACTIONS

    @property
    def features(self) -> Sequence[Meaning]:
        return features_of(self.labels) if self._features is None else self._features

    def among(self, choices: Choices) -> LoggingPolicy:
        """The best of the actions that exist there. With other actions than it was trained for `check_fit` refuses."""
        known = set(self._known)
        if len(choices.available) == len(self.labels) and not known & {*np.flatnonzero(choices.available).tolist()}:
            names = ", ".join(self.labels[number] for number in self._known)
            raise PolicyError(
                f"policy {self.describe()}: was trained to choose among {names}, and here there are {choices.listed}; "
                "train one on data of these actions"
            )
        found = copy.copy(self)
        found._choices = choices
        return found

    def describe(self) -> str:
        """`onnx:<name>-<first digits of the file's sha256>`: another training has another name."""
        return f"onnx:{self.name}"

    def probabilities(self, previous: int | None, observation: Any) -> Sequence[float]:
        """1 for the best action, 0 for the others. PolicyError when a value is not finite or nobody observes."""
        if observation is None:
            raise PolicyError(f"policy {self.describe()}: decides by observations, and nobody observes here")
        values = self.values(np.asarray(observation)[None, :])[0]
        best = int(np.where(self._choices.available, values, -np.inf).argmax())
        return tuple(float(index == best) for index in range(len(values)))

    def values(self, observations: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """(n, features) in raw units with NaN -> (n, actions). PolicyError when a value is not finite."""
        (values,) = self._run([VALUES], np.ascontiguousarray(observations, np.float32))
        if not np.isfinite(values).all():
            row = values[int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])]
            listed = ", ".join(f"{name} {value:g}" for name, value in zip(self.labels, row.tolist(), strict=True))
            raise PolicyError(f"policy {self.describe()}: its action values are not all numbers ({listed})")
        return values  # type: ignore[no-any-return]

    def _run(self, outputs: list[str], observations: npt.NDArray[np.float32]) -> list[Any]:
        try:
            found: list[Any] = self._session.run(outputs, {INPUT: observations})
        except Exception as error:  # the runtime's own errors have no base class of their own
            raise PolicyError(f"policy {self.describe()}: cannot be evaluated ({_one_line(error)})") from error
        return found

    def _check_fit(self) -> None:
        schema = self.schema
        actions = self.labels if self._actions is None else self._actions
        problems = schema.problems(actions, self.features, schema.window_s, schema.decision_interval_s)
        if problems:
            raise PolicyError("\n  ".join([f"{self.path}: does not fit to this version", *problems]))

    def _check_answers(self) -> None:
        """Nothing known and all zero: what a start and an idle system look like."""
        count = len(self.features)
        probe = np.array([[np.nan] * count, [0.0] * count], np.float32)
        values, action = self.values(probe), self._run([ACTION], probe)[0]
        self._known = np.flatnonzero((values > NOT_THERE / 2).any(axis=0)).tolist()
        if values.shape != (2, len(self.labels)) or action.tolist() != values.argmax(axis=1).tolist():
            raise PolicyError(f"{self.path}: its {ACTION} is not the one with the highest of its {VALUES}; {ANEW}")


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise PolicyError(f"{path}: there is no such file; give the ONNX file of a trained policy, as onnx:policy.onnx")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > MAX_BYTES:
        raise PolicyError(f"{path}: larger than {MAX_BYTES >> 20} MB, which no policy of this suite is; {ANEW}")
    return content


def _session(path: Path, content: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise PolicyError(
            f"{path}: a policy in an ONNX file needs onnxruntime; install the extra `serve` "
            '(pip install ".[serve]"), or run make training'
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # a network this small only waits for a second one
    options.log_severity_level = 4
    # Weights in other files are looked for below a folder that cannot exist, so a model can name none to be read.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as in `OnnxPolicy._run`
        raise PolicyError(f"{path}: not an ONNX model in one file ({_one_line(error)}); {ANEW}") from error


def _schema(path: Path, session: Any) -> PolicySchema:
    properties = session.get_modelmeta().custom_metadata_map
    if METADATA_KEY not in properties:
        raise PolicyError(
            f"{path}: lacks the metadata property {METADATA_KEY}, so nobody knows what it was trained for; {ANEW}"
        )
    try:
        return PolicySchema.from_metadata(properties[METADATA_KEY])
    except SchemaError as error:
        raise PolicyError(f"{path}: its metadata property {METADATA_KEY} is {error}") from error


def _check_form(path: Path, session: Any, width: int, labels: Sequence[str]) -> None:
    """Names, types and widths of inputs and outputs."""
    inputs: dict[str, tuple[str, int | None]] = {INPUT: ("tensor(float)", width)}
    outputs = {VALUES: ("tensor(float)", len(labels)), ACTION: ("tensor(int64)", None)}
    problems = [
        *_differences("input", session.get_inputs(), inputs),
        *_differences("output", session.get_outputs(), outputs),
    ]
    if problems:
        raise PolicyError("\n  ".join([f"{path}: is no policy of this suite; {ANEW}", *problems]))


def _differences(kind: str, there: Sequence[Any], wanted: Mapping[str, tuple[str, int | None]]) -> list[str]:
    found = {one.name: one for one in there}
    problems = [f"{kind} {name}: is not there" for name in wanted if name not in found]
    problems += [f"{kind} {name[:64]!r}: is not known" for name in found if name not in wanted]
    for name, (kind_of_value, width) in wanted.items():
        if name not in found:
            continue
        one, rank = found[name], 1 if width is None else 2
        text = f"{one.type} {one.shape}"
        if one.type != kind_of_value or len(one.shape) != rank or isinstance(one.shape[0], int):
            problems.append(
                f"{kind} {name}: is {text}; {kind_of_value} [batch{'' if width is None else f', {width}'}] is needed"
            )
        elif width is not None and isinstance(one.shape[1], int) and one.shape[1] != width:
            problems.append(f"{kind} {name}: has {one.shape[1]} columns; {width} are needed")
    return problems


def _one_line(error: Exception) -> str:
    """The runtime's messages are long and name its source files."""
    return " ".join(str(error).split())[:200]

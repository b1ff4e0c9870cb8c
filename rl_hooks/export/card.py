"""README.md of a bundle: a dataset card whose YAML header makes the folder load with `datasets.load_dataset`.

Two traps of that library: what it has read it finds again by the folder's name and a hash of this header, so without
the content's checksum in it every folder named `bundle` is the one that was read first; and it fails on a split without
rows, so an empty one is not listed.
"""

from collections.abc import Mapping
from typing import Any

from rl_hooks.export.split import TRAIN, VALIDATION

_HEADER = """\
---
pretty_name: "{name}"
task_categories:
- reinforcement-learning
tags:
- offline-rl
- load-balancing
{configs}---
"""

_CONFIGS = """\
configs:
- config_name: default
  description: content {content_sha256}
  data_files:
{splits}
"""

_BODY = """
# {name}

Transitions (observation, action, propensity, reward, next observation) of a load balancer, one row per service and
decision, recorded while {while_}.

| | |
|---|---|
{table}

## Files

| file | what |
|---|---|
| `data/transitions/train-*.parquet`, `validation-*.parquet` | transitions; a row per service and decision |
| `data/excluded/*.parquet` | the same columns and `reason`: steps that are fit for neither |
| `data/requests/requests.parquet` | every request with its names, its decision and the state at its start |
| `data/samples/samples.parquet` | what the metrics source said about each instance |
| `formats/<name>/` | other formats, where asked for, each with a `format.json` |
| `episodes.parquet` | a row per episode, with its part of the split |
| `dataset.json` | features with units and ranges, actions, rewards, split, counts, provenance, checksums |
| `normalization.json` | mean, standard deviation and ranges of every feature and of the reward, on train only |

## Reading it

```python
import pandas as pd
train = pd.read_parquet("data/transitions/train-00000-of-00001.parquet")
observation = train.filter(like="obs.").to_numpy("float32")
```

Values that were not known are NaN. Rewards judge the requests that were *sent* under a decision. Routing has no end:
`terminated` is always false, and the last step of an episode is `truncated` and has its next observation.
The split is by whole time blocks; no request is seen by both sides. Steps follow each other within an episode.
{gap}"""


def card(facts: Mapping[str, Any], content_sha256: str) -> str:
    """The card for the content of dataset.json; `content_sha256` identifies the data files."""
    scenarios = sorted({str(run["scenario"]) for run in facts["runs"]})
    counts = facts["counts"]
    rows = {
        "runs": ", ".join(f"{run['run_id']} ({run['state']})" for run in facts["runs"]),
        "transitions": ", ".join(f"{name} {number}" for name, number in counts["transitions"].items()),
        "logging policy": ", ".join(sorted({str(run["logging_policy"]) for run in facts["runs"]})),
        "propensities": _propensities(facts["propensities"]),
        "decision interval": f"{facts['decision_interval_s']:g} s",
        "rows lost": str(counts["rows_lost"]),
    }
    name = " and ".join(scenarios)
    replayed = sorted({str(run["scenario"]) for run in facts["runs"] if not run["serving"]})
    parts = [f"{' and '.join(replayed)} was replayed against it"] if replayed else []
    parts += ["a policy served somebody else's traffic"] if any(run["serving"] for run in facts["runs"]) else []
    losses = [f"- {run['run_id']}: {loss['text']}" for run in facts["runs"] for loss in run["losses"]]
    gap = "\n".join(["", "## Gaps", "", *losses, ""]) if losses else ""
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    header = _HEADER.format(name=name, configs=_configs(counts["transitions"], content_sha256))
    return header + _BODY.format(name=name, while_=" and while ".join(parts), table=table, gap=gap)


def _propensities(found: Mapping[str, Any]) -> str:
    """Whether what another policy would have earned can be estimated."""
    if found["are"] == "known" and found["stated_by"] == "the logging policy":
        return "known at every step"
    policies = ", ".join(found["policies"])
    told = {
        "known": f"known at every step, as the balancer stated them (it named {policies})",
        "some": f"known at {found['steps_with']} steps and not at {found['steps_without']}: no off-policy estimates",
        "none": "none: the balancer decided by itself and stated no probabilities, so this data serves offline RL and "
        "imitation, and no off-policy estimate can be made of it",
    }
    return told[str(found["are"])]


def _configs(transitions: Mapping[str, int], content_sha256: str) -> str:
    """What `datasets` is to read: the parts that have rows; nothing when none has."""
    parts = [name for name in (TRAIN, VALIDATION) if transitions[name]]
    splits = "\n".join(f"  - split: {name}\n    path: data/transitions/{name}-*.parquet" for name in parts)
    return _CONFIGS.format(content_sha256=content_sha256, splits=splits) if parts else ""

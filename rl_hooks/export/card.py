"""README.md of a bundle: a dataset card whose YAML header makes the folder load with `datasets.load_dataset`."""

from collections.abc import Mapping
from typing import Any

_HEADER = """\
---
pretty_name: {name}
task_categories:
- reinforcement-learning
tags:
- offline-rl
- load-balancing
configs:
- config_name: default
  data_files:
  - split: train
    path: data/transitions/train-*.parquet
  - split: validation
    path: data/transitions/validation-*.parquet
---
"""

_BODY = """
# {name}

Transitions (observation, action, propensity, reward, next observation) of a load balancer, one row per service and
decision, recorded while {scenarios} was replayed against it.

| | |
|---|---|
{table}

## Files

| file | what |
|---|---|
| `data/transitions/train-*.parquet`, `validation-*.parquet` | transitions; a row per service and decision |
| `data/excluded/*.parquet` | the same columns and `reason`: steps that are fit for neither |
| `data/requests/requests.parquet` | every request with its names, its decision and its episode |
| `episodes.parquet` | a row per episode, with its part of the split |
| `dataset.json` | features with units and ranges, actions, rewards, split, counts, provenance, checksums |
| `normalization.json` | mean, standard deviation and ranges of every feature, on train only |

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


def card(facts: Mapping[str, Any]) -> str:
    """The card for the content of dataset.json."""
    scenarios = sorted({str(run["scenario"]) for run in facts["runs"]})
    counts = facts["counts"]
    rows = {
        "runs": ", ".join(f"{run['run_id']} ({run['state']})" for run in facts["runs"]),
        "transitions": ", ".join(f"{name} {number}" for name, number in counts["transitions"].items()),
        "logging policy": ", ".join(sorted({str(run["logging_policy"]) for run in facts["runs"]})),
        "decision interval": f"{facts['decision_interval_s']:g} s",
        "rows lost": str(counts["rows_lost"]),
    }
    name = " and ".join(scenarios)
    losses = [f"- {run['run_id']}: {loss['text']}" for run in facts["runs"] for loss in run["losses"]]
    gap = "\n".join(["", "## Gaps", "", *losses, ""]) if losses else ""
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return _HEADER.format(name=name) + _BODY.format(name=name, scenarios=name, table=table, gap=gap)

"""Parquet in the columns of RLlib's offline API, one row per transition: <part>/<part>.parquet.

    eps_id, t             the episode and the step in it
    obs, new_obs          encoded observations as lists
    actions, rewards, terminateds, truncateds
    action_prob, action_logp, action_dist_inputs    propensity, its logarithm, logarithms of all six probabilities;
                                                    left out where a balancer that decides by itself states none

RLlib makes a one-step episode of every row, so `new_obs` has to be there: it is also on the last row of an episode.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rl_hooks.export.formats.flat import flat_facts
from rl_hooks.export.formats.source import Bundle, Part

Array = npt.NDArray[Any]


def write(bundle: Bundle, folder: Path) -> dict[str, Any]:
    """A folder per part, as `input_` takes folders."""
    for name, part in bundle.parts.items():
        (folder / name).mkdir()
        pq.write_table(table(part), folder / name / f"{name}.parquet", compression="zstd", compression_level=1)
    facts = flat_facts(bundle, ".parquet")
    for name, entry in facts["parts"].items():
        entry["file"] = f"{name}/{entry['file']}"
    return facts


def table(part: Part) -> pa.Table:
    """The columns of one part. A probability of 0 has the logarithm -inf, as it has to."""
    probabilities: dict[str, pa.Array] = {}
    if part.has_propensity:
        probabilities["action_prob"] = pa.array(part.propensity)
        probabilities["action_logp"] = pa.array(np.log(part.propensity))
    if part.has_distribution:
        with np.errstate(divide="ignore"):
            probabilities["action_dist_inputs"] = _lists(np.log(part.action_probs))
    return pa.table(
        {
            "eps_id": pa.array(part.frame["episode_id"].to_numpy(object), pa.string()),
            "t": pa.array(part.column("step", np.int64)),
            "obs": _lists(part.observations),
            "new_obs": _lists(part.next_observations),
            "actions": pa.array(part.actions),
            "rewards": pa.array(part.rewards),
            "terminateds": pa.array(part.column("terminated", np.bool_)),
            "truncateds": pa.array(part.column("truncated", np.bool_)),
            **probabilities,
        }
    )


def _lists(values: Array) -> pa.Array:
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))

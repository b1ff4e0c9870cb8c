"""D4RL-style flat arrays, one row per transition, and the format `npz`: <part>.npz by `numpy.savez`.

    observations (n, d)  next_observations (n, d)  actions (n,)  rewards (n,)  terminals (n,)  timeouts (n,)
    infos/propensity (n,)  infos/action_probs (n, 6)  infos/reward_<component> (n,)  infos/...

`timeouts` marks the last step of an episode; nothing terminates. Its row in `next_observations` is the observation
after it, so use that and do not shift `observations`. Not compressed: that costs fifty times as much to write.
Propensities and distributions that nobody stated are left out.
"""

from pathlib import Path
from typing import Any

import numpy as np

from rl_hooks.export.formats.source import Bundle, Part

_INFOS = {
    "decision_tick": np.int64,
    "t_s": np.float64,
    "dt_s": np.float64,
    "n_requests": np.int32,
    "n_errors": np.int32,
    "reward_filled": np.bool_,
}


def arrays(part: Part) -> dict[str, Any]:
    """The arrays of one part by name."""
    length = [episode.stop - episode.start for episode in part.episodes]
    infos = {
        **({"propensity": part.propensity} if part.has_propensity else {}),
        **({"action_probs": part.action_probs} if part.has_distribution else {}),
        **part.components,
        **{name: part.column(name, kind) for name, kind in _INFOS.items()},
        "episode": np.repeat(np.arange(len(length)), length),
    }
    return {
        "observations": part.observations,
        "next_observations": part.next_observations,
        "actions": part.actions,
        "rewards": part.rewards,
        "terminals": part.column("terminated", np.bool_),
        "timeouts": part.column("truncated", np.bool_),
        **{f"infos/{name}": values for name, values in infos.items()},
    }


def flat_facts(bundle: Bundle, suffix: str) -> dict[str, Any]:
    """What formats with one file per part and a row per transition say about themselves."""
    return {
        "observation": bundle.encoding.facts(),
        "reward": {"what": "as in the bundle, in [0, 1]", "train": bundle.statistics["reward"]},
        "parts": {
            name: {"file": f"{name}{suffix}", "rows": len(part), "episodes": len(part.episodes)}
            for name, part in bundle.parts.items()
        },
    }


def write_npz(bundle: Bundle, folder: Path) -> dict[str, Any]:
    """<part>.npz"""
    for name, part in bundle.parts.items():
        np.savez(folder / f"{name}.npz", **arrays(part))
    return flat_facts(bundle, ".npz")

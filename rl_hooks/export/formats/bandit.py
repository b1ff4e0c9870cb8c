"""Logged bandit feedback for off-policy estimates, as the Open Bandit Pipeline names it: <part>.npz with

    n_rounds, n_actions   numbers
    context (n, d)        encoded observations
    action (n,)           the action applied
    reward (n,)           in [0, 1]; some estimators need that
    pscore (n,)           its propensity, in (0, 1]
    pi_b (n, 6, 1)        the logging policy's whole distribution; the last axis is the position, of which there is one;
                          left out where a balancer that decides by itself states the action's probability alone
    episode (n,)          the episode's number: rows of one episode depend on each other, so cluster intervals by it

There is no array `position`: it is None, which npz cannot hold without pickle. `read` adds it.
Steps without a finished request have a filled reward, which is no evidence: they are left out and counted.
One-step estimates answer for one decision; where queues carry over, long-run value needs more than one step.
"""

from pathlib import Path
from typing import Any

import numpy as np

from rl_hooks.export.formats.flat import arrays
from rl_hooks.export.formats.source import Bundle, Part

NO_FINISHED_REQUEST, NO_PROPENSITY = "no_finished_request", "no_propensity"


def write(bundle: Bundle, folder: Path) -> dict[str, Any]:
    """<part>.npz"""
    parts: dict[str, dict[str, Any]] = {}
    for name, part in bundle.parts.items():
        rounds = feedback(part, len(bundle.actions))
        np.savez(folder / f"{name}.npz", **rounds)
        parts[name] = {"file": f"{name}.npz", "rows": int(rounds["n_rounds"])}
    filled = sum(int(part.column("reward_filled", np.bool_).sum()) for part in bundle.parts.values())
    left_out = sum(len(part) for part in bundle.parts.values()) - sum(entry["rows"] for entry in parts.values())
    return {
        "observation": bundle.encoding.facts(),
        "reward": {"what": "reward_01 of the bundle, in [0, 1]"},
        "parts": parts,
        "left_out": {NO_FINISHED_REQUEST: filled, NO_PROPENSITY: left_out - filled},
        "reasons": {
            NO_FINISHED_REQUEST: "their reward is filled, so they are no evidence",
            NO_PROPENSITY: "the balancer decided by itself and did not state it",
        },
        "position": "None: there is one position; read() adds it, npz cannot hold it",
    }


def feedback(part: Part, n_actions: int) -> dict[str, Any]:
    """The arrays of one part."""
    kept = ~part.column("reward_filled", np.bool_) & np.isfinite(part.propensity)
    flat = {name: values[kept] for name, values in arrays(part).items()}
    return {
        "n_rounds": np.int64(kept.sum()),
        "n_actions": np.int64(n_actions),
        "context": flat["observations"],
        "action": flat["actions"],
        "reward": part.column("reward_01", np.float32)[kept],
        "pscore": part.propensity[kept],
        **({"pi_b": part.action_probs[kept][:, :, np.newaxis]} if part.has_distribution else {}),
        "episode": flat["infos/episode"],
    }


def read(path: Path) -> dict[str, Any]:
    """The feedback dictionary that estimators take, with whole numbers as int and position None."""
    with np.load(path) as file:
        found = {name: file[name] for name in file.files}
    counts = {name: int(found.pop(name)) for name in ("n_rounds", "n_actions")}
    return {**counts, **found, "position": None}

"""The state that a decision saw, as a matrix for distances and linear models, and its clusters."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rl_hooks.report import stats
from rl_hooks.report.evidence import Array, Evidence, Floats, Ints, Mask
from rl_hooks.report.faults import Recovery, recoveries
from rl_hooks.report.thresholds import Thresholds

SEED = 20_240_501
FOLDS = 5
_FAR = 4.0  # standard deviations; a spike must not make a cluster of its own


def state_matrix(evidence: Evidence, rows: Ints, observation: Array | None = None) -> Floats:
    """(rows, columns): measurements standardized, classes as they are, unknown as the mean with a column that says so.

    Columns that never change are left out.
    """
    values = (evidence.observation if observation is None else observation)[rows].astype(np.float64)
    unknown = np.isnan(values)
    columns: list[Array] = []
    seen: set[bytes] = set()
    for index, feature in enumerate(evidence.features):
        known = values[~unknown[:, index], index]
        if len(known) and known.std() > 1e-9:
            if feature["unit"] == "one-hot":
                columns.append(np.where(unknown[:, index], known.mean(), values[:, index]))
            else:
                scaled = (values[:, index] - known.mean()) / known.std()
                columns.append(np.where(unknown[:, index], 0.0, np.clip(scaled, -_FAR, _FAR)))
        mask = unknown[:, index]
        if 0 < mask.mean() < 1 and mask.tobytes() not in seen:
            seen.add(mask.tobytes())
            columns.append(mask.astype(np.float64))
    return np.column_stack(columns) if columns else np.zeros((len(rows), 1))


def clusters(evidence: Evidence, rows: Ints, thresholds: Thresholds) -> Ints:
    """The state cluster of each row, numbered by size from 0 on."""
    wanted = max(1, min(thresholds.state_clusters, len(rows) // thresholds.cluster_steps))
    found = stats.k_means(state_matrix(evidence, rows), wanted, np.random.default_rng(SEED))
    order = np.argsort(-np.bincount(found), kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    numbered: Ints = rank[found]
    return numbered


def cell_counts(cluster: Ints, action: Ints, actions: int) -> Ints:
    """(clusters, actions) how often each action was taken in each cluster."""
    flat = np.bincount(cluster * actions + action, minlength=(int(cluster.max()) + 1) * actions)
    return flat.reshape(-1, actions).astype(np.int64)


def episode_folds(evidence: Evidence, rows: Ints) -> Ints:
    """Whole blocks of all services in one fold, so that no model is asked about a moment it has seen."""
    block = evidence.steps["run_id"].astype(str) + ":" + evidence.steps["block"].astype(str)
    _, number = np.unique(block.to_numpy(str)[rows], return_inverse=True)
    shuffled = np.random.default_rng(SEED).permutation(int(number.max()) + 1) if len(rows) else np.empty(0, np.int64)
    folds: Ints = shuffled[number] % FOLDS
    return folds


@dataclass(frozen=True)
class Case:
    """Evidence and what it is held against, with what several checks need of both."""

    evidence: Evidence
    limits: Thresholds

    @cached_property
    def cluster(self) -> Ints:
        """The state cluster of each of the evidence's judged rows."""
        return clusters(self.evidence, self.evidence.judged, self.limits)

    @cached_property
    def cells(self) -> Ints:
        """(clusters, actions) judged steps."""
        return cell_counts(self.cluster, self.evidence.action[self.evidence.judged], len(self.evidence.labels))

    @cached_property
    def possible(self) -> Mask:
        """(clusters, actions) which actions existed for a service of the cluster."""
        found = np.zeros(self.cells.shape, bool)
        np.logical_or.at(found, self.cluster, self.evidence.mask[self.evidence.judged])
        return found

    @cached_property
    def residual(self) -> Floats:
        """(n,) the reward less its mean in the episode, without the drift that no action made; 0 where not judged."""
        judged, episode = self.evidence.judged, self.evidence.episode
        count = np.bincount(episode[judged], minlength=len(episode))
        total = np.bincount(episode[judged], self.evidence.reward[judged], len(episode))
        mean = total / np.maximum(count, 1)
        left = np.zeros(len(episode))
        left[judged] = self.evidence.reward[judged] - mean[episode[judged]]
        return left

    @cached_property
    def recoveries(self) -> list[Recovery]:
        """How every fault of every run ended."""
        return [item for part in self.evidence.recorded for item in recoveries(part, self.limits)]

    @cached_property
    def episode_steps(self) -> float:
        """Steps of the median usable episode."""
        usable = self.evidence.usable
        lengths = np.unique(self.evidence.episode[usable], return_counts=True)[1]
        return float(np.median(lengths)) if len(lengths) else 0.0

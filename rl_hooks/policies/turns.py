"""Policies that take turns within one run, so that they meet the same hours, load and faults.

    phase      |------------ lunch ------------|-------- evening --------|
    fault                   xxxxx
    block      |--- 0 ---|--- 1 ---|---- 2 ----|--- 3 ---|------ 4 ------|    at least five observation windows each
    stratum       lunch   lunch, x     lunch     evening      evening
    in turn         B         A          A          B            A

Whose turn it is, is decided before the run by sequential minimization (Taves 1974; Pocock & Simon 1975): a block goes
to the policy with the fewest blocks in its stratum (a phase, with or without a fault), among those to the one with the
fewest overall, among those to another one than the block before; chance, from the run's seed, decides between equals.
So within a stratum no policy ever has two blocks more than another, and overall hardly more (tests hold it to two).
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from random import Random
from typing import Any, Protocol

from rl_hooks.policies.builtin import LoggingPolicy, PolicyError

BLOCK_WINDOWS = 5
"""Observation windows in a block: the first one still sees what the policy before did, four remain to be judged."""


class RunPlan(Protocol):
    """What has to be known of a run, as `scenario.plan.Plan` knows it."""

    @property
    def seed(self) -> int: ...
    @property
    def window_s(self) -> float: ...
    @property
    def decision_interval_s(self) -> float: ...
    def phase_at(self, t_s: float) -> Any:
        """Something with a `name` of its own; None when the run is over."""

    def faults_at(self, t_s: float) -> Sequence[Any]:
        """What is broken at that time, each with a `text`."""


@dataclass(frozen=True)
class Block:
    """A stretch of a run that belongs to one policy. Ticks are decision intervals from the start of the run."""

    first_tick: int
    last_tick: int  # inclusive
    phase: str
    faults: tuple[str, ...]  # planned to be in force at any of the ticks

    @property
    def stratum(self) -> tuple[str, bool]:
        return self.phase, bool(self.faults)


@dataclass(frozen=True)
class Turns:
    """Policies with the blocks that are theirs: `order[i]` is the place of the policy of block i."""

    policies: tuple[LoggingPolicy, ...]
    blocks: tuple[Block, ...]
    order: tuple[int, ...]

    def describe(self) -> str:
        return f"turns:{','.join(self._names)}"

    def at(self, tick: int) -> LoggingPolicy:
        """The policy in turn. A timer that fires early at the end of a run asks once more: the last block goes on."""
        return self.policies[self.order[bisect_right(self._starts, tick) - 1]]

    def to_json(self) -> list[dict[str, Any]]:
        """The blocks, as `turns` of a run's manifest."""
        return [
            {
                "block": number,
                "first_tick": block.first_tick,
                "last_tick": block.last_tick,
                "policy": self._names[place],
                "phase": block.phase,
                "faults": list(block.faults),
            }
            for number, (block, place) in enumerate(zip(self.blocks, self.order, strict=True))
        ]

    def summary(self) -> str:
        """For a person, before the run."""
        blocks = Counter(self.order)
        shares = ", ".join(f"{name} {blocks[place]}" for place, name in enumerate(self._names))
        return f"{len(self.blocks)} blocks in {len({block.stratum for block in self.blocks})} strata: {shares}"

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(policy.describe() for policy in self.policies)

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        return tuple(block.first_tick for block in self.blocks)


def take_turns(policies: Sequence[LoggingPolicy], plan: RunPlan) -> Turns:
    """Policies with a schedule for the plan. Raises PolicyError with all reasons why there can be none."""
    names = [policy.describe() for policy in policies]
    blocks = tuple(cut(plan))
    problems = [] if len(names) > 1 else ["one policy has nobody to take turns with; name at least two"]
    problems += [f"{name} is named twice; name it once" for name, times in Counter(names).items() if times > 1]
    if len(blocks) < len(names):
        problems.append(
            f"blocks of at least {BLOCK_WINDOWS} windows of {plan.window_s:g} s: the run has {len(blocks)}, and there "
            f"are {len(names)} policies; make the run longer or window_seconds shorter"
        )
    if problems:
        raise PolicyError("\n  ".join([f"policy turns:{','.join(names)}", *problems]))
    order = deal([block.stratum for block in blocks], len(policies), Random(f"{plan.seed}/turns"))
    return Turns(tuple(policies), blocks, tuple(order))


def block_ticks(window_s: float, decision_interval_s: float, windows: int = BLOCK_WINDOWS) -> int:
    """The fewest whole decision intervals that last so many windows.

    >>> block_ticks(60, 2), block_ticks(4, 0.3, 1)
    (150, 14)
    """
    return math.ceil(windows * window_s / decision_interval_s - 1e-9)  # floats: 0.6 / 0.2 is a little more than 3


def cut(plan: RunPlan) -> Iterator[Block]:
    """The blocks of a run, in order: every tick is in one of them, and none crosses the end of a phase.

    What a phase has left over belongs to its last block; a phase shorter than a block is one block.
    """
    length, tick = block_ticks(plan.window_s, plan.decision_interval_s), 0
    for name, ticks in groupby(_phases(plan)):
        end = tick + len(list(ticks))
        parts = max(1, (end - tick) // length)
        starts = [*(tick + part * length for part in range(parts)), end]
        for start, after in pairwise(starts):
            yield Block(start, after - 1, name, _faults(plan, range(start, after)))
        tick = end


def deal(strata: Sequence[Any], policies: int, rng: Random) -> Iterator[int]:
    """Whose block each is, from 0 on, given the strata of the blocks in order of time; see the module.

    >>> list(deal(["a", "a", "a", "b"], 2, Random(1)))
    [0, 1, 0, 1]
    """
    within: Counter[tuple[Any, int]] = Counter()
    overall: Counter[int] = Counter()
    before = -1
    for stratum in strata:
        ranks = [(within[stratum, one], overall[one], one == before) for one in range(policies)]
        best = min(ranks)
        before = rng.choice([one for one, rank in enumerate(ranks) if rank == best])
        within[stratum, before] += 1
        overall[before] += 1
        yield before


def _phases(plan: RunPlan) -> Iterator[str]:
    """The phase of every tick."""
    tick = 0
    while (phase := plan.phase_at(tick * plan.decision_interval_s)) is not None:
        yield phase.name
        tick += 1


def _faults(plan: RunPlan, ticks: range) -> tuple[str, ...]:
    texts = [fault.text for tick in ticks for fault in plan.faults_at(tick * plan.decision_interval_s)]
    return tuple(dict.fromkeys(texts))


def turns_facts(policy: LoggingPolicy | Turns) -> dict[str, Any]:
    """What the manifest of a run says about turns; nothing where one policy decides at all times."""
    return {"turns": policy.to_json()} if isinstance(policy, Turns) else {}

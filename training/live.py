"""`python -m training.live RUN [RUN ...]`: policies that took turns within live or virtual runs, compared.

    manifest: turns --> blocks, without their first window --> measures of each --> policy + stratum + chance

The first window of a block is left out, decisions and the requests sent under them alike: the policy before still acts
in queues and in what is observed. A stratum is a phase of a run, with or without a fault, as turns were dealt out by;
so load and faults are in every policy's numbers alike, or in nobody's difference. Printed, and written as live.json
with two pictures: docs/evaluate.md.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rl_hooks.action_space import ActionSpace
from rl_hooks.export.bundle import write_json
from rl_hooks.export.errors import ExportError
from rl_hooks.policies.turns import block_ticks
from rl_hooks.run_folder import RunFolderError, read_manifest
from scenario.errors import ScenarioError
from training import pictures, tables
from training.comparison import Blocks, Comparison, Fit, by_blocks
from training.errors import TrainingError
from training.outcome import Outcome, read_outcome

EXIT_OK, EXIT_REFUSED = 0, 2
REPORT, DIFFERENCES, BLOCKS = "live.json", "live_differences.svg", "live_blocks.svg"
PICTURED = "reward"
LEAST_DEGREES = 4
"""Of freedom: with 4, an interval is 2.8 standard errors to each side instead of 2; with 1 it is 12.7."""


@dataclass(frozen=True)
class Turn:
    """A block of a run, with what came of it after its first window."""

    run: str
    policy: str
    phase: str
    fault: bool
    start_s: float  # of the plan, with the first window
    end_s: float
    measures: Mapping[str, float]
    actions: Sequence[int]  # (actions,) decisions that took each action
    by_others: int  # decisions that another policy stated than the one in turn

    @property
    def stratum(self) -> tuple[str, str, bool]:
        return self.run, self.phase, self.fault


def compare(paths: Sequence[Path], policy: str | None) -> tuple[Comparison, list[Turn]]:
    """The chosen policy against each other one, and the blocks. Raises TrainingError with all reasons why not."""
    manifests = _manifests(paths)
    chosen = _chosen(manifests, policy)
    turns = [turn for path in paths for turn in read_turns(path, manifests[path])]
    others = [name for name in dict.fromkeys(turn.policy for turn in turns) if name != chosen]
    policies = [chosen, *others]
    measures = list(turns[0].measures)
    blocks = {name: _blocks(turns, policies, name) for name in measures}
    fits = {name: by_blocks(one, len(policies)) for name, one in blocks.items()}
    _refuse_what_tells_nothing(fits["reward"], policies)
    comparison = Comparison(
        chosen=chosen,
        values={name: {measure: fits[measure].value(at) for measure in measures} for at, name in enumerate(policies)},
        differences={
            name: {measure: fits[measure].difference(0, at) for measure in measures}
            for at, name in enumerate(policies)
            if at > 0
        },
        about=_about(turns, manifests, policies),
        notes=_notes(turns, fits["reward"], policies),
        shares=_shares(turns, policies),
        actions=ActionSpace.of(manifests[paths[0]]).labels,
    )
    return comparison, turns


def read_turns(path: Path, manifest: Mapping[str, Any]) -> list[Turn]:
    """The blocks of a run folder, in order. Raises ExportError, RunFolderError or ScenarioError."""
    outcome, run = read_outcome(path), str(manifest["run_id"])
    skipped, size = _skipped_ticks(manifest), ActionSpace.of(manifest).size
    return [_turn(run, row, outcome, skipped, size) for row in manifest["turns"]]


def _turn(run: str, row: Mapping[str, Any], outcome: Outcome, skipped: int, n_actions: int) -> Turn:
    part = outcome.of_ticks(np.arange(row["first_tick"] + skipped, row["last_tick"] + 1))
    decisions = part.decisions
    return Turn(
        run=run,
        policy=row["policy"],
        phase=row["phase"],
        fault=bool(row["faults"]),
        start_s=row["first_tick"] * outcome.interval_s,
        end_s=(row["last_tick"] + 1) * outcome.interval_s,
        measures=part.measures(),
        actions=np.bincount(decisions["action"], minlength=n_actions).tolist(),
        by_others=int((decisions["policy_version"] != row["policy"]).sum()),
    )


def _skipped_ticks(manifest: Mapping[str, Any]) -> int:
    plan = manifest["plan"]
    return block_ticks(plan["window_s"], plan["decision_interval_s"], windows=1)


def _blocks(turns: Sequence[Turn], policies: Sequence[str], measure: str) -> Blocks:
    return Blocks(
        policy=np.array([policies.index(turn.policy) for turn in turns], np.int64),
        stratum=pd.factorize(pd.Index([turn.stratum for turn in turns], tupleize_cols=False))[0].astype(np.int64),
        value=np.array([turn.measures[measure] for turn in turns], np.float64),
    )


# -- what is refused -------------------------------------------------------------------------------------------------


def _manifests(paths: Sequence[Path]) -> dict[Path, dict[str, Any]]:
    """Of runs that can be compared."""
    manifests, problems = {}, []
    seen: dict[str, Path] = {}
    for path in paths:
        try:
            manifest = read_manifest(path)
        except RunFolderError as error:
            problems.append(str(error))
            continue
        run = str(manifest["run_id"])
        if run in seen:
            problems.append(f"{path}: run {run} is given as {seen[run]} too; give it once")
        seen[run] = path
        if not manifest.get("turns"):
            problems.append(
                f"{path}: nobody took turns in it; record one with --logging-policy turns:POLICY,POLICY,..."
            )
        manifests[path] = manifest
    weights = {path: one["plan"]["scenario"]["reward_weights"] for path, one in manifests.items()}
    spaces = {path: ActionSpace.of(one) for path, one in manifests.items()}
    first = next(iter(weights), None)
    problems += [
        f"{path}: other reward weights than {first}; compare them one by one"
        for path in weights
        if weights[path] != weights[first]  # type: ignore[index]
    ]
    # Uniform, sticky and trained policies have one name whatever there is to choose among.
    problems += [
        f"{path}: other actions than {first}; compare them one by one"
        for path in spaces
        if spaces[path] != spaces[first]  # type: ignore[index]
    ]
    if problems:
        raise TrainingError("; ".join(problems))
    return manifests


def _chosen(manifests: Mapping[Path, Mapping[str, Any]], policy: str | None) -> str:
    """The full name of the policy that is to be compared, which every run has."""
    names = {path: list(dict.fromkeys(row["policy"] for row in one["turns"])) for path, one in manifests.items()}
    everyone = list(dict.fromkeys(name for found in names.values() for name in found))
    if policy is None:
        trained = [name for name in everyone if "onnx" in name.split(":")]
        if not trained:
            raise TrainingError(f"no trained policy among {', '.join(everyone)}; name one of them with --policy")
        policy = trained[0]
    elif any(policy in ActionSpace.of(one).words() for one in manifests.values()):
        policy = f"fixed:{policy}"
    missing = [
        f"{path}: {policy} is not among {', '.join(found)}" for path, found in names.items() if policy not in found
    ]
    if missing:
        raise TrainingError(f"{'; '.join(missing)}; name a policy of every run with --policy, or leave runs out")
    return policy


def _refuse_what_tells_nothing(fit: Fit, policies: Sequence[str]) -> None:
    problems = []
    if fit.degrees < LEAST_DEGREES:
        problems.append(
            f"blocks with a measured reward {len(fit.blocks.value)}, strata {len(set(fit.blocks.stratum.tolist()))}, "
            f"so degrees of freedom for chance {fit.degrees}, and {LEAST_DEGREES} are needed"
        )
    if not any(fit.meets(0, other) for other in range(1, len(policies))):
        problems.append(f"{policies[0]} never had a block in a stratum in which another policy had one")
    if problems:
        raise TrainingError(f"too few blocks: {'; '.join(problems)}; record longer, or give more runs")


# -- what is told ----------------------------------------------------------------------------------------------------


def _about(
    turns: Sequence[Turn], manifests: Mapping[Path, Mapping[str, Any]], policies: Sequence[str]
) -> dict[str, Any]:
    blocks = Counter(turn.policy for turn in turns)
    return {
        "runs": [str(one["run_id"]) for one in manifests.values()],
        "blocks": {name: blocks[name] for name in policies},
        "strata": len({turn.stratum for turn in turns}),
        "left_out": f"the first window of every block, {_range(map(_skipped_ticks, manifests.values()))} decisions",
        "model": "value of a block = policy + stratum (run, phase, fault or not); every block is one observation",
    }


def _range(numbers: Iterable[int]) -> str:
    return " or ".join(map(str, sorted(set(numbers))))


def _notes(turns: Sequence[Turn], fit: Fit, policies: Sequence[str]) -> list[str]:
    notes = [
        f"{policies[0]} and {name} never had blocks in one stratum, nor each with a third policy: "
        "their difference cannot be told"
        for at, name in enumerate(policies)
        if at > 0 and not fit.meets(0, at)
    ]
    empty = sum(not sum(turn.actions) for turn in turns)
    if empty:
        notes.append(
            f"blocks without a decision after their first window: {empty} (too short, or the run ended before)"
        )
    by_others = sum(turn.by_others for turn in turns)
    if by_others:
        share = by_others / sum(sum(turn.actions) for turn in turns)
        notes.append(
            f"{by_others} decisions ({share:.1%}) were not stated by the policy in turn; they count as its own"
        )
    return notes


def _shares(turns: Sequence[Turn], policies: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How often each policy took each action, by phase; phases without a decision of it are left out."""
    counts: dict[str, dict[str, Any]] = {name: {} for name in policies}
    for turn in turns:
        if sum(turn.actions):
            of_policy = counts[turn.policy]
            of_policy[turn.phase] = of_policy.get(turn.phase, 0) + np.array(turn.actions)
    return {name: {phase: one / one.sum() for phase, one in phases.items()} for name, phases in counts.items()}


def spans(turns: Sequence[Turn], measure: str) -> list[pictures.Span]:
    """The blocks for the picture: runs stand one after the other."""
    found, offset_s, several = [], 0.0, len({turn.run for turn in turns}) > 1
    for before, turn in zip([None, *turns], turns, strict=False):
        if before is not None and before.run != turn.run:
            offset_s += before.end_s
        is_new = before is None or (before.run, before.phase) != (turn.run, turn.phase)
        name = f"{turn.run}: {turn.phase}" if several else turn.phase
        start_min, end_min = ((offset_s + t_s) / 60 for t_s in (turn.start_s, turn.end_s))
        begins = name if is_new else ""
        found.append(pictures.Span(turn.policy, start_min, end_min, turn.measures[measure], begins, turn.fault))
    return found


def write(comparison: Comparison, turns: Sequence[Turn], out: Path) -> list[Path]:
    """The files, in the order of the module's docstring. Raises OSError."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = {
        DIFFERENCES: pictures.differences(comparison, PICTURED),
        BLOCKS: pictures.blocks(spans(turns, PICTURED), list(comparison.values), PICTURED),
    }
    write_json(out / REPORT, tables.to_json(comparison))
    for name, text in drawn.items():
        (out / name).write_text(text, encoding="utf-8")
    return [out / name for name in (REPORT, *drawn)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: compared; 2: refused, with one message."""
    options = _parser().parse_args(arguments)
    out = options.out if options.out is not None else options.runs[0]
    try:
        comparison, turns = compare(options.runs, options.policy)
        files = write(comparison, turns, out)
    except (TrainingError, ExportError, RunFolderError, ScenarioError) as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{out}: cannot be written ({error.strerror or error}); choose another place with --out")
    print("\n".join([*tables.lines(comparison), "", *(f"written  {path}" for path in files)]))
    return EXIT_OK


def _refuse(message: str) -> int:
    print(f"live: {message}", file=sys.stderr)
    return EXIT_REFUSED


def _parser() -> argparse.ArgumentParser:
    about = "Compare policies that took turns within runs."
    parser = argparse.ArgumentParser(prog="python -m training.live", description=about)
    parser.add_argument(
        "runs", metavar="RUN", type=Path, nargs="+", help="a run folder, recorded with turns:POLICY,..."
    )
    parser.add_argument(
        "--policy", metavar="NAME", help="who is compared with the others (default: the first onnx one)"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help=f"where to write {REPORT} and pictures (default: first RUN)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

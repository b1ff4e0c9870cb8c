"""`python -m training.judge POLICY BUNDLE ...`: what a policy would earn, from data that another policy logged.

POLICY is an action (a fixed strategy), `uniform`, or the file of an ONNX policy. Every estimator says which question it
answers and whether its answer deserves belief: docs/off-policy.md. Printed, and written as judge.json: the policy's
estimates, those of all fixed strategies, and how far the policy is from the best of them, paired by step.
"""

import argparse
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rl_hooks.export.bundle import write_json
from rl_hooks.export.errors import ExportError
from rl_hooks.export.split import VALIDATION
from rl_hooks.report.errors import ReportError
from training import estimators
from training.errors import TrainingError
from training.estimators import Estimate, Limits, Log
from training.evidence import PARTS, Evidence, read
from training.targets import NAMES, UNIFORM, check_fit, names_in, target_probabilities

EXIT_OK, EXIT_REFUSED = 0, 2
BACK = (2, 3)  # actions that partial histories look back
REPORT = "judge.json"


class Answer(Protocol):
    """An estimate before its interval; differences are taken between two answers of the same estimator."""

    @property
    def value(self) -> float: ...

    def minus(self, other: Any) -> "Answer": ...

    def estimate(self, log: Log, limits: Limits, carry_over: int | None) -> Estimate: ...


@dataclass(frozen=True)
class Judgement:
    """Everything that is printed and written."""

    policy: str
    part: str
    evidence: Evidence
    logged: Estimate
    estimates: Mapping[str, tuple[Estimate, ...]]  # policy -> one per estimator; the judged one, fixed ones, uniform
    against_fixed: tuple[tuple[str, Estimate], ...]  # per estimator: the best other fixed strategy, the policy less it
    against_uniform: tuple[Estimate, ...]  # per estimator: the policy less uniform

    def to_json(self) -> dict[str, Any]:
        log = self.evidence.log
        return {
            "policy": self.policy,
            "part": self.part,
            "runs": list(self.evidence.runs),
            "logging_policies": list(self.evidence.logging_policies),
            "steps": len(log),
            "measured_steps": int(log.measured.sum()),
            "time_blocks": _blocks(log),
            "carry_over_steps": self.evidence.carry_over,
            "interval": "95 %, clustered by time block of a run, with all its services",
            "logged": _json(self.logged),
            "estimates": {name: [_json(one) for one in found] for name, found in self.estimates.items()},
            "against_best_fixed": [{"fixed": fixed, **_json(one)} for fixed, one in self.against_fixed],
            "against_uniform": [_json(one) for one in self.against_uniform],
        }


def judge(policy: str, paths: Sequence[Path], part: str, with_model: bool = True) -> Judgement:
    """Judge a policy on a part of some bundles. Raises TrainingError, ExportError or ReportError with the way out."""
    if with_model and importlib.util.find_spec("torch") is None:
        raise TrainingError("fitted Q evaluation needs torch: install the extra `train`, or leave it out with --no-fqe")
    evidence = read(paths, part)
    check_fit(policy, evidence.window_s, evidence.decision_interval_s, evidence.space, evidence.features)
    names = names_in(evidence.space)
    answers = _answers(list(dict.fromkeys((policy, *names))), evidence, with_model)

    def told(answer: Answer) -> Estimate:
        return answer.estimate(evidence.log, Limits(), evidence.carry_over)

    mine = answers[policy]
    fixed = [name for name in names if name not in (policy, UNIFORM)]
    best = [_best({name: answers[name][number] for name in fixed}) for number in range(len(mine))]
    return Judgement(
        policy,
        part,
        evidence,
        told(estimators.logged_mean(evidence.log)),
        {name: tuple(told(answer) for answer in found) for name, found in answers.items()},
        tuple((name, told(one.minus(other))) for one, (name, other) in zip(mine, best, strict=True)),
        tuple(told(one.minus(other)) for one, other in zip(mine, answers[UNIFORM], strict=True)),
    )


def _best(answers: Mapping[str, Answer]) -> tuple[str, Answer]:
    """An action that was never taken has no value, and is not the best."""
    return max(answers.items(), key=lambda item: item[1].value if np.isfinite(item[1].value) else -np.inf)


def _answers(policies: Sequence[str], evidence: Evidence, with_model: bool) -> dict[str, list[Answer]]:
    """policy -> what each estimator says, in the same order for all."""
    log = evidence.log
    predicted = estimators.reward_model(evidence.observations, log)
    answers: dict[str, list[Answer]] = {}
    for policy in policies:
        target = target_probabilities(policy, evidence.raw, evidence.space, evidence.service, evidence.features)
        answers[policy] = [
            estimators.ips(log, target),
            estimators.snips(log, target),
            estimators.doubly_robust(log, target, predicted),
            *(estimators.partial_history(log, target, back) for back in BACK),
        ]
        if with_model:
            from training import fqe  # torch takes seconds to load, and may not be there

            known = evidence.space, evidence.service, evidence.features
            after = target_probabilities(policy, evidence.next_raw, *known)
            here, there = evidence.observations, evidence.next_observations
            answers[policy].append(fqe.fitted_q(here, there, log, target, after, fqe.Settings()))
    return answers


def _blocks(log: Log) -> int:
    return len(np.unique(log.cluster[log.measured]))


def _json(one: Estimate) -> dict[str, Any]:
    numbers = {"value": one.value, "low": one.low, "high": one.high, "effective_sample_size": one.effective_sample_size}
    finite = {name: float(number) if np.isfinite(number) else None for name, number in numbers.items()}
    return {
        "name": one.name,
        "question": one.question,
        **finite,
        "trusted": one.trusted,
        "distrust": list(one.distrust),
    }


# -- on the console --------------------------------------------------------------------------------------------------

HEAD = f"{'estimator':<21} {'answers':<10} {'value':>7}  {'95 % interval':<18} {'ESS':>6}  trusted"


def lines(found: Judgement) -> list[str]:
    """What a person reads."""
    return [*_about(found), "", *_policy_table(found), "", *_fixed_table(found), "", *_differences(found)]


def _about(found: Judgement) -> list[str]:
    evidence, log = found.evidence, found.evidence.log
    seen = "" if found.part == VALIDATION else "; too good for a policy that was trained on train"
    origin = f"{', '.join(evidence.runs)}, logged by {', '.join(evidence.logging_policies)}"
    lag = "cannot be told" if evidence.carry_over is None else f"{evidence.carry_over} steps (as in the report card)"
    return [
        f"policy      {found.policy}",
        f"data        {found.part} of {origin}{seen}",
        f"            {len(log)} steps, {int(log.measured.sum())} with a measured reward, {_blocks(log)} time blocks",
        f"carry-over  {lag}; one-step answers leave out what an action does later",
        "intervals   95 %, clustered by time block of a run with all its services",
    ]


def _policy_table(found: Judgement) -> list[str]:
    return [HEAD, *(_row(one) for one in (found.logged, *found.estimates[found.policy]))]


def _row(one: Estimate) -> str:
    trust = "yes" if one.trusted else "no: " + "; ".join(one.distrust)
    interval = f"{one.low:.4f} to {one.high:.4f}" if np.isfinite(one.low) else "-"
    value = f"{one.value:.4f}" if np.isfinite(one.value) else "-"
    return f"{one.name:<21} {one.question:<10} {value:>7}  {interval:<18} {one.effective_sample_size:>6.0f}  {trust}"


def _fixed_table(found: Judgement) -> list[str]:
    """All fixed strategies and uniform by every estimator."""
    width = {one.name: max(len(one.name), 8) for one in found.estimates[UNIFORM]}
    rows = [
        f"{policy:<18}" + "".join(f"  {_marked(one):>{width[one.name]}}" for one in found.estimates[policy])
        for policy in names_in(found.evidence.space)
    ]
    head = f"{'fixed strategy':<18}" + "".join(f"  {name:>{wide}}" for name, wide in width.items())
    return [head, *rows, "? not to be trusted, judge.json says why"]


def _marked(one: Estimate) -> str:
    value = f"{one.value:.4f}" if np.isfinite(one.value) else "-"
    return value + (" " if one.trusted else "?")


def _differences(found: Judgement) -> list[str]:
    """The best fixed strategy is picked by its estimate, which flatters it."""
    rows = []
    for (fixed, against), uniform in zip(found.against_fixed, found.against_uniform, strict=True):
        trust = "" if against.trusted and uniform.trusted else "  ?"
        rows.append(f"{against.name:<21} {against.question:<10} {_signed(uniform)}  {_signed(against)}  {fixed}{trust}")
    head = f"{'differences, paired':<32} {'less uniform':<28}  less the best other fixed strategy"
    return [head, *rows]


def _signed(one: Estimate) -> str:
    return f"{one.value:+.4f} ({one.low:+.4f} to {one.high:+.4f})" if np.isfinite(one.low) else f"{'-':<28}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: judged; 2: refused, with one message."""
    options = _parser().parse_args(arguments)
    out = options.out if options.out is not None else options.bundles[0]
    try:
        found = judge(options.policy, options.bundles, options.part, not options.no_fqe)
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / REPORT, found.to_json())
    except (TrainingError, ExportError, ReportError) as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{out}: cannot be written ({error.strerror or error}); choose another place with --out")
    print("\n".join([*lines(found), "", f"written     {out / REPORT}"]))
    return EXIT_OK


def _refuse(message: str) -> int:
    print(f"judge: {message}", file=sys.stderr)
    return EXIT_REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.judge", description="Judge a policy on logged data.")
    parser.add_argument("policy", metavar="POLICY", help=f"{', '.join(NAMES)}, or the file of an ONNX policy")
    parser.add_argument("bundles", metavar="BUNDLE", type=Path, nargs="+", help="the folder of a bundle")
    parser.add_argument("--part", choices=PARTS, default=VALIDATION, help="which steps (default: %(default)s)")
    parser.add_argument("--no-fqe", action="store_true", help="leave out fitted Q evaluation, which needs torch")
    parser.add_argument("--out", metavar="DIR", type=Path, help=f"where to write {REPORT} (default: the first bundle)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

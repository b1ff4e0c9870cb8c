"""`python -m rl_hooks.record.conformance --host URL` says how well a balancer keeps the contract.

It asks with harmless requests and changes nothing; docs/balancers.md says what every part is for.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rl_hooks.conformance.facts import CONTRACT, Facts
from rl_hooks.conformance.judge import Finding, Kept, Need, broken, judge
from rl_hooks.conformance.probe import look
from rl_hooks.target import TargetError, root_of
from scenario.errors import bare

EXIT_OK, EXIT_NOT_KEPT, EXIT_BAD_INPUT = 0, 1, 2
_SHOWN_CHARS = 300


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: every required part is kept; 1: one is not; 2: bad input, or nobody answers."""
    parser = argparse.ArgumentParser(
        prog="python -m rl_hooks.record.conformance", description="How well a balancer keeps the contract."
    )
    parser.add_argument("--host", required=True, metavar="URL", help="the target, as a run is given it")
    parser.add_argument("--metrics", metavar="URL", help="the balancer's metrics, where they are not at its root")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the findings there too")
    parser.add_argument(
        "--steered",
        choices=("header", "otherwise"),
        default="header",
        help="otherwise: by an admin call, by runtime, or it decides by itself; then it need not obey X-RL-Action",
    )
    options = parser.parse_args(arguments)
    try:
        facts = _look(options)
        findings = judge(facts, steered_by_header=options.steered == "header")
        if options.json is not None:
            _write(options.json, facts, findings)
    except TargetError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_INPUT
    print("\n".join(report(facts, findings)))
    return EXIT_NOT_KEPT if broken(findings) else EXIT_OK


def _look(options: argparse.Namespace) -> Facts:
    root = root_of(options.host)
    if options.metrics is not None:
        root_of_metrics(options.metrics)
    if options.json is not None:
        _write_text(options.json, "")  # what cannot be written is said before anything is asked
    facts = look(options.host, root, options.metrics)
    if all(ask.answer is None for ask in facts.asks):
        why = ", ".join(sorted({ask.error for ask in facts.asks}))
        raise TargetError(
            f"--host {options.host}: none of the services answers ({why}); start the target, or correct the URL: it is "
            "what stands before /<service>/"
        )
    return facts


def root_of_metrics(url: str) -> str:
    try:
        return root_of(url)
    except TargetError as error:
        raise TargetError(str(error).replace("--host", "--metrics", 1)) from error


def report(facts: Facts, findings: Sequence[Finding]) -> list[str]:
    """The findings as a person reads them, with a verdict at the end."""
    width = max(len(finding.title) for finding in findings)
    lines = [f"{CONTRACT} at {bare(facts.host)}: {len(facts.asks)} requests in {facts.duration_s:.1f} s", ""]
    lines += [f"{'part':<{width}}  {'need':<11}  {'result':<9}  found"]
    lines += [f"{one.title:<{width}}  {one.need:<11}  {one.kept:<9}  {_short(one.found)}" for one in findings]
    lacking = [one for one in findings if one.lacks and one.kept is not Kept.UNKNOWN]
    if lacking:
        lines += ["", "What the data will lack:"]
    for one in lacking:
        lines += [f"  {one.title} ({one.kept}): {one.lacks}", f"    {one.way_out}."]
    return [*lines, "", _verdict(findings)]


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


def _verdict(findings: Sequence[Finding]) -> str:
    wrong = broken(findings)
    lesser = [one for one in findings if one.need is Need.RECOMMENDED and one.kept in (Kept.PARTLY, Kept.NO)]
    rest = f"; {len(lesser)} recommended parts are not" if lesser else ""
    if not wrong:
        return f"verdict: {CONTRACT} is kept, every required part{rest}"
    names = ", ".join(one.name for one in wrong)
    return f"verdict: {CONTRACT} is not kept: {len(wrong)} required parts are not ({names}){rest}"


def _write(file: Path, facts: Facts, findings: Sequence[Finding]) -> None:
    told = {
        "contract": CONTRACT,
        "host": facts.host,
        "kept": not broken(findings),
        "requests": len(facts.asks),
        "duration_s": round(facts.duration_s, 3),
        "instances": facts.instances(),
        "findings": [asdict(finding) for finding in findings],
    }
    _write_text(file, json.dumps(told, indent=2, allow_nan=False) + "\n")


def _write_text(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise TargetError(f"--json {file}: cannot be written ({error.strerror}); choose another place") from error


if __name__ == "__main__":
    sys.exit(main())

"""`python -m rl_hooks.report RUN_OR_BUNDLE`: is the data fit to train on? An HTML file, a JSON file, an exit code."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rl_hooks.export.bundle import DATASET, write_json
from rl_hooks.export.errors import ExportError
from rl_hooks.report.errors import ReportError
from rl_hooks.report.evidence import BUNDLE, read_evidence
from rl_hooks.report.judge import ReportCard, judge
from rl_hooks.report.page import page
from rl_hooks.report.pictures import pictures
from rl_hooks.report.thresholds import load_thresholds
from rl_hooks.report.verdict import Verdict
from rl_hooks.run_folder import RunFolderError
from rl_hooks.stores.fetch import run_folders
from rl_hooks.stores.place import is_s3
from rl_hooks.stores.store import StoreError
from scenario.errors import ScenarioError

EXIT_CANNOT_READ = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: fit to train on, or a demonstration; 1: not fit; 2: it cannot be read, with one message."""
    options = _parser().parse_args(arguments)
    try:
        if options.out is None and any(is_s3(path) for path in options.paths):
            raise ReportError("the report card of a run in S3 needs a place; give it with --out DIR")
        with run_folders(options.paths, options.cache) as paths:
            card = judge(read_evidence(paths), load_thresholds(options.config))
            html, json = write(card, options.out if options.out is not None else default_folder(paths))
    except (ReportError, ExportError, RunFolderError, ScenarioError, StoreError) as error:
        print(f"report: {error}", file=sys.stderr)
        return EXIT_CANNOT_READ
    for line in (*tally(card), f"report card  {html}", f"             {json}"):
        print(line)
    return card.overall.exit_code


def default_folder(paths: Sequence[Path]) -> Path:
    """Beside the data: in the bundle, in the bundle of the run folder, or in a run folder without one."""
    bundles = [path for path in paths if (path / DATASET).is_file()]
    if bundles:
        return bundles[0]
    inside = paths[0] / BUNDLE
    return inside if len(paths) == 1 and (inside / DATASET).is_file() else paths[0]


def write(card: ReportCard, folder: Path) -> tuple[Path, Path]:
    """Write report_card.html and report_card.json; the data files stay as they are."""
    html, json = folder / "report_card.html", folder / "report_card.json"
    text = page(card, pictures(card.case))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        html.write_text(text, encoding="utf-8")
        write_json(json, card.to_json())
    except OSError as error:
        way_out = "choose another place with --out"
        raise ReportError(f"{folder}: cannot be written ({error.strerror or error}); {way_out}") from error
    return html, json


def tally(card: ReportCard) -> list[str]:
    """What a person reads on the console: the verdict and what decided it."""
    counts = {verdict: sum(check.finding.verdict is verdict for check in card.checks) for verdict in Verdict}
    decided = [check for check in card.checks if check.name in card.overall.decided_by]
    return [
        f"verdict      {card.overall.fitness}",
        *(f"             {check.finding.verdict} {check.name}: {check.finding.found}" for check in decided),
        "checks       " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rl_hooks.report", description="Say whether recorded data is fit to train on, and why."
    )
    parser.add_argument(
        "paths",
        metavar="RUN_OR_BUNDLE",
        nargs="+",
        help="the folder of a run, s3://bucket/prefix/run_id, a bundle, or a bundle of several runs and all of these",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="where to write (default: beside the data)")
    parser.add_argument("--cache", metavar="DIR", type=Path, help="keeps runs of s3:// (default: a temporary folder)")
    parser.add_argument("--config", metavar="FILE", type=Path, help="YAML with thresholds that replace the defaults")
    return parser


if __name__ == "__main__":
    sys.exit(main())

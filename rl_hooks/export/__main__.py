"""`python -m rl_hooks.export RUN [RUN ...]`: turn run folders into a bundle, any number of times."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rl_hooks.export.bundle import write_bundle
from rl_hooks.export.dataset import assemble
from rl_hooks.export.errors import ExportError
from rl_hooks.export.facts import told
from rl_hooks.export.formats.table import FORMATS, PARQUET, describe_formats, find_writers
from rl_hooks.export.logs import write_logs
from rl_hooks.export.own_features import find_features
from rl_hooks.export.tally import tally
from rl_hooks.run_folder import RunFolderError
from rl_hooks.run_reader import read_run
from rl_hooks.stores.fetch import run_folders
from rl_hooks.stores.place import is_s3
from rl_hooks.stores.store import StoreError
from scenario.errors import ScenarioError

EXIT_OK, EXIT_BAD_INPUT, EXIT_GAPS = 0, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: exported; 2: refused or not written, with one message; 3: exported, but rows are missing."""
    options = _parser().parse_args(arguments)
    runs: list[str] = options.runs
    if options.out is None and (len(runs) > 1 or is_s3(runs[0])):
        what = "several runs" if len(runs) > 1 else "a run in S3"
        return _refuse(f"a bundle of {what} needs a place of its own; give it with --out DIR")
    if options.backfill and any(map(is_s3, runs)):
        return _refuse("--backfill is kept in the run folder, and a run in S3 is read only; copy the run here first")
    out: Path = options.out if options.out is not None else Path(runs[0]) / "bundle"
    try:
        formats, own = find_writers(options.format), find_features(options.feature)
        with run_folders(runs, options.cache) as folders:
            fetched = _fetched(folders, options.backfill) if options.backfill else []
            runs_read = [read_run(path) for path in folders]
            data = assemble(runs_read, exact_quantiles=options.exact_quantiles, own=own)
            write_bundle(data, out, formats)
            logs = write_logs(data, options.logs)
    except (ExportError, RunFolderError, ScenarioError, StoreError) as error:
        return _refuse(str(error))
    for line in (*fetched, *tally(out), *describe_formats(out, formats), *(f"log          {path}" for path in logs)):
        print(line)
    losses = [told(loss) for part in data.runs for loss in part.run.losses]
    if losses:
        marked = f"the gaps are marked in {out / 'dataset.json'}"
        print("\n  ".join([f"export: rows of the recording are missing; {marked}", *losses]), file=sys.stderr)
        return EXIT_GAPS
    return EXIT_OK


def _fetched(folders: Sequence[Path], source: str) -> list[str]:
    from rl_hooks.export.fetch_metrics import fetch_metrics  # here: an export asks nobody unless it is told to

    return fetch_metrics(folders, source)


def _refuse(message: str) -> int:
    print(f"export: {message}", file=sys.stderr)
    return EXIT_BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rl_hooks.export", description="Turn run folders into a bundle.")
    parser.add_argument("runs", metavar="RUN", nargs="+", help="the folder of a run, or s3://bucket/prefix/run_id")
    parser.add_argument("--out", metavar="DIR", type=Path, help="the bundle (default: RUN/bundle)")
    parser.add_argument("--cache", metavar="DIR", type=Path, help="keeps runs of s3:// (default: a temporary folder)")
    parser.add_argument("--logs", metavar="DIR", type=Path, default=Path("logs"), help="JSON files (default: logs)")
    known = f"{PARQUET} (always there), {', '.join(FORMATS)}, or module:attribute"
    parser.add_argument("--format", metavar="NAME[,NAME]", default=PARQUET, help=f"beside Parquet: {known}")
    what = "fetch metrics that decisions lacked: prometheus:URL or prometheus:FILE"
    parser.add_argument("--backfill", metavar="SOURCE", help=f"{what}; kept in the run folder")
    own = "adds a feature of your own (docs/extending.md); may be given several times"
    parser.add_argument("--feature", metavar="module:attribute", action="append", default=[], help=own)
    parser.add_argument("--exact-quantiles", action="store_true", help="instead of a histogram's, within 0.78 %%")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""`python -m rl_hooks.ship RUN_OR_RUNS --to PLACE`: bring what is recorded to a store, while it is recorded.

A process of its own, so that no store, however slow, is ever waited for by a process that sends requests. See
docs/shipping.md.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rl_hooks.ship.contents import find_runs, is_run
from rl_hooks.ship.run import RunShipping
from rl_hooks.ship.stop import Stop, TimeIsUp
from rl_hooks.stores.place import is_s3, open_store
from rl_hooks.stores.store import Store, StoreAwayError, StoreError

EXIT_SHIPPED, EXIT_BAD_INPUT, EXIT_LEFT = 0, 2, 3
EVERY_S = 10.0  # as often as segments are sealed
AGAIN_S, AGAIN_AT_MOST_S = 1.0, 60.0  # after a failure, doubled each time
LAST_PASS_S = 60.0  # after SIGTERM


class Shipping:
    """All runs at a place, on their way into a store."""

    def __init__(self, place: Path, store: Store, delete: bool) -> None:
        self._place = place
        self._store = store
        self._delete = delete
        self.runs: dict[Path, RunShipping] = {}

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to wait for: the one run we were given is over, and all of it is shipped."""
        return is_run(self._place) and all(run.is_over for run in self.runs.values())

    def left(self) -> list[str]:
        """What is not at the destination, one line each."""
        self._find()
        return [line for run in self.runs.values() if not run.is_over for line in run.left()]

    def ship(self, everything: bool) -> None:
        """One pass over all runs. Raises StoreError or OSError, when the rest is shipped all the same."""
        problem: StoreError | OSError | None = None
        self._find()
        for run in [run for run in self.runs.values() if not run.is_over]:
            try:
                run.ship(everything)
            except StoreAwayError:
                raise
            except (StoreError, OSError) as error:
                problem = error
            if run.is_over:
                print(f"shipped      {run.folder.name}: {run.files} files, {run.size / 1e6:.1f} MB", flush=True)
        if problem is not None:
            raise problem

    def _find(self) -> None:
        folders = find_runs(self._place)
        self.runs = {at: self.runs.get(at) or RunShipping(at, self._store, self._delete) for at in folders}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: everything is shipped; 2: it could not begin, with one message; 3: something is left, and what."""
    options = _parser().parse_args(arguments)
    place: Path = options.place
    try:
        _check(place, options.to, options.once)
        store = open_store(options.to, options.endpoint_url)
    except StoreError as error:
        return _refuse(error)
    stop, shipping = Stop(LAST_PASS_S), Shipping(place, store, options.delete_after_shipping)
    pace = "once" if options.once else f"every {options.every:g} s"
    print(f"shipping     {place} to {store.describe()}, {pace}", flush=True)
    try:
        _ask(store)
        _ship(shipping, stop, 0.0 if options.once else options.every)
        stop.no_more()
    except StoreError as error:
        return _refuse(error)
    except TimeIsUp:
        print(f"ship: the last pass did not end within {LAST_PASS_S:g} s", file=sys.stderr)
    if left := shipping.left():
        head = f"ship: not shipped to {store.describe()}, and still on this disk:"
        print("\n  ".join([head, *left]), file=sys.stderr)
        return EXIT_LEFT
    return EXIT_SHIPPED


def _refuse(error: StoreError) -> int:
    print(f"ship: {error}", file=sys.stderr)
    return EXIT_BAD_INPUT


def _check(place: Path, to: str, once: bool) -> None:
    """Raises StoreError when there is nothing to ship, or nowhere to ship it to."""
    if not place.is_dir():
        raise StoreError(f"{place}: there is no such folder; give the folder of a run, or the one that runs are in")
    runs = find_runs(place)
    if once and not runs:
        raise StoreError(f"{place}: neither a run folder nor one that has run folders in it")
    there = Path(to).resolve()
    if not is_s3(to) and (there.is_relative_to(place.resolve()) or there in {run.resolve().parent for run in runs}):
        raise StoreError(f"{to}: what is in {place} would be shipped onto itself; choose another place")


def _ask(store: Store) -> None:
    """Whether the store answers. Raises StoreError when it refuses, for later nobody may be there to read why."""
    try:
        next(iter(store.list("")), None)
    except StoreAwayError as error:
        print(f"ship: {error}; what is recorded stays on this disk until it is back", file=sys.stderr, flush=True)


def _ship(shipping: Shipping, stop: Stop, every_s: float) -> None:
    """Pass after pass until all is over or we are asked to end; 0: one pass. What keeps a pass from its end is told."""
    again_s, away_since_s = AGAIN_S, None
    while True:
        is_last = stop.asked
        try:
            shipping.ship(everything=is_last or not every_s)
        except (StoreError, OSError) as error:
            away_since_s = away_since_s or time.monotonic()
            way = "not tried again" if not every_s else f"trying again in {again_s:g} s"
            print(f"ship: {error}; {way}", file=sys.stderr, flush=True)
            pause_s, again_s = again_s, min(2 * again_s, AGAIN_AT_MOST_S)
        else:
            if away_since_s is not None:
                away_s = time.monotonic() - away_since_s
                print(f"ship: shipping again after {away_s:.0f} s", file=sys.stderr, flush=True)
            pause_s, again_s, away_since_s = every_s, AGAIN_S, None
            if is_last or shipping.is_over:
                return
        if not every_s:
            return
        stop.wait(pause_s)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rl_hooks.ship",
        description="Bring run folders to a shared folder or to S3 while they are written.",
        epilog="exit codes: 0 everything is shipped; 2 it could not begin; 3 something is left on this disk",
    )
    add = parser.add_argument
    add("place", metavar="RUN_OR_RUNS", type=Path, help="the folder of a run, or the one that runs are made in")
    add("--to", metavar="PLACE", required=True, help="s3://bucket/prefix, or a folder that is there; PLACE/<run_id>")
    add("--endpoint-url", metavar="URL", help="of the S3 server; by default boto3's own settings")
    add("--every", metavar="SECONDS", type=_seconds, default=EVERY_S, help="between two passes (default: 10)")
    add("--once", action="store_true", help="ship what there is now and end")
    add("--delete-after-shipping", action="store_true", help="delete sealed segments that are verified at PLACE")
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0, at most 3600")
    return seconds


if __name__ == "__main__":
    sys.exit(main())

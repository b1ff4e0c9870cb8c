"""`python -m rl_hooks.watch [RUN]`: how a run stands, read from its files while it goes on, until it ends.

Needs neither Locust nor a browser: it works beside a headless run, and on another machine that sees the folder. On a
terminal the lines are written anew every second; elsewhere they come every ten seconds and at every phase.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rl_hooks.run_folder import RunFolderError
from rl_hooks.run_reader import Run, read_run
from rl_hooks.standing import Standing, document
from rl_hooks.watch.follow import Follower, newest
from rl_hooks.watch.text import lines_of
from scenario.errors import ScenarioError

LOOK_EVERY_S, SAY_EVERY_S = 1.0, 10.0
EXIT_OK, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 2, 130
UP_AND_CLEAR = "\x1b[{}F\x1b[J"  # of a terminal: to the start of the line so many lines above, and clear from there


class Screen:
    """Where the lines go. `columns` is None where they do not go to a terminal."""

    def __init__(self, write: Callable[[str], object], columns: int | None) -> None:
        self._write = write
        self._columns = columns
        self._height = 0
        self._said: tuple[float, Any] = (-SAY_EVERY_S, None)

    def show(self, lines: Sequence[str], phase: str | None, now_s: float, *, last: bool) -> None:
        """On a terminal in place; elsewhere when there is something to say."""
        if self._columns is not None:
            back = UP_AND_CLEAR.format(self._height) if self._height else ""
            text = "".join(f"{line[: self._columns]}\n" for line in lines)  # a line that wraps would be two
            self._height = len(lines)
            self._write(back + text)
        elif last or phase != self._said[1] or now_s - self._said[0] >= SAY_EVERY_S:
            self._said = now_s, phase
            self._write("".join(f"{line}\n" for line in lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: the run has ended; 2: there is no such run, with one message; 130: Ctrl-C, and the run goes on."""
    options = _parser().parse_args(arguments)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    try:
        folder = options.run if options.run is not None else newest(options.runs)
        follow(folder, Screen(_say, columns))
    except (RunFolderError, ScenarioError) as error:
        print(f"watch: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read has seen enough; nothing is left to be flushed on the way out
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_OK


def follow(folder: Path, screen: Screen) -> None:
    """Look until the run has ended, then count what is missing."""
    follower = Follower(folder)
    while True:
        standing = follower.look()
        over = standing.state != "running"
        if over:
            standing = _counted(standing, read_run(folder))
        now = document(standing)
        screen.show(lines_of(now), now["phase"], time.monotonic(), last=over)
        if over:
            return
        time.sleep(LOOK_EVERY_S)


def _counted(standing: Standing, run: Run) -> Standing:
    """With the rows that are missing. Those of a process of which nothing is here may lie in a spool of its own."""
    here = {who.name for who in run.incarnations}
    elsewhere = {loss.incarnation: loss.missing_rows for loss in run.losses if loss.incarnation not in here}
    text = (
        f"nothing is here of {', '.join(sorted(elsewhere))}; if they have a --spool, ship that too (docs/shipping.md)"
    )
    trouble = [standing.trouble, text if elsewhere else None]
    return replace(
        standing,
        rows_lost=sum(loss.missing_rows for loss in run.losses),
        trouble="; ".join(one for one in trouble if one is not None) or None,
    )


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rl_hooks.watch", description="Follow a run by its files.")
    parser.add_argument("run", metavar="RUN", nargs="?", type=Path, help="the folder of a run (default: the newest)")
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="where runs are (default: runs)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

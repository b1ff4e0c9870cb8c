"""`python -m rl_hooks.faults lift RUN` takes back what a run that was killed left acting in its target.

`python -m rl_hooks.faults agent` is what a run starts; it reads its orders from the standard input.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rl_hooks.faults.agent import Agent, lift_left_over, run
from rl_hooks.faults.injector import InjectorError, make_injector
from rl_hooks.run_folder import EventWriter, RunFolderError
from rl_hooks.run_reader import read_run
from scenario.faults import PlanFault

EXIT_FAILED, EXIT_BAD_INPUT = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: done; 1: something could not be applied or lifted; 2: not a run folder, or no injector."""
    parser = argparse.ArgumentParser(prog="python -m rl_hooks.faults", description="Faults of a run.")
    commands = parser.add_subparsers(dest="command", required=True)
    lift = commands.add_parser("lift", help="take back what a run that was killed left acting in its target")
    lift.add_argument("run", metavar="RUN", type=Path, help="the folder of the run")
    commands.add_parser("agent", help="what a run starts; orders come on the standard input")
    options = parser.parse_args(arguments)
    if options.command == "lift":
        return _lift(options.run)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run decides when it is over; it closes the pipe
    return run(sys.stdin.buffer, _say)


def _lift(folder: Path) -> int:
    try:
        recorded = read_run(folder)
        told = recorded.manifest.get("faults") or {}
        injector = make_injector(told.get("injector_spec", "none"), told.get("root", ""))
        if injector is None:
            print(f"{folder}: the run had no fault injector, so it left nothing behind")
            return 0
        events = EventWriter(folder, "faults")
    except (RunFolderError, InjectorError) as error:
        print(f"faults: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    agent = Agent(injector, events, _say)
    faults = [PlanFault.from_json(fault) for fault in told["list"]]
    count = lift_left_over(recorded.events, faults, agent)
    events.close()
    print(f"{count} faults were in force, {'some could not be lifted' if agent.failed else 'none is now'}")
    return EXIT_FAILED if agent.failed else 0


def _say(line: str) -> None:
    clear = "\x1b[2K" if sys.stdout.isatty() else ""  # the run's progress may stand in this line
    print(f"{clear}{line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m rl_hooks.export.formats BUNDLE --format NAME[,NAME]`: formats of a bundle, without its run folders."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rl_hooks.export.errors import ExportError
from rl_hooks.export.formats.table import FORMATS, describe_formats, find_writers, write_formats

EXIT_OK, EXIT_BAD_INPUT = 0, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: written; 2: refused or not written, with one message."""
    options = _parser().parse_args(arguments)
    try:
        writers = find_writers(options.format)
        write_formats(options.bundle, writers)
    except ExportError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{options.bundle}: nothing can be written there ({error.strerror or error}); free some space")
    print("\n".join(describe_formats(options.bundle, writers)))
    return EXIT_OK


def _refuse(message: str) -> int:
    print(f"formats: {message}", file=sys.stderr)
    return EXIT_BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rl_hooks.export.formats", description="Formats of a bundle.")
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="the folder of a bundle")
    known = ", ".join(FORMATS)
    parser.add_argument("--format", metavar="NAME[,NAME]", required=True, help=f"{known}, or module:attribute")
    return parser


if __name__ == "__main__":
    sys.exit(main())

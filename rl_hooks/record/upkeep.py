"""Keeping the run folder ready for rows, off the event loop.

Allocating, checksums and renaming can take milliseconds on a slow disk. They run in the hub's pool of real threads,
so that no user's request waits for them.
"""

import itertools
from collections.abc import Callable

import gevent

from rl_hooks.run_folder import RunWriter

PERIOD_S = 0.5
SEAL_EVERY = 20  # periods: a segment is sealed at least every ten seconds, so that it can be shipped


def keep(writer: RunWriter, on_fault: Callable[[str], None]) -> None:
    """Run until killed; ends with `on_fault(message)` when the disk has no more room.

    A spare segment is allocated before the current one is used, so at that moment there is still room for many
    thousand rows: the requests in flight are recorded while the run ends.
    """
    pool = gevent.get_hub().threadpool
    for period in itertools.count(1):
        gevent.sleep(PERIOD_S)
        try:
            if period % SEAL_EVERY == 0:
                writer.rotate()
            error = pool.apply(_maintain, (writer,))
        except OSError as full:
            error = full
        if error is not None:
            on_fault(f"{writer.path}: no more room for rows ({error.strerror}); free some space and start again")
            return


def _maintain(writer: RunWriter) -> OSError | None:
    """What went wrong is returned: the pool prints a traceback of what is raised."""
    try:
        writer.maintain()
    except OSError as error:
        return error
    return None

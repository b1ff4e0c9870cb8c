"""Being asked to end: by SIGTERM, or by Ctrl-C."""

import os
import select
import signal
from types import FrameType


class TimeIsUp(BaseException):
    """The last pass has taken all the time it may. No Exception, so that no library takes it for one of its own."""


class Stop:
    """From construction on, the first signal sets `asked` and wakes who waits; `last_s` later TimeIsUp is raised.

    For the main thread of a process that does nothing else.
    """

    def __init__(self, last_s: float) -> None:
        self.asked = False
        self._last_s = last_s
        self._woken, self._wake = os.pipe()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)
        signal.signal(signal.SIGALRM, self._end)

    def wait(self, seconds: float) -> None:
        """Until then, or until the first signal."""
        if self.asked:  # the pipe stays full: the time is up when the alarm says so
            select.select([], [], [], seconds)
        else:
            select.select([self._woken], [], [], seconds)

    def no_more(self) -> None:
        """The last pass has ended in time."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if not self.asked:
            self.asked = True
            signal.setitimer(signal.ITIMER_REAL, self._last_s)
            os.write(self._wake, b".")

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        raise TimeIsUp

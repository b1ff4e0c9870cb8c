"""What a person sees while a run goes on.

One plain line at every phase and every ten seconds. On a terminal there is also a line that is written anew every
second and leaves nothing behind.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

EVERY_S = 10.0  # real seconds between two lines within a phase
CLEAR = "\x1b[2K"  # of a terminal: clear the line the cursor is in


@dataclass(frozen=True)
class Now:
    """How a run stands."""

    run_time_s: float
    phase: str | None  # None: outside the plan
    planned: Mapping[str, int]  # users per profile
    running: Mapping[str, int]  # users per profile
    sent: int  # requests, over all processes
    failed: int
    rows: int  # requests recorded, over all processes; those of workers are known with their last report
    rows_lost: int
    decisions: int
    faults: tuple[str, ...] = ()  # planned to be in force


class Progress:
    """Prints how a run stands. `write(text)` takes text as it is; `on_terminal` allows a line that is overwritten."""

    def __init__(self, duration_s: float, write: Callable[[str], None], *, on_terminal: bool = False) -> None:
        self._duration_s = duration_s
        self._write = write
        self._on_terminal = on_terminal
        self._next_s = 0.0
        self._phase: str | None = None
        self._before = (0.0, 0)  # run time and requests at the line before
        self._rate = 0.0

    def tick(self, now: Now) -> None:
        """Called about once a second."""
        if now.phase is None:
            return
        if now.phase != self._phase or now.run_time_s >= self._next_s:
            self._phase, self._next_s = now.phase, now.run_time_s + EVERY_S
            self._measure(now)
            self._write(f"{CLEAR if self._on_terminal else ''}{self._line(now)}\n")
        elif self._on_terminal:
            self._measure(now)
            # The cursor goes back to the start, so that whoever prints next writes over this line.
            self._write(f"{CLEAR}{self._line(now)}\r")

    def _measure(self, now: Now) -> None:
        then_s, then_sent = self._before
        self._rate = (now.sent - then_sent) / max(now.run_time_s - then_s, 1e-3)
        self._before = (now.run_time_s, now.sent)

    def _line(self, now: Now) -> str:
        planned, running = sum(now.planned.values()), sum(now.running.values())
        share = f"{100 * now.failed / now.sent:.2f} % failed" if now.sent else "none sent yet"
        left_s = max(0.0, self._duration_s - now.run_time_s)
        faults = f"  faults: {', '.join(now.faults)}" if now.faults else ""
        return (
            f"{_clock(now.run_time_s)} of {_clock(self._duration_s)}, {_clock(left_s)} left  {now.phase:<24} "
            f"{running:>3} of {planned:<3} users  {self._rate:6.0f} requests/s  {share}  {now.rows} rows, "
            f"{now.rows_lost} lost  {now.decisions} decisions{faults}"
        )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
